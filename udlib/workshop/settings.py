"""The recipe of a training on data of one's own."""

from __future__ import annotations

from udlib.backbones import LITE, SMALL_WIDTHS, TIMM, require_known
from udlib.methods import recipe
from udlib.methods.base import Recipe
from udlib.methods.full_size import full_size


def settings(method: str = "supervised", network: str = "small", crop: bool = False, **choices) -> Recipe:
    """Make the recipe of a training on data of one's own.

    The small networks train from scratch as in the course. torchvision's start from ImageNet and are fine-tuned at 448 px
    as in the profile "full"; EfficientNet-Lite and timm's are fine-tuned likewise at 224 px. weights="none" starts them at
    random. With `crop`, training sees multi-scale crops as large as `size` says, out of images 8/7 as large, as the released
    code does (448 of 512).

    Args:
        method: a method's name.
        network: one of `backbones.NAMES`, or "timm:NAME".
        crop: whether to train on crops.
        choices: fields of a recipe; what is None has the default of such a network.

    Raises:
        ValueError: for an unknown network or field.

    Example:
        >>> settings(network="resnet18", epochs=5).size, settings(lam=0.1).training.optimizer
        (448, 'adam')
    """
    require_known(network, "network")
    defaults = recipe(method) if network in SMALL_WIDTHS else full_size(recipe(method))
    if network in LITE or network.startswith(TIMM):
        defaults = defaults.but(size=224, weights="IMAGENET1K" if network in LITE else "pretrained")
    changes = {name: value for name, value in choices.items() if value is not None}
    if changes.get("weights") == "none":
        changes["weights"] = None
    if crop:
        side = changes.get("size", defaults.size)
        changes |= {"size": round(side * 8 / 7), "crop": side}
    return defaults.but(network=network, **changes)
