"""How fast the gradient of a depthwise convolution's weights is on maps smaller than the kernel, beside PyTorch's own.

Run with `python -m tests.benchmarks depthwise`. The layer is EfficientNet-Lite's largest at 128 px; ours is used on
processors without AVX-512 alone, where the target holds.
"""

import statistics
import time
from collections.abc import Iterator

import torch
from torch import nn

from tests.benchmarks import Figure
from udlib.backbones.depthwise import DepthwiseConv2d

IMAGES, CHANNELS, CELLS, SIDE = 28, 1152, 4, 5
TARGET = 1.5


def measure() -> Iterator[Figure]:
    maps = torch.randn(IMAGES, CHANNELS, CELLS, CELLS).contiguous(memory_format=torch.channels_last).requires_grad_()
    kinds = {"ours": DepthwiseConv2d, "PyTorch's": nn.Conv2d}
    layers = {
        name: kind(CHANNELS, CHANNELS, SIDE, padding=SIDE // 2, groups=CHANNELS, bias=False)
        for name, kind in kinds.items()
    }
    times: dict[str, list[float]] = {name: [] for name in layers}
    for turn in range(11):
        for name, layer in layers.items():
            start = time.perf_counter()
            layer(maps).sum().backward()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    ours, usual = (statistics.median(times[name]) for name in kinds)
    without = torch.backends.cpu.get_cpu_capability() == "AVX2"
    yield Figure(
        f"depthwise {SIDE} × {SIDE} on {CELLS} × {CELLS} cells, both passes",
        f"{ours:.1f} ms, PyTorch's {usual:.1f}: {usual / ours:.1f}×",
        f"≥ {TARGET}×" if without else "not used here",
        usual / ours >= TARGET if without else None,
    )
