"""Label tables: what a slow parse of annotations found, kept in one file, and read back while nothing has changed.

A table is a .npz below `data_root()/cache` and is never pickled. It carries the fingerprint of all that it was made
from: names, sizes and times of the annotation files, and the version of this format. One that is stale, damaged or of
another format is made again, and replaced whole; two processes may do so at once, since both write the same content.
"""

import hashlib
import io
import os
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Sequence

import numpy as np

from udlib.datasets.base import Box, data_root
from udlib.files import atomic_write, remove_leftovers

FORMAT = 1  # raise it whenever a reader makes other boxes of the same annotations
SMALLEST = 1000  # images; parsing fewer takes less than a second, and test trees leave no files behind
FLAGS = ("truncated", "occluded", "difficult", "crowd")


@dataclass(frozen=True)
class Table:
    """What annotations say of N images: `ids` (N), `files` (N), paths below the folder of images, `objects` (N), the
    annotated boxes, and `classes`, all class names in order."""

    classes: tuple[str, ...]
    ids: list[str]
    files: list[str]
    objects: list[tuple[Box, ...]]


def fingerprint(files: Iterable[Path], version: int = FORMAT) -> str:
    """Stands for the names, sizes and modification times of these files, in this order; nothing is opened.

    A file that is changed without another size or time, on purpose, is not noticed: delete the cache then.
    """
    files = list(files)
    folders = defaultdict(dict)
    for folder in {path.parent for path in files}:
        with os.scandir(folder) as entries:
            folders[folder] = {entry.name: entry for entry in entries}
    digest = hashlib.sha256(f"{version} {len(files)}".encode())
    for path in files:
        entry = folders[path.parent].get(path.name)
        state = (entry.stat().st_size, entry.stat().st_mtime_ns) if entry else None
        digest.update(f"\0{path}\0{state}".encode())
    return digest.hexdigest()


def cached(name: str, size: int, files: Callable[[], Sequence[Path]], parse: Callable[[], Table]) -> Table:
    """The table that `parse` makes, or the stored one of this name while `files()`, which it is made from, are the same.

    `size` is about the number of images (or a JSON's kilobytes); small ones are not kept. A cache that cannot be
    written (a full disk, no permission) is a warning, never an error: the table itself is right.
    """
    if size < SMALLEST:
        return parse()
    made_from = fingerprint(files())
    path = data_root() / "cache" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
    remove_leftovers(path.parent)
    table = load(path, made_from)
    if table is None:
        table = parse()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, packed(table, made_from))
        except OSError as error:
            warnings.warn(
                f"the label table is not kept for the next time ({error}): free some space, or set UDLIB_DATA "
                "to a folder that can be written",
                stacklevel=3,
            )
    return table


def packed(table: Table, made_from: str) -> bytes:
    """The content of a table's file."""
    column = {name: k for k, name in enumerate(table.classes)}
    boxes = [box for found in table.objects for box in found]
    arrays = {
        "made_from": np.array(made_from),
        "classes": np.array(table.classes, dtype=str),
        "ids": np.array(table.ids, dtype=str),
        "files": np.array(table.files, dtype=str),
        "count": np.array([len(found) for found in table.objects], dtype=np.int64),
        "label": np.array([column[box.name] for box in boxes], dtype=np.int32),
        "sides": np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes], dtype=np.float64).reshape(-1, 4),
        "flags": np.array([[getattr(box, flag) for flag in FLAGS] for box in boxes], dtype=bool).reshape(
            -1, len(FLAGS)
        ),
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def load(path: Path, made_from: str) -> Table | None:
    """The stored table, if it is whole and was made from just this; otherwise None, whatever the reason."""
    try:
        with np.load(path, allow_pickle=False) as found:
            if str(found["made_from"]) != made_from:
                return None
            arrays = {name: found[name] for name in found.files}
        classes, label, sides, flags = (arrays[name].tolist() for name in ("classes", "label", "sides", "flags"))
        boxes = [Box(classes[k], *box, *marks) for k, box, marks in zip(label, sides, flags, strict=True)]
        ends = np.cumsum(arrays["count"]).tolist()
        objects = [tuple(boxes[start:end]) for start, end in zip([0, *ends], ends)]
        ids, files = arrays["ids"].tolist(), arrays["files"].tolist()
    except Exception:  # NumPy and zipfile raise a dozen kinds for a damaged file; all have one remedy, to parse again
        return None
    whole = len(ids) == len(files) == len(objects) and (ends or [0])[-1] == len(boxes)
    return Table(tuple(classes), ids, files, objects) if whole else None
