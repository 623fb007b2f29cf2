"""Error bars against SciPy, simulation and the cases in which there is none."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from udlib.statistics import (
    PairedDifference,
    bootstrap_interval,
    holm,
    paired_difference,
    paired_p_value,
    summary,
)

lists = st.lists(st.floats(-5, 5), min_size=2, max_size=8)


def test_the_paired_interval_is_that_of_scipys_paired_t_test():
    a, b = [0.76, 0.78, 0.75, 0.80, 0.79], [0.75, 0.76, 0.75, 0.78, 0.78]
    found = paired_difference(a, b, confidence=0.9)
    expected = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert found.n == 5


@pytest.mark.parametrize(("confidence", "quantile"), [(0.9, 2.1318468), (0.95, 2.7764451), (0.99, 4.6040949)])
def test_the_paired_interval_is_mean_and_standard_error_times_the_tabled_quantile(confidence, quantile):
    a, b = np.array([0.76, 0.78, 0.75, 0.80, 0.79]), np.array([0.75, 0.76, 0.75, 0.78, 0.78])
    differences = [0.01, 0.02, 0.0, 0.02, 0.01]
    half = quantile * math.sqrt(sum((d - 0.012) ** 2 for d in differences) / 4 / 5)  # quantiles of t with 4 degrees
    interval = paired_difference(a, b, confidence)
    assert (interval.low, interval.high) == pytest.approx((0.012 - half, 0.012 + half), abs=1e-9)
    alone = summary(a - b, confidence)
    assert (alone.low, alone.high) == (interval.low, interval.high)


def test_seeds_that_agree_have_an_interval_of_width_zero_and_no_warning(recwarn):
    interval = paired_difference([0.3, 0.4, 0.5], [0.2, 0.3, 0.4])
    assert (interval.low, interval.high) == pytest.approx((0.1, 0.1)) and interval.verdict == "higher"
    assert paired_difference([0.3] * 3, [0.3] * 3) == (0, 0, 0, 3)
    assert summary([0.25] * 4)[-3:] == (0.25, 0.25, 4)
    assert not recwarn.list


def test_the_verdict_says_higher_lower_or_not_detected():
    base = [0.5, 0.6, 0.7]
    assert paired_difference([0.61, 0.70, 0.81], base).verdict == "higher"
    assert paired_difference([0.39, 0.50, 0.59], base).verdict == "lower"
    assert paired_difference([0.51, 0.59, 0.70], base).verdict == "not detected"


def test_pairing_detects_what_the_spread_of_the_seeds_hides():
    seeds = np.random.default_rng(0).normal(0, 1, 6)
    a, b = seeds + 0.1 + np.array([0.01, -0.01] * 3), seeds
    assert paired_difference(a, b).verdict == "higher"
    assert stats.ttest_ind(a, b).pvalue > 0.5


def test_one_pair_has_no_interval_rather_than_one_of_width_zero():
    found = paired_difference([0.8], [0.7])
    assert found.mean == pytest.approx(0.1)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert found.verdict == "one pair, no interval"
    one = summary([0.8])
    assert (one.mean, one.best, one.worst, one.n) == (0.8, 0.8, 0.8, 1)
    assert all(math.isnan(x) for x in (one.std, one.low, one.high))


@settings(max_examples=30, deadline=None)
@given(lists, st.randoms(use_true_random=False))
def test_swapping_the_methods_mirrors_the_interval_and_the_order_of_the_seeds_does_not_matter(a, random):
    b = [random.uniform(-5, 5) for _ in a]
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    order = random.sample(range(len(a)), len(a))
    shuffled = paired_difference([a[i] for i in order], [b[i] for i in order])
    assert tuple(shuffled) == pytest.approx(tuple(there))


def test_the_paired_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = [
        (found := paired_difference(generator.normal(0.3, 1, 5), np.zeros(5), 0.8)).low <= 0.3 <= found.high
        for _ in range(2000)
    ]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)


def test_summary_gives_mean_sample_deviation_and_the_ends():
    found = summary([0.75, 0.78, 0.76])
    assert found.mean == pytest.approx(0.7633333)
    assert found.std == pytest.approx(np.std([0.75, 0.78, 0.76], ddof=1))
    assert (found.best, found.worst) == (0.78, 0.75)
    expected = stats.t.interval(0.95, 2, found.mean, found.std / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx(expected)


def test_the_best_ece_is_the_lowest():
    found = summary([0.03, 0.02, 0.05], higher_is_better=False)
    assert (found.best, found.worst) == (0.02, 0.05)


@pytest.mark.parametrize("kind", ["percentile", "basic"])
def test_the_bootstrap_of_a_mean_is_close_to_its_normal_interval(kind):
    values = torch.from_numpy(np.random.default_rng(0).normal(2, 3, 500))
    found = bootstrap_interval(lambda i: values[i].mean(), len(values), samples=2000, kind=kind)
    half = 1.96 * values.std().item() / math.sqrt(500)
    assert found.estimate == pytest.approx(values.mean().item())
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half), abs=0.03)


def test_the_basic_interval_mirrors_the_percentiles_about_the_estimate():
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=40))
    runs = {
        kind: bootstrap_interval(lambda i: values[i].max(), 40, samples=200, kind=kind)
        for kind in ("percentile", "basic")
    }
    assert runs["basic"].low == pytest.approx(2 * runs["basic"].estimate - runs["percentile"].high)
    assert runs["basic"].high == pytest.approx(2 * runs["basic"].estimate - runs["percentile"].low)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = torch.arange(30.0)

    def run(seed):
        return bootstrap_interval(lambda i: values[i].mean(), 30, samples=50, seed=seed)

    assert run(3) == run(3) != run(4)


def test_resamples_on_which_the_statistic_is_undefined_are_left_out():
    found = bootstrap_interval(lambda i: 1.0 if 0 in i else math.nan, 5, samples=50)
    assert (found.low, found.high) == (1, 1)
    with pytest.raises(ValueError, match="NaN on all 50 resamples"):
        bootstrap_interval(lambda i: math.nan, 5, samples=50)


def test_one_image_has_an_estimate_but_no_interval():
    found = bootstrap_interval(lambda i: 0.25, 1)
    assert found.estimate == 0.25 and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference([1, 2], [1]), "a has 2 values but b has 1: pair them by seed"),
        (lambda: paired_difference([], []), r"a have shape \(0,\)"),
        (lambda: summary([1, math.nan]), r"values hold nan at \[1\]: leave out runs"),
        (lambda: summary([1, 2], confidence=95), "confidence is 95: expected a fraction"),
        (lambda: bootstrap_interval(lambda i: 0, 0), "n is 0"),
        (lambda: bootstrap_interval(lambda i: 0, 3, kind="bca"), "unknown kind 'bca'"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_values_in_single_precision_are_averaged_in_double():
    values = [np.float32(0.1)] * 3 + [np.float32(1e8)]
    found = summary(np.array(values, dtype=np.float32))
    assert found.mean == np.mean(np.array(values, dtype=np.float64))
    assert found.std == pytest.approx(np.std(np.array(values, dtype=np.float64), ddof=1), rel=1e-12)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, math.nan])
def test_a_confidence_lies_strictly_between_zero_and_one(confidence):
    for call in (
        lambda: summary([1.0, 2.0], confidence),
        lambda: paired_difference([1.0, 2.0], [0.0, 0.0], confidence),
        lambda: bootstrap_interval(lambda i: 0.0, 3, confidence=confidence),
        lambda: summary([1.0], confidence),
    ):
        with pytest.raises(ValueError, match=f"confidence is {confidence}: expected a fraction"):
            call()


def test_the_usual_confidence_is_95_per_cent():
    a, b = [0.76, 0.78, 0.75], [0.75, 0.76, 0.77]
    assert paired_difference(a, b) == paired_difference(a, b, 0.95) and summary(a) == summary(a, 0.95, True)
    values = torch.arange(30.0)

    def mean(rows):
        return values[rows].mean()

    assert bootstrap_interval(mean, 30) == bootstrap_interval(mean, 30, 1000, 0, 0.95, "percentile")


def test_the_bootstrap_takes_the_quantiles_of_so_many_resamples():
    values = torch.from_numpy(np.random.default_rng(1).normal(size=20))
    drawn = []

    def mean(rows):
        drawn.append(rows)
        return values[rows].mean()

    found = bootstrap_interval(mean, 20, samples=40, seed=5, confidence=0.8)
    assert torch.equal(drawn[0], torch.arange(20)) and len(drawn) == 41
    generator = np.random.default_rng(5)
    assert all(torch.equal(rows, torch.from_numpy(generator.integers(20, size=20))) for rows in drawn[1:])
    expected = np.quantile([values[rows].mean() for rows in drawn[1:]], [0.1, 0.9])
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_an_interval_that_touches_zero_detects_nothing_and_two_pairs_are_enough_for_one():
    assert PairedDifference(0.1, 0.0, 0.2, 5).verdict == "not detected"
    assert PairedDifference(-0.1, -0.2, 0.0, 5).verdict == "not detected"
    assert paired_difference([2.0, 2.001], [1.0, 1.0]).verdict == "higher"


@pytest.mark.parametrize("samples, n", [(0, 3), (-1, 3), (5, 0)])
def test_a_bootstrap_needs_an_image_and_a_sample(samples, n):
    with pytest.raises(ValueError, match=f"n is {n} and samples is {samples}: expected at least 1"):
        bootstrap_interval(lambda i: 0.0, n, samples)
    assert bootstrap_interval(lambda i: 0.5, 2, 1) == (0.5, 0.5, 0.5)


def test_a_single_run_is_summarised_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(summary([0.8]).std)
        assert math.isnan(paired_difference([0.8], [0.7]).low)


# p values


@given(lists, st.floats(0.1, 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_p_value_is_scipys_and_below_a_twentieth_where_the_interval_excludes_0(values, spread, seed):
    a = np.array(values)
    b = a + np.random.default_rng(seed).normal(0.5, spread, len(a))
    p, interval = paired_p_value(a, b), paired_difference(a, b)
    assert p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
    if abs(p - 0.05) > 1e-9:
        assert (p < 0.05) == (interval.low > 0 or interval.high < 0)


def test_p_values_of_pairs_that_leave_no_doubt_and_of_one_pair():
    assert paired_p_value([0.5, 1.5], [0.25, 1.25]) == 0.0 and paired_p_value([0.5, 1.5], [0.5, 1.5]) == 1.0
    assert math.isnan(paired_p_value([1.0], [2.0]))
    with pytest.raises(ValueError, match="a has 2 values but b has 1: pair them by seed"):
        paired_p_value([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="b hold nan at"):
        paired_p_value([1.0, 2.0], [1.0, math.nan])


def step_down(values):
    """Holm's procedure literally: the smallest level at which each hypothesis is rejected, by bisection."""

    def rejected(level):
        order, reject = np.argsort(values, kind="stable"), np.zeros(len(values), bool)
        for rank, k in enumerate(order):
            if values[k] > level / (len(values) - rank):
                break
            reject[k] = True
        return reject

    low, high = np.zeros(len(values)), np.ones(len(values))
    for _ in range(50):
        middle = (low + high) / 2
        yes = np.array([rejected(middle[k])[k] for k in range(len(values))])
        low, high = np.where(yes, low, middle), np.where(yes, middle, high)
    return high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_a_corrected_value_is_the_smallest_level_at_which_holms_procedure_rejects(values):
    assert holm(values) == pytest.approx(list(step_down(values)), abs=1e-9)


def test_the_correction_of_rs_documentation_and_of_none():
    """R 4.3: round(p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), 2)."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.05, 0.01, 0.04]) == pytest.approx([0.08, 0.03, 0.08]), "in the order in which they came"
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_has_no_correction(wrong):
    with pytest.raises(ValueError, match=f"p_values hold {wrong}: expected probabilities"):
        holm([0.5, wrong])
