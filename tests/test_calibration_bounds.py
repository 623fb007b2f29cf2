"""What the calibration errors refuse, their defaults, and the ends of their intervals."""

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from test_calibration import simulated

from udlib.calibration import (
    brier_score,
    calibration_interval,
    calibration_noise,
    confident_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    true_calibration_error,
)


@pytest.mark.parametrize("minimum", [-0.1, 1.1])
def test_a_minimum_is_a_probability_and_both_ends_are_allowed(minimum):
    p, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0], [0]])
    with pytest.raises(ValueError, match=f"minimum is {minimum}: expected a probability"):
        expected_calibration_error(p, y, minimum=minimum)
    assert expected_calibration_error(p, y, minimum=0.0) == 0.5
    assert expected_calibration_error(p, y, minimum=1.0) == 1.0


@pytest.mark.parametrize("bins", [True, -1, "15"])
def test_bins_are_a_whole_number_and_no_truth_value(bins):
    with pytest.raises(ValueError, match="bins is .*: expected a whole number of at least 1"):
        expected_calibration_error([[0.5]], [[1]], bins=bins)
    assert expected_calibration_error([[0.5]], [[1]], bins=np.int64(1)) == 0.5


@pytest.mark.parametrize("clip", [0.5, -0.1])
def test_a_clip_lies_between_zero_and_one_half(clip):
    with pytest.raises(ValueError, match=f"clip is {clip}"):
        negative_log_likelihood([[0.5]], [[1]], clip=clip)
    assert negative_log_likelihood([[1.0]], [[0]], clip=0.49) == pytest.approx(-math.log(0.49))


def test_noise_needs_a_sample_and_repeats_with_its_seed():
    posterior, _, _ = simulated(60)
    with pytest.raises(ValueError, match="samples is 0: expected at least 1"):
        calibration_noise(posterior, samples=0)
    drawn = np.random.default_rng(0).random(posterior.shape) < posterior.numpy()
    assert calibration_noise(posterior, samples=1) == expected_calibration_error(posterior, drawn)
    assert calibration_noise(posterior) == calibration_noise(posterior, samples=100, seed=0)


def test_noise_counts_no_ignored_entry():
    assert calibration_noise(torch.tensor([[0.0, 0.5]]), torch.tensor([[False, True]])) == 0


DEFAULTS = [
    (reliability_curve, {"bins": 15, "average": "classwise", "binning": "width", "minimum": 0.0}),
    (expected_calibration_error, {"bins": 15, "average": "classwise", "binning": "width", "minimum": 0.0}),
    (confident_calibration_error, {"bins": 15, "average": "classwise", "binning": "width"}),
    (maximum_calibration_error, {"bins": 15, "average": "classwise", "binning": "width", "minimum": 0.0}),
    (true_calibration_error, {"bins": 15, "average": "classwise", "binning": "width", "minimum": 0.0}),
    (calibration_noise, {"samples": 100, "seed": 0}),
    (negative_log_likelihood, {"clip": 1e-7}),
    (calibration_interval, {"samples": 1000, "seed": 0, "confidence": 0.95, "kind": "basic"}),
]


@pytest.mark.parametrize("function, defaults", DEFAULTS)
def test_the_defaults_are_those_of_the_published_numbers(function, defaults):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in defaults} == defaults


@pytest.mark.parametrize("measure", [expected_calibration_error, maximum_calibration_error, true_calibration_error])
def test_defaults_in_words_are_the_defaults_in_fact(measure):
    _, p, y = simulated(80)
    usual = measure(p, y.double() if measure is true_calibration_error else y)
    assert usual == measure(p, y.double(), 15, "classwise", "width", 0.0, None)


def test_bins_of_equal_mass_are_made_anew_for_each_resample():
    _, p, y = simulated(60)
    options = {"samples": 15, "binning": "mass", "bins": 4}
    found = calibration_interval(expected_calibration_error, p, y, **options)
    assert found == calibration_interval(lambda *a, **k: expected_calibration_error(*a, **k), p, y, **options)


def test_both_ends_of_an_interval_are_kept_at_or_above_zero():
    """Resampling a few images of a calibrated model only adds noise; mirrored at the estimate, it is below zero."""
    draw = torch.Generator().manual_seed(0)
    half = torch.tensor([0, 1] * 4)
    y = torch.stack([half[torch.randperm(8, generator=draw)] for _ in range(30)], dim=1)
    for measure in (expected_calibration_error, maximum_calibration_error):
        found = calibration_interval(measure, torch.full((8, 30), 0.5), y, samples=50)
        assert tuple(found) == (0, 0, 0)


@pytest.mark.parametrize("average", ["classwise", "pooled"])
def test_every_error_is_a_plain_number(average):
    _, p, y = simulated(30)
    for error in (expected_calibration_error, maximum_calibration_error, confident_calibration_error):
        assert type(error(p, y, average=average)) is float
    assert type(true_calibration_error(p, y.double(), average=average)) is float
    assert type(calibration_noise(p, samples=2, average=average)) is float and type(brier_score(p, y)) is float
    found = calibration_interval(expected_calibration_error, p, y, samples=3, average=average)
    assert [type(value) for value in found] == [float] * 3


@pytest.mark.parametrize("average", ["classwise", "pooled"])
def test_empty_bins_have_no_part_in_the_largest_gap(average):
    p, y = [[0.1], [0.9], [0.85]], [[0], [1], [1]]
    assert maximum_calibration_error(p, y, average=average) == pytest.approx(0.15)
    assert expected_calibration_error(p, y, average=average) == pytest.approx((0.1 + 0.1 + 0.15) / 3)


def test_an_empty_bin_is_no_reason_for_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for binning in ("width", "mass"):
            expected_calibration_error([[0.1], [0.1], [0.9]], [[0], [0], [1]], binning=binning)
