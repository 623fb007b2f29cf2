"""Learning from hard labels: the baseline (BCE, UD Eq. 3) and the two-branch network (BCE + λ · PAL-N, UD Eq. 12).

Trained: a backbone with both heads, from a random start or torchvision's weights. λ = 0 is the baseline; it has no
calibration branch, and otherwise the same start and the same batches as any other λ of that seed, so that results
pair up by seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import Dataset

from udlib.backbones import backbone
from udlib.batches import ArrayData, Batch, as_data
from udlib.heads import DualBranchNet
from udlib.losses import dual_branch_loss
from udlib.training import History, TrainingConfig, evaluate, fit


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training."""

    lam: float = 0.0  # λ of Eq. 12; 0 is the baseline, the paper's choice is 0.1
    scale: str = "paper"  # or "released", the repaired sums and means of the released code


def build(recipe, num_classes: int) -> DualBranchNet:
    """The network of a recipe (see `experiments.Recipe`) from a random start, for trained weights to be loaded into."""
    return make_network(num_classes, recipe.settings.lam, recipe.network, None, recipe.pooling, recipe.embedding)


def train(recipe, data: ArrayData, validation: ArrayData, checkpoint=None) -> tuple[DualBranchNet, History]:
    """Train a recipe of this method, with validation and a checkpoint every five epochs."""
    return train_supervised(
        data, recipe.training, lam=recipe.settings.lam, scale=recipe.settings.scale, network=recipe.network,
        weights=recipe.weights, pooling=recipe.pooling, embedding=recipe.embedding, validation=validation,
        validate_every=5, keep=recipe.keep, checkpoint=checkpoint, checkpoint_every=5, identity=recipe.flat(),
    )


def make_network(
    num_classes: int, lam: float, network: str = "small", weights=None, pooling: str = "avg", embedding: int = 512
) -> DualBranchNet:
    """A backbone with both heads; without the calibration branch for λ = 0, which does not train one."""
    return DualBranchNet(backbone(network, weights), num_classes, pooling, embedding, calibration=lam > 0)


def supervised_loss(lam: float = 0.1, scale: str = "paper") -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """`loss_fn(model, batch)` for `training.fit`: L_b + λ L_ps (UD, Eq. 12), with the terms "ova" and "pal_n".

    `scale` is that of `losses.dual_branch_loss`. Raises ValueError for λ < 0.
    """
    if not lam >= 0:
        raise ValueError(f"lam is {lam}: expected at least 0")

    def loss_fn(model: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        prediction = model(batch.images, calibration=lam > 0)
        return dual_branch_loss(prediction, batch.targets, lam=lam, ignore=batch.ignore, scale=scale)

    return loss_fn


def train_supervised(
    data: ArrayData | Dataset,
    config: TrainingConfig = TrainingConfig(),
    *,
    lam: float = 0.1,
    scale: str = "paper",
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    validation: ArrayData | Dataset | None = None,
    **options,
) -> tuple[DualBranchNet, History]:
    """Build `network` with both heads and train it on `data`; the same seed gives the same network.

    `weights`, `pooling` and `embedding` are those of `backbones.backbone` and `heads.DualBranchNet`. On `validation`,
    if given, each epoch is evaluated (`training.evaluate`). `options` go to `training.fit` (checkpoint, keep, …).
    """
    data = as_data(data)
    set_seed(config.seed)
    model = make_network(data.targets.shape[1], lam, network, weights, pooling, embedding)
    if validation is not None:
        held_out = as_data(validation)
        options["validate"] = lambda model: evaluate(
            model, held_out, precision=config.precision, workers=config.workers
        )
    identity = {"lam": lam, "scale": scale, "network": network, "weights": str(weights), "pooling": pooling}
    identity |= options.pop("identity", None) or {}
    history = fit(model, data, supervised_loss(lam, scale), config, identity=identity, **options)
    return model, history
