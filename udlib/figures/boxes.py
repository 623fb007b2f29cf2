"""Pictures of regions: what a weakly-supervised detector makes of its boxes, and an explorer over proposals.

Boxes are as in `proposals`: x1, y1, x2, y2 in fractions of the image's sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from udlib.datasets.proposals import Regions
from udlib.figures.plots import HALO, RED, SKY
from udlib.methods.detection.losses import log_region_scores
from udlib.methods.detection.network import Detector

WORDS = {True: "#02507a", False: "#a33600"}  # right and wrong, dark enough for words on white


class Said(NamedTuple):
    """What a detector says of the R boxes of one image, each (R, C) in [0, 1]."""

    classes: Tensor  # S^c: of each box, which class
    regions: Tensor  # S^d: of each class, which box

    @property
    def shares(self) -> Tensor:
        """S^c ⊙ S^d (R, C): what each box adds to p."""
        return self.classes * self.regions

    @property
    def p(self) -> Tensor:
        """The probability of each class (C,)."""
        return self.shares.sum(0)


@torch.inference_mode()
def say(detector: Detector, image: Tensor, boxes: Tensor) -> Said:
    """What a detector, put into eval mode, says of one normalised image (3, H, W) and its boxes (R, 4)."""
    count = len(boxes)
    regions = Regions(boxes, torch.ones(count), torch.zeros(count, dtype=torch.int64))
    found = detector.eval()(image[None], regions)
    parts = log_region_scores(found.class_scores, found.region_scores, regions.image, 1)
    return Said(*(part.exp() for part in parts))


def evidence(boxes: Tensor, weights: Tensor, size: int = 32) -> Tensor:
    """A map (size, size) on which each box (R, 4) spreads its weight (R,) evenly over its own area.

    The map adds up to the sum of the weights; a cell belongs to a box that covers its centre, and a box that covers no
    centre to the cell in its middle.

    >>> evidence(torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([1.0]), 2)
    tensor([[0.5000, 0.0000],
            [0.5000, 0.0000]])
    """
    centres = (torch.arange(size) + 0.5) / size
    across, down = ((centres >= boxes[:, [k]]) & (centres < boxes[:, [k + 2]]) for k in (0, 1))
    inside = (down[:, :, None] & across[:, None, :]).to(weights.dtype)
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2 * size).long().clamp(max=size - 1)
    for r in (inside.sum((1, 2)) == 0).nonzero().flatten().tolist():
        inside[r, middle[r, 1], middle[r, 0]] = 1
    return (weights[:, None, None] * inside / inside.sum((1, 2), keepdim=True)).sum(0)


def outline(axes: Axes, box: Sequence[float], size: tuple[int, int], name: str = "", right: bool = True) -> None:
    """A found box on a picture of `size` (width, height), with its name: solid where it is right, dashed and red where not."""
    (width, height), (x1, y1, x2, y2) = size, box
    colour = SKY if right else RED
    axes.add_patch(
        Rectangle(
            (x1 * width - 0.5, y1 * height - 0.5),
            (x2 - x1) * width,
            (y2 - y1) * height,
            fill=False,
            edgecolor=colour,
            linewidth=1.8,
            linestyle="-" if right else "--",
            path_effects=[HALO],
        )
    )
    if name:
        axes.text(
            x1 * width + 0.5,
            y1 * height + 0.5,
            name,
            fontsize=7,
            color="white",
            va="top",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
        )


def findings(
    images: Sequence,
    found: Sequence[Sequence[tuple[Sequence[float], str, bool]]],
    titles: Sequence[str] = (),
    columns: int = 5,
    side: float = 1.6,
) -> Figure:
    """Pictures with the boxes that were found in them: of each its (box, name, whether it is right)."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * side, rows * (side + 0.25)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for k, (axes, image, boxes) in enumerate(zip(grid, images, found)):
        picture = np.asarray(image)
        axes.imshow(picture, interpolation="nearest")
        for box, name, right in boxes:
            outline(axes, box, picture.shape[1::-1], name, right)
        axes.set_title(titles[k] if titles else "", fontsize=8)
    figure.tight_layout(pad=0.4)
    return figure


def top_predictions(
    images: Sequence,
    found: Sequence[Sequence[tuple[Sequence[float], str, bool]]],
    told: Sequence[Mapping[str, Sequence[float]]],
    names: Sequence[str],
    targets,
    k: int = 3,
) -> Figure:
    """Each picture with its found boxes, beside the `k` classes to which each network gives most: ✓ is labelled, ✗ is not.

    `told[n][network]` holds the probabilities (C,) for picture n, `targets` (N, C) the labels.
    """
    figure = Figure(figsize=(2.3 + 1.7 * len(told[0]), 1.6 * len(images) + 0.3))
    grid = figure.subplots(len(images), 1 + len(told[0]), squeeze=False)
    for n, row in enumerate(grid):
        picture = np.asarray(images[n])
        row[0].imshow(picture, interpolation="nearest")
        for box, name, right in found[n]:
            outline(row[0], box, picture.shape[1::-1], name, right)
        for axes, (network, p) in zip(row[1:], told[n].items()):
            p = np.asarray(p, float)
            for place, c in enumerate(np.argsort(-p, kind="stable")[:k]):
                right = bool(targets[n][c])
                axes.text(
                    0.05,
                    0.72 - 0.24 * place,
                    f"{'✓' if right else '✗'} {names[c]}  {p[c]:.2f}",
                    fontsize=9,
                    color=WORDS[right],
                    transform=axes.transAxes,
                    family="DejaVu Sans",
                )
            axes.set_title(network if n == 0 else "", fontsize=9, loc="left")
        for axes in row:
            axes.axis("off")
    figure.tight_layout(pad=0.5)
    return figure
