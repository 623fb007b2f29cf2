"""Figures of the course: one function per kind of figure, data in, matplotlib `Figure` out.

This module draws numbers: bars, curves, and means with intervals. It also offers the figures of `pictures` and
`classifier_plots` and the tools of `style`, so that a lesson needs a single import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from udlib.figures.classifier_plots import precision_recall, reliability
from udlib.figures.interval_plots import estimates, interval_bars, panels, seed_intervals
from udlib.figures.pictures import draw_boxes, picture_grid, prediction
from udlib.figures.style import (
    BLUE,
    DPI,
    GREY,
    HALO,
    LINES,
    MARKERS,
    ORANGE,
    PALETTE,
    RED,
    SKY,
    png,
    readable_on,
    show,
    titled_axes,
)

__all__ = [
    "BLUE",
    "DPI",
    "GREY",
    "HALO",
    "LINES",
    "MARKERS",
    "ORANGE",
    "PALETTE",
    "RED",
    "SKY",
    "bars",
    "dots",
    "draw_boxes",
    "estimates",
    "heat_map",
    "interval_bars",
    "lines",
    "panels",
    "picture_grid",
    "png",
    "precision_recall",
    "prediction",
    "reliability",
    "scatter",
    "seed_intervals",
    "show",
    "trajectories",
]


def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], xlabel: str, title: str = "") -> Figure:
    """Draw horizontal bars with the groups stacked, each in its own colour and hatch: counts of classes, for example.

    Args:
        names: Names of the rows.
        groups: Up to three groups; each has one value per row.
        xlabel: Label of the horizontal axis, with its unit.
        title: Title above the axes.

    Returns:
        The figure.
    """
    figure, axes = titled_axes(6.5, 0.27 * len(names) + 0.9, title)
    left = np.zeros(len(names))
    for (label, values), colour, hatch in zip(groups.items(), (BLUE, ORANGE, GREY), ("", "///", "...")):
        axes.barh(names, values, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
        left += np.asarray(values, float)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    if len(groups) > 1:
        axes.legend(frameon=False, loc="lower right")
    return figure


def heat_map(matrix, names: Sequence[str], label: str, title: str = "", annotate: bool = False) -> Figure:
    """Draw a square matrix with the class names at its rows and columns.

    Args:
        matrix: (C, C), for example how often the column's class is in images of the row's class.
        names: The C class names.
        label: Label of the colour bar.
        title: Title above the matrix.
        annotate: Whether to write each value as a percentage into its cell.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(0.36 * len(names) + 2.2, 0.33 * len(names) + 1.6))
    axes = figure.subplots()
    sns.heatmap(
        np.asarray(matrix),
        xticklabels=list(names),
        yticklabels=list(names),
        cmap="cividis",
        ax=axes,
        square=True,
        annot=annotate,
        fmt=".0%" if annotate else "",
        cbar_kws={"label": label, "shrink": 0.8},
        linewidths=0.3,
    )
    for text, colour in zip(axes.texts, axes.collections[0].get_facecolors()):
        text.set_color(readable_on(colour))
    axes.set_title(title, loc="left", fontsize=11)
    return figure


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    markers: bool = True,
) -> Figure:
    """Draw named curves over one axis, each with its own colour, line style and marker.

    Args:
        x: Places on the horizontal axis.
        curves: The values of each curve, one per place.
        xlabel: Label of the horizontal axis, with its unit.
        ylabel: Label of the vertical axis, with its unit.
        title: Title above the axes.
        bands: (low, high) per name of a curve, drawn as a shaded band.
        markers: Whether to mark each point.

    Returns:
        The figure.
    """
    figure, axes = titled_axes(6.5, 3.6, title)
    for k, (name, values) in enumerate(curves.items()):
        axes.plot(
            x,
            values,
            color=PALETTE[k],
            linestyle=LINES[k % len(LINES)],
            label=name,
            marker=MARKERS[k] if markers else None,
            markersize=4,
        )
        if bands and name in bands:
            axes.fill_between(x, *bands[name], color=PALETTE[k], alpha=0.18, linewidth=0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.25)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def dots(names: Sequence[str], groups: Mapping[str, Sequence[float]], xlabel: str, title: str = "") -> Figure:
    """Draw one row per name and one marker per group, joined by a line: two scores of each class, for example.

    Args:
        names: Names of the rows.
        groups: The values of each group, one per row; NaN is left out.
        xlabel: Label of the horizontal axis, with its unit.
        title: Title above the axes.

    Returns:
        The figure.
    """
    figure, axes = titled_axes(6.5, 0.27 * len(names) + 1.1, title)
    values = np.array([list(group) for group in groups.values()], float)
    rows = np.arange(len(names))
    has_value = np.isfinite(values).any(0)
    axes.hlines(
        rows[has_value], np.nanmin(values[:, has_value], 0), np.nanmax(values[:, has_value], 0), color=GREY, linewidth=1
    )
    for k, label in enumerate(groups):
        axes.plot(values[k], rows, MARKERS[k], color=PALETTE[k], label=label, markersize=6)
    axes.set_yticks(rows, list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.25)
    axes.legend(
        frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.6 / figure.get_figheight()), ncols=len(groups)
    )
    return figure


def scatter(
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str, title: str = ""
) -> Figure:
    """Draw points beside the diagonal x = y, one colour and marker per group: estimates against the truth, for example.

    Args:
        groups: (x, y) per name of a group.
        xlabel: Label of the horizontal axis, with its unit.
        ylabel: Label of the vertical axis, with its unit.
        title: Title above the axes.

    Returns:
        The figure.
    """
    figure, axes = titled_axes(4.6, 4.2, title)
    values = np.concatenate([np.asarray(part, float).ravel() for pair in groups.values() for part in pair])
    low, high = np.nanmin(values), np.nanmax(values)
    room = 0.06 * (high - low) or 1.0
    axes.plot([low - room, high + room], [low - room, high + room], color="black", linewidth=0.8)
    for k, (name, (x, y)) in enumerate(groups.items()):
        axes.plot(x, y, MARKERS[k % 10], color=PALETTE[k % 10], markersize=6, markerfacecolor="none", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(low - room, high + room), ylim=(low - room, high + room))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def trajectories(
    curves_by_panel: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence]]],
    xlabel: str,
    marks: Sequence[float] = (),
    logarithmic: Sequence[str] = (),
) -> Figure:
    """Draw panels one above the other over a common axis, of epochs for example.

    A line joins the means and a band spans the seeds. Curves of one name look alike in all panels.

    Args:
        curves_by_panel: `curves_by_panel[panel][curve]` is (x, values); the values have one row per seed.
        xlabel: Label of the common axis.
        marks: Places of vertical dotted lines through all panels.
        logarithmic: Names of the panels whose vertical axis is logarithmic.

    Returns:
        The figure.
    """
    names = list(dict.fromkeys(name for curves in curves_by_panel.values() for name in curves))
    figure = Figure(figsize=(7.2, 1.75 * len(curves_by_panel) + 0.6))
    grid = figure.subplots(len(curves_by_panel), 1, sharex=True, squeeze=False).ravel()
    for axes, (title, curves) in zip(grid, curves_by_panel.items()):
        for name, (x, values) in curves.items():
            k, seeds = names.index(name), np.atleast_2d(np.asarray(values, float))
            axes.plot(
                x,
                seeds.mean(0),
                color=PALETTE[k],
                linestyle=LINES[k % len(LINES)],
                marker=MARKERS[k],
                markersize=3.5,
                markevery=max(len(x) // 16, 1),
                label=name,
            )
            axes.fill_between(x, seeds.min(0), seeds.max(0), color=PALETTE[k], alpha=0.18, linewidth=0)
        for place in marks:
            axes.axvline(place, color="black", linewidth=0.8, linestyle=":")
        axes.set_yscale("log" if title in logarithmic else "linear")
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    grid[-1].set_xlabel(xlabel)
    figure.tight_layout()
    return figure
