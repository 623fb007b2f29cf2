"""Names of files as people type them: patterns such as `holiday/*.jpg`, and `~` for the home folder.

A Unix shell replaces both before a command sees them. The shells of Windows do not, nor does any shell inside quotes.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path


def expanded(paths: Sequence[Path]) -> list[Path]:
    """The files and folders that are meant, in the order given; those of one pattern in the order of their names.

    A path that exists is taken as it is, whatever characters it holds, and so is one without `*`, `?` or `[`.

    Raises:
        FileNotFoundError: a pattern that nothing matches.
    """
    files: list[Path] = []
    for path in paths:
        path = _at_home(path)
        if not glob.has_magic(str(path)) or path.exists() or path.is_symlink():
            files.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise FileNotFoundError(f"nothing matches '{path}': name image files, or a folder that holds some")
        files += map(Path, matches)
    return files


def _at_home(path: Path) -> Path:
    """The path with `~` replaced, unless a file has this very name, or nobody is called so."""
    if not str(path).startswith("~") or path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        return path
