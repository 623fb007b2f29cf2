"""The splits of one's own data, as they are trained on, and a trained model measured on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from udlib.datasets import open_dataset
from udlib.datasets.base import MultiLabelDataset, apply_policy
from udlib.datasets.layouts import require_no_own_folder
from udlib.datasets.pixels import images_of
from udlib.datasets.training_splits import training_splits
from udlib.models import TrainedModel
from udlib.posthoc import Calibrator
from udlib.training.batches import ArrayData
from udlib.training.evaluation import Split, measure


def open_splits(data: str | Path, size: int) -> dict[str, MultiLabelDataset]:
    """Open train, val and, where the data set has one, test; returns them by name.

    Raises:
        ValueError: as `datasets.training_splits` does, and for a name of the course's that is a folder here, too.
    """
    require_no_own_folder(data)
    return training_splits(lambda split: open_dataset(data, split, size))


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
                f"the {whose} does not know '{min(missing)}': a model is measured on data with its own classes, "
                f"which are {', '.join(classes)}"
            )
    columns = [dataset.classes.index(name) for name in classes]
    posterior = None if dataset.posterior is None else dataset.posterior[:, columns]
    unknown = None if dataset.unknown is None else dataset.unknown[:, columns]
    return Split(tuple(classes), dataset.targets[:, columns], dataset.difficult[:, columns], posterior, unknown)


def measured(model: TrainedModel, dataset: MultiLabelDataset, batch_size: int = 32) -> dict[str, dict[str, float]]:
    """Measure a model on a data set, whose classes may come in another order.

    Returns:
        Every number of `evaluation.measure`: "uncalibrated" and, where the model has a calibrator, "calibrated".
    """
    labels = aligned(dataset, model.classes)
    return numbers_of(model.logits(dataset, batch_size), labels, model.read_as, model.calibrator)


def numbers_of(
    logits: Tensor, labels: Split, read_as: str, calibrator: Calibrator | None
) -> dict[str, dict[str, float]]:
    """Every number of `evaluation.measure` for these logits, before calibration and, if there is a calibrator, after it."""
    numbers = {"uncalibrated": measure(logits, labels, read_as)}
    return numbers | ({} if calibrator is None else {"calibrated": measure(logits, labels, calibrator=calibrator)})
