"""The `udlib` command. What takes long to import is imported by the command that needs it, so that help is quick."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import typer

from udlib.cli import data
from udlib.cli.course import doctor, lab, prepare, readme, results
from udlib.cli.models import distill, evaluate, predict, train
from udlib.cli.systems import detection, parallel
from udlib.cli.tables import reproduce
from udlib.cli.trainings import runs

app = typer.Typer(help="Calibration and distillation for multi-label images: the course's command.",
                  no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (train, distill, parallel, detection, evaluate, predict, reproduce, doctor, lab, prepare, runs, results, readme):
    app.command()(command)
app.add_typer(data.app, name="data")

OURS = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError)


def main(words: list[str] | None = None) -> None:
    """Run the command with these words, by default the process's own; ends in SystemExit. An error that this package raises
    is one line on stderr and exit code 2."""
    words = sys.argv[1:] if words is None else words
    try:
        app(words, prog_name="udlib", obj=words)
    except OURS as error:
        if not _raised_here(error):
            raise
        print(f"udlib: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _raised_here(error: BaseException) -> bool:
    """Whether the error was raised by this package; another library's keeps its traceback, which says more."""
    *_, innermost = traceback.extract_tb(error.__traceback__)
    return Path(innermost.filename).is_relative_to(Path(__file__).parents[1])
