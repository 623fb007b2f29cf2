"""The learner's own copies of the lessons, without outputs, so that a guess is written before its answer is seen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from udlib.files import atomic_write

FOLDER = "my"  # inside the folder of notebooks; git ignores it
FROM = "copied from"  # in a copy's metadata: what the lesson was when the copy was made
# The target of [words](target), unless it is inside the page, begins at the root, or has a scheme such as "https:".
TARGET = re.compile(r"(?<=\]\()(?!#|/|[a-z]+:)[^)]+(?=\))")


class Copies(NamedTuple):
    """What `copy_lessons` did.

    Attributes:
        made: First copies of a lesson.
        renewed: Copies of a lesson that changed since; each lies beside the older copy, which stays as it is.
    """

    made: list[Path]
    renewed: list[Path]


def links_from_below(markdown: str, beside: Collection[str] = ()) -> str:
    """Return a text with its relative links and pictures as they are called from one folder further down.

    Args:
        markdown: The text.
        beside: Names of files that are in the lower folder too; links to them stay as they are.

    >>> links_from_below("[a](a.md#end) ![b](images/b.svg) [c](https://c.org) [d](#d)", beside=["a.md"])
    '[a](a.md#end) ![b](../images/b.svg) [c](https://c.org) [d](#d)'
    """
    return TARGET.sub(lambda link: link[0] if link[0].partition("#")[0] in beside else f"../{link[0]}", markdown)


def copy_lessons(notebooks: Path) -> Copies:
    """Make the learner's copy of each lesson, where there is none of the lesson as it is now; no file is overwritten.

    Args:
        notebooks: The folder of the lessons, "00_start_here.ipynb" and so on.

    Raises:
        OSError: Where a copy cannot be written.
    """
    lessons = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    names = {path.name for path in lessons}
    folder = notebooks / FOLDER
    folder.mkdir(exist_ok=True)
    copies = Copies([], [])
    for path in lessons:
        lesson = json.loads(path.read_text(encoding="utf-8"))
        version = _version(lesson)
        older = sorted(folder.glob(f"{path.stem}*.ipynb"))
        if version in map(_version_of_copy, older):
            continue
        copy = _free_name(folder, path.stem)
        atomic_write(copy, json.dumps(_cleared(lesson, names, version), ensure_ascii=False, indent=1).encode())
        (copies.renewed if older else copies.made).append(copy)
    return copies


def _version(lesson: dict[str, Any]) -> str:
    """A hash of what the cells say; a lesson that was only executed again has the same one."""
    said = [[cell["cell_type"], "".join(cell["source"])] for cell in lesson["cells"]]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _version_of_copy(path: Path) -> str | None:
    """The version of the lesson that a copy was made from; None for a file that is no copy, or that is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["udlib"][FROM]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _free_name(folder: Path, stem: str) -> Path:
    """07_x.ipynb, or 07_x-2.ipynb where that exists, and so on."""
    path, number = folder / f"{stem}.ipynb", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.ipynb", number + 1
    return path


def _cleared(lesson: dict[str, Any], names: set[str], version: str) -> dict[str, Any]:
    """The lesson without outputs, with links that resolve from the folder of the copies."""
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        elif cell["cell_type"] == "markdown":
            cell["source"] = links_from_below("".join(cell["source"]), names)
    lesson["metadata"]["udlib"] = lesson["metadata"].get("udlib", {}) | {FROM: version}
    return lesson
