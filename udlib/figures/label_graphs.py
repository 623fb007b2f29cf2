"""Graphs of labels: classes on a circle, joined by how often they share an image, in the colours of their parts.

`methods.parallel` cuts such graphs into parts and trains a network on each part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udlib.figures.plots import GREY, LINES, MARKERS, PALETTE

Partition = Sequence[Sequence[int]]


def part_of(parts: Partition) -> np.ndarray:
    """Return the number of each class's part.

    Args:
        parts: The class indices of each part.

    Returns:
        Integers (C,), counted from 0.

    Example:
        >>> part_of([[0, 2], [1]]).tolist()
        [0, 1, 0]
    """
    numbers = np.empty(sum(map(len, parts)), int)
    for number, part in enumerate(parts):
        numbers[list(part)] = number
    return numbers


def partition_graph(affinity, names: Sequence[str], partitions: Mapping[str, Partition], least: float = 0.3) -> Figure:
    """Draw the same circle of classes once per partition, with a colour and a marker for each part.

    Edges inside a part are dark; edges between two parts are light. The places on the circle follow the parts of the
    first partition.

    Args:
        affinity: (C, C) in [0, 1], symmetric; it sets the width of an edge.
        names: The C class names.
        partitions: The parts of each partition, by its title.
        least: Edges with a lower affinity are not drawn.

    Returns:
        The figure.
    """
    S, order = np.asarray(affinity, float), [c for part in next(iter(partitions.values())) for c in part]
    figure = Figure(figsize=(4.9 * len(partitions), 4.9))
    for axes, (title, parts) in zip(figure.subplots(1, len(partitions), squeeze=False)[0], partitions.items()):
        _circle(axes, S, names, part_of(parts), order, least)
        axes.set_title(title, loc="left", fontsize=11)
    figure.tight_layout()
    return figure


def _circle(
    axes: Axes, S: np.ndarray, names: Sequence[str], part: np.ndarray, order: Sequence[int], least: float
) -> None:
    """Draw one circle of classes with its edges, markers, names and legend."""
    angle = np.empty(len(order))
    angle[list(order)] = np.pi / 2 - 2 * np.pi * np.arange(len(order)) / len(order)
    x, y = np.cos(angle), np.sin(angle)
    pairs = [(i, j) for i in range(len(S)) for j in range(i) if S[i, j] >= least]
    for i, j in sorted(pairs, key=lambda pair: part[pair[0]] == part[pair[1]]):  # dark edges lie on top
        inside = part[i] == part[j]
        axes.plot(
            x[[i, j]],
            y[[i, j]],
            color=PALETTE[part[i] % 10] if inside else GREY,
            linewidth=6 * S[i, j] ** 2,
            alpha=0.9 if inside else 0.3,
            zorder=1 + inside,
            solid_capstyle="round",
        )
    for number in range(part.max() + 1):
        of = np.flatnonzero(part == number)
        axes.plot(
            x[of],
            y[of],
            MARKERS[number % 10],
            color=PALETTE[number % 10],
            markersize=11,
            markeredgecolor="black",
            linestyle="",
            zorder=3,
            label=f"part {number + 1}",
        )
    for c, name in enumerate(names):
        degrees = np.degrees(angle[c])
        upright = math.cos(angle[c]) >= -1e-9
        axes.text(
            1.12 * x[c],
            1.12 * y[c],
            name,
            fontsize=9,
            rotation=degrees if upright else degrees + 180,
            rotation_mode="anchor",
            ha="left" if upright else "right",
            va="center",
        )
    axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
    axes.axis("off")
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, handletextpad=0.1)


def affinity_blocks(affinity, names: Sequence[str], partitions: Mapping[str, Partition]) -> Figure:
    """Draw the matrix once per partition, with rows and columns sorted by its parts, which are framed.

    Args:
        affinity: (C, C), not negative.
        names: The C class names.
        partitions: The parts of each partition, by its title.

    Returns:
        The figure.
    """
    S = np.asarray(affinity, float)
    figure = Figure(figsize=(4.5 * len(partitions) + 0.6, 4.5), layout="constrained")
    grid = figure.subplots(1, len(partitions), squeeze=False)[0]
    for axes, (title, parts) in zip(grid, partitions.items()):
        order = [c for part in parts for c in part]
        blocks = axes.imshow(S[np.ix_(order, order)], cmap="cividis", vmin=0, vmax=S.max())
        start = 0
        for part in parts:
            ends = np.array([start, start + len(part)]) - 0.5
            axes.plot(ends[[0, 1, 1, 0, 0]], ends[[0, 0, 1, 1, 0]], color="white", linewidth=2.2)
            start += len(part)
        axes.set_xticks(range(len(order)), [names[c] for c in order], rotation=90, fontsize=9)
        axes.set_yticks(range(len(order)), [names[c] for c in order], fontsize=9)
        axes.set_title(title, loc="left", fontsize=11)
    figure.colorbar(blocks, ax=grid, label="affinity S", shrink=0.8)
    return figure


def embedding(points, names: Sequence[str], parts: Partition, xlabel: str, ylabel: str, title: str = "") -> Figure:
    """Draw classes as points, with a colour and a marker for each part: eigenvectors of a graph, for example.

    Args:
        points: (C, 2), the place of each class.
        names: The C class names.
        parts: The class indices of each part.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title above the axes.

    Returns:
        The figure.
    """
    points, part = np.asarray(points, float), part_of(parts)
    figure = Figure(figsize=(6.2, 4.2))
    axes = figure.subplots()
    for number in range(len(parts)):
        of = part == number
        axes.plot(
            *points[of].T,
            MARKERS[number % 10],
            color=PALETTE[number % 10],
            markersize=8,
            linestyle="",
            label=f"part {number + 1}",
        )
    for c, ((x, y), name) in enumerate(zip(points, names)):  # neighbours in the list may be neighbours here
        axes.annotate(name, (x, y), xytext=(6, 4 if c % 2 else -10), textcoords="offset points", fontsize=9)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure


def monotone(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    points: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw maps of [0, 1] into itself beside the diagonal, and named points on them, each joined to both axes.

    Args:
        x: Places in [0, 1].
        curves: The value of each map at these places.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title above the axes.
        points: (x, y) of single points, by name.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(5.6, 4.8))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for k, (name, values) in enumerate(curves.items()):
        axes.plot(x, values, color=PALETTE[k], linestyle=LINES[k % len(LINES)], linewidth=2, label=name)
    for name, (across, up) in (points or {}).items():
        axes.plot([across, across, 0], [0, up, up], color=GREY, linewidth=1, linestyle=":")
        axes.plot(across, up, "o", color="black", markersize=5)
        axes.annotate(name, (across, up), xytext=(7, -12), textcoords="offset points", fontsize=9)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
