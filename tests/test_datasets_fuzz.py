"""Random data sets in every layout: `data check` exits with 0 exactly where a training begins; nothing ends in a traceback.

The data sets have damaged and odd files, unknown labels, weights, lists of classes, and options of their readers.
"""

import csv
import random
import tempfile
import warnings
from pathlib import Path

import pytest
from commands import udlib_command
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from odd_trees import MAKERS

from udlib.datasets import find_dataset
from udlib.datasets.checks import check
from udlib.datasets.layouts import source
from udlib.datasets.readable import require_readable
from udlib.datasets.training_splits import notes_on
from udlib.models import load
from udlib.workshop import measured, open_splits, settings, train_model

QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


def findings_of(root, options):
    """What `data check` says; an error of its own, which ends the command, is a finding, too."""
    try:
        findings = list(check(source(root, **options)))
    except (OSError, ValueError) as error:
        return [str(error)], []
    return [each.text for each in findings if each.wrong], [each.text for each in findings if not each.wrong]


def what_stops(root, options):
    """The error that stops a training before its first epoch, None where there is none; and what it prints before."""
    try:
        splits = open_splits(find_dataset(root, **options), 16)
        if options.get("missing") != "drop":
            for part in splits.values():
                require_readable(part)
    except (OSError, ValueError) as error:
        return error, []
    return None, notes_on(splits)


def agrees(root, options):
    """Compare the check with the opening of a training; returns whether it begins."""
    wrong, notes = findings_of(root, options)
    error, said = what_stops(root, options)
    assert (error is not None) == bool(wrong), f"a training says {error!r}, and the check says {wrong}"
    assert {*said} <= {*notes}, "what a training prints is what the check prints"
    for text in [*wrong, *notes, *([str(error)] if error else [])]:
        assert text[-1] not in ".:" and "\n" not in text, text
    if not options.keys() - {"missing"}:
        words = ("--missing", "drop") if options else ()
        code, _, err = udlib_command("data", "check", root, *words)
        assert code == (0 if error is None else 2 if err else 1) and len(err.splitlines()) <= 1, err
    return error is None


def data_set(layout, root, seed):
    """Write a random data set; returns options of its reader."""
    draw = random.Random(seed)
    options = MAKERS[layout](root, draw)
    return options | ({"missing": "drop"} if draw.random() < 0.4 else {})


def trained_and_measured_again(layout, folder, seed):
    """Train on a random data set where a training begins, and compare its numbers with later ones, to the last digit."""
    recipe = settings(network="small_narrow", epochs=1, batch_size=8, size=16)
    data, out, numbers = folder / "data", folder / "model", folder / "n.csv"
    data.mkdir()
    options = data_set(layout, data, seed)
    if not agrees(data, options):
        return
    place = find_dataset(data, **options)
    model = train_model(place, out, recipe)
    again, splits = load(out), open_splits(place, 16)
    assert model.metrics.keys() == splits.keys() - {"train"}
    for split in model.metrics:
        assert str(measured(again, splits[split], 8)) == str(model.metrics[split]) == str(again.metrics[split])
    assert train_model(place, out, recipe).metrics.keys() == model.metrics.keys()  # it is recognised
    if options.keys() - {"missing"}:
        return
    for split, stored in model.metrics.items():
        words = ("--missing", "drop") if options else ()
        command = ("evaluate", data, "--model", out, "--split", split, "--batch", 8, "--csv", numbers, *words)
        code, _, err = udlib_command(*command)
        assert code == 0, err
        (_, *kinds), *rows = csv.reader(numbers.open(newline="", encoding="utf-8"))
        for name, *values in rows:
            assert [str(stored[kind][name]) for kind in kinds] == [str(float(value)) for value in values], name


@pytest.mark.parametrize("layout", MAKERS)
@given(seed=st.integers(0, 2**32 - 1))
@limits(max_examples=8, **QUICK)
def test_the_check_and_the_training_agree(layout, seed):
    with tempfile.TemporaryDirectory() as folder:
        agrees(Path(folder), data_set(layout, Path(folder), seed))


@pytest.mark.slow
@pytest.mark.parametrize("layout", MAKERS)
@given(seed=st.integers(0, 2**32 - 1))
@limits(max_examples=60, **QUICK)
def test_the_check_and_the_training_agree_on_many_more_data_sets(layout, seed):
    with tempfile.TemporaryDirectory() as folder:
        agrees(Path(folder), data_set(layout, Path(folder), seed))


@pytest.mark.slow
@pytest.mark.parametrize("layout", MAKERS)
@given(seed=st.integers(0, 2**32 - 1))
@limits(max_examples=12, **QUICK)
def test_what_the_check_accepts_is_trained_and_measures_the_same_later(layout, seed):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained_and_measured_again(layout, Path(folder), seed)
