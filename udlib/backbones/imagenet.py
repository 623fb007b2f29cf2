"""Networks of torchvision and their weights."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torchvision import models

from udlib.backbones.base import Backbone, in_a_row

# Channels D of torchvision's last feature map.
TORCHVISION = {"resnet18": 512, "resnet101": 2048, "vgg19_bn": 512, "mobilenet_v2": 1280}
# Number of layers of the stem and of each stage. MobileNet's stages are the groups of inverted residual blocks of one
# width (Table 2 of Sandler et al., CVPR 2018); its last convolution belongs to none of them.
PARTS = {"resnet18": (4, 1, 1, 1, 1), "resnet101": (4, 1, 1, 1, 1), "mobilenet_v2": (1, 1, 2, 3, 4, 3, 3, 1)}


def torchvision_network(name: str, weights=None) -> Backbone:
    """Build a network of torchvision, with no pooling and no classifier.

    Args:
        name: a network of `TORCHVISION`.
        weights: as in `backbone`.

    Returns:
        The network; stride 32.

    Raises:
        ValueError: unknown weights.
        RuntimeError: weights that can be neither found nor downloaded.
    """
    network = models.get_model(name, weights=None)
    if weights is not None:
        network.load_state_dict(pretrained_state(name, weights))
    if name.startswith("resnet"):
        layers = [child for part, child in network.named_children() if part not in ("avgpool", "fc")]
    else:
        layers = list(network.features)
    parts = PARTS[name] if name in PARTS else _stages_by_pooling(layers)
    return Backbone(*layers, out_channels=TORCHVISION[name], stride=32, parts=in_a_row(*parts))


def _stages_by_pooling(layers: list[nn.Module]) -> tuple[int, ...]:
    """No stem, then stages that end with their max-pooling, as in VGG."""
    ends = [0, *(k + 1 for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))]
    return (0, *(end - start for start, end in pairwise(ends)))


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
            f"With an internet connection, {remedy} from {member.url}; for a random start, pass weights=None."
        ) from error
