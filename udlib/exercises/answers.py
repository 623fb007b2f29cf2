"""How the checks read an answer and hold it against the right one and against known mistakes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from udlib.exercises import NotAttempted


def number(value) -> tuple[float, str | None]:
    """The value as a float, or NaN and a sentence about what came instead of one number."""
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


def numbers(value, expected: str, count: int, beside: int = 0) -> tuple[list[float], str | None]:
    """The first `count` parts of a tuple (or array) as floats, NaNs where it is none, and what is wrong with it or None.

    `beside` more parts may be anything; `expected` names them all, as "(low, high, verdict)". Raises NotAttempted where a
    part is still `...`.
    """
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, (tuple, list)) or len(value) != count + beside:
        many = {2: "a pair", 3: "three", 4: "four"}[count + beside]
        what = "" if many == "a pair" else " things" if beside else " numbers"
        return [math.nan] * count, f"it returned {shown(value)}: expected {many}{what}, {expected}"
    if any(part is ... for part in value):
        raise NotAttempted
    found, problems = zip(*map(number, value[:count]))
    problem = next(filter(None, problems), None)
    return list(found), f"a part of the answer is not a number: {problem}" if problem else None


def shown(value) -> str:
    """The value in a few words, for a sentence about it."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '…'}"


def compare(found: float, right: float, mistakes: Mapping[float, str]) -> str | None:
    """None for the right number, else the sentence of the mistake that gives just this one."""
    if math.isclose(found, right, rel_tol=1e-4, abs_tol=1e-6):
        return None
    for wrong, sentence in mistakes.items():
        if math.isclose(found, wrong, rel_tol=1e-4, abs_tol=1e-6):
            return sentence
    return f"on a small example it gives {found:.4g}, expected {right:.4g}"
