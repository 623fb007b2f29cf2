"""Numbers that describe a labelled data set: how many labels an image has, how often each class, how large pictures are."""

from collections import Counter
from dataclasses import dataclass
from typing import Iterable, Sequence

import pandas as pd
import torch
from torch import Tensor

from udlib.metrics import difficult_subset


@dataclass(frozen=True)
class Labels:
    """Statistics of N images × C labels.

    `images` is N. `labels_per_image` maps a number of labels to how many images have just so many, rising; difficult
    labels count. `positives` and `difficult` (C each) count images by class, difficult ones among the positives.
    `difficult_images` is the size of the paper's *Difficult* subset: images with at least one difficult label.
    """

    images: int
    labels_per_image: dict[int, int]
    positives: list[int]
    difficult: list[int]
    difficult_images: int

    @property
    def mean(self) -> float:
        """Labels per image, on average."""
        return sum(self.positives) / self.images if self.images else float("nan")

    @property
    def unlabelled(self) -> int:
        """Images without a single label."""
        return self.labels_per_image.get(0, 0)


def label_statistics(targets: Tensor, difficult: Tensor) -> Labels:
    """`Labels` of targets in {0, 1}, (N, C), and the bool mask of difficult ones, (N, C).

    >>> label_statistics(torch.tensor([[1, 1], [0, 0]]), torch.tensor([[True, False], [False, False]]))
    Labels(images=2, labels_per_image={0: 1, 2: 1}, positives=[1, 1], difficult=[1, 0], difficult_images=1)
    """
    if targets.ndim != 2 or targets.shape != difficult.shape:
        shapes = f"targets {tuple(targets.shape)} and difficult {tuple(difficult.shape)}"
        raise ValueError(f"{shapes}: expected one shape (N, C)")
    present = targets.bool()
    counts = Counter(present.sum(1).tolist())
    return Labels(
        len(targets),
        dict(sorted(counts.items())),
        present.sum(0).tolist(),
        difficult.sum(0).tolist(),
        int(difficult_subset(difficult).sum()),
    )


@dataclass(frozen=True)
class Sizes:
    """Widths and heights of pictures in pixels: smallest, median and largest side by side, and the commonest size."""

    width: tuple[int, float, int]
    height: tuple[int, float, int]
    commonest: tuple[int, int]
    share: float  # of the pictures that have the commonest size


def size_statistics(sizes: Iterable[tuple[int, int]]) -> Sizes:
    """`Sizes` of (width, height) pairs; ValueError for none.

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
    """One row per split and class: split, class, images of the split, positives, difficult, and the share of positives."""
    return pd.DataFrame(
        [
            (
                split,
                name,
                found.images,
                found.positives[k],
                found.difficult[k],
                found.positives[k] / found.images if found.images else float("nan"),
            )
            for split, found in splits.items()
            for k, name in enumerate(classes)
        ],
        columns=["split", "class", "images", "positives", "difficult", "share"],
    )
