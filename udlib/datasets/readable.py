"""Which image files are missing or cannot be decoded: all are tried once, and for a large data set the answer is kept."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from udlib.datasets.base import MultiLabelDataset, data_root, load_rgb
from udlib.datasets.tables import SMALLEST, fingerprint
from udlib.files import atomic_write
from udlib.progress import track


def unusable(paths: Sequence[Path], decode: bool = True) -> dict[int, str]:
    """Find image files that are missing and, with `decode`, those that cannot be decoded.

    Args:
        paths: Image files.
        decode: Whether to decode the files (`unreadable`).

    Returns:
        The reason for each, by its row in `paths`; rows rise.
    """
    reasons = {i: f"image '{paths[i]}' is missing" for i in absent(paths)}
    if decode:
        rows = [i for i in range(len(paths)) if i not in reasons]
        reasons |= {rows[k]: reason for k, reason in unreadable([paths[i] for i in rows]).items()}
    return dict(sorted(reasons.items()))


def absent(paths: Sequence[Path]) -> list[int]:
    """Find the files that do not exist. Each folder is listed once, which is faster than a test of each file.

    Args:
        paths: Any files.

    Returns:
        Rows of `paths`, rising.
    """
    rows = defaultdict(list)
    for i, path in enumerate(paths):
        rows[path.parent].append(i)
    missing = []
    for folder, members in rows.items():
        try:
            present = set(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            present = set()
        missing += [i for i in members if paths[i].name not in present]
    return sorted(missing)


def unreadable(paths: Sequence[Path]) -> dict[int, str]:
    """Decode image files to find those that cannot be.

    For `tables.SMALLEST` files or more, the answer is kept below `data_root()/cache`, and holds as long as the files have
    the same lengths and times of change.

    Args:
        paths: Image files, in folders that exist.

    Returns:
        The reason for each file that is missing or cannot be decoded, by its row in `paths`; rows rise.
    """
    if len(paths) < SMALLEST:
        return _decode_all(paths)
    path = data_root() / "cache" / f"unreadable-{hashlib.sha256(fingerprint(paths).encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, AttributeError):  # there is none yet, or it is damaged
        return {int(row): str(reason) for row, reason in json.loads(path.read_bytes()).items()}
    reasons = _decode_all(paths)
    with suppress(OSError):  # a full disk: the next time all are decoded again
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(reasons).encode())
    return reasons


def require_readable(dataset: MultiLabelDataset) -> None:
    """Refuse a split of which an image cannot be decoded.

    Args:
        dataset: The split.

    Raises:
        ValueError: The error that this image raises wherever it is read, which says what to do.
    """
    for row in unreadable([dataset.image_path(i) for i in range(len(dataset))]):
        dataset.image(row)


def _decode_all(paths: Sequence[Path]) -> dict[int, str]:
    """The reasons of all files that cannot be decoded."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        results = track(pool.map(_problem, paths), total=len(paths), description="checking images")
        return {row: reason for row, reason in enumerate(results) if reason is not None}
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C do not decode the rest


def _problem(path: Path) -> str | None:
    """Why a file cannot be decoded."""
    try:
        load_rgb(path)
    except (OSError, ValueError) as error:
        return str(error)
    return None
