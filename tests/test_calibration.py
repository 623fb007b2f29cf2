"""Calibration errors against torchmetrics, scikit-learn, literal loops, and models whose truth is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error

from udlib.calibration import (
    brier_score,
    calibration_interval,
    calibration_noise,
    confident_calibration_error,
    expected_brier_floor,
    expected_calibration_error,
    expected_nll_floor,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    true_calibration_error,
)

ERRORS = (expected_calibration_error, confident_calibration_error, maximum_calibration_error)


def simulated(n=2000, classes=5, seed=0, sharpness=1.5):
    """Posterior, a predictor that exaggerates its log odds by `sharpness`, and labels drawn from the posterior."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, classes, generator=generator, dtype=torch.float64) * 1.5 - 1
    posterior = torch.sigmoid(z)
    return posterior, torch.sigmoid(sharpness * z), torch.bernoulli(posterior, generator=generator).long()


def literal_bins(p, y, bins, binning):
    """Entries of each bin, by a loop over entries: closed on the left, p = 1 in the last."""
    if binning == "width":
        edges = [i / bins for i in range(1, bins)]
    else:
        edges = [sorted(p)[i * len(p) // bins] for i in range(1, bins)] if p else []
    members = [[] for _ in range(bins)]
    for value, label in zip(p, y):
        members[sum(value >= edge for edge in edges)].append((value, label))
    return members


def literal_ece(p, y, bins, binning):
    members = literal_bins(p, y, bins, binning)
    gaps = [abs(sum(y - p for p, y in m)) for m in members if m]  # weight · gap = abs(Σ y − Σ p) / N
    return sum(gaps) / len(p)


@st.composite
def predictions(draw):
    n, classes = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    tenths = st.integers(0, 10).map(lambda x: x / 10)  # edges of the bins, and ties

    def lists(values):
        return st.lists(values, min_size=n * classes, max_size=n * classes)

    def cells(values):
        return torch.tensor(draw(lists(values))).reshape(n, classes)

    return cells(st.one_of(tenths, st.floats(0, 1))).double(), cells(st.booleans()), cells(st.booleans())


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_classwise_ece_is_the_mean_of_torchmetrics_binary_error_over_the_columns(bins):
    _, p, y = simulated()
    expected = [binary_calibration_error(p[:, c], y[:, c], n_bins=bins).item() for c in range(5)]
    assert expected_calibration_error(p, y, bins) == pytest.approx(np.mean(expected), abs=1e-6)


def test_pooled_ece_is_torchmetrics_binary_error_of_all_pairs():
    _, p, y = simulated()
    expected = binary_calibration_error(p.flatten(), y.flatten(), n_bins=15).item()
    assert expected_calibration_error(p, y, average="pooled") == pytest.approx(expected, abs=1e-6)


def test_maximum_calibration_error_is_that_of_torchmetrics():
    _, p, y = simulated()
    expected = [binary_calibration_error(p[:, c], y[:, c], n_bins=15, norm="max").item() for c in range(5)]
    assert maximum_calibration_error(p, y) == pytest.approx(np.mean(expected), abs=1e-6)
    pooled = binary_calibration_error(p.flatten(), y.flatten(), n_bins=15, norm="max").item()
    assert maximum_calibration_error(p, y, average="pooled") == pytest.approx(pooled, abs=1e-6)


@pytest.mark.parametrize(("binning", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_the_reliability_curve_is_scikit_learns_calibration_curve(binning, strategy):
    _, p, y = simulated()
    curve = reliability_curve(p, y, bins=10, binning=binning)
    for c in range(5):
        frequency, confidence = calibration_curve(y[:, c], p[:, c], n_bins=10, strategy=strategy)
        filled = curve.count[c] > 0
        np.testing.assert_allclose(curve.frequency[c][filled], frequency)
        np.testing.assert_allclose(curve.confidence[c][filled], confidence)


@settings(max_examples=60, deadline=None)
@given(predictions(), st.sampled_from([1, 2, 5, 10]), st.sampled_from(["width", "mass"]), st.sampled_from([0.0, 0.5]))
def test_both_averages_equal_the_literal_loop_with_masks_ties_and_a_minimum(case, bins, binning, minimum):
    p, y, ignore = case
    counted = ~ignore & (p >= minimum)
    columns = [(p[k, c].tolist(), y[k, c].tolist()) for c, k in enumerate(counted.T) if k.any()]
    options = dict(bins=bins, binning=binning, minimum=minimum, ignore=ignore)
    classwise = expected_calibration_error(p, y, **options)
    pooled = expected_calibration_error(p, y, average="pooled", **options)
    if not columns:
        assert math.isnan(classwise) and math.isnan(pooled)
        return
    assert classwise == pytest.approx(np.mean([literal_ece(*column, bins, binning) for column in columns]), abs=1e-12)
    assert pooled == pytest.approx(literal_ece(p[counted].tolist(), y[counted].tolist(), bins, binning), abs=1e-12)
    assert 0 <= classwise <= 1


def test_bins_are_closed_on_the_left_and_the_last_holds_one_in_single_and_double_precision():
    values = [i / 10 for i in range(11)]
    for dtype in (torch.float32, torch.float64):
        p = torch.tensor(values, dtype=dtype)[:, None]
        curve = reliability_curve(p, torch.zeros(11, 1), bins=10)
        assert curve.count[0].tolist() == [1] * 9 + [2]
        assert curve.edges[0].tolist() == pytest.approx(values)


def test_an_empty_bin_has_no_confidence_no_frequency_and_no_weight():
    curve = reliability_curve([[0.1], [0.9]], [[0], [1]], bins=3, average="pooled")
    assert curve.count.tolist() == [1, 0, 1]
    assert curve.confidence.isnan().tolist() == curve.frequency.isnan().tolist() == curve.gap.isnan().tolist()
    assert curve.confidence.isnan().tolist() == [False, True, False]


def test_mass_bins_hold_equally_many_entries_and_ties_never_part():
    _, p, y = simulated(n=300)
    assert reliability_curve(p, y, bins=15, binning="mass").count.unique().tolist() == [20]
    tied = reliability_curve(torch.full((30, 1), 0.4), torch.zeros(30, 1), bins=5, binning="mass")
    assert sorted(tied.count[0].tolist()) == [0, 0, 0, 0, 30]
    assert tied.edges[0, [0, -1]].tolist() == [0, 1]


def test_ece_by_hand():
    # bin [0, .5): mean p .2, 1 of 2 positive, gap .3; bin [.5, 1]: mean p .9, 1 of 2, gap .4
    p, y = [[0.1], [0.3], [0.8], [1.0]], [[1], [0], [1], [0]]
    assert expected_calibration_error(p, y, bins=2) == pytest.approx(0.35)
    assert confident_calibration_error(p, y, bins=2) == pytest.approx(0.4)
    assert maximum_calibration_error(p, y, bins=2) == pytest.approx(0.4)


def test_pooling_cancels_opposite_errors_of_two_classes_and_the_classwise_mean_does_not():
    p = torch.full((10, 2), 0.5)
    y = torch.tensor([[1, 0]]).expand(10, 2)
    assert expected_calibration_error(p, y) == pytest.approx(0.5)
    assert expected_calibration_error(p, y, average="pooled") == 0


def test_easy_negatives_hide_an_overconfident_model_from_pooled_ece_but_not_from_the_confident_one():
    p = torch.cat([torch.full((20, 1), 0.9), torch.full((980, 1), 0.01)])
    y = torch.zeros(1000, 1)
    y[:10] = 1  # half of the 20 confident claims are wrong
    assert expected_calibration_error(p, y, average="pooled") < 0.02
    assert confident_calibration_error(p, y, average="pooled") == pytest.approx(0.4)


def test_no_confident_entry_makes_the_confident_error_undefined_and_a_class_without_one_is_left_out():
    assert math.isnan(confident_calibration_error([[0.1], [0.4]], [[0], [1]]))
    assert math.isnan(maximum_calibration_error([[0.1]], [[0]], minimum=0.5))
    assert confident_calibration_error([[0.1, 0.8]], [[0, 1]]) == pytest.approx(0.2)


def test_a_perfectly_calibrated_predictor_looks_miscalibrated_on_few_images_and_ece_falls_to_zero_on_many():
    found = [
        expected_calibration_error(posterior, y)
        for posterior, _, y in (simulated(n, seed=1) for n in (100, 1000, 100_000))
    ]
    assert found[0] > 0.05 > found[1] > 0.01 > found[2]
    posterior, _, _ = simulated(100_000)
    assert true_calibration_error(posterior, posterior) == 0


def test_calibration_noise_is_what_a_calibrated_model_shows():
    shown = [
        expected_calibration_error(posterior, y) for posterior, _, y in (simulated(300, seed=s) for s in range(40))
    ]
    assert calibration_noise(simulated(300)[0]) == pytest.approx(np.mean(shown), rel=0.1)
    assert calibration_noise(torch.tensor([[0.0, 1.0]])) == 0


def test_the_true_calibration_error_is_where_the_estimate_goes_when_labels_abound():
    posterior, p, _ = simulated()
    truth = true_calibration_error(p, posterior)
    generator = torch.Generator().manual_seed(1)
    many = torch.bernoulli(posterior.repeat(200, 1), generator=generator)
    assert truth > 0.04
    assert expected_calibration_error(p.repeat(200, 1), many) == pytest.approx(truth, abs=0.003)


def test_the_true_calibration_error_equals_the_literal_loop():
    posterior, p, _ = simulated(100)
    ignore = torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    columns = [literal_ece(p[k, c].tolist(), posterior[k, c].tolist(), 15, "width") for c, k in enumerate(~ignore.T)]
    assert true_calibration_error(p, posterior, ignore=ignore) == pytest.approx(np.mean(columns))
    pooled = literal_ece(p[~ignore].tolist(), posterior[~ignore].tolist(), 15, "width")
    assert true_calibration_error(p, posterior, average="pooled", ignore=ignore) == pytest.approx(pooled)


def test_brier_and_nll_are_those_of_scikit_learn():
    _, p, y = simulated()
    ignore = torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y.flatten(), p.flatten()))
    assert negative_log_likelihood(p, y) == pytest.approx(log_loss(y.flatten(), p.flatten()))
    assert brier_score(p, y, ignore) == pytest.approx(brier_score_loss(y[~ignore], p[~ignore]))
    assert negative_log_likelihood(p, y, ignore) == pytest.approx(log_loss(y[~ignore], p[~ignore]))


def test_nll_of_a_certain_miss_is_large_and_finite():
    assert negative_log_likelihood([[1.0]], [[0]]) == pytest.approx(-math.log(1e-7))
    assert negative_log_likelihood(torch.ones(1, 1), [[0]], clip=0.01) == pytest.approx(-math.log(0.01))
    assert negative_log_likelihood([[1.0, 0.0]], [[1, 0]]) == pytest.approx(0, abs=1e-6)


def test_the_floors_are_the_expected_scores_of_the_posterior_and_no_predictor_beats_them():
    posterior, p, y = simulated(200_000)
    assert negative_log_likelihood(posterior, y) == pytest.approx(expected_nll_floor(posterior), rel=0.005)
    assert brier_score(posterior, y) == pytest.approx(expected_brier_floor(posterior), rel=0.005)
    assert negative_log_likelihood(p, y) > expected_nll_floor(posterior)
    assert brier_score(p, y) > expected_brier_floor(posterior)
    assert expected_nll_floor([[0.0, 1.0]]) == expected_brier_floor([[0.0, 1.0]]) == 0
    assert expected_nll_floor([[0.5, 0.0]], ignore=np.array([[False, True]])) == pytest.approx(math.log(2))


def test_the_basic_interval_holds_the_true_error_far_more_often_than_percentiles_of_the_resamples():
    posterior, p, _ = simulated(100_000, sharpness=1.2)
    truth = true_calibration_error(p, posterior, average="pooled")
    few = p[:50], p[:50] > 0.5
    assert calibration_interval(brier_score, *few, samples=5) == calibration_interval(
        brier_score, *few, samples=5, kind="basic"
    )
    hits = {"basic": 0, "percentile": 0}
    for trial in range(10):
        _, p, y = simulated(500, seed=trial, sharpness=1.2)
        for kind in hits:
            found = calibration_interval(expected_calibration_error, p, y, samples=60, kind=kind, average="pooled")
            assert found.estimate == pytest.approx(expected_calibration_error(p, y, average="pooled"), abs=1e-12)
            hits[kind] += found.low <= truth <= found.high
    assert hits["basic"] >= 8 > 5 >= hits["percentile"]


def test_intervals_take_options_masks_and_a_posterior_and_stay_at_or_above_zero():
    posterior, p, y = simulated(60)
    ignore = torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    found = calibration_interval(true_calibration_error, p, posterior, ignore, samples=50, average="pooled", bins=5)
    assert found.estimate == true_calibration_error(p, posterior, 5, "pooled", ignore=ignore)
    assert 0 <= found.low < found.high
    exact = calibration_interval(true_calibration_error, posterior, posterior, samples=20)
    assert tuple(exact) == (0, 0, 0)
    assert math.isnan(calibration_interval(brier_score, p[:1], y[:1]).low)


@settings(max_examples=30, deadline=None)
@given(
    predictions(), st.sampled_from(ERRORS), st.sampled_from(["classwise", "pooled"]), st.randoms(use_true_random=False)
)
def test_neither_the_order_of_images_nor_what_is_ignored_matters(case, error, average, random):
    p, y, ignore = case
    expected = error(p, y, average=average, ignore=ignore)
    order = random.sample(range(len(p)), len(p))
    assert error(p[order], y[order], average=average, ignore=ignore[order]) == pytest.approx(expected, nan_ok=True)
    noise = torch.tensor([random.choice([math.nan, math.inf, -7.0]) for _ in p.flatten()]).reshape(p.shape)
    p, y = torch.where(ignore, noise, p), torch.where(ignore, 255, y.long())
    assert error(p, y, average=average, ignore=ignore) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("measure", [*ERRORS, reliability_curve, brier_score, negative_log_likelihood])
def test_values_that_are_no_probabilities_are_refused_everywhere(measure):
    y = torch.zeros(2, 1)
    with pytest.raises(
        ValueError,
        match=r"probabilities hold 3\.5 at \[1, 0\]: expected probabilities; if they are logits, apply torch\.sigmoid",
    ):
        measure(torch.tensor([[0.5], [3.5]]), y)
    with pytest.raises(ValueError, match=r"probabilities hold nan at \[0, 0\]"):
        measure(torch.tensor([[math.nan], [0.5]]), y)
    with pytest.raises(ValueError, match=r"targets have shape \(2, 1\) but probabilities have \(2, 2\)"):
        measure(torch.zeros(2, 2), y)
    with pytest.raises(ValueError, match=r"targets hold 0\.5 at \[0, 0\]"):
        measure(torch.zeros(2, 1), torch.full((2, 1), 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 0}, "bins is 0: expected a whole number of at least 1"),
        ({"bins": 2.5}, "bins is 2.5"),
        ({"average": "macro"}, "unknown average 'macro': choose classwise or pooled"),
        ({"binning": "quantile"}, "unknown binning 'quantile': choose width or mass"),
        ({"minimum": 50}, "minimum is 50"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(torch.zeros(2, 1), torch.zeros(2, 1), **options)


def test_a_bad_posterior_and_a_wholly_ignored_set_are_refused():
    with pytest.raises(ValueError, match=r"posterior has shape \(2, 2\) but probabilities have \(2, 1\)"):
        true_calibration_error(torch.zeros(2, 1), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"posterior hold 1\.5 at \[0, 0\]"):
        expected_nll_floor([[1.5]])
    with pytest.raises(ValueError, match="every entry is ignored"):
        brier_score([[0.5]], [[1]], ignore=np.array([[True]]))
    with pytest.raises(ValueError, match="clip is 0"):
        negative_log_likelihood([[0.5]], [[1]], clip=0)


BINNED = [
    (expected_calibration_error, {}),
    (expected_calibration_error, {"average": "pooled", "bins": 7}),
    (confident_calibration_error, {"average": "pooled"}),
    (confident_calibration_error, {}),
    (true_calibration_error, {"minimum": 0.3}),
    (expected_calibration_error, {"average": "pooled", "minimum": 1.0}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("measure, options", BINNED)
def test_binning_each_image_once_gives_the_interval_of_binning_every_sample_anew(measure, options, masked, dtype):
    g = torch.Generator().manual_seed(0)
    p = (torch.rand(80, 4, generator=g) * 21).floor().clamp(max=20).to(dtype) / 20  # on the edges of bins, 0 and 1 too
    y = (
        torch.rand(80, 4, generator=g).double()
        if measure is true_calibration_error
        else torch.rand(80, 4, generator=g) < p
    )
    ignore = torch.rand(80, 4, generator=g) < 0.3 if masked else None
    if masked:
        ignore[:, 2] = True  # a class without an entry
    fast = calibration_interval(measure, p, y, ignore, samples=25, **options)
    slow = calibration_interval(lambda *values, **named: measure(*values, **named), p, y, ignore, samples=25, **options)
    assert fast == pytest.approx(slow, abs=1e-12)


def test_an_interval_refuses_what_its_measure_refuses():
    p, y = torch.full((4, 2), 0.5), torch.zeros(4, 2)
    for options, says in [
        ({"bins": 0}, "bins is 0"),
        ({"average": "micro"}, "unknown average"),
        ({"minimum": 2}, "minimum is 2"),
    ]:
        with pytest.raises(ValueError, match=says):
            calibration_interval(expected_calibration_error, p, y, **options)
    with pytest.raises(ValueError, match="1.5"):
        calibration_interval(expected_calibration_error, p + 1, y)


def test_one_class_only_makes_class_wise_and_pooled_the_same():
    g = torch.Generator().manual_seed(0)
    p = torch.rand(60, 1, generator=g)
    y = (torch.rand(60, 1, generator=g) < p).int()
    for error in ERRORS:
        assert error(p, y) == pytest.approx(error(p, y, average="pooled"))
    assert calibration_interval(expected_calibration_error, p, y, samples=20) == pytest.approx(
        calibration_interval(expected_calibration_error, p, y, samples=20, average="pooled"), abs=1e-12
    )
