"""Any convolutional network of timm, by "timm:NAME"."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from udlib.backbones.base import Backbone

TIMM = "timm:"
PRETRAINED = "pretrained"
FILES = ".safetensors"  # files of weights that are read; pickled ones are never opened


class FeatureMap(nn.Module):
    """The layers of one of timm's networks up to its last feature map.

    Args:
        network: of timm. Layers that its `forward_features` does not use are taken out of it by `drop_unused`.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to what stands before pooling and classifier, normally (B, D, h, w)."""
        return self.network.forward_features(images)  # type: ignore[operator]

    @torch.no_grad()
    def trial(self, side: int) -> Tensor:
        """Compute the features of one black image; layers without a part in them become `nn.Identity`.

        Args:
            side: of the image, in pixels.

        Returns:
            The features.
        """
        training = self.network.training
        used: set[nn.Module] = set()
        hooks = [each.register_forward_hook(lambda each, *_: used.add(each)) for each in self.network.modules()]
        device = next(self.network.parameters()).device
        features = self.eval()(torch.zeros(1, 3, side, side, device=device))
        self.train(training)
        for hook in hooks:
            hook.remove()
        for name, child in self.network.named_children():
            if used.isdisjoint(child.modules()):
                setattr(self.network, name, nn.Identity())
        return features


def timm_network(name: str, weights: str | None = None) -> Backbone:
    """Build a convolutional network of timm, up to its last feature map.

    Its stem and stages are the groups of layers that timm names for it (`group_matcher(coarse=True)`): the first is the
    stem. Where timm counts the last convolution to the last stage, so does `frozen_layers`. A network for which timm names
    no groups has no stage that could be frozen.

    Args:
        name: "timm:" and one of timm's names, with a tag or without one ("timm:resnet18", "timm:resnet18.a1_in1k").
        weights: None for a random start, "pretrained" for timm's own, which it downloads or finds in its cache, or a file of
            them (.safetensors), which was downloaded before.

    Returns:
        The network; D is measured, and so is the stride where timm does not name it.

    Raises:
        ValueError: an unknown name, unknown weights, a file that does not fit, a network that has no feature map
            (B, D, h, w).
        FileNotFoundError: a file of weights that is missing.
        RuntimeError: weights that can be neither found nor downloaded; a random start never replaces them.
    """
    import timm  # takes a second, which the other networks need not wait for

    require_timm(name)
    known = name.removeprefix(TIMM)
    if weights is None:
        network = timm.create_model(known, pretrained=False, num_classes=0)
    elif weights == PRETRAINED:
        network = _downloaded(known)
    elif str(weights).endswith(FILES):
        network = _from_file(known, Path(weights))
    else:
        raise ValueError(
            f"unknown weights {weights!r} for '{name}': choose {PRETRAINED!r}, or None for a random start, or name a file "
            f"that ends in {FILES}"
        )
    settings = network.pretrained_cfg
    side = settings["input_size"][-1]
    features = FeatureMap(network)
    channels, height = _require_map(features.trial(side), network, name)
    stages = getattr(network, "feature_info", None)
    return Backbone(
        features,
        out_channels=channels,
        stride=stages[-1]["reduction"] if stages else round(side / height),
        parts=_groups(network),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def require_timm(name: str) -> None:
    """Raise ValueError for a name that timm does not know, with the names that are nearest to it.

    Args:
        name: "timm:" and one of timm's names, with a tag or without one.

    Raises:
        ValueError: an unknown network, or an unknown tag of a known one.
    """
    import timm

    known = name.removeprefix(TIMM)
    network, _, tag = known.partition(".")
    if not timm.is_model(network):
        nearest = [TIMM + each for each in get_close_matches(network, timm.list_models(), n=3, cutoff=0.4)]
        remedy = f"did you mean {' or '.join(nearest)}?" if nearest else "timm.list_models() lists its names"
        raise ValueError(f"timm {timm.__version__} has no network '{network}': {remedy}")
    if tag and known not in (tags := timm.list_pretrained(f"{network}.*")):
        raise ValueError(
            f"timm {timm.__version__} has no weights '{tag}' of '{network}': choose one of "
            f"{', '.join(tags) or 'none, there are no weights of this network'}"
        )


def _downloaded(name: str) -> nn.Module:
    """One of timm's networks with its weights."""
    import timm

    settings = timm.models.get_pretrained_cfg(name)
    if settings is None or not settings.has_weights:
        raise ValueError(f"timm has no weights of '{name}': pass weights=None (--weights none) for a random start")
    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # no network, no space, a broken file: each client raises errors of its own
        place = (
            f"model.safetensors from https://huggingface.co/{settings.hf_hub_id}"
            if settings.hf_hub_id
            else settings.url
        )
        raise RuntimeError(
            f"the weights of 'timm:{name}' are not in the cache and cannot be downloaded ({type(error).__name__}): run the "
            f"same command once with an internet connection; or copy {place}, and pass the file as weights "
            f"(--weights FILE{FILES}); or take "
            "efficientnet_lite0, whose weights are installed; or pass weights=None (--weights none) for a random start"
        ) from error


def _from_file(name: str, file: Path) -> nn.Module:
    """One of timm's networks with the weights in a file that was downloaded before."""
    import timm

    if not file.expanduser().is_file():
        raise FileNotFoundError(f"there is no file of weights '{file}': check the path")
    try:
        overlay = {"file": str(file.expanduser())}
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # a damaged file, or one of another network: timm raises errors of many kinds
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"'{file}' does not hold the weights of 'timm:{name}' ({reason}): take this network's own file"
        ) from error


def require_side(name: str, side: int) -> None:
    """Refuse images of a size that a network of timm cannot take, as some with attention cannot.

    Args:
        name: "timm:" and one of timm's names.
        side: of the square images, in pixels.

    Raises:
        ValueError: a network that cannot take them or makes no feature map of them; the message has a size that it takes.
    """
    import timm

    with torch.random.fork_rng([]), torch.no_grad():
        network = timm_network(name).eval()
        try:
            network(torch.zeros(1, 3, side, side))
        except Exception as error:  # networks check their input in ways of their own
            settings = timm.models.get_pretrained_cfg(name.removeprefix(TIMM))
            known = settings.input_size[-1] if settings else 224
            raise ValueError(
                f"'{name}' cannot take images of {side} px: choose another size ({known} px is its own, --size {known}), or "
                "another network"
            ) from error


def _require_map(features: Tensor, network: nn.Module, name: str) -> tuple[int, int]:
    """Number of channels and height of a feature map; ValueError for anything else."""
    shape = tuple(getattr(features, "shape", ()))
    if len(shape) != 4 or shape[1] != network.num_features:
        raise ValueError(
            f"'{name}' returns no feature map (B, D, h, w): for one image it returns {shape or type(features).__name__}; "
            "choose a convolutional network, such as timm:resnet18"
        )
    return shape[1], shape[2]


def _groups(network: nn.Module) -> list[list[str]]:
    """Names of the layers of the stem and of each stage, as timm groups them."""
    from timm.models import group_modules

    if not hasattr(network, "group_matcher"):
        return [[]]
    groups = group_modules(network, network.group_matcher(coarse=True))
    return [[f"0.network.{name}" for name in groups[key]] for key in sorted(groups)]
