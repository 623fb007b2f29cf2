"""mAP at the size of COCO's validation set (40,504 images × 80 labels) against a loop of scikit-learn over classes.

Run with `python -m tests.benchmarks metrics`.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from tests.benchmarks import Figure
from udlib.metrics import average_precision

IMAGES, CLASSES, WANTED, ROUNDS = 40_504, 80, 10.0, 7


def predictions(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets with COCO's long tail (2.9 labels an image) and a mAP near 0.8."""
    rng = np.random.default_rng(seed)
    frequency = rng.permutation(2.9 * (weights := 1 / np.arange(3, CLASSES + 3)) / weights.sum())
    targets = rng.random((IMAGES, CLASSES)) < frequency
    logits = rng.standard_normal((IMAGES, CLASSES)) + 4 * targets - 5
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(targets.astype(np.uint8))


def seconds(function) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure() -> Iterator[Figure]:
    logits, targets = predictions()
    scores, labels = logits.numpy(), targets.numpy()

    def by_library() -> torch.Tensor:
        return torch.tensor(
            [average_precision_score(labels[:, c], scores[:, c]) for c in range(CLASSES)], dtype=torch.float64
        )

    def ours() -> torch.Tensor:
        return average_precision(logits, targets)

    by_library(), ours()
    library_times, our_times = [], []
    for _ in range(ROUNDS):
        (library_time, expected), (our_time, found) = seconds(by_library), seconds(ours)
        library_times.append(library_time)
        our_times.append(our_time)
    library, own = statistics.median(library_times), statistics.median(our_times)
    difference = (expected - found).abs().max().item()
    yield Figure(
        f"mAP, {IMAGES:,} × {CLASSES}",
        f"{own * 1e3:.0f} ms, {library / own:.1f}× scikit-learn's loop",
        f"≥ {WANTED:.0f}×",
        library / own >= WANTED,
    )
    yield Figure("its largest difference from scikit-learn", f"{difference:.1e}", "≤ 1e-06", difference <= 1e-6)
