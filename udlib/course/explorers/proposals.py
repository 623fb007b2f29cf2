"""The explorer of proposals: a picture, its proposed boxes and a class, with one detector's scores for them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import box_iou

from udlib.course.explorers.base import Explorer, Frame
from udlib.datasets.base import MultiLabelDataset, to_memory
from udlib.datasets.proposals import annotated
from udlib.figures.boxes import RegionScores, evidence, outline, region_scores
from udlib.figures.overlays import overlay
from udlib.figures.plots import draw_boxes
from udlib.methods.detection.evaluation import MATCH
from udlib.methods.detection.network import Detector
from udlib.training.optimization import TrainingConfig


class ProposalExplorer(Explorer):
    """Picture, proposals and class under three sliders: the scores of one detector for other boxes.

    The detector is the same throughout, so only the boxes that it may look at change. The maps show where S^c, S^d and
    their product lie (`udlib.figures.boxes.evidence`); the table has the boxes with the largest shares.

    Args:
        detector: A trained detector.
        dataset: The data set of the pictures.
        rows: The pictures of the data set to offer.
        proposals: `proposals[kind]` holds the boxes (R, 4) of each picture of `rows`, in their order.
        size: Side in pixels of the squares that the detector sees.
        start: First value of some sliders, by name.

    Raises:
        ValueError: Where some kind of proposals has boxes for another number of pictures.
    """

    TOP = 5

    def __init__(
        self,
        detector: Detector,
        dataset: MultiLabelDataset,
        rows: Sequence[int],
        proposals: Mapping[str, Sequence[Tensor]],
        size: int = 64,
        start: Mapping[str, Hashable] | None = None,
    ):
        self.detector, self.dataset, self.rows = detector, dataset, list(rows)
        for kind, boxes in proposals.items():
            if len(boxes) != len(self.rows):
                raise ValueError(
                    f"proposals '{kind}' have boxes for {len(boxes)} pictures and rows names {len(self.rows)}: give "
                    f"each "
                    "picture its own"
                )
        self.proposals = proposals
        self.images = TrainingConfig().prepare_for(detector)(to_memory(dataset.subset(self.rows), size))
        super().__init__(
            {"picture": self.rows, "proposals": list(proposals), "class": list(dataset.classes)},
            self.frame,
            start=start,
            note="Boxes in the table: x1, y1, x2, y2 in per cent of the picture's sides. IoU: with the nearest object "
            "of "
            "the class.",
        )

    def look(self, picture: int, kind: str, name: str) -> tuple[Tensor, RegionScores, Tensor]:
        """Return the boxes (R, 4), their scores, and the IoU (R,) of each box with the nearest object of the class.

        The IoU is NaN where the picture has no object of the class.
        """
        k = self.rows.index(picture)
        boxes = self.proposals[kind][k]
        of_class = [box.name == name for box in self.dataset.boxes(picture)]
        truth = annotated(self.dataset, picture)[torch.tensor(of_class, dtype=torch.bool)]
        overlap = box_iou(boxes, truth).amax(1) if len(truth) else torch.full((len(boxes),), math.nan)
        return boxes, region_scores(self.detector, self.images[k], boxes), overlap

    def measure(self, picture: int, kind: str, name: str) -> dict[str, str]:
        """Return the readings in words: the number of boxes, the class's label and p, and the best boxes' IoU."""
        boxes, scores, overlap = self.look(picture, kind, name)
        c = self.dataset.classes.index(name)
        label = int(self.dataset.targets[picture, c])
        hard = " (difficult)" if self.dataset.difficult[picture, c] else ""
        absent = bool(overlap.isnan().any())
        return {
            "boxes": f"{len(boxes)}",
            f"label '{name}'": f"{label}{hard}",
            "p": f"{scores.p[c]:.2f}",
            "IoU of the best-scored box": "no object" if absent else f"{overlap[scores.shares[:, c].argmax()]:.2f}",
            "best IoU among all boxes": "no object" if absent else f"{overlap.max():.2f}",
        }

    def frame(self, picture: int, kind: str, name: str) -> Frame:
        """Return the picture with the best box, three maps of evidence, the readings, and the largest shares."""
        boxes, scores, overlap = self.look(picture, kind, name)
        c, image = self.dataset.classes.index(name), self.dataset.image(picture)
        best = scores.shares[:, c].argsort(descending=True, stable=True)[: self.TOP]
        figure = Figure(figsize=(9.7, 2.7), layout="constrained")
        grid = figure.subplots(1, 4)
        grid[0].imshow(np.asarray(image), interpolation="nearest")
        draw_boxes(grid[0], [box for box in self.dataset.boxes(picture) if box.name == name])
        right = bool(not overlap.isnan().any() and overlap[best[0]] >= MATCH)
        outline(
            grid[0], boxes[best[0]].tolist(), np.asarray(image).shape[1::-1], f"best box (p = {scores.p[c]:.2f})", right
        )
        grid[0].set_title(f"{name}: objects, and the best box", fontsize=9)
        for axes, (title, weights) in zip(
            grid[1:],
            {
                "$S^c$: is it one?": scores.classes,
                "$S^d$: which box?": scores.regions,
                "$S^c S^d$: what makes p": scores.shares,
            }.items(),
        ):
            overlay(axes, image, evidence(boxes, weights[:, c]))
            axes.set_title(title, fontsize=9)
        for axes in grid:
            axes.axis("off")
        readings = self.measure(picture, kind, name)
        table = [["box", "S^c, %", "S^d, %", "share of p, %", "IoU"]]
        for r in best.tolist():
            parts = [f"{100 * part[r, c]:.1f}" for part in (scores.classes, scores.regions)]
            table.append(
                [
                    " ".join(f"{100 * side:.0f}" for side in boxes[r].tolist()),
                    *parts,
                    f"{100 * scores.shares[r, c] / scores.p[c]:.1f}",
                    "–" if overlap[r].isnan() else f"{overlap[r]:.2f}",
                ]
            )
        readings_in_words = ", ".join(f"{key} {value}" for key, value in readings.items())
        return Frame(figure, f"picture {picture}, {kind}, {name}: {readings_in_words}", readings, table)
