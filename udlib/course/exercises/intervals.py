"""The classic mistakes about a paired t interval, recognised by the ends that they give."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from scipy.stats import t as student_t
from scipy.stats import ttest_ind

from udlib.statistics import paired_difference


def wrong_interval(low: float, high: float, students: list[float], baselines: list[float]) -> str:
    """Return a sentence about the mistake that gives these ends of the interval, or about what was expected.

    Args:
        low: The lower end that the learner's function returned.
        high: The upper one.
        students: A value for each seed.
        baselines: Those that are subtracted, of the same seeds.
    """
    a, b = np.asarray(students), np.asarray(baselines)
    d, n = a - b, len(a)
    mean, t, error = d.mean(), student_t.ppf(0.975, n - 1), d.std(ddof=1) / math.sqrt(n)
    unpaired = ttest_ind(a, b).confidence_interval(0.95)
    welch = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    not_paired = (
        "the runs are not paired: subtract seed by seed first, or the spread over seeds, which both share, hides the "
        "difference"
    )
    halves = _wrong_half_widths(d)
    wrong = [
        *((mean - half, mean + half, sentence) for half, sentence in halves),
        (mean + t * error, mean - t * error, "the two ends are swapped: return the low one first"),
        (mean, t * error, "those are the mean and half of the width: return the ends, mean − half and mean + half"),
        (-mean - t * error, -mean + t * error, "the sign is the wrong way round: students minus baselines"),
        (d.min(), d.max(), "those are the smallest and the largest difference: build an interval of the mean"),
        (*unpaired, not_paired),
        (*welch, not_paired),
        *(
            (mean - q * spread, mean + q * spread, not_paired)
            for q in (t, 1.96, student_t.ppf(0.975, 2 * n - 2))
            for spread in [math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n)]
        ),
        (*(100 * (mean + sign * t * error) for sign in (-1, 1)), "the ends are in points: give them as fractions"),
    ]
    for wrong_low, wrong_high, sentence in wrong:
        if math.isclose(low, wrong_low, abs_tol=2e-6) and math.isclose(high, wrong_high, abs_tol=2e-6):
            return sentence
    if _is_bootstrap(low, high, d):
        return (
            "this looks like a bootstrap of the differences: with so few seeds it is too narrow, since it only "
            "resamples the few values that you have. Take Student's t"
        )
    right = paired_difference(students, baselines)
    return f"on a small example the interval is [{low:.4f}, {high:.4f}], expected [{right.low:.4f}, {right.high:.4f}]"


def _wrong_half_widths(d: np.ndarray) -> list[tuple[float, str]]:
    """Half widths of the interval that mistakes give, those with one mistake first."""
    n = len(d)
    quantiles = {
        student_t.ppf(0.975, n - 1): "",
        1.96: "1.96 is the quantile for many runs: with five it is Student's t, 2.776",
        student_t.ppf(0.975, n): "n differences have n − 1 degrees of freedom, not n: their mean is estimated too",
        student_t.ppf(0.95, n - 1): "that is a 90 % interval: 2.5 % are cut off on either side, the quantile is that "
        "of 0.975",
        1.0: "that is the mean ± one standard error: multiply the error by Student's t, 2.776",
    }
    widths = {
        d.std(ddof=1) / math.sqrt(n): "",
        d.std(ddof=0) / math.sqrt(n): "the standard deviation divides by n: for a sample it divides by n − 1 (ddof=1)",
        d.std(ddof=1): "that is the spread of single differences: the mean of n differences is √n times more certain",
        d.std(ddof=0): "that is the spread of single differences, without ddof=1: take std(ddof=1) / √n",
        d.std(ddof=1) / n: "the standard deviation is divided by n: the standard error of a mean divides it by √n",
        d.var(ddof=1) / math.sqrt(n): "this takes the variance: the standard error needs the standard deviation, its "
        "root",
    }
    both = [
        (q * width, [sentence for sentence in (of_q, of_width) if sentence])
        for (q, of_q), (width, of_width) in product(quantiles.items(), widths.items())
    ]
    ordered = sorted((one for one in both if one[1]), key=lambda one: len(one[1]))
    return [(half, ". And ".join(sentences)) for half, sentences in ordered]


def _is_bootstrap(low: float, high: float, d: np.ndarray) -> bool:
    """Whether the ends are near those of the percentile bootstrap, for which all resamples of few values are tried."""
    means = np.array(list(product(d, repeat=len(d)))).mean(1)
    ends = np.quantile(means, [0.025, 0.975])
    return bool(np.abs(np.array([low, high]) - ends).max() < 0.12 * (ends[1] - ends[0]))
