"""Boxes, image-level labels with VOC's three states, and the rules that labels must keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Policy = Literal["positive", "ignore", "negative"]


@dataclass(frozen=True, slots=True)
class Box:
    """One annotated object, in pixels from the top left corner; xmax and ymax are exclusive, so width = xmax - xmin."""

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    truncated: bool = False
    occluded: bool = False
    difficult: bool = False
    crowd: bool = False  # COCO: one box around a whole group of objects


def has_area(box: Box) -> bool:
    """Tell whether a box has a width and a height.

    Args:
        box: Any box.

    Returns:
        False where one of them is 0.
    """
    return box.xmin < box.xmax and box.ymin < box.ymax


def label_states(objects: Sequence[Sequence[Box]], classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Turn the objects of each image into image-level labels.

    A class is present (1) when the image holds any object of it, and difficult when all these objects are difficult.
    VOC writes the three states as 1, 0 (difficult) and -1 (absent).

    Args:
        objects: The objects of each of N images.
        classes: The names of the C classes, in order.

    Returns:
        `targets` uint8 (N, C) in {0, 1}, and `difficult` bool (N, C).

    Example:
        >>> label_states([[Box("dog", 0, 0, 9, 9, difficult=True)]], ["cat", "dog"])
        (tensor([[0, 1]], dtype=torch.uint8), tensor([[False,  True]]))
    """
    column = {name: k for k, name in enumerate(classes)}
    present = np.zeros((len(objects), len(column)), dtype=bool)
    easy = np.zeros_like(present)
    for row, boxes in enumerate(objects):
        for box in boxes:
            k = column[box.name]
            present[row, k] = True
            easy[row, k] |= not box.difficult
    return torch.from_numpy(present.astype(np.uint8)), torch.from_numpy(present & ~easy)


def apply_policy(targets: Tensor, difficult: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """Decide what a difficult label counts as.

    The paper's released code trains with `positive`, and measures AP with `ignore` and F1 with `negative`.

    Args:
        targets: (N, C) in {0, 1}. The input is not changed.
        difficult: Bool (N, C), True only where `targets` is 1.
        policy: "positive" keeps a difficult label as 1, "ignore" keeps it and masks it out, "negative" turns it into 0.

    Returns:
        `targets` (N, C), and `ignore` bool (N, C), True where a label is masked out.

    Raises:
        ValueError: The shapes differ, a label is difficult but not 1, or the policy is unknown.
        TypeError: `difficult` is not bool.

    Example:
        >>> apply_policy(torch.tensor([[1, 1, 0]]), torch.tensor([[False, True, False]]), "negative")
        (tensor([[1, 0, 0]]), tensor([[False, False, False]]))
    """
    if targets.shape != difficult.shape:
        shapes = f"targets {tuple(targets.shape)} and difficult {tuple(difficult.shape)}"
        raise ValueError(f"{shapes} differ: expected one shape (N, C)")
    if difficult.dtype != torch.bool:
        raise TypeError(f"difficult has dtype {difficult.dtype}: expected torch.bool")
    if (stray := difficult & (targets != 1)).any():
        where = stray.nonzero()[0].tolist()
        raise ValueError(f"difficult is True at {where}, targets are not 1 there: only present classes are difficult")
    nothing = torch.zeros_like(difficult)
    if policy == "positive":
        return targets.clone(), nothing
    if policy == "ignore":
        return targets.clone(), difficult.clone()
    if policy == "negative":
        return targets.masked_fill(difficult, 0), nothing
    raise ValueError(f"policy is {policy!r}: expected 'positive', 'ignore' or 'negative'")


def check_trainable(targets: Tensor, classes: Sequence[str]) -> list[str]:
    """Refuse a training set without a single positive label.

    Args:
        targets: (N, C) in {0, 1}.
        classes: The names of the C classes, in order.

    Returns:
        The names of the classes that have no positive label.

    Raises:
        ValueError: No label is positive, the shape does not fit the classes, or a value is neither 0 nor 1.
    """
    if targets.ndim != 2 or targets.shape[1] != len(classes):
        expected = f"(N, {len(classes)}) for the classes {', '.join(classes)}"
        raise ValueError(f"targets have shape {tuple(targets.shape)}: expected {expected}")
    if ((targets != 0) & (targets != 1)).any():
        raise ValueError(f"targets hold {targets[(targets != 0) & (targets != 1)][0].item()}: expected only 0 and 1")
    counts = (targets != 0).sum(0).tolist()
    if not any(counts):
        raise ValueError(
            f"no positive label among {len(targets)} images × {len(classes)} classes ({', '.join(classes)}): "
            "there is nothing to learn; check the class names, the split, and the policy for difficult labels"
        )
    return [name for name, count in zip(classes, counts) if count == 0]


def require_disjoint(ids: Mapping[str, Sequence[str]]) -> None:
    """Refuse splits that share images.

    Args:
        ids: The image ids of each split, by the split's name.

    Raises:
        ValueError: Two splits have an image in common.

    Example:
        >>> require_disjoint({"val": ["a"], "test": ["b", "a"]})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: 'val' and 'test' share 1 image, 'a' first: what is chosen ...
    """
    for (first, a), (second, b) in combinations(ids.items(), 2):
        if shared := sorted(set(a) & set(b)):
            images = "1 image" if len(shared) == 1 else f"{len(shared)} images"
            raise ValueError(
                f"'{first}' and '{second}' share {images}, '{shared[0]}' first: what is chosen or fitted on "
                "one must be judged on other images"
            )
