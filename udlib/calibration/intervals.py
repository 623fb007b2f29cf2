"""Bootstrap intervals of calibration measures over images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse

from udlib.calibration.binning import bin_index, counted_entries, equal_edges
from udlib.calibration.errors import (
    confident_calibration_error,
    expected_calibration_error,
    true_calibration_error,
)
from udlib.metrics.checks import as_array
from udlib.statistics import Interval, bootstrap_interval

# Measures that are a weighted mean of bins' gaps, which resampled images change only by their counts.
_BINNED = (expected_calibration_error, confident_calibration_error, true_calibration_error)


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
    """Bootstrap interval over images of any calibration measure.

    The "basic" interval of `statistics.bootstrap_interval` is the default because calibration errors grow with noise.
    In a simulation (500 to 4,000 images, ECE of 2–7 %) 95 % intervals held the true value in 62–95 % of the trials,
    percentile intervals in 0–93 %. Near perfect calibration neither does, since the estimate itself is too high there:
    read it beside `calibration_noise`. Ends are kept ≥ 0.

    Bins of equal width stay where they are whatever is drawn, so for ECE and the measures like it each image is binned
    only once.

    Args:
        measure: a function of `udlib.calibration`, e.g. `expected_calibration_error`.
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}; the posterior for `true_calibration_error`.
        ignore: (N, C) bool, True = leave out.
        samples: number of resamples.
        seed: the same seed gives the same interval.
        confidence: coverage of the interval, in (0, 1).
        kind: "basic" or "percentile".
        options: those of the measure, e.g. average="pooled".

    Returns:
        Estimate and interval, fractions (nats for NLL).

    Raises:
        TypeError: as the measure.
        ValueError: as the measure and as `bootstrap_interval`.
    """
    probabilities, targets = as_array(probabilities), as_array(targets)
    ignore = None if ignore is None else as_array(ignore)

    def measured_anew(images: torch.Tensor) -> float:
        rows = images.numpy()
        mask = None if ignore is None else ignore[rows]
        return measure(probabilities[rows], targets[rows], ignore=mask, **options)

    statistic: Callable[[torch.Tensor], float] = measured_anew
    if measure in _BINNED and options.get("binning", "width") == "width":
        measure(probabilities, targets, ignore=ignore, **options)  # refuses what the measure refuses
        defaults = {"minimum": 0.5} if measure is confident_calibration_error else {}
        statistic = _binned_once(probabilities, targets, ignore, **(defaults | options))
    estimate, low, high = bootstrap_interval(statistic, len(probabilities), samples, seed, confidence, kind)
    return Interval(estimate, float(np.maximum(low, 0)), float(np.maximum(high, 0)))  # one image: NaN stays NaN


def _binned_once(
    probabilities, outcomes, ignore, bins=15, average="classwise", binning="width", minimum=0.0
) -> Callable[[torch.Tensor], float]:
    """The error of resampled images from each image's sums in each bin: Σ_bins |Σ outcome − Σ p| over the count."""
    images, classes = probabilities.shape
    counted = counted_entries(probabilities, None if ignore is None else ~ignore.astype(bool), minimum)
    row, column = np.nonzero(counted)
    p, y = probabilities[row, column], outcomes[row, column]
    rows = classes if average == "classwise" else 1
    cell = bin_index(p, equal_edges(bins)) + bins * (column if average == "classwise" else 0)
    # One column per image: multiplied by how often each image was drawn, it gives the sums of a resample. Sparse, since
    # an image has entries in few of the cells.
    parts = [
        sparse.coo_matrix((values, (row, cell)), shape=(images, rows * bins), dtype=np.float64)
        for values in (np.ones(len(p)), p, y)
    ]
    sums = sparse.hstack(parts).tocsc().T

    def error_of(drawn: torch.Tensor) -> float:
        times = np.bincount(drawn.numpy(), minlength=images)
        count, confidence, frequency = (sums @ times).reshape(3, rows, bins)
        total = count.sum(1)
        error = np.abs(frequency - confidence).sum(1)[total > 0] / total[total > 0]
        return float(error.mean()) if len(error) else float("nan")

    return error_of
