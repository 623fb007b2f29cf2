"""The data of a recipe: its splits, opened once, and their labels, images and boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from torch import Tensor

from udlib.datasets import open_dataset
from udlib.datasets.base import MultiLabelDataset, apply_policy, label_fingerprint, require_disjoint
from udlib.datasets.pixels import images_of
from udlib.datasets.roots import placed
from udlib.datasets.shifts import shifted
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


@cache
def _images(data: str, split: str, size: int, limit: int | None, where: Path | None) -> Tensor:
    return images_of(dataset(data, split, size, limit), size)


@cache
def _shifted(
    data: str, split: str, size: int, limit: int | None, where: Path | None, shift: str, strength: int
) -> Tensor:
    """Shifted images are made once for all the trainings of a process; of `photos`, all nine together take 1.7 GB."""
    return shifted(_images(data, split, size, limit, where), shift, strength)


@dataclass(frozen=True)
class RecipeData:
    """The data that a recipe names: its three splits, each opened when it is first needed."""

    recipe: Recipe

    def split(self, name: str) -> MultiLabelDataset:
        """A split ("train", "val" or "test"), with the classes that the recipe chooses."""
        part = dataset(self.recipe.data, name, self.recipe.size, self.recipe.limit)
        return part if self.recipe.classes is None else part.only(self.recipe.classes)

    def require_disjoint(self, *names: str) -> None:
        """Refuse splits that share images (ValueError)."""
        require_disjoint({name: self.split(name).ids for name in names or SPLITS})

    def fingerprint(self) -> str:
        """Stands for the images' ids and labels of all three splits: which data set this is."""
        return label_fingerprint(*(self.split(name) for name in SPLITS))

    def labels(self, name: str) -> Split:
        """The labels of a split."""
        part = self.split(name)
        return Split(part.classes, part.targets, part.difficult, part.posterior)

    def arrays(self, name: str, policy: str = "positive") -> ArrayData:
        """Images, labels and proposals of a split, with difficult labels counted as the policy says."""
        recipe, part = self.recipe, self.split(name)
        targets, ignore = apply_policy(part.targets, part.difficult, policy)
        images = _images(recipe.data, name, recipe.size, recipe.limit, placed(recipe.data))
        boxes = method_of(recipe.method).proposals(recipe, part, name)
        return ArrayData(images, targets, ignore if policy == "ignore" else None, part.difficult, boxes)

    def under_shift(self, name: str, shift: str, strength: int) -> ArrayData:
        """`arrays`, with the images as they come after a shift (`datasets.shifts`)."""
        recipe = self.recipe
        where = placed(recipe.data)
        images = _shifted(recipe.data, name, recipe.size, recipe.limit, where, shift, strength)
        return replace(self.arrays(name), images=images)


def fingerprint(recipe: Recipe) -> str:
    """Stands for the images' ids and labels of all three splits: which data set this is."""
    return RecipeData(recipe).fingerprint()


def labels(recipe: Recipe, split: str) -> Split:
    """The labels of a recipe's split ("train", "val" or "test")."""
    return RecipeData(recipe).labels(split)


def arrays(recipe: Recipe, split: str, policy: str = "positive") -> ArrayData:
    """Images, labels and proposals of a recipe's split, with difficult labels counted as the policy says."""
    return RecipeData(recipe).arrays(split, policy)
