"""Logs of a running training, beside its checkpoint: a CSV file and, on request, TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from udlib.files import atomic_write


class EpochLog:
    """Writes a row of numbers after each epoch: pass it as `on_epoch` of `training.fit`.

    Args:
        path: a CSV file with a column for each number. It is replaced as a whole, so a kill never leaves half a row. A
            training that resumes keeps the rows of the epochs before.
        tensorboard: a folder that gets the same numbers as events, or None.

    Raises:
        RuntimeError: a folder for TensorBoard, which is not installed.
    """

    def __init__(self, path: Path, tensorboard: Path | None = None):
        self.path, self.tensorboard, self.writer = Path(path), tensorboard, None
        self.rows: list[Mapping[str, object]] | None = None
        self.make_writer = summary_writer() if tensorboard is not None else None

    def __call__(self, epoch: int, model, row: Mapping[str, float]) -> None:
        """Log one epoch.

        Args:
            epoch: its number, from 1.
            model: not used.
            row: numbers by name.
        """
        if self.rows is None:
            # The first call: a training that resumes goes on below the rows that it wrote before.
            self.rows = _rows_before(self.path, epoch)
            if self.make_writer is not None:
                self.writer = self.make_writer(str(self.tensorboard), purge_step=epoch)
        self.rows.append(row)
        self.write(self.rows)
        if self.writer is not None:
            for name, value in row.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, epoch)
            self.writer.flush()

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace the CSV file by these rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        write_csv(self.path, [columns, *([row.get(name, "") for name in columns] for row in rows)])


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV file (UTF-8, commas), whole or not at all.

    Args:
        path: the file; its folder must exist.
        rows: the header first.

    Raises:
        OSError: a full disk or no permission, with the name of the file.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    atomic_write(Path(path), buffer.getvalue().encode(errors="backslashreplace"))


def summary_writer():
    """Import TensorBoard's SummaryWriter.

    Returns:
        The class.

    Raises:
        RuntimeError: it is not installed; the message says how to install it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError(
            "TensorBoard is not installed: `pip install tensorboard`, or train without --tensorboard; "
            "the same numbers are in log.csv"
        ) from error
    return SummaryWriter


def _rows_before(path: Path, epoch: int) -> list[Mapping[str, object]]:
    """The rows of the epochs before this one; none where the file is missing or is no log of a training."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
    except (OSError, ValueError, KeyError, TypeError):
        return []
