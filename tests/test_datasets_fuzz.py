"""Random data sets in every layout: `data check` exits with 0 exactly where a training begins; nothing ends in a traceback."""

import random
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from odd_trees import MAKERS

from udlib.datasets.checks import check
from udlib.datasets.layouts import source
from udlib.datasets.training_splits import notes_on
from udlib.workshop import measured, open_splits, settings, train_model

QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


def findings_of(root):
    """What `data check` says; an error of its own, which ends the command, is a finding, too."""
    try:
        findings = list(check(source(root)))
    except (OSError, ValueError) as error:
        return [str(error)], []
    return [each.text for each in findings if each.wrong], [each.text for each in findings if not each.wrong]


def agrees(root):
    """Compare the check with the opening of a training; returns whether it begins."""
    wrong, notes = findings_of(root)
    broken = [text for text in wrong if "cannot be decoded" in text]
    try:
        splits = open_splits(root, 16)
    except (OSError, ValueError) as error:
        assert wrong, f"a training stops, and the check is silent: {error}"
        assert str(error)[-1] not in ".:" and "\n" not in str(error)
        return False
    if broken == wrong:  # decoded when the training begins
        assert set(notes_on(splits)) <= set(notes) or broken
        return not wrong
    raise AssertionError(f"the check says {wrong}, and a training begins")


@pytest.mark.parametrize("layout", MAKERS)
@given(seed=st.integers(0, 2**32 - 1))
@limits(max_examples=25, **QUICK)
def test_the_check_and_the_training_agree(layout, seed):
    with tempfile.TemporaryDirectory() as folder:
        MAKERS[layout](Path(folder), random.Random(seed))
        agrees(folder)


@pytest.mark.slow
@pytest.mark.parametrize("layout", MAKERS)
@given(seed=st.integers(0, 2**32 - 1))
@limits(max_examples=12, **QUICK)
def test_what_the_check_accepts_is_trained_and_measures_the_same_later(layout, seed):
    recipe = settings(network="small_narrow", epochs=1, batch_size=8, size=16)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data, out = Path(folder) / "data", Path(folder) / "model"
        data.mkdir()
        MAKERS[layout](data, random.Random(seed))
        if agrees(data):
            model = train_model(data, out, recipe)
            for split, part in open_splits(data, 16).items():
                if split in model.metrics:
                    assert str(measured(model, part)) == str(model.metrics[split])
