"""One step of uncertainty distillation, ResNet-101 → ResNet-18 at 448 px: beside the bare networks, and beside a peer.

Run with `python -m tests.benchmarks distillation`. *Bare* is the teacher's forward and the student's forward and backward
pass with a loss that costs nothing. The *peer* is what one writes first: float32, a loop over the images for each loss,
attention by autograd to every cell of the feature map. All three use the same networks and batch and take turns.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.benchmarks import Figure
from udlib.backbones import backbone
from udlib.heads import DualBranchNet
from udlib.methods.distillation import distillation_loss
from udlib.training.batches import Batch
from udlib.training.devices import autocast, make_accelerator, resolve_precision

CLASSES, IMAGES, SIDE, ROUNDS = 20, 8, 448, 5
LARGEST_SHARE, SPEEDUP = 0.05, 3.5


def networks() -> tuple[DualBranchNet, DualBranchNet]:
    torch.manual_seed(0)
    return tuple(DualBranchNet(backbone(name), CLASSES) for name in ("resnet101", "resnet18"))


def batch() -> Batch:
    images = torch.randn(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.zeros(IMAGES, CLASSES), None, torch.arange(IMAGES))


def bare(teacher: DualBranchNet, student: DualBranchNet, images: Tensor) -> None:
    with autocast(images.device, "auto"):
        with torch.inference_mode():
            teacher(images)
        told = student(images)
    (told.logits.sum() + told.calibration_logits.sum()).backward()


def ours(loss_fn, student: DualBranchNet, given: Batch) -> None:
    with autocast(given.images.device, "auto"):
        terms = loss_fn(student, given)
    terms["total"].backward()


def divergence(logits: Tensor, calibration_logits: Tensor) -> Tensor:
    p, q = calibration_logits.softmax(0), logits.softmax(0)
    return (p * (p / q).log()).sum()


def attention(net: DualBranchNet, prediction, i: int, keep: bool) -> Tensor:
    """Eq. 15 and 16 of one image, the gradient taken at every cell of the map."""
    features = prediction.features
    (gradient,) = torch.autograd.grad(
        divergence(prediction.logits[i], prediction.calibration_logits[i]), features, retain_graph=keep
    )
    return (gradient[i].sum((1, 2), keepdim=True) * features[i]).sum(0)


def peer(teacher: DualBranchNet, student: DualBranchNet, images: Tensor) -> None:
    taught, told = teacher(images), student(images)
    total = images.new_zeros(())
    for i in range(len(images)):
        t, s = torch.sigmoid(taught.logits[i]), torch.sigmoid(told.logits[i])
        for c in range(CLASSES):
            kl = t[c] * (t[c] / s[c]).log() + (1 - t[c]) * ((1 - t[c]) / (1 - s[c])).log()
            total = total + kl.nan_to_num(0) / CLASSES
        p, q = taught.calibration_logits[i].softmax(0).detach(), told.calibration_logits[i].softmax(0)
        total = total + 0.5 * (p * (p / q).log()).sum()
        difference = attention(teacher, taught, i, True).detach() - attention(student, told, i, True)
        total = total + 0.5 * difference.norm()
    (total / len(images)).backward()


STATUS = Path("/proc/self/status")  # getrusage will not do: a child's peak begins at its parent's


def resident(which: str) -> float:
    """MB of memory this process holds ("VmRSS") or has held at most ("VmHWM")."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(which)) / 1024


def peak_memory(kind: str) -> float:
    """MB that one step takes beyond the networks, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.distillation", kind]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def jobs() -> dict[str, Callable[[], None]]:
    teacher, student = networks()
    slow_teacher, slow_student = networks()
    given = batch()
    fast = given._replace(images=given.images.contiguous(memory_format=torch.channels_last))
    for net in (teacher, student):
        net.to(memory_format=torch.channels_last)
    loss_fn = distillation_loss(teacher)
    slow_teacher.eval()

    def clean(net: nn.Module, job: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            net.zero_grad()
            job()

        return run

    return {
        "bare": clean(student, lambda: bare(teacher, student, fast.images)),
        "ours": clean(student, lambda: ours(loss_fn, student, fast)),
        "peer": clean(slow_student, lambda: peer(slow_teacher, slow_student, given.images)),
    }


def measure() -> Iterator[Figure]:
    torch.set_num_threads(os.cpu_count() or 1)
    precision = resolve_precision("auto", make_accelerator().device)
    running = jobs()
    times: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(ROUNDS + 1):
        for name, job in running.items():
            if name == "peer" and turn > 2:  # ten times as slow: twice will do
                continue
            start = time.perf_counter()
            job()
            if turn:
                times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in times.items()}
    share, speedup = median["ours"] / median["bare"] - 1, median["peer"] / median["ours"]
    what = f"UD step, R101 → R18, {SIDE} px, {precision}"
    yield Figure(
        what,
        f"{IMAGES / median['ours']:.2f} img/s, bare networks {IMAGES / median['bare']:.2f}, "
        f"peer {IMAGES / median['peer']:.2f}",
    )
    yield Figure(
        "what the losses add to the bare networks",
        f"{100 * share:+.1f} %",
        f"≤ {100 * LARGEST_SHARE:.0f} %",
        share <= LARGEST_SHARE,
    )
    yield Figure(
        "against the peer",
        f"{speedup:.1f}×",
        f"≥ {SPEEDUP}× (bf16 hardware)",
        speedup >= SPEEDUP if precision == "bf16" else None,
    )
    torch.set_num_threads(1)
    if not STATUS.exists():
        return
    memory = {name: peak_memory(name) for name in ("bare", "ours", "peer")}
    yield Figure("peak memory of a step", ", ".join(f"{name} {value:.0f} MB" for name, value in memory.items()))


if __name__ == "__main__":
    job = jobs()[sys.argv[1]]
    before = resident("VmRSS")
    job()
    print(resident("VmHWM") - before)
