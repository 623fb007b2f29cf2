"""Learning from hard labels: the baseline (BCE, UD Eq. 3) and the two-branch network (BCE + λ · PAL-N, UD Eq. 12).

Trained: a backbone with both heads, from a random start or torchvision's weights. λ = 0 is the baseline; it has no
calibration branch, and otherwise the same start and the same batches as any other λ of that seed, so that results
pair up by seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import Dataset

from udlib.backbones import backbone
from udlib.heads import DualBranchNet
from udlib.losses import dual_branch_loss, label_smoothing_loss, one_over_k_softmax_loss, pal_n_loss
from udlib.training.batches import ArrayData, Batch, as_data
from udlib.training.loop import History, TrainingConfig, evaluate, fit


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training."""

    lam: float = 0.0  # λ of Eq. 12; 0 is the baseline, the paper's choice is 0.1
    scale: str = "paper"  # or "released", the repaired sums and means of the released code
    loss: str = "ova"  # of the classifier; the others are the hard-label rows of Table 5
    temperature: float = 3.0  # of the partial softmax in loss="softmax"
    smoothing: float = 9.0  # target logits ±9 of loss="label-smoothing"

    def __post_init__(self):
        supervised_loss(**asdict(self))


SOFTMAX = ("softmax", "one-over-k")  # losses that leave the level of the logits free
LOSSES = ("ova", "label-smoothing", *SOFTMAX)


def scores(recipe) -> str:
    """How a recipe's logits are to be read: "sigmoid", or "softmax" where only differences of logits mean anything."""
    return "softmax" if recipe.settings.loss in SOFTMAX else "sigmoid"


def build(recipe, num_classes: int) -> DualBranchNet:
    """The network of a recipe (see `experiments.Recipe`) from a random start, for trained weights to be loaded into."""
    return make_network(
        num_classes, recipe.settings.lam, recipe.network, None, recipe.pooling, recipe.embedding, recipe.bias
    )


def train(
    recipe, data: ArrayData, validation: ArrayData | None, checkpoint=None, **options
) -> tuple[DualBranchNet, History]:
    """Train a recipe of this method, with validation and a checkpoint every five epochs, unless `options` of
    `training.fit` say otherwise."""
    usual = {"keep": recipe.keep, "validate_every": 5, "checkpoint_every": 5, "identity": recipe.flat()}
    return train_supervised(
        data,
        recipe.training,
        lam=recipe.settings.lam,
        scale=recipe.settings.scale,
        loss=recipe.settings.loss,
        temperature=recipe.settings.temperature,
        smoothing=recipe.settings.smoothing,
        network=recipe.network,
        weights=recipe.weights,
        pooling=recipe.pooling,
        embedding=recipe.embedding,
        bias=recipe.bias,
        validation=validation,
        checkpoint=checkpoint,
        **usual | options,
    )


def make_network(
    num_classes: int,
    lam: float,
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
) -> DualBranchNet:
    """A backbone with both heads; without the calibration branch for λ = 0, which does not train one."""
    return DualBranchNet(backbone(network, weights), num_classes, pooling, embedding, lam > 0, bias)


def supervised_loss(
    lam: float = 0.1, scale: str = "paper", loss: str = "ova", temperature: float = 3.0, smoothing: float = 9.0
) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """`loss_fn(model, batch)` for `training.fit`: L_b + λ L_ps (UD, Eq. 12), with the terms "ova" and "pal_n".

    `scale` is that of `losses.dual_branch_loss`. A `loss` other than "ova" stands alone, at λ = 0, on the classifier
    (UD, Table 5): "softmax", the partial softmax with this `temperature`; "label-smoothing", towards logits of
    ±`smoothing`, summed over classes as Eq. 3 is; "one-over-k", the full softmax of Eq. 4. Raises ValueError for λ < 0,
    an unknown loss, or another loss than "ova" beside λ > 0.
    """
    if not 0 <= lam < math.inf:
        raise ValueError(f"lam is {lam}: expected at least 0, and finite")
    if loss not in LOSSES:
        raise ValueError(f"loss is '{loss}': choose one of {', '.join(LOSSES)}")
    if loss != "ova" and lam > 0:
        raise ValueError(f"loss is '{loss}' with lam {lam}: the calibration branch stands beside 'ova' only")
    alone = {
        "softmax": lambda z, y, ignore: pal_n_loss(z, y, ignore, temperature=temperature),
        "label-smoothing": lambda z, y, ignore: z.shape[1] * label_smoothing_loss(z, y, ignore, target_logit=smoothing),
        "one-over-k": one_over_k_softmax_loss,
    }

    def loss_fn(model: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        prediction = model(batch.images, calibration=lam > 0)
        if loss != "ova":
            return {"total": alone[loss](prediction.logits, batch.targets, batch.ignore)}
        return dual_branch_loss(prediction, batch.targets, lam=lam, ignore=batch.ignore, scale=scale)

    return loss_fn


def on_validation(
    data: ArrayData | Dataset, config: TrainingConfig, scores: str = "sigmoid"
) -> Callable[[DualBranchNet], dict[str, float]]:
    """`validate(model)` for `training.fit`: `training.evaluate` on these images, as `config` computes."""
    held_out = as_data(data)
    return lambda model: evaluate(
        model, held_out, scores, precision=config.precision, prepare=config.prepare, workers=config.workers
    )


def train_supervised(
    data: ArrayData | Dataset,
    config: TrainingConfig = TrainingConfig(),
    *,
    lam: float = 0.1,
    scale: str = "paper",
    loss: str = "ova",
    temperature: float = 3.0,
    smoothing: float = 9.0,
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
    validation: ArrayData | Dataset | None = None,
    **options,
) -> tuple[DualBranchNet, History]:
    """Build `network` with both heads and train it on `data`; the same seed gives the same network.

    `weights`, `pooling`, `embedding` and `bias` are those of `backbones.backbone` and `heads.DualBranchNet`. On `validation`,
    if given, each epoch is evaluated (`training.evaluate`). `options` go to `training.fit` (checkpoint, keep, …).
    """
    data = as_data(data)
    loss_fn = supervised_loss(lam, scale, loss, temperature, smoothing)
    set_seed(config.seed)
    model = make_network(data.targets.shape[1], lam, network, weights, pooling, embedding, bias)
    if validation is not None:
        options["validate"] = on_validation(validation, config, "softmax" if loss in SOFTMAX else "sigmoid")
    identity = {
        "lam": lam,
        "scale": scale,
        "loss": loss,
        "temperature": temperature,
        "smoothing": smoothing,
        "network": network,
        "weights": str(weights),
        "pooling": pooling,
    }
    identity |= options.pop("identity", None) or {}
    history = fit(model, data, loss_fn, config, identity=identity, **options)
    return model, history
