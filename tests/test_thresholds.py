"""Each class's F1-optimal threshold, against every other threshold; and decisions with a threshold for each class."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from udlib.metrics import best_thresholds, precision_recall_f1
from udlib.metrics.thresholds import FEW, few_positives

few = settings(max_examples=60, deadline=None)
pytestmark = pytest.mark.filterwarnings("ignore:classes .* fewer than")


@st.composite
def probabilities(draw):
    """p, targets and ignore of up to 20 images, with ties, neighbouring floats and both ends of [0, 1]."""
    n, classes = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    near = st.sampled_from([0.3, float(np.nextafter(np.float32(0.3), np.float32(1))), 0.0, 1.0, 0.5])
    values = st.one_of(near, st.integers(0, 10).map(lambda k: k / 10), st.floats(0, 1, width=32))
    cells = n * classes
    p = torch.tensor(draw(st.lists(values, min_size=cells, max_size=cells))).reshape(n, classes)
    masks = [draw(st.lists(st.booleans(), min_size=cells, max_size=cells)) for _ in range(2)]
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return p.to(dtype), *(torch.tensor(mask).reshape(n, classes) for mask in masks)


def f1_of_class(p, targets, ignore, threshold):
    """F1 of one class by counting; 0 where nothing is predicted and nothing is there."""
    pairs = [(said >= threshold, there) for said, there, left_out in zip(p, targets, ignore) if not left_out]
    hits, claims, actual = (
        sum(f(*pair) for pair in pairs) for f in (lambda a, b: a and b, lambda a, b: a, lambda a, b: b)
    )
    return 2 * hits / (claims + actual) if claims + actual else 0.0


@few
@given(probabilities())
def test_no_other_threshold_has_a_higher_f1(case):
    p, targets, ignore = case
    thresholds = best_thresholds(p, targets, ignore)
    assert thresholds.shape == (p.shape[1],) and ((thresholds >= 0) & (thresholds <= 1)).all()
    for k, threshold in enumerate(thresholds.to(p.dtype).tolist()):
        columns = p[:, k].tolist(), targets[:, k].tolist(), ignore[:, k].tolist()
        best = max(f1_of_class(*columns, other) for other in [0.0, *columns[0], 1.0])
        assert f1_of_class(*columns, threshold) == best


def test_the_f1_at_the_threshold_is_the_highest_of_scikit_learn():
    generator = np.random.default_rng(0)
    targets = generator.random((300, 4)) < 0.3
    p = (generator.random((300, 4)) + targets).clip(0, 1.4) / 1.4
    for k, threshold in enumerate(best_thresholds(p, targets).tolist()):
        by_threshold = [f1_score(targets[:, k], p[:, k] >= other) for other in np.unique(p[:, k])]
        assert f1_score(targets[:, k], p[:, k] >= threshold) == pytest.approx(max(by_threshold), abs=1e-12)


def test_the_threshold_is_the_middle_between_the_two_probabilities_that_it_parts():
    assert best_thresholds([[0.9], [0.8], [0.2], [0.1]], [[1], [1], [0], [0]]).tolist() == [0.5]
    assert best_thresholds([[0.6], [0.4]], [[1], [1]]).tolist() == [0.2], "nothing is below the last, but 0"


def test_between_equal_f1_the_fewest_labels_are_predicted():
    # {first} has precision 1 and recall 1/2: F1 2/3. All four have precision 1/2 and recall 1: F1 2/3.
    assert best_thresholds([[0.9], [0.5], [0.4], [0.1]], [[1], [0], [0], [1]]).tolist() == [pytest.approx(0.7)]


def test_a_class_without_positives_keeps_one_half():
    assert best_thresholds([[0.9, 0.9], [0.2, 0.2]], [[0, 1], [0, 0]]).tolist() == [0.5, pytest.approx(0.55)]


def test_ignored_entries_do_not_count_whatever_they_hold():
    p = torch.tensor([[0.9], [0.6], [float("nan")]])
    ignore = torch.tensor([[False], [False], [True]])
    assert best_thresholds(p, [[1], [0], [1]], ignore).tolist() == [pytest.approx(0.75)]


def test_classes_of_few_positives_are_named_in_a_warning():
    p, targets = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(40, 3)
    targets[:FEW, 0], targets[: FEW - 1, 1] = 1, 1
    assert few_positives(targets) == {1: FEW - 1, 2: 0}
    with pytest.warns(UserWarning, match=r"classes \[1, 2\] have fewer than 10 positives"):
        best_thresholds(p, targets)
    ignore = torch.zeros(40, 3, dtype=torch.bool)
    ignore[0] = True
    assert few_positives(targets, ignore) == {0: FEW - 1, 1: FEW - 2, 2: 0}


def test_decisions_take_a_threshold_for_each_class():
    p, targets = [[0.6, 0.6], [0.4, 0.4]], [[1, 1], [1, 0]]
    both = precision_recall_f1(p, targets, threshold=[0.3, 0.5])
    assert (both["CP"], both["CR"], both["OF1"]) == (1, 1, 1)
    assert precision_recall_f1(p, targets, (0.5, 0.5)) == precision_recall_f1(p, targets)
    single = torch.tensor([[0.3, 0.7]])
    assert precision_recall_f1(single, [[1, 1]], torch.tensor([0.3, 0.7], dtype=torch.float64))["OR"] == 1


@pytest.mark.parametrize(
    ("threshold", "complaint"),
    [
        ([0.5], r"threshold has shape \(1,\): expected one number, or 2, one for each class"),
        ([[0.5, 0.5]], r"threshold has shape \(1, 2\)"),
        ([0.5, 1.5], r"threshold is \[0.5, 1.5\]: expected a probability in \[0, 1\]"),
        (float("nan"), "threshold is nan"),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(threshold, complaint):
    with pytest.raises(ValueError, match=complaint):
        precision_recall_f1([[0.6, 0.6]], [[1, 1]], threshold)
