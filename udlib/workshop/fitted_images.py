"""A model measured on images that it was trained, calibrated or decided on: its numbers look too good there, and it is said."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from udlib.datasets.base import MultiLabelDataset
from udlib.models import TrainedModel
from udlib.workshop.measurements import SPLITS, identity_of
from udlib.workshop.splits import aligned, numbers_of

# The entry of a model's provenance that names the images on which its thresholds were fitted, and how well they do there.
FITTED = "thresholds"
IDENTITY = "identity"  # of that entry: what stands for the labels and the pixels of these images


def notes_on_fitting(model: TrainedModel, dataset: MultiLabelDataset) -> tuple[str, ...]:
    """Say which parts of a model were fitted on the images of a data set.

    Args:
        model: the trained model. Its folder knows the images that it was trained, calibrated and decided on.
        dataset: the images, under any name of a folder or a split. A split `trainval` is recognised by its number of images.

    Returns:
        A sentence for each part: its weights (train), its calibrator (val) and its thresholds. None where all images are new
        to the model, or where its folder does not know its images.
    """
    parts: Mapping[str, Any] = model.provenance.get(SPLITS, {})
    counts: Mapping[str, int] = model.provenance.get("images", {})
    seen = [name for name in ("train", "val") if name in parts and _same(dataset, parts[name], counts.get(name))]
    both = [counts[name] for name in ("train", "val") if name in counts]
    if getattr(dataset, "split", None) == "trainval" and len(both) == 2 and len(dataset) == sum(both):
        seen = ["train", "val"]
    notes = []
    if "train" in seen:
        notes.append("the model was trained on these images: all its numbers look better here than on new images")
    if "val" in seen and model.calibrator is not None:
        notes.append(
            "the calibrator was fitted on these images: calibration errors after calibration look better here than on new "
            "images"
        )
    if _decided_on(model, dataset, seen):
        notes.append(
            "the thresholds were fitted on these images: precision, recall and F1 at them look better here than on new "
            "images; measure another split, such as test"
        )
    return tuple(notes)


def measured(
    model: TrainedModel, dataset: MultiLabelDataset, batch_size: int | None = None
) -> dict[str, dict[str, float]]:
    """Measure a model on a data set, whose classes may come in another order.

    Args:
        model: the trained model.
        dataset: with the model's classes.
        batch_size: images at a time; default: as in the model's training.

    Returns:
        Every number of `evaluation.measure`: "uncalibrated" and, where the model has a calibrator, "calibrated".

    Raises:
        ValueError: data with other classes.

    Warns:
        UserWarning: the model, its calibrator or its thresholds were fitted on these images (`notes_on_fitting`).
    """
    numbers = numbers_of(model, model.logits(dataset, batch_size), aligned(dataset, model.classes))
    for note in notes_on_fitting(model, dataset):
        warnings.warn(note, stacklevel=2)
    return numbers


def _decided_on(model: TrainedModel, dataset: MultiLabelDataset, seen: list[str]) -> bool:
    """Whether the thresholds of a model were fitted on these images, or on a part of them."""
    origin: Mapping[str, Any] | None = model.provenance.get(FITTED)
    if origin is None:
        return False
    if IDENTITY in origin and _same(dataset, origin[IDENTITY], origin["images"]):
        return True
    # "trainval" holds the split that they were fitted on, and the other way round.
    of_training = origin["data"] == model.provenance.get("data")
    return of_training and (origin["split"] in seen or bool(seen) and origin["split"] == "trainval")


def _same(dataset: MultiLabelDataset, before: Mapping[str, str], count: int | None) -> bool:
    """Whether a data set has these images: the same files, or the same names with the same labels."""
    if count not in (None, len(dataset)):
        return False  # without a look at the files
    now = identity_of(dataset, before)
    return now["content"] == before["content"] or now["labels"] == before["labels"]
