"""Pictures beside what networks answer: their probabilities, and where they look.

Every map is drawn on its own scale. Purple within solid lines (half of the largest size) is positive, green within
dashed lines is negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udlib.datasets.base import Box
from udlib.figures.plots import GREY, MARKERS, PALETTE, draw_boxes


def attention_grid(
    images: Sequence,
    maps: Mapping[str, Sequence],
    titles: Sequence[str],
    boxes: Sequence[Sequence[Box]] | None = None,
    side: float = 1.9,
) -> Figure:
    """Draw one row per picture: the picture with its title and boxes, then each of its maps over it.

    Args:
        images: N pictures, each PIL or an array (H, W, 3).
        maps: `maps[column][k]` is the map (h, w) of picture k, of either sign; None leaves a gap.
        titles: One title per picture.
        boxes: The annotated boxes of each picture.
        side: Side of a picture in inches.

    Returns:
        The figure.
    """
    title_lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure = Figure(figsize=(side * (len(maps) + 1), (side + 0.17 * title_lines + 0.08) * len(images) + 0.2))
    grid = figure.subplots(len(images), len(maps) + 1, squeeze=False)
    for k, row in enumerate(grid):
        own_boxes = boxes[k] if boxes else ()
        row[0].imshow(np.asarray(images[k]), interpolation="nearest")
        draw_boxes(row[0], own_boxes)
        row[0].set_title(titles[k], fontsize=9, parse_math=False)  # a file's name may hold dollars
        for axes, (name, values) in zip(row[1:], maps.items()):
            if values[k] is not None:
                overlay(axes, images[k], values[k], own_boxes)
            axes.set_title(name if k == 0 else "", fontsize=9)
        for axes in row:
            axes.axis("off")
    figure.tight_layout(pad=0.4)
    return figure


def attention(
    image,
    values,
    names: Sequence[str],
    heads: Mapping[str, Sequence[float]],
    title: str = "",
    boxes: Sequence[Box] = (),
) -> Figure:
    """Draw a picture, a map over it, and the probabilities of the named classes by each head, as bars.

    Args:
        image: The picture, PIL or an array (H, W, 3).
        values: The map (h, w), of either sign; None draws no map.
        names: Names of the classes that have bars.
        heads: The probabilities of these classes, per name of a head.
        title: Title above the map.
        boxes: The annotated boxes of the picture.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(9.4, 2.9), layout="constrained")
    left, middle, axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    left.imshow(np.asarray(image), interpolation="nearest")
    draw_boxes(left, boxes)
    if values is not None:
        overlay(middle, image, values, boxes)
    middle.set_title(title, fontsize=10)
    left.axis("off")
    middle.axis("off")
    rows, height = np.arange(len(names)), 0.8 / len(heads)
    for k, ((label, probabilities), hatch) in enumerate(zip(heads.items(), ("", "///", "..."))):
        axes.barh(
            rows + height * (k - (len(heads) - 1) / 2),
            probabilities,
            0.9 * height,
            color=PALETTE[k],
            hatch=hatch,
            edgecolor="white",
            label=label,
        )
    axes.set_yticks(rows, list(names))
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="probability")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def overlay(axes: Axes, image, values, boxes: Sequence[Box] = ()) -> None:
    """Draw a signed map over the grey picture, smoothed as bilinear resizing does.

    Args:
        axes: Axes to draw on.
        image: The picture, PIL or an array (H, W, 3).
        values: The map (h, w), of either sign.
        boxes: Annotated boxes to draw on top.
    """
    picture, heat = np.asarray(image), np.asarray(values, float)
    (height, width), largest = picture.shape[:2], np.abs(heat).max() or 1.0
    axes.imshow(picture.mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.imshow(
        heat,
        cmap="PRGn_r",
        vmin=-largest,
        vmax=largest,
        alpha=0.8 * np.sqrt(np.abs(heat) / largest),
        interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    levels = [level for level in (-0.5 * largest, 0.5 * largest) if heat.min() < level < heat.max()]
    if levels and min(heat.shape) > 1:
        across, down = ((np.arange(n) + 0.5) * side / n - 0.5 for n, side in zip(heat.shape[::-1], (width, height)))
        axes.contour(
            across,
            down,
            heat,
            levels,
            colors="black",
            linewidths=1.2,
            linestyles=["--" if level < 0 else "-" for level in levels],
        )
    draw_boxes(axes, boxes)


def answers(
    images: Sequence,
    names: Sequence[str],
    probabilities: Sequence[Mapping[str, Sequence[float]]],
    titles: Sequence[str] | None = None,
    count: int = 6,
) -> Figure:
    """Draw each picture beside several answers to it, with one marker per answer.

    Args:
        images: N pictures, each PIL or an array (H, W, 3).
        names: The C class names.
        probabilities: `probabilities[n][name]` holds the probabilities (C,) that `name` gives to the classes of picture
            n; a hard label is 0 or 1.
        titles: One title per picture.
        count: How many classes to show: those to which some answer gives the highest probability.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(8.2, 2.5 * len(images) + 0.5))
    grid = figure.subplots(len(images), 2, width_ratios=(1, 2), squeeze=False)
    for n, (left, axes) in enumerate(grid):
        left.imshow(np.asarray(images[n]), interpolation="nearest")
        left.axis("off")
        left.set_title(titles[n] if titles else "", fontsize=9, parse_math=False)
        values = np.array([np.asarray(answer, float) for answer in probabilities[n].values()])
        order = np.argsort(-values.max(0), kind="stable")[:count]
        rows = np.arange(len(order))
        axes.hlines(rows, values[:, order].min(0), values[:, order].max(0), color=GREY, linewidth=0.8)
        for k, name in enumerate(probabilities[n]):
            axes.plot(
                values[k, order],
                rows,
                MARKERS[k],
                color=PALETTE[k],
                label=name,
                markersize=6,
                markerfacecolor="none",
                markeredgewidth=1.6,
            )
        axes.set_yticks(rows, [names[k] for k in order])
        axes.set(xlim=(-0.03, 1.03), ylim=(len(order) - 0.4, -0.6))
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("probability that the label is there")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="upper center", ncols=len(labels), bbox_to_anchor=(0.5, 0))
    figure.tight_layout()
    return figure
