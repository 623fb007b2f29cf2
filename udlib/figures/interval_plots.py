"""Figures of estimates with intervals: means over seeds with 95 % t intervals, and values with given ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udlib.figures.style import GREY, LINES, MARKERS, PALETTE, titled_axes
from udlib.statistics import Summary, summary


def seed_intervals(groups: Mapping[str, Sequence[float]], xlabel: str, title: str = "", zero: bool = False) -> Figure:
    """Draw one row per group: each seed as a tick, and the mean with its 95 % t interval.

    Args:
        groups: The seeds' values, per name of a group.
        xlabel: Label of the horizontal axis, with its unit.
        title: Title above the axes.
        zero: Whether to draw a line at 0, which stands for "no difference".

    Returns:
        The figure.
    """
    figure, axes = titled_axes(6.8, 0.5 * len(groups) + 1.0, title)
    for row, values in enumerate(groups.values()):
        estimate = summary(values)
        axes.plot(values, np.full(len(values), row + 0.18), "|", color=GREY, markersize=8)
        axes.errorbar(
            estimate.mean,
            row,
            xerr=_reach([estimate]),
            fmt=MARKERS[row % 10],
            color=PALETTE[row % 10],
            capsize=4,
            markersize=6,
        )
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.25)
    if zero:
        axes.axvline(0, color="black", linewidth=0.8)
    return figure


def estimates(
    names: Sequence[str],
    groups: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]],
    xlabel: str,
    title: str = "",
) -> Figure:
    """Draw one row per name: the value of each group there as a marker with its interval, side by side.

    Args:
        names: Names of the rows.
        groups: (values, low, high) per name of a group, each with one entry per row; NaN is left out.
        xlabel: Label of the horizontal axis, with its unit.
        title: Title above the axes.

    Returns:
        The figure.
    """
    figure, axes = titled_axes(6.8, (0.13 + 0.08 * len(groups)) * len(names) + 1.2, title)
    rows = np.arange(len(names))
    for k, (label, (values, low, high)) in enumerate(groups.items()):
        values = np.asarray(values, float)
        reach = np.clip([values - np.asarray(low, float), np.asarray(high, float) - values], 0, None)
        axes.errorbar(
            values,
            rows + 0.22 * (k - (len(groups) - 1) / 2),
            xerr=reach,
            fmt=MARKERS[k],
            color=PALETTE[k],
            markersize=5,
            capsize=2,
            elinewidth=1.2,
            label=label,
        )
    axes.set_yticks(rows, list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.25)
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def panels(
    names: Sequence,
    values_by_panel: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    xlabel: str,
    references: Mapping[str, Mapping[str, float]] | None = None,
    columns: int = 3,
) -> Figure:
    """Draw one panel per quantity, all of them over the same settings.

    Means are joined and have 95 % t intervals over seeds; each seed is a faint tick. The settings stand at equal
    distances, because 0 has no place on a logarithmic axis.

    Args:
        names: The settings, in order.
        values_by_panel: `values_by_panel[panel][curve]` holds the seeds' values of each setting.
        xlabel: Label of the horizontal axes.
        references: `references[panel]` holds named values that are drawn as dotted lines, of another recipe for
            example.
        columns: Panels per row.

    Returns:
        The figure, with one legend for all panels.
    """
    rows = -(-len(values_by_panel) // columns)
    in_words = [f"{name:g}" if isinstance(name, float) else str(name) for name in names]
    room = max(8, 48 // len(names))  # characters between two settings; a longer name has several lines
    tick_labels = [fill(label, room, break_long_words=False, break_on_hyphens=False) for label in in_words]
    figure = Figure(figsize=(3.25 * min(columns, len(values_by_panel)), 2.7 * rows))
    grid = figure.subplots(
        rows, columns if len(values_by_panel) > columns else len(values_by_panel), squeeze=False
    ).ravel()
    for axes in grid[len(values_by_panel) :]:
        axes.axis("off")
    for axes, (title, curves) in zip(grid, values_by_panel.items()):
        for k, (label, values) in enumerate(curves.items()):
            place = np.arange(len(names)) + 0.14 * (k - (len(curves) - 1) / 2)
            _draw_seeds_and_means(axes, place, values, k, label)
        for k, (label, value) in enumerate((references or {}).get(title, {}).items()):
            axes.axhline(value, color=PALETTE[7 + k % 3], linestyle=":", linewidth=1.4, label=label)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(range(len(names)), tick_labels)
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    for axes in grid[max(len(values_by_panel) - len(grid) // rows, 0) : len(values_by_panel)]:
        axes.set_xlabel(xlabel)
    handles, labels = grid[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles, labels, frameon=False, loc="upper center", ncols=len(labels), fontsize=9, bbox_to_anchor=(0.5, 0)
        )
    figure.tight_layout()
    return figure


def _draw_seeds_and_means(axes: Axes, place: np.ndarray, values: Sequence[Sequence[float]], k: int, label: str) -> None:
    """Draw each seed as a tick, and the joined means with their intervals, in the k-th look."""
    intervals = [summary(seeds) for seeds in values]
    axes.plot(
        np.repeat(place, [len(seeds) for seeds in values]),
        np.concatenate([np.asarray(v, float) for v in values]),
        "_",
        color=GREY,
        markersize=7,
        alpha=0.7,
    )
    axes.errorbar(
        place,
        [s.mean for s in intervals],
        yerr=_reach(intervals),
        color=PALETTE[k],
        fmt=MARKERS[k],
        markersize=4,
        linestyle=LINES[k % len(LINES)],
        linewidth=1,
        capsize=2,
        label=label,
    )


def interval_bars(
    names: Sequence[str], groups: Mapping[str, Sequence[Sequence[float]]], xlabel: str, title: str = ""
) -> Figure:
    """Draw bars with 95 % t intervals, those of all groups side by side in the row of each name.

    Args:
        names: Names of the rows.
        groups: `groups[label]` holds the seeds' values of each row; values that are NaN are left out.
        xlabel: Label of the horizontal axis, with its unit.
        title: Title above the axes.

    Returns:
        The figure.
    """
    figure, axes = titled_axes(6.8, (0.22 + 0.22 * len(groups)) * len(names) + 1.2, title)
    height = 0.8 / len(groups)
    for k, ((label, rows), hatch) in enumerate(zip(groups.items(), ("", "///", "...", "xx"))):
        finite = [np.asarray(seeds, float)[np.isfinite(seeds)] for seeds in rows]
        intervals = {row: summary(seeds) for row, seeds in enumerate(finite) if len(seeds)}
        place = np.array(list(intervals)) + height * (k - (len(groups) - 1) / 2)
        axes.barh(
            place,
            [s.mean for s in intervals.values()],
            0.9 * height,
            color=PALETTE[k],
            hatch=hatch,
            edgecolor="white",
            label=label,
            xerr=_reach(intervals.values()),
            error_kw={"capsize": 3, "elinewidth": 1.2},
        )
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _reach(intervals: Iterable[Summary]) -> list[list[float]]:
    """Return how far the intervals reach below and above their means, as matplotlib's error bars take it."""
    intervals = list(intervals)
    return [[s.mean - s.low for s in intervals], [s.high - s.mean for s in intervals]]
