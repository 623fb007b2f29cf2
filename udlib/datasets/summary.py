"""Numbers that describe a labelled data set: labels per image, images per class, sizes of pictures."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from udlib.metrics import difficult_subset


@dataclass(frozen=True)
class Labels:
    """Statistics of the labels of N images and C classes."""

    images: int  # N
    labels_per_image: dict[int, int]  # how many images have so many labels, difficult ones included; keys rise
    positives: list[int]  # images of each class, difficult ones included
    difficult: list[int]  # images of each class where it is difficult
    difficult_images: int  # the paper's *Difficult* subset: images with at least one difficult label
    unknown: list[int]  # images of each class of which nobody knows whether they show it
    unknown_images: int  # images with at least one unknown label

    @property
    def mean(self) -> float:
        """Mean number of labels per image; NaN without images."""
        return sum(self.positives) / self.images if self.images else float("nan")

    @property
    def unlabelled(self) -> int:
        """Number of images without a label."""
        return self.labels_per_image.get(0, 0)


def label_statistics(targets: Tensor, difficult: Tensor, unknown: Tensor | None = None) -> Labels:
    """Count the labels of a data set.

    Args:
        targets: (N, C) in {0, 1}.
        difficult: Bool (N, C).
        unknown: Bool (N, C), labels that nobody knows, which are 0 in `targets`; None where all are known.

    Returns:
        The counts.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> difficult = torch.tensor([[True, False], [False, False]])
        >>> label_statistics(torch.tensor([[1, 1], [0, 0]]), difficult)  # doctest: +NORMALIZE_WHITESPACE
        Labels(images=2, labels_per_image={0: 1, 2: 1}, positives=[1, 1], difficult=[1, 0], difficult_images=1,
               unknown=[0, 0], unknown_images=0)
    """
    if targets.ndim != 2 or targets.shape != difficult.shape:
        shapes = f"targets {tuple(targets.shape)} and difficult {tuple(difficult.shape)}"
        raise ValueError(f"{shapes}: expected one shape (N, C)")
    if unknown is None:
        unknown = torch.zeros_like(difficult)
    if unknown.shape != targets.shape:
        raise ValueError(
            f"unknown has the shape {tuple(unknown.shape)}: expected {tuple(targets.shape)}, that of targets"
        )
    present = targets.bool()
    counts = Counter(present.sum(1).tolist())
    return Labels(
        len(targets),
        dict(sorted(counts.items())),
        present.sum(0).tolist(),
        difficult.sum(0).tolist(),
        int(difficult_subset(difficult).sum()),
        unknown.sum(0).tolist(),
        int(unknown.any(1).sum()),
    )


@dataclass(frozen=True)
class Sizes:
    """Widths and heights of pictures, in pixels."""

    width: tuple[int, float, int]  # smallest, median, largest
    height: tuple[int, float, int]
    commonest: tuple[int, int]  # width and height
    share: float  # of the pictures that have the commonest size


def size_statistics(sizes: Iterable[tuple[int, int]]) -> Sizes:
    """Summarise the sizes of pictures.

    Args:
        sizes: Width and height of each picture, in pixels.

    Returns:
        Smallest, median and largest sides, and the commonest size.

    Raises:
        ValueError: There is no picture.

    Example:
        >>> size_statistics([(500, 375), (500, 333), (375, 500), (500, 375)])
        Sizes(width=(375, 500.0, 500), height=(333, 375.0, 500), commonest=(500, 375), share=0.5)
    """
    sizes = list(sizes)
    if not sizes:
        raise ValueError("there are no sizes: expected (width, height) of at least one picture")
    sides = torch.tensor(sizes, dtype=torch.float64)
    middle = sides.quantile(0.5, dim=0).tolist()
    ((commonest, count),) = Counter(sizes).most_common(1)
    width, height = ((int(sides[:, k].min()), middle[k], int(sides[:, k].max())) for k in range(2))
    return Sizes(width, height, commonest, count / len(sizes))


def class_table(splits: dict[str, Labels], classes: Sequence[str]) -> pd.DataFrame:
    """Tabulate the counts of each split and class.

    Args:
        splits: The counts of each split, by its name.
        classes: The names of the classes, in order.

    Returns:
        One row per split and class, with the columns split, class, images (of the split), positives, difficult, share (of
        positives among the images of which the label is known, a fraction) and unknown.
    """
    return pd.DataFrame(
        [
            (
                split,
                name,
                labels.images,
                labels.positives[k],
                labels.difficult[k],
                _share(labels.positives[k], labels.images - labels.unknown[k]),
                labels.unknown[k],
            )
            for split, labels in splits.items()
            for k, name in enumerate(classes)
        ],
        columns=["split", "class", "images", "positives", "difficult", "share", "unknown"],
    )


def _share(positives: int, known: int) -> float:
    """The share of positives; NaN where no label is known."""
    return positives / known if known else float("nan")
