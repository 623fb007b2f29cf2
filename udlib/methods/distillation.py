"""Learning from a teacher: KD (UD, Eq. 13), its prediction distribution (Eq. 14) and its attention (Eq. 17): UD, Eq. 18.

Trained: a student with both heads, on the teacher's answers alone; hard labels take no part, as in Eq. 18. The teacher
is a trained two-branch network of any width, depth and map size, in eval mode and left as it is. α = β = 0 is plain
KD on the sigmoids; the student then has no calibration branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from udlib.attention import uncertainty_attention, uncertainty_attention_of
from udlib.backbones import SMALL_WIDTHS
from udlib.heads import DualBranchNet, Prediction
from udlib.losses import Normalization, OverClasses, Scale, uncertainty_distillation_loss
from udlib.methods import supervised
from udlib.methods.base import Cost, Method, Recipe, Stage, Stages, make_recipe, sorted_pairs, two_branch_network
from udlib.methods.moved import moved_names
from udlib.methods.teachers import WEIGHTINGS, Ask, answers, on_teachers_device, require_same_number, stored_where_few
from udlib.training.batches import ArrayData, Batch
from udlib.training.optimization import TrainingConfig


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training."""

    teacher: str = "small_wide"  # the teacher's network; it is trained like the student, on hard labels
    teacher_lam: float = 0.1  # the teacher's λ (Eq. 12); 0 has no calibration branch and can teach by KD only
    teacher_size: int = 0  # side of the teacher's images, which show the student's crops larger; 0: the student's side
    teacher_training: tuple = ()  # fields in which the teacher's recipe differs, e.g. {"erase": 0.5, "freeze": 3}
    alpha: float = 0.5  # weight of the prediction distribution, Eq. 14
    beta: float = 0.5  # weight of the attention, Eq. 17
    temperature: float = 1.0  # of both divergences; the released code's is 3
    normalize: Normalization = False  # True standardises both maps before they are compared, "l2" gives them unit norm
    through_weights: bool = True  # let the attention's gradient flow through w (Eq. 15) too, not only through Z
    weighting: str = "gradient"  # w of Eq. 15; "released": the released code's, nearly equal for all channels
    scale: Scale = "paper"  # or "released", the repaired factors of the released code
    over_classes: OverClasses = "mean"  # of Eq. 13; "sum" as Eq. 3, C times as much
    ramp: tuple[float, float] = (0.0, 0.0)  # shares of the steps between which β rises; (0, 0): whole from the start

    def __post_init__(self):
        require_weights(alpha=self.alpha, beta=self.beta)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: expected a number above 0")
        if self.normalize not in (False, True, "l2"):
            raise ValueError(
                f"normalize is {self.normalize!r}: expected False, True or 'l2' (--maps raw, standardised or l2)"
            )
        if self.scale not in ("paper", "released"):
            raise ValueError(f"scale is '{self.scale}': expected 'paper' or 'released'")
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is '{self.weighting}': expected one of {', '.join(WEIGHTINGS)}")
        if self.over_classes not in ("mean", "sum"):
            raise ValueError(f"over_classes is '{self.over_classes}': expected 'mean' or 'sum'")
        if self.teacher_size < 0:
            raise ValueError(f"teacher_size is {self.teacher_size}: expected pixels, or 0 for the student's size")
        object.__setattr__(self, "ramp", tuple(self.ramp))
        if len(self.ramp) != 2 or not 0 <= self.ramp[0] <= self.ramp[1] <= 1:
            raise ValueError(f"ramp is {self.ramp}: expected two shares of the steps, 0 ≤ first ≤ second ≤ 1")
        object.__setattr__(self, "teacher_training", sorted_pairs(self.teacher_training))

    @property
    def branch(self) -> float:
        """Above 0 where student and teacher need a calibration branch: a stand-in for λ."""
        return max(self.alpha, self.beta)

    def beta_at(self, progress: float) -> float:
        """β when this share of the steps is done."""
        start, end = self.ramp
        if progress >= end:
            return self.beta
        return self.beta * (progress - start) / (end - start) if progress > start else 0.0


class Distillation(Method):
    """One teacher, which is trained on hard labels before, and one student."""

    name = "distillation"
    Settings = Settings

    def check(self, recipe: Recipe, data: ArrayData) -> None:
        """A teacher may see more of an image than its student, never less."""
        size, crop = recipe.settings.teacher_size, recipe.training.crop
        if not size:
            return
        if size < recipe.side:
            raise ValueError(
                f"teacher_size is {size} and the student sees {recipe.side} px: expected at least as many (--teacher-size; "
                "0 is the student's size)"
            )
        if not crop and size != recipe.side:
            raise ValueError(
                f"teacher_size is {size}, but images are stored at {recipe.size} px, and no larger view of them exists: "
                f"store larger images and train on crops of them (--crop; in a recipe size={max(recipe.size, size)}, "
                f"crop={recipe.size})"
            )

    def needs(self, recipe: Recipe) -> dict[str, Recipe]:
        """The teacher, of the same seed, trained as the student is, but for `teacher_size` and `teacher_training`."""
        settings = recipe.settings
        shared = without_settings(recipe) | {"network": settings.teacher, "lam": settings.teacher_lam}
        if settings.teacher_size and recipe.training.crop:
            shared["crop"] = settings.teacher_size
        shared |= dict(settings.teacher_training)
        return {"teacher": make_recipe(supervised.METHOD.name, supervised.Settings, **shared)}

    def build(self, recipe: Recipe, num_classes: int, weights: str | None = None) -> DualBranchNet:
        """The student; without a calibration branch for plain KD."""
        return two_branch_network(recipe, num_classes, recipe.settings.branch, weights)

    def cost(self, recipe: Recipe) -> Cost:
        """A pretrained teacher adds a forward pass, a third of a step; a small one's answers are stored beforehand."""
        student, teacher = recipe.network, recipe.settings.teacher
        steps = {student: 1.0}
        if student not in SMALL_WIDTHS:
            steps[teacher] = steps.get(teacher, 0) + 1 / 3
        return Cost(recipe.training.epochs, steps)

    def stages(self, recipe: Recipe, data: ArrayData, teachers: Mapping[str, Any]) -> Stages:
        """The teacher's answers until the end."""
        settings, config = recipe.settings, recipe.training
        student = self.new_network(recipe, data.targets.shape[1])
        teacher = on_teachers_device(teachers["teacher"], config)
        require_same_number(teacher.head.classification.out_features, data.targets.shape[1])
        ask = stored_where_few(teacher_answers(teacher, settings, config), data, config, teacher)
        size = settings.teacher_size or recipe.side
        yield Stage(student, loss_of(settings, lambda batch: batch.answers), data, config, ask=ask, ask_size=size)
        return student


METHOD = Distillation()
build = METHOD.build  # as 0.1 called it; goes with 0.3


def without_settings(recipe: Recipe) -> dict[str, object]:
    """What a recipe chooses about data and training, without its method's own settings and without its network."""
    own = {*type(recipe.settings).__dataclass_fields__, "network", "start"}
    return {name: value for name, value in recipe.choices().items() if name not in own}


def teacher_answers(teacher: DualBranchNet, settings: Settings, config: TrainingConfig | None = None) -> Ask:
    """Make `ask(batch)` for the terms of Eq. 18 whose weights are above 0.

    On crops, where the answers may be kept for other students, a teacher with both branches answers everything. Without a
    `config`, it computes in the precision of the student's forward pass.

    Raises:
        ValueError: for a teacher without a calibration branch where α or β needs one.
    """
    branch = settings.branch > 0
    if branch and teacher.head.calibration is None:
        raise ValueError(
            f"alpha is {settings.alpha} and beta is {settings.beta}, but the teacher has no calibration branch: train it "
            "with λ > 0, or set both to 0 for plain KD"
        )
    everything = config is not None and config.crop > 0 and teacher.head.calibration is not None
    weightings = WEIGHTINGS if everything else (settings.weighting,) if settings.beta > 0 else ()
    return answers(
        teacher.eval(), branch or everything, weightings, settings.teacher_size, config.precision if config else ""
    )


def loss_of(settings: Settings, ask: Ask) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` for `training.fit`: Eq. 18 with these settings, on what `ask(batch)` answers."""
    branch = settings.branch > 0

    def loss_fn(student: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        teacher = ask(batch)
        prediction = student(batch.images, calibration=branch)
        require_same_number(teacher.logits.shape[1], prediction.logits.shape[1])
        return uncertainty_distillation_loss(
            teacher,
            prediction,
            settings.alpha,
            settings.beta_at(batch.progress),
            teacher.attention if settings.weighting == "gradient" else teacher.released_attention,
            student_map(student, prediction, settings) if settings.beta > 0 else None,
            settings.temperature,
            batch.ignore,
            settings.normalize,
            settings.scale,
            settings.over_classes,
            batch.weights,
        )

    return loss_fn


def student_map(student: DualBranchNet, prediction: Prediction, settings: Settings) -> Tensor:
    """The student's map (N, h, w), with its graph.

    It comes from the forward pass that is trained, or its gradient would belong to another one. The released code's
    weights are constants, and come from the heads in evaluation mode, as the teacher's do.
    """
    if settings.weighting == "gradient":
        return uncertainty_attention_of(prediction, settings.through_weights)
    return uncertainty_attention(student.head, prediction.features, student.pooling, weighting=settings.weighting)


def distillation_loss(
    teacher: DualBranchNet, alpha: float = 0.5, beta: float = 0.5, **settings
) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` for `training.fit`: Eq. 18 with the terms "classification", "calibration", "attention".

    A term whose weight is 0 is not computed.

    Args:
        teacher: a trained two-branch network, which is put in eval mode.
        alpha: weight of the prediction distribution.
        beta: weight of the attention.
        settings: further fields of `Settings`, e.g. `temperature`, `normalize`, `weighting`, `scale`; what they do to the
            terms is said in `losses.uncertainty_distillation_loss`.

    Raises:
        ValueError: for α < 0 or β < 0, for a teacher without a calibration branch where α or β needs one, for a student
            of another number of classes.
        FloatingPointError: for a teacher whose answer is not finite, naming the images' rows.

    Source:
        UD (Song et al., 2021), Eqs. 13 to 18.
    """
    terms = Settings(alpha=alpha, beta=beta, **settings)
    return loss_of(terms, teacher_answers(teacher, terms))


def require_weights(**weights: float) -> None:
    """Refuse a weight that is negative or not finite (ValueError)."""
    for name, value in weights.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}: expected at least 0, and finite")


__getattr__ = moved_names(
    __name__,
    train_distilled="udlib.workshop.old_names:train_distilled",
    stored_answers="udlib.methods.teachers:stored_answers",
    few_views="udlib.methods.teachers:few_views",
    require_same_classes="udlib.methods.teachers:require_same_classes",
    Taught="udlib.methods.teachers:TeacherAnswers",
)
