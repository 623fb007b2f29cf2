"""Post-hoc calibrators on logits whose miscalibration is known, and against scikit-learn."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from udlib.calibration import brier_score, expected_calibration_error, negative_log_likelihood
from udlib.metrics import average_precision
from udlib.posthoc import (
    CALIBRATORS,
    LogisticCalibrator,
    calibrator_from_dict,
    fit_beta,
    fit_isotonic,
    fit_label_temperature,
    fit_platt,
    fit_temperature,
)

every_calibrator = pytest.mark.parametrize("kind", CALIBRATORS)


def distorted(temperatures, shift=0.0, n=20_000, seed=0):
    """Targets drawn from σ(z), and the logits T·z + shift of a model that is miscalibrated in a known way."""
    generator = torch.Generator().manual_seed(seed)
    temperatures = torch.as_tensor(temperatures, dtype=torch.float64)
    z = torch.randn(n, len(temperatures), generator=generator, dtype=torch.float64) * 1.5 - 1
    return z * temperatures + shift, torch.bernoulli(torch.sigmoid(z), generator=generator).long()


def test_one_temperature_recovers_the_known_one():
    fitted = fit_temperature(*distorted([2.5] * 4))
    assert fitted.temperatures == pytest.approx([2.5] * 4, rel=0.03)


def test_label_temperatures_recover_each_labels_own():
    fitted = fit_label_temperature(*distorted([0.5, 1.0, 3.0]))
    assert fitted.temperatures == pytest.approx([0.5, 1.0, 3.0], rel=0.06)


def test_platt_scaling_recovers_scale_and_shift():
    fitted = fit_platt(*distorted([2.0, 4.0], shift=3.0))
    assert fitted.a == fitted.b == pytest.approx([1 / 2, 1 / 4], rel=0.06)
    assert fitted.c == pytest.approx([-3 / 2, -3 / 4], abs=0.08)


def test_platt_scaling_fits_softened_targets_so_its_mean_probability_is_their_mean():
    logits, y = distorted([2.0], n=60)
    y[logits < 2] = 0  # few positives: softening two unequal numbers of labels moves their mean
    positives, negatives = y.sum().item(), (1 - y).sum().item()
    soft = positives * (positives + 1) / (positives + 2) + negatives / (negatives + 2)
    assert fit_platt(logits, y)(logits).sum().item() == pytest.approx(soft, abs=1e-4)
    assert abs(soft - positives) > 0.1


def test_beta_calibration_recovers_its_three_parameters():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(100_000, 1, generator=generator, dtype=torch.float64) * 2
    log_p, log_q = (torch.nn.functional.logsigmoid(s * z) for s in (1, -1))
    y = torch.bernoulli(torch.sigmoid(0.6 * log_p - 1.7 * log_q - 0.5), generator=generator)
    fitted = fit_beta(z, y)
    assert (*fitted.a, *fitted.b, *fitted.c) == pytest.approx((0.6, 1.7, -0.5), abs=0.08)


def test_beta_calibration_is_scikit_learns_logistic_regression_on_the_two_log_probabilities():
    logits, y = distorted([2.0], shift=1.0, n=500)
    x = torch.cat([torch.nn.functional.logsigmoid(logits), -torch.nn.functional.logsigmoid(-logits)], dim=1)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y[:, 0])
    fitted = fit_beta(logits, y)
    assert (*fitted.a, *fitted.b, *fitted.c) == pytest.approx((*model.coef_[0], *model.intercept_), abs=1e-3)
    assert min(*fitted.a, *fitted.b) > 0


def test_isotonic_is_scikit_learns_isotonic_regression_per_column_and_never_falls():
    logits, y = distorted([2.0, 0.5], n=500)
    fitted = fit_isotonic(logits, y)
    grid = torch.linspace(-20, 20, 401, dtype=torch.float64)[:, None].expand(-1, 2)
    p = fitted(grid)
    for c in range(2):
        model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logits[:, c], y[:, c])
        np.testing.assert_allclose(p[:, c], model.predict(grid[:, c]), atol=1e-12)
    assert (p.diff(dim=0) >= 0).all()


@every_calibrator
def test_a_calibrated_model_is_left_nearly_as_it_is(kind):
    logits, y = distorted([1.0, 1.0])
    grid = torch.linspace(-3, 2, 21)[:, None].expand(-1, 2)
    tolerance = 0.08 if kind == "isotonic" else 0.03
    torch.testing.assert_close(CALIBRATORS[kind](logits, y)(grid), torch.sigmoid(grid.double()), rtol=0, atol=tolerance)


@every_calibrator
def test_an_overconfident_model_gains_ece_nll_and_brier_on_data_that_the_fit_never_saw(kind):
    fitted = CALIBRATORS[kind](*distorted([3.0] * 3))
    logits, y = distorted([3.0] * 3, seed=1)
    before, after = torch.sigmoid(logits), fitted(logits)
    assert expected_calibration_error(before, y) > 0.1
    assert expected_calibration_error(after, y) < 0.02
    assert negative_log_likelihood(after, y) < negative_log_likelihood(before, y)
    assert brier_score(after, y) < brier_score(before, y)


@pytest.mark.parametrize("kind", [k for k in CALIBRATORS if k != "isotonic"])
def test_average_precision_stays_under_every_strictly_rising_map(kind):
    logits, y = distorted([3.0, 1.0], n=1000)
    torch.testing.assert_close(average_precision(CALIBRATORS[kind](logits, y)(logits), y), average_precision(logits, y))


@every_calibrator
def test_a_class_without_positives_or_without_negatives_keeps_the_sigmoid_and_a_warning_names_it(kind):
    logits, y = distorted([2.0] * 4, n=2000)
    y[:, 1], y[:, 3] = 0, 1
    if kind == "temperature":  # one map for all: the other classes carry it
        y[:] = 0
    with pytest.warns(UserWarning, match=r"classes \[.*3\] have no positive or no negative"):
        fitted = CALIBRATORS[kind](logits, y)
    assert fitted.fallbacks == ((0, 1, 2, 3) if kind == "temperature" else (1, 3))
    torch.testing.assert_close(fitted(logits)[:, [1, 3]], torch.sigmoid(logits[:, [1, 3]]))


@every_calibrator
def test_ignored_entries_never_reach_the_fit(kind):
    logits, y = distorted([2.0, 3.0], n=400)
    ignore = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    expected = CALIBRATORS[kind](logits, y, ignore)
    scrambled = torch.where(ignore, torch.nan, logits), torch.where(ignore, 255, y)
    assert CALIBRATORS[kind](*scrambled, ignore) == expected != CALIBRATORS[kind](logits, y)


@every_calibrator
def test_a_calibrator_survives_json_unchanged(kind):
    logits, y = distorted([2.0, 1.5], n=300)
    y[:, 1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = CALIBRATORS[kind](logits, y)
    again = calibrator_from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    assert torch.equal(again(logits), fitted(logits))


@every_calibrator
def test_extreme_and_half_precision_logits_give_probabilities(kind):
    fitted = CALIBRATORS[kind](*distorted([2.0], n=500))
    p = fitted(torch.tensor([[-1e4], [-20.0], [0.0], [20.0], [1e4]], dtype=torch.bfloat16))
    assert p.dtype == torch.float64
    assert ((p >= 0) & (p <= 1)).all() and (p.diff(dim=0) >= 0).all()


@pytest.mark.parametrize("fit", [fit_label_temperature, fit_platt, fit_beta])
def test_separable_classes_give_finite_parameters_and_ordered_probabilities(fit):
    fitted = fit([[-2.0], [-1.0], [1.0], [2.0]], [[0], [0], [1], [1]])
    assert np.isfinite([*fitted.a, *fitted.b, *fitted.c]).all()
    assert (fitted([[-1.0], [0.0], [1.0]]).diff(dim=0) > 0).all()


def test_a_class_ranked_backwards_is_flattened_to_its_frequency_not_turned_round():
    logits, y = distorted([-1.0], n=2000)
    for fit in (fit_platt, fit_beta):
        p = fit(logits, y)(logits)
        assert p.max().item() == pytest.approx(p.min().item()) == pytest.approx(y.float().mean().item(), abs=1e-3)


def test_bad_input_is_refused_with_a_remedy():
    logits, y = distorted([2.0, 2.0], n=50)
    fitted = fit_platt(logits, y)
    with pytest.raises(ValueError, match="logits have 1 classes, but the calibrator was fitted on 2"):
        fitted(logits[:, :1])
    with pytest.raises(ValueError, match=r"logits hold nan at \[0, 0\]"):
        fitted(torch.full((1, 2), torch.nan))
    with pytest.raises(ValueError, match="logits hold infinite values"):
        fit_temperature(torch.full((2, 1), torch.inf), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"targets have shape \(50, 1\) but logits have \(50, 2\)"):
        fit_isotonic(logits, y[:, :1])
    with pytest.raises(ValueError, match="platt scaling has no temperature"):
        _ = fitted.temperatures
    with pytest.raises(ValueError, match="unknown kind 'magic' of calibrator: expected one of temperature"):
        calibrator_from_dict({"kind": "magic"})
    with pytest.raises(ValueError, match="a platt calibrator has the keys"):
        calibrator_from_dict({"kind": "platt", "a": [1.0]})


@pytest.mark.parametrize("fit", [fit_temperature, fit_label_temperature, fit_platt])
def test_a_slope_is_at_most_a_hundred(fit):
    """Classes that a hair's breadth separates would send it to infinity."""
    logits, y = [[-1e-3], [-1e-3], [1e-3], [1e-3]] * 50, [[0], [0], [1], [1]] * 50
    assert fit(logits, y).a == pytest.approx((100.0,))


def test_a_temperature_is_at_most_a_hundred_too():
    logits, y = distorted([-1.0], n=2000)  # ranked backwards: the flatter the better
    assert fit_temperature(logits, y).temperatures == pytest.approx((100.0,))
    assert fit_label_temperature(logits, y).temperatures == pytest.approx((100.0,))


def test_kinds_are_written_into_what_is_saved():
    logits, y = distorted([2.0], n=200)
    for kind, fit in CALIBRATORS.items():
        assert fit(logits, y).to_dict()["kind"] == kind == calibrator_from_dict(fit(logits, y).to_dict()).kind


def test_unknown_keys_of_a_saved_calibrator_are_refused():
    logits, y = distorted([2.0], n=200)
    for fit in (fit_platt, fit_isotonic):
        with pytest.raises(ValueError, match="calibrator has the keys .*'extra'.*: expected"):
            calibrator_from_dict(fit(logits, y).to_dict() | {"extra": 1})


def test_a_calibrator_with_a_shift_or_two_slopes_has_no_temperature():
    for a, b, c in (((1.0,), (1.0,), (0.5,)), ((1.0,), (2.0,), (0.0,))):
        with pytest.raises(ValueError, match="beta scaling has no temperature"):
            _ = LogisticCalibrator("beta", a, b, c).temperatures
    assert LogisticCalibrator("beta", (0.5, 4.0), (0.5, 4.0), (0.0, 0.0)).temperatures == (2.0, 0.25)


def test_a_fit_minimises_what_it_says_to_many_digits():
    """At the minimum, one temperature's score Σ (σ(z/T) − y) z is zero, and platt's residuals sum to zero."""
    logits, y = distorted([2.0], n=400)
    z, t = logits[:, 0], y[:, 0].double()
    slope = fit_temperature(logits, y).a[0]
    assert ((torch.sigmoid(slope * z) - t) * z).mean().item() == pytest.approx(0, abs=1e-7)
    p = fit_beta(logits, y)(logits)[:, 0]
    assert (p - t).mean().item() == pytest.approx(0, abs=1e-7)


def test_isotonic_probabilities_stay_in_the_unit_interval_and_flat_outside_what_was_seen():
    fitted = fit_isotonic([[-1.0], [0.0], [1.0], [2.0]], [[0], [1], [0], [1]])
    assert fitted([[-50.0], [-1.0], [0.5], [2.0], [50.0]])[:, 0].tolist() == [0, 0, 0.5, 1, 1]
    one_sided = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    with pytest.warns(UserWarning, match=r"classes \[1\]"):
        fitted = fit_isotonic(one_sided, [[0, 1], [1, 1]])
    assert fitted.fallbacks == (1,) and fitted.logits[1] is None and fitted.probabilities[1] is None


@pytest.mark.parametrize("kind", [kind for kind in CALIBRATORS if kind != "isotonic"])
def test_parameters_are_plain_numbers(kind):
    fitted = CALIBRATORS[kind](*distorted([2.0, 3.0], n=200))
    assert {type(value) for value in (*fitted.a, *fitted.b, *fitted.c)} == {float}
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.kind = "other"


def test_a_line_of_an_isotonic_calibrator_is_of_plain_numbers():
    fitted = fit_isotonic(*distorted([2.0], n=200))
    assert {type(value) for value in (*fitted.logits[0], *fitted.probabilities[0])} == {float}
    with pytest.raises(dataclasses.FrozenInstanceError):
        fitted.kind = "other"


def test_a_calibrator_computes_in_double_precision():
    a, b, c, z = 0.1, 0.3, 0.7, 1.1
    p = LogisticCalibrator("beta", (a,), (b,), (c,))([[z]]).item()
    score = -a * np.log1p(np.exp(-z)) + b * np.log1p(np.exp(z)) + c
    assert p == pytest.approx(1 / (1 + np.exp(-score)), rel=1e-14)
