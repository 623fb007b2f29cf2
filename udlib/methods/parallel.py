"""Parallel Self-Distillation (PSD; Xu et al., 2022): teachers of a few classes each, and a student of all of them.

The classes are cut into k parts twice: into those that often stand in one image (CGP, the co-occurrence partition) and
into those that seldom do (DGP, the dis-occurrence partition). Each part has a teacher, a network like the student whose
head knows that part alone, trained on all images by the asymmetric loss (ASL). The student learns from the labels, by
ASL too, and from the logits of both groups of teachers. Its controls are settings: ASL without a teacher above all,
or what the loss does is taken for what the teachers do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import Dataset

from udlib.batches import ArrayData, Batch, as_data
from udlib.checkpoints import fingerprint
from udlib.devices import make_accelerator
from udlib.heads import DualBranchNet
from udlib.losses import asymmetric_loss
from udlib.methods._partitions import Parts, cooccurrence_partition, disoccurrence_partition, label_affinity
from udlib.methods._partitions import random_partition, require_partition, stored_partition
from udlib.methods.distillation import Ask, Taught, answers, few_views, stored_answers
from udlib.methods.supervised import make_network, on_validation
from udlib.training import History, TrainingConfig, fit, mixed_seed

__all__ = ["Settings", "build", "cooccurrence_partition", "disoccurrence_partition", "label_affinity", "parallel_loss",
           "partitions", "random_partition", "require_partition", "scattered", "stored_partition", "train", "train_parallel"]

STRATEGIES = ("both", "CGP", "DGP", "random", "none")
GROUPS = ("CGP", "DGP", "random CGP", "random DGP", "whole")  # of teachers; the place decides their seeds


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training.

    The paper trains by Adam in one cycle with `warm_up=0.1` and a running average of the weights, `ema=0.065`: fields of
    `TrainingConfig`, which hold for teachers and student alike.
    """

    k: int = 3  # parts of each partition; 1 is plain self-distillation, from one teacher of all classes
    strategy: str = "both"  # or a control: one partition alone, parts of their sizes at random, ASL without a teacher
    alpha: float = 0.5  # weight of the co-occurrence teachers beside the others' 1 - alpha; counts where there are both
    partition_seed: int = 0  # of the partitions: the same for every seed of the training, so that results pair up

    def __post_init__(self):
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy is '{self.strategy}': choose one of {', '.join(STRATEGIES)}")
        if self.k < 1:
            raise ValueError(f"k is {self.k}: expected at least 1 part")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}: expected a weight in [0, 1]")

    @property
    def teachers(self) -> int:
        """How many teachers are trained: 2k, k for one partition alone, one for k = 1, none without."""
        if self.strategy == "none":
            return 0
        return 1 if self.k == 1 else self.k * (1 if self.strategy in ("CGP", "DGP") else 2)

    @property
    def share(self) -> float:
        """α of `parallel_loss`: all of it for one group of teachers where there is no other."""
        if self.strategy != "none" and self.k == 1:
            return 1.0
        return {"CGP": 1.0, "DGP": 0.0}.get(self.strategy, self.alpha)


def build(recipe, num_classes: int) -> DualBranchNet:
    """The student of a recipe (see `experiments.Recipe`) from a random start, for trained weights to be loaded into."""
    return make_network(num_classes, 0.0, recipe.network, None, recipe.pooling, recipe.embedding, recipe.bias)


def train(recipe, data: ArrayData, validation: ArrayData | None, checkpoint=None, **options
          ) -> tuple[DualBranchNet, History]:
    """Train a recipe of this method, with validation and a checkpoint every five epochs, unless `options` of
    `training.fit` say otherwise."""
    usual = {"keep": recipe.keep, "validate_every": 5, "checkpoint_every": 5, "identity": recipe.flat()}
    return train_parallel(
        data, recipe.training, recipe.settings, network=recipe.network, weights=recipe.weights, pooling=recipe.pooling,
        embedding=recipe.embedding, bias=recipe.bias, validation=validation, checkpoint=checkpoint, **usual | options,
    )


def parallel_loss(logits: Tensor, targets: Tensor, co_logits: Tensor | None = None, dis_logits: Tensor | None = None,
                  alpha: float = 0.5, ignore: Tensor | None = None) -> dict[str, Tensor]:
    """½ ASL(z, y) + ½ α ‖z − z_co‖² + ½ (1 − α) ‖z − z_dis‖² (PSD) → "total", and the terms "asymmetric",
    "co" and "dis" unweighted.

    All (N, C); the teachers' logits are detached. ASL and the squared distances are sums over classes and means over images;
    an ignored label is left out of all three. Teachers whose weight is 0 may be None. With no teachers at all, the total is
    ASL alone and undivided. Raises ValueError for α outside [0, 1], missing teachers, another shape, and as
    `losses.asymmetric_loss` does.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: expected a weight in [0, 1]")
    terms = {"asymmetric": asymmetric_loss(logits, targets, ignore=ignore)}
    if co_logits is None and dis_logits is None:
        return {"total": terms["asymmetric"], **terms}
    total = terms["asymmetric"] / 2
    for name, taught, weight in (("co", co_logits, alpha), ("dis", dis_logits, 1 - alpha)):
        if taught is None:
            if weight > 0:
                raise ValueError(f"alpha is {alpha} but {name}_logits is None: pass it, or alpha={int(name == 'dis')}")
            continue
        if taught.shape != logits.shape:
            raise ValueError(f"{name}_logits have shape {tuple(taught.shape)} and logits {tuple(logits.shape)}: expected "
                             "one for each image and class in both")
        apart = logits.float() - taught.detach().float()
        terms[name] = (apart if ignore is None else apart.masked_fill(ignore, 0)).square().sum(1).mean()
        total = total + weight / 2 * terms[name]
    return {"total": total, **terms}


def scattered(teachers: Sequence[DualBranchNet], parts: Sequence[Sequence[int]]) -> Ask:
    """`ask(batch)`: what the teachers of one partition say together, each in the columns of its part: logits (N, C).

    The teachers are put in eval mode. Raises ValueError unless parts and teachers go together and each class has its own.
    """
    num_classes = sum(map(len, parts))
    require_partition(parts, num_classes)
    known = [teacher.eval().head.classification.out_features for teacher in teachers]
    if known != [len(part) for part in parts]:
        raise ValueError(f"the teachers know {known} classes and the parts have {[len(part) for part in parts]}: "
                         "give one teacher for each part, in the same order")
    asked = [answers(teacher, calibration=False, attention=False) for teacher in teachers]

    def ask(batch: Batch) -> Taught:
        said = torch.cat([one(batch).logits for one in asked], 1)
        columns = torch.tensor([c for part in parts for c in part], device=said.device)
        return Taught(torch.empty_like(said).index_copy_(1, columns, said), None, None)

    return ask


def partitions(data: ArrayData, settings: Settings, folder: Path | None = None) -> dict[str, Parts]:
    """The parts of each group of teachers that a recipe has, of labels that are not ignored; stored in `folder`."""
    k, seed = settings.k, settings.partition_seed
    if settings.strategy == "none":
        return {}
    if k == 1:
        return {"whole": [list(range(data.targets.shape[1]))]}
    targets = data.targets.bool() if data.ignore is None else data.targets.bool() & ~data.ignore
    made = {"CGP": cooccurrence_partition, "DGP": disoccurrence_partition}
    found = {name: stored_partition(folder / f"{name}.json", name, targets, k, seed) if folder else make(targets, k, seed)
             for name, make in made.items() if settings.strategy in (name, "both", "random")}
    if settings.strategy == "random":
        found = {f"random {name}": random_partition(parts, mixed_seed(seed, place))
                 for place, (name, parts) in enumerate(found.items())}
    for name, parts in found.items():
        for part in parts:
            if not targets[:, part].any():
                raise ValueError(f"the {name} part of classes {part} has no positive label to learn from: use a smaller k")
    return found


def train_parallel(
    data: ArrayData | Dataset,
    config: TrainingConfig = TrainingConfig(),
    settings: Settings = Settings(),
    *,
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
    validation: ArrayData | Dataset | None = None,
    keep: str = "last",
    checkpoint: str | Path | None = None,
    identity: Mapping[str, object] | None = None,
    **options,
) -> tuple[DualBranchNet, History]:
    """Train the teachers of each part one after the other, then the student; the same seed gives the same student.

    Teachers and student are of one `network` and train by one `config`, each teacher from a seed of its own; a student
    starts as any network of that seed does. Each has a checkpoint folder of its own (`CGP 1`, …, `student`) beside the
    partitions' files, so that a kill at any moment is resumed to the same student. `validation` and `keep` are the
    student's, and so is the history; its first row has `teachers_seconds`. Other arguments and errors are those of
    `supervised.train_supervised`.
    """
    device = make_accelerator().device
    data = as_data(data).to(device)
    shape = {"network": network, "weights": str(weights), "pooling": pooling}
    identity = shape | {"strategy": settings.strategy, "alpha": settings.share} | (identity or {})
    folder = None if checkpoint is None else Path(checkpoint)
    asks, trained, spent = {}, {}, 0.0
    for name, parts in partitions(data, settings, folder).items():
        teachers = []
        for number, part in enumerate(parts, 1):
            own = replace(config, seed=mixed_seed(config.seed, GROUPS.index(name), number))
            restricted = {what: None if (value := getattr(data, what)) is None else value[:, part]
                          for what in ("targets", "ignore", "difficult")}
            set_seed(own.seed)
            teacher = make_network(len(part), 0.0, network, weights, pooling, embedding, bias)
            history = fit(teacher, replace(data, **restricted), _asked({}, 0.5), own, identity=identity | {"classes": part},
                          checkpoint=folder and folder / f"{name} {number}", **options)
            spent += sum(history.column("seconds"))
            trained |= {f"{name} {number}/{tensor}": value for tensor, value in teacher.state_dict().items()}
            teachers.append(teacher)
        asks[name] = scattered(teachers, parts)
        if stored := few_views(data, config, options):
            asks[name] = stored_answers(asks[name], *stored)
    if validation is not None:
        options["validate"] = on_validation(validation, config)
    if trained:  # a checkpoint of the student belongs to these teachers and no others
        identity |= {"teachers": fingerprint(trained)}
    set_seed(config.seed)
    model = make_network(data.targets.shape[1], 0.0, network, weights, pooling, embedding, bias)
    history = fit(model, data, _asked(asks, settings.share), config, identity=identity, keep=keep,
                  checkpoint=folder and folder / "student", **options)
    history.rows[0]["teachers_seconds"] = spent
    return model, history


def _asked(asks: Mapping[str, Ask], alpha: float):
    """`loss_fn(model, batch)` for `training.fit`: `parallel_loss` of what these groups of teachers say, or ASL alone."""
    def loss_fn(model: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        said = {"dis" if name.endswith("DGP") else "co": ask(batch).logits for name, ask in asks.items()}
        return parallel_loss(model(batch.images, calibration=False).logits, batch.targets, said.get("co"), said.get("dis"),
                             alpha, batch.ignore)
    return loss_fn
