"""Figures that judge a classifier's probabilities: reliability diagrams and precision-recall curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from udlib.calibration import ReliabilityCurve
from udlib.figures.style import LINES, MARKERS, PALETTE, titled_axes


def reliability(
    curves: Mapping[str, ReliabilityCurve],
    title: str = "",
    xlabel: str = "predicted probability",
    ylabel: str = "share of positives",
    smallest: int = 1,
) -> Figure:
    """Draw a reliability diagram: the share of positives over the mean probability, and the number of entries per bin.

    The diagonal is perfect calibration; points below it are too confident. The counts stand below, on a logarithmic
    axis.

    Args:
        curves: A pooled curve per name.
        title: Title above the diagram.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        smallest: Bins with fewer entries are left out of the diagram, but not of the counts below it.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(5.2, 5.6))
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for k, (name, curve) in enumerate(curves.items()):
        filled = curve.count.numpy() >= max(smallest, 1)
        axes.plot(
            curve.confidence.numpy()[filled],
            curve.frequency.numpy()[filled],
            color=PALETTE[k],
            marker=MARKERS[k],
            linestyle=LINES[k % len(LINES)],
            markersize=5,
            label=name,
        )
        below.stairs(
            np.maximum(curve.count.numpy(), 0.5),
            curve.edges.numpy(),
            color=PALETTE[k],
            linewidth=1.6,
            linestyle=LINES[k % len(LINES)],
        )
    axes.set(ylabel=ylabel, xlim=(0, 1), ylim=(0, 1))
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    below.set(xlabel=xlabel, ylabel="entries", yscale="log", ylim=(0.5, None))
    for each in (axes, below):
        each.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def precision_recall(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    points: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw precision over recall as steps, one curve per name.

    Args:
        curves: (recall, precision) per name, both in [0, 1].
        title: Title above the axes.
        points: (recall, precision) of a single threshold per name, drawn as a marker on its curve.

    Returns:
        The figure.
    """
    figure, axes = titled_axes(5.2, 3.8, title)
    for k, (name, (recall, precision)) in enumerate(curves.items()):
        axes.step(recall, precision, where="post", color=PALETTE[k], linestyle=LINES[k % len(LINES)], label=name)
        if points and name in points:
            axes.plot(*points[name], MARKERS[k], color=PALETTE[k], markersize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    axes.grid(alpha=0.25)
    if len(curves) > 1:
        axes.legend(frameon=False, loc="lower left")
    return figure
