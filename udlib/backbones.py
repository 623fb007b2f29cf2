"""Backbones: images (B, 3, H, W) → feature map (B, D, h, w). Networks of torchvision, and small ones for CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn
from torchvision import models

# Base width of the small residual nets; the last stage has four times as many channels.
SMALL_WIDTHS = {"small_narrow": 16, "small": 32, "small_wide": 64}
# Channels D of torchvision's last feature map.
TORCHVISION = {"resnet18": 512, "resnet101": 2048, "vgg19_bn": 512, "mobilenet_v2": 1280}
NAMES = (*SMALL_WIDTHS, *TORCHVISION)


class Backbone(nn.Sequential):
    """Layers that are applied in turn.

    Args:
        layers: in their order.
        out_channels: D, number of channels of the feature map.
        stride: number of pixels per cell of the feature map, along each side.
    """

    def __init__(self, *layers: nn.Module, out_channels: int, stride: int):
        super().__init__(*layers)
        self.out_channels = out_channels
        self.stride = stride


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


def backbone(name: str, weights=None) -> Backbone:
    """Build a feature extractor by name, with no pooling and no classifier.

    Small residual nets for CPUs have stride 8, so that images of 64 px give 8x8 maps: `small_narrow`, `small` and
    `small_wide` (D = 64, 128, 256). Networks of torchvision have stride 32: `resnet18`, `resnet101`, `vgg19_bn`,
    `mobilenet_v2`.

    Args:
        name: one of `NAMES`.
        weights: None for a random start, or a member of torchvision's weights enum or its name ("IMAGENET1K_V1").

    Returns:
        The network, which has `out_channels` D and `stride`.

    Raises:
        ValueError: an unknown name, unknown weights.
        RuntimeError: weights that can be neither found nor downloaded; a random start never replaces them.

    Example:
        >>> net = backbone("small")
        >>> net(torch.zeros(2, 3, 64, 64)).shape, net.out_channels, net.stride
        (torch.Size([2, 128, 8, 8]), 128, 8)
    """
    if name in SMALL_WIDTHS:
        if weights is not None:
            raise ValueError(f"weights are {weights!r}, but '{name}' has no pretrained ones: pass weights=None")
        return small_residual_net(SMALL_WIDTHS[name])
    if name not in TORCHVISION:
        raise ValueError(f"unknown backbone '{name}': choose one of {', '.join(NAMES)}")

    network = models.get_model(name, weights=None)
    if weights is not None:
        network.load_state_dict(pretrained_state(name, weights))
    if name.startswith("resnet"):
        layers = [child for part, child in network.named_children() if part not in ("avgpool", "fc")]
    else:
        layers = list(network.features)
    return Backbone(*layers, out_channels=TORCHVISION[name], stride=32)


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
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def pretrained_state(name: str, weights) -> dict[str, torch.Tensor]:
    """Load torchvision's pretrained parameters from the folder of torch.hub, or download them into it.

    Args:
        name: a network of `TORCHVISION`.
        weights: a member of its weights enum, or that member's name.

    Returns:
        The state dict, on the CPU.

    Raises:
        ValueError: unknown weights.
        RuntimeError: a file that can be neither read nor downloaded; the message names it and its address.
    """
    known = models.get_model_weights(name)
    member = known.__members__.get(weights) if isinstance(weights, str) else weights
    if not isinstance(member, known):
        raise ValueError(f"unknown weights {weights!r} for '{name}': choose one of {', '.join(known.__members__)}")
    file = Path(torch.hub.get_dir()) / "checkpoints" / member.url.rsplit("/", 1)[-1]
    try:
        show_progress = os.environ.get("UDLIB_PROGRESS", "1") != "0"
        return member.get_state_dict(progress=show_progress, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:  # no network, or a broken pickle, which may raise anything
        if file.exists():
            problem, remedy = "the file is there but cannot be read", "delete it and download it again"
        else:
            problem, remedy = "it is not there and cannot be downloaded", "copy it there"
        raise RuntimeError(
            f"weights {member.name} of '{name}' are expected in '{file}': {problem} ({error}). "
            f"With a network, {remedy} from {member.url}; without weights, pass weights=None."
        ) from error
