"""Do attention maps look where the things are? The maps of a trained network against the boxes of the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from udlib.attention import class_attention, energy_inside, pointing_game, uncertainty_attention
from udlib.datasets.base import Box, MultiLabelDataset
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.training.batches import ArrayData, load
from udlib.training.devices import autocast, keeps_devices, make_accelerator


def box_mask(boxes: Sequence[Box], image_size: tuple[int, int], size: int) -> Tensor:
    """The union of boxes as bool (size, size), for an image of `image_size` (width, height) that was resized to a square.

    A pixel belongs to a box that covers its centre.

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
    prepare: Callable[[Tensor], Tensor] = normalise,
) -> dict[str, float]:
    """How well the maps of a network find the objects of each label: pointing game and energy inside the boxes.

    One case for each image and each class that is present there; its mask is the union of that class's boxes. `data` holds
    the square images and labels of `dataset`, which has the boxes. Of `class_…`, the map is Grad-CAM of that class, of
    `uncertainty_…` the image's one uncertainty attention map (only with a calibration branch). Fractions, averaged over
    cases, apart for labels of which some object is easy (`…_easy`) and of which all are difficult (`…_difficult`):
    `…_pointing_…`, `…_energy_…`, and `area_…`, the share of the picture in the mask, which a flat map's energy equals.
    A group without cases is left out; a case whose map has no positive part counts for pointing, not for energy.
    """
    device = make_accelerator().device
    model.to(device)
    found: dict[str, list[Tensor]] = {}
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for batch in load(data, list(torch.arange(len(data.targets)).split(batch_size)), prepare, device, workers=0):
            with torch.inference_mode(), autocast(device, precision):
                features = model.backbone(batch.images)
            of, classes = (part.cpu() for part in batch.targets.nonzero(as_tuple=True))
            frames = [
                dataset.image_size(i) for i in batch.index.tolist()
            ]  # a file's header each: once for all its labels
            masks = [
                box_mask(
                    [b for b in dataset.boxes(int(batch.index[i])) if b.name == dataset.classes[k]],
                    frames[i],
                    batch.images.shape[-1],
                )
                for i, k in zip(of.tolist(), classes.tolist())
            ]
            kept = torch.tensor([bool(mask.any()) for mask in masks])  # a label without a box, or of a box of no pixel
            if not kept.any():
                continue
            masks = torch.stack([mask for mask, keep in zip(masks, kept) if keep]).to(device)
            of, classes = of[kept].to(device), classes[kept].to(device)
            maps = {"class": class_attention(model.head, features[of], classes, model.pooling)}
            if model.head.calibration is not None:
                maps["uncertainty"] = uncertainty_attention(model.head, features, model.pooling)[of]
            numbers = {"area": masks.double().mean((1, 2))}
            for name, value in maps.items():
                numbers[f"{name}_pointing"] = pointing_game(value, masks)
                numbers[f"{name}_energy"] = energy_inside(value, masks)
            hard = dataset.difficult[batch.index][of.cpu(), classes.cpu()]
            for name, value in numbers.items():
                for group, chosen in (("easy", ~hard), ("difficult", hard)):
                    found.setdefault(f"{name}_{group}", []).append(value.cpu().double()[chosen])
    finally:
        for module, training in modes.items():
            module.training = training
    means = {name: torch.cat(values).nanmean().item() for name, values in found.items()}
    return {name: value for name, value in means.items() if not math.isnan(value)}
