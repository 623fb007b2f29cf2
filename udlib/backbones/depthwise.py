"""Depthwise convolutions on maps smaller than their kernel, as a small image has them in a deep network.

There PyTorch's convolution takes, on processors without AVX-512, several times as long for the gradient of its weights as
for all else. A sum for each place of the kernel is faster: measured on maps of 4 × 4 cells and kernels of 5 × 5, six times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps a map's size, for a training on a CPU.

    It computes what `nn.Conv2d` does. The gradient of its weights is that of `weight_gradient` where a map is smaller than
    the kernel.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve maps (B, C, h, w) → (B, C, h, w)."""
        small = maps.ndim == 4 and max(maps.shape[2:]) < self.kernel_size[0]
        trained = torch.is_grad_enabled() and self.weight.requires_grad
        exact = maps.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if small and trained and exact and maps.device.type == "cpu" and self.bias is None:
            return _Convolution.apply(maps, self.weight)
        return super().forward(maps)


class _Convolution(torch.autograd.Function):
    """The convolution with its two gradients."""

    @staticmethod
    def forward(ctx, maps: Tensor, weight: Tensor) -> Tensor:
        """Convolve, and keep both for the gradients."""
        ctx.save_for_backward(maps, weight)
        return conv2d(maps, weight, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The gradients by the maps and by the weights, each where it is asked for."""
        maps, weight = ctx.saved_tensors
        by_maps = by_weight = None
        if ctx.needs_input_grad[0]:  # a convolution with the kernel turned around
            by_maps = conv2d(gradient, weight.flip(2, 3), padding=weight.shape[-1] // 2, groups=len(weight))
        if ctx.needs_input_grad[1]:
            by_weight = weight_gradient(maps, gradient, weight.shape[-1])
        return by_maps, by_weight


def weight_gradient(maps: Tensor, gradient: Tensor, side: int) -> Tensor:
    """Compute the gradient of a depthwise convolution's weights, place by place.

    Args:
        maps: (B, C, h, w), what was convolved, with stride 1 and half of the kernel's side as padding.
        gradient: (B, C, h, w), of the loss by the result.
        side: of the kernel, odd.

    Returns:
        (C, 1, side, side).
    """
    height, width = gradient.shape[2:]
    half = side // 2
    # Channels last, so that each sum runs over rows that lie one after the other.
    padded = pad(maps.permute(0, 2, 3, 1), (0, 0, half, half, half, half))
    turned = gradient.permute(0, 2, 3, 1)
    places = [(row, column) for row in range(side) for column in range(side)]
    sums = [(padded[:, i : i + height, j : j + width] * turned).sum((0, 1, 2)) for i, j in places]
    return torch.stack(sums, 1).view(-1, 1, side, side)


def quicken(network: nn.Module) -> None:
    """Make a network's depthwise convolutions of stride 1 `DepthwiseConv2d`, where the processor has no AVX-512.

    Parameters, their names and all results but the last bits of gradients stay as they are.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        for layer in network.modules():
            if type(layer) is nn.Conv2d and _is_depthwise(layer):
                layer.__class__ = DepthwiseConv2d


def _is_depthwise(layer: nn.Conv2d) -> bool:
    side = layer.kernel_size[0]
    same = layer.kernel_size == (side, side) and side % 2 == 1 and layer.padding == (side // 2, side // 2)
    whole = layer.stride == layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return same and whole and layer.groups == layer.in_channels == layer.out_channels > 1
