"""Images decoded once against images decoded in every epoch. Run with `python -m tests.benchmarks pixels`.

Peer: PIL and torchvision's transforms decode, resize, crop, mirror, erase and normalise each JPEG on its own, in a
DataLoader, as most training code does. Ours: the same steps on batches of the file that `datasets.pixels` wrote once.
On one core both run in this process. On two cores, the peer has two processes of a DataLoader, kept from epoch to
epoch, and ours has two threads. In the rows with a busy process, another program computes all the time beside them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.benchmarks import Figure
from udlib.datasets.base import MultiLabelDataset
from udlib.datasets.pixels import decoded
from udlib.datasets.transforms import BatchAugment, train_transform
from udlib.training.batches import ArrayData, ImagesOnly, load

LEAST_SPEEDUP, COUNT, BATCH = 3.0, 96, 32
PHOTO = (500, 375)  # pixels, VOC's usual size
SIZES = ((512, 448), (73, 64))  # stored and trained


class Setting(NamedTuple):
    """What both rivals run on."""

    name: str
    cores: int
    busy: int  # other processes that compute meanwhile
    rounds: int  # epochs of each rival; more where the scheduler's choices make times vary


SETTINGS = (
    Setting("one core", cores=1, busy=0, rounds=5),
    Setting("two cores", cores=2, busy=0, rounds=5),
    Setting("two cores, with a busy process beside it", cores=2, busy=1, rounds=11),
)


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
        for (stored, size), setting in product(SIZES, SETTINGS):
            if setting.cores > os.cpu_count():
                continue
            torch.set_num_threads(setting.cores)
            peer, ours = race(data, stored, size, setting, Path(folder))
            torch.set_num_threads(threads)
            yield Figure(
                f"images for a training step at {size} px, {setting.name}",
                f"{ours:.0f} img/s against {peer:.0f} by PIL, {ours / peer:.1f}×",
                f"≥ {LEAST_SPEEDUP:g}×",
                ours >= LEAST_SPEEDUP * peer,
            )


def race(data: MultiLabelDataset, stored: int, size: int, setting: Setting, folder: Path) -> tuple[float, float]:
    """Images a second of the peer and of ours: medians of epochs in which they take turns."""
    pixels = ArrayData(decoded(data, stored, folder), data.targets)
    data.transform = train_transform(size, stored)
    augment, generator = BatchAugment(flip=True, erase=0.5, crop=size), torch.Generator().manual_seed(0)
    rows = list(torch.arange(COUNT).split(BATCH))
    workers = setting.cores if setting.cores > 1 else 0
    loader = DataLoader(ImagesOnly(data), batch_sampler=rows, num_workers=workers, persistent_workers=workers > 0)
    epochs: dict[str, Callable[[], int]] = {
        "peer": lambda: sum(len(images) for images in loader),
        "ours": lambda: sum(
            len(batch.images)
            for batch in load(pixels, rows, lambda images: augment(images, generator), torch.device("cpu"), 0)
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    with busy_processes(setting.busy):
        for epoch in range(1 + setting.rounds):
            for name, walk in epochs.items():
                start = time.perf_counter()
                assert walk() == COUNT
                if epoch:
                    seconds[name].append(time.perf_counter() - start)
    peer, ours = (COUNT / statistics.median(seconds[name]) for name in ("peer", "ours"))
    return peer, ours


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many other processes that compute until the end of the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
