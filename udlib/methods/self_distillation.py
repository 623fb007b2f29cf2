"""Self-distillation (UD, section 5.3.2 and Table 4): a network's best self so far becomes its teacher after a restart.

First `epochs` epochs on hard labels (Eq. 12). Then the weights of the epoch that did best on validation are the teacher,
the last weights go on training with a fresh optimiser and the learning rate's schedule from its start, on Eq. 18, for
`epochs` more. With `distil=False` the second half stays on hard labels: what the restart alone is worth.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate.utils import set_seed
from torch.utils.data import Dataset

from udlib.heads import DualBranchNet
from udlib.methods.distillation import distillation_loss, few_views
from udlib.methods.supervised import make_network, on_validation, supervised_loss
from udlib.training.batches import ArrayData, as_data
from udlib.training.checkpoints import fingerprint
from udlib.training.devices import make_accelerator
from udlib.training.loop import History, TrainingConfig, fit, mixed_seed


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training; `epochs` are those of each half."""

    lam: float = 0.1  # λ of the first half (Eq. 12)
    distil: bool = True  # or False, hard labels after the restart too
    alpha: float = 0.5  # weight of the prediction distribution, Eq. 14
    beta: float = 0.5  # weight of the attention, Eq. 17
    temperature: float = 1.0
    normalize: bool = False


def build(recipe, num_classes: int) -> DualBranchNet:
    """The network of a recipe (see `experiments.Recipe`) from a random start, for trained weights to be loaded into."""
    return make_network(
        num_classes, recipe.settings.lam, recipe.network, None, recipe.pooling, recipe.embedding, recipe.bias
    )


def train(recipe, data: ArrayData, validation: ArrayData, checkpoint=None) -> tuple[DualBranchNet, History]:
    """Train a recipe of this method, with validation and a checkpoint every five epochs of each half."""
    chosen = recipe.settings
    return train_self_distilled(
        data,
        validation,
        recipe.training,
        lam=chosen.lam,
        distil=chosen.distil,
        alpha=chosen.alpha,
        beta=chosen.beta,
        temperature=chosen.temperature,
        normalize=chosen.normalize,
        network=recipe.network,
        weights=recipe.weights,
        pooling=recipe.pooling,
        embedding=recipe.embedding,
        bias=recipe.bias,
        validate_every=5,
        keep=recipe.keep,
        checkpoint=checkpoint,
        checkpoint_every=5,
        identity=recipe.flat(),
    )


def train_self_distilled(
    data: ArrayData | Dataset,
    validation: ArrayData | Dataset,
    config: TrainingConfig = TrainingConfig(),
    *,
    lam: float = 0.1,
    distil: bool = True,
    alpha: float = 0.5,
    beta: float = 0.5,
    temperature: float = 1.0,
    normalize: bool = False,
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
    keep: str = "last",
    checkpoint: str | Path | None = None,
    **options,
) -> tuple[DualBranchNet, History]:
    """Train twice `config.epochs` epochs with one restart; rows of the history carry on counting, with `half` 1 and 2.

    `lam` is that of `supervised.supervised_loss`, `alpha` to `normalize` those of `distillation.distillation_loss`. The
    halves have a checkpoint each, in `checkpoint/1` and `checkpoint/2`, so that a kill at any moment, the restart
    included, is resumed to the same network. Batches of the second half come in another order than those of the first.
    Other arguments and errors are those of `supervised.train_supervised`.
    """
    data = as_data(data).to(make_accelerator().device)
    options["validate"] = on_validation(validation, config)
    settings = {
        "lam": lam,
        "distil": distil,
        "alpha": alpha,
        "beta": beta,
        "temperature": temperature,
        "normalize": normalize,
        "network": network,
        "weights": str(weights),
        "pooling": pooling,
    }
    identity = settings | (options.pop("identity", None) or {})
    folders = [None, None] if checkpoint is None else [Path(checkpoint) / half for half in ("1", "2")]

    set_seed(config.seed)
    model = make_network(data.targets.shape[1], lam, network, weights, pooling, embedding, bias)
    hard = supervised_loss(lam)
    if distil:
        distillation_loss(model, alpha, beta, temperature, normalize)  # refuse wrong settings now, not at the restart
    first = fit(model, data, hard, config, identity=identity, checkpoint=folders[0], **options)

    loss_fn = hard
    if distil:
        teacher = copy.deepcopy(model)
        teacher.load_state_dict(first.best_weights)
        loss_fn = distillation_loss(
            teacher, alpha, beta, temperature, normalize, stored=few_views(data, config, options)
        )
    # A checkpoint of the second half belongs to this first half and no other.
    found = {"last": model.state_dict(), "best": first.best_weights}
    identity |= {
        "first half": fingerprint({f"{which}/{k}": v for which, part in found.items() for k, v in part.items()})
    }
    again = replace(config, seed=mixed_seed(config.seed, 2))
    second = fit(model, data, loss_fn, again, identity=identity, checkpoint=folders[1], keep=keep, **options)

    rows = [
        row | {"half": half, "epoch": row["epoch"] + (half - 1) * config.epochs}
        for half, history in ((1, first), (2, second))
        for row in history.rows
    ]
    best = None if second.best_epoch is None else second.best_epoch + config.epochs
    return model, History(rows, best, second.best_weights)
