"""The pages of the book that have no source of their own: the API, the command, the quizzes, and the list of slides."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import click
import typer.cli
import typer.main

from udlib.course import quizzes

# The parts of the package, in the order of CONTRIBUTING.md.
PARTS = {
    "losses": "losses",
    "metrics": "metrics",
    "calibration": "calibration errors",
    "posthoc": "calibration of a trained network",
    "attention": "maps of attention and of uncertainty",
    "statistics": "intervals and tests",
    "backbones": "networks from images to feature maps",
    "heads": "networks from feature maps to predictions",
    "datasets": "data sets",
    "training": "the training loop",
    "methods": "the methods",
    "workshop": "the place that trains a method",
    "models": "a trained model in a folder",
    "figures": "plots, maps and boxes",
    "course": "what only the lessons need",
}


def write(folder: Path, root: Path, slides: Path | None) -> None:
    """Write all of these pages.

    Args:
        folder: The folder for Sphinx to read.
        root: The project.
        slides: The folder of the built slides, which need not exist.
    """
    write_api(folder / "api")
    write_quizzes(folder / "quizzes")
    write_slides(folder / "slides", root / "docs" / "slides", slides)


def write_api(folder: Path) -> None:
    """Write a page for each part of the package, one for the command, and the page that lists them."""
    folder.mkdir(parents=True)
    for part in PARTS:
        (folder / f"{part}.md").write_text(api_page(part), encoding="utf-8")
    (folder / "command.md").write_text(command_page(), encoding="utf-8")
    rows = [f"* [`udlib.{part}`]({part}.md): {holds}" for part, holds in PARTS.items()]
    text = (
        "# The package\n\nThese pages are made from the docstrings. `udlib.load` loads a trained model:\n\n"
        "```{eval-rst}\n.. currentmodule:: udlib\n.. autofunction:: udlib.load\n```\n\n"
        "[The command `udlib`](command.md) has a page of its own. These are the parts:\n\n" + "\n".join(rows)
    )
    (folder / "index.md").write_text(f"{text}\n\n{_toctree(['command', *PARTS])}", encoding="utf-8")


def api_page(part: str) -> str:
    """Return the page of one part: first the names that the part itself offers, then those of each of its modules."""
    package = importlib.import_module(f"udlib.{part}")
    offered = list(getattr(package, "__all__", ()))
    sections = [f"# `udlib.{part}`", _automodule(package, offered or documented(package))]
    for name in _modules_below(package):
        module = importlib.import_module(name)
        own = [each for each in documented(module) if each not in offered]
        if own:
            sections += [f"## `{name}`", _automodule(module, own)]
    return "\n\n".join(sections) + "\n"


def documented(module: ModuleType) -> list[str]:
    """Return the public functions and classes that a module defines itself and that have a docstring."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and inspect.getdoc(value)
    ]


def command_page() -> str:
    """Return the page of the command, from the texts of its help."""
    from udlib.cli import app

    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(obj=command, ctx=click.Context(command), name="udlib")
    return text.replace("# `udlib`", "# The command `udlib`", 1)


def write_quizzes(folder: Path) -> None:
    """Write a page for each quiz, and the page that lists them."""
    folder.mkdir(parents=True)
    pages = {f"quiz_{name.replace(' ', '_')}": quizzes.quiz(name) for name in quizzes.names()}
    for page, quiz in pages.items():
        text = f"# {quiz.title}\n\n`````{{raw}} html\n{quizzes.as_html(quiz.name)}\n`````\n"
        (folder / f"{page}.md").write_text(text, encoding="utf-8")
    rows = "\n".join(f"* [{quiz.title}]({page}.md)" for page, quiz in pages.items())
    intro = "Each lesson has a quiz, and so has each block of lessons."
    (folder / "index.md").write_text(f"# Quizzes\n\n{intro}\n\n{rows}\n\n{_toctree(list(pages))}", encoding="utf-8")


def write_slides(folder: Path, sources: Path, slides: Path | None) -> None:
    """Write the page that lists the decks, and copy the decks to where the page looks for them.

    Args:
        folder: Where the page goes.
        sources: The folder of the decks in Markdown, which begin with their titles.
        slides: The folder of the built slides, which need not exist.
    """
    folder.mkdir(parents=True)
    decks = sorted(slides.glob("[0-9][0-9]_*.html")) if slides and slides.is_dir() else []
    titles = [(sources / f"{path.stem}.md").read_text(encoding="utf-8").splitlines()[0] for path in decks]
    rows = [
        f'<li><a href="decks/{path.name}">{title.removeprefix("# ")}</a></li>' for path, title in zip(decks, titles)
    ]
    if decks:
        shutil.copytree(slides, folder.parent / "_decks" / "slides" / "decks", ignore=shutil.ignore_patterns("*.pdf"))
        body = (
            "Each lesson has a deck. Press <kbd>S</kbd> in a deck for the speaker's notes.\n\n<ul>\n"
            + "\n".join(rows)
            + "\n</ul>"
        )
    else:
        body = "This book was built without slides. `make slides` builds them; then `make book` lists them here."
    (folder / "index.md").write_text(f"# Slides\n\n{body}\n", encoding="utf-8")


def _modules_below(package: ModuleType) -> list[str]:
    """Return the full names of the modules of a package, without the checks of the exercises; a module alone has none."""
    if not hasattr(package, "__path__"):
        return []
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return sorted(name for name in names if not name.startswith("udlib.course.exercises."))


def _automodule(module: ModuleType, names: list[str]) -> str:
    """Return the directive that documents these names of a module."""
    members = f"   :members: {', '.join(names)}" if names else ""
    return "\n".join(["```{eval-rst}", f".. automodule:: {module.__name__}", members, "   :imported-members:", "```"])


def _toctree(names: Iterable[str]) -> str:
    """Return a table of contents that only the sidebar shows."""
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```", ""])
