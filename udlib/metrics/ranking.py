"""Metrics of rankings: average precision by three conventions, and its mean over the classes."""

from __future__ import annotations

import numpy as np
import torch

from udlib.metrics.checks import checked_arrays

AP_VARIANTS = ("non-interpolated", "voc07-11point", "voc10-area")


def average_precision(scores, targets, ignore=None, variant: str = "non-interpolated") -> torch.Tensor:
    """Average precision of each class.

    With precision_k = (positives scored ≥ s_k) / (everything scored ≥ s_k) at the score s_k of each positive:

    - "non-interpolated": mean of precision_k over the positives. COCO-style papers, the UD tables, scikit-learn.
    - "voc07-11point": mean over recall levels 0, 0.1, …, 1 of the best precision at that recall or above (VOC2007 kit).
    - "voc10-area": area under the precision made non-increasing in recall (VOC kit since 2010).

    Equal scores form one threshold: all of them are counted before precision is read, whatever their order in memory.
    (The VOC kit instead breaks ties by file order, which makes a constant predictor's AP depend on that order.)

    Args:
        scores: (N, C) logits or probabilities; any strictly increasing transform gives the same result.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.
        variant: one of `AP_VARIANTS`.

    Returns:
        (C,) float64 in [0, 1]; NaN where a class has no positive left.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: unknown variant, shapes that differ, targets outside {0, 1}, NaN scores.

    Example:
        >>> average_precision([[.9], [.8], [.7]], [[1], [0], [1]])
        tensor([0.8333], dtype=torch.float64)
    """
    if variant not in AP_VARIANTS:
        raise ValueError(f"unknown AP variant {variant!r}: choose one of {', '.join(AP_VARIANTS)}")
    scores, targets, keep = checked_arrays(scores, targets, ignore)

    # One contiguous row per class: the passes below then stay in the CPU's cache.
    columns = zip(
        np.ascontiguousarray(scores.T),
        np.ascontiguousarray(targets.T),
        [None] * targets.shape[1] if keep is None else keep.T,
    )
    return torch.tensor([_average_precision_of_one(*column, variant) for column in columns], dtype=torch.float64)


def mean_average_precision(scores, targets, ignore=None, variant: str = "non-interpolated") -> float:
    """Mean average precision (mAP) over the classes that have a positive; absent classes are left out, not zeros.

    Args:
        scores: (N, C) logits or probabilities.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.
        variant: one of `AP_VARIANTS`, explained in `average_precision`.

    Returns:
        A fraction in [0, 1].

    Raises:
        TypeError: as `average_precision`.
        ValueError: no class with a positive, and as `average_precision`.

    Example:
        >>> mean_average_precision([[.9, .1], [.8, .2], [.7, .3]], [[1, 0], [0, 0], [1, 0]])
        0.8333333333333333
    """
    per_class = average_precision(scores, targets, ignore, variant)
    present = ~per_class.isnan()
    if not present.any():
        raise ValueError(f"none of the {len(per_class)} classes has a positive: check targets and ignore")

    return per_class[present].mean().item()


def _average_precision_of_one(scores, targets, keep, variant: str) -> float:
    """AP of one class from its column of scores, targets and entries to keep."""
    if keep is not None:
        scores, targets = scores[keep], targets[keep]
    positives = np.sort(scores[np.flatnonzero(targets)])
    n = len(positives)
    if n == 0:
        return float("nan")
    hits = n - np.searchsorted(positives, positives)
    precision = hits / _count_at_or_above(scores, positives)
    if variant == "non-interpolated":
        return float(precision.mean())
    # Precision only falls between two positives, so the best at a recall or above is always read at a positive.
    envelope = np.maximum.accumulate(precision)  # ascending scores: recall falls from left to right
    if variant == "voc10-area":
        return float(envelope.mean())
    levels = np.arange(11)  # recall ≥ 0.1·level in whole numbers: 0.3 has no exact float
    reached = np.count_nonzero(hits * 10 >= levels[:, None] * n, axis=1)
    return float(envelope[reached - 1].mean())


def _count_at_or_above(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """How many scores are ≥ each of the sorted positive scores, exactly, ties included.

    Sorting everything is most of the cost of AP, and positives are few. So: put scores into buckets that increase with
    the score, count whole buckets, and sort only the scores that share a bucket with a positive. Any monotone bucketing
    gives the same counts; the linear one between the lowest and the highest positive is the cheapest.
    """
    buckets = max(len(scores) // 2, 2)
    low, high = positives[0], positives[-1]
    with np.errstate(all="ignore"):
        scale = positives.dtype.type(buckets - 1) / (high - low)
    if not (np.isfinite(scale) and scale > 0 and np.isfinite(low)):  # one threshold, or infinities: no line
        return len(scores) - np.searchsorted(np.sort(scores), positives)
    where, at = (_bucket(values, low, scale, buckets) for values in (scores, positives))
    shared = np.zeros(buckets + 1, dtype=bool)
    shared[at] = True
    whole = np.bincount(where, minlength=buckets + 1)
    whole[shared] = 0
    candidates = np.sort(scores[np.flatnonzero(shared[where])])
    above = np.cumsum(whole[::-1])[::-1]
    return above[at] + len(candidates) - np.searchsorted(candidates, positives)


def _bucket(scores: np.ndarray, low, scale, buckets: int) -> np.ndarray:
    """Bucket 1 … buckets of each score on the line from `low` up; 0 for scores below it."""
    with np.errstate(over="ignore"):
        line = scores - low
        line *= scale
    return np.clip(line, -1, buckets - 1, out=line).astype(np.intp) + 1
