"""From labelled images to the batches of a step: images in memory, or decoded on demand by a Dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from udlib.datasets.proposals import Proposals, Regions


@dataclass(frozen=True)
class ArrayData:
    """N images and their labels. Images: uint8 (N, 3, H, W) in memory, or a Dataset whose item i is image i
    (or a tuple that starts with it). Uint8 images are augmented and normalised in the loop; float ones are taken as
    they come. `targets` (N, C) in {0, 1}; `ignore` bool (N, C), left out of the loss; `difficult` bool (N, C), kept
    for evaluation; `proposals`, the boxes of each image, for a detector.
    """

    images: Tensor | Dataset
    targets: Tensor
    ignore: Tensor | None = None
    difficult: Tensor | None = None
    proposals: Proposals | None = None

    def __post_init__(self):
        if isinstance(self.images, Tensor) and (self.images.dtype != torch.uint8 or self.images.ndim != 4):
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise ValueError(f"images are {found}: expected torch.uint8 (N, 3, H, W)")
        if self.targets.ndim != 2 or len(self.targets) != len(self.images) or self.targets.numel() == 0:
            found = f"{len(self.images)} images, targets {tuple(self.targets.shape)}"
            raise ValueError(f"{found}: expected targets (N, C) with one row per image")
        wrong = ((self.targets != 0) & (self.targets != 1)).nonzero()
        if len(wrong):
            where = wrong[0].tolist()
            raise ValueError(f"targets hold {self.targets[tuple(where)].item()} at {where}: expected only 0 and 1")
        for name, mask in {"ignore": self.ignore, "difficult": self.difficult}.items():
            if mask is not None and (mask.shape != self.targets.shape or mask.dtype != torch.bool):
                found = f"{mask.dtype} {tuple(mask.shape)}"
                raise ValueError(f"{name} is {found}: expected torch.bool {tuple(self.targets.shape)}")
        if self.proposals is not None and len(self.proposals) != len(self.targets):
            raise ValueError(
                f"proposals are of {len(self.proposals)} images, and there are {len(self.targets)}: expected the same"
            )

    def only(self, classes: Sequence[int]) -> ArrayData:
        """The same images with these classes alone, by their numbers."""
        columns = list(classes)
        masks = {name: value for name in ("ignore", "difficult") if (value := getattr(self, name)) is not None}
        masks = {name: value[:, columns] for name, value in masks.items()}
        return replace(self, targets=self.targets[:, columns], **masks)

    def to(self, device: torch.device) -> ArrayData:
        """The same data on a GPU, if its images are in memory and take less than half of what is free there."""
        if device.type != "cuda" or not isinstance(self.images, Tensor):
            return self
        if self.images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        moved = {part.name: getattr(self, part.name) for part in fields(self)}
        return ArrayData(**{name: None if value is None else value.to(device) for name, value in moved.items()})


class Batch(NamedTuple):
    """What one step sees: B images with their labels."""

    images: Tensor  # (B, 3, H, W) float32
    targets: Tensor  # (B, C) float32
    ignore: Tensor | None  # (B, C) bool, True = left out of the loss
    index: Tensor  # (B,) rows of the data, on the CPU
    regions: Regions | None = None  # the boxes of the images as they are here, mirrored with them
    mirrored: Tensor | None = None  # (B,) bool, which images were mirrored; None where none was, or nobody knows


def as_data(data: ArrayData | Dataset) -> ArrayData:
    """A data set of `udlib.datasets` with its labels as they are: difficult ones count as positive in training."""
    if isinstance(data, ArrayData):
        return data
    return ArrayData(data, data.targets, difficult=data.difficult)


def require_positives(data: ArrayData) -> None:
    """Refuse a training set in which no label that counts is positive (ValueError)."""
    counted = data.targets.bool() if data.ignore is None else data.targets.bool() & ~data.ignore
    if not counted.any():
        raise ValueError(
            f"none of the {len(counted)} training images has a positive label that counts: "
            "check the class names, the split, and the policy for difficult labels"
        )


def load(
    data: ArrayData,
    indices: list[Tensor],
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
    workers: int,
    mirrored: Callable[[], Tensor | None] | None = None,
) -> Iterator[Batch]:
    """The batches with these rows, on the device; uint8 images go through `prepare` there.

    `mirrored()` says after each `prepare` which images (B,) it mirrored, so that their boxes follow; None, or no function:
    none of them.
    """
    if isinstance(data.images, Tensor):
        images: Iterable[Tensor] = gathered(data.images, indices)
    else:
        images = DataLoader(
            ImagesOnly(data.images), batch_sampler=indices, num_workers=workers, pin_memory=device.type == "cuda"
        )
    labels = data.targets.device
    for rows, pixels in zip(indices, images):
        pixels = taken = pixels.to(device, non_blocking=True)
        if taken.dtype == torch.uint8:
            pixels = prepare(taken)
            if pixels.untyped_storage().data_ptr() == taken.untyped_storage().data_ptr():
                pixels = pixels.clone()  # the next batch may be written over this one
        targets = data.targets[rows.to(labels)].to(device, torch.float32)
        ignore = None if data.ignore is None else data.ignore[rows.to(labels)].to(device)
        regions = None if data.proposals is None else data.proposals.of(rows).to(device)
        which = mirrored() if mirrored is not None and taken.dtype == torch.uint8 else None
        if regions is not None and mirrored is not None:
            if taken.dtype != torch.uint8:
                raise ValueError(
                    f"images come as {taken.dtype}, moved by their data set perhaps, and their boxes cannot follow: "
                    "give uint8 images"
                )
            if which is not None:
                regions = regions.mirrored(which)
        yield Batch(pixels.contiguous(memory_format=torch.channels_last), targets, ignore, rows, regions, which)


def gathered(images: Tensor, indices: list[Tensor]) -> Iterator[Tensor]:
    """These rows of the images, in memory as they are. On a CPU the next ones are written over the last, where as many: new
    memory costs as much time as the copy, and what becomes of a batch is its own."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    images = images.permute(0, 2, 3, 1) if last else images
    found = None
    for rows in indices:
        rows = rows.to(images.device)
        if found is None or images.device.type != "cpu" or len(found) != len(rows):
            found = images.index_select(0, rows)
        else:
            torch.index_select(images, 0, rows, out=found)
        yield found.permute(0, 3, 1, 2) if last else found


class ImagesOnly(Dataset):
    """The images of a data set whose labels are in memory already."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, row: Tensor) -> Tensor:
        item = self.dataset[int(row)]
        image = item[0] if isinstance(item, tuple) else item
        if not isinstance(image, Tensor):
            raise TypeError(f"image {int(row)} is a {type(image).__name__}: give the data set a transform to tensors")
        return image
