"""Proposals for the images of a data set: a grid of windows, selective search, or the annotated boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from udlib.datasets.base import MultiLabelDataset
from udlib.datasets.regions import WHOLE, Proposals, Regions, in_fractions
from udlib.datasets.selective_search import search_proposals

__all__ = ["DIVISIONS", "KINDS", "Proposals", "Regions", "WHOLE", "annotated", "grid", "grid_proposals", "proposals"]

KINDS = ("grid", "selective-search", "boxes")
DIVISIONS = (1, 2, 3, 4)  # of the grid: windows of the whole side, 1/2, 1/3 and 1/4 of it, overlapping by half


def proposals(dataset: MultiLabelDataset, kind: str = "grid", folder: Path | None = None) -> Proposals:
    """Find the boxes of every image of a data set.

    Args:
        dataset: N images.
        kind: "grid"; "selective-search"; or "boxes", the annotated objects of all classes, which is an upper bound.
            With "boxes", an image without an object has one box, the whole image.
        folder: Where `search_proposals` keeps its results.

    Returns:
        The proposals of all images.

    Raises:
        ValueError: The kind is unknown, no image has an annotated object, or one is wholly outside its image.
    """
    if kind not in KINDS:
        raise ValueError(f"proposals are '{kind}': choose one of {', '.join(KINDS)}")
    if kind == "grid":
        return grid_proposals(len(dataset))
    if kind == "selective-search":
        return search_proposals(dataset, folder)
    if not any(dataset.objects):
        raise ValueError("proposals are 'boxes', but no image has an annotated object: use 'grid'")
    return Proposals.of_images(
        [annotated(dataset, i) if dataset.objects[i] else torch.tensor([WHOLE]) for i in range(len(dataset))]
    )


def grid(divisions: Sequence[int] = DIVISIONS) -> Tensor:
    """Lay square windows over an image at several scales.

    Args:
        divisions: For each n, (2n − 1)² windows of side 1/n at steps of 1/(2n).

    Returns:
        (R, 4), as fractions.

    Raises:
        ValueError: There are no divisions, or one is below 1.

    Example:
        >>> grid([1, 2]).shape, grid([2])[1]
        (torch.Size([10, 4]), tensor([0.2500, 0.0000, 0.7500, 0.5000]))
    """
    if not divisions or any(n < 1 for n in divisions):
        raise ValueError(f"divisions are {list(divisions)}: expected numbers of windows side by side, 1 or more")
    parts = []
    for n in divisions:
        start = torch.arange(2 * n - 1) / (2 * n)
        y, x = (axis.flatten() for axis in torch.meshgrid(start, start, indexing="ij"))
        parts.append(torch.stack([x, y, x + 1 / n, y + 1 / n], 1))
    return torch.cat(parts).clamp(max=1)


def grid_proposals(images: int, divisions: Sequence[int] = DIVISIONS) -> Proposals:
    """Give every image the same grid, which is stored once.

    Args:
        images: Number of images N.
        divisions: As for `grid`.

    Returns:
        The proposals, all with score 1.
    """
    boxes = grid(divisions)
    return Proposals(
        boxes,
        torch.ones(len(boxes)),
        torch.zeros(images, dtype=torch.int64),
        torch.full((images,), len(boxes), dtype=torch.int64),
    )


def annotated(dataset: MultiLabelDataset, i: int) -> Tensor:
    """Return the annotated boxes of one image.

    Args:
        dataset: The data set.
        i: The image's row.

    Returns:
        (R, 4), as fractions, in the order of `dataset.boxes(i)`; R may be 0.

    Raises:
        ValueError: A box has no area inside the image.
    """
    return in_fractions(
        [(b.xmin, b.ymin, b.xmax, b.ymax) for b in dataset.boxes(i)], dataset.image_size(i), dataset.ids[i]
    )
