"""How fast the hard-label losses are: against a loop over labels, and from 1,000 to 10,000 classes.

Run with `python -m benchmarks.losses`. Each time is one forward and backward pass, the median of repetitions in which
the candidates take turns, so that a busy machine slows all of them alike. One thread: the arithmetic is measured, and
not how two cores share it.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

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


def verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def main() -> int:
    torch.set_num_threads(1)
    logits, targets = batch(80)
    expected = ova_loop(logits, targets) + pal_n_loop(logits, targets)
    torch.testing.assert_close(vectorised(logits, targets), expected)

    loops = medians({
        "ova_loss": lambda: ova_loss(logits, targets),
        "ova, loop over labels": lambda: ova_loop(logits, targets),
        "pal_n_loss": lambda: pal_n_loss(logits, targets),
        "pal_n, loop over positives": lambda: pal_n_loop(logits, targets),
        "both": lambda: vectorised(logits, targets),
        "both, loops": lambda: ova_loop(logits, targets) + pal_n_loop(logits, targets),
    }, repetitions=7)
    small, large = batch(1_000), batch(10_000)
    growth = medians({
        "both, C = 1,000": lambda: vectorised(*small),
        "both, C = 10,000": lambda: vectorised(*large),
    }, repetitions=30)

    print(f"losses: N = {IMAGES}, C = 80 unless stated, forward and backward, one thread")
    for name, milliseconds in (loops | growth).items():
        print(f"  {name:<28}{milliseconds:>10.2f} ms")
    speedup = loops["both, loops"] / loops["both"]
    pal_n_speedup = loops["pal_n, loop over positives"] / loops["pal_n_loss"]
    ratio = growth["both, C = 10,000"] / growth["both, C = 1,000"]
    fast, linear = speedup >= SPEEDUP_TARGET, ratio <= GROWTH_TARGET
    print(f"  {verdict(fast)}  {speedup:.0f} times the loop's speed (target ≥ {SPEEDUP_TARGET:.0f}; "
          f"PAL-N alone {pal_n_speedup:.0f})")
    print(f"  {verdict(linear)}  {ratio:.1f} times the time for 10 times the classes (target ≤ {GROWTH_TARGET:.0f})")
    return 0 if fast and linear else 1


if __name__ == "__main__":
    raise SystemExit(main())
