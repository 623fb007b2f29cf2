"""Validation that metrics, calibration measures and calibrators share.

Each function names what is wrong, the first bad entry that counts, its value, and what to do.
"""

from __future__ import annotations

import numpy as np
import torch


def as_array(values) -> np.ndarray:
    """Return a tensor (detached, on the CPU, half precision widened), an array or a nested list as a NumPy array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).numpy()
    return np.asarray(values)


def checked_arrays(
    scores, targets, ignore=None, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Validate what every metric takes and return scores float32/64, targets bool, keep bool or None, all (N, C).

    Args:
        scores: (N, C), without NaN at entries that count.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = leave out.
        name: what error messages call the scores.

    Returns:
        The scores; the targets; `keep`, which is ~ignore, or None where nothing is ignored.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: shapes that differ or are not (N, C), targets outside {0, 1}, NaN scores.
    """
    scores, keep = checked_numbers(scores, ignore, name)
    targets = as_array(targets)
    if targets.shape != scores.shape:
        raise ValueError(f"targets have shape {targets.shape} but {name} have {scores.shape}: both must be (N, C)")
    if targets.dtype != bool:
        refuse((targets != 0) & (targets != 1), keep, targets, "targets", "expected only 0 and 1")
        targets = targets == 1
    return scores, targets, keep


def checked_probabilities(probabilities, targets, ignore=None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Validate probabilities and labels as `checked_arrays` does, and refuse values outside [0, 1]."""
    probabilities, targets, keep = checked_arrays(probabilities, targets, ignore, "probabilities")
    refuse_non_probabilities(probabilities, keep, "probabilities")
    return probabilities, targets, keep


def checked_numbers(values, ignore, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Validate numbers (N, C) without NaN at entries that count, and return them, float32/64, and `keep`."""
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
    refuse(
        np.isnan(values), keep, values, name, "check whether the training diverged, or drop these entries with ignore"
    )
    return values, keep


def checked_fractions(values, ignore, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Validate numbers as `checked_numbers` does, and refuse values outside [0, 1]."""
    values, keep = checked_numbers(values, ignore, name)
    refuse_non_probabilities(values, keep, name)
    return values, keep


def refuse_non_probabilities(values: np.ndarray, keep: np.ndarray | None, name: str) -> None:
    """Raise ValueError where an entry that counts lies outside [0, 1]."""
    refuse(
        (values < 0) | (values > 1),
        keep,
        values,
        name,
        "expected probabilities; if they are logits, apply torch.sigmoid",
    )


def refuse(bad: np.ndarray, keep: np.ndarray | None, values: np.ndarray, name: str, remedy: str) -> None:
    """Raise ValueError that names the first bad entry that counts, its value and the remedy."""
    if bad.any():
        entries = np.argwhere(bad if keep is None else bad & keep)
        if len(entries):
            row, column = entries[0].tolist()
            raise ValueError(f"{name} hold {values[row, column]} at [{row}, {column}]: {remedy}")
