"""Proper scores of probabilities, and the lowest values that any predictor can reach on average."""

from __future__ import annotations

import numpy as np

from udlib.metrics.checks import checked_fractions, checked_probabilities


def brier_score(probabilities, targets, ignore=None) -> float:
    """Brier score: the mean of (p − y)² over all class–image pairs that count.

    Args:
        probabilities: (N, C) in [0, 1], p.
        targets: (N, C) in {0, 1}, any dtype, y.
        ignore: (N, C) bool, True = leave out.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: probabilities outside [0, 1] or NaN, targets outside {0, 1}, shapes that differ, every entry
            ignored.

    Example:
        >>> brier_score([[.8, .4]], [[1, 0]])
        0.1
    """
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)

    return _mean((probabilities.astype(np.float64) - targets) ** 2, keep)


def negative_log_likelihood(probabilities, targets, ignore=None, clip: float = 1e-7) -> float:
    """Negative log-likelihood (NLL): the mean of −[y log p + (1−y) log(1−p)] over all class–image pairs that count.

    This is Eq. 3 divided by C. Probabilities are clipped to [clip, 1 − clip] first: a sigmoid in single precision
    reaches 1 near a logit of 17, and one such miss would make the mean infinite; at the default a miss costs at most
    16.1 nats.

    Args:
        probabilities: (N, C) in [0, 1], p.
        targets: (N, C) in {0, 1}, any dtype, y.
        ignore: (N, C) bool, True = leave out.
        clip: in (0, 0.5).

    Returns:
        Nats, ≥ 0.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: clip out of range, and as `brier_score`.

    Example:
        >>> round(negative_log_likelihood([[.5, .5]], [[1, 0]]), 4)
        0.6931

    Source: UD, Eq. 3.
    """
    if not 0 < clip < 0.5:
        raise ValueError(f"clip is {clip}: expected a small positive number such as 1e-7")
    probabilities, targets, keep = checked_probabilities(probabilities, targets, ignore)

    p = np.clip(probabilities.astype(np.float64), clip, 1 - clip)
    return _mean(-np.log(np.where(targets, p, 1 - p)), keep)


def expected_nll_floor(posterior, ignore=None) -> float:
    """NLL that no predictor beats on average: the mean entropy −π log π − (1−π) log(1−π), reached by p = π.

    Args:
        posterior: (N, C) in [0, 1], the known π = P(y = 1 | image).
        ignore: (N, C) bool, True = leave out.

    Returns:
        Nats, from 0 to log 2.

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: a posterior outside [0, 1] or NaN, every entry ignored.

    Example:
        >>> round(expected_nll_floor([[.5, 1.]]), 4)
        0.3466
    """
    posterior, keep = checked_fractions(posterior, ignore, "posterior")

    posterior = posterior.astype(np.float64)
    entropy = np.zeros_like(posterior)
    for p in (posterior, 1 - posterior):
        entropy = entropy - p * np.log(np.where(p > 0, p, 1))  # 0 log 0 = 0
    return _mean(entropy, keep)


def expected_brier_floor(posterior, ignore=None) -> float:
    """Brier score that no predictor beats on average: the mean of π(1 − π), reached by p = π.

    Args:
        posterior: (N, C) in [0, 1], the known π = P(y = 1 | image).
        ignore: (N, C) bool, True = leave out.

    Returns:
        A number in [0, 0.25].

    Raises:
        TypeError: `ignore` that is not bool.
        ValueError: a posterior outside [0, 1] or NaN, every entry ignored.

    Example:
        >>> expected_brier_floor([[.5, 1.]])
        0.125
    """
    posterior, keep = checked_fractions(posterior, ignore, "posterior")

    posterior = posterior.astype(np.float64)
    return _mean(posterior * (1 - posterior), keep)


def _mean(values: np.ndarray, keep: np.ndarray | None) -> float:
    """The mean of the entries that count."""
    values = values.ravel() if keep is None else values[keep]
    if values.size == 0:
        raise ValueError("every entry is ignored: nothing is left to average")
    return float(values.mean())
