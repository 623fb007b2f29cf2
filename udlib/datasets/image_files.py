"""Image files under the endings that tools give them: .jpg, .JPG, .jpeg, .png, .webp and others."""

import os
from collections.abc import Sequence
from pathlib import Path

from udlib.datasets.readable import absent

ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".avif",
    ".heic",
    ".heif",
    ".hif",
)


def bare(name: str) -> str:
    """Take the ending of an image file off a name.

    Args:
        name: A file name, with or without an ending.

    Returns:
        The name without its ending; whole where that is no image's.

    Example:
        >>> bare("a.JPG"), bare("2024.05.01"), bare("b")
        ('a', '2024.05.01', 'b')
    """
    return os.path.splitext(name)[0] if name.lower().endswith(ENDINGS) else name


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Find image files whose ending is another than the list's, or which the list names without one.

    Only files that are missing are looked for, so a file of just the listed name always counts. Each folder is listed once.

    Args:
        paths: The files as they are listed.

    Returns:
        The file of the same name with an image's ending, where there is one and no second; else the path as it is listed.
    """
    files = list(paths)
    names: dict[Path, dict[str, list[str]]] = {}
    for i in absent(files):
        folder = files[i].parent
        if folder not in names:
            names[folder] = _by_bare_name(folder)
        alike = names[folder].get(bare(files[i].name), [])
        if len(alike) == 1:
            files[i] = folder / alike[0]
    return files


def rivals(path: Path) -> str:
    """Say why a missing file was not found under another ending.

    Args:
        path: The file as it is listed.

    Returns:
        "; 'a.jpeg' and 'a.png' are there: keep one of them"; empty unless there are several.
    """
    alike = sorted(_by_bare_name(path.parent).get(bare(path.name), []))
    return f"; {' and '.join(map(repr, alike))} are there: keep one of them" if len(alike) > 1 else ""


def _by_bare_name(folder: Path) -> dict[str, list[str]]:
    """The images of a folder by their names without ending."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder) if folder.is_dir() else []:
        if name.lower().endswith(ENDINGS):
            names.setdefault(bare(name), []).append(name)
    return names
