"""The threshold of each class at which its F1 is highest."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from udlib.metrics.checks import checked_probabilities

FEW = 10  # positives: a threshold that was fitted on fewer follows the luck of the draw
USUAL = 0.5  # the threshold of a class without positives


def best_thresholds(probabilities, targets, ignore=None) -> torch.Tensor:
    """Each class's F1-optimal threshold: no other one gives its decisions p ≥ threshold a higher F1 on these images.

    F1 = 2·TP / (predicted + actual) changes only where the threshold passes a probability, so every cut between two
    different probabilities of a class is tried. The threshold is the middle of the best cut, where small differences of
    new probabilities matter least. Between cuts of the same F1 it is the one that predicts the fewest labels.

    Fit it on the validation split: thresholds that are fitted and measured on the same images look better than they are.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.

    Returns:
        (C,) float64 in [0, 1]; 0.5 for a class without a positive, whose F1 is 0 at every threshold.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: values outside [0, 1], shapes that differ, targets outside {0, 1}.

    Warns:
        UserWarning: classes that have fewer than `FEW` positives, by their index.

    Example:
        >>> p, y = torch.tensor([[0.9], [0.4], [0.2], [0.1]]).repeat(10, 1), torch.tensor([[1], [1], [0], [0]]).repeat(10, 1)
        >>> best_thresholds(p, y)
        tensor([0.3000], dtype=torch.float64)
    """
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)
    rare = few_positives(targets, None if keep is None else ~keep)
    if rare:
        warnings.warn(
            f"classes {list(rare)} have fewer than {FEW} positives: their thresholds may not suit other images",
            stacklevel=2,
        )
    columns = zip(probabilities.T, targets.T, [None] * targets.shape[1] if keep is None else keep.T)
    return torch.tensor([_best_threshold_of_one(*column) for column in columns], dtype=torch.float64)


def few_positives(targets, ignore=None) -> dict[int, int]:
    """Find the classes of which there are too few positives to fit a threshold on.

    Args:
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.

    Returns:
        The number of positives by the index of each class that has fewer than `FEW`.

    Example:
        >>> few_positives([[1, 0], [1, 0]])
        {0: 2, 1: 0}
    """
    positives = np.asarray(targets, bool)
    if ignore is not None:
        positives = positives & ~np.asarray(ignore, bool)
    return {k: count for k, count in enumerate(positives.sum(axis=0).tolist()) if count < FEW}


def _best_threshold_of_one(p: np.ndarray, targets: np.ndarray, keep: np.ndarray | None) -> float:
    """The threshold of one class from its column of probabilities, targets and entries to keep."""
    if keep is not None:
        p, targets = p[keep], targets[keep]
    if not targets.any():
        return USUAL
    order = np.argsort(-p)
    p, hits = p[order], np.cumsum(targets[order])
    last = np.append(p[1:] < p[:-1], True)  # equal probabilities fall on the same side of every cut
    predicted = np.arange(1, len(p) + 1)
    f1 = np.where(last, 2 * hits / (predicted + hits[-1]), -1.0)
    cut = int(f1.argmax())
    above, below = p[cut], p[cut + 1] if cut + 1 < len(p) else p.dtype.type(0)
    middle = below + (above - below) / 2
    return float(middle if middle > below else above)  # between neighbouring numbers there is no middle
