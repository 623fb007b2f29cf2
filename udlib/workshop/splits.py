"""The splits of one's own data, as they are trained on, and the numbers of a trained model on one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from udlib.datasets import open_dataset
from udlib.datasets.base import MultiLabelDataset, apply_policy
from udlib.datasets.layouts import Source
from udlib.datasets.pixels import images_of
from udlib.datasets.training_splits import training_splits
from udlib.models import TrainedModel
from udlib.training.batches import ArrayData
from udlib.training.evaluation import Split, measure


def open_splits(data: str | Path | Source, size: int) -> dict[str, MultiLabelDataset]:
    """Open train, val and, where the data set has one, test; returns them by name.

    Args:
        data: a name, a path, or what `datasets.find_dataset` returns.
        size: side in pixels of the pictures of "scenes" and "digits".

    Raises:
        ValueError: as `datasets.training_splits` does.
    """
    return training_splits(lambda split: open_dataset(data, split, size))


def called(data: str | Path | Source) -> str:
    """What a data set is called in a model's folder."""
    return (data.root if isinstance(data, Source) else Path(data)).name


def say_left_out(splits: Mapping[str, MultiLabelDataset]) -> None:
    """Print how many images each split goes without, since their files are missing or cannot be decoded."""
    for name, part in splits.items():
        if skipped := getattr(part, "skipped", ()):
            images = "1 image is" if len(skipped) == 1 else f"{len(skipped):,} images are"
            print(f"{name}: {images} left out (first: {skipped[0][1]})", flush=True)


def array_data(dataset: MultiLabelDataset, size: int, policy: str = "positive") -> ArrayData:
    """Turn a split into what `training.fit` takes; its images are decoded once (`pixels.images_of`).

    Args:
        dataset: the split.
        size: side of the square images, in pixels.
        policy: what a difficult label counts as: "positive", "negative" or "ignore".
    """
    targets, difficult = apply_policy(dataset.targets, dataset.difficult, policy)
    ignore, unknown = difficult if policy == "ignore" else None, dataset.unknown
    if unknown is not None:
        ignore = unknown if ignore is None else ignore | unknown
    images = images_of(dataset, size)
    return ArrayData(images, targets, ignore, dataset.difficult, unknown=unknown, weights=dataset.weights)


def aligned(dataset: MultiLabelDataset, classes: Sequence[str]) -> Split:
    """Put the labels of a data set into the order of these classes.

    Raises:
        ValueError: unless the data set has the same classes, by name.
    """
    for whose, missing in (
        ("model", set(dataset.classes) - set(classes)),
        ("data set", set(classes) - set(dataset.classes)),
    ):
        if missing:
            raise ValueError(
                f"the {whose} has no class '{min(missing)}': measure a model on data with the model's own classes, "
                f"which are {', '.join(classes)}"
            )
    columns = [dataset.classes.index(name) for name in classes]
    posterior = None if dataset.posterior is None else dataset.posterior[:, columns]
    unknown = None if dataset.unknown is None else dataset.unknown[:, columns]
    return Split(tuple(classes), dataset.targets[:, columns], dataset.difficult[:, columns], posterior, unknown)


def numbers_of(model: TrainedModel, logits: Tensor, labels: Split) -> dict[str, dict[str, float]]:
    """Every number of `evaluation.measure` for a model's logits, before calibration and, if it has a calibrator, after it.

    Precision, recall and F1 are those at the model's thresholds. These belong to the probabilities that the model gives; so
    before calibration, where there is a calibrator, the threshold is 0.5.

    Args:
        model: with its calibrator and its thresholds.
        logits: (N, C).
        labels: of the same images, in the order of the model's classes.
    """
    if model.calibrator is None:
        return {"uncalibrated": measure(logits, labels, model.read_as, thresholds=model.thresholds)}
    calibrated = measure(logits, labels, calibrator=model.calibrator, thresholds=model.thresholds)
    return {"uncalibrated": measure(logits, labels, model.read_as), "calibrated": calibrated}
