"""Parallel Self-Distillation (PSD; Xu et al., 2022): teachers of a few classes each, and a student of all of them.

The classes are cut into k parts twice: into those that often stand in one image (CGP, the co-occurrence partition) and
into those that seldom do (DGP, the dis-occurrence partition). Each part has a teacher, a network like the student whose
head knows that part alone, trained on all images by the asymmetric loss (ASL). The student learns from the labels, by
ASL too, and from the logits of both groups of teachers. Its controls are settings: ASL without a teacher above all,
or what the loss does is taken for what the teachers do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import Dataset

from udlib.heads import DualBranchNet
from udlib.losses import asymmetric_loss
from udlib.methods.distillation import Ask, Taught, answers, few_views, stored_answers
from udlib.methods.parallel.partitions import (
    Parts,
    cooccurrence_partition,
    disoccurrence_partition,
    label_affinity,
    random_partition,
    require_partition,
    stored_partition,
)
from udlib.methods.supervised import make_network, on_validation
from udlib.training.batches import ArrayData, Batch, as_data
from udlib.training.checkpoints import fingerprint
from udlib.training.devices import keeps_devices, make_accelerator
from udlib.training.loop import WATCHING, History, TrainingConfig, fit, mixed_seed

__all__ = [
    "Settings",
    "build",
    "cooccurrence_partition",
    "disoccurrence_partition",
    "label_affinity",
    "needs",
    "parallel_loss",
    "partitions",
    "random_partition",
    "require_partition",
    "scattered",
    "stored_partition",
    "train",
    "train_parallel",
]

STRATEGIES = ("both", "CGP", "DGP", "random")
GROUPS = ("co", "dis")  # of teachers: those of the co-occurrence partition, and of the other


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training.

    Partitions stand here as parts of class numbers, as `partitions` finds them, so that a recipe says by itself what is
    trained. With both, it is PSD; with one of them, a control; with one part of all classes, plain self-distillation; with
    neither, ASL without a teacher, which is what the teachers themselves are (`Recipe.classes` restricts them).

    The paper trains by Adam in one cycle with `warm_up=0.1` and a running average of the weights, `ema=0.065`: fields of
    `TrainingConfig`, which hold for teachers and student alike.
    """

    co: tuple[tuple[int, ...], ...] = ()  # the co-occurrence partition, or what takes its place
    dis: tuple[tuple[int, ...], ...] = ()  # the dis-occurrence partition
    alpha: float = 0.5  # weight of the co-occurrence teachers beside the others' 1 - alpha; counts where there are both

    def __post_init__(self):
        for group in GROUPS:
            object.__setattr__(self, group, tuple(tuple(part) for part in getattr(self, group)))
        for parts in self.groups().values():
            require_partition(parts, sum(map(len, parts)))
        if len({sum(map(len, parts)) for parts in self.groups().values()}) > 1:
            raise ValueError(f"co {self.co} and dis {self.dis} are partitions of different numbers of classes")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}: expected a weight in [0, 1]")

    def groups(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """The partitions that there are, by group."""
        return {group: parts for group in GROUPS if (parts := getattr(self, group))}

    def teachers(self) -> dict[str, tuple[int, ...]]:
        """The classes of each teacher by its name, "co 1" and so on."""
        return {
            f"{group} {number}": part for group, parts in self.groups().items() for number, part in enumerate(parts, 1)
        }

    @property
    def share(self) -> float:
        """α of `parallel_loss`: all of it for one group of teachers where there is no other."""
        return self.alpha if self.co and self.dis or not self.groups() else float(bool(self.co))


def needs(recipe) -> dict[str, dict]:
    """The teachers that must be trained before this recipe: for each name the choices of its own recipe."""
    own = Settings.__dataclass_fields__
    shared = {name: value for name, value in recipe.choices().items() if name not in own}
    return {
        name: shared | {"method": recipe.method, "classes": part, "seed": _seed(recipe.training, name)}
        for name, part in recipe.settings.teachers().items()
    }


def _seed(config: TrainingConfig, name: str) -> int:
    """Each teacher starts from a seed of its own, the same for every student that has a teacher of this name."""
    group, number = name.split()
    return mixed_seed(config.seed, GROUPS.index(group), int(number))


def build(recipe, num_classes: int) -> DualBranchNet:
    """The student of a recipe (see `experiments.Recipe`) from a random start, for trained weights to be loaded into."""
    return make_network(num_classes, 0.0, recipe.network, None, recipe.pooling, recipe.embedding, recipe.bias)


def train(
    recipe, data: ArrayData, validation: ArrayData | None, checkpoint=None, **options
) -> tuple[DualBranchNet, History]:
    """Train a recipe of this method, with validation and a checkpoint every five epochs, unless `options` of
    `training.fit` say otherwise. The teachers may stand among them, by the names in `needs`; else they are trained too."""
    teachers = {name: options.pop(name) for name in recipe.settings.teachers() if name in options}
    usual = {"keep": recipe.keep, "validate_every": 5, "checkpoint_every": 5, "identity": recipe.flat()}
    return train_parallel(
        data,
        recipe.training,
        recipe.settings,
        teachers=teachers,
        network=recipe.network,
        weights=recipe.weights,
        pooling=recipe.pooling,
        embedding=recipe.embedding,
        bias=recipe.bias,
        validation=validation,
        checkpoint=checkpoint,
        **usual | options,
    )


def parallel_loss(
    logits: Tensor,
    targets: Tensor,
    co_logits: Tensor | None = None,
    dis_logits: Tensor | None = None,
    alpha: float = 0.5,
    ignore: Tensor | None = None,
) -> dict[str, Tensor]:
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
            raise ValueError(
                f"{name}_logits have shape {tuple(taught.shape)} and logits {tuple(logits.shape)}: expected "
                "one for each image and class in both"
            )
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
        raise ValueError(
            f"the teachers know {known} classes and the parts have {[len(part) for part in parts]}: "
            "give one teacher for each part, in the same order"
        )
    asked = [answers(teacher, calibration=False, attention=False) for teacher in teachers]

    def ask(batch: Batch) -> Taught:
        said = torch.cat([one(batch).logits for one in asked], 1)
        columns = torch.tensor([c for part in parts for c in part], device=said.device)
        return Taught(torch.empty_like(said).index_copy_(1, columns, said), None, None)

    return ask


def partitions(
    targets: Tensor,
    k: int = 3,
    strategy: str = "both",
    seed: int = 0,
    folder: Path | None = None,
    ignore: Tensor | None = None,
) -> dict[str, Parts]:
    """The partitions of labels `targets` (N, C) as `Settings` takes them: {"co": parts, "dis": parts}, or one of them.

    Labels that are ignored, True in `ignore` (N, C), do not count. `strategy` is "both", "CGP" or "DGP" alone, or "random",
    the control with parts of both sizes whose classes are shuffled; `seed` is that of the clustering. k = 1 is one part of all
    classes. With `folder`, what is found is stored there and read again (`stored_partition`). Raises ValueError for an
    unknown strategy, for a part without a positive label, and as `cooccurrence_partition` does.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy is '{strategy}': choose one of {', '.join(STRATEGIES)}")
    targets = targets.bool() if ignore is None else targets.bool() & ~ignore
    if k == 1:
        return {"co": [list(range(targets.shape[1]))]}
    made = {"co": ("CGP", cooccurrence_partition), "dis": ("DGP", disoccurrence_partition)}
    found = {
        group: stored_partition(folder / f"{name}.json", name, targets, k, seed) if folder else make(targets, k, seed)
        for group, (name, make) in made.items()
        if strategy in (name, "both", "random")
    }
    if strategy == "random":
        found = {
            group: random_partition(parts, mixed_seed(seed, place))
            for place, (group, parts) in enumerate(found.items())
        }
    for group, parts in found.items():
        for part in parts:
            if not targets[:, part].any():
                raise ValueError(
                    f"the {made[group][0]} part of classes {part} has no positive label to learn from: use a smaller k"
                )
    return found


@keeps_devices
def train_parallel(
    data: ArrayData | Dataset,
    config: TrainingConfig = TrainingConfig(),
    settings: Settings = Settings(),
    *,
    teachers: Mapping[str, DualBranchNet] | None = None,
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
    validation: ArrayData | Dataset | None = None,
    checkpoint: str | Path | None = None,
    identity: Mapping[str, object] | None = None,
    on_teacher: Callable[[str, Sequence[int]], None] | None = None,
    only: str | None = None,
    **options,
) -> tuple[DualBranchNet, History]:
    """Train the teachers of each part one after the other, then the student; the same seed gives the same student.

    Teachers and student are of one `network` and train by one `config`, each teacher from a seed of its own; a student
    starts as any network of that seed does. With `teachers` given by their names ("co 1", …), the student alone is trained.
    Each has a checkpoint folder of its own (`co 1`, …, `student`), so that a kill at any moment is resumed to the same
    student. Before each teacher `on_teacher(name, classes)` is called. What validates, selects and looks on is the student's,
    and so is the history; its first row has `teachers_seconds`. Other arguments and errors are those of
    `supervised.train_supervised`; ValueError for teachers that do not go with the partitions.

    With `only`, the name of a teacher, that one alone is trained and returned: several processes may so share the teachers of
    one `checkpoint` folder, and the call without `only` then finds them there.
    """
    data = as_data(data).to(make_accelerator().device)
    shape = {"network": network, "weights": str(weights), "pooling": pooling}
    own = shape | {"alpha": settings.share} | (identity or {})
    folder = None if checkpoint is None else Path(checkpoint)
    for parts in settings.groups().values():
        require_partition(parts, data.targets.shape[1])

    def new(classes: int, seed: int) -> DualBranchNet:
        set_seed(seed)
        return make_network(classes, 0.0, network, weights, pooling, embedding, bias)

    shared = {name: value for name, value in options.items() if name not in WATCHING}
    trained, spent = dict(teachers or {}), 0.0
    if trained and trained.keys() != settings.teachers().keys():
        raise ValueError(f"the teachers are {', '.join(trained)}: expected {', '.join(settings.teachers()) or 'none'}")
    if only is not None and only not in settings.teachers():
        raise ValueError(
            f"there is no teacher '{only}' to train: choose one of {', '.join(settings.teachers()) or 'none'}"
        )
    for name, part in ({} if trained else settings.teachers()).items():
        if only not in (None, name):
            continue
        if on_teacher is not None:
            on_teacher(name, part)
        seed, columns = _seed(config, name), list(part)
        trained[name] = new(len(part), seed)
        restricted = {
            what: None if (value := getattr(data, what)) is None else value[:, columns]
            for what in ("targets", "ignore", "difficult")
        }
        history = fit(
            trained[name],
            replace(data, **restricted),
            _asked({}, 0.5),
            replace(config, seed=seed),
            identity=own | {"classes": columns},
            checkpoint=folder and folder / name,
            **shared,
        )
        spent += sum(history.column("seconds"))
        if only == name:
            return trained[name], history
    asks = {}
    for group, parts in settings.groups().items():
        asks[group] = scattered([trained[f"{group} {number}"] for number in range(1, len(parts) + 1)], parts)
        if stored := few_views(data, config, options):
            asks[group] = stored_answers(asks[group], *stored)
    if validation is not None:
        options["validate"] = on_validation(validation, config)
    if trained:  # a checkpoint of the student belongs to these teachers and no others
        tensors = {f"{name}/{key}": value for name, one in trained.items() for key, value in one.state_dict().items()}
        own |= {"teachers": fingerprint(tensors)}
    model = new(data.targets.shape[1], config.seed)
    history = fit(
        model,
        data,
        _asked(asks, settings.share),
        config,
        identity=own,
        checkpoint=folder and folder / "student",
        **options,
    )
    history.rows[0]["teachers_seconds"] = spent
    return model, history


def _asked(asks: Mapping[str, Ask], alpha: float):
    """`loss_fn(model, batch)` for `training.fit`: `parallel_loss` of what these groups of teachers say, or ASL alone."""

    def loss_fn(model: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        said = {group: ask(batch).logits for group, ask in asks.items()}
        return parallel_loss(
            model(batch.images, calibration=False).logits,
            batch.targets,
            said.get("co"),
            said.get("dis"),
            alpha,
            batch.ignore,
        )

    return loss_fn
