"""The thresholds of a trained model's classes: fitted on validation, kept in its folder, used by all that decides."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from udlib.datasets import open_dataset
from udlib.datasets.base import NoSplit
from udlib.datasets.layouts import Source
from udlib.metrics import best_thresholds, precision_recall_f1
from udlib.metrics.thresholds import few_positives
from udlib.models import TrainedModel
from udlib.training.evaluation import Split
from udlib.workshop.fitted_images import FITTED, IDENTITY
from udlib.workshop.measurements import SPLITS, differences, identity_of, measured_on
from udlib.workshop.splits import aligned, called


def fit_thresholds(
    model: TrainedModel, data: str | Path | Source, split: str = "val", batch_size: int | None = None
) -> TrainedModel:
    """Give each class of a model the threshold at which its F1 is highest (`metrics.best_thresholds`).

    The threshold belongs to the model's probabilities, after calibration. Difficult labels are left out, as in F1. The
    model's stored numbers are measured again at the new thresholds, on the splits of `data`; those that were measured on
    other data, or on data that changed since, are dropped. `save_trained(folder, model)` keeps the thresholds.

    Args:
        model: the trained model.
        data: a name, a folder in a known layout, or what `datasets.find_dataset` returns, with the model's classes.
        split: the split to fit on; not the one that is measured on, where the thresholds would look better than they are.
        batch_size: images at a time; default: as in the model's training.

    Returns:
        The model with its new thresholds. A class without a positive has 0.5.

    Raises:
        ValueError: data with other classes, and as `open_dataset`.

    Warns:
        UserWarning: naming the classes of few positives.

    Example:
        model = fit_thresholds(udlib.load("model"), "holiday")
    """
    dataset = open_dataset(data, split, model.size)
    labels = aligned(dataset, model.classes)
    probabilities = model.predict(dataset, batch_size).probabilities
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it numbers the classes: here they have names
        thresholds = best_thresholds(probabilities, labels.targets, labels.ignored)
    if rare := few_positives(labels.targets, labels.ignored):
        counts = ", ".join(f"{model.classes[k]} ({count})" for k, count in rare.items())
        without = "; a class without any keeps 0.5" if 0 in rare.values() else ""
        warnings.warn(
            f"few positives in '{split}', so their thresholds may not suit other images: {counts}{without}",
            stacklevel=2,
        )
    origin = {
        "data": called(data),
        "split": split,
        "images": len(dataset),
        IDENTITY: identity_of(dataset),
        "positives": (labels.targets.bool() & ~labels.ignored).sum(0).tolist(),
        "F1": _f1_of_classes(probabilities, labels, thresholds.tolist()),
        "F1 at 0.5": _f1_of_classes(probabilities, labels, [0.5] * len(model.classes)),
    }
    fitted = replace(model, thresholds=tuple(thresholds.tolist()), provenance={**model.provenance, FITTED: origin})
    return _measured_again(fitted, data)


def threshold_note(model: TrainedModel) -> str:
    """What a model's thresholds are and where they come from, in words."""
    thresholds = sorted(set(model.thresholds or ()))
    origin: Mapping[str, Any] | None = model.provenance.get(FITTED)
    if thresholds == [0.5] and origin is None:
        return "from a probability of 0.5 on"
    fitted = f", fitted on '{origin['split']}' of '{origin['data']}'" if origin else ""
    span = f"{thresholds[0]:.2f}" + (f" to {thresholds[-1]:.2f}" if len(thresholds) > 1 else "")
    return f"from each class's own threshold on ({span}{fitted})"


def decision_sentence(model: TrainedModel) -> str:
    """From which probability on precision, recall and F1 count a label, in a sentence."""
    own = set(model.thresholds or ()) != {0.5}
    before = "; before calibration from 0.5 on" if own and model.calibrator is not None else ""
    return f"Precision, recall and F1 count a label {threshold_note(model)}{before}."


def _measured_again(model: TrainedModel, data: str | Path | Source) -> TrainedModel:
    """The model with its stored numbers at its thresholds, and without those that cannot be measured again."""
    before = model.provenance.get(SPLITS, {})
    parts = {}
    for name in model.metrics:
        try:
            part = open_dataset(data, name, model.size)
        except NoSplit:
            continue
        if name in before and not differences(before[name], identity_of(part, before[name])):
            parts[name] = part
    return measured_on(replace(model, metrics={}), parts, before)


def _f1_of_classes(probabilities: Tensor, labels: Split, thresholds: Sequence[float]) -> list[float]:
    """F1 of each class at its threshold."""
    p, y, ignore = probabilities, labels.targets, labels.ignored
    columns = (slice(k, k + 1) for k in range(p.shape[1]))
    return [precision_recall_f1(p[:, k], y[:, k], thresholds[k], ignore=ignore[:, k])["CF1"] for k in columns]
