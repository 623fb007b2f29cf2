"""Error bars: paired differences over seeds, the spread of repeated runs, and the bootstrap over images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats


class PairedDifference(NamedTuple):
    """Mean of a_i − b_i and its t interval.

    Attributes:
        mean: of the differences.
        low: lower end of the interval; NaN for a single pair, which has no interval.
        high: upper end, likewise.
        n: number of pairs.
    """

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
    """One metric over repeated runs of one recipe.

    Attributes:
        mean: over the runs.
        std: sample standard deviation (n − 1); NaN for a single run, whose spread is unknown, not zero.
        best: the best run.
        worst: the worst run.
        low: lower end of the t interval of the mean; NaN for a single run.
        high: upper end, likewise.
        n: number of runs.
    """

    mean: float
    std: float
    best: float
    worst: float
    low: float
    high: float
    n: int


class Interval(NamedTuple):
    """An estimate and its bootstrap interval.

    Attributes:
        estimate: the statistic on all images.
        low: lower end of the interval.
        high: upper end.
    """

    estimate: float
    low: float
    high: float


def paired_difference(a, b, confidence: float = 0.95) -> PairedDifference:
    """Decide whether `a` differs from `b`, seed by seed: Student's paired t interval of the mean of a_i − b_i.

    Args:
        a: (n,) a metric of one method; entry i is from seed i.
        b: (n,) the same metric of another method, with the same seeds in the same order.
        confidence: coverage of the interval, in (0, 1).

    Returns:
        Mean, interval with n − 1 degrees of freedom, and n; a single pair has no interval (NaN).

    Raises:
        ValueError: lengths that differ, no pair, values that are not finite, confidence outside (0, 1).

    Example:
        >>> paired_difference([.76, .78, .77], [.75, .75, .75]).verdict
        'not detected'
        >>> paired_difference([.76], [.75]).verdict
        'one pair, no interval'
    """
    a, b = _values(a, "a"), _values(b, "b")
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values but b has {len(b)}: pair them by seed")
    _require_confidence(confidence)

    differences = a - b
    low, high = _t_interval(differences, confidence)
    return PairedDifference(float(differences.mean()), low, high, len(differences))


def paired_p_value(a, b) -> float:
    """Two-sided p value of Student's paired t test, which belongs to the interval of `paired_difference`.

    Args:
        a: (n,) a metric of one method; entry i is from seed i.
        b: (n,) the same metric of another method, with the same seeds in the same order.

    Returns:
        The p value in [0, 1]; 0 where all differences are equal and not 0, 1 where all are 0, NaN for a single pair.

    Raises:
        ValueError: lengths that differ, no pair, values that are not finite.

    Example:
        >>> round(paired_p_value([.76, .78, .77], [.75, .75, .75]), 3)
        0.074
    """
    differences = _values(a, "a") - _values(b, "b") if len(a) == len(b) else None
    if differences is None:
        raise ValueError(f"a has {len(a)} values but b has {len(b)}: pair them by seed")
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def holm(p_values) -> list[float]:
    """Correct p values for their number, so that the chance of any false discovery among them stays below the level.

    The k-th smallest of m values is multiplied by m − k + 1, and none ends below a smaller one's.

    Args:
        p_values: (m,) in [0, 1].

    Returns:
        The corrected values in [0, 1], in the order of `p_values`.

    Raises:
        ValueError: a value outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    values = [float(p) for p in p_values]
    if wrong := [p for p in values if not 0 <= p <= 1]:
        raise ValueError(f"p_values hold {wrong[0]}: expected probabilities")
    corrected, largest = [0.0] * len(values), 0.0
    for rank, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min((len(values) - rank) * values[k], 1.0))
        corrected[k] = largest
    return corrected


def summary(values, confidence: float = 0.95, higher_is_better: bool = True) -> Summary:
    """Summarise one metric over seeds: mean, standard deviation, best, worst and the t interval of the mean.

    Args:
        values: (n,) one value per seed.
        confidence: coverage of the interval, in (0, 1).
        higher_is_better: False for an error, whose lowest value is the best.

    Returns:
        The summary; a single value has no spread and no interval (NaN).

    Raises:
        ValueError: no value, values that are not finite, confidence outside (0, 1).

    Example:
        >>> summary([.75, .77, .76]).best
        0.77
    """
    values = _values(values, "values")
    _require_confidence(confidence)

    low, high = _t_interval(values, confidence)
    best, worst = sorted([float(values.min()), float(values.max())], reverse=higher_is_better)
    std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Summary(float(values.mean()), std, best, worst, low, high, len(values))


def bootstrap_interval(
    statistic: Callable[[torch.Tensor], float],
    n: int,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    kind: str = "percentile",
) -> Interval:
    """Bootstrap interval of a statistic over n images: the spread of the statistic over resampled images.

    Args:
        statistic: takes an int64 tensor of image indices, returns a number; samples where it is NaN are left out.
        n: number of images; `statistic(arange(n))` is the estimate.
        samples: number of resamples, drawn with replacement.
        seed: the same seed gives the same interval.
        confidence: coverage of the interval, in (0, 1).
        kind: "percentile" takes the quantiles of the resampled values. "basic" reflects them about the estimate, which
            corrects for a statistic that grows with noise, as a calibration error does: resampling adds noise once
            more, so all resampled values tend to lie above the estimate.

    Returns:
        Estimate and interval; a single image has no interval (NaN).

    Raises:
        ValueError: n, samples or confidence out of range, unknown kind, a statistic that is NaN on every resample.

    Example:
        >>> bootstrap_interval(lambda images: images.float().mean(), n=100).estimate
        49.5
    """
    if n < 1 or samples < 1:
        raise ValueError(f"n is {n} and samples is {samples}: expected at least 1 of each")
    if kind not in ("percentile", "basic"):
        raise ValueError(f"unknown kind {kind!r} of bootstrap: choose percentile or basic")
    _require_confidence(confidence)

    estimate = float(statistic(torch.arange(n)))
    if n == 1:
        return Interval(estimate, float("nan"), float("nan"))
    # Not scipy.stats.bootstrap: with the same generator it draws the same resamples, but some ends differ from these in
    # the last digit, and a single resample on which the statistic is NaN makes its whole interval NaN.
    generator = np.random.default_rng(seed)
    draws = np.array([float(statistic(torch.from_numpy(generator.integers(n, size=n)))) for _ in range(samples)])
    if np.isnan(draws).all():
        raise ValueError(f"the statistic is NaN on all {samples} resamples, so it has no interval: give it more values")
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    if kind == "basic":
        low, high = 2 * estimate - high, 2 * estimate - low
    return Interval(estimate, float(low), float(high))


def _t_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Student's t interval of the mean; NaN for a single value.

    On differences this is scipy's `ttest_rel(a, b).confidence_interval(confidence)`.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    with warnings.catch_warnings():
        # Seeds that agree are no fault: their interval is their mean. scipy warns that its t statistic, which nobody
        # reads here, is imprecise then. Nor does `stats.t.interval` serve: it makes NaN of a scale of 0.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        interval = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    return float(interval.low), float(interval.high)


def _values(values, name: str) -> np.ndarray:
    """Validated values (n,), float64."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} have shape {array.shape}: expected (n,) with one value per seed")
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name} hold {array[where]} at [{where}]: leave out runs that did not finish")
    return array


def _require_confidence(confidence: float) -> None:
    """Raise ValueError for a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: expected a fraction between 0 and 1, such as 0.95")
