"""Calibration errors: reliability curves, ECE and its variants, error against a known posterior, noise level."""

from __future__ import annotations

import numpy as np
import torch

from udlib.calibration.binning import ReliabilityCurve, binned, require_binning
from udlib.metrics.checks import checked_fractions, checked_probabilities


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
            probabilities always share a bin, so heavy ties leave some "mass" bins empty.
        minimum: only entries with p ≥ minimum count; 0.5 keeps the confident positives.
        ignore: (N, C) bool, True = leave out.

    Returns:
        The curve: confidence, frequency, count and edges of the bins.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: probabilities outside [0, 1] or NaN, targets outside {0, 1}, shapes that differ, bins < 1,
            unknown average or binning, minimum outside [0, 1].

    Example:
        >>> curve = reliability_curve([[.1], [.3], [.8], [1.]], [[0], [1], [1], [1]], bins=2)
        >>> curve.frequency, curve.confidence
        (tensor([[0.5000, 1.0000]], dtype=torch.float64), tensor([[0.2000, 0.9000]], dtype=torch.float64))
    """
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)
    require_binning(bins, average, binning, minimum)

    return binned(probabilities, targets, keep, bins, average, binning, minimum)


def expected_calibration_error(
    probabilities,
    targets,
    bins: int = 15,
    average: str = "classwise",
    binning: str = "width",
    minimum: float = 0.0,
    ignore=None,
) -> float:
    """Expected calibration error (ECE) over P(y = 1): the mean gap between frequency and confidence.

    It averages the bins' gaps abs(frequency − confidence), weighted by the bins' share of entries. "classwise" is
    Eq. 2: each class's ECE, then the mean over the classes that have entries. "pooled" bins all class–image pairs
    together; easy negatives dominate it, and errors of opposite sign in two classes can cancel.

    Estimated from few entries it is biased upwards, since label noise alone opens a gap in every bin:
    `calibration_noise` says how far, and `true_calibration_error` has no such bias.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}, any dtype.
        bins: number of bins B.
        average: "classwise" bins each class apart, "pooled" all class–image pairs together.
        binning: "width" or "mass", as in `reliability_curve`.
        minimum: only entries with p ≥ minimum count.
        ignore: (N, C) bool, True = leave out.

    Returns:
        A fraction in [0, 1]; NaN where no entry reaches `minimum`.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: as `reliability_curve`.

    Example:
        >>> round(expected_calibration_error([[.1], [.3], [.8], [1.]], [[0], [1], [1], [1]], bins=2), 3)
        0.2

    Source: UD, Eq. 1–2.
    """
    return _expected_gap(reliability_curve(probabilities, targets, bins, average, binning, minimum, ignore))


def confident_calibration_error(
    probabilities, targets, bins: int = 15, average: str = "classwise", binning: str = "width", ignore=None
) -> float:
    """ECE among confident positives, p ≥ 0.5: free of easy negatives.

    It is `expected_calibration_error` with minimum=0.5.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}, any dtype.
        bins: number of bins B.
        average: "classwise" bins each class apart, "pooled" all class–image pairs together.
        binning: "width" or "mass", as in `reliability_curve`.
        ignore: (N, C) bool, True = leave out.

    Returns:
        A fraction in [0, 1]; NaN where no probability reaches 0.5.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: as `reliability_curve`.
    """
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
    """Maximum calibration error (MCE): the largest gap of any bin.

    "classwise" takes the mean over classes of each class's largest gap. A single entry alone in a bin can decide it:
    see `count` of the reliability curve.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}, any dtype.
        bins: number of bins B.
        average: "classwise" bins each class apart, "pooled" all class–image pairs together.
        binning: "width" or "mass", as in `reliability_curve`.
        minimum: only entries with p ≥ minimum count.
        ignore: (N, C) bool, True = leave out.

    Returns:
        A fraction in [0, 1]; NaN where no entry reaches `minimum`.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: as `reliability_curve`.
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
    """ECE without label noise, where P(y = 1 | image) is known: the mean of abs(mean posterior − mean probability).

    Args:
        probabilities: (N, C) in [0, 1].
        posterior: (N, C) in [0, 1], the known P(y = 1 | image).
        bins: number of bins B.
        average: "classwise" bins each class apart, "pooled" all class–image pairs together.
        binning: "width" or "mass", as in `reliability_curve`.
        minimum: only entries with p ≥ minimum count.
        ignore: (N, C) bool, True = leave out.

    Returns:
        A fraction in [0, 1]; NaN where no entry reaches `minimum`.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: as `reliability_curve`, and for a posterior outside [0, 1].

    Example:
        >>> round(true_calibration_error([[.25], [.45]], [[.15], [.5]], bins=2), 3)
        0.025

    Source: UD, Eq. 1.
    """
    probabilities, keep = checked_fractions(probabilities, ignore, "probabilities")
    posterior, _ = checked_fractions(posterior, ignore, "posterior")
    if posterior.shape != probabilities.shape:
        raise ValueError(
            f"posterior has shape {posterior.shape} but probabilities have {probabilities.shape}: both must be (N, C)"
        )
    require_binning(bins, average, binning, minimum)

    return _expected_gap(binned(probabilities, posterior, keep, bins, average, binning, minimum))


def calibration_noise(probabilities, ignore=None, samples: int = 100, seed: int = 0, **options) -> float:
    """ECE that a perfectly calibrated model would show with these very probabilities.

    It is the mean over labels that are drawn from the probabilities. An estimate at this height is no evidence of
    miscalibration.

    Args:
        probabilities: (N, C) in [0, 1].
        ignore: (N, C) bool, True = leave out.
        samples: number of times that labels are drawn.
        seed: of the draws.
        options: those of `expected_calibration_error`.

    Returns:
        A fraction in [0, 1].

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: samples < 1, and as `expected_calibration_error`.

    Example:
        >>> calibration_noise([[.5]], bins=1)
        0.5
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}: expected at least 1")
    probabilities, _ = checked_fractions(probabilities, ignore, "probabilities")

    generator = np.random.default_rng(seed)
    draws = (generator.random(probabilities.shape) < probabilities for _ in range(samples))
    return float(np.mean([expected_calibration_error(probabilities, y, ignore=ignore, **options) for y in draws]))


def _expected_gap(curve: ReliabilityCurve) -> float:
    """The bins' gaps weighted by their share of entries; the mean over the classes that have entries."""
    count, gap = torch.atleast_2d(curve.count), torch.atleast_2d(curve.gap)
    total = count.sum(dim=1)
    per_class = (count * gap.nan_to_num(0)).sum(dim=1) / total
    return per_class[total > 0].mean().item()
