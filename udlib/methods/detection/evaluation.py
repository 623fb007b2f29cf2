"""How well a detector finds the annotated objects: CorLoc, and average precision at IoU 0.5 as PASCAL VOC defines it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from udlib.datasets.base import Box, MultiLabelDataset
from udlib.datasets.proposals import annotated
from udlib.datasets.transforms import normalise
from udlib.methods.detection.losses import region_probabilities
from udlib.methods.detection.network import Detector
from udlib.training.batches import ArrayData, load
from udlib.training.devices import autocast, keeps_devices, make_accelerator

MATCH = 0.5  # the least intersection over union (IoU) at which a box is right
OVERLAP = 0.4  # IoU above which the weaker of two boxes of one class is dropped (non-maximum suppression)


class Detections(NamedTuple):
    """K boxes that a detector found in all images, each of one class."""

    image: Tensor  # (K,) int64, the image's row
    classes: Tensor  # (K,) int64
    boxes: Tensor  # (K, 4) float32, x1, y1, x2, y2 in fractions of the image's sides
    scores: Tensor  # (K,) float32


class Objects(NamedTuple):
    """The M annotated objects of all images."""

    image: Tensor  # (M,) int64
    classes: Tensor  # (M,) int64
    boxes: Tensor  # (M, 4) float32, as those of `Detections`
    difficult: Tensor  # (M,) bool; also a box around a crowd


def objects_of(dataset: MultiLabelDataset) -> Objects:
    """The annotated objects of a data set, image after image."""
    column = {name: k for k, name in enumerate(dataset.classes)}
    counts = torch.tensor([len(own) for own in dataset.objects])
    every = [box for i in range(len(dataset)) for box in dataset.boxes(i)]
    boxes = [annotated(dataset, i) for i, own in enumerate(dataset.objects) if own]
    return Objects(
        torch.arange(len(dataset)).repeat_interleave(counts),
        torch.tensor([column[b.name] for b in every], dtype=torch.int64),
        torch.cat(boxes) if boxes else torch.zeros(0, 4),
        torch.tensor([b.difficult or b.crowd for b in every], dtype=torch.bool),
    )


@keeps_devices
def detect(
    model: Detector,
    data: ArrayData,
    *,
    overlap: float = OVERLAP,
    batch_size: int = 256,
    precision: str = "auto",
    prepare: Callable[[Tensor], Tensor] = normalise,
) -> Detections:
    """What a detector finds in each image: for each class the boxes that are left after non-maximum suppression.

    A box's score for class k is its share of p_k, S^c_rk S^d_rk (WSDDN). `data` has the proposals; `model` is in eval mode
    for it. Raises ValueError for data without proposals.
    """
    device = make_accelerator().device
    found: list[Detections] = []
    training = {module: module.training for module in model.modules()}
    model.to(device).eval()
    try:
        for batch in load(data, list(torch.arange(len(data.targets)).split(batch_size)), prepare, device, workers=0):
            with torch.inference_mode(), autocast(device, precision):
                said = model(batch.images, batch.regions)
            regions, images = batch.regions, len(batch.images)
            shares = region_probabilities(said.class_scores, said.region_scores, regions.image, images).float().cpu()
            boxes, counts = regions.boxes.cpu(), torch.bincount(regions.image, minlength=images).tolist()
            for row, own, scores in zip(batch.index.tolist(), boxes.split(counts), shares.split(counts)):
                for k, column in enumerate(scores.unbind(1)):
                    kept = nms(own, column, overlap)
                    found.append(
                        Detections(torch.full((len(kept),), row), torch.full((len(kept),), k), own[kept], column[kept])
                    )
    finally:
        for module, was in training.items():
            module.training = was
    return Detections(*(torch.cat(parts) for parts in zip(*found)))


def matched(found: Detections, truth: Objects) -> tuple[Tensor, Tensor]:
    """For each detection the object of its image and class with the highest IoU: (K,) that IoU, (K,) its row in `truth`.

    Where there is no such object, the IoU is 0 and the row -1.
    """
    overlap, at = torch.zeros(len(found.scores)), torch.full((len(found.scores),), -1)
    images = int(torch.cat([found.image, truth.image, torch.tensor([-1])]).max()) + 1
    detections, objects = (
        which.argsort(stable=True).split(torch.bincount(which, minlength=images).tolist())
        for which in (found.image, truth.image)
    )
    for mine, theirs in zip(detections, objects):
        if len(mine) and len(theirs):
            iou = box_iou(found.boxes[mine], truth.boxes[theirs])
            iou[found.classes[mine][:, None] != truth.classes[theirs]] = -1
            best, which = iou.max(1)
            same = best >= 0
            overlap[mine[same]], at[mine[same]] = best[same], theirs[which[same]]
    return overlap, at


def detection_average_precision(found: Detections, truth: Objects, num_classes: int) -> Tensor:
    """AP of the detections of each class at IoU 0.5, float64 (C,) in [0, 1], NaN for a class without an object that counts.

    As PASCAL VOC has it since 2010 (Everingham et al.): from the highest score down, a detection is right where its best
    match (`matched`) has an IoU of at least MATCH and was not found before; a second one of the same object is wrong; one
    of a difficult object counts for nothing, and such an object need not be found. AP is the area under the precision-recall
    curve made monotone, over all its points. Boxes are areas here, not VOC's pixels with both ends counted in.
    """
    overlap, at = matched(found, truth)
    result = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for k in range(num_classes):
        wanted = int(((truth.classes == k) & ~truth.difficult).sum())
        if not wanted:
            continue
        mine = (found.classes == k).nonzero().flatten()
        mine = mine[found.scores[mine].argsort(descending=True, stable=True)]
        hit = overlap[mine] >= MATCH
        difficult = hit & truth.difficult[at[mine]]
        right = (hit & _first(torch.where(hit, at[mine], -1)))[~difficult].double()
        recall, precision = right.cumsum(0) / wanted, right.cumsum(0) / torch.arange(1, len(right) + 1)
        monotone = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
        result[k] = (recall.diff(prepend=torch.zeros(1, dtype=torch.float64)) * monotone).sum()
    return result


def correct_localisation(found: Detections, truth: Objects, num_classes: int) -> Tensor:
    """CorLoc of each class, float64 (C,) in [0, 1], NaN for a class without a case (Deselaers et al., 2012).

    The cases are the images with an object of the class that is not difficult; right is one in which the best-scored box of
    that class has an IoU of at least MATCH with any object of it, a difficult one too.
    """
    overlap, _ = matched(found, truth)
    best = found.scores.argsort(descending=True, stable=True)
    best = best[_first((found.image * num_classes + found.classes)[best])]
    right = {
        (i, k)
        for i, k, fits in zip(
            found.image[best].tolist(), found.classes[best].tolist(), (overlap[best] >= MATCH).tolist()
        )
        if fits
    }
    cases = {
        case
        for case, hard in zip(zip(truth.image.tolist(), truth.classes.tolist()), truth.difficult.tolist())
        if not hard
    }
    result = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for k in {k for _, k in cases}:
        own = [case in right for case in cases if case[1] == k]
        result[k] = sum(own) / len(own)
    return result


def detection(model: Detector, data: ArrayData, dataset: MultiLabelDataset, **options) -> dict[str, float]:
    """{"CorLoc", "detection_mAP"}: means over the classes that have cases, as fractions.

    `data` holds the images and proposals of `dataset`, which has the boxes. `options` are those of `detect`.
    """
    found, truth = detect(model, data, **options), objects_of(dataset)
    classes = len(dataset.classes)
    return {
        "CorLoc": correct_localisation(found, truth, classes).nanmean().item(),
        "detection_mAP": detection_average_precision(found, truth, classes).nanmean().item(),
    }


def best_boxes(
    found: Detections, row: int, classes: Sequence[int], names: Sequence[str], size: tuple[int, int]
) -> list[Box]:
    """The best-scored box of each of these classes in the image of one row, to be drawn: in pixels of `size` (width, height).

    A class of which nothing was found there is left out.
    """
    width, height = size
    result = []
    for k in classes:
        mine = ((found.image == row) & (found.classes == k)).nonzero().flatten()
        if len(mine):
            x1, y1, x2, y2 = found.boxes[mine[found.scores[mine].argmax()]].tolist()
            result.append(Box(names[k], x1 * width, y1 * height, x2 * width, y2 * height))
    return result


def object_areas(dataset: MultiLabelDataset) -> Tensor:
    """The mean share of the picture that an object of each class takes, float64 (C,), NaN for a class without objects."""
    truth = objects_of(dataset)
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).double()
    sums = torch.zeros(len(dataset.classes), dtype=torch.float64).index_add(0, truth.classes, sides.prod(1))
    return sums / torch.bincount(truth.classes, minlength=len(dataset.classes))


def _first(names: Tensor) -> Tensor:
    """Whether each entry of a list is the first of its value, bool."""
    first = torch.zeros(len(names), dtype=torch.bool)
    first[torch.from_numpy(np.unique(names.numpy(), return_index=True)[1])] = True
    return first
