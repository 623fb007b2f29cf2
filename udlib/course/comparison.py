"""A table of the paper beside ours, as text for the terminal, as CSV, and as a figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from udlib.course.paper_tables import Cell, Table
from udlib.course.report import as_text
from udlib.course.reproduction import Line
from udlib.figures.plots import estimates
from udlib.statistics import summary

DAGGER = "†"
NOTHING = "–"


def heading(column: str) -> str:
    """A column's name in words, e.g. "CF1, top 3"."""
    return {"Difficult": "mAP, difficult images", "Best": "mAP, best run", "Worst": "mAP, worst run"}.get(
        column, column.replace("_top3", ", top 3")
    )


def as_tables(table: Table, lines: Sequence[Line]) -> str:
    """One block per column: the paper beside ours (mean ± standard deviation over seeds), and the differences to the baseline.

    Doubtful cells have a dagger and a number, which the notes below explain.
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
    """A printed cell, with its standard deviation where there is one."""
    return f"{cell.value:.2f}" + ("" if cell.std is None else f" ± {cell.std:.2f}")


def ours(line: Line) -> str:
    """Mean ± standard deviation over the stored seeds; one seed has no spread."""
    if not line.ours:
        return "not trained" if line.asked else NOTHING
    found = summary(line.ours)
    return f"{found.mean:.2f}" + (f" ± {found.std:.2f}" if found.n > 1 else "")


def seeds(line: Line) -> str:
    """How many of the asked seeds are stored; Best and Worst have one value of all of them."""
    if not line.asked or not line.ours or line.column in ("Best", "Worst"):
        return NOTHING
    return f"{len(line.ours)}" if len(line.ours) == line.asked else f"{len(line.ours)} of {line.asked}"


def difference(line: Line) -> str:
    """The paired difference to the baseline with its t interval; a single pair says that it has none."""
    found = line.difference
    if found is None:
        return NOTHING
    return f"{found.mean:+.2f} " + ("[one seed]" if found.n < 2 else f"[{found.low:+.2f}, {found.high:+.2f}]")


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
    """One line per cell, in per cent; what is unknown (not trained, one seed's spread) is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for line in lines:
        paper = line.paper or Cell(math.nan)
        found = summary(line.ours) if line.ours else None
        gap, paired = line.paper_difference, line.difference
        numbers = [
            found.mean if found else None,
            found.std if found else None,
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
    if value is None or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4f}".rstrip("0").rstrip(".")


def figure(table: Table, lines: Sequence[Line], title: str = "") -> Figure:
    """Each row's difference to its baseline in the first column: the paper's, and ours with its 95 % t interval.

    Doubtful differences of the paper have a marker of their own; a row that is not trained has no marker of ours. Raises
    ValueError where no row has a difference.
    """
    chosen = [line for line in lines if line.column == table.columns[0] and line.paper_difference is not None]
    if not chosen:
        raise ValueError(
            f"none of the rows of {table.name} has a difference to draw: choose rows besides the baselines"
        )

    def drawn(values) -> tuple[list[float], list[float], list[float]]:
        """Points without an interval."""
        return (list(values),) * 3

    gaps = [line.paper_difference for line in chosen]
    groups = {}
    if not all(gap.doubt for gap in gaps):
        groups["paper"] = drawn(math.nan if gap.doubt else gap.value for gap in gaps)
    if any(gap.doubt for gap in gaps):
        groups["paper, doubtful"] = drawn(gap.value if gap.doubt else math.nan for gap in gaps)
    if any(line.difference for line in chosen):
        found = [line.difference or (math.nan,) * 3 for line in chosen]
        groups["ours, 95 % interval"] = tuple(map(list, zip(*(values[:3] for values in found))))
    xlabel = f"{heading(table.columns[0])}: difference to the baseline (points)"
    made = estimates([line.row for line in chosen], groups, xlabel, title)
    made.axes[0].axvline(0, color="black", linewidth=0.8)
    return made
