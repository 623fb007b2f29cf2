"""A whole training step of uncertainty distillation, its data included: beside a peer, and beside the bare networks.

Run with `python -m tests.benchmarks throughput`, and `--out FILE` to keep the figures. On a GPU ResNet-101 teaches ResNet-18
at 448 px. On a CPU the course's small networks at 64 px run the same code, which says nothing about a GPU; in the smoke profile
stamps of 16 px do.

*Ours* is `train_distilled`, and so `training.fit`: images decoded once, on the GPU where they fit, cropped, mirrored and
erased there by the batch; bfloat16, channels last. Its speed is that of its own history. The *peer* is what one writes first:
each JPEG decoded and transformed on its own, in a DataLoader of four processes; float32; the losses of `distillation.peer`,
image by image. What its processes have prepared before the clock starts counts in its favour. *Bare* is the teacher's
forward and the student's forward and backward pass on one batch that is there already.

With torch.compile, the backbones of all three are compiled: the losses differentiate the heads twice, which compiled code cannot.

Rivals take turns, and their first turns are not counted. The clock is read when the device has done all that it was given.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.benchmarks import Figure, distillation
from tests.benchmarks.distillation import CLASSES
from tests.benchmarks.pixels import photographs
from udlib.backbones import backbone
from udlib.course.profiles import profile
from udlib.datasets.base import MultiLabelDataset
from udlib.datasets.pixels import decoded
from udlib.datasets.transforms import train_transform
from udlib.heads import DualBranchNet
from udlib.methods import recipe
from udlib.training.batches import ArrayData, ImagesOnly
from udlib.training.devices import compiled_or_not, make_accelerator, resolve_precision
from udlib.training.loop import TrainingConfig, Watch
from udlib.workshop import train

SPEEDUP, LEAST_SHARE = 10.0, 0.85
WARM_UP = 2  # the peer's steps before each of its turns, while its processes start
MEMORY = 0.9  # share of the GPU's that the peer may take, since others are there too


@dataclass(frozen=True)
class Plan:
    """What is run on one kind of device."""

    teacher: str
    student: str
    stored: int  # side of decoded images, in pixels
    side: int  # of the crops that networks see
    batch: int
    peer_fallback: int  # its batch, where memory does not do for `batch`
    steps: int  # in a turn
    turns: int  # that are counted
    workers: int = 4  # the peer's


PLANS = {
    "cuda": Plan("resnet101", "resnet18", stored=512, side=448, batch=64, peer_fallback=16, steps=10, turns=5),
    "cpu": Plan("small_wide", "small", stored=73, side=64, batch=50, peer_fallback=50, steps=4, turns=3),
    "smoke": Plan("small_narrow", "small_narrow", 18, 16, batch=4, peer_fallback=2, steps=2, turns=1, workers=1),
}
RECIPE = {"lr": 1e-3, "momentum": 0.9}  # of SGD

# Fresh processes: forked, where the system can, from one that has imported this file and done nothing else.
FRESH = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)
if FRESH.get_start_method() == "forkserver":
    FRESH.set_forkserver_preload([__name__])


def now(device: torch.device) -> float:
    """Seconds, read when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def networks(plan: Plan, device: torch.device, layout: torch.memory_format) -> tuple[DualBranchNet, DualBranchNet]:
    """Teacher and student from a random start, the same for each rival."""
    torch.manual_seed(0)
    teacher, student = (
        DualBranchNet(backbone(name), CLASSES).to(device, memory_format=layout) for name in (plan.teacher, plan.student)
    )
    return teacher.eval(), student


def ours(
    plan: Plan,
    data: MultiLabelDataset,
    folder: Path,
    compile: bool = False,
    on_epoch: Callable[[int, nn.Module, Mapping[str, float]], None] | None = None,
) -> None:
    """A turn that does not count and those that do, each an epoch."""
    teacher, _ = networks(plan, make_accelerator().device, torch.channels_last)
    rows = torch.arange(plan.steps * plan.batch)
    images = decoded(data, plan.stored, folder)[rows % len(data)]
    targets = torch.eye(CLASSES, dtype=torch.uint8)[rows % CLASSES]
    config = TrainingConfig(
        epochs=1 + plan.turns,
        batch_size=plan.batch,
        optimizer="sgd",
        schedule="constant",
        erase=0.5,
        crop=plan.side,
        compile=compile,
        **RECIPE,
    )
    student = recipe("distillation", network=plan.student, embedding=512, **asdict(config))
    watch = Watch(on_epoch=on_epoch)
    train(student, ArrayData(images, targets), teachers={"teacher": teacher}, watch=watch)


def compile_backbones(*nets: DualBranchNet) -> None:
    """Compile the backbones for good; where that does not work here, `compiled_or_not` warns."""
    for net in nets:
        compiled_or_not(net.backbone, True).__enter__()


def peer(plan: Plan, data: MultiLabelDataset, compile: bool = False) -> Callable[[], float]:
    """`run()`: the images a second of one turn."""
    device = make_accelerator().device
    teacher, student = networks(plan, device, torch.contiguous_format)
    if compile:
        compile_backbones(teacher, student)
    optimizer = torch.optim.SGD(student.parameters(), **RECIPE)
    draws = torch.Generator().manual_seed(0)
    data.transform = train_transform(plan.side, plan.stored)

    def run() -> float:
        rows = torch.randint(len(data), (WARM_UP + plan.steps, plan.batch), generator=draws)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="This DataLoader will create"
            )  # more processes than there are cores
            loader = iter(
                DataLoader(
                    ImagesOnly(data),
                    batch_sampler=list(rows),
                    num_workers=plan.workers,
                    pin_memory=device.type == "cuda",
                )
            )
        started = None
        for step, images in enumerate(loader, 1):
            images = images.to(device, non_blocking=True)
            optimizer.zero_grad()
            distillation.peer(teacher, student, images)
            nn.utils.clip_grad_norm_(student.parameters(), TrainingConfig.clip)
            optimizer.step()
            if step == WARM_UP:
                started = now(device)
        return plan.steps * plan.batch / (now(device) - started)

    return run


def bare(plan: Plan, compile: bool = False) -> Callable[[], float]:
    """`run()`: the images a second of one turn."""
    device = make_accelerator().device
    teacher, student = networks(plan, device, torch.channels_last)
    if compile:
        compile_backbones(teacher, student)
    images = torch.randn(plan.batch, 3, plan.side, plan.side, device=device).contiguous(
        memory_format=torch.channels_last
    )

    def run() -> float:
        started = now(device)
        for _ in range(plan.steps):
            student.zero_grad()
            distillation.bare(teacher, student, images)
        return plan.steps * plan.batch / (now(device) - started)

    return run


def race(
    plan: Plan, data: MultiLabelDataset, folder: Path, rivals: Mapping[str, Callable[[], float]], compile: bool = False
) -> dict[str, float]:
    """Median images a second, ours and the rivals': after each of our epochs, each rival has a turn."""
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *rivals)}

    def on_epoch(epoch: int, model: nn.Module, row: Mapping[str, float]) -> None:
        found = {"ours": row["images_per_second"]} | {name: run() for name, run in rivals.items()}
        if epoch > 1:
            for name, speed in found.items():
                speeds[name].append(speed)

    ours(plan, data, folder, compile, on_epoch)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the next race, and other processes, find the memory free
    return {name: statistics.median(values) for name, values in speeds.items()}


def peak_memory(kind: str, plan: Plan, data: MultiLabelDataset, folder: Path) -> float:
    """MB that one turn takes at most, in a process of its own: of the GPU's memory, all of it; else beyond what the
    libraries take. Infinity where the GPU has too little."""
    with ProcessPoolExecutor(1, FRESH) as alone:
        return alone.submit(_peak, kind, plan, data, folder).result()


def _peak(kind: str, plan: Plan, data: MultiLabelDataset, folder: Path) -> float:
    device = make_accelerator().device
    before = distillation.resident("VmRSS") if distillation.STATUS.exists() else float("nan")
    jobs = {
        "ours": lambda: ours(replace(plan, turns=0), data, folder),
        "compiled": lambda: ours(replace(plan, turns=0), data, folder, compile=True),
        "peer": lambda: peer(plan, data)(),
        "bare": lambda: bare(plan)(),
    }
    try:
        jobs[kind]()
    except torch.OutOfMemoryError:
        return float("inf")
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return distillation.resident("VmHWM") - before if distillation.STATUS.exists() else before


def measure() -> Iterator[Figure]:
    device = make_accelerator().device
    gpu, plan = device.type == "cuda", PLANS["smoke" if profile() == "smoke" else device.type]
    precision = resolve_precision("auto", device)
    judged = gpu and precision == "bf16"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = photographs(folder)
        slow = plan
        memory = {kind: peak_memory(kind, plan, data, folder) for kind in ("bare", "ours", "peer")}
        if gpu and memory["peer"] > MEMORY * torch.cuda.get_device_properties(device).total_memory / 2**20:
            slow = replace(plan, batch=plan.peer_fallback)
            memory["peer"] = peak_memory("peer", slow, data, folder)
        speed = race(plan, data, folder, {"bare": bare(plan), "peer": peer(slow, data)})
        what = f"UD step and its data, {plan.teacher} → {plan.student}, {plan.side} px"
        conditions = asdict(plan) | {
            "precision": precision,
            "peer_precision": "fp32",
            "peer_batch": slow.batch,
            "cores": os.cpu_count(),
        }
        smaller = f" (batch {slow.batch})" if slow != plan else ""
        yield Figure(
            what,
            f"{speed['ours']:.0f} img/s, peer {speed['peer']:.0f}{smaller}, bare networks {speed['bare']:.0f}"
            + ("" if gpu else "; a CPU's, not the GPU's figure"),
            values=conditions | {f"{name}_images_per_second": value for name, value in speed.items()},
        )
        times, share = speed["ours"] / speed["peer"], speed["ours"] / speed["bare"]
        yield Figure(
            "its speed against the peer's",
            f"{times:.1f}×",
            f"≥ {SPEEDUP:g}×" if judged else "",
            times >= SPEEDUP if judged else None,
            {"times": times},
        )
        yield Figure(
            "its speed against the bare networks'",
            f"{share:.2f}",
            f"≥ {LEAST_SHARE:g}" if judged else "",
            share >= LEAST_SHARE if judged else None,
            {"share": share},
        )
        yield Figure(
            "peak memory of the GPU" if gpu else "peak memory of the process, beyond the libraries'",
            ", ".join(f"{kind} {value:.0f} MB" for kind, value in memory.items()),
            values=memory,
        )
        if gpu:  # last, since it takes minutes and may be cut short
            yield compiled(replace(plan, turns=2), slow, data, folder, speed)


def compiled(
    plan: Plan,
    slow: Plan,
    data: MultiLabelDataset,
    folder: Path,
    eager: Mapping[str, float],
) -> Figure:
    """All three by torch.compile; where that does not work here, why."""
    what = "the same, compiled"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="torch.compile does not work here")
        try:
            rivals = {"bare": bare(plan, compile=True), "peer": peer(slow, data, compile=True)}
            speed = race(plan, data, folder, rivals, compile=True)
        except UserWarning as reason:
            return Figure(what, str(reason))
    memory = peak_memory("compiled", plan, data, folder)
    times, share = speed["ours"] / eager["peer"], speed["ours"] / eager["bare"]
    return Figure(
        what,
        f"{speed['ours']:.0f} img/s, peer {speed['peer']:.0f}, bare networks {speed['bare']:.0f}; "
        f"{times:.1f}× the peer that is not compiled",
        values={f"{name}_images_per_second": value for name, value in speed.items()}
        | {"times": times, "share": share, "ours_megabytes": memory},
    )
