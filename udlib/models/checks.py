"""Checks that the parts of a trained model fit together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from udlib.datasets.folders import first_repeated
from udlib.posthoc import Calibrator

if TYPE_CHECKING:
    from udlib.models.trained import TrainedModel

READ_AS = ("sigmoid", "softmax")
REMEDY = "copy the folder again from where it is whole, or train the model again"


def require_consistent(model: TrainedModel) -> None:
    """Raise ValueError for a model whose parts do not fit together.

    Args:
        model: with thresholds.

    Raises:
        ValueError: names, sizes, numbers of classes, a calibrator or weights that do not fit, weights that are not
            finite; the message names the part.
    """
    _check_classes(model)
    _check_numbers(model)
    _check_reading(model)
    _check_weights(model)


def _check_classes(model: TrainedModel) -> None:
    """Each class has a name of its own, and the network answers for all of them."""
    classes = len(model.classes)
    if unnamed := [name for name in model.classes if not (isinstance(name, str) and name.strip())]:
        raise ValueError(f"a class is called {unnamed[0]!r}: expected a name")
    if repeated := first_repeated(model.classes):
        raise ValueError(f"classes hold '{repeated}' more than once: each class needs its own name")
    if (known := model.network.head.classification.out_features) != classes:
        raise ValueError(
            f"the network answers for {known} classes, and {classes} are named: name all of its classes in order"
        )


def _check_numbers(model: TrainedModel) -> None:
    """Size, normalisation and thresholds are numbers in their range."""
    if model.size < 1:
        raise ValueError(f"size is {model.size}: expected pixels, at least 1")
    for name, values, count, low, high in (
        ("mean", model.mean, 3, 0, 1),
        ("std", model.std, 3, 1e-6, math.inf),
        ("thresholds", model.thresholds, len(model.classes), 0, 1),
    ):
        numbers = [value for value in values if isinstance(value, (int, float)) and low <= value <= high]
        if len(values) != count or len(numbers) != count:
            raise ValueError(f"{name} are {list(values)}: expected {count} numbers from {low:g} to {high:g}")


def _check_reading(model: TrainedModel) -> None:
    """There is one way from pictures to pixels and one from logits to probabilities, and they work."""
    if model.orientation not in ("exif", None):
        raise ValueError(
            f"orientation is '{model.orientation}': expected 'exif'; a later udlib may know it, update yours"
        )
    if model.read_as not in READ_AS:
        raise ValueError(f"read_as is '{model.read_as}': expected {' or '.join(READ_AS)}")
    if model.calibrator is not None:
        if model.read_as != "sigmoid":
            raise ValueError(
                "a calibrator needs logits that are read by a sigmoid: leave the calibrator out, or set read_as to "
                "'sigmoid'"
            )
        _check_calibrator(model.calibrator, len(model.classes))


def _check_calibrator(calibrator: Calibrator, classes: int) -> None:
    """A trial gives a probability for each class: a file can hold any numbers."""
    trial = torch.linspace(-20, 20, 9, dtype=torch.float64)[:, None].expand(-1, classes)
    try:
        probabilities = calibrator(trial)
        sound = probabilities.shape == trial.shape and bool(((probabilities >= 0) & (probabilities <= 1)).all())
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"its {calibrator.kind} calibrator does not work ({error}): {REMEDY}") from error
    if not sound:
        raise ValueError(f"its {calibrator.kind} calibrator does not give {classes} probabilities an image: {REMEDY}")


def _check_weights(model: TrainedModel) -> None:
    """Weights are finite and in single precision."""
    for name, values in model.network.state_dict().items():
        if values.dtype not in (torch.float32, torch.int64):
            raise ValueError(f"the weights '{name}' are {values.dtype}: expected torch.float32")
        if not values.isfinite().all():
            raise ValueError(
                f"the weights '{name}' are not finite: the training diverged; train with a lower learning rate"
            )
