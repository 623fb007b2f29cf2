"""A search on validation: scores on which each wrong way to choose, and to report, has an outcome of its own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student_t

from udlib.course.exercises.answers import numbers
from udlib.statistics import paired_difference

Scores = dict[float, list[float]]
PARTS = "(λ, mean difference, low, high)"  # of the answer

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


# Four seeds, where the best mean on validation belongs to 0.5; 2.0 has the best median.
FEWER_SEEDS = (
    {0.0: [0.61, 0.66, 0.70, 0.64], 0.5: [0.60, 0.67, 0.79, 0.65], 2.0: [0.55, 0.69, 0.69, 0.66]},
    {0.0: [0.60, 0.66, 0.68, 0.63], 0.5: [0.63, 0.64, 0.67, 0.65], 2.0: [0.58, 0.65, 0.69, 0.62]},
)
# The reference itself is the best on validation.
REFERENCE_WINS = ({0.0: [0.71, 0.74], 0.5: [0.69, 0.70]}, {0.0: [0.70, 0.72], 0.5: [0.68, 0.73]})
UNPAIRED = (
    "λ is right, but the interval is computed as if the seeds were not paired: take the standard deviation of the "
    "differences, seed by seed, so that what both runs of a seed share cancels"
)


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


def reports(best: float, val: Scores, test: Scores) -> list[tuple[tuple[float, float, float], str | None]]:
    """Return (mean, low, high) as it should be reported, and as the classic mistakes report it."""
    a, b = (torch.tensor(test[key], dtype=torch.float64) for key in (best, 0.0))
    d, n = a - b, len(a)
    mean, error, quantile = d.mean().item(), d.std().item() / math.sqrt(n), student_t.ppf(0.975, n - 1)
    half = quantile * error
    on_val = torch.tensor(val[best], dtype=torch.float64) - torch.tensor(val[0.0], dtype=torch.float64)
    reach_val = quantile * on_val.std().item() / math.sqrt(n)

    def around(reach: float, middle: float = mean) -> tuple[float, float, float]:
        return middle, middle - reach, middle + reach

    level = a.mean().item()
    return [
        (around(half), None),
        (
            (mean - half, mean, mean + half),
            "the numbers stand in another order: return (λ, mean difference, low, high)",
        ),
        ((mean, half, half), "low and high are half the width here: return mean − half and mean + half"),
        (
            (100 * mean, 100 * (mean - half), 100 * (mean + half)),
            "this is in points: the mAPs are fractions, and so is their difference, so leave out the factor 100",
        ),
        (
            around(reach_val, on_val.mean().item()),
            "λ is right, but the difference is that of validation, where λ was chosen to look good: report it on test",
        ),
        *((around(reach), UNPAIRED) for reach in _unpaired_reaches(a, b)),
        *(
            (
                around(factor * error),
                f"1.96 belongs to the normal distribution, as if the spread were known: with {n} differences "
                f"take Student's t, {quantile:.3f}",
            )
            for factor in (1.96, student_t.ppf(0.975, 10**9))
        ),
        (
            around(quantile * d.std().item()),
            "the interval uses the standard deviation of single differences, but that of their mean is smaller: "
            "divide by √n",
        ),
        (
            around(quantile * d.std(correction=0).item() / math.sqrt(n)),
            "the standard deviation divides by n: for a sample, divide by n − 1 (ddof=1)",
        ),
        (
            around(student_t.ppf(0.95, n - 1) * error),
            "this is a 90 % interval: 2.5 % are cut off at each end, so take the quantile at 0.975",
        ),
        (
            around(half, -mean),
            "the sign is the wrong way round: take the chosen λ minus λ = 0",
        ),
        (
            (level, *(level + s * quantile * a.std().item() / math.sqrt(n) for s in (-1, 1))),
            "this is the mAP of the chosen λ itself: report its difference to λ = 0",
        ),
    ]


def _unpaired_reaches(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Half the width of the interval between two independent means, with each number that people multiply by."""
    n, variances = len(a), torch.stack([a.var(), b.var()])
    error = math.sqrt(variances.sum().item() / n)
    welch = (n - 1) * variances.sum().item() ** 2 / variances.square().sum().item()
    quantiles = [student_t.ppf(0.975, freedom) for freedom in (n - 1, 2 * (n - 1), welch)]
    return [quantile * error for quantile in (*quantiles, 1.96, 2.306)]


def other_searches(function: Callable[[Scores, Scores], Any]) -> str | None:
    """Return None if a search that is right on the example of nine settings is right on two more, else what is wrong."""
    val, test = FEWER_SEEDS
    best = best_on_validation(val)
    difference = paired_difference(test[best], test[0.0])
    right = (best, difference.mean, difference.low, difference.high)
    answer, problem = numbers(function(*deepcopy(FEWER_SEEDS)), PARTS, 4)
    if problem:
        return f"it is right with five seeds, but with four: {problem}"
    if not np.allclose(answer, right, atol=1e-6):
        found, expected = (", ".join(f"{value:.4g}" for value in values) for values in (answer, right))
        return f"it is right with five seeds, but with four it gives ({found}), expected ({expected})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the differences of λ = 0 to itself are 0, and so is their spread
        (chosen, *_), _ = numbers(function(*deepcopy(REFERENCE_WINS)), PARTS, 4)
    if chosen == 0:
        return None
    return f"where λ = 0 has the best mean on validation, it chooses {chosen:g}: 0 is one of the settings"
