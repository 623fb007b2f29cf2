"""Selective search: boxes around parts of an image that look like objects, computed by OpenCV and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from udlib.datasets.base import MultiLabelDataset, data_root
from udlib.datasets.decoding import header
from udlib.datasets.regions import WHOLE, Proposals, in_fractions
from udlib.files import atomic_write, remove_leftovers
from udlib.progress import track

FORMAT = 1  # of the cache
# The shortest side of a box that is kept, as a fraction of the image's, and how many boxes of an image are kept.
SMALLEST, MOST = 1 / 16, 200


def search_proposals(dataset: MultiLabelDataset, folder: Path | None = None, workers: int | None = None) -> Proposals:
    """Run selective search, in OpenCV's fast mode, on every image.

    The boxes of each image are kept in a file of their own, named after the image file's name, length and time of
    change, so the next call resumes a killed one.

    Args:
        dataset: N images.
        folder: Where the files are kept; by default `cache/proposals` of the data folder.
        workers: Threads that search; by default one per core.

    Returns:
        The proposals of all images, all with score 1.

    Raises:
        RuntimeError: OpenCV's contrib modules are not installed; the error says how to install them.
        ValueError: A kept file is damaged.

    Source:
        Uijlings et al. 2013, "Selective search for object recognition".
    """
    folder = folder or data_root() / "cache" / "proposals"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)

    def boxes_of(i: int) -> Tensor:
        path = folder / f"{_cache_name(dataset, i)}.safetensors"
        if path.exists():
            try:
                return safetensors.torch.load(path.read_bytes())["boxes"]
            except (safetensors.SafetensorError, KeyError) as error:
                raise ValueError(
                    f"the proposals of image '{dataset.ids[i]}' in '{path}' are damaged ({error}): delete the "
                    "file, and it is made again"
                ) from error
        boxes = selective_search(np.asarray(dataset.image(i)))
        atomic_write(path, safetensors.torch.save({"boxes": boxes}))
        return boxes

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        boxes = list(track(pool.map(boxes_of, range(len(dataset))), total=len(dataset), description="selective search"))
    return Proposals.of_images(boxes)


def selective_search(image: np.ndarray) -> Tensor:
    """Run selective search on one image.

    Boxes with a side below `SMALLEST` of the image's are left out. Of more than `MOST` boxes, `MOST` are taken at even
    distances from the largest to the smallest, since OpenCV ranks them by random numbers.

    Args:
        image: uint8 (H, W, 3), RGB.

    Returns:
        (R, 4), as fractions, the largest first; R is from 1 to `MOST`. The whole image where nothing else is left.

    Raises:
        RuntimeError: OpenCV's contrib modules are not installed.
    """
    search = _opencv().ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))  # OpenCV has blue first
    search.switchToSelectiveSearchFast()
    x, y, width, height = np.asarray(search.process(), dtype=np.int64).reshape(-1, 4).T
    rows, columns = image.shape[:2]
    kept = (width >= SMALLEST * columns) & (height >= SMALLEST * rows)
    pixels = np.unique(np.stack([x, y, x + width, y + height], 1)[kept], axis=0)
    if not len(pixels):
        return torch.tensor([WHOLE])
    area = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])
    pixels = pixels[np.argsort(-area, kind="stable")]
    even = np.linspace(0, len(pixels) - 1, min(len(pixels), MOST)).round().astype(int)
    return in_fractions(pixels[even], (columns, rows), "searched")


def _opencv():
    """The module cv2, with its contrib modules."""
    try:
        import cv2

        cv2.ximgproc.segmentation.createSelectiveSearchSegmentation  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            "selective search needs OpenCV with its contrib modules: pip install 'udlib[proposals]' "
            "(opencv-contrib-python-headless), or choose the proposals 'grid', which need nothing"
        ) from error
    return cv2


def _cache_name(dataset: MultiLabelDataset, i: int) -> str:
    """The name of the file that keeps the boxes of image i."""
    path = dataset.image_path(i)
    try:
        status = path.stat()
        orientation = header(path)[1] if dataset.upright else 1
    except OSError:
        dataset.image(i)  # raises an error that names the image and what to do
        raise
    key = [FORMAT, "fast", SMALLEST, MOST, dataset.ids[i], status.st_size, status.st_mtime_ns]
    # An earlier version kept boxes of the stored picture under this key, also where it has to be turned.
    key += [f"turned {orientation}"] if orientation != 1 else []
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
