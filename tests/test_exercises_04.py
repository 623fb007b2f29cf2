"""Lesson 04's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import numpy as np
import pytest
import torch

from udlib.calibration import (
    calibration_noise,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
)
from udlib.course.exercises import NotAttempted
from udlib.course.exercises.lesson_04 import (
    classwise_ece,
    company_and_confidence,
    noise_of_a_perfect_model,
    temperature_from_validation,
)

CHECKS = [classwise_ece, temperature_from_validation, noise_of_a_perfect_model, company_and_confidence]


def by_loops(p, y, bins, edges="left", weighted=True):
    """Class-wise ECE in NumPy, with bins closed on the left or on the right."""
    errors = []
    for f, t in zip(np.asarray(p).T, np.asarray(y).T):
        which = np.minimum(np.floor(f * bins), bins - 1) if edges == "left" else np.maximum(np.ceil(f * bins), 1)
        gaps = [
            (np.mean(which == b) if weighted else 1, abs(t[which == b].mean() - f[which == b].mean()))
            for b in np.unique(which)
        ]
        errors.append(sum(w * g for w, g in gaps) / (1 if weighted else len(gaps)))
    return float(np.mean(errors))


def choose(
    fitted_on="val",
    reported_on="test",
    power=-1,
    scaled=True,
    average="pooled",
    score=negative_log_likelihood,
    pick=min,
    form=tuple,
):
    def function(val_z, val_y, test_z, test_y, temperatures):
        splits = {"val": (val_z, val_y), "test": (test_z, test_y)}
        z, y = splits[fitted_on]
        best = pick(temperatures, key=lambda t: score(torch.sigmoid(z * t**power), y))
        z, y = splits[reported_on]
        q = torch.sigmoid(z * best**power if scaled else z)
        return form([best, negative_log_likelihood(q, y), expected_calibration_error(q, y, average=average)])

    return function


def drawn(chances=lambda p: p, share=lambda draws: 1 / draws, **options):
    def function(p, draws, generator):
        labels = [torch.bernoulli(chances(p), generator=generator) for _ in range(draws)]
        return share(draws) * sum(expected_calibration_error(p, y, **options) for y in labels)

    return function


def by_rand(p, draws, generator):
    errors = [
        expected_calibration_error(p.numpy(), (torch.rand(p.shape, generator=generator, dtype=p.dtype) < p).numpy())
        for _ in range(draws)
    ]
    return np.mean(errors)


def effect(p, y, few=1, many=3, minimum=0.5, own=True, sign=1, residual=True):
    counts = (y.sum(1, keepdim=True) - y) if own else y.sum(1, keepdim=True).expand_as(y)
    values, sure = (y - p if residual else y), p >= minimum
    return sign * (values[sure & (counts >= many)].mean() - values[sure & (counts <= few)].mean())


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (classwise_ece, expected_calibration_error),
        (classwise_ece, by_loops),
        (classwise_ece, lambda p, y, bins: by_loops(p, y, bins, "right")),  # which side is closed is a convention
        (classwise_ece, lambda p, y, bins: torch.tensor(by_loops(p, y, bins))),
        (temperature_from_validation, choose()),
        (temperature_from_validation, choose(form=list)),
        (temperature_from_validation, lambda *a: tuple(torch.tensor(x) for x in choose()(*a))),
        (temperature_from_validation, lambda *a: tuple(np.float64(x) for x in choose()(*a))),
        (noise_of_a_perfect_model, drawn()),
        (noise_of_a_perfect_model, by_rand),
        (noise_of_a_perfect_model, lambda p, n, g: calibration_noise(p, samples=n, seed=g.initial_seed())),
        (company_and_confidence, effect),
        (company_and_confidence, lambda p, y: effect(p, y).item()),
        (company_and_confidence, lambda p, y: np.float64(effect(p, y))),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


def lost(p, y, bins, keep):
    which = (p * bins).long().clamp(max=bins - 1)
    return sum(((y - p) * (which == b) * keep(p)).sum(0).abs() for b in range(bins)).mean() / len(p)


def signed(p, y, bins):
    return (y.double() - p).mean()


def beyond(p, y, bins):
    sums = torch.zeros(bins)
    for f, t in zip(p.flatten(), y.flatten()):
        sums[int(f * bins)] += t - f
    return sums.abs().sum() / p.numel()


def folded(p, y, bins, average="classwise"):
    return expected_calibration_error(torch.maximum(p, 1 - p), ((p >= 0.5) == y.bool()).int(), bins, average)


def half_range(p, y, bins):
    """Confidence in the decision, with all bins between ½ and 1."""
    sure, right = torch.maximum(p, 1 - p), ((p >= 0.5) == y.bool()).double()
    which = ((2 * sure - 1) * bins).long().clamp(max=bins - 1)
    return (sum(((right - sure) * (which == b)).sum(0).abs() for b in range(bins)) / len(p)).mean()


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda *a: by_loops(*a, weighted=False), "unweighted"),
        (lambda p, y, bins: by_loops(p.reshape(-1, 1), y.reshape(-1, 1), bins, weighted=False), "unweighted"),
        (signed, "signed gaps cancel"),
        (lambda *a: signed(*a).abs(), "signed gaps cancel"),
        (lambda p, y, bins: (y.double() - p).mean(0).abs().mean(), "signed gaps cancel"),
        (folded, "max(p, 1 − p)"),
        (lambda *a: folded(*a, "pooled"), "max(p, 1 − p)"),
        (half_range, "max(p, 1 − p)"),
        (lambda *a: float("nan"), "empty bin"),
        (lambda p, y, bins: expected_calibration_error(p, y, bins, "pooled"), "pooled"),
        (lambda *a: lost(*a, lambda p: p < 1), "exactly 1"),
        (lambda *a: lost(*a, lambda p: p > 0), "exactly 0"),
        (beyond, "exactly 1 belongs to the last bin"),
        (maximum_calibration_error, "largest gap"),
        (lambda p, y, bins: 3 * expected_calibration_error(p, y, bins), "sums over the classes"),
        (lambda p, y, bins: len(p) * expected_calibration_error(p, y, bins), "sums over the images"),
        (lambda p, y, bins: expected_calibration_error(p, y, bins, binning="mass"), "equal mass"),
        (lambda p, y, bins: expected_calibration_error(p, y, 15), "expected"),
    ],
)
def test_each_mistake_about_the_ece_is_named(answer, words):
    assert words in classwise_ece(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (choose(fitted_on="test"), "fitted on the test images"),
        (choose(fitted_on="test", power=1), "fitted on the test images, and multiplies"),
        (choose(power=1), "divides the logits"),
        (choose(reported_on="val"), "those of validation"),
        (choose(scaled=False), "before the temperature"),
        (choose(average="classwise"), "class-wise"),
        (choose(pick=max), "highest NLL"),
        (lambda *a: (max(a[-1]), 0.5, 0.5), "the largest temperature"),
        (lambda v, vy, t, ty, Ts: choose()(torch.cat([v, t]), torch.cat([vy, ty]), t, ty, Ts), "are pooled"),
        (choose(score=lambda q, y: expected_calibration_error(q, y, average="pooled")), "lowest ECE"),
        (lambda *a: (choose()(*a)[0], 0.5, 0.5), "not 0.5"),
        (lambda *a: (9.0, 0.5, 0.5), "lowest at"),
        (lambda *a: choose()(*a)[:2], "three numbers"),
        (lambda *a: 1.5, "three numbers"),
        (lambda *a: (1.5, "low", 0.1), "not a number"),
    ],
)
def test_each_mistake_about_the_temperature_is_named(answer, words):
    assert words in temperature_from_validation(answer)


def real_labels(p, draws, generator):
    return expected_calibration_error(p, torch.zeros(10, 3))


def undefined(p, draws, generator):
    return expected_calibration_error(p, labels_of_the_notebook)  # noqa: F821


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda p, n, g: expected_calibration_error(p, (p >= 0.5).int()), "thresholded"),
        (lambda p, n, g: expected_calibration_error(p, (p > 0.5).int(), average="pooled"), "thresholded"),
        (real_labels, "real labels"),
        (undefined, "real labels"),
        (drawn(lambda p: torch.full_like(p, 0.5)), "a fair coin"),
        (drawn(lambda p: 1 - p), "not 1 − p"),
        (drawn(share=lambda draws: 1), "sums over the draws"),
        (drawn(average="pooled"), "pooled"),
        (lambda p, n, g: np.mean([expected_calibration_error(p, torch.bernoulli(p)) for _ in range(n)]), "same seed"),
        (lambda p, n, g: drawn()(p, n, torch.Generator().manual_seed(3)), "another seed"),
        (lambda p, n, g: drawn()(p, 1, g), "1 draw and 200 draws"),
        (lambda p, n, g: 0.0, "above 0"),
        (drawn(share=lambda draws: 2 / draws), "expected about"),
    ],
)
def test_each_mistake_about_the_noise_is_named(answer, words):
    assert words in noise_of_a_perfect_model(answer)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"own": False}, "counts the label itself"),
        ({"sign": -1}, "few minus many"),
        ({"minimum": 0.0}, "all answers"),
        ({"own": False, "minimum": 0.0}, "all answers, and it counts"),
        ({"residual": False}, "shares alone"),
        ({"few": 2}, "at most 1"),
        ({"many": 4}, "at least 3"),
        ({"few": 0}, "0 or 1"),
    ],
)
def test_each_mistake_about_the_company_is_named(options, words):
    assert words in company_and_confidence(lambda p, y: effect(p, y, **options))


def test_a_mean_that_is_not_a_difference_is_named():
    def answer(p, y):
        return (y - p)[(p >= 0.5) & (y.sum(1, keepdim=True) - y >= 3)].mean()

    assert "subtract" in company_and_confidence(answer)


def test_a_triple_with_dots_in_it_counts_as_not_attempted():
    with pytest.raises(NotAttempted):
        temperature_from_validation(lambda *a: (1.5, ..., ...))


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize(
    "value, words",
    [
        (None, "return"),
        ("0.5", "expected"),
        (torch.zeros(3, 4), "expected"),
        ({"ECE": 1.0}, "expected"),
    ],
)
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value, words):
    assert words in check_of(lambda *arguments: value)
