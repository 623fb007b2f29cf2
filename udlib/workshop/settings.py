"""The recipe of a training on data of one's own."""

from __future__ import annotations

from typing import Any

from udlib.backbones import LITE, SMALL_WIDTHS, TIMM, require_known
from udlib.methods import recipe
from udlib.methods.base import Recipe
from udlib.methods.full_size import full_size
from udlib.models import TrainedModel
from udlib.workshop.starts import NewHead

# How the course fine-tunes on photographs (data/README.md), with more epochs and at the usual size, for data of any size.
FINE_TUNING: dict[str, Any] = {
    "size": 224,
    "embedding": 512,
    "optimizer": "adamw",
    "lr": 5e-4,
    "head_lr": 1e-3,
    "epochs": 12,
    "batch_size": 32,
}
FROM_IMAGENET: dict[str, Any] = {"weights": "IMAGENET1K", "freeze": 3}


def settings(
    method: str = "supervised",
    network: str | None = None,
    crop: bool = False,
    start: TrainedModel | NewHead | None = None,
    **choices,
) -> Recipe:
    """Make the recipe of a training on data of one's own.

    The small networks train from scratch as in the course. torchvision's start from ImageNet and are fine-tuned at 448 px
    as in the profile "full". EfficientNet-Lite is fine-tuned at 224 px as on the course's photographs (`FINE_TUNING`). So are
    timm's networks, none of whose stages is frozen; they start at random, since weights="pretrained" may need a download.
    weights="none" starts any network at random. With `crop`, training sees multi-scale crops as large as `size` says, out of
    images 8/7 as large, as the released code does (448 of 512), or 8/7 as large as a larger `teacher_size`.

    Args:
        method: a method's name.
        network: one of `backbones.NAMES`, or "timm:NAME"; None: that of the start, or else "small".
        crop: whether to train on crops.
        start: the trained model that the training is to begin with, if any; its image size is the default.
        choices: fields of a recipe; what is None has the default of such a network.

    Raises:
        ValueError: for an unknown network or field, and for weights beside a start.

    Example:
        >>> settings(network="resnet18", epochs=5).size, settings(lam=0.1).training.optimizer
        (448, 'adam')
    """
    model = start.model if isinstance(start, NewHead) else start
    if model is not None:
        choices["size"] = choices.get("size") or model.size
        if choices.get("weights") not in (None, "none"):
            raise ValueError(
                f"weights are '{choices['weights']}', and the training begins with those of a trained model: leave one of the "
                "two out (--weights or --from; in Python weights or start)"
            )
    if network is None:
        network = model.backbone if model else "small"
    require_known(network, "network")
    defaults = recipe(method) if network in SMALL_WIDTHS else full_size(recipe(method))
    if network in LITE or network.startswith(TIMM):
        defaults = recipe(method, **FINE_TUNING)
    if network in LITE and choices.get("weights") != "none":
        defaults = defaults.but(**FROM_IMAGENET)
    changes = {name: value for name, value in choices.items() if value is not None}
    if changes.get("weights") == "none":
        changes["weights"] = None
    if crop:
        side = changes.get("size", defaults.size)
        stored = max(side, changes.get("teacher_size", 0))
        changes |= {"size": round(stored * 8 / 7), "crop": side}
    return defaults.but(network=network, **changes)
