"""Pictures of regions: what a weakly-supervised detector makes of its boxes, and an explorer over proposals.

Boxes are as in `proposals`: x1, y1, x2, y2 in fractions of the image's sides.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchvision.ops import box_iou

from udlib.datasets.base import MultiLabelDataset, to_memory
from udlib.datasets.transforms import normalise
from udlib.detection_measures import MATCH
from udlib.detectors import Detector
from udlib.losses_detection import log_region_scores
from udlib.overlays import overlay
from udlib.plots import HALO, RED, SKY, draw_boxes
from udlib.proposals import Regions, annotated
from udlib.widgets import Explorer, Frame

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
    axes.add_patch(Rectangle((x1 * width - 0.5, y1 * height - 0.5), (x2 - x1) * width, (y2 - y1) * height, fill=False,
                             edgecolor=colour, linewidth=1.8, linestyle="-" if right else "--", path_effects=[HALO]))
    if name:
        axes.text(x1 * width + 0.5, y1 * height + 0.5, name, fontsize=7, color="white", va="top",
                  bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85})


def findings(images: Sequence, found: Sequence[Sequence[tuple[Sequence[float], str, bool]]], titles: Sequence[str] = (),
             columns: int = 5, side: float = 1.6) -> Figure:
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


def top_predictions(images: Sequence, found: Sequence[Sequence[tuple[Sequence[float], str, bool]]],
                    told: Sequence[Mapping[str, Sequence[float]]], names: Sequence[str], targets, k: int = 3) -> Figure:
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
                axes.text(0.05, 0.72 - 0.24 * place, f"{'✓' if right else '✗'} {names[c]}  {p[c]:.2f}", fontsize=9,
                          color=WORDS[right], transform=axes.transAxes, family="DejaVu Sans")
            axes.set_title(network if n == 0 else "", fontsize=9, loc="left")
        for axes in row:
            axes.axis("off")
    figure.tight_layout(pad=0.5)
    return figure


class ProposalExplorer(Explorer):
    """Picture, proposals and class under three sliders: what one detector makes of other boxes.

    `proposals[kind]` holds the boxes (R, 4) of each picture of `rows`, in their order; the detector is the same for all, so
    what changes is where it may look. Maps show where S^c, S^d and their product lie (`evidence`); the table has the
    boxes with the largest shares.
    """

    TOP = 5

    def __init__(self, detector: Detector, dataset: MultiLabelDataset, rows: Sequence[int],
                 proposals: Mapping[str, Sequence[Tensor]], size: int = 64, start: Mapping[str, Hashable] | None = None):
        self.detector, self.dataset, self.rows = detector, dataset, list(rows)
        for kind, boxes in proposals.items():
            if len(boxes) != len(self.rows):
                raise ValueError(f"proposals '{kind}' have boxes for {len(boxes)} pictures and rows names {len(self.rows)}: give each "
                                 "picture its own")
        self.proposals = proposals
        self.images = normalise(to_memory(dataset.subset(self.rows), size))
        super().__init__({"picture": self.rows, "proposals": list(proposals), "class": list(dataset.classes)}, self.frame, start=start,
                         note="Boxes in the table: x1, y1, x2, y2 in per cent of the picture's sides. IoU: with the nearest object of "
                              "the class.")

    def look(self, picture: int, kind: str, name: str) -> tuple[Tensor, Said, Tensor]:
        """The boxes (R, 4), what is said of them, and the IoU (R,) of each with the nearest object of the class, NaN where it has none."""
        k = self.rows.index(picture)
        boxes = self.proposals[kind][k]
        of_class = [box.name == name for box in self.dataset.boxes(picture)]
        truth = annotated(self.dataset, picture)[torch.tensor(of_class, dtype=torch.bool)]
        overlap = box_iou(boxes, truth).amax(1) if len(truth) else torch.full((len(boxes),), math.nan)
        return boxes, say(self.detector, self.images[k], boxes), overlap

    def measure(self, picture: int, kind: str, name: str) -> dict[str, str]:
        """The readings in words: how many boxes, the chance of the class, and how well the best and the nearest box fit."""
        boxes, said, overlap = self.look(picture, kind, name)
        c = self.dataset.classes.index(name)
        label = int(self.dataset.targets[picture, c])
        hard = " (difficult)" if self.dataset.difficult[picture, c] else ""
        absent = bool(overlap.isnan().any())
        return {"boxes": f"{len(boxes)}", f"label '{name}'": f"{label}{hard}", "p": f"{said.p[c]:.2f}",
                "IoU of the best-scored box": "no object" if absent else f"{overlap[said.shares[:, c].argmax()]:.2f}",
                "best IoU among all boxes": "no object" if absent else f"{overlap.max():.2f}"}

    def frame(self, picture: int, kind: str, name: str) -> Frame:
        """The picture with its objects and the best-scored box, three maps of evidence, the readings, and the largest shares."""
        boxes, said, overlap = self.look(picture, kind, name)
        c, image = self.dataset.classes.index(name), self.dataset.image(picture)
        best = said.shares[:, c].argsort(descending=True, stable=True)[:self.TOP]
        figure = Figure(figsize=(10.4, 2.9), layout="constrained")
        grid = figure.subplots(1, 4)
        grid[0].imshow(np.asarray(image), interpolation="nearest")
        draw_boxes(grid[0], [box for box in self.dataset.boxes(picture) if box.name == name])
        right = not overlap.isnan().any() and overlap[best[0]] >= MATCH
        outline(grid[0], boxes[best[0]].tolist(), np.asarray(image).shape[1::-1], f"best box (p = {said.p[c]:.2f})", right)
        grid[0].set_title(f"{name}: objects, and the best box", fontsize=9)
        for axes, (title, weights) in zip(grid[1:], {"$S^c$: is it one?": said.classes, "$S^d$: which box?": said.regions,
                                                    "$S^c S^d$: what makes p": said.shares}.items()):
            overlay(axes, image, evidence(boxes, weights[:, c]))
            axes.set_title(title, fontsize=9)
        for axes in grid:
            axes.axis("off")
        readings = self.measure(picture, kind, name)
        table = [["box", "S^c, %", "S^d, %", "share of p, %", "IoU"]]
        for r in best.tolist():
            parts = [f"{100 * part[r, c]:.1f}" for part in (said.classes, said.regions)]
            table.append([" ".join(f"{100 * side:.0f}" for side in boxes[r].tolist()), *parts,
                          f"{100 * said.shares[r, c] / said.p[c]:.1f}", "–" if overlap[r].isnan() else f"{overlap[r]:.2f}"])
        spoken = ", ".join(f"{key} {value}" for key, value in readings.items())
        return Frame(figure, f"picture {picture}, {kind}, {name}: {spoken}", readings, table)
