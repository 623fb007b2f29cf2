"""What a lesson says of its numbers, against scipy's paired t test and by hand."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from udlib.course import sentences as telling
from udlib.course.recipes import baseline
from udlib.statistics import PairedDifference

A, B = [0.75, 0.77, 0.73, 0.76], [0.70, 0.74, 0.72, 0.71]


def test_a_difference_is_scipys_paired_interval():
    interval, expected = telling.difference(A, B), ttest_rel(A, B).confidence_interval(0.95)
    assert interval[1:3] == pytest.approx((expected.low, expected.high)) and interval.mean == pytest.approx(
        np.subtract(A, B).mean()
    )


def test_seeds_without_a_measurement_leave_in_pairs():
    some, other = [A[0], np.nan, *A[2:]], [*B[:3], np.nan]
    assert telling.difference(some, other) == telling.difference([A[0], A[2]], [B[0], B[2]])
    nothing = telling.difference([np.nan, 1.0], [1.0, np.nan])
    assert nothing.n == 0 and np.isnan(nothing[:3]).all() and nothing.verdict == "one pair, no interval"


def test_without_a_second_arm_it_is_the_interval_of_the_mean():
    assert telling.difference(A) == telling.difference(A, np.zeros(4)) and telling.difference(
        A, 0.7
    ).mean == pytest.approx(0.0525)


@pytest.mark.parametrize("count", [3, 1])
def test_a_length_that_does_not_fit_is_refused(count):
    with pytest.raises(ValueError, match=rf"a has shape \(4,\) and b \({count},\): give both a value for each seed"):
        telling.difference(A, B[:count])


def test_differences_count_what_they_drew_and_what_excludes_0():
    difference = telling.Differences()
    clear, unclear, none = difference(A, B), difference([0.1, -0.1, 0.1, -0.1]), difference([np.nan])
    assert difference.drawn == [clear, unclear, none] and clear == telling.difference(A, B)
    for _ in range(37):
        difference([0.1, -0.1])
    assert difference.count().startswith("This lesson has 40 intervals over seeds, and 1 of them exclude 0.")
    assert "about 2 would" in difference.count()


def test_units_of_a_difference():
    assert (
        telling.in_units(PairedDifference(-0.01234, -0.02, -0.004, 5), 1, 4, " nats")
        == "-0.0123 nats [-0.0200, -0.0040]"
    )


def test_a_sentence_is_shown_as_markdown(monkeypatch):
    outputs = []
    monkeypatch.setattr("IPython.display.display", outputs.append)
    telling.say("**so**")
    assert [each.data for each in outputs] == ["**so**"]


def test_runs_are_one_for_each_seed_and_two_where_only_the_path_is_tried(monkeypatch):
    requested = []
    monkeypatch.setattr(telling, "load_or_run", lambda chosen: requested.append(chosen) or chosen)
    recipes = [baseline(seed=seed) for seed in range(3)]
    assert telling.runs(iter(recipes)) == requested == recipes
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    assert telling.runs(recipes) == recipes[:2]


def test_trained_asks_for_what_runs_would_load(monkeypatch):
    recipes = [baseline(seed=seed) for seed in range(3)]
    monkeypatch.setattr(telling, "load", lambda chosen: "a run" if chosen.training.seed < 2 else None)
    assert telling.trained(recipes[:2]) and not telling.trained(recipes)
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    assert telling.trained(recipes)


def test_a_metric_that_was_not_measured_is_nan():
    class Some:
        metrics = {"val": {"mAP": 0.5}, "test": {"mAP": 0.25}}

    assert telling.stored([Some(), Some()], "mAP").tolist() == [0.25, 0.25]
    assert (
        telling.stored([Some()], "mAP", "val").tolist() == [0.5] and np.isnan(telling.stored([Some()], "CorLoc")).all()
    )
