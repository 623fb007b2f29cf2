"""The data of a recipe: its splits, opened once, and their labels, images and boxes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor

from udlib.datasets import open_dataset
from udlib.datasets.base import MultiLabelDataset, apply_policy, label_fingerprint
from udlib.datasets.pixels import images_of
from udlib.datasets.roots import placed
from udlib.methods import method_of
from udlib.methods.base import Recipe
from udlib.training.batches import ArrayData
from udlib.training.evaluation import Split

# VOC by its name means what papers train and test on (VOC2012's test labels are secret). They choose on no other images;
# here every HOLD_OUT-th training image is validation.
PUBLISHED = {"voc2007": ("trainval", "test"), "voc2012": ("train", "val")}
HOLD_OUT = 10
SPLITS = ("train", "val", "test")


def dataset(data: str, split: str, size: int, limit: int | None = None) -> MultiLabelDataset:
    """Open a split of the data set of this name, once."""
    return _opened(data, split, size, limit, placed(data))


@cache
def _opened(data: str, split: str, size: int, limit: int | None, where: Path | None) -> MultiLabelDataset:
    """`where` only tells apart what has lain under one name."""
    training, test = PUBLISHED.get(data, (split, split))
    part = open_dataset(data, test if split == "test" else training, size)
    if data in PUBLISHED and split != "test":
        part = part.subset(i for i in range(len(part)) if (i % HOLD_OUT == 0) == (split == "val"))
    return part if limit is None else part.subset(range(min(limit, len(part))))


def split_of(recipe: Recipe, split: str) -> MultiLabelDataset:
    """Open a split of a recipe's data ("train", "val" or "test"), with the classes that the recipe chooses."""
    part = dataset(recipe.data, split, recipe.size, recipe.limit)
    return part if recipe.classes is None else part.only(recipe.classes)


@cache
def _images(data: str, split: str, size: int, limit: int | None, where: Path | None) -> Tensor:
    return images_of(dataset(data, split, size, limit), size)


def fingerprint(recipe: Recipe) -> str:
    """Stands for the images' ids and labels of all three splits: which data set this is."""
    return label_fingerprint(*(split_of(recipe, split) for split in SPLITS))


def labels(recipe: Recipe, split: str) -> Split:
    """The labels of a recipe's split."""
    part = split_of(recipe, split)
    return Split(part.classes, part.targets, part.difficult, part.posterior)


def arrays(recipe: Recipe, split: str, policy: str = "positive") -> ArrayData:
    """Images, labels and proposals of a recipe's split, with difficult labels counted as the policy says."""
    part = labels(recipe, split)
    targets, ignore = apply_policy(part.targets, part.difficult, policy)
    images = _images(recipe.data, split, recipe.size, recipe.limit, placed(recipe.data))
    boxes = method_of(recipe.method).proposals(recipe, split_of(recipe, split), split)
    return ArrayData(images, targets, ignore if policy == "ignore" else None, part.difficult, boxes)
