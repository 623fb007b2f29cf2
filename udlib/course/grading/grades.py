"""Grade a report: run it, judge each line of the rubric, and say what a person has to judge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from udlib.course.grading.checks import CHECKS, Case
from udlib.course.grading.evidence import study_of
from udlib.course.grading.kernel import landlock_version
from udlib.course.grading.notebook import Cell, cells_of, read_json
from udlib.course.grading.processes import Limits
from udlib.course.grading.rubric import CRITERIA, MACHINE_POINTS, PEOPLES_POINTS, Criterion
from udlib.course.grading.sandbox import Execution, execute

TOLERANCE = 1e-3
LONGEST_REASON = 300  # characters
SCORE = re.compile(r"\b\d+(?:\.\d+)?\s*(?:/|of|out of)\s*(?:90|100)\b(?!\s*%)")
UNUSUAL = {
    "udlib.course.grading": "uses the grader itself",
    "subprocess": "starts other programs",
    "os.system": "starts other programs",
    "os.fork": "starts other processes",
    "os.kill": "ends processes",
    "ctypes": "calls the system directly",
}


class Mark(NamedTuple):
    """A judged line of the rubric; `points` is None where a person judges."""

    criterion: Criterion
    points: float | None
    reason: str
    remedy: str


class Grade(NamedTuple):
    """The marks of a report, and what a person should look at."""

    marks: list[Mark]
    notes: list[str]

    @property
    def points(self) -> float:
        """The points that the machine gives, of `MACHINE_POINTS`."""
        return sum(mark.points for mark in self.marks if mark.points is not None)

    def as_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        lines = [
            {
                "line": mark.criterion.name,
                "text": mark.criterion.text,
                "points": mark.points,
                "of": mark.criterion.points,
                "judged_by": "machine" if mark.criterion.machine else "person",
                "reason": mark.reason,
                "remedy": mark.remedy,
            }
            for mark in self.marks
        ]
        return {
            "points": self.points,
            "machine_checked": MACHINE_POINTS,
            "left_to_a_person": PEOPLES_POINTS,
            "lines": lines,
            "notes": self.notes,
        }


def grade(report: str | Path, limits: Limits, tolerance: float = TOLERANCE) -> Grade:
    """Run a report within its limits, and judge it.

    Args:
        report: The notebook.
        limits: What it may use.
        tolerance: How much a number may differ from a new run of it, as a share of it.

    Raises:
        FileNotFoundError, ValueError: The report cannot be read, or has no code.
        RuntimeError: This system cannot limit it.
    """
    report = Path(report)
    cells = cells_of(read_json(report))
    return judge(cells, execute(report, limits), tolerance, known_claims())


def judge(
    cells: Sequence[Cell], run: Execution, tolerance: float = TOLERANCE, claims: frozenset[str] = frozenset()
) -> Grade:
    """Judge a report whose run is known."""
    case = Case(cells, run, study_of(run), tolerance, claims)
    marks = []
    for criterion in CRITERIA:
        if not criterion.machine:
            marks.append(Mark(criterion, None, "a person judges this line", ""))
            continue
        share, reason, remedy = CHECKS[criterion.name](case)
        marks.append(Mark(criterion, round(share * criterion.points, 1), _plain(reason), remedy))
    return Grade(marks, list(_notes(cells)))


def _plain(text: str) -> str:
    """A reason in one short line: words of a report that stand in it can move no cursor and hide nothing."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"


def known_claims() -> frozenset[str]:
    """The course's claims in words; empty where the results behind them are missing."""
    from udlib.course.verdicts import all_claims

    try:
        return frozenset(claim.question for claim in all_claims())
    except FileNotFoundError:
        return frozenset()


def _notes(cells: Sequence[Cell]) -> Iterator[str]:
    """What a person should look at: it costs no points."""
    if landlock_version() < 3:
        yield "this system cannot confine what a report writes, so it could write outside its copy"
    for cell in cells:
        if cell.kind == "code":
            for word, what in UNUSUAL.items():
                if word in cell.source:
                    yield f"cell {cell.number} {what} ('{word}'): read it"
        if SCORE.search(cell.text) or (cell.kind == "markdown" and SCORE.search(cell.source)):
            yield f"cell {cell.number} states a score, which counts for nothing"
