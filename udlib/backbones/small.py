"""Small residual nets for CPUs."""

from __future__ import annotations

import torch
from torch import nn

from udlib.backbones.base import Backbone, in_a_row

# Base width of the small residual nets; the last stage has four times as many channels.
SMALL_WIDTHS = {"small_narrow": 16, "small": 32, "small_wide": 64}


class ResidualBlock(nn.Module):
    """Residual block of two 3x3 convolutions: ReLU(x + conv-BN-ReLU-conv-BN(x)).

    Where the shape changes, a 1x1 convolution with batch normalisation brings x to the new shape.

    Args:
        in_channels: of x.
        out_channels: of the result.
        stride: of the first convolution.

    Source: He et al., Deep Residual Learning, CVPR 2016.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, h, w) to (B, out_channels, h / stride, w / stride)."""
        return torch.relu(self.shortcut(x) + self.branch(x))


def small_residual_net(width: int) -> Backbone:
    """Build a small residual net: a stem, then three residual blocks of 1, 2 and 4 times `width` channels.

    The stem has stride 2, the blocks have strides 2, 2 and 1. The strides come early because blocks at the full
    resolution of the stem would double the cost of a step on a CPU.

    Args:
        width: number of channels of the stem and of the first block.

    Returns:
        The network with random weights; 4 · `width` channels, stride 8.
    """
    net = Backbone(
        nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        ResidualBlock(width, width, stride=2),
        ResidualBlock(width, 2 * width, stride=2),
        ResidualBlock(2 * width, 4 * width, stride=1),
        out_channels=4 * width,
        stride=8,
        parts=in_a_row(3, 1, 1, 1),
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
