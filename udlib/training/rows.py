"""A CSV file that grows row by row, and can be read whatever stops its writer."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class RowWriter:
    """Writes a CSV file (UTF-8, commas) as its rows come; use it in a `with` block.

    Rows are handed to the system at once, so a killed process leaves them. A row that cannot be written whole is taken back.
    An older file of this name stays as it is until the first row comes, or until the block ends well without one.

    Args:
        path: the file; its folder must exist.
        head: names of the columns.

    Attributes:
        rows: how many rows the file holds below its head.

    Raises:
        OSError: a full disk or no permission, with the name of the file and how many rows it holds.
    """

    def __init__(self, path: str | Path, head: Sequence[object]):
        self.path, self.head, self.rows, self.started = Path(path), head, 0, False
        self.new = not self.path.exists()
        try:
            self.file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise OSError(error.errno, f"cannot write '{self.path}': {error.strerror}") from error

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None and not self.started:
                self.write([])
        finally:
            self.file.close()
            if self.new and not self.started:
                with suppress(OSError):
                    self.path.unlink()

    def write(self, rows: Sequence[Sequence[object]]) -> None:
        """Add rows: all of them or, where the disk is full, as many as fit.

        Raises:
            OSError: see the class.
        """
        if not self.started:
            if self.file.tell():
                self.file.truncate(0)
            self._add(self.head)
            self.started = True
        for row in rows:
            self._add(row)
            self.rows += 1

    def _add(self, row: Sequence[object]) -> None:
        """Write one row, or nothing of it."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(row)
        content = buffer.getvalue().encode(errors="backslashreplace")
        end = self.file.tell()
        try:
            while content:
                content = content[self.file.write(content) :]
        except BaseException as stop:
            with suppress(OSError):  # a device has no length
                self.file.truncate(end)
            if not isinstance(stop, OSError):
                raise
            whole = f"which holds the first {self.rows} rows" if self.started else "which is empty"
            raise OSError(
                stop.errno,
                f"cannot write all of '{self.path}', {whole}: {stop.strerror}; make room, or name another file",
            ) from stop
