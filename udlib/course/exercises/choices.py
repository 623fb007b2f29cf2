"""A setting chosen on validation: example scores on which each wrong way to choose ends at a setting of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Scores = dict[float, list[float]]

# What seeds have in common, and for each role what five seeds add to it on validation and, as a mean, on test.
SEEDS = np.array([0.710, 0.740, 0.690, 0.770, 0.730])
ON_TEST = np.array([-0.010, 0.012, -0.006, 0.004, 0.010])
ROLES = {
    "reference": ([0, 0, 0, 0, 0], 0),
    "the worst": ([-0.012, -0.010, -0.015, -0.011, -0.009], -0.006),
    "the most certain": ([0.0040, 0.0041, 0.0039, 0.0040, 0.0040], 0.002),
    "the first seed": ([0.024, -0.004, 0.001, -0.006, 0.002], 0.003),
    "the best mean": ([0.013, 0.018, 0.005, 0.008, 0.016], 0.005),
    "the best seed": ([-0.006, -0.004, 0.003, 0.030, -0.005], -0.002),
    "the best on test": ([0.001, 0.004, -0.003, 0.002, -0.004], 0.020),
    "both pooled": ([0.009, 0.015, 0.004, 0.007, 0.010], 0.013),
    "the largest": ([0.001, 0.003, -0.002, 0.002, 0.001], 0.001),
}
NOISE = np.array([0.001, -0.002, 0.0015, -0.001, 0.0005])  # of the differences on test, seed by seed


def example_scores(settings: Sequence[float]) -> tuple[Scores, Scores]:
    """Return higher-is-better scores of five seeds on validation and on test, for nine settings in rising order.

    The first is the one that others are compared with, and the last is the largest; `ROLES` says what the others are.
    """
    val, test = {}, {}
    for k, (setting, (on_val, on_test)) in enumerate(zip(settings, ROLES.values(), strict=True)):
        val[setting] = [round(float(score), 4) for score in SEEDS + on_val]
        noise = np.roll(NOISE, k) * (k > 0)
        test[setting] = [round(float(score), 4) for score in SEEDS + ON_TEST + on_test + noise]
    return val, test


def best_on_validation(val: Scores) -> float:
    """Return the setting with the highest mean."""
    return max(val, key=lambda setting: float(np.mean(val[setting])))


def wrong_choice(answer: float, val: Scores, test: Scores, letter: str) -> str | None:
    """Return None for the setting with the best mean on validation, else the way of choosing that ends where it did."""
    mean = {key: float(np.mean(val[key])) for key in val}
    on_test = {key: float(np.mean(test[key])) for key in test}
    best = best_on_validation(val)
    if math.isclose(answer, best, rel_tol=1e-5):
        return None
    first, *others = val
    named = {
        max(val): f"you took the largest {letter}, not the one with the best mean: max(val) compares the keys, so "
        "give "
        "it a key that takes the mean",
        max(on_test, key=on_test.__getitem__): "it was chosen on the test images: the best of several noisy means is "
        "high partly by luck, and your report would contain that luck. Choose on validation",
        max(val, key=lambda key: max(val[key])): "it has the best single seed on validation, which is luck: compare "
        "the means over seeds",
        max(val, key=lambda key: val[key][0]): "key=val.get compares lists, so the first seed decides which one is "
        "larger: compare the means over seeds",
        min(mean, key=mean.__getitem__): "it is the worst on validation: a higher score is better",
        max(mean, key=lambda key: mean[key] + on_test[key]): "validation and test are pooled: the test images may "
        "only report what was chosen, and must take no part in choosing it",
        max(others, key=lambda key: _certainty(val[key], val[first])): "its difference on validation is the most "
        "significant one, but not the largest: a small difference can be very certain. Take the best mean",
    }
    if sentence := next((words for key, words in named.items() if math.isclose(answer, key, rel_tol=1e-5)), None):
        return f"{letter} = {answer:g}: {sentence}"
    if not any(math.isclose(answer, key, rel_tol=1e-5, abs_tol=1e-9) for key in val):
        return f"{letter} = {answer:.4g} was not tried: choose one of {', '.join(f'{key:g}' for key in val)}"
    return f"{letter} = {answer:g} is not the best on validation: there, the mean is highest at {best:g}"


def _certainty(a: list[float], b: list[float]) -> float:
    """The t of a paired difference."""
    d = np.subtract(a, b)
    return float(d.mean() / (d.std(ddof=1) + 1e-12))
