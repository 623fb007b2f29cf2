"""How fast the hard-label losses are: against a loop over labels, and from 1,000 to 10,000 classes.

Run with `python -m tests.benchmarks losses`. Each time is one forward and backward pass.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.benchmarks import Figure
from udlib.losses import ova_loss, pal_n_loss

IMAGES = 64
LABELS_PER_IMAGE = 2.9  # COCO 2014
SPEEDUP_TARGET = 30.0
GROWTH_TARGET = 12.0  # ten times the classes; linear is 10, the rest is for caches


def vectorised(logits: Tensor, targets: Tensor) -> Tensor:
    return ova_loss(logits, targets) + pal_n_loss(logits, targets)


def ova_loop(logits: Tensor, targets: Tensor) -> Tensor:
    total = logits.new_zeros(())
    for z, y in zip(logits, targets, strict=True):
        for z_i, y_i in zip(z, y, strict=True):
            total = total + F.binary_cross_entropy_with_logits(z_i, y_i)
    return total / len(logits)


def pal_n_loop(logits: Tensor, targets: Tensor) -> Tensor:
    total = logits.new_zeros(())
    for z, y in zip(logits, targets, strict=True):
        positives = y.nonzero()[:, 0].tolist()
        negatives = z[y == 0]
        for i in positives:
            f = torch.cat([z[i : i + 1], negatives]).softmax(0)
            total = total - f[0].log() / len(positives)
    return total / len(logits)


def batch(classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, classes, generator=generator).requires_grad_()
    return logits, (torch.rand(IMAGES, classes, generator=generator) < LABELS_PER_IMAGE / classes).float()


def medians(jobs: dict[str, Callable[[], Tensor]], repetitions: int) -> dict[str, float]:
    """Milliseconds by name; the first round warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for round_number in range(repetitions + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job().backward()
            if round_number:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def measure() -> Iterator[Figure]:
    logits, targets = batch(80)
    expected = ova_loop(logits, targets) + pal_n_loop(logits, targets)
    torch.testing.assert_close(vectorised(logits, targets), expected)

    loops = medians(
        {
            "ova": lambda: ova_loss(logits, targets),
            "ova, loop": lambda: ova_loop(logits, targets),
            "pal_n": lambda: pal_n_loss(logits, targets),
            "pal_n, loop": lambda: pal_n_loop(logits, targets),
            "both": lambda: vectorised(logits, targets),
            "both, loop": lambda: ova_loop(logits, targets) + pal_n_loop(logits, targets),
        },
        repetitions=7,
    )
    small, large = batch(1_000), batch(10_000)
    growth = medians({"small": lambda: vectorised(*small), "large": lambda: vectorised(*large)}, repetitions=30)

    for name in ("ova", "pal_n"):
        times = loops[f"{name}, loop"] / loops[name]
        yield Figure(f"{name}_loss, {IMAGES} × 80", f"{loops[name]:.2f} ms, {times:.0f}× a loop")
    speedup, ratio = loops["both, loop"] / loops["both"], growth["large"] / growth["small"]
    yield Figure(
        f"both losses, {IMAGES} × 80",
        f"{loops['both']:.2f} ms, {speedup:.0f}× a loop",
        f"≥ {SPEEDUP_TARGET:.0f}×",
        speedup >= SPEEDUP_TARGET,
    )
    yield Figure(
        f"both losses, {IMAGES} × 10,000",
        f"{growth['large']:.1f} ms, {ratio:.1f}× that of 1,000 classes",
        f"≤ {GROWTH_TARGET:.0f}×",
        ratio <= GROWTH_TARGET,
    )
