"""How far probabilities are from frequencies: ECE and its variants, reliability curves, proper scores and their floors.

Every function takes tensors, arrays or lists of shape (N, C). Probabilities are P(y = 1) as fractions in [0, 1], so the
bins cover [0, 1], unlike the confidence max(p, 1 − p) of single-label work. `ignore` (bool, True = leave out) drops
entries whatever stands there. Results are fractions (scores: nats for NLL), not per cent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from udlib.metrics.checks import as_array, checked_numbers, checked_probabilities, refuse_non_probabilities
from udlib.statistics import Interval, bootstrap_interval

AVERAGES = ("classwise", "pooled")
BINNINGS = ("width", "mass")


class ReliabilityCurve(NamedTuple):
    """Per bin: (C, bins) tensors for "classwise", (bins,) for "pooled"; `edges` hold one entry more.

    `confidence` and `frequency` (mean probability, share of positives) are NaN in empty bins, `count` is 0 there.
    """

    confidence: torch.Tensor
    frequency: torch.Tensor
    count: torch.Tensor
    edges: torch.Tensor

    @property
    def gap(self) -> torch.Tensor:
        """abs(frequency − confidence) of each bin, NaN where the bin is empty."""
        return (self.frequency - self.confidence).abs()


def reliability_curve(
    probabilities,
    targets,
    bins: int = 15,
    average: str = "classwise",
    binning: str = "width",
    minimum: float = 0.0,
    ignore=None,
) -> ReliabilityCurve:
    """Mean probability and share of positives in bins of P(y = 1): the points of a reliability diagram.

    Bins are closed on the left: [e_0, e_1), [e_1, e_2), …, [e_{B−1}, e_B]; the last holds its right end, p = 1, too.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}, any dtype.
        bins: number of bins B.
        average: "classwise" bins each class apart, "pooled" all class–image pairs together.
        binning: "width" for bins of width 1/B; "mass" for bins of equally many entries (per class if class-wise). Equal
            probabilities never part, so heavy ties leave some "mass" bins empty.
        minimum: only entries with p ≥ minimum count; 0.5 keeps the confident positives.
        ignore: (N, C) bool, True = leave out.

    Raises:
        ValueError: probabilities outside [0, 1] or NaN, targets outside {0, 1}, shapes that differ, bins < 1,
            unknown average or binning.

    >>> curve = reliability_curve([[.1], [.3], [.8], [1.]], [[0], [1], [1], [1]], bins=2)
    >>> curve.frequency, curve.confidence
    (tensor([[0.5000, 1.0000]], dtype=torch.float64), tensor([[0.2000, 0.9000]], dtype=torch.float64))
    """
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)
    return _curve(probabilities, targets, keep, bins, average, binning, minimum)


def expected_calibration_error(
    probabilities,
    targets,
    bins: int = 15,
    average: str = "classwise",
    binning: str = "width",
    minimum: float = 0.0,
    ignore=None,
) -> float:
    """ECE over P(y = 1) (UD, Eq. 1–2): bins' gaps abs(frequency − confidence), weighted by the bins' share of entries.

    "classwise" is Eq. 2: each class's ECE, then the mean over the classes that have entries. "pooled" bins all
    class–image pairs together; easy negatives dominate it, and errors of opposite sign in two classes can cancel.
    Arguments and errors are those of `reliability_curve`. A fraction in [0, 1]; NaN where no entry reaches `minimum`.
    Estimated from few entries it is biased upwards, since label noise alone opens a gap in every bin:
    `calibration_noise` says how far, and `true_calibration_error` has none.

    >>> round(expected_calibration_error([[.1], [.3], [.8], [1.]], [[0], [1], [1], [1]], bins=2), 3)
    0.2
    """
    return _expected(reliability_curve(probabilities, targets, bins, average, binning, minimum, ignore))


def confident_calibration_error(
    probabilities, targets, bins: int = 15, average: str = "classwise", binning: str = "width", ignore=None
) -> float:
    """ECE among confident positives, p ≥ 0.5: `expected_calibration_error` with minimum=0.5, free of easy negatives."""
    return expected_calibration_error(probabilities, targets, bins, average, binning, 0.5, ignore)


def maximum_calibration_error(
    probabilities,
    targets,
    bins: int = 15,
    average: str = "classwise",
    binning: str = "width",
    minimum: float = 0.0,
    ignore=None,
) -> float:
    """The largest gap of any bin; "classwise" takes the mean over classes of each class's largest.

    Arguments, errors and range as `expected_calibration_error`. One entry alone in a bin can decide it: see `count`.
    """
    curve = reliability_curve(probabilities, targets, bins, average, binning, minimum, ignore)
    gap = torch.atleast_2d(curve.gap)
    measured = ~gap.isnan().all(dim=1)
    return gap[measured].nan_to_num(0).amax(dim=1).mean().item()


def true_calibration_error(
    probabilities,
    posterior,
    bins: int = 15,
    average: str = "classwise",
    binning: str = "width",
    minimum: float = 0.0,
    ignore=None,
) -> float:
    """ECE without label noise: per bin abs(mean posterior − mean probability), where P(y = 1 | image) is known.

    Args:
        posterior: (N, C) in [0, 1], the known P(y = 1 | image); the others as in `expected_calibration_error`.

    Raises:
        ValueError: as `expected_calibration_error`, and for a posterior outside [0, 1].

    >>> round(true_calibration_error([[.25], [.45]], [[.15], [.5]], bins=2), 3)
    0.025
    """
    probabilities, posterior, keep = _with_posterior(probabilities, posterior, ignore)
    return _expected(_curve(probabilities, posterior, keep, bins, average, binning, minimum))


def calibration_noise(probabilities, ignore=None, samples: int = 100, seed: int = 0, **options) -> float:
    """The ECE a perfectly calibrated model would show with these very probabilities: mean over labels drawn from them.

    An estimate at this height is no evidence of miscalibration. `options` are those of `expected_calibration_error`.

    >>> calibration_noise([[.5]], bins=1)
    0.5
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}: expected at least 1")
    probabilities, _ = _probabilities(probabilities, ignore, "probabilities")
    generator = np.random.default_rng(seed)
    draws = (generator.random(probabilities.shape) < probabilities for _ in range(samples))
    return float(np.mean([expected_calibration_error(probabilities, y, ignore=ignore, **options) for y in draws]))


def brier_score(probabilities, targets, ignore=None) -> float:
    """Mean of (p − y)² over all class–image pairs that count, in [0, 1]; arguments as `reliability_curve`.

    >>> brier_score([[.8, .4]], [[1, 0]])
    0.1
    """
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)
    return _mean((probabilities.astype(np.float64) - targets) ** 2, keep)


def negative_log_likelihood(probabilities, targets, ignore=None, clip: float = 1e-7) -> float:
    """Mean of −[y log p + (1−y) log(1−p)] over all class–image pairs that count: Eq. 3 divided by C; nats, ≥ 0.

    Probabilities are clipped to [clip, 1 − clip] first: a sigmoid in single precision reaches 1 near a logit of 17, and
    one such miss would make the mean infinite; at the default a miss costs at most 16.1 nats.

    >>> round(negative_log_likelihood([[.5, .5]], [[1, 0]]), 4)
    0.6931
    """
    if not 0 < clip < 0.5:
        raise ValueError(f"clip is {clip}: expected a small positive number such as 1e-7")
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)
    p = np.clip(probabilities.astype(np.float64), clip, 1 - clip)
    return _mean(-np.log(np.where(targets, p, 1 - p)), keep)


def expected_nll_floor(posterior, ignore=None) -> float:
    """The NLL no predictor beats on average, reached by p = posterior π: mean of −π log π − (1−π) log(1−π), nats.

    >>> round(expected_nll_floor([[.5, 1.]]), 4)
    0.3466
    """
    posterior, keep = _probabilities(posterior, ignore, "posterior")
    posterior = posterior.astype(np.float64)
    entropy = 0.0
    for p in (posterior, 1 - posterior):
        entropy = entropy - p * np.log(np.where(p > 0, p, 1))  # 0 log 0 = 0
    return _mean(entropy, keep)


def expected_brier_floor(posterior, ignore=None) -> float:
    """The Brier score that no predictor beats on average, reached by p = posterior π: mean of π(1 − π).

    >>> expected_brier_floor([[.5, 1.]])
    0.125
    """
    posterior, keep = _probabilities(posterior, ignore, "posterior")
    posterior = posterior.astype(np.float64)
    return _mean(posterior * (1 - posterior), keep)


def calibration_interval(
    measure: Callable[..., float],
    probabilities,
    targets,
    ignore=None,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    kind: str = "basic",
    **options,
) -> Interval:
    """Bootstrap interval over images of any measure of this module, e.g. of ECE with average="pooled" among `options`.

    `targets` is the posterior for `true_calibration_error`. The "basic" interval of `statistics.bootstrap_interval` is
    the default because calibration errors grow with noise: in a simulation (500 to 4,000 images, ECE of 2–7 %) 95 %
    intervals held the true value in 62–95 % of the trials, percentiles in 0–93 %. Near perfect calibration neither
    does, since the estimate itself is too high there: read it beside `calibration_noise`. Ends are kept ≥ 0.

    Bins of equal width stay where they are whatever is drawn, so for ECE and its kin each image is binned only once.
    """
    probabilities, targets = as_array(probabilities), as_array(targets)
    ignore = None if ignore is None else as_array(ignore)

    def binned_anew(images: torch.Tensor) -> float:
        images = images.numpy()
        mask = None if ignore is None else ignore[images]
        return measure(probabilities[images], targets[images], ignore=mask, **options)

    on = binned_anew
    if measure in _BINNED and options.get("binning", "width") == "width":
        measure(probabilities, targets, ignore=ignore, **options)  # refuses what the measure refuses
        on = _binned_once(
            probabilities, targets, ignore, **({"minimum": 0.5} if measure is _BINNED[1] else {}) | options
        )
    estimate, low, high = bootstrap_interval(on, len(probabilities), samples, seed, confidence, kind)
    return Interval(estimate, float(np.maximum(low, 0)), float(np.maximum(high, 0)))  # one image: NaN stays NaN


def _curve(probabilities, outcomes, keep, bins, average, binning, minimum) -> ReliabilityCurve:
    """The one place that bins: `outcomes` are 0/1 targets, or a posterior."""
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins is {bins!r}: expected a whole number of at least 1")
    if average not in AVERAGES:
        raise ValueError(f"unknown average {average!r}: choose {' or '.join(AVERAGES)}")
    if binning not in BINNINGS:
        raise ValueError(f"unknown binning {binning!r}: choose {' or '.join(BINNINGS)}")
    if not 0 <= minimum <= 1:
        raise ValueError(f"minimum is {minimum}: expected a probability in [0, 1]")
    counted = probabilities >= probabilities.dtype.type(minimum)
    counted = counted if keep is None else counted & keep
    if average == "pooled":
        probabilities, outcomes, counted = (x.reshape(-1, 1) for x in (probabilities, outcomes, counted))
    rows = [_bin(p[k], y[k], bins, binning) for p, y, k in zip(probabilities.T, outcomes.T, counted.T)]
    return ReliabilityCurve(
        *(torch.from_numpy(np.stack(part) if average == "classwise" else part[0]) for part in zip(*rows))
    )


_BINNED = (expected_calibration_error, confident_calibration_error, true_calibration_error)


def _binned_once(probabilities, outcomes, ignore, bins=15, average="classwise", binning="width", minimum=0.0):
    """The error of resampled images, from each image's sums in each bin: bins' gaps |Σ outcome − Σ p| over the count."""
    images, classes = probabilities.shape
    counted = probabilities >= probabilities.dtype.type(minimum)
    counted = counted if ignore is None else counted & ~ignore.astype(bool)
    row, column = np.nonzero(counted)
    p, y = probabilities[row, column], outcomes[row, column]
    rows = classes if average == "classwise" else 1
    cell = _which(p, np.arange(bins + 1) / bins) + bins * (column if average == "classwise" else 0)
    sums = (
        sparse.hstack(
            [
                sparse.coo_matrix((values, (row, cell)), shape=(images, rows * bins), dtype=np.float64)
                for values in (np.ones(len(p)), p, y)
            ]
        )
        .tocsc()
        .T
    )

    def on(drawn: torch.Tensor) -> float:
        times = np.bincount(drawn.numpy(), minlength=images)
        count, confidence, frequency = (sums @ times).reshape(3, rows, bins)
        total = count.sum(1)
        error = np.abs(frequency - confidence).sum(1)[total > 0] / total[total > 0]
        return float(error.mean()) if len(error) else float("nan")

    return on


def _bin(p: np.ndarray, outcomes: np.ndarray, bins: int, binning: str):
    edges = np.arange(bins + 1) / bins  # correctly rounded, unlike linspace: 3/10 is 0.3
    if binning == "mass" and len(p):
        edges[1:-1] = np.sort(p)[np.arange(1, bins) * len(p) // bins]
    which = _which(p, edges)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, frequency = (np.bincount(which, weights, bins) / count for weights in (p, outcomes))
    return confidence, frequency, count, edges


def _which(p: np.ndarray, edges: np.ndarray) -> np.ndarray:
    # edges in the precision of p, or 0.7 in single precision would fall below an edge at 0.7
    return np.searchsorted(edges[1:-1].astype(p.dtype), p, side="right")


def _expected(curve: ReliabilityCurve) -> float:
    count, gap = torch.atleast_2d(curve.count), torch.atleast_2d(curve.gap)
    total = count.sum(dim=1)
    per_class = (count * gap.nan_to_num(0)).sum(dim=1) / total
    return per_class[total > 0].mean().item()


def _mean(values: np.ndarray, keep: np.ndarray | None) -> float:
    values = values.ravel() if keep is None else values[keep]
    if values.size == 0:
        raise ValueError("every entry is ignored: nothing is left to average")
    return float(values.mean())


def _with_posterior(probabilities, posterior, ignore):
    probabilities, keep = _probabilities(probabilities, ignore, "probabilities")
    posterior, _ = _probabilities(posterior, ignore, "posterior")
    if posterior.shape != probabilities.shape:
        raise ValueError(
            f"posterior has shape {posterior.shape} but probabilities have {probabilities.shape}: both must be (N, C)"
        )
    return probabilities, posterior, keep


def _probabilities(values, ignore, name: str):
    values, keep = checked_numbers(values, ignore, name)
    refuse_non_probabilities(values, keep, name)
    return values, keep
