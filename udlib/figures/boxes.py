"""Pictures of regions: the boxes in which a weakly-supervised detector finds classes, and its evidence for them.

Boxes are as in `udlib.datasets.proposals`: x1, y1, x2, y2 in fractions of the image's sides.
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

TEXT_COLOURS = {True: "#02507a", False: "#a33600"}  # right and wrong, dark enough for words beside white


class RegionScores(NamedTuple):
    """A detector's scores for the R boxes of one image, each (R, C) in [0, 1].

    Attributes:
        classes: S^c, the distribution over classes of each box.
        regions: S^d, the distribution over boxes of each class.
    """

    classes: Tensor
    regions: Tensor

    @property
    def shares(self) -> Tensor:
        """S^c ⊙ S^d (R, C): what each box adds to the probability of each class."""
        return self.classes * self.regions

    @property
    def p(self) -> Tensor:
        """The probability of each class (C,)."""
        return self.shares.sum(0)


@torch.inference_mode()
def region_scores(detector: Detector, image: Tensor, boxes: Tensor) -> RegionScores:
    """Score the boxes of one image with a detector, which is put into eval mode.

    Args:
        detector: The detector.
        image: One normalised image (3, H, W).
        boxes: Its boxes (R, 4).

    Returns:
        The scores of the boxes.
    """
    count = len(boxes)
    regions = Regions(boxes, torch.ones(count), torch.zeros(count, dtype=torch.int64))
    output = detector.eval()(image[None], regions)
    parts = log_region_scores(output.class_scores, output.region_scores, regions.image, 1)
    return RegionScores(*(part.exp() for part in parts))


def evidence(boxes: Tensor, weights: Tensor, size: int = 32) -> Tensor:
    """Spread the weight of each box evenly over its own area, on a map.

    A cell belongs to a box that covers the cell's centre. A box that covers no centre belongs to the cell in its
    middle.

    Args:
        boxes: Boxes (R, 4).
        weights: Weights (R,).
        size: Side of the map in cells.

    Returns:
        The map (size, size), which adds up to the sum of the weights.

    Example:
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
    """Draw a detected box on a picture: solid where it is right, dashed and red where it is wrong.

    Args:
        axes: Axes that hold the picture.
        box: x1, y1, x2, y2 in fractions of the sides.
        size: (width, height) of the picture in pixels.
        name: Name to write into the box.
        right: Whether the detection is right.
    """
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
            fontsize=9,
            color="white",
            va="top",
            bbox={"facecolor": TEXT_COLOURS[right], "edgecolor": "none", "pad": 0.8},
        )


def detections(
    images: Sequence,
    boxes_by_image: Sequence[Sequence[tuple[Sequence[float], str, bool]]],
    titles: Sequence[str] = (),
    columns: int = 5,
    side: float = 1.6,
) -> Figure:
    """Draw pictures with the boxes that a detector found in them.

    Args:
        images: N pictures, each PIL or an array (H, W, 3).
        boxes_by_image: For each picture its boxes, each as (box, name, whether it is right).
        titles: One title per picture.
        columns: Pictures per row.
        side: Side of a picture in inches.

    Returns:
        The figure.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * side, rows * (side + 0.25)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for k, (axes, image, boxes) in enumerate(zip(grid, images, boxes_by_image)):
        picture = np.asarray(image)
        axes.imshow(picture, interpolation="nearest")
        for box, name, right in boxes:
            outline(axes, box, picture.shape[1::-1], name, right)
        axes.set_title(titles[k] if titles else "", fontsize=9)
    figure.tight_layout(pad=0.4)
    return figure


def top_predictions(
    images: Sequence,
    boxes_by_image: Sequence[Sequence[tuple[Sequence[float], str, bool]]],
    probabilities: Sequence[Mapping[str, Sequence[float]]],
    names: Sequence[str],
    targets,
    k: int = 3,
) -> Figure:
    """Draw each picture with its detected boxes beside the most probable classes of each network.

    A class that is labelled has a ✓, any other a ✗.

    Args:
        images: N pictures, each PIL or an array (H, W, 3).
        boxes_by_image: For each picture its boxes, each as (box, name, whether it is right).
        probabilities: `probabilities[n][network]` holds the probabilities (C,) of picture n.
        names: The C class names.
        targets: Labels (N, C), 0 or 1.
        k: How many classes to show per network.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(2.3 + 1.7 * len(probabilities[0]), 1.6 * len(images) + 0.3))
    grid = figure.subplots(len(images), 1 + len(probabilities[0]), squeeze=False)
    for n, row in enumerate(grid):
        picture = np.asarray(images[n])
        row[0].imshow(picture, interpolation="nearest")
        for box, name, right in boxes_by_image[n]:
            outline(row[0], box, picture.shape[1::-1], name, right)
        for axes, (network, p) in zip(row[1:], probabilities[n].items()):
            p = np.asarray(p, float)
            for place, c in enumerate(np.argsort(-p, kind="stable")[:k]):
                right = bool(targets[n][c])
                axes.text(
                    0.05,
                    0.72 - 0.24 * place,
                    f"{'✓' if right else '✗'} {names[c]}  {p[c]:.2f}",
                    fontsize=9,
                    color=TEXT_COLOURS[right],
                    transform=axes.transAxes,
                    family="DejaVu Sans",
                )
            axes.set_title(network if n == 0 else "", fontsize=9, loc="left")
        for axes in row:
            axes.axis("off")
    figure.tight_layout(pad=0.5)
    return figure
