"""Data sets: images on disk with three label states, boxes and, where it is known, the posterior.

The embedded ones are functions of their own modules: `udlib.datasets.scenes.scenes`, `udlib.datasets.digits.digits`.
"""

from importlib import import_module
from pathlib import Path

from udlib.datasets.base import (
    Box,
    MultiLabelDataset,
    apply_policy,
    check_trainable,
    checkout,
    data_root,
    label_states,
    load_rgb,
    to_memory,
)
from udlib.datasets.transforms import BatchAugment, MultiScaleCrop, eval_transform, normalise, train_transform
from udlib.datasets.voc import VOC, VOC_CLASSES, read_truth

__all__ = [
    "BatchAugment",
    "Box",
    "MultiLabelDataset",
    "MultiScaleCrop",
    "VOC",
    "VOC_CLASSES",
    "apply_policy",
    "check_trainable",
    "checkout",
    "data_root",
    "eval_transform",
    "label_states",
    "load_rgb",
    "normalise",
    "open_dataset",
    "read_truth",
    "to_memory",
    "train_transform",
]

EMBEDDED = ("scenes", "digits")


def open_dataset(data: str | Path, split: str, size: int = 64, **options) -> MultiLabelDataset:
    """One split of a data set by name (an embedded one, made on first use at this size) or of a folder in VOC layout.

    Raises ValueError for a name that is neither, FileNotFoundError for a folder that is not in VOC layout.
    """
    if str(data) in EMBEDDED:
        return getattr(import_module(f"udlib.datasets.{data}"), str(data))(split, size=size, **options)
    if not Path(data).expanduser().is_dir():
        raise ValueError(f"unknown data set '{data}': choose {' or '.join(EMBEDDED)}, or name a folder in VOC layout")
    return VOC(data, split, **options)
