"""The `udlib` command. What takes long to import is imported by the command that needs it, so that help is quick."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path

import typer

from udlib.cli import data
from udlib.cli.course import doctor, lab, prepare, readme, results
from udlib.cli.evaluation import evaluate, thresholds
from udlib.cli.exports import export
from udlib.cli.gpu import gpu, gpu_pack
from udlib.cli.grading import grade
from udlib.cli.models import distill, train
from udlib.cli.packing import pack
from udlib.cli.predictions import predict
from udlib.cli.systems import detection, parallel
from udlib.cli.tables import reproduce
from udlib.cli.trainings import runs

app = typer.Typer(
    help="Calibration and distillation for multi-label images: the course's command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    train,
    distill,
    parallel,
    detection,
    thresholds,
    evaluate,
    predict,
    export,
    reproduce,
    doctor,
    lab,
    grade,
    prepare,
    runs,
    pack,
    results,
    readme,
    gpu,
    gpu_pack,
):
    app.command()(command)
app.add_typer(data.app, name="data")

OURS = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, ImportError)


def main(words: list[str] | None = None) -> None:
    """Run the command with these words, by default the process's own; ends in SystemExit. An error that this package raises
    is one line on stderr and exit code 2."""
    words = sys.argv[1:] if words is None else words
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # of a file's name that is no text in this encoding
    warnings.formatwarning = _warning
    try:
        app(words, prog_name="udlib", obj=words)
    except OURS as error:
        if (message := _message(error)) is None:
            raise
        print(f"udlib: {message}", file=sys.stderr)
        raise SystemExit(2) from None


def _warning(message, category, filename, lineno, line=None) -> str:
    """This package's own warnings in one line; another library's as Python writes them."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"udlib: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _message(error: BaseException) -> str | None:
    """What a user reads: the words of this package's own errors, and the file and reason of the system's. None for another
    library's, which keep their traceback, since that says more."""
    if isinstance(error, ImportError) and error.name is not None:
        return None  # Python's own: a package is missing that should be there
    *_, innermost = traceback.extract_tb(error.__traceback__)
    if Path(innermost.filename).is_relative_to(Path(__file__).parents[1]):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"'{error.filename}': {error.strerror or type(error).__name__}; check the path, and who may read and write there"
    return f"{error} Give the whole path." if innermost.name in ("expanduser", "home") else None
