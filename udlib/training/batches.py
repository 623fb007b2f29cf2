"""From labelled images to the batches of a step: images in memory, or decoded on demand by a Dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from udlib.datasets.proposals import Proposals, Regions
from udlib.datasets.threads import one_thread


@dataclass(frozen=True)
class ArrayData:
    """N images and their labels.

    Args:
        images: uint8 (N, 3, H, W) in memory, or a Dataset whose item i is image i (or a tuple that starts with it). Uint8
            images are augmented and normalised in the loop; float ones are taken as they come.
        targets: (N, C) in {0, 1}.
        ignore: bool (N, C), labels that are left out of the loss.
        difficult: bool (N, C), kept for evaluation.
        proposals: the boxes of each image, for a detector.
        unknown: bool (N, C), labels that nobody knows; they are left out of the loss, as `ignore` is, and of metrics.
        weights: float32 (N,), the weight of each image's loss, relative to their mean.

    Raises:
        ValueError: for other shapes, types or labels.
    """

    images: Tensor | Dataset
    targets: Tensor
    ignore: Tensor | None = None
    difficult: Tensor | None = None
    proposals: Proposals | None = None
    unknown: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self):
        images, targets, shape = self.images, self.targets, tuple(self.targets.shape)
        if isinstance(images, Tensor) and (images.dtype != torch.uint8 or images.ndim != 4):
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}: expected torch.uint8 (N, 3, H, W)")
        count = len(cast(Sized, images))
        if targets.ndim != 2 or len(targets) != count or targets.numel() == 0:
            raise ValueError(f"{count} images, targets {shape}: expected targets (N, C) with one row per image")
        wrong = ((targets != 0) & (targets != 1)).nonzero()
        if len(wrong):
            where = wrong[0].tolist()
            raise ValueError(f"targets hold {targets[tuple(where)].item()} at {where}: expected only 0 and 1")
        masks = {"ignore": self.ignore, "difficult": self.difficult, "unknown": self.unknown}
        for name, mask in masks.items():
            if mask is not None and (mask.shape != targets.shape or mask.dtype != torch.bool):
                raise ValueError(f"{name} is {mask.dtype} {tuple(mask.shape)}: expected torch.bool {shape}")
        if self.weights is not None:
            require_weights(self.weights, count)
        if self.proposals is not None and len(self.proposals) != len(targets):
            raise ValueError(
                f"proposals belong to {len(self.proposals)} images, but there are {len(targets)} images: give proposals for "
                "each"
            )

    def only(self, classes: Sequence[int]) -> ArrayData:
        """The same images with these classes alone, by their numbers."""
        columns = list(classes)
        masks = {
            name: value for name in ("ignore", "difficult", "unknown") if (value := getattr(self, name)) is not None
        }
        masks = {name: value[:, columns] for name, value in masks.items()}
        return replace(self, targets=self.targets[:, columns], **masks)

    def to(self, device: torch.device) -> ArrayData:
        """The same data on a GPU, if its images are in memory and take less than half of what is free there."""
        if device.type != "cuda" or not isinstance(self.images, Tensor):
            return self
        if self.images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return self
        values: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if value is not None})


class View(NamedTuple):
    """How the images of a batch were made from the stored ones."""

    mean: tuple[float, ...]  # of each colour, as they were normalised
    std: tuple[float, ...]
    again: Callable[[int, Sequence[float], Sequence[float]], Tensor]  # (size, mean, std): the same regions once more


class Batch(NamedTuple):
    """What one step sees: B images with their labels."""

    images: Tensor  # (B, 3, H, W) float32
    targets: Tensor  # (B, C) float32
    ignore: Tensor | None  # (B, C) bool, True = left out of the loss
    index: Tensor  # type: ignore[assignment]  # (B,) rows of the data, on the CPU; it hides tuple.index
    regions: Regions | None = None  # the boxes of the images as they are here, mirrored with them
    mirrored: Tensor | None = None  # (B,) bool, which images were mirrored; None where none was
    view: View | None = None  # None where nobody knows how the images were made
    epoch: int = 0  # of the training, from 0
    progress: float = 0.0  # share of the training's steps that are done, in [0, 1)
    answers: Any = None  # what a teacher says about the images, where a stage asks one
    weights: Tensor | None = None  # (B,) float32, of the images' losses; 1 on average over the training set


def require_weights(weights: Tensor, count: int) -> None:
    """Refuse weights that are not one finite number, 0 or above, for each image, or are all 0 (ValueError)."""
    if tuple(weights.shape) != (count,) or not weights.is_floating_point():
        raise ValueError(f"weights are {weights.dtype} {tuple(weights.shape)}: expected floating-point ({count},)")
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(
            "weights hold a number that is negative or not finite, or are all 0: expected 1 for most images"
        )


def as_data(data: ArrayData | Dataset) -> ArrayData:
    """Take a data set of `udlib.datasets` with its labels as they are: difficult ones count as positive in training."""
    if isinstance(data, ArrayData):
        return data
    dataset = cast(Any, data)
    unknown, weights = getattr(dataset, "unknown", None), getattr(dataset, "weights", None)
    return ArrayData(data, dataset.targets, unknown, dataset.difficult, unknown=unknown, weights=weights)


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
    view: Callable[[Tensor], View | None] = lambda stored: None,
) -> Iterator[Batch]:
    """Load batches onto a device.

    Args:
        data: N images and their labels.
        indices: the rows of each batch.
        prepare: makes float images of uint8 ones, on the device.
        device: where the batches go.
        workers: processes that decode a Dataset's images.
        mirrored: says after each `prepare` which images, bool (B,), it mirrored, so that their boxes follow. None as its
            answer, or in its place, says that no image was mirrored.
        view: says after each `prepare` how it made the images from the stored ones.

    Raises:
        ValueError: for float images with boxes, since nobody knows how such images were moved.
    """
    if isinstance(data.images, Tensor):
        images: Iterable[Tensor] = gathered(data.images, indices)
    else:
        pinned = device.type == "cuda"
        batches = cast(Any, indices)
        images = DataLoader(ImagesOnly(data.images), batch_sampler=batches, num_workers=workers, pin_memory=pinned)
    labels = data.targets.device
    weights = None if data.weights is None else data.weights / data.weights.mean()
    for rows, stored in zip(indices, images):
        pixels = raw = stored.to(device, non_blocking=True)
        which = remade = None
        if raw.dtype == torch.uint8:
            pixels = prepare(raw)
            remade = view(raw)
            which = mirrored() if mirrored is not None else None
            if pixels.untyped_storage().data_ptr() == raw.untyped_storage().data_ptr():
                pixels = pixels.clone()  # the next batch may be written over this one
        elif data.proposals is not None and mirrored is not None:
            raise ValueError(
                f"images are {raw.dtype}, so their data set may have moved them, and their boxes cannot follow: give uint8 "
                "images"
            )
        targets = data.targets[rows.to(labels)].to(device, torch.float32)
        ignore = None if data.ignore is None else data.ignore[rows.to(labels)].to(device)
        regions = None if data.proposals is None else data.proposals.of(rows).to(device)
        if regions is not None and which is not None:
            regions = regions.mirrored(which)
        prepared = pixels.contiguous(memory_format=torch.channels_last)
        batch = Batch(prepared, targets, ignore, rows, regions, which, remade)
        yield batch if weights is None else batch._replace(weights=weights[rows.to(labels)].to(device))


def gathered(images: Tensor, indices: list[Tensor]) -> Iterator[Tensor]:
    """Take these rows of the images, batch by batch, in the layout in which they lie in memory."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    images = images.permute(0, 2, 3, 1) if channels_last else images
    batch = None
    for rows in indices:
        rows = rows.to(images.device)
        with one_thread():  # a copy is as fast on one core, and a second thread would have to be waited for
            if batch is None or images.device.type != "cpu" or len(batch) != len(rows):
                batch = images.index_select(0, rows)
            else:
                # Over the last batch, which its reader has copied by now: new memory costs as much time as the copy.
                torch.index_select(images, 0, rows, out=batch)
        yield batch.permute(0, 3, 1, 2) if channels_last else batch


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
