"""Learning from hard labels: the baseline (BCE, UD Eq. 3) and the two-branch network (BCE + λ · PAL-N, UD Eq. 12).

Trained: a backbone with both heads, from a random start or torchvision's weights. λ = 0 is the baseline; it has no
calibration branch, and otherwise the same start and the same batches as any other λ of that seed, so that results
pair up by seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from udlib.heads import DualBranchNet
from udlib.losses import (
    Scale,
    asymmetric_loss,
    dual_branch_loss,
    focal_loss,
    label_smoothing_loss,
    one_over_k_softmax_loss,
    pal_n_loss,
)
from udlib.losses.reductions import weighted_mean
from udlib.methods.base import Method, Recipe, Stage, Stages, make_network, two_branch_network
from udlib.methods.moved import moved_names
from udlib.training.batches import ArrayData, Batch

__all__ = ["LOSSES", "METHOD", "Settings", "Supervised", "make_network", "supervised_loss"]

SOFTMAX = ("softmax", "one-over-k")  # losses that leave the level of the logits free
LOSSES = ("ova", "label-smoothing", *SOFTMAX, "focal", "asymmetric")


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training."""

    lam: float = 0.0  # λ of Eq. 12; 0 is the baseline, the paper's choice is 0.1
    scale: Scale = "paper"  # or "released", the repaired sums and means of the released code
    loss: str = "ova"  # of the classifier: one of `LOSSES`
    temperature: float = 3.0  # of the partial softmax in loss="softmax"
    smoothing: float = 9.0  # target logits ±9 of loss="label-smoothing"
    gamma: float = 2.0  # of the focal loss

    def __post_init__(self):
        supervised_loss(**asdict(self))


class Supervised(Method):
    """Hard labels: one network, one stage."""

    name = "supervised"
    Settings = Settings

    def build(self, recipe: Recipe, num_classes: int, weights: str | None = None) -> DualBranchNet:
        """A backbone with both heads; without the calibration branch for λ = 0."""
        return two_branch_network(recipe, num_classes, recipe.settings.lam, weights)

    def scores(self, recipe: Recipe) -> str:
        """Logits that a softmax loss trained alone have no level."""
        return "softmax" if recipe.settings.loss in SOFTMAX else "sigmoid"

    def stages(self, recipe: Recipe, data: ArrayData, teachers: Mapping[str, Any]) -> Stages:
        """Hard labels until the end."""
        network = self.new_network(recipe, data.targets.shape[1])
        yield Stage(network, supervised_loss(**asdict(recipe.settings)), data, recipe.training)
        return network


METHOD = Supervised()


def supervised_loss(
    lam: float = 0.1,
    scale: Scale = "paper",
    loss: str = "ova",
    temperature: float = 3.0,
    smoothing: float = 9.0,
    gamma: float = 2.0,
) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` for `training.fit`: L_b + λ L_ps, with the terms "ova" and "pal_n".

    A `loss` other than "ova" stands alone, at λ = 0, on the classifier: "softmax" is the partial softmax,
    "label-smoothing" pulls towards logits of ±`smoothing`, summed over classes as Eq. 3 is, "one-over-k" is the full
    softmax of Eq. 4, and "focal" and "asymmetric" are the losses of those names, the latter with its usual focus.

    Args:
        lam: λ, at least 0.
        scale: that of `losses.dual_branch_loss`.
        loss: one of `LOSSES`.
        temperature: of the partial softmax.
        smoothing: size of the target logits.
        gamma: γ of the focal loss, at least 0.

    Raises:
        ValueError: for λ < 0, γ < 0, an unknown loss, or another loss than "ova" beside λ > 0.

    Source:
        UD (Song et al., 2021), Eq. 12 and Table 5.
    """
    if not 0 <= lam < math.inf:
        raise ValueError(f"lam is {lam}: expected at least 0, and finite")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma is {gamma}: expected at least 0, and finite")
    if loss not in LOSSES:
        raise ValueError(f"loss is '{loss}': choose one of {', '.join(LOSSES)}")
    if loss != "ova" and lam > 0:
        raise ValueError(f"loss is '{loss}' and lam is {lam}, but the branch works only with 'ova': set lam to 0")
    losses = {
        "softmax": lambda z, y, ignore: pal_n_loss(z, y, ignore, "none", temperature),
        # `label_smoothing_loss` is a mean over classes, and the other losses are sums.
        "label-smoothing": lambda z, y, ignore: z.shape[1] * label_smoothing_loss(z, y, ignore, "none", smoothing),
        "one-over-k": lambda z, y, ignore: one_over_k_softmax_loss(z, y, ignore, "none"),
        "focal": lambda z, y, ignore: focal_loss(z, y, gamma, ignore, "none"),
        "asymmetric": lambda z, y, ignore: asymmetric_loss(z, y, ignore=ignore, reduction="none"),
    }

    def loss_fn(network: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        prediction = network(batch.images, calibration=lam > 0)
        if loss != "ova":
            per_image = losses[loss](prediction.logits, batch.targets, batch.ignore)
            return {"total": weighted_mean(per_image, batch.weights)}
        return dual_branch_loss(prediction, batch.targets, lam, batch.ignore, scale, batch.weights)

    return loss_fn


__getattr__ = moved_names(
    __name__,
    train_supervised="udlib.workshop.old_names:train_supervised",
    on_validation="udlib.training.prediction:on_validation",
)
