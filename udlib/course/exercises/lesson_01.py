"""Checks of lesson 01: conditional co-occurrence, the posterior of a label, and VOC's three label states."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from udlib.course.exercises import called, exercise
from udlib.datasets.annotator import label_posterior, marking_probability
from udlib.datasets.base import Box

# Three classes of different frequency that overlap, and a fourth that never occurs.
LABELS = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], np.float32)
DRAWN = (np.array([0, 2, 0]), np.array([0.20, 0.45, 0.12]), 4)  # class indices, visibilities, number of classes
NAMES = ("cup", "bird", "tree", "boat")


@exercise("01.1")
def conditional_cooccurrence(conditional: Callable) -> str | None:
    """`conditional(Y)`: labels (N, C) to P(j | i), (C, C), row i, column j."""
    answer = _array(called(conditional, torch.tensor(LABELS)), (4, 4), "(C, C)")
    if isinstance(answer, str):
        return answer
    together, count = LABELS.T @ LABELS, LABELS.sum(0)
    right = together / np.maximum(count, 1)[:, None]
    occurring = count > 0
    if np.allclose(answer[occurring], right[occurring], atol=1e-5) and not np.allclose(answer[~occurring], 0):
        return (
            f"the row of a class that has no picture holds {answer[~occurring][0, 0]:.3g}: make it 0, "
            "for example with counts.clamp(min=1)"
        )
    without_diagonal = right * (1 - np.eye(4))
    return _compare(
        answer[occurring][:, occurring],
        right[occurring][:, occurring],
        {
            "the diagonal is empty: P(i | i) is 1 for every class that occurs": without_diagonal[occurring][
                :, occurring
            ],
            "this is P(i | j): you divided by the count of the column's class; divide each row by its own, "
            "counts[:, None]": right.T[occurring][:, occurring],
            "these are shares of all pictures, P(i and j): divide by the number of pictures that have i, not by N": (
                together / len(LABELS)
            )[occurring][:, occurring],
            "these are still counts: divide each row by the number of pictures that have its class": together[
                occurring
            ][:, occurring],
        },
    )


@exercise("01.2")
def class_posterior(posterior: Callable) -> str | None:
    """`posterior(class_index, visibility, C)`: objects of one scene to P(y_c = 1 | scene), (C,)."""
    answer = _array(called(posterior, *(np.copy(a) if isinstance(a, np.ndarray) else a for a in DRAWN)), (4,), "(C,)")
    if isinstance(answer, str):
        return answer
    index, visibility, classes = DRAWN
    chance = marking_probability(visibility)

    def per_class(rule: Callable[[np.ndarray], float], values: np.ndarray) -> np.ndarray:
        return np.array([rule(values[index == c]) if (index == c).any() else 0.0 for c in range(classes)])

    right = label_posterior(index, visibility, classes)
    return _compare(
        answer,
        right,
        {
            "the chances are summed, which can give more than 1 for two objects: multiply the chances that each is "
            "missed, and take 1 minus the product": per_class(np.sum, chance),
            "the chances are multiplied: that is the chance that all objects are marked, but one is enough": per_class(
                np.prod, chance
            ),
            "only the most visible object counts: the annotator may mark the others too, and each of them raises the "
            "answer": per_class(np.max, chance),
            "the visibilities are used as chances: pass them through marking_probability first": per_class(
                lambda v: 1 - np.prod(1 - v), visibility
            ),
            "this is the chance that the class is missed: take 1 minus it": 1 - right,
            "every class uses all objects: multiply over the objects of class c only": np.full(
                classes, 1 - np.prod(1 - chance)
            ),
        },
    )


@exercise("01.3")
def three_states(states: Callable) -> str | None:
    """`states(boxes, classes)`: objects of one picture to VOC's 1 (easy), 0 (difficult), -1 (absent), one per class."""

    def box(name: str, difficult: bool) -> Box:
        return Box(name, 0, 0, 9, 9, difficult=difficult)

    boxes = [
        box("cup", False),
        box("cup", True),
        box("bird", True),
        box("bird", True),
        box("boat", True),
        box("boat", False),
    ]
    answer = _array(called(states, boxes, NAMES), (4,), "(C,), one state per class")
    if isinstance(answer, str):
        return answer
    return _compare(
        answer,
        np.array([1, 0, -1, 1]),
        {
            "a class with an easy and a difficult object comes out as difficult, but it is difficult only if all of "
            "its objects are": np.array([0, 0, -1, 0]),
            "the last object of a class decides: one easy object is enough for 1, in any order": np.array(
                [0, 0, -1, 1]
            ),
            "the first object of a class decides: one easy object is enough for 1, in any order": np.array(
                [1, 0, -1, 0]
            ),
            "absent and difficult are swapped: VOC writes -1 for absent and 0 for difficult": np.array([1, -1, 0, 1]),
            "an absent class gets 0, which means difficult in VOC: absent is -1": np.array([1, 0, 0, 1]),
            "a difficult class gets 1: where all objects are difficult the state is 0": np.array([1, 1, -1, 1]),
        },
    )


def _array(value, shape: tuple[int, ...], words: str) -> np.ndarray | str:
    """The answer as numbers of the right shape, or a sentence about what it is instead."""
    if value is None:
        return "the function returned nothing: end it with return"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return f"the answer is a {type(value).__name__}: expected numbers of shape {words}"
    if array.shape != shape:
        return f"the answer has shape {array.shape}: expected {shape}, that is {words}"
    return array


def _compare(answer: np.ndarray, right: np.ndarray, mistakes: Mapping[str, np.ndarray]) -> str | None:
    if np.allclose(answer, right, atol=1e-5):
        return None
    for words, wrong in mistakes.items():
        if np.allclose(answer, wrong, atol=1e-5):
            return words
    where = np.unravel_index(np.nanargmax(np.abs(np.nan_to_num(answer, nan=np.inf) - right)), right.shape)
    return f"position {[int(k) for k in where]} of a test case holds {answer[where]:.4g}: expected {right[where]:.4g}"
