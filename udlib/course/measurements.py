"""Metrics of stored runs, and the settings that validation selects by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from udlib.course.arms import sweep
from udlib.course.photo_arms import betas
from udlib.course.profiles import for_profile
from udlib.course.store import load
from udlib.methods.base import Recipe


def metric_values(recipes: Sequence[Recipe], metric: str, split: str = "test") -> list[float]:
    """Return one metric of stored runs, in the order of the recipes.

    Args:
        recipes: The recipes; each is taken at the size of the profile.
        metric: Name of the metric, as `udlib.training.evaluation.measure` gives it, or "SPLIT NAME", such as "blur-2 NLL".
        split: "val", "test", or another split that was measured; for a metric without one.

    Raises:
        FileNotFoundError: Where a run is not stored.
        KeyError: Where a run has not measured the metric.
    """
    values = []
    own_split, _, name = metric.rpartition(" ")
    for recipe in map(for_profile, recipes):
        run = load(recipe, logits=False)
        if run is None:
            raise FileNotFoundError(f"no result of {recipe} is stored: `udlib runs --only {recipe.key}` trains it")
        values.append(run.metrics[own_split or split][name])
    return values


def best_on_validation(
    grid: Mapping[float, Sequence[Recipe]], metric: str = "mAP", higher_is_better: bool = True
) -> float:
    """Return the setting > 0 of a grid with the best mean over seeds on *validation*, as a grid search selects it."""
    means = {
        setting: sum(values) / len(values)
        for setting, recipes in grid.items()
        if setting > 0
        for values in [metric_values(recipes, metric, "val")]
    }
    return (max if higher_is_better else min)(means, key=means.__getitem__)


def best_lambda(metric: str = "mAP", data: str = "scenes", higher_is_better: bool = True) -> float:
    """Return the λ > 0 of the sweep that validation selects."""
    return best_on_validation(sweep(data), metric, higher_is_better)


def best_beta(metric: str = "mAP", data: str = "scenes") -> float:
    """Return the β > 0 of UD (Eq. 18) that validation selects, on "scenes" or "photos"."""
    return best_on_validation(betas(data), metric)
