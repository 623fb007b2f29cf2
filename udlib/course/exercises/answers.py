"""How the checks read an answer, and compare it with the right one and with known mistakes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import t as student_t
from torch import Tensor

from udlib.course.exercises import NotAttempted
from udlib.statistics import PairedDifference, paired_difference


def number(value) -> tuple[float, str | None]:
    """Return the value as a float, or NaN and a sentence about what came instead of one number."""
    if value is None:
        return math.nan, "the function returned nothing: end it with return"
    if isinstance(value, Tensor):
        if value.numel() != 1:
            return math.nan, f"it returned a tensor of shape {tuple(value.shape)}: expected a single number"
        value = value.detach()
    try:
        return float(value), None
    except (TypeError, ValueError):
        return math.nan, f"it returned {shown(value)}: expected a single number"


def differentiable(value, constants: str = "") -> str | None:
    """Return None for a torch tensor through which a gradient can flow, else what cuts the gradient off.

    Args:
        value: The loss that the learner's function returned.
        constants: What may be cut off, for the sentence about a tensor without a gradient.
    """
    if isinstance(value, Tensor):
        allowed = f" (only {constants} may)" if constants else ""
        return (
            None
            if value.requires_grad
            else f"no gradient can flow through the tensor that it returned: a detach(), .data or torch.no_grad() cuts "
            f"it off from the logits{allowed}"
        )
    if isinstance(value, (list, tuple, np.ndarray)):
        return f"no gradient can flow through a {type(value).__name__}: stay in torch, and return a tensor"
    return "no gradient can flow through a Python number: return the tensor itself, without .item() or float()"


def numbers(value, expected: str, count: int, beside: int = 0) -> tuple[list[float], str | None]:
    """Return the first parts of a tuple (or array) as floats, and what is wrong with it or None.

    Args:
        value: The answer.
        expected: Names of all parts, for example "(low, high, verdict)".
        count: How many parts must be numbers; NaNs are returned where they are none.
        beside: How many further parts there must be, of any kind.

    Raises:
        NotAttempted: Where a part is still `...`.
    """
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        value = value.tolist()
    many = {2: "a pair", 3: "three", 4: "four"}[count + beside]
    many += "" if many == "a pair" else " things" if beside else " numbers"
    if isinstance(value, PairedDifference):
        return [math.nan] * count, (
            f"it returned the PairedDifference itself: expected {many}, {expected}. Take its parts by name, such as "
            "found.mean, found.low, found.high or found.verdict"
        )
    if not isinstance(value, (tuple, list)) or len(value) != count + beside:
        missing = count + beside - len(value) if isinstance(value, (tuple, list)) else 0
        lacks = f"; {missing} of them {'is' if missing == 1 else 'are'} missing" if missing > 0 else ""
        return [math.nan] * count, f"it returned {shown(value)}: expected {many}, {expected}{lacks}"
    if any(part is ... for part in value):
        raise NotAttempted
    answers, problems = zip(*map(number, value[:count]))
    problem = next(filter(None, problems), None)
    return list(answers), f"a part of the answer is not a number: {problem}" if problem else None


def shown(value) -> str:
    """Return the value in a few words, for a sentence about it."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '…'}"


def array(value, shape: tuple[int, ...] | None, what: str) -> tuple[np.ndarray, str | None]:
    """Return the value as a float array of this shape (None: of any), or a sentence about what came instead."""
    if value is None:
        return np.empty(0), "the function returned nothing: end it with return"
    try:
        answer = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=float)
    except (TypeError, ValueError):
        return np.empty(0), f"it returned {shown(value)}: expected {what}"
    if shape is not None and answer.shape != shape:
        return answer, f"it returned something of shape {answer.shape}: expected {shape}, {what}"
    return answer, None


def among(answer: np.ndarray, right: np.ndarray, mistakes: Mapping[str, np.ndarray]) -> str | None:
    """Return None for the right array, else the sentence of the mistake that gives this one, else where it differs."""
    if np.allclose(answer, right, rtol=1e-4, atol=1e-6):
        return None
    for sentence, wrong in mistakes.items():
        if wrong.shape == answer.shape and np.allclose(answer, wrong, rtol=1e-4, atol=1e-6, equal_nan=True):
            return sentence
    where = np.unravel_index(int(np.argmax(~np.isclose(answer, right, rtol=1e-4, atol=1e-6))), right.shape)
    place = ", ".join(map(str, map(int, where)))
    return f"on a small example it gives {answer[where]:.4g} at [{place}], expected {right[where]:.4g}"


def compare(answer: float, right: float, mistakes: Mapping[float, str]) -> str | None:
    """Return None for the right number, else the sentence of the mistake that gives this one, else the right number."""
    if math.isclose(answer, right, rel_tol=1e-4, abs_tol=1e-6):
        return None
    for wrong, sentence in mistakes.items():
        if math.isclose(answer, wrong, rel_tol=1e-4, abs_tol=1e-6):
            return sentence
    return f"on a small example it gives {answer:.4g}, expected {right:.4g}"


def paired_interval(value, a, b, mistakes: Mapping[float, str]) -> str | None:
    """Check the mean and the 95 % t interval of a − b, paired by seed; return None or what is wrong.

    Args:
        value: The answer: (mean, low, high).
        a: (n,), one value per seed.
        b: (n,) with the same seeds in the same order.
        mistakes: Sentences by the mean that a mistake gives.
    """
    if isinstance(value, PairedDifference):
        value = value[:3]
    (mean, low, high), problem = numbers(value, "(mean, low, high)", 3)
    return problem or compare(mean, paired_difference(a, b).mean, mistakes) or _paired_ends(low, high, a, b)


def _paired_ends(low: float, high: float, a, b) -> str | None:
    """Check the ends of the paired 95 % t interval of a − b, whose mean is right; return None or the mistake."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    right, n, factor = paired_difference(a, b), len(a), student_t.ppf(0.975, len(a) - 1)
    paired, apart = (a - b).std(ddof=1) / math.sqrt(n), math.sqrt(a.var(ddof=1) / n + b.var(ddof=1) / n)
    halves = {
        factor * (a - b).std() / math.sqrt(n): "the standard deviation divides by n: take n − 1 (ddof=1)",
        factor * (a - b).std(ddof=1): "that is the spread of single seeds: divide by √n for the interval of their mean",
        1.96 * paired: "it takes 1.96, which is for many seeds: with five, t is 2.78",
        2 * paired: "it takes 2, which is for many seeds: with five, t is 2.78",
        student_t.ppf(0.95, n - 1) * paired: "that is the 90 % interval: 2.5 % are left out on each side",
        paired: "that is one standard error to each side: multiply by t for 95 %",
        **{
            t
            * apart: "the interval is not paired: seeds differ more than arms do, so take the differences seed by seed"
            for t in (1.96, 2, 2.306, student_t.ppf(0.975, 2 * n - 2), factor, _welch(a, b))
        },
    }
    half = (high - low) / 2
    if not math.isclose(half, (right.high - right.low) / 2, rel_tol=1e-3):
        explanation = next(
            (sentence for wrong, sentence in halves.items() if math.isclose(half, wrong, rel_tol=1e-3)), None
        )
        return "the mean is right, but " + (
            explanation or f"the interval is [{right.low:.4f}, {right.high:.4f}] there, not [{low:.4f}, {high:.4f}]"
        )
    return (
        None
        if math.isclose((high + low) / 2, right.mean, abs_tol=1e-6)
        else "the interval does not lie around the mean"
    )


def _welch(a: np.ndarray, b: np.ndarray) -> float:
    """The t of Welch's interval at 95 %."""
    u, v = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    return float(student_t.ppf(0.975, (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))))
