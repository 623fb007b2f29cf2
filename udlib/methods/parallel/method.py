"""Parallel Self-Distillation (PSD; Xu et al., 2022): teachers of a few classes each, and a student of all of them.

The classes are cut into k parts twice: into those that often stand in one image (CGP, the co-occurrence partition) and
into those that seldom do (DGP, the dis-occurrence partition). Each part has a teacher, a network like the student whose
head knows that part alone, trained on all images by the asymmetric loss (ASL). The student learns from the labels, by
ASL too, and from the logits of both groups of teachers. Its controls are settings: ASL without a teacher above all,
or what the loss does is taken for what the teachers do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from udlib.heads import DualBranchNet
from udlib.losses import asymmetric_loss
from udlib.losses.reductions import weighted_mean
from udlib.methods.base import Method, Recipe, Stage, Stages, make_recipe, two_branch_network
from udlib.methods.parallel.clustering import (
    Parts,
    cooccurrence_partition,
    disoccurrence_partition,
    random_partition,
    require_partition,
    stored_partition,
)
from udlib.methods.teachers import Ask, TeacherAnswers, answers, stored_where_few
from udlib.training.batches import ArrayData, Batch
from udlib.training.optimization import TrainingConfig, mixed_seed

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
            raise ValueError(
                f"co {self.co} and dis {self.dis} have different numbers of classes: give both the same classes"
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}: expected a weight in [0, 1]")

    def groups(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """The partitions that there are, by group."""
        return {group: parts for group in GROUPS if (parts := getattr(self, group))}

    def teachers(self) -> dict[str, tuple[int, ...]]:
        """The classes of each teacher by its name, "co 1" and so on."""
        groups = self.groups().items()
        return {f"{group} {number}": part for group, parts in groups for number, part in enumerate(parts, 1)}

    @property
    def share(self) -> float:
        """α of `parallel_loss`: all of it for one group of teachers where there is no other."""
        return self.alpha if self.co and self.dis or not self.groups() else float(bool(self.co))


class ParallelSelfDistillation(Method):
    """As many teachers as there are parts, and one student of all classes."""

    name = "parallel"
    Settings = Settings
    teachers_start = True

    def needs(self, recipe: Recipe) -> dict[str, Recipe]:
        """The teachers: this method without partitions, restricted to the classes of a part."""
        own = {*Settings.__dataclass_fields__, "start"}  # a start knows all classes, a teacher some of them
        shared = {name: value for name, value in recipe.choices().items() if name not in own}
        return {
            name: make_recipe(
                self.name, Settings, **shared | {"classes": part, "seed": teacher_seed(recipe.training, name)}
            )
            for name, part in recipe.settings.teachers().items()
        }

    def build(self, recipe: Recipe, num_classes: int, weights: str | None = None) -> DualBranchNet:
        """A backbone with a classifier alone."""
        return two_branch_network(recipe, num_classes, 0.0, weights)

    def check(self, recipe: Recipe, data: ArrayData) -> None:
        """Refuse partitions of another number of classes."""
        for parts in recipe.settings.groups().values():
            require_partition(parts, data.targets.shape[1])

    def stages(self, recipe: Recipe, data: ArrayData, teachers: Mapping[str, Any]) -> Stages:
        """The labels and the teachers' logits, both until the end."""
        settings, config = recipe.settings, recipe.training
        asks = {}
        for group, parts in settings.groups().items():
            members = [teachers[f"{group} {number}"] for number in range(1, len(parts) + 1)]
            asks[group] = stored_where_few(scattered(members, parts), data, config, members[0])
        student = self.new_network(recipe, data.targets.shape[1])
        yield Stage(student, loss_of(asks, settings.share), data, config)
        return student


METHOD = ParallelSelfDistillation()


def teacher_seed(config: TrainingConfig, name: str) -> int:
    """Each teacher starts from a seed of its own, the same for every student that has a teacher of this name."""
    group, number = name.split()
    return mixed_seed(config.seed, GROUPS.index(group), int(number))


def parallel_loss(
    logits: Tensor,
    targets: Tensor,
    co_logits: Tensor | None = None,
    dis_logits: Tensor | None = None,
    alpha: float = 0.5,
    ignore: Tensor | None = None,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute ½ ASL(z, y) + ½ α ‖z − z_co‖² + ½ (1 − α) ‖z − z_dis‖².

    ASL and the squared distances are sums over classes and means over images. With no teachers at all, the total is ASL
    alone and undivided.

    Args:
        logits: the student's z, (N, C).
        targets: labels in {0, 1}, (N, C).
        co_logits: those of the co-occurrence teachers, (N, C), detached here; None where their weight is 0.
        dis_logits: those of the dis-occurrence teachers, likewise.
        alpha: weight of the first group in [0, 1]; the other has 1 − α.
        ignore: (N, C) bool, labels that are left out of all three terms.
        weights: (N,), factors of the images' losses before their mean is taken; None: all are 1.

    Returns:
        "total", and the terms "asymmetric", "co" and "dis" unweighted.

    Raises:
        ValueError: for α outside [0, 1], missing teachers, another shape, and as `losses.asymmetric_loss` does.

    Source:
        PSD (Xu et al., 2022).
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: expected a weight in [0, 1]")
    terms = {"asymmetric": weighted_mean(asymmetric_loss(logits, targets, ignore=ignore, reduction="none"), weights)}
    if co_logits is None and dis_logits is None:
        return {"total": terms["asymmetric"], **terms}
    total = terms["asymmetric"] / 2
    for name, teacher_logits, weight in (("co", co_logits, alpha), ("dis", dis_logits, 1 - alpha)):
        if teacher_logits is None:
            if weight > 0:
                raise ValueError(f"alpha is {alpha} but {name}_logits is None: pass it, or alpha={int(name == 'dis')}")
            continue
        if teacher_logits.shape != logits.shape:
            raise ValueError(
                f"{name}_logits have shape {tuple(teacher_logits.shape)} and logits {tuple(logits.shape)}: expected "
                "one for each image and class in both"
            )
        apart = logits.float() - teacher_logits.detach().float()
        squares = (apart if ignore is None else apart.masked_fill(ignore, 0)).square().sum(1)
        terms[name] = weighted_mean(squares, weights)
        total = total + weight / 2 * terms[name]
    return {"total": total, **terms}


def scattered(teachers: Sequence[DualBranchNet], parts: Sequence[Sequence[int]]) -> Ask:
    """Make `ask(batch)`: the logits (N, C) of one partition's teachers, each in the columns of its part.

    Args:
        teachers: one for each part, in the same order; they are put in eval mode.
        parts: the class numbers of each part.

    Raises:
        ValueError: unless parts and teachers go together and each class has its own.
    """
    num_classes = sum(map(len, parts))
    require_partition(parts, num_classes)
    known = [teacher.eval().head.classification.out_features for teacher in teachers]
    if known != [len(part) for part in parts]:
        raise ValueError(
            f"the teachers know {known} classes and the parts have {[len(part) for part in parts]}: "
            "give one teacher for each part, in the same order"
        )
    members = [answers(teacher, calibration=False, weightings=()) for teacher in teachers]

    def ask(batch: Batch) -> TeacherAnswers:
        logits = torch.cat([member(batch).logits for member in members], 1)
        columns = torch.tensor([c for part in parts for c in part], device=logits.device)
        return TeacherAnswers(torch.empty_like(logits).index_copy_(1, columns, logits), None, None)

    return ask


def partitions(
    targets: Tensor,
    k: int = 3,
    strategy: str = "both",
    seed: int = 0,
    folder: Path | None = None,
    ignore: Tensor | None = None,
) -> dict[str, Parts]:
    """Cut the classes into parts, as `Settings` takes them: {"co": parts, "dis": parts}, or one of them.

    Args:
        targets: labels in {0, 1}, (N, C).
        k: number of parts; k = 1 is one part of all classes.
        strategy: "both", "CGP" or "DGP" alone, or "random", the control with parts of both sizes whose classes are
            shuffled.
        seed: of the clustering.
        folder: where the partitions are stored, and read again (`stored_partition`).
        ignore: (N, C) bool, labels that do not count.

    Raises:
        ValueError: for an unknown strategy, for a part without a positive label, and as `cooccurrence_partition` does.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy is '{strategy}': choose one of {', '.join(STRATEGIES)}")
    targets = targets.bool() if ignore is None else targets.bool() & ~ignore
    if k == 1:
        return {"co": [list(range(targets.shape[1]))]}
    makers = {"co": ("CGP", cooccurrence_partition), "dis": ("DGP", disoccurrence_partition)}
    parts_by_group = {
        group: stored_partition(folder / f"{name}.json", name, targets, k, seed) if folder else make(targets, k, seed)
        for group, (name, make) in makers.items()
        if strategy in (name, "both", "random")
    }
    if strategy == "random":
        parts_by_group = {
            group: random_partition(parts, mixed_seed(seed, place))
            for place, (group, parts) in enumerate(parts_by_group.items())
        }
    for group, parts in parts_by_group.items():
        for part in parts:
            if not targets[:, part].any():
                raise ValueError(
                    f"the {makers[group][0]} part of classes {part} has no positive label to learn from: use a smaller k"
                )
    return parts_by_group


def loss_of(asks: Mapping[str, Ask], alpha: float) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` for `training.fit`: `parallel_loss` on what these groups of teachers say, or ASL alone."""

    def loss_fn(student: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        logits = {group: ask(batch).logits for group, ask in asks.items()}
        prediction = student(batch.images, calibration=False)
        teachers = (logits.get("co"), logits.get("dis"))
        return parallel_loss(prediction.logits, batch.targets, *teachers, alpha, batch.ignore, batch.weights)

    return loss_fn
