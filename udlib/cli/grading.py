"""`udlib grade`: a report of the project, run within limits and judged by the rubric."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from udlib.cli.options import require_writable

if TYPE_CHECKING:
    from udlib.course.grading.grades import Grade, Mark

WIDTH = 100


def grade(
    report: Annotated[Path, typer.Argument(metavar="REPORT.ipynb", help="The report that was handed in.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write points and reasons to this JSON file.")
    ] = None,
    time_limit: Annotated[
        float,
        typer.Option(metavar="MINUTES", help="Minutes that the report may run, and that it may compute.", min=0.05),
    ] = 10.0,
    memory_limit: Annotated[
        float, typer.Option(metavar="GB", help="Memory that all its processes may use together.", min=0.2)
    ] = 4.0,
    tolerance: Annotated[
        float,
        typer.Option(metavar="SHARE", help="How much a number may differ from a new run of it.", min=0.0, max=1.0),
    ] = 0.001,
) -> None:
    """Run a report of the project (docs/project), and judge the lines of its rubric that a machine can judge.

    The report runs in a temporary copy of its folder, and is stopped at its limits. On Linux it cannot write outside this
    copy (from 6.2 on) or open a TCP connection (from 6.7 on). It can read your files, so grade reports of people whom you
    do not know in a container. A new run on another kind of processor may give slightly different numbers: --tolerance
    0.05 allows 5 %.

    Exit code 0 when the report was judged, whatever its points, and 2 when it cannot be: a damaged file, or no code.
    """
    from udlib.course.grading.grades import grade as grade_report
    from udlib.course.grading.processes import Limits
    from udlib.course.grading.rubric import MACHINE_POINTS, PEOPLES_POINTS
    from udlib.files import atomic_write

    require_writable(json_file)
    print(f"running a copy of {report.name}, for at most {time_limit:g} minutes …", flush=True)
    result: Grade = grade_report(report, Limits(minutes=time_limit, memory_gb=memory_limit), tolerance)
    print()
    for mark in result.marks:
        _print_mark(mark)
    for note in result.notes:
        print(f"note: {note}")
    print(
        f"\nmachine-checked: {result.points:g} of {MACHINE_POINTS} points. A person judges the other {PEOPLES_POINTS} of 100."
    )
    if json_file is not None:
        text = json.dumps(result.as_json(), ensure_ascii=False, indent=1)
        atomic_write(json_file, f"{text}\n".encode(errors="backslashreplace"))
        print(f"written: {json_file}")


def _print_mark(mark: Mark) -> None:
    """Print one line of the rubric with its points, the reason, and what to do."""
    points = "?" if mark.points is None else f"{mark.points:g}"
    print(f"{points:>4} of {mark.criterion.points:>2}  {mark.criterion.text}")
    for label, text in (("", mark.reason), ("do: ", mark.remedy)):
        if text:
            print(textwrap.fill(label + text, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12))
