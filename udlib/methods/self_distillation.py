"""Self-distillation (UD, section 5.3.2 and Table 4): a network's best self so far becomes its teacher after a restart.

First `epochs` epochs on hard labels (Eq. 12). Then the weights of the epoch that did best on validation are the teacher,
the last weights go on training with a fresh optimiser and the learning rate's schedule from its start, on Eq. 18, for
`epochs` more. With `distil=False` the second half stays on hard labels: what the restart alone is worth.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from udlib.heads import DualBranchNet
from udlib.methods import distillation
from udlib.methods.base import Cost, Method, Recipe, Stage, Stages, two_branch_network
from udlib.methods.distillation import loss_of, teacher_answers
from udlib.methods.moved import moved_names
from udlib.methods.supervised import supervised_loss
from udlib.methods.teachers import stored_where_few
from udlib.training.batches import ArrayData
from udlib.training.optimization import mixed_seed


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training; `epochs` are those of each half."""

    lam: float = 0.1  # λ of the first half (Eq. 12)
    distil: bool = True  # or False, hard labels after the restart too
    alpha: float = 0.5  # weight of the prediction distribution, Eq. 14
    beta: float = 0.5  # weight of the attention, Eq. 17
    temperature: float = 1.0
    normalize: bool = False


class SelfDistillation(Method):
    """One network, two stages with a restart between them."""

    name = "self_distillation"
    Settings = Settings

    def build(self, recipe: Recipe, num_classes: int, weights: str | None = None) -> DualBranchNet:
        """A backbone with both heads."""
        return two_branch_network(recipe, num_classes, recipe.settings.lam, weights)

    def cost(self, recipe: Recipe) -> Cost:
        """Twice the epochs; in the second half a forward pass of the teacher, a third of a step."""
        return Cost(2 * recipe.training.epochs, {recipe.network: 1 + recipe.settings.distil / 6})

    def stages(self, recipe: Recipe, data: ArrayData, teachers: Mapping[str, Any]) -> Stages:
        """Hard labels; then, after the restart, the answers of the best network so far."""
        settings, config = recipe.settings, recipe.training
        network = self.new_network(recipe, data.targets.shape[1])
        hard_labels = supervised_loss(settings.lam)
        eq_18 = distillation.Settings(
            alpha=settings.alpha,
            beta=settings.beta,
            temperature=settings.temperature,
            normalize=settings.normalize,
        )
        if settings.distil:
            teacher_answers(network, eq_18, config)  # refuse wrong settings now, not at the restart
        first = yield Stage(network, hard_labels, data, config, name="1", label={"half": 1}, keep="last")

        loss_fn = hard_labels
        if settings.distil:
            teacher = copy.deepcopy(network)
            teacher.load_state_dict(first.best_weights)
            ask = teacher_answers(teacher, eq_18, config)
            loss_fn = loss_of(eq_18, stored_where_few(ask, data, config, teacher))
        # Another seed, so that the batches of the second half come in another order than those of the first.
        again = replace(config, seed=mixed_seed(config.seed, 2))
        yield Stage(network, loss_fn, data, again, name="2", label={"half": 2})
        return network


METHOD = SelfDistillation()

__getattr__ = moved_names(
    __name__,
    train_self_distilled="udlib.workshop.old_names:train_self_distilled",
)
