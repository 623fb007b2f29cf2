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

from udlib.attention import uncertainty_attention_of
from udlib.backbones import SMALL_WIDTHS
from udlib.heads import DualBranchNet
from udlib.losses import Scale, uncertainty_distillation_loss
from udlib.methods import supervised
from udlib.methods.base import Cost, Method, Recipe, Stage, Stages, make_recipe, two_branch_network
from udlib.methods.moved import moved_names
from udlib.methods.teachers import Ask, answers, on_teachers_device, require_same_number, stored_where_few
from udlib.training.batches import ArrayData, Batch


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training."""

    teacher: str = "small_wide"  # the teacher's network; it is trained like the student, on hard labels
    teacher_lam: float = 0.1  # the teacher's λ (Eq. 12); 0 has no calibration branch and can teach by KD only
    alpha: float = 0.5  # weight of the prediction distribution, Eq. 14
    beta: float = 0.5  # weight of the attention, Eq. 17
    temperature: float = 1.0  # of both divergences; the released code's is 3
    normalize: bool = False  # standardise both maps before they are compared
    through_weights: bool = True  # let the attention's gradient flow through w (Eq. 15) too, not only through Z
    scale: Scale = "paper"  # or "released", the repaired factors of the released code

    def __post_init__(self):
        require_weights(alpha=self.alpha, beta=self.beta)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: expected a number above 0")

    @property
    def branch(self) -> float:
        """Above 0 where student and teacher need a calibration branch: a stand-in for λ."""
        return max(self.alpha, self.beta)


class Distillation(Method):
    """One teacher, which is trained on hard labels before, and one student."""

    name = "distillation"
    Settings = Settings

    def needs(self, recipe: Recipe) -> dict[str, Recipe]:
        """The teacher, of the same seed, trained as the student is."""
        shared = without_settings(recipe) | {"network": recipe.settings.teacher, "lam": recipe.settings.teacher_lam}
        return {"teacher": make_recipe(supervised.METHOD.name, supervised.Settings, **shared)}

    def build(self, recipe: Recipe, num_classes: int, weights: str | None = None) -> DualBranchNet:
        """The student; without a calibration branch for plain KD."""
        return two_branch_network(recipe, num_classes, recipe.settings.branch, weights)

    def cost(self, recipe: Recipe) -> Cost:
        """A large teacher adds a forward pass, a third of a step; a small one's answers are stored beforehand."""
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
        ask = stored_where_few(teacher_answers(teacher, settings.alpha, settings.beta), data, config)
        yield Stage(student, loss_of(settings, ask), data, config)
        return student


METHOD = Distillation()
build = METHOD.build  # as 0.1 called it; goes with 0.3


def without_settings(recipe: Recipe) -> dict[str, object]:
    """What a recipe chooses about data and training, without its method's own settings and without its network."""
    own = {*type(recipe.settings).__dataclass_fields__, "network"}
    return {name: value for name, value in recipe.choices().items() if name not in own}


def teacher_answers(teacher: DualBranchNet, alpha: float, beta: float) -> Ask:
    """Make `ask(batch)` for the terms of Eq. 18 whose weights are above 0.

    Raises:
        ValueError: for a teacher without a calibration branch where α or β needs one.
    """
    require_weights(alpha=alpha, beta=beta)
    branch = alpha > 0 or beta > 0
    if branch and teacher.head.calibration is None:
        raise ValueError(
            f"alpha is {alpha} and beta is {beta}, but the teacher has no calibration branch: train it with "
            "λ > 0, or set both to 0 for plain KD"
        )
    return answers(teacher.eval(), branch, beta > 0)


def loss_of(settings: Settings, ask: Ask) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` for `training.fit`: Eq. 18 with these settings, on what `ask(batch)` answers."""
    branch = settings.branch > 0

    def loss_fn(student: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        teacher = ask(batch)
        prediction = student(batch.images, calibration=branch)
        require_same_number(teacher.logits.shape[1], prediction.logits.shape[1])
        # The student's map comes from the forward pass that is trained, or its gradient would belong to another one.
        attention = uncertainty_attention_of(prediction, settings.through_weights) if settings.beta > 0 else None
        return uncertainty_distillation_loss(
            teacher,
            prediction,
            settings.alpha,
            settings.beta,
            teacher.attention,
            attention,
            settings.temperature,
            batch.ignore,
            settings.normalize,
            settings.scale,
        )

    return loss_fn


def distillation_loss(
    teacher: DualBranchNet, alpha: float = 0.5, beta: float = 0.5, **settings
) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` for `training.fit`: Eq. 18 with the terms "classification", "calibration", "attention".

    A term whose weight is 0 is not computed.

    Args:
        teacher: a trained two-branch network, which is put in eval mode.
        alpha: weight of the prediction distribution.
        beta: weight of the attention.
        settings: `temperature`, `normalize`, `through_weights` and `scale`, as in `Settings`; what they do to the terms
            is said in `losses.uncertainty_distillation_loss`.

    Raises:
        ValueError: for α < 0 or β < 0, for a teacher without a calibration branch where α or β needs one, for a student
            of another number of classes.
        FloatingPointError: for a teacher whose answer is not finite, naming the images' rows.

    Source:
        UD (Song et al., 2021), Eqs. 13 to 18.
    """
    return loss_of(Settings(alpha=alpha, beta=beta, **settings), teacher_answers(teacher, alpha, beta))


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
