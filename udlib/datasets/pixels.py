"""Images decoded once: one uint8 file at training size, which is mapped into memory in every later epoch."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from udlib.datasets.base import MultiLabelDataset, data_root, to_memory, to_square
from udlib.progress import track

FORMAT = 2  # of the file; part of its name
TOGETHER = 128  # images decoded between two writes
IN_MEMORY = 2 * 2**30  # bytes; fewer pixels than this are decoded in each process and not kept in a file
REMEDY = "free some room, choose a smaller size, or put the data on another disk with UDLIB_DATA"


def images_of(dataset: MultiLabelDataset, size: int) -> Tensor:
    """Decode every image, stretched to a square: in memory up to `IN_MEMORY` bytes, else by `decoded`.

    Args:
        dataset: N images.
        size: Side of the squares in pixels.

    Returns:
        uint8 (N, 3, size, size).
    """
    if len(dataset) * 3 * size * size <= IN_MEMORY:
        return to_memory(dataset, size, workers=os.cpu_count() or 1)
    return decoded(dataset, size)


def decoded(dataset: MultiLabelDataset, size: int, folder: Path | None = None, workers: int | None = None) -> Tensor:
    """Decode every image, stretched to a square, into a file that is mapped into memory.

    The first call writes the file. Its name depends on the ids and on each image file's length and time of change, so
    changed images get a new file. The next call resumes a killed one, and a second process waits for the first.

    Args:
        dataset: N images.
        size: Side of the squares in pixels.
        folder: Where the file is kept; by default `cache/pixels` of the data folder.
        workers: Threads that decode; by default one per core.

    Returns:
        uint8 (N, 3, size, size), as `base.to_memory` returns it. Writing into the tensor does not change the file.

    Raises:
        OSError: The disk is too full.
        ValueError: An image cannot be decoded.
        FileNotFoundError: An image is missing.
    """
    folder = folder or data_root() / "cache" / "pixels"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{fingerprint(dataset, size)}.uint8"
    total = len(dataset) * 3 * size * size
    if not _complete(path, total):
        with _locked(path.with_suffix(".lock")):
            if not _complete(path, total):  # another process may just have written it
                _build(path, dataset, size, workers or os.cpu_count() or 1)
    return (
        torch.from_file(str(path), size=total, dtype=torch.uint8).view(len(dataset), size, size, 3).permute(0, 3, 1, 2)
    )


def fingerprint(dataset: MultiLabelDataset, size: int) -> str:
    """Name the pixels of a data set at a size.

    Args:
        dataset: N images.
        size: Side of the squares in pixels.

    Returns:
        A file name without ending. Other ids, another order, or a changed file give another name.

    Raises:
        FileNotFoundError: An image is missing.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, size, len(dataset), dataset.upright]).encode())
    for i, name in enumerate(dataset.ids):
        try:
            status = dataset.image_path(i).stat()
        except FileNotFoundError:
            dataset.image(i)  # raises an error that names the image and what to do
            raise
        digest.update(f"{name}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    return f"{size}px-{digest.hexdigest()[:16]}"


def _complete(path: Path, total: int) -> bool:
    """Whether the file has all its bytes."""
    return path.exists() and path.stat().st_size == total


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes; while another process has it, print that and wait."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another process is decoding these images; this one waits for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(path: Path, dataset: MultiLabelDataset, size: int, workers: int) -> None:
    """Decode the images that `….partial` does not hold yet, and give it its name when it is whole."""
    partial, each = path.with_suffix(".partial"), 3 * size * size
    done = partial.stat().st_size // each if partial.exists() else 0
    missing = (len(dataset) - done) * each
    if missing > (free := shutil.disk_usage(path.parent).free):
        raise OSError(
            f"{len(dataset)} images at {size} px need {missing / 1e9:.1f} GB more in '{path.parent}', "
            f"{free / 1e9:.1f} GB are free: {REMEDY}"
        )
    with (
        ThreadPoolExecutor(workers) as pool,
        partial.open("ab") as file,
        track(total=len(dataset), description=f"decoding at {size} px") as bar,
    ):
        file.truncate(done * each)  # a kill may have cut the last image
        bar.update(done)
        try:
            for first in range(done, len(dataset), TOGETHER):
                rows = range(first, min(first + TOGETHER, len(dataset)))
                images = pool.map(lambda i: to_square(dataset.image(i), size).permute(1, 2, 0), rows)
                file.write(torch.stack(list(images)).numpy())
                bar.update(len(rows))
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            partial.unlink()
            raise OSError(
                f"the disk is full: decoding {len(dataset)} images at {size} px into '{path.parent}' takes "
                f"{len(dataset) * each / 1e9:.1f} GB, and what was written is removed: {REMEDY}"
            ) from error
    os.replace(partial, path)
