"""In which precision a network trains faster on this machine: measured once, and remembered.

On a CPU that multiplies in bfloat16, most networks train faster in it. Depthwise convolutions do not: their backward
pass in bfloat16 is slower than in single precision, while their inference is about twice as fast. So "auto" measures
one training step of such a network in both. Everything else follows `devices.resolve_precision`.
"""

from __future__ import annotations

import copy
import json
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from udlib.datasets.base import data_root
from udlib.files import atomic_write
from udlib.training.devices import autocast, hardware, resolve_precision

IMAGES, SIDE, REPEATS = 8, 128, 2  # of a measurement; at other sides, about as many pixels


def training_precision(network: nn.Module, precision: str, device: torch.device, side: int = SIDE) -> str:
    """Resolve "auto" to the precision in which this network trains faster here.

    Args:
        network: with a `backbone`, which says in `depthwise` whether it has depthwise convolutions, or a backbone.
        precision: "auto", "bf16" or "fp32"; the last two are returned as they are.
        device: where it trains.
        side: of the images that it trains on, in pixels.

    Returns:
        "bf16" or "fp32".
    """
    resolved = resolve_precision(precision, device)
    backbone = getattr(network, "backbone", network)
    if precision != "auto" or resolved == "fp32" or device.type != "cpu" or not getattr(backbone, "depthwise", False):
        return resolved
    return "bf16" if bf16_ratio(backbone, side) < 1 else "fp32"


def bf16_ratio(backbone: nn.Module, side: int = SIDE) -> float:
    """Seconds of a training step in bf16 as a multiple of those in fp32, measured once for a backbone and a machine.

    Args:
        backbone: the network; layers that are frozen at the moment are measured as frozen.
        side: of the images, in pixels.
    """
    machine = f"{hardware()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    key = f"{machine}, {side} px, {_name(backbone)}{_frozen_share(backbone)}"
    ratios = measured_ratios()
    if key not in ratios:
        ratios = ratios | {key: round(_seconds(backbone, "bf16", side) / _seconds(backbone, "fp32", side), 3)}
        with suppress(OSError):  # where nothing can be written, it is measured again next time
            file = _file()
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, json.dumps(ratios, indent=1).encode())
    return ratios[key]


def measured_ratios() -> dict[str, float]:
    """What was measured on this computer: bf16's seconds of a training step over fp32's, by machine and backbone."""
    try:
        return {str(key): float(value) for key, value in json.loads(_file().read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return {}  # nothing was measured, or the file is damaged: measure again


def _file() -> Path:
    return data_root() / "cache" / "precision.json"


def _name(backbone: nn.Module) -> str:
    return (
        getattr(backbone, "name", "")
        or f"a network of {sum(part.numel() for part in backbone.parameters()):,} parameters"
    )


def _frozen_share(backbone: nn.Module) -> str:
    """Which part of a backbone is frozen, for a measurement's name; "" where none is."""
    counts = [part.numel() for part in backbone.parameters() if not part.requires_grad]
    return f" with {sum(counts):,} frozen parameters" if counts else ""


def _seconds(backbone: nn.Module, precision: str, side: int) -> float:
    """The fastest of several training steps, on a copy, so that the network's running statistics stay as they are."""
    device = torch.device("cpu")
    network = copy.deepcopy(backbone).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    count = max(round(IMAGES * (SIDE / side) ** 2), 2)
    images = torch.zeros(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(REPEATS + 1):  # the first one also compiles kernels
        started = time.perf_counter()
        with autocast(device, precision):
            loss = network(images).float().square().mean()
        if loss.requires_grad:  # unless all of the backbone is frozen
            loss.backward()
        times.append(time.perf_counter() - started)
    return min(times[1:])
