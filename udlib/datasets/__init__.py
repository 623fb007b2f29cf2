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
from udlib.datasets.coco import COCO
from udlib.datasets.custom import Custom
from udlib.datasets.layouts import NAMED, source
from udlib.datasets.nuswide import NUSWIDE
from udlib.datasets.roots import placed
from udlib.datasets.transforms import BatchAugment, MultiScaleCrop, eval_transform, normalise, train_transform
from udlib.datasets.voc import VOC, VOC_CLASSES, read_truth

__all__ = [
    "BatchAugment",
    "Box",
    "COCO",
    "Custom",
    "MultiLabelDataset",
    "MultiScaleCrop",
    "NUSWIDE",
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


def open_dataset(
    data: str | Path, split: str, size: int = 64, root: str | Path | None = None, **options
) -> MultiLabelDataset:
    """One split of a data set by name or by its path.

    data: "scenes" or "digits", made on first use at this `size`; "voc2007", "voc2012", "coco2014" or "nuswide", at
    `root` (default: where `roots.place` or UDLIB_ROOTS put it, else the folder of that name below `data_root()`); any
    other name that was placed so; or the path of a folder in any of these layouts, or of a folder or CSV as `Custom`
    reads it. The layout is told by what the folder holds. Pictures on disk keep their size. options: those of the
    reader, `VOC`, `COCO`, `NUSWIDE` or `Custom`.

    Raises ValueError for a name that is neither, FileNotFoundError for a folder that holds none of these layouts.
    """
    name = str(data)
    if name in EMBEDDED:
        return getattr(import_module(f"udlib.datasets.{name}"), name)(split, size=size, root=root, **options)
    if name not in NAMED and placed(name) is None and not Path(data).expanduser().exists():
        raise ValueError(
            f"unknown data set '{data}': choose {', '.join((*EMBEDDED, *NAMED))}, or name a folder in the "
            "layout of VOC, COCO or NUS-WIDE, or one with a CSV of labels"
        )
    return source(data, root).open(split, **options)
