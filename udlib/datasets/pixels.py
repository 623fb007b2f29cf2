"""Decode once: the images of a data set as one uint8 file at training size, mapped into memory for every epoch after."""

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
TOGETHER = 128  # images that are decoded between two writes
IN_MEMORY = 2 * 2**30  # bytes of pixels that are decoded anew by each process rather than kept in a file
REMEDY = "free some room, choose a smaller size, or put the data on another disk with UDLIB_DATA"


def images_of(dataset: MultiLabelDataset, size: int) -> Tensor:
    """Every image, stretched to a square: uint8 (N, 3, size, size); in memory up to `IN_MEMORY` bytes, else `decoded`."""
    if len(dataset) * 3 * size * size <= IN_MEMORY:
        return to_memory(dataset, size, workers=os.cpu_count() or 1)
    return decoded(dataset, size)


def decoded(dataset: MultiLabelDataset, size: int, folder: Path | None = None, workers: int | None = None) -> Tensor:
    """Every image, stretched to a square: uint8 (N, 3, size, size) as `base.to_memory` gives it, in a file that is
    mapped into memory. Writing into the tensor leaves the file alone.

    The file is made at the first call, below `folder` (default: `cache/pixels` of the data folder), by `workers` threads
    (default: one per core), and named after the ids and each image file's length and time of change, so that changed
    images make a new one. A killed call is resumed by the next; a second process waits for the first.

    Raises OSError where the disk lacks room for it, ValueError or FileNotFoundError for an image that cannot be read.
    """
    folder = folder or data_root() / "cache" / "pixels"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{fingerprint(dataset, size)}.uint8"
    total = len(dataset) * 3 * size * size
    if not _complete(path, total):
        with _alone(path.with_suffix(".lock")):
            if not _complete(path, total):  # another process may just have made it
                _build(path, dataset, size, workers or os.cpu_count() or 1)
    return (
        torch.from_file(str(path), size=total, dtype=torch.uint8).view(len(dataset), size, size, 3).permute(0, 3, 1, 2)
    )


def fingerprint(dataset: MultiLabelDataset, size: int) -> str:
    """Names the pixels of a data set at a size: other ids, another order, or a changed file give another name."""
    digest = hashlib.sha256(json.dumps([FORMAT, size, len(dataset), dataset.upright]).encode())
    for i, name in enumerate(dataset.ids):
        try:
            found = dataset.image_path(i).stat()
        except FileNotFoundError:
            dataset.image(i)  # says which image is missing, and what to do
            raise
        digest.update(f"{name}\n{found.st_size}\n{found.st_mtime_ns}\n".encode())
    return f"{size}px-{digest.hexdigest()[:16]}"


def _complete(path: Path, total: int) -> bool:
    return path.exists() and path.stat().st_size == total


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock among processes; where another one has it, say so and wait."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        print("another process is decoding these images: waiting for it", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _build(path: Path, dataset: MultiLabelDataset, size: int, workers: int) -> None:
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
