"""Bins of P(y = 1): the one place where probabilities are binned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

AVERAGES = ("classwise", "pooled")
BINNINGS = ("width", "mass")


class ReliabilityCurve(NamedTuple):
    """Contents of each bin: (C, bins) tensors for "classwise", (bins,) for "pooled".

    Attributes:
        confidence: mean probability, NaN in empty bins.
        frequency: share of positives, NaN in empty bins.
        count: number of entries, 0 in empty bins.
        edges: of the bins, one entry more.
    """

    confidence: torch.Tensor
    frequency: torch.Tensor
    count: torch.Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody calls on a curve
    edges: torch.Tensor

    @property
    def gap(self) -> torch.Tensor:
        """abs(frequency − confidence) of each bin, NaN where the bin is empty."""
        return (self.frequency - self.confidence).abs()


def require_binning(bins: int, average: str, binning: str, minimum: float) -> None:
    """Raise ValueError for bins < 1, an unknown average or binning, and a minimum outside [0, 1]."""
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins is {bins!r}: expected a whole number of at least 1")
    if average not in AVERAGES:
        raise ValueError(f"unknown average {average!r}: choose {' or '.join(AVERAGES)}")
    if binning not in BINNINGS:
        raise ValueError(f"unknown binning {binning!r}: choose {' or '.join(BINNINGS)}")
    if not 0 <= minimum <= 1:
        raise ValueError(f"minimum is {minimum}: expected a probability in [0, 1]")


def binned(
    probabilities: np.ndarray,
    outcomes: np.ndarray,
    keep: np.ndarray | None,
    bins: int,
    average: str,
    binning: str,
    minimum: float,
) -> ReliabilityCurve:
    """Bin validated probabilities (N, C) with their outcomes: 0/1 targets, or a posterior."""
    counted = counted_entries(probabilities, keep, minimum)
    if average == "pooled":
        probabilities, outcomes, counted = (x.reshape(-1, 1) for x in (probabilities, outcomes, counted))
    rows = [_binned_one(p[k], y[k], bins, binning) for p, y, k in zip(probabilities.T, outcomes.T, counted.T)]
    return ReliabilityCurve(
        *(torch.from_numpy(np.stack(part) if average == "classwise" else part[0]) for part in zip(*rows))
    )


def counted_entries(probabilities: np.ndarray, keep: np.ndarray | None, minimum: float) -> np.ndarray:
    """Which entries count (N, C): those with p ≥ minimum that are not ignored."""
    counted = probabilities >= probabilities.dtype.type(minimum)
    return counted if keep is None else counted & keep


def equal_edges(bins: int) -> np.ndarray:
    """Edges of bins of equal width on [0, 1]."""
    return np.arange(bins + 1) / bins  # correctly rounded, unlike linspace: 3/10 is 0.3


def bin_index(p: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each probability; a bin holds its left edge, the last one p = 1 too."""
    # Edges in the precision of p, or 0.7 in single precision would fall below an edge at 0.7.
    return np.searchsorted(edges[1:-1].astype(p.dtype), p, side="right")


def _binned_one(p: np.ndarray, outcomes: np.ndarray, bins: int, binning: str):
    """Confidence, frequency, count and edges of one row of bins."""
    edges = equal_edges(bins)
    if binning == "mass" and len(p):
        edges[1:-1] = np.sort(p)[np.arange(1, bins) * len(p) // bins]
    index = bin_index(p, edges)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN: the mean of an empty bin
        confidence, frequency = (np.bincount(index, weights, bins) / count for weights in (p, outcomes))
    return confidence, frequency, count, edges
