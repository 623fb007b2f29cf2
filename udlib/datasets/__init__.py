"""Data sets: images on disk with three label states, boxes and, where it is known, the posterior.

`open_dataset` opens one by its name or its path.
"""

from dataclasses import replace
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
from udlib.datasets.layouts import EMBEDDED, NAMED, PHOTOS, Source, source
from udlib.datasets.nuswide import NUSWIDE
from udlib.datasets.roots import placed
from udlib.datasets.transforms import BatchAugment, MultiScaleCrop, eval_transform, normalise, train_transform
from udlib.datasets.voc import VOC, VOC_CLASSES, read_truth

__all__ = [
    "BatchAugment",
    "Box",
    "COCO",
    "Custom",
    "EMBEDDED",
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
    "find_dataset",
    "label_states",
    "load_rgb",
    "normalise",
    "open_dataset",
    "read_truth",
    "to_memory",
    "train_transform",
]


def open_dataset(
    data: str | Path | Source, split: str, size: int = 64, root: str | Path | None = None, **options
) -> MultiLabelDataset:
    """Open one split of a data set.

    Args:
        data: A name or a path. The names are "scenes" and "digits", which are made on first use; "photos", whose labels
            ship and whose photographs you add (`udlib data photos`); "voc2007", "voc2012",
            "coco2014" and "nuswide"; and any other for which `roots.place` or UDLIB_ROOTS holds a folder. A path is
            that of a folder in one of these layouts, or of a folder or a CSV as `Custom` reads it; the folder's content
            decides on the layout. Or what `find_dataset` returns.
        split: The split's name.
        size: Side in pixels of the pictures of "scenes" and "digits"; all others keep their size.
        root: The folder of a data set that is given by name; by default the one that `roots.place` or UDLIB_ROOTS
            holds, else the folder of that name below `data_root()`.
        **options: Arguments of the reader: `VOC`, `COCO`, `NUSWIDE` or `Custom`.

    Returns:
        The split.

    Raises:
        ValueError: `data` is neither a name nor a path.
        FileNotFoundError: The folder has none of these layouts.
    """
    place = find_dataset(data, root, **options)
    if isinstance(place, Source):
        return place.open(split)
    options.pop("missing", None)  # nothing is missing in what is made here
    return getattr(import_module(f"udlib.datasets.{place}"), place)(split, size=size, root=root, **options)


def find_dataset(data: str | Path | Source, root: str | Path | None = None, **options) -> str | Source:
    """Find a data set, and choose how it is read wherever it is opened.

    Args:
        data: As for `open_dataset`.
        root: As for `open_dataset`.
        **options: Arguments of the reader, such as `missing="drop"`. They do not concern "scenes" and "digits".

    Returns:
        What `open_dataset`, and the functions of `udlib.workshop` that take a data set, accept in place of its name.

    Raises:
        ValueError: `data` is neither a name nor a path.
        FileNotFoundError: The folder has none of the known layouts.
    """
    if isinstance(data, Source):
        return replace(data, options={**data.options, **options})
    name = data if isinstance(data, str) else ""
    if name in EMBEDDED:
        return name
    known = name in (PHOTOS, *NAMED) or (name != "" and placed(name) is not None)
    if not known and not Path(data).expanduser().exists():
        raise ValueError(
            f"unknown data set '{data}': choose {', '.join((*EMBEDDED, PHOTOS, *NAMED))}, or name a folder in the "
            "layout of VOC, COCO or NUS-WIDE, or one with a CSV of labels"
        )
    return source(data, root, **options)
