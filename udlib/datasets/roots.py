"""Where data sets lie on this machine: a folder for each name, kept apart from the recipes.

A recipe holds the *name* of its data set, so its key and its stored result are the same on every machine. The folder
behind a name stands in the environment variable `UDLIB_ROOTS` (`name=folder`, several joined as in PATH), which the
processes that train side by side inherit.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from udlib.datasets.voc import find_root

VARIABLE = "UDLIB_ROOTS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def placed(name: str) -> Path | None:
    """The folder of a data set's name, or None where none was given; of "voc2007" that year's folder in a VOCdevkit.

    Raises ValueError for a malformed `UDLIB_ROOTS`, and as `voc.find_root` for a VOCdevkit without that year.
    """
    folder = _roots().get(name)
    year = re.fullmatch(r"voc(\d{4})", name)
    if folder is None or year is None or (folder / "ImageSets" / "Main").is_dir():
        return folder
    return find_root(folder, year[1])


def place(name: str, folder: str | Path) -> Path:
    """Say where the data set of this name lies, for this process and those that it starts.

    Raises ValueError for a name that is none (letters, digits, `.`, `_`, `-`), for a folder whose path holds the sign that
    joins entries, FileNotFoundError for a folder that does not exist.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no name of a data set: expected letters, digits, '.', '_' and '-'")
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"root '{folder}' of data set '{name}' is no folder: name the folder that holds the data"
        )
    if os.pathsep in str(folder):
        raise ValueError(
            f"root '{folder}' holds '{os.pathsep}', which separates entries of {VARIABLE}: rename or link the folder"
        )
    roots = _roots() | {name: folder}
    os.environ[VARIABLE] = os.pathsep.join(f"{key}={value}" for key, value in roots.items())
    return folder


def _roots() -> dict[str, Path]:
    roots = {}
    for entry in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        name, sign, folder = entry.partition("=")
        if not (sign and folder and NAME.fullmatch(name)):
            raise ValueError(f"{VARIABLE} holds '{entry}': expected name=folder, several joined by '{os.pathsep}'")
        roots[name] = Path(folder).expanduser()
    return roots
