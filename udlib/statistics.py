"""Error bars: paired differences over seeds, the spread of repeated runs, and the bootstrap over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import t as student_t


class PairedDifference(NamedTuple):
    """Mean of a_i − b_i and its t interval; `low` and `high` are NaN for a single pair, which has no interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def verdict(self) -> str:
        """In words: "higher" or "lower" (a against b) where the interval excludes 0, else "not detected"."""
        if self.n < 2:
            return "one pair, no interval"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "not detected"


class Summary(NamedTuple):
    """Repeated runs of one recipe: mean, sample standard deviation (n − 1), best, worst, t interval of the mean.

    `std`, `low` and `high` are NaN for a single run: its spread is unknown, not zero.
    """

    mean: float
    std: float
    best: float
    worst: float
    low: float
    high: float
    n: int


class Interval(NamedTuple):
    """An estimate and its bootstrap interval."""

    estimate: float
    low: float
    high: float


def paired_difference(a, b, confidence: float = 0.95) -> PairedDifference:
    """Does `a` differ from `b`, seed by seed? Student's t interval of the mean of a_i − b_i, n − 1 degrees of freedom.

    Args:
        a, b: (n,) the same metric of two methods, entry i of both from seed i.
        confidence: coverage of the interval, in (0, 1).

    Raises:
        ValueError: lengths that differ, no pair, values that are not finite, confidence outside (0, 1).

    >>> paired_difference([.76, .78, .77], [.75, .75, .75]).verdict
    'not detected'
    >>> paired_difference([.76], [.75]).verdict
    'one pair, no interval'
    """
    a, b = _values(a, "a"), _values(b, "b")
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values but b has {len(b)}: pair them by seed")
    low, high = _t_interval(a - b, confidence)
    return PairedDifference(float((a - b).mean()), low, high, len(a))


def summary(values, confidence: float = 0.95, higher_is_better: bool = True) -> Summary:
    """Mean ± std, best, worst and the mean's t interval of one metric over seeds.

    >>> summary([.75, .77, .76]).best
    0.77
    """
    values = _values(values, "values")
    low, high = _t_interval(values, confidence)
    ends = sorted([float(values.min()), float(values.max())], reverse=higher_is_better)
    std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Summary(float(values.mean()), std, ends[0], ends[1], low, high, len(values))


def bootstrap_interval(
    statistic: Callable[[torch.Tensor], float],
    n: int,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    kind: str = "percentile",
) -> Interval:
    """Bootstrap interval of a statistic over n images: resample the images with replacement, look at the spread.

    Args:
        statistic: takes an int64 tensor of image indices, returns a number; samples where it is NaN are left out.
        n: number of images; `statistic(arange(n))` is the estimate.
        samples: number of resamples.
        seed: same seed, same interval.
        confidence: coverage of the interval, in (0, 1).
        kind: "percentile" takes the quantiles of the resampled values; "basic" reflects them about the estimate, which
            corrects for a statistic that grows with noise, as a calibration error does: resampling adds noise once
            more, so all resampled values tend to lie above the estimate.

    Raises:
        ValueError: n, samples or confidence out of range, unknown kind, a statistic that is NaN on every resample.

    >>> bootstrap_interval(lambda images: images.float().mean(), n=100).estimate
    49.5
    """
    if n < 1 or samples < 1:
        raise ValueError(f"n is {n} and samples is {samples}: expected at least 1 of each")
    if kind not in ("percentile", "basic"):
        raise ValueError(f"unknown kind {kind!r} of bootstrap: choose percentile or basic")
    _check_confidence(confidence)
    estimate = float(statistic(torch.arange(n)))
    if n == 1:
        return Interval(estimate, float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    draws = np.array([float(statistic(torch.from_numpy(generator.integers(n, size=n)))) for _ in range(samples)])
    if np.isnan(draws).all():
        raise ValueError(f"the statistic is NaN on all {samples} resamples: it has no interval")
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    if kind == "basic":
        low, high = 2 * estimate - high, 2 * estimate - low
    return Interval(estimate, float(low), float(high))


def _t_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    _check_confidence(confidence)
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = student_t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(values.mean() - half), float(values.mean() + half)


def _values(values, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} have shape {array.shape}: expected (n,) with one value per seed")
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name} hold {array[where]} at [{where}]: leave out runs that did not finish")
    return array


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: expected a fraction between 0 and 1, such as 0.95")
