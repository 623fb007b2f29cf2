"""A table of the paper beside our results: as text for the terminal, as CSV, and as a figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from udlib.course.paper_tables import Cell, Table
from udlib.course.reproduction import Line
from udlib.figures.plots import estimates
from udlib.figures.text import as_text
from udlib.statistics import summary

DAGGER = "†"
NOTHING = "–"


def heading(column: str) -> str:
    """Return a column's name in words, for example "CF1, top 3"."""
    return {"Difficult": "mAP, difficult images", "Best": "mAP, best run", "Worst": "mAP, worst run"}.get(
        column, column.replace("_top3", ", top 3")
    )


def as_tables(table: Table, lines: Sequence[Line]) -> str:
    """Return one text table per column: the paper beside ours, and the differences to the baseline.

    Ours are mean ± standard deviation over seeds. Doubtful cells of the paper have a dagger and a number, and the notes
    below give the reason.

    Args:
        table: The table of the paper.
        lines: Its cells beside ours, as `udlib.course.reproduction.compare` gives them.
    """
    reasons: dict[str, int] = {}

    def marked(text: str, cell: Cell) -> str:
        return text + "".join(f"{DAGGER}{reasons.setdefault(reason, len(reasons) + 1)}" for reason in cell.doubts)

    blocks = []
    for column in table.columns:
        rows = [[f"{heading(column)} (%)", "paper", "ours", "seeds", "paper: to baseline", "ours: to baseline [95 %]"]]
        for line in [line for line in lines if line.column == column]:
            paper = NOTHING if line.paper is None else marked(number(line.paper), line.paper)
            gap = (
                NOTHING
                if line.paper_difference is None
                else marked(f"{line.paper_difference.value:+.2f}", line.paper_difference)
            )
            rows.append([line.row, paper, ours(line), seeds(line), gap, difference(line)])
        blocks.append(as_text(rows))
    notes = [f"{DAGGER}{k} {reason}" for reason, k in reasons.items()]
    return "\n\n".join(blocks) + ("\n\nDoubtful cells of the paper:\n" + "\n".join(notes) if notes else "")


def number(cell: Cell) -> str:
    """Return a printed cell, with its standard deviation where there is one."""
    return f"{cell.value:.2f}" + ("" if cell.std is None else f" ± {cell.std:.2f}")


def ours(line: Line) -> str:
    """Return mean ± standard deviation over the stored seeds; one seed has no spread."""
    if not line.ours:
        return "not trained" if line.asked else NOTHING
    scores = summary(line.ours)
    return f"{scores.mean:.2f}" + (f" ± {scores.std:.2f}" if scores.n > 1 else "")


def seeds(line: Line) -> str:
    """Return how many of the requested seeds are stored.

    The columns Best and Worst have one value of all seeds, so they have a dash.
    """
    if not line.asked or not line.ours or line.column in ("Best", "Worst"):
        return NOTHING
    return f"{len(line.ours)}" if len(line.ours) == line.asked else f"{len(line.ours)} of {line.asked}"


def difference(line: Line) -> str:
    """Return the paired difference to the baseline with its t interval; a single pair has none and says so."""
    interval = line.difference
    if interval is None:
        return NOTHING
    return f"{interval.mean:+.2f} " + (
        "[one seed]" if interval.n < 2 else f"[{interval.low:+.2f}, {interval.high:+.2f}]"
    )


CSV_HEAD = (
    "table",
    "data",
    "size",
    "row",
    "column",
    "paper",
    "paper_std",
    "doubt",
    "ours",
    "ours_std",
    "seeds",
    "paper_difference",
    "difference",
    "difference_low",
    "difference_high",
    "pairs",
)


def as_csv(table: Table, data: str, size: str, lines: Sequence[Line]) -> str:
    """Return one line per cell, in per cent; what is unknown (not trained, one seed's spread) is empty.

    Args:
        table: The table of the paper.
        data: Name of the data set.
        size: "course" or "full".
        lines: Its cells beside ours.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for line in lines:
        paper = line.paper or Cell(math.nan)
        scores = summary(line.ours) if line.ours else None
        gap, paired = line.paper_difference, line.difference
        numbers = [
            scores.mean if scores else None,
            scores.std if scores else None,
            len(line.ours),
            gap.value if gap else None,
            *((paired.mean, paired.low, paired.high, paired.n) if paired else [None] * 4),
        ]
        writer.writerow(
            [
                table.name,
                data,
                size,
                line.row,
                line.column,
                _csv(paper.value),
                _csv(paper.std),
                paper.doubt,
                *map(_csv, numbers),
            ]
        )
    return buffer.getvalue()


def _csv(value: float | int | None) -> str:
    """A number for CSV; empty where it is unknown."""
    if value is None or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4f}".rstrip("0").rstrip(".")


def figure(table: Table, lines: Sequence[Line], title: str = "") -> Figure:
    """Draw each row's difference to its baseline in the first column: the paper's, and ours with its 95 % t interval.

    Doubtful differences of the paper have a marker of their own; a row that is not trained has no marker of ours.

    Args:
        table: The table of the paper.
        lines: Its cells beside ours.
        title: Title above the axes.

    Raises:
        ValueError: Where no row has a difference.
    """
    drawable = [line for line in lines if line.column == table.columns[0] and line.paper_difference is not None]
    if not drawable:
        raise ValueError(
            f"none of the rows of {table.name} has a difference to draw: choose rows besides the baselines"
        )

    def without_interval(values) -> tuple[list[float], list[float], list[float]]:
        """Points without an interval."""
        return (list(values),) * 3

    gaps = [line.paper_difference for line in drawable]
    groups = {}
    if not all(gap.doubt for gap in gaps):
        groups["paper"] = without_interval(math.nan if gap.doubt else gap.value for gap in gaps)
    if any(gap.doubt for gap in gaps):
        groups["paper, doubtful"] = without_interval(gap.value if gap.doubt else math.nan for gap in gaps)
    if any(line.difference for line in drawable):
        intervals = [line.difference or (math.nan,) * 3 for line in drawable]
        groups["ours, 95 % interval"] = tuple(map(list, zip(*(values[:3] for values in intervals))))
    xlabel = f"{heading(table.columns[0])}: difference to the baseline (points)"
    picture = estimates([line.row for line in drawable], groups, xlabel, title)
    picture.axes[0].axvline(0, color="black", linewidth=0.8)
    return picture
