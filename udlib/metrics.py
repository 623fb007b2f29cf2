"""Ranking and decision metrics for multi-label predictions: AP by three conventions, CP/CR/CF1/OP/OR/OF1.

Every function takes tensors, arrays or lists of shape (N, C): N images, C labels; `ignore` is a bool mask of the same
shape, True where an entry is left out (VOC's difficult objects, say). What stands at an ignored entry never matters,
NaN included. Results are fractions, not per cent.
"""

from __future__ import annotations

import numpy as np
import torch

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
        ValueError: unknown variant, shapes that differ, targets outside {0, 1}, NaN scores.

    >>> average_precision([[.9], [.8], [.7]], [[1], [0], [1]])
    tensor([0.8333], dtype=torch.float64)
    """
    if variant not in AP_VARIANTS:
        raise ValueError(f"unknown AP variant {variant!r}: choose one of {', '.join(AP_VARIANTS)}")
    scores, targets, keep = checked_arrays(scores, targets, ignore)
    # one contiguous row per class: the passes below then stay in the CPU's cache
    columns = zip(
        np.ascontiguousarray(scores.T),
        np.ascontiguousarray(targets.T),
        [None] * targets.shape[1] if keep is None else keep.T,
    )
    return torch.tensor([_average_precision_of_one(*column, variant) for column in columns], dtype=torch.float64)


def mean_average_precision(scores, targets, ignore=None, variant: str = "non-interpolated") -> float:
    """mAP: mean of `average_precision` over the classes that have a positive; absent classes are left out, not zeros.

    Takes and raises what `average_precision` does, and ValueError where no class has a positive. Returns a fraction.
    """
    per_class = average_precision(scores, targets, ignore, variant)
    present = ~per_class.isnan()
    if not present.any():
        raise ValueError(f"none of the {len(per_class)} classes has a positive: check targets and ignore")
    return per_class[present].mean().item()


def precision_recall_f1(
    probabilities, targets, threshold: float = 0.5, top_k: int | None = None, ignore=None
) -> dict[str, float]:
    """Precision, recall and F1 of the decisions p ≥ threshold, per class (C…) and over all labels (O…).

    CP and CR are means over all C classes of TP/predicted and TP/actual, with 0/0 = 0; OP and OR take the same ratios
    of the summed counts; CF1 = 2·CP·CR / (CP + CR), which is not the mean of the classes' F1, and likewise OF1.

    Args:
        probabilities: (N, C) in [0, 1].
        targets: (N, C) in {0, 1}, any dtype.
        threshold: p equal to it counts as predicted.
        top_k: predict only an image's k most probable labels, and of these only those that reach the threshold;
            between equal probabilities the lower class index goes first. Ignored labels take no place among the k.
        ignore: (N, C) bool, True = leave out.

    Returns:
        dict with CP, CR, CF1, OP, OR, OF1, fractions in [0, 1].

    Raises:
        ValueError: values outside [0, 1], threshold outside [0, 1], top_k < 1, and as `average_precision`.

    >>> precision_recall_f1([[.9, .6], [.2, .7]], [[1, 0], [1, 1]])["OP"]
    0.6666666666666666
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}: expected a probability in [0, 1]")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}: expected at least 1, or None for all labels")
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)
    if keep is not None:
        probabilities = np.where(keep, probabilities, -1)  # below every threshold, and last in the ranking
        targets = targets & keep
    predicted = probabilities >= probabilities.dtype.type(threshold)
    if top_k is not None and top_k < predicted.shape[1]:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        chosen = np.zeros_like(predicted)
        np.put_along_axis(chosen, best, True, axis=1)
        predicted &= chosen
    hits, claims, actual = (a.sum(axis=0, dtype=np.int64) for a in (predicted & targets, predicted, targets))
    cp, cr = float(_ratio(hits, claims).mean()), float(_ratio(hits, actual).mean())
    op, or_ = float(_ratio(hits.sum(), claims.sum())), float(_ratio(hits.sum(), actual.sum()))
    return {"CP": cp, "CR": cr, "CF1": _harmonic(cp, cr), "OP": op, "OR": or_, "OF1": _harmonic(op, or_)}


def difficult_subset(difficult) -> torch.Tensor:
    """The paper's *Difficult* subset: images that have at least one difficult label.

    Args:
        difficult: (N, C) bool, True where the class is present and all its objects are difficult.

    Returns:
        (N,) bool mask: `scores[difficult_subset(difficult)]` are the subset's rows.

    >>> difficult_subset([[False, True], [False, False]])
    tensor([ True, False])
    """
    difficult = as_array(difficult)
    if difficult.ndim != 2 or difficult.dtype != bool:
        raise ValueError(f"difficult has shape {difficult.shape}, dtype {difficult.dtype}: expected a bool (N, C) mask")
    return torch.from_numpy(difficult.any(axis=1))


def as_array(values) -> np.ndarray:
    """A NumPy view of a tensor (detached, on the CPU, half precision widened), array or nested list."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
    return np.asarray(values)


def checked_arrays(scores, targets, ignore=None, name: str = "scores"):
    """Validate what every metric takes → (scores float32/64, targets bool, keep bool or None), all (N, C)."""
    scores, keep = checked_numbers(scores, ignore, name)
    targets = as_array(targets)
    if targets.shape != scores.shape:
        raise ValueError(f"targets have shape {targets.shape} but {name} have {scores.shape}: both must be (N, C)")
    if targets.dtype != bool:
        refuse((targets != 0) & (targets != 1), keep, targets, "targets", "expected only 0 and 1")
        targets = targets == 1
    return scores, targets, keep


def checked_probabilities(probabilities, targets, ignore=None):
    """`checked_arrays` for probabilities: refuses values outside [0, 1] as well."""
    probabilities, targets, keep = checked_arrays(probabilities, targets, ignore, "probabilities")
    refuse_non_probabilities(probabilities, keep, "probabilities")
    return probabilities, targets, keep


def checked_numbers(values, ignore, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(values float32/64 without NaN at entries that count, keep = ~ignore or None), both (N, C)."""
    values = as_array(values)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} have shape {values.shape}: expected (N, C) with at least one image and one class")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
    keep = None
    if ignore is not None:
        mask = as_array(ignore)
        if mask.shape != values.shape:
            raise ValueError(f"ignore has shape {mask.shape} but {name} have shape {values.shape}: both must be (N, C)")
        if mask.dtype != bool:
            raise TypeError(f"ignore has dtype {mask.dtype}: expected bool, True where an entry is left out")
        keep = ~mask
    refuse(np.isnan(values), keep, values, name, "a diverged or broken model? drop these entries with ignore")
    return values, keep


def refuse_non_probabilities(values: np.ndarray, keep: np.ndarray | None, name: str) -> None:
    """Raise ValueError where an entry that counts lies outside [0, 1]."""
    refuse(
        (values < 0) | (values > 1), keep, values, name, "logits where probabilities are wanted: apply torch.sigmoid"
    )


def refuse(bad: np.ndarray, keep: np.ndarray | None, values: np.ndarray, name: str, remedy: str) -> None:
    """Raise ValueError that names the first bad entry that counts, its value and the remedy."""
    if bad.any():
        found = np.argwhere(bad if keep is None else bad & keep)
        if len(found):
            row, column = found[0].tolist()
            raise ValueError(f"{name} hold {values[row, column]} at [{row}, {column}]: {remedy}")


def _average_precision_of_one(scores, targets, keep, variant: str) -> float:
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
    # precision only falls between two positives, so the best at a recall or above is always read at a positive
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


def _ratio(part, whole) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
