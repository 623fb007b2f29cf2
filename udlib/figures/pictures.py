"""Figures that show pictures of a data set: with their annotated boxes, or beside a network's predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from udlib.datasets.base import Box
from udlib.figures.style import BLUE, GREY, HALO, ORANGE, SKY


def picture_grid(
    images: Sequence,
    titles: Sequence[str] | None = None,
    boxes: Sequence[Sequence[Box]] | None = None,
    columns: int = 6,
    side: float = 1.6,
) -> Figure:
    """Draw pictures in rows, with titles and annotated boxes.

    Args:
        images: N pictures, each PIL or an array (H, W, 3).
        titles: One title per picture; it may have several lines.
        boxes: The annotated boxes of each picture; the box of a difficult object is dashed.
        columns: Pictures per row.
        side: Side of a picture in inches.

    Returns:
        The figure.
    """
    rows = -(-len(images) // columns)
    title_lines = max((title.count("\n") + 1 for title in titles), default=0) if titles else 0
    figure = Figure(figsize=(columns * side, rows * (side + 0.18 * title_lines + 0.08)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for k, (axes, image) in enumerate(zip(grid, images)):
        axes.imshow(np.asarray(image), interpolation="nearest")
        if titles:
            axes.set_title(titles[k], fontsize=9, parse_math=False)
        draw_boxes(axes, boxes[k] if boxes else ())
    figure.tight_layout(pad=0.4)
    return figure


def draw_boxes(axes: Axes, boxes: Sequence[Box]) -> None:
    """Draw annotated boxes on a picture: solid for an easy object, dashed and of another colour for a difficult one.

    Args:
        axes: Axes that hold the picture, in its own pixels.
        boxes: The boxes to draw.
    """
    for box in boxes:
        axes.add_patch(
            Rectangle(
                (box.xmin - 0.5, box.ymin - 0.5),
                box.xmax - box.xmin,
                box.ymax - box.ymin,
                fill=False,
                edgecolor=ORANGE if box.difficult else SKY,
                linewidth=1.6,
                linestyle="--" if box.difficult else "-",
                path_effects=[HALO],
            )
        )


def prediction(
    image,
    names: Sequence[str],
    probabilities: Sequence[float],
    targets: Sequence[int],
    difficult: Sequence[bool],
    threshold: float = 0.5,
    title: str = "",
) -> Figure:
    """Draw a picture beside the probabilities of its ten most probable classes.

    The bar of a class that is labelled as present is filled, that of a difficult label is hatched, and all others are
    empty.

    Args:
        image: The picture, PIL or an array (H, W, 3).
        names: The C class names.
        probabilities: (C,) in [0, 1].
        targets: (C,) labels, 0 or 1.
        difficult: (C,) whether the label is difficult.
        threshold: Probability at which a dotted line is drawn.
        title: Title above the picture.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(8.2, 3.6))
    left, axes = figure.subplots(1, 2, width_ratios=(1, 1.3))
    left.imshow(np.asarray(image), interpolation="nearest")
    left.axis("off")
    left.set_title(title, fontsize=10)
    p = np.asarray(probabilities, float)
    order = np.argsort(-p)[:10]
    for row, k in enumerate(order):
        present, hard = bool(targets[k]), bool(difficult[k])
        axes.barh(
            row,
            p[k],
            color=(ORANGE if hard else BLUE) if present else "white",
            edgecolor=GREY if not present else "white",
            hatch="///" if hard else "",
        )
        axes.text(p[k] + 0.02, row, f"{p[k]:.2f}", va="center", fontsize=9)
    axes.set_yticks(range(len(order)), [names[k] + (" (difficult)" if difficult[k] else "") for k in order])
    axes.invert_yaxis()
    axes.axvline(threshold, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("predicted probability (filled: labelled as present)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure
