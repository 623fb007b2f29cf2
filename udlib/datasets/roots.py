"""Where data sets are on this machine: a folder for each name, kept apart from the recipes.

A recipe holds the *name* of its data set, so its key and its stored result are the same on every machine. The
environment variable `UDLIB_ROOTS` holds the folder of each name (`name=folder`, several joined as in PATH). Processes
that train side by side inherit it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from udlib.datasets.voc_lists import find_root

VARIABLE = "UDLIB_ROOTS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def placed(name: str) -> Path | None:
    """Look up the folder of a data set.

    Args:
        name: The data set's name.

    Returns:
        Its folder, and for a name such as "voc2007" that year's folder in a VOCdevkit; None where none is stored.

    Raises:
        ValueError: `UDLIB_ROOTS` is malformed, or as in `voc_lists.find_root`.
        FileNotFoundError: As in `voc_lists.find_root`.
    """
    folder = _roots().get(name)
    year = re.fullmatch(r"voc(\d{4})", name)
    if folder is None or year is None or (folder / "ImageSets" / "Main").is_dir():
        return folder
    return find_root(folder, year[1])


def place(name: str, folder: str | Path) -> Path:
    """Store the folder of a data set, for this process and those that it starts.

    Args:
        name: The data set's name: letters, digits, `.`, `_` and `-`.
        folder: The folder that holds it.

    Returns:
        The folder, as an absolute path.

    Raises:
        ValueError: The name is malformed, or the folder's path holds the character that joins entries.
        FileNotFoundError: The folder does not exist.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not the name of a data set: expected letters, digits, '.', '_' and '-'")
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"root '{folder}' of data set '{name}' is not a folder: name the folder that holds the data"
        )
    if os.pathsep in str(folder):
        raise ValueError(
            f"root '{folder}' holds '{os.pathsep}', which separates entries of {VARIABLE}: rename or link the folder"
        )
    roots = _roots() | {name: folder}
    os.environ[VARIABLE] = os.pathsep.join(f"{key}={value}" for key, value in roots.items())
    return folder


def _roots() -> dict[str, Path]:
    """The stored folders by name."""
    roots = {}
    for entry in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        name, sign, folder = entry.partition("=")
        if not (sign and folder and NAME.fullmatch(name)):
            raise ValueError(f"{VARIABLE} holds '{entry}': expected name=folder, several joined by '{os.pathsep}'")
        roots[name] = Path(folder).expanduser()
    return roots
