"""Pictures of the course: one function per kind of figure, data in, matplotlib `Figure` out.

Figures are plain `Figure` objects (no pyplot state), in seaborn's colour-blind palette; whatever differs in colour
differs in marker, hatch or line style too. `show` puts one into a notebook with a text for those who cannot see it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from udlib.calibration import ReliabilityCurve
from udlib.datasets.base import Box
from udlib.statistics import summary

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = PALETTE
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":", "-.")
DPI = 110
HALO = withStroke(linewidth=2.8, foreground="black", alpha=0.45)  # boxes must stand out from pictures of their colour


def show(figure: Figure, alt: str) -> None:
    """Display a figure as the output of a cell; `alt` says in words what it shows."""
    kept = (
        io.BytesIO()
    )  # without the alpha channel: nothing is transparent, and notebooks with figures are a tenth smaller
    Image.open(io.BytesIO(png(figure))).convert("RGB").save(kept, format="png")
    display({"image/png": kept.getvalue(), "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def _axes(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    return figure, axes


def picture_grid(
    images: Sequence,
    titles: Sequence[str] | None = None,
    boxes: Sequence[Sequence[Box]] | None = None,
    columns: int = 6,
    side: float = 1.7,
) -> Figure:
    """Pictures (PIL or (H, W, 3) arrays) in rows, with titles and annotated boxes; a difficult object's box is dashed."""
    rows = -(-len(images) // columns)
    title_lines = max((title.count("\n") + 1 for title in titles), default=0) if titles else 0
    figure = Figure(figsize=(columns * side, rows * (side + 0.17 * title_lines + 0.08)))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for k, (axes, image) in enumerate(zip(grid, images)):
        axes.imshow(np.asarray(image), interpolation="nearest")
        if titles:
            axes.set_title(titles[k], fontsize=8, parse_math=False)
        draw_boxes(axes, boxes[k] if boxes else ())
    figure.tight_layout(pad=0.4)
    return figure


def draw_boxes(axes: Axes, boxes: Sequence[Box]) -> None:
    """Annotated boxes on a picture: solid for an easy object, dashed and of another colour for a difficult one."""
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


def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], xlabel: str, title: str = "") -> Figure:
    """Horizontal bars, one group of colours and hatches after the other, stacked: counts of classes, say."""
    figure, axes = _axes(6.5, 0.27 * len(names) + 0.9, title)
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
    """A (C, C) matrix with its class names, e.g. how often the column's class stands in images of the row's."""
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
    """Named curves over one axis, each with its own colour, line style and marker; `bands` gives (low, high) per name."""
    figure, axes = _axes(6.5, 3.6, title)
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


def seed_intervals(groups: Mapping[str, Sequence[float]], xlabel: str, title: str = "", zero: bool = False) -> Figure:
    """One row per group: every seed as a dot, the mean with its 95 % t interval; `zero` marks "no difference"."""
    figure, axes = _axes(6.8, 0.5 * len(groups) + 1.0, title)
    for row, (name, values) in enumerate(groups.items()):
        found = summary(values)
        axes.plot(values, np.full(len(values), row + 0.18), "|", color=GREY, markersize=8)
        axes.errorbar(
            found.mean,
            row,
            xerr=[[found.mean - found.low], [found.high - found.mean]],
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
    """One row per name: each group's (values, low, high) there as a marker with its interval, side by side."""
    figure, axes = _axes(6.8, (0.13 + 0.08 * len(groups)) * len(names) + 1.2, title)
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
    measured: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    xlabel: str,
    references: Mapping[str, Mapping[str, float]] | None = None,
    columns: int = 3,
) -> Figure:
    """One panel per quantity over the same settings `names`: `measured[panel][curve]` holds the seeds' values per setting.

    Means are joined, with 95 % t intervals over seeds; each seed is a faint tick. The settings stand at equal distances:
    0 has no place on a logarithmic axis. `references[panel]` draws named dotted lines, of another recipe say.
    """
    rows = -(-len(measured) // columns)
    figure = Figure(figsize=(3.7 * min(columns, len(measured)), 2.7 * rows))
    grid = figure.subplots(rows, columns if len(measured) > columns else len(measured), squeeze=False).ravel()
    for axes in grid[len(measured) :]:
        axes.axis("off")
    for axes, (title, curves) in zip(grid, measured.items()):
        for k, (label, values) in enumerate(curves.items()):
            place = np.arange(len(names)) + 0.14 * (k - (len(curves) - 1) / 2)
            found = [summary(seeds) for seeds in values]
            reach = [[s.mean - s.low for s in found], [s.high - s.mean for s in found]]
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
                [s.mean for s in found],
                yerr=reach,
                color=PALETTE[k],
                fmt=MARKERS[k],
                markersize=4,
                linestyle=LINES[k % len(LINES)],
                linewidth=1,
                capsize=2,
                label=label,
            )
        for k, (label, value) in enumerate((references or {}).get(title, {}).items()):
            axes.axhline(value, color=PALETTE[7 + k % 3], linestyle=":", linewidth=1.4, label=label)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(range(len(names)), [f"{name:g}" if isinstance(name, float) else str(name) for name in names])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    for axes in grid[max(len(measured) - len(grid) // rows, 0) : len(measured)]:
        axes.set_xlabel(xlabel)
    handles, labels = grid[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles, labels, frameon=False, loc="upper center", ncols=len(labels), fontsize=9, bbox_to_anchor=(0.5, 0)
        )
    figure.tight_layout()
    return figure


def reliability(
    curves: Mapping[str, ReliabilityCurve],
    title: str = "",
    xlabel: str = "predicted probability",
    ylabel: str = "share of positives",
    smallest: int = 1,
) -> Figure:
    """Reliability diagram of pooled curves: share of positives over mean probability, and how many entries each bin has.

    The diagonal is perfect calibration; points below it are too confident. Bins of fewer than `smallest` entries are
    left out above, never below. The counts stand on a logarithmic axis.
    """
    figure = Figure(figsize=(5.2, 5.6))
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for k, (name, curve) in enumerate(curves.items()):
        seen = curve.count.numpy() >= max(smallest, 1)
        axes.plot(
            curve.confidence.numpy()[seen],
            curve.frequency.numpy()[seen],
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


def prediction(
    image,
    names: Sequence[str],
    probabilities: Sequence[float],
    targets: Sequence[int],
    difficult: Sequence[bool],
    threshold: float = 0.5,
    title: str = "",
) -> Figure:
    """A picture beside the probability of each class; true labels are filled, difficult ones hatched, others empty."""
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
        axes.text(min(p[k] + 0.02, 0.9), row, f"{p[k]:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), [names[k] + (" (difficult)" if difficult[k] else "") for k in order])
    axes.invert_yaxis()
    axes.axvline(threshold, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("predicted probability (filled: labelled as present)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def precision_recall(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    points: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Precision over recall as steps, one curve per name ((recall, precision)); `points` marks single thresholds."""
    figure, axes = _axes(5.2, 3.8, title)
    for k, (name, (recall, precision)) in enumerate(curves.items()):
        axes.step(recall, precision, where="post", color=PALETTE[k], linestyle=LINES[k % len(LINES)], label=name)
        if points and name in points:
            axes.plot(*points[name], MARKERS[k], color=PALETTE[k], markersize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    axes.grid(alpha=0.25)
    if len(curves) > 1:
        axes.legend(frameon=False, loc="lower left")
    return figure


def dots(names: Sequence[str], groups: Mapping[str, Sequence[float]], xlabel: str, title: str = "") -> Figure:
    """One row per name and one marker per group, joined by a line: two scores of every class, say; NaN is left out."""
    figure, axes = _axes(6.5, 0.27 * len(names) + 1.1, title)
    values = np.array([list(group) for group in groups.values()], float)
    rows = np.arange(len(names))
    found = np.isfinite(values).any(0)
    axes.hlines(rows[found], np.nanmin(values[:, found], 0), np.nanmax(values[:, found], 0), color=GREY, linewidth=1)
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
    """Points (x, y), one colour and marker per group, beside the diagonal x = y: an estimate against the truth, say."""
    figure, axes = _axes(4.6, 4.2, title)
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


def interval_bars(
    names: Sequence[str], groups: Mapping[str, Sequence[Sequence[float]]], xlabel: str, title: str = ""
) -> Figure:
    """Bars side by side in the row of each name, with 95 % t intervals: `groups[label]` holds the seeds' values per name.

    Values that are NaN are left out.
    """
    figure, axes = _axes(6.8, (0.22 + 0.22 * len(groups)) * len(names) + 1.2, title)
    height = 0.8 / len(groups)
    for k, ((label, rows), hatch) in enumerate(zip(groups.items(), ("", "///", "...", "xx"))):
        kept = [np.asarray(seeds, float)[np.isfinite(seeds)] for seeds in rows]
        found = {row: summary(seeds) for row, seeds in enumerate(kept) if len(seeds)}
        place = np.array(list(found)) + height * (k - (len(groups) - 1) / 2)
        axes.barh(
            place,
            [s.mean for s in found.values()],
            0.9 * height,
            color=PALETTE[k],
            hatch=hatch,
            edgecolor="white",
            label=label,
            xerr=[[s.mean - s.low for s in found.values()], [s.high - s.mean for s in found.values()]],
            error_kw={"capsize": 3, "elinewidth": 1.2},
        )
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def trajectories(
    measured: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence]]],
    xlabel: str,
    marks: Sequence[float] = (),
    logarithmic: Sequence[str] = (),
) -> Figure:
    """Panels one above the other over one axis, of epochs say: `measured[panel][curve]` is (x, values), a row per seed.

    A line joins the means, a band spans the seeds; curves of one name look alike in all panels. `marks` draws vertical
    lines through all of them; panels named in `logarithmic` have such an axis.
    """
    names = list(dict.fromkeys(name for curves in measured.values() for name in curves))
    figure = Figure(figsize=(7.2, 1.75 * len(measured) + 0.6))
    grid = figure.subplots(len(measured), 1, sharex=True, squeeze=False).ravel()
    for axes, (title, curves) in zip(grid, measured.items()):
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
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    grid[-1].set_xlabel(xlabel)
    figure.tight_layout()
    return figure
