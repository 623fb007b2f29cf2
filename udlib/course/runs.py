"""A run: a trained recipe with its logits, its metrics, its history, and where the numbers come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from udlib.course.data import RecipeData
from udlib.methods import method_of
from udlib.methods.base import Recipe
from udlib.posthoc import CALIBRATORS
from udlib.training.evaluation import Split

LOGITS = ("val_logits", "test_logits", "val_calibration_logits", "test_calibration_logits")


@dataclass(frozen=True)
class Run:
    """A trained recipe: its logits, float32 (N, C) per branch and split (None where they do not ship), and its numbers."""

    recipe: Recipe
    val_logits: Tensor | None = field(repr=False)
    test_logits: Tensor | None = field(repr=False)
    val_calibration_logits: Tensor | None = field(repr=False)
    test_calibration_logits: Tensor | None = field(repr=False)
    metrics: dict[str, dict[str, float]] = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)
    model: nn.Module | None = field(default=None, repr=False, compare=False)  # just after training only

    def labels(self, split: str = "test") -> Split:
        """The labels that the run's logits of a split are to be compared with."""
        return RecipeData(self.recipe).labels(split)

    def probabilities(self, split: str = "test") -> Tensor:
        """Sigmoid of the classification logits, float64 (N, C).

        Raises:
            ValueError: where the logits have no level, or do not ship.
        """
        if read_as(self.recipe) != "sigmoid":
            raise ValueError(
                f"the logits of {self.recipe} were trained with a softmax, so their sigmoids mean nothing: use their softmax"
            )
        return torch.sigmoid(self._logits(split).double())

    def _logits(self, split: str) -> Tensor:
        logits = {"val": self.val_logits, "test": self.test_logits}[split]
        if logits is None:
            raise ValueError(
                f"the logits of {self.recipe} do not ship, only its metrics: "
                "load_or_run(recipe, retrain=True) trains it again and keeps them"
            )
        return logits

    def recalibrated(self, kind: str, fit_on: str = "val", report_on: str = "test") -> Tensor:
        """Probabilities after post-hoc calibration, float64 (N, C): `posthoc.CALIBRATORS[kind]` fitted on one split.

        A map fitted on the labels that judge it looks better than it is.

        Raises:
            ValueError: where `fit_on` is `report_on`, where the two splits share images, and for an unknown kind.
        """
        if kind not in CALIBRATORS:
            raise ValueError(f"unknown kind '{kind}' of calibrator: choose one of {', '.join(CALIBRATORS)}")
        if fit_on == report_on:
            raise ValueError(
                f"the calibrator would be fitted on '{fit_on}' and judged on the same images: "
                "fit it on 'val' and report on 'test'"
            )
        RecipeData(self.recipe).require_disjoint(fit_on, report_on)
        return CALIBRATORS[kind](self._logits(fit_on), self.labels(fit_on).targets)(self._logits(report_on))

    def without_branch(self, *splits: str) -> Run:
        """The run without the calibration branch's logits on these splits (default: on both), smaller to store."""
        return replace(self, **{f"{split}_calibration_logits": None for split in splits or ("val", "test")})

    def without_logits(self) -> Run:
        """The run's metrics, history and provenance alone: a few kilobytes."""
        return replace(self.without_branch(), val_logits=None, test_logits=None)


def read_as(recipe: Recipe) -> str:
    """How a recipe's logits are to be read: "sigmoid", or "softmax" where only their differences mean anything."""
    return method_of(recipe.method).scores(recipe)
