"""Commands about the course itself: the machine, the data sets, the results, and the generated pages."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Annotated

import typer

from udlib.cli.options import Only

LESSON = "notebooks/00_start_here.ipynb"
AsShipped = Annotated[
    bool, typer.Option("--as-shipped", help="Open the lessons as they are committed, with their outputs.")
]


def doctor() -> None:
    """Check what this machine has and what it lacks; exit code 1 when something essential is missing."""
    from udlib.course.doctor import findings

    problems, broken = 0, False
    for finding in findings():
        print(f"{finding.name:<11} {finding.value}", flush=True)
        if finding.problem:
            print(f"{'':<11} {'PROBLEM' if finding.essential else 'note'}: {finding.problem}")
            problems += 1
            broken = broken or finding.essential
    print(
        "\nNot ready: see PROBLEM above."
        if broken
        else "\nReady, with the notes above."
        if problems
        else "\nReady: everything the course needs is here."
    )
    raise typer.Exit(int(broken))


def lab(as_shipped: AsShipped = False) -> None:
    """Open your own copies of the lessons in JupyterLab, at lesson 00; needs a checkout, installed with `pip install -e .`.

    The copies are in notebooks/my, which git ignores. They have no outputs, so you can guess before you see an answer.
    Missing copies are made, and what you wrote is never overwritten: if a lesson has changed, its new copy is put beside
    yours.
    """
    from udlib.course.my_lessons import FOLDER, copy_lessons
    from udlib.course.shipped import missing_lessons
    from udlib.datasets import checkout
    from udlib.figures.text import counted

    folder = checkout()
    if folder is None or not (folder / LESSON).is_file():
        remedy = missing_lessons() or "restore it with `git checkout -- notebooks`"
        raise FileNotFoundError(f"there is no {LESSON}: {remedy}")
    opened = LESSON
    if not as_shipped:
        copies = copy_lessons((folder / LESSON).parent)
        opened = f"notebooks/{FOLDER}/{(folder / LESSON).name}"
        if copies.made:
            print(f"copied {counted(len(copies.made), 'lesson')} to notebooks/{FOLDER}, without outputs")
        for path in copies.renewed:
            print(f"{path.stem.rpartition('-')[0]} has changed: its new copy, {path.name}, is beside yours")
    # Jupyter refuses to run as root without this option; containers often have no other user.
    as_root = ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    # The lessons link to pages outside their folder, which Jupyter would serve no file from.
    root = f"--ServerApp.root_dir={folder}"
    command = [sys.executable, "-m", "jupyterlab", *as_root, root, opened]
    raise typer.Exit(subprocess.run(command, cwd=folder).returncode)


def prepare(size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=16)] = 64) -> None:
    """Make the embedded data sets now, not on first use."""
    from udlib.course.doctor import shown
    from udlib.datasets import EMBEDDED, data_root, open_dataset

    for name in EMBEDDED:
        start = time.perf_counter()
        pictures = open_dataset(name, "train", size)
        print(f"{name}: {len(pictures.classes)} classes, ready in {time.perf_counter() - start:.0f} s")
    print(f"in {shown(data_root())}")


def results(only: Only = None) -> None:
    """Print the table of stored results: each group's metrics on the test split, mean ± std over seeds."""
    from udlib.course import report
    from udlib.course.recipes import select
    from udlib.course.store import absent_results
    from udlib.figures.text import as_text

    recipes_by_group = select(only)
    print(as_text(report.results(recipes_by_group)))
    print(f"\n{report.NOTE}\n{report.provenance(recipes_by_group)}")
    if absent := absent_results():
        print(f"note: {absent}")


def readme(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 when a page is out of date.")
    ] = False,
) -> None:
    """Write the generated pages: parts of README.md and docs/results.md, the page of equations, the answers to the quizzes."""
    from udlib.course.quizzes import ANSWERS, answers_page
    from udlib.course.report import equations, fill, generated
    from udlib.course.shipped import QUIZZES
    from udlib.datasets import checkout
    from udlib.files import atomic_write

    folder = checkout()
    if folder is None or not (folder / "README.md").exists():
        raise FileNotFoundError("there is no README.md: run this in a checkout, installed with `pip install -e .`")
    parts = generated(folder)
    pages = [name for name in ("README.md", "docs/results.md") if (folder / name).exists()]
    texts = {name: fill((folder / name).read_text(encoding="utf-8"), parts) for name in pages}
    texts["notebooks/equations.md"] = equations(folder)
    if (folder / QUIZZES).is_dir():
        texts[ANSWERS] = answers_page(folder / QUIZZES)
    stale = False
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            print(f"{name} is up to date")
        elif check:
            print(f"{name} is out of date: `make readme` writes it", file=sys.stderr)
            stale = True
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, text.encode())
            print(f"{name} is written")
    raise typer.Exit(int(stale))
