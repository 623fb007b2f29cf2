"""Where an object might be: boxes for each image, from a grid, by selective search, or the annotated ones.

A box is x1, y1, x2, y2 as fractions of the image's width and height, 0 ≤ x1 < x2 ≤ 1, so that resizing an image leaves
its boxes as they are. A score weighs a box (1 where nothing is known). Every image has at least one box.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from udlib.datasets.base import MultiLabelDataset, data_root
from udlib.files import atomic_write, remove_leftovers
from udlib.progress import track

KINDS = ("grid", "selective-search", "boxes")
DIVISIONS = (
    1,
    2,
    3,
    4,
)  # of the grid: windows of the whole side, a half, a third and a fourth, each overlapping by half
WHOLE = (0.0, 0.0, 1.0, 1.0)
FORMAT = 1  # of the cache
SMALLEST, MOST = (
    1 / 16,
    200,
)  # selective search: the shortest side of a box that is kept, and how many are, of one image


class Regions(NamedTuple):
    """The boxes of the B images of a batch, M in all, image after image."""

    boxes: Tensor  # (M, 4) float32
    scores: Tensor  # (M,) float32
    image: Tensor  # (M,) int64, the image of each box in the batch, 0 to B - 1

    def to(self, device: torch.device) -> Regions:
        """The same regions on a device."""
        return Regions(*(part.to(device, non_blocking=True) for part in self))

    def mirrored(self, which: Tensor) -> Regions:
        """The regions of a batch of which some images, `which` (B,) bool, were mirrored left to right."""
        x1, y1, x2, y2 = self.boxes.unbind(1)
        flip = which.to(self.image.device)[self.image]
        boxes = torch.stack([torch.where(flip, 1 - x2, x1), y1, torch.where(flip, 1 - x1, x2), y2], 1)
        return self._replace(boxes=boxes)


@dataclass(frozen=True, eq=False)
class Proposals:
    """The boxes of N images. Image i has `counts[i]` of them, from `starts[i]` on; images may share theirs, as in a grid.

    Raises ValueError, when it is made, for an image without boxes, and for a box that is empty, outside its image or no
    number, naming the image.
    """

    boxes: Tensor  # (K, 4) float32
    scores: Tensor  # (K,) float32, ≥ 0
    starts: Tensor  # (N,) int64
    counts: Tensor  # (N,) int64

    def __post_init__(self):
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.starts.shape != self.counts.shape:
            found = [tuple(part.shape) for part in (self.boxes, self.scores, self.starts, self.counts)]
            raise ValueError(
                f"boxes, scores, starts and counts have shapes {found}: expected (K, 4), (K,), (N,) and (N,)"
            )
        if (none := (self.counts < 1).nonzero()).numel():
            raise ValueError(
                f"image {int(none[0])} has no proposals: give each image at least one, {WHOLE} for the whole of it"
            )
        if (self.starts < 0).any() or (self.starts + self.counts > count).any():
            raise ValueError(
                f"starts and counts reach beyond the {count} boxes: expected 0 <= start and start + count <= {count}"
            )
        x1, y1, x2, y2 = self.boxes.unbind(1)
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= 1) & (y2 <= 1)
        for right, what in ((inside, "outside the image"), ((x2 > x1) & (y2 > y1), "empty")):
            if (wrong := (~right).nonzero()).numel():
                k = int(wrong[0])
                raise ValueError(
                    f"box {_shown(self.boxes[k])} of image {self._owner(k)} is {what}: expected x1 < x2 and "
                    "y1 < y2 in fractions of the image's width and height, 0 to 1"
                )
        if (wrong := (~(self.scores >= 0) | self.scores.isinf()).nonzero()).numel():
            k = int(wrong[0])
            raise ValueError(
                f"a box of image {self._owner(k)} has score {self.scores[k].item():g}: expected a number, 0 or more"
            )

    @classmethod
    def of_images(cls, boxes: Sequence[Tensor], scores: Sequence[Tensor] | None = None) -> Proposals:
        """From the boxes (R_i, 4) of each image, and their scores (R_i,), default 1."""
        counts = torch.tensor([len(own) for own in boxes], dtype=torch.int64)
        joined = torch.cat([own.reshape(-1, 4) for own in boxes]).float() if len(boxes) else torch.zeros(0, 4)
        weights = torch.ones(len(joined)) if scores is None else torch.cat(list(scores)).float()
        return cls(joined, weights, counts.cumsum(0) - counts, counts)

    def __len__(self) -> int:
        return len(self.counts)

    def _owner(self, box: int) -> int:
        return int(((self.starts <= box) & (box < self.starts + self.counts)).nonzero()[0])

    @cached_property
    def shared(self) -> bool:
        """Whether all images have the very same boxes, as in a grid, which follow no image when it moves."""
        return bool((self.starts == self.starts[0]).all() and (self.counts == self.counts[0]).all())

    def to(self, device: torch.device) -> Proposals:
        """The same boxes on a device."""
        return Proposals(*(part.to(device) for part in (self.boxes, self.scores, self.starts, self.counts)))

    def of(self, rows: Tensor) -> Regions:
        """The regions of a batch of the images in these rows, which may repeat."""
        rows = rows.to(self.counts.device)
        counts = self.counts[rows]
        image = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
        first = self.starts[rows] - (counts.cumsum(0) - counts)
        at = torch.arange(len(image), device=rows.device) + first[image]
        return Regions(self.boxes[at], self.scores[at], image)


def proposals(dataset: MultiLabelDataset, kind: str = "grid", folder: Path | None = None) -> Proposals:
    """The boxes of every image of a data set: "grid", "selective-search" or "boxes", the annotated ones, an upper bound.

    Boxes from the annotations are all objects of an image whatever their class; an image without an object has one box, the
    whole of it. `folder` is that of `searched`. Raises ValueError for another kind, for "boxes" where no image has an object,
    and for a box that is wholly outside its image.
    """
    if kind not in KINDS:
        raise ValueError(f"proposals are '{kind}': choose one of {', '.join(KINDS)}")
    if kind == "grid":
        return grid_proposals(len(dataset))
    if kind == "selective-search":
        return searched(dataset, folder)
    if not any(dataset.objects):
        raise ValueError("proposals are 'boxes', but no image has an annotated object: use 'grid'")
    return Proposals.of_images(
        [annotated(dataset, i) if dataset.objects[i] else torch.tensor([WHOLE]) for i in range(len(dataset))]
    )


def grid(divisions: Sequence[int] = DIVISIONS) -> Tensor:
    """Square windows at several scales, (R, 4): for n in `divisions`, of side 1/n at steps of 1/(2n), (2n − 1)² of them.

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
    """The same grid for every image, all with score 1; stored once."""
    boxes = grid(divisions)
    return Proposals(
        boxes,
        torch.ones(len(boxes)),
        torch.zeros(images, dtype=torch.int64),
        torch.full((images,), len(boxes), dtype=torch.int64),
    )


def annotated(dataset: MultiLabelDataset, i: int) -> Tensor:
    """The annotated boxes of image i as fractions, (R, 4), in the order of `dataset.boxes(i)`; R may be 0."""
    return in_fractions(
        [(b.xmin, b.ymin, b.xmax, b.ymax) for b in dataset.boxes(i)], dataset.image_size(i), dataset.ids[i]
    )


def in_fractions(boxes, size: tuple[int, int], name: str) -> Tensor:
    """Boxes in pixels, x1, y1, x2, y2 with exclusive ends, as fractions of an image of `size` (width, height): (R, 4).

    What reaches over the edge is cut off there. Raises ValueError, with the image's `name`, for a box of which nothing is
    left, and for one that is no number.
    """
    pixels = torch.as_tensor(np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    width, height = size
    found = (pixels / torch.tensor([width, height, width, height])).clamp(0, 1).float()
    left = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1]) & pixels.isfinite().all(1)
    if (wrong := (~left).nonzero()).numel():
        raise ValueError(
            f"box {_shown(pixels[int(wrong[0])])} of image '{name}', of {width} x {height} pixels, has no area inside "
            "it: correct the box or leave it out"
        )
    return found


def searched(dataset: MultiLabelDataset, folder: Path | None = None, workers: int | None = None) -> Proposals:
    """Selective search (Uijlings et al., 2013; OpenCV's fast mode) in every image, each of its boxes with score 1.

    Boxes with a side below SMALLEST of the image's are left out; of more than MOST, these are taken evenly from the largest
    to the smallest, since OpenCV ranks them by random numbers. An image in which nothing is found has one box, the whole
    of it. The boxes of each image are kept in a file of their own, below `folder` (default: `cache/proposals` of the data
    folder), named after the image file's name, length and time of change: a killed call goes on where it was.

    Raises RuntimeError without OpenCV's contrib modules, saying how to install them, and ValueError for a damaged file.
    """
    folder = folder or data_root() / "cache" / "proposals"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)

    def find(i: int) -> Tensor:
        path = folder / f"{_cache_name(dataset, i)}.safetensors"
        if path.exists():
            try:
                return safetensors.torch.load(path.read_bytes())["boxes"]
            except (safetensors.SafetensorError, KeyError) as error:
                raise ValueError(
                    f"the proposals of image '{dataset.ids[i]}' in '{path}' are damaged ({error}): delete the "
                    "file, and it is made again"
                ) from error
        boxes = selective_search(np.asarray(dataset.image(i)))
        atomic_write(path, safetensors.torch.save({"boxes": boxes}))
        return boxes

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        found = list(track(pool.map(find, range(len(dataset))), total=len(dataset), description="selective search"))
    return Proposals.of_images(found)


def selective_search(image: np.ndarray) -> Tensor:
    """The boxes that `searched` keeps of one RGB image, uint8 (H, W, 3): (R, 4), R from 1 to MOST, the largest first."""
    search = _opencv().ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))  # OpenCV has blue first
    search.switchToSelectiveSearchFast()
    x, y, width, height = np.asarray(search.process(), dtype=np.int64).reshape(-1, 4).T
    rows, columns = image.shape[:2]
    kept = (width >= SMALLEST * columns) & (height >= SMALLEST * rows)
    pixels = np.unique(np.stack([x, y, x + width, y + height], 1)[kept], axis=0)
    if not len(pixels):
        return torch.tensor([WHOLE])
    area = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])
    pixels = pixels[np.argsort(-area, kind="stable")]
    even = np.linspace(0, len(pixels) - 1, min(len(pixels), MOST)).round().astype(int)
    return in_fractions(pixels[even], (columns, rows), "searched")


def _opencv():
    try:
        import cv2

        cv2.ximgproc.segmentation.createSelectiveSearchSegmentation  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            "selective search needs OpenCV with its contrib modules: pip install 'udlib[proposals]' "
            "(opencv-contrib-python-headless), or choose the proposals 'grid', which need nothing"
        ) from error
    return cv2


def _cache_name(dataset: MultiLabelDataset, i: int) -> str:
    path = dataset.image_path(i)
    try:
        found = path.stat()
    except FileNotFoundError:
        dataset.image(i)  # says which image is missing, and what to do
        raise
    made = json.dumps([FORMAT, "fast", SMALLEST, MOST, dataset.ids[i], found.st_size, found.st_mtime_ns])
    return hashlib.sha256(made.encode()).hexdigest()[:24]


def _shown(box: Tensor) -> str:
    return f"({', '.join(f'{value:g}' for value in box.tolist())})"
