"""Atomic writes: a file holds its old content or all of the new; and how much a folder holds."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

# Seconds without a change after which no writer can still be at work on a temporary file.
ABANDONED = 3600.0


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds either its old content or all of the new, whatever happens in between.

    Args:
        path: the file; its folder must exist.
        content: all of the new content.

    Raises:
        OSError: a full disk or no permission, naming the file; the old content is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write '{path}', so it is unchanged: {error.strerror}") from error
    finally:
        with suppress(OSError):  # where the folder cannot be reached, the temporary file was never made
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name itself must reach the disk; Windows cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(folder: Path, age: float | None = None) -> None:
    """Remove the temporary files that killed writers left in a folder; a file that cannot be removed stays.

    Args:
        folder: where to look, not in its subfolders.
        age: seconds without a change after which a file is removed. The default, `ABANDONED`, spares the work of other
            processes; 0 is for a folder that nobody else writes to.
    """
    latest = time.time() - (ABANDONED if age is None else age)
    for temporary in Path(folder).glob(".*.tmp"):
        with suppress(OSError):
            if temporary.stat().st_mtime <= latest:
                temporary.unlink()


def megabytes(folder: Path) -> float:
    """Add up the sizes of all files below a folder, in MB (10^6 bytes)."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
