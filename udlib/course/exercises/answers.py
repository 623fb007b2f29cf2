"""How the checks read an answer, and compare it with the right one and with known mistakes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from udlib.course.exercises import NotAttempted
from udlib.statistics import PairedDifference


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
            else f"no gradient can flow through the tensor that it returned: a detach(), .data, torch.tensor(…) or "
            f"torch.no_grad() cuts it off from the logits{allowed}"
        )
    if isinstance(value, (list, tuple)):
        return f"no gradient can flow through a {type(value).__name__}: join its tensors to one, with torch.stack(…)"
    if isinstance(value, np.ndarray):
        return "no gradient can flow through a ndarray: stay in torch, and return a tensor"
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
            f"it returned the PairedDifference itself: expected {many}, {expected}. Use its parts by name, such as "
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
    if isinstance(value, (list, tuple)):
        value = [part.detach().cpu() if isinstance(part, Tensor) else part for part in value]
    try:
        answer = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=float)
    except (TypeError, ValueError):
        return np.empty(0), f"it returned {shown(value)}: expected {what}"
    if shape is not None and answer.shape != shape:
        return answer, f"it returned shape {answer.shape}: expected {shape}, {what}"
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
