"""Where attention maps point: the maps of a trained network against the boxes of the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from udlib.attention import class_attention, energy_inside, pointing_game, uncertainty_attention
from udlib.datasets.base import Box, MultiLabelDataset
from udlib.heads import DualBranchNet
from udlib.modes import evaluating
from udlib.training.batches import ArrayData, Batch, load
from udlib.training.devices import autocast, keeps_devices, make_accelerator
from udlib.training.optimization import TrainingConfig


class Cases(NamedTuple):
    """The K cases of one batch: each is an image and a class that is present there.

    Attributes:
        image: int64 (K,), the row in the batch.
        classes: int64 (K,).
        masks: bool (K, size, size), the union of that class's boxes.
    """

    image: Tensor
    classes: Tensor
    masks: Tensor


def box_mask(boxes: Sequence[Box], image_size: tuple[int, int], size: int) -> Tensor:
    """Mask of the union of boxes, for an image that was resized to a square.

    A pixel belongs to a box that covers its centre.

    Args:
        boxes: in pixels of the original image.
        image_size: (width, height) of the original image, in pixels.
        size: side of the square, in pixels.

    Returns:
        bool (size, size).

    Example:
        >>> box_mask([Box("cup", 0, 0, 2, 4)], (4, 4), 2)
        tensor([[ True, False],
                [ True, False]])
    """
    width, height = image_size
    mask = torch.zeros(size, size, dtype=torch.bool)
    centres = torch.arange(size) + 0.5
    for box in boxes:
        x, y = centres * width / size, centres * height / size
        mask |= ((y >= box.ymin) & (y < box.ymax))[:, None] & ((x >= box.xmin) & (x < box.xmax))[None, :]
    return mask


@keeps_devices
def localisation(
    model: DualBranchNet,
    data: ArrayData,
    dataset: MultiLabelDataset,
    *,
    batch_size: int = 256,
    precision: str = "auto",
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Measure how well the maps of a network find the objects of each label: pointing game and energy inside the boxes.

    One case is an image and a class that is present there; its mask is the union of that class's boxes. A case whose
    map has no positive part counts for pointing, not for energy.

    Args:
        model: its mode stays as it is.
        data: the square images and labels of `dataset`.
        dataset: has the boxes.
        batch_size: number of images at once.
        precision: "auto", "bf16" or "fp32", of the backbone.
        prepare: makes float images of uint8 ones; None: normalises them as the network expects.

    Returns:
        Fractions, averaged over cases, by name: `class_…` for Grad-CAM of the case's class and, with a calibration
        branch, `uncertainty_…` for the image's one uncertainty map; `…_pointing_…` and `…_energy_…`; and `area_…`, the
        mask's share of the picture, which the energy of a flat map equals. `…_easy` averages labels of which some
        object is easy, `…_difficult` those of which all are difficult; a group without cases is left out.
    """
    device, prepare = make_accelerator().device, prepare or TrainingConfig().prepare_for(model)
    model.to(device)
    values: dict[str, list[Tensor]] = {}
    rows = list(torch.arange(len(data.targets)).split(batch_size))
    with evaluating(model):
        for batch in load(data, rows, prepare, device, workers=0):
            with torch.inference_mode(), autocast(device, precision):
                features = model.backbone(batch.images)
            cases = _cases(batch, dataset)
            if cases is None:
                continue
            hard = dataset.difficult[batch.index][cases.image.cpu(), cases.classes.cpu()]
            for name, value in _case_numbers(model, features, cases):
                for group, members in (("easy", ~hard), ("difficult", hard)):
                    values.setdefault(f"{name}_{group}", []).append(value.cpu().double()[members])
    means = {name: torch.cat(parts).nanmean().item() for name, parts in values.items()}
    return {name: value for name, value in means.items() if not math.isnan(value)}


def _cases(batch: Batch, dataset: MultiLabelDataset) -> Cases | None:
    """The cases of a batch, on its device; None where it has none."""
    image, classes = (part.cpu() for part in batch.targets.nonzero(as_tuple=True))
    # The size of an image is read from its file: once for all its labels.
    sizes = [dataset.image_size(i) for i in batch.index.tolist()]
    masks = [
        box_mask(
            [box for box in dataset.boxes(int(batch.index[i])) if box.name == dataset.classes[k]],
            sizes[i],
            batch.images.shape[-1],
        )
        for i, k in zip(image.tolist(), classes.tolist())
    ]
    # A label without a box has no case, nor has one whose boxes cover the centre of no pixel.
    kept = torch.tensor([bool(mask.any()) for mask in masks])
    if not kept.any():
        return None
    device = batch.images.device
    return Cases(image[kept].to(device), classes[kept].to(device), torch.stack(masks)[kept].to(device))


def _case_numbers(model: DualBranchNet, features: Tensor, cases: Cases) -> Iterator[tuple[str, Tensor]]:
    """Name and value (K,) of each number of the cases."""
    maps = {"class": class_attention(model.head, features[cases.image], cases.classes, model.pooling)}
    if model.head.calibration is not None:
        maps["uncertainty"] = uncertainty_attention(model.head, features, model.pooling)[cases.image]
    yield "area", cases.masks.double().mean((1, 2))
    for name, value in maps.items():
        yield f"{name}_pointing", pointing_game(value, cases.masks)
        yield f"{name}_energy", energy_inside(value, cases.masks)
