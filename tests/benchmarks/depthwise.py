"""How fast the gradient of a depthwise convolution's weights is on maps smaller than the kernel, beside PyTorch's own.

Run with `python -m tests.benchmarks depthwise`. The layer is EfficientNet-Lite's largest at 128 px; ours is used on
processors without AVX-512 alone, where the target holds.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from tests.benchmarks import Figure
from tests.benchmarks.losses import medians
from udlib.backbones.depthwise import DepthwiseConv2d

IMAGES, CHANNELS, CELLS, SIDE = 28, 1152, 4, 5
TARGET = 1.5


def run(layer: nn.Module, maps: Tensor) -> Tensor:
    return layer(maps).sum()


def measure() -> Iterator[Figure]:
    maps = torch.randn(IMAGES, CHANNELS, CELLS, CELLS).contiguous(memory_format=torch.channels_last).requires_grad_()
    kinds = {"ours": DepthwiseConv2d, "PyTorch's": nn.Conv2d}
    layers = {
        name: kind(CHANNELS, CHANNELS, SIDE, padding=SIDE // 2, groups=CHANNELS, bias=False)
        for name, kind in kinds.items()
    }
    ours, usual = medians({name: partial(run, layer, maps) for name, layer in layers.items()}, repetitions=10).values()
    without = torch.backends.cpu.get_cpu_capability() == "AVX2"
    yield Figure(
        f"depthwise {SIDE} × {SIDE} on {CELLS} × {CELLS} cells, both passes",
        f"{ours:.1f} ms, PyTorch's {usual:.1f}: {usual / ours:.1f}×",
        f"≥ {TARGET}×" if without else "not used here",
        usual / ours >= TARGET if without else None,
    )
