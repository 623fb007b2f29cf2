"""An epoch's images decoded once against decoded every time. Run with `python -m tests.benchmarks pixels`.

Peer: each JPEG is decoded, resized, cropped, mirrored, erased and normalised on its own, by PIL and torchvision's transforms,
in a DataLoader, as most training code does. Ours: the same steps on batches of the file that `datasets.pixels` made once.
On one core both run in this process. On two, the peer has two processes of a DataLoader, kept from epoch to epoch, and ours
two threads.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.benchmarks import Figure
from udlib.datasets.base import MultiLabelDataset
from udlib.datasets.pixels import decoded
from udlib.datasets.transforms import BatchAugment, train_transform
from udlib.training.batches import ArrayData, ImagesOnly, load

WANTED, ROUNDS, COUNT, BATCH = 3.0, 5, 96, 32
PHOTO = (500, 375)  # pixels, VOC's usual size
SIZES = ((512, 448), (73, 64))  # stored and trained
CORES = {1: "one core", 2: "two cores"}


def photographs(folder: Path) -> MultiLabelDataset:
    """JPEG files as large, and about as costly to decode, as VOC's photographs."""
    random = np.random.default_rng(0)
    paths = [folder / f"{k}.jpg" for k in range(COUNT)]
    for path in paths:
        coarse = Image.fromarray(random.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        Image.fromarray(np.asarray(coarse.resize(PHOTO, Image.Resampling.BICUBIC))).save(path, quality=90)
    return MultiLabelDataset(["a"], [path.stem for path in paths], paths, targets=torch.ones(COUNT, 1))


def measure() -> Iterator[Figure]:
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        data = photographs(Path(folder))
        for (stored, size), cores in product(SIZES, CORES):
            if cores > os.cpu_count():
                continue
            torch.set_num_threads(cores)
            peer, ours = race(data, stored, size, cores, Path(folder))
            torch.set_num_threads(threads)
            yield Figure(
                f"images for a training step at {size} px, {CORES[cores]}",
                f"{ours:.0f} img/s against {peer:.0f} by PIL, {ours / peer:.1f}×",
                f"≥ {WANTED:g}×",
                ours >= WANTED * peer,
            )


def race(data: MultiLabelDataset, stored: int, size: int, cores: int, folder: Path) -> tuple[float, float]:
    """Images a second of the peer and of ours: medians of epochs in which they take turns."""
    pixels = ArrayData(decoded(data, stored, folder), data.targets)
    data.transform = train_transform(size, stored)
    augment, generator = BatchAugment(flip=True, erase=0.5, crop=size), torch.Generator().manual_seed(0)
    rows = list(torch.arange(COUNT).split(BATCH))
    loader = DataLoader(
        ImagesOnly(data), batch_sampler=rows, num_workers=cores if cores > 1 else 0, persistent_workers=cores > 1
    )
    epochs = {
        "peer": lambda: sum(len(images) for images in loader),
        "ours": lambda: sum(
            len(batch.images)
            for batch in load(pixels, rows, lambda images: augment(images, generator), torch.device("cpu"), 0)
        ),
    }
    seconds = {name: [] for name in epochs}
    for epoch in range(1 + ROUNDS):
        for name, walk in epochs.items():
            start = time.perf_counter()
            assert walk() == COUNT
            if epoch:
                seconds[name].append(time.perf_counter() - start)
    peer, ours = (COUNT / statistics.median(seconds[name]) for name in ("peer", "ours"))
    return peer, ours
