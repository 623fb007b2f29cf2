"""Label tables: the result of a slow parse of annotations, kept in one file and reused until the annotations change.

A table is a .npz below `data_root()/cache` and is never pickled. It holds the fingerprint of its sources: names, sizes
and times of the annotation files, and the version of this format. A table that is stale, damaged or of another format
is made again and replaced as a whole. Two processes may do so at once, since both write the same content.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from udlib.datasets.base import Box, data_root
from udlib.files import atomic_write, remove_leftovers

FORMAT = 1  # raise it whenever a reader makes different boxes from the same annotations
SMALLEST = 1000  # images; fewer are parsed in less than a second, and test folders leave no files behind
FLAGS = ("truncated", "occluded", "difficult", "crowd")


@dataclass(frozen=True)
class Table:
    """What annotations say of N images."""

    classes: tuple[str, ...]  # all names, in order
    ids: list[str]
    files: list[str]  # paths below the folder of images
    objects: list[tuple[Box, ...]]  # the annotated boxes of each image
    # Width and height of each image, where the annotations are asked for them.
    sizes: list[tuple[float, float]] = field(default_factory=list)


def fingerprint(files: Iterable[Path], version: int = FORMAT) -> str:
    """Summarise the names, sizes and modification times of files, without opening them.

    A file that someone changes so that size and time stay the same is not noticed: delete the cache then.

    Args:
        files: The files, in order.
        version: Version of the format.

    Returns:
        A hexadecimal digest.
    """
    files = list(files)
    folders: dict[Path, dict[str, os.DirEntry]] = {}
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
    """Return the stored table of this name, or parse the annotations where they have changed.

    A cache that cannot be written (a full disk, no permission) causes a warning and no error, since the table is
    right.

    Args:
        name: Identifies the data set and the split.
        size: Number of images, or kilobytes of a JSON; tables below `SMALLEST` are not stored.
        files: Lists the files that the table is made from.
        parse: Makes the table from them.

    Returns:
        The table.
    """
    if size < SMALLEST:
        return parse()
    sources = fingerprint(files())
    path = data_root() / "cache" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
    remove_leftovers(path.parent)
    table = load(path, sources)
    if table is None:
        table = parse()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, packed(table, sources))
        except OSError as error:
            warnings.warn(
                f"the label table is not kept for the next time ({error}): free some space, or set UDLIB_DATA "
                "to a folder that can be written",
                stacklevel=3,
            )
    return table


def packed(table: Table, sources: str) -> bytes:
    """Return the content of a table's file.

    Args:
        table: The table.
        sources: The fingerprint of what it was made from.

    Returns:
        The bytes of a .npz.
    """
    column = {name: k for k, name in enumerate(table.classes)}
    boxes = [box for own in table.objects for box in own]
    arrays = {
        "made_from": np.array(sources),
        "classes": np.array(table.classes, dtype=str),
        "ids": np.array(table.ids, dtype=str),
        "files": np.array(table.files, dtype=str),
        "sizes": np.array(table.sizes, dtype=np.float64).reshape(-1, 2),
        "count": np.array([len(own) for own in table.objects], dtype=np.int64),
        "label": np.array([column[box.name] for box in boxes], dtype=np.int32),
        "sides": np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes], dtype=np.float64).reshape(-1, 4),
        "flags": np.array([[getattr(box, flag) for flag in FLAGS] for box in boxes], dtype=bool).reshape(
            -1, len(FLAGS)
        ),
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def load(path: Path, sources: str) -> Table | None:
    """Load a stored table.

    Args:
        path: Its file.
        sources: The fingerprint of what it must have been made from.

    Returns:
        The table; None where there is none, or it is damaged, or was made from anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["made_from"]) != sources:
                return None
            arrays = {name: stored[name] for name in stored.files}
        classes, label, sides, flags = (arrays[name].tolist() for name in ("classes", "label", "sides", "flags"))
        boxes = [Box(classes[k], *box, *marks) for k, box, marks in zip(label, sides, flags, strict=True)]
        ends = np.cumsum(arrays["count"]).tolist()
        objects = [tuple(boxes[start:end]) for start, end in zip([0, *ends], ends)]
        ids, files = arrays["ids"].tolist(), arrays["files"].tolist()
        sizes = [(width, height) for width, height in arrays["sizes"].tolist()]
    except Exception:  # NumPy and zipfile raise a dozen kinds for a damaged file; all have one remedy, to parse again
        return None
    whole = len(ids) == len(files) == len(objects) and len(sizes) in (0, len(ids)) and (ends or [0])[-1] == len(boxes)
    return Table(tuple(classes), ids, files, objects, sizes) if whole else None
