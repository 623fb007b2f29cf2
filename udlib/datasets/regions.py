"""Regions: boxes in which an object might be, for the images of a data set and for those of a batch.

A box is x1, y1, x2, y2 as fractions of the image's width and height, 0 ≤ x1 < x2 ≤ 1, so its numbers stay the same when
the image is resized. A score is the weight of a box (1 where nothing is known). Every image has at least one box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Regions(NamedTuple):
    """The boxes of the B images of a batch, M in all, in the order of the images."""

    boxes: Tensor  # (M, 4) float32
    scores: Tensor  # (M,) float32
    image: Tensor  # (M,) int64, which image of the batch each box belongs to, 0 to B - 1

    def to(self, device: torch.device) -> Regions:
        """Return the same regions on a device."""
        return Regions(*(part.to(device, non_blocking=True) for part in self))

    def mirrored(self, which: Tensor) -> Regions:
        """Return the regions of a batch after some of its images were mirrored.

        Args:
            which: Bool (B,), True for images with left and right exchanged.

        Returns:
            The regions, with the boxes of these images mirrored.
        """
        x1, y1, x2, y2 = self.boxes.unbind(1)
        flip = which.to(self.image.device)[self.image]
        boxes = torch.stack([torch.where(flip, 1 - x2, x1), y1, torch.where(flip, 1 - x1, x2), y2], 1)
        return self._replace(boxes=boxes)


@dataclass(frozen=True, eq=False)
class Proposals:
    """The boxes of N images. Image i has `counts[i]` boxes from row `starts[i]` on; images may share boxes.

    Raises:
        ValueError: An image has no box, or a box is empty, outside its image or not a number; the error names the
            image.
    """

    boxes: Tensor  # (K, 4) float32
    scores: Tensor  # (K,) float32, ≥ 0
    starts: Tensor  # (N,) int64
    counts: Tensor  # (N,) int64

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.starts.shape != self.counts.shape:
            shapes = [tuple(part.shape) for part in (self.boxes, self.scores, self.starts, self.counts)]
            raise ValueError(
                f"boxes, scores, starts and counts have shapes {shapes}: expected (K, 4), (K,), (N,) and (N,)"
            )
        if (without := (self.counts < 1).nonzero()).numel():
            raise ValueError(
                f"image {int(without[0])} has no proposals: give each image at least one, {WHOLE} for the whole of it"
            )
        if (self.starts < 0).any() or (self.starts + self.counts > count).any():
            raise ValueError(
                f"starts and counts reach beyond the {count} boxes: expected 0 <= start and start + count <= {count}"
            )
        x1, y1, x2, y2 = self.boxes.unbind(1)
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= 1) & (y2 <= 1)
        for fits, problem in ((inside, "outside the image"), ((x2 > x1) & (y2 > y1), "empty")):
            if (wrong := (~fits).nonzero()).numel():
                k = int(wrong[0])
                raise ValueError(
                    f"box {_shown(self.boxes[k])} of image {self._owner(k)} is {problem}: expected x1 < x2 and "
                    "y1 < y2 in fractions of the image's width and height, 0 to 1"
                )
        if (wrong := (~(self.scores >= 0) | self.scores.isinf()).nonzero()).numel():
            k = int(wrong[0])
            raise ValueError(
                f"a box of image {self._owner(k)} has score {self.scores[k].item():g}: expected a number, 0 or more"
            )

    @classmethod
    def of_images(cls, boxes: Sequence[Tensor], scores: Sequence[Tensor] | None = None) -> Proposals:
        """Join the boxes of each image.

        Args:
            boxes: (R_i, 4) for each image i.
            scores: (R_i,) for each image; by default all are 1.

        Returns:
            The proposals of all images.
        """
        counts = torch.tensor([len(own) for own in boxes], dtype=torch.int64)
        joined = torch.cat([own.reshape(-1, 4) for own in boxes]).float() if len(boxes) else torch.zeros(0, 4)
        weights = torch.ones(len(joined)) if scores is None else torch.cat(list(scores)).float()
        return cls(joined, weights, counts.cumsum(0) - counts, counts)

    def __len__(self) -> int:
        return len(self.counts)

    def _owner(self, box: int) -> int:
        """The first image that has this box."""
        return int(((self.starts <= box) & (box < self.starts + self.counts)).nonzero()[0])

    @cached_property
    def shared(self) -> bool:
        """Whether all images have the same boxes, as in a grid; such boxes do not move with an image."""
        return bool((self.starts == self.starts[0]).all() and (self.counts == self.counts[0]).all())

    def to(self, device: torch.device) -> Proposals:
        """Return the same boxes on a device."""
        return Proposals(*(part.to(device) for part in (self.boxes, self.scores, self.starts, self.counts)))

    def of(self, rows: Tensor) -> Regions:
        """Return the regions of a batch.

        Args:
            rows: (B,) rows of images, which may repeat.

        Returns:
            Their boxes, in this order.
        """
        rows = rows.to(self.counts.device)
        counts = self.counts[rows]
        image = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), counts)
        first = self.starts[rows] - (counts.cumsum(0) - counts)
        index = torch.arange(len(image), device=rows.device) + first[image]
        return Regions(self.boxes[index], self.scores[index], image)


def in_fractions(boxes, size: tuple[int, int], name: str) -> Tensor:
    """Turn boxes in pixels into fractions of the image, and clip them to it.

    Args:
        boxes: x1, y1, x2, y2 of each of R boxes, in pixels, with exclusive ends.
        size: Width and height of the image, in pixels.
        name: The image's name, for errors.

    Returns:
        float32 (R, 4).

    Raises:
        ValueError: A box has no area inside the image, or is not a number.
    """
    pixels = torch.as_tensor(np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    width, height = size
    fractions = (pixels / torch.tensor([width, height, width, height])).clamp(0, 1).float()
    has_area = (fractions[:, 2] > fractions[:, 0]) & (fractions[:, 3] > fractions[:, 1]) & pixels.isfinite().all(1)
    if (wrong := (~has_area).nonzero()).numel():
        raise ValueError(
            f"box {_shown(pixels[int(wrong[0])])} of image '{name}', of {width} x {height} pixels, has no area inside "
            "it: correct the box or leave it out"
        )
    return fractions


def _shown(box: Tensor) -> str:
    """A box as text, for errors."""
    return f"({', '.join(f'{value:g}' for value in box.tolist())})"
