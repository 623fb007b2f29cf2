"""Metrics of decisions: precision, recall and F1 at a threshold or of the top k labels; the subset of hard images."""

from __future__ import annotations

import numpy as np
import torch

from udlib.metrics.checks import as_array, checked_probabilities


def precision_recall_f1(
    probabilities, targets, threshold=0.5, top_k: int | None = None, ignore=None
) -> dict[str, float]:
    """Precision, recall and F1 of the decisions p ≥ threshold, per class (C…) and over all labels (O…).

    CP and CR are means over all C classes of TP/predicted and TP/actual, with 0/0 = 0; OP and OR take the same ratios
    of the summed counts; CF1 = 2·CP·CR / (CP + CR), which is not the mean of the classes' F1, and likewise OF1.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}, any dtype.
        threshold: in [0, 1], one number or (C,), one for each class; a probability equal to it counts as predicted.
        top_k: predict only an image's k most probable labels, and of these only those that reach the threshold;
            between equal probabilities the lower class index goes first. Ignored labels take no place among the k.
        ignore: (N, C) bool, True = leave out.

    Returns:
        dict with CP, CR, CF1, OP, OR, OF1, fractions in [0, 1].

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: values outside [0, 1], a threshold outside [0, 1], neither one nor C thresholds, top_k < 1, shapes
            that differ, targets outside {0, 1}.

    Example:
        >>> precision_recall_f1([[.9, .6], [.2, .7]], [[1, 0], [1, 1]])["OP"]
        0.6666666666666666
    """
    thresholds = _checked_thresholds(threshold)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}: expected at least 1, or None for all labels")
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)
    if thresholds.ndim and thresholds.shape != (classes := probabilities.shape[1],):
        raise ValueError(
            f"threshold has shape {thresholds.shape}: expected one number, or {classes}, one for each class"
        )

    if keep is not None:
        probabilities = np.where(keep, probabilities, -1)  # below every threshold, and last in the ranking
        targets = targets & keep
    # The threshold in the precision of the probabilities: 0.7 in single precision counts as reaching 0.7.
    predicted = probabilities >= thresholds.astype(probabilities.dtype)
    if top_k is not None and top_k < predicted.shape[1]:
        columns = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        among_top = np.zeros_like(predicted)
        np.put_along_axis(among_top, columns, True, axis=1)
        predicted &= among_top
    hits, claims, actual = (a.sum(axis=0, dtype=np.int64) for a in (predicted & targets, predicted, targets))
    cp, cr = float(_ratio(hits, claims).mean()), float(_ratio(hits, actual).mean())
    op, or_ = float(_ratio(hits.sum(), claims.sum())), float(_ratio(hits.sum(), actual.sum()))
    return {"CP": cp, "CR": cr, "CF1": _harmonic(cp, cr), "OP": op, "OR": or_, "OF1": _harmonic(op, or_)}


def difficult_subset(difficult) -> torch.Tensor:
    """The paper's *Difficult* subset: images that have at least one difficult label.

    Args:
        difficult: (N, C) bool, True where the class is present and all its objects are difficult.

    Returns:
        (N,) bool mask: `scores[difficult_subset(difficult)]` are the rows of the subset.

    Raises:
        ValueError: a mask that is not bool (N, C).

    Example:
        >>> difficult_subset([[False, True], [False, False]])
        tensor([ True, False])
    """
    difficult = as_array(difficult)
    if difficult.ndim != 2 or difficult.dtype != bool:
        raise ValueError(f"difficult has shape {difficult.shape}, dtype {difficult.dtype}: expected a bool (N, C) mask")

    return torch.from_numpy(difficult.any(axis=1))


def _checked_thresholds(threshold) -> np.ndarray:
    """One threshold or several, as an array; ValueError for one outside [0, 1]."""
    thresholds = as_array(threshold).astype(np.float64)
    if not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(f"threshold is {threshold}: expected a probability in [0, 1]")
    return thresholds


def _ratio(part, whole) -> np.ndarray:
    """Divide part by whole, with 0/0 = 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)


def _harmonic(a: float, b: float) -> float:
    """The harmonic mean; 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
