"""Pictures beside what networks say of them: their answers, and where they look. Figures as in `plots`.

Every map is drawn on its own scale: purple within solid lines (half of the largest size) is positive, green within
dashed lines negative.
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
    """One row per picture: the picture with its title and boxes, then for each column of `maps` its map over it.

    `maps[column][k]` is (h, w), of either sign, for picture k; None leaves a gap.
    """
    title_lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure = Figure(figsize=(side * (len(maps) + 1), (side + 0.17 * title_lines + 0.08) * len(images) + 0.2))
    grid = figure.subplots(len(images), len(maps) + 1, squeeze=False)
    for k, row in enumerate(grid):
        framed = boxes[k] if boxes else ()
        row[0].imshow(np.asarray(images[k]), interpolation="nearest")
        draw_boxes(row[0], framed)
        row[0].set_title(titles[k], fontsize=8, parse_math=False)  # a file's name may hold dollars
        for axes, (name, values) in zip(row[1:], maps.items()):
            if values[k] is not None:
                overlay(axes, images[k], values[k], framed)
            axes.set_title(name if k == 0 else "", fontsize=8)
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
    """A picture, a map over it (None: no map), and what each head says of the named classes, as bars from 0 to 1."""
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
    for k, ((label, said), hatch) in enumerate(zip(heads.items(), ("", "///", "..."))):
        axes.barh(
            rows + height * (k - (len(heads) - 1) / 2),
            said,
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
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def overlay(axes: Axes, image, values, boxes: Sequence[Box] = ()) -> None:
    """Draw a signed map (h, w) over the grey picture, smoothed as bilinear resizing does."""
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
    given: Sequence[Mapping[str, Sequence[float]]],
    titles: Sequence[str] | None = None,
    shown: int = 6,
) -> Figure:
    """Each picture beside several answers to it, a marker each: the `shown` classes about which some answer says most.

    `given[n][name]` holds the probabilities (C,) that `name` gives to the classes of picture n; a hard label is 0 or 1.
    """
    figure = Figure(figsize=(8.2, 2.5 * len(images) + 0.5))
    grid = figure.subplots(len(images), 2, width_ratios=(1, 2), squeeze=False)
    for n, (left, axes) in enumerate(grid):
        left.imshow(np.asarray(images[n]), interpolation="nearest")
        left.axis("off")
        left.set_title(titles[n] if titles else "", fontsize=9, parse_math=False)
        values = np.array([np.asarray(answer, float) for answer in given[n].values()])
        order = np.argsort(-values.max(0), kind="stable")[:shown]
        rows = np.arange(len(order))
        axes.hlines(rows, values[:, order].min(0), values[:, order].max(0), color=GREY, linewidth=0.8)
        for k, name in enumerate(given[n]):
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
