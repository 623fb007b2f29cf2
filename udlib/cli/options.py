"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Only = Annotated[str | None, typer.Option(metavar="PATTERN", help="Groups by name, e.g. digits* (or one run's key).")]


def require_writable(*files: Path | None) -> None:
    """Refuse, before any work is done, a file to be written that has no folder, or that is one itself."""
    for file in filter(None, files):
        if not file.parent.is_dir():
            raise FileNotFoundError(f"'{file}' cannot be written: there is no folder '{file.parent}'")
        if file.is_dir():
            raise IsADirectoryError(f"'{file}' cannot be written: it is a folder")
