"""Measures of a detector against annotated objects: CorLoc, and PASCAL VOC's average precision at IoU 0.5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from udlib.datasets.base import Box, MultiLabelDataset
from udlib.datasets.proposals import annotated
from udlib.methods.detection.losses import region_probabilities
from udlib.methods.detection.network import Detector
from udlib.modes import evaluating
from udlib.training.batches import ArrayData, load
from udlib.training.devices import autocast, keeps_devices, make_accelerator
from udlib.training.optimization import TrainingConfig

# Least intersection over union (IoU) at which a box is right.
MATCH = 0.5
# IoU above which the weaker of two boxes of one class is dropped (non-maximum suppression).
OVERLAP = 0.4


class Detections(NamedTuple):
    """K boxes that a detector finds in all images, each of one class.

    Attributes:
        image: (K,) int64, the row of the image.
        classes: (K,) int64.
        boxes: (K, 4) float32, x1, y1, x2, y2 in fractions of the image's sides.
        scores: (K,) float32.
    """

    image: Tensor
    classes: Tensor
    boxes: Tensor
    scores: Tensor


class Objects(NamedTuple):
    """The M annotated objects of all images.

    Attributes:
        image: (M,) int64, the row of the image.
        classes: (M,) int64.
        boxes: (M, 4) float32, as those of `Detections`.
        difficult: (M,) bool; True also for a box around a crowd.
    """

    image: Tensor
    classes: Tensor
    boxes: Tensor
    difficult: Tensor


def objects_of(dataset: MultiLabelDataset) -> Objects:
    """List the annotated objects of a data set, image after image.

    Args:
        dataset: has the boxes.

    Returns:
        All objects.
    """
    column = {name: k for k, name in enumerate(dataset.classes)}
    counts = torch.tensor([len(own) for own in dataset.objects])
    annotations = [box for i in range(len(dataset)) for box in dataset.boxes(i)]
    boxes = [annotated(dataset, i) for i, own in enumerate(dataset.objects) if own]
    return Objects(
        torch.arange(len(dataset)).repeat_interleave(counts),
        torch.tensor([column[box.name] for box in annotations], dtype=torch.int64),
        torch.cat(boxes) if boxes else torch.zeros(0, 4),
        torch.tensor([box.difficult or box.crowd for box in annotations], dtype=torch.bool),
    )


@keeps_devices
def detect(
    model: Detector,
    data: ArrayData,
    *,
    overlap: float = OVERLAP,
    batch_size: int = 256,
    precision: str = "auto",
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Detections:
    """Find objects in each image: for each class the boxes that are left after non-maximum suppression.

    The score of a box for class k is its share of p_k, S^c_rk S^d_rk.

    Args:
        model: its mode stays as it is.
        data: images with proposals.
        overlap: IoU above which the weaker of two boxes of one class is dropped.
        batch_size: number of images at once.
        precision: "auto", "bf16" or "fp32".
        prepare: makes float images of uint8 ones; None: normalises them as the network expects.

    Returns:
        All detections, on the CPU.

    Raises:
        ValueError: data without proposals.

    Source: WSDDN (Bilen and Vedaldi, CVPR 2016).
    """
    device = make_accelerator().device
    model.to(device)
    parts: list[Detections] = []
    rows = list(torch.arange(len(data.targets)).split(batch_size))
    prepare = prepare or TrainingConfig().prepare_for(model)
    with evaluating(model):
        for batch in load(data, rows, prepare, device, workers=0):
            with torch.inference_mode(), autocast(device, precision):
                answer = model(batch.images, batch.regions)
            regions, images = batch.regions, len(batch.images)
            assert regions is not None  # the model refuses a batch without regions
            shares = region_probabilities(answer.class_scores, answer.region_scores, regions.image, images)
            boxes, counts = regions.boxes.cpu(), torch.bincount(regions.image, minlength=images).tolist()
            for row, own, scores in zip(batch.index.tolist(), boxes.split(counts), shares.float().cpu().split(counts)):
                parts += [_suppressed(row, k, own, column, overlap) for k, column in enumerate(scores.unbind(1))]
    return Detections(*(torch.cat(column) for column in zip(*parts)))


def _suppressed(row: int, k: int, boxes: Tensor, scores: Tensor, overlap: float) -> Detections:
    """The boxes of class k in one image that non-maximum suppression keeps."""
    kept = nms(boxes, scores, overlap)
    return Detections(torch.full((len(kept),), row), torch.full((len(kept),), k), boxes[kept], scores[kept])


def matched(detections: Detections, truth: Objects) -> tuple[Tensor, Tensor]:
    """Find for each detection the object of its image and class with the highest IoU.

    Args:
        detections: K of them.
        truth: the annotated objects.

    Returns:
        (K,) that IoU, and (K,) the row of that object in `truth`. Without such an object the IoU is 0, the row −1.
    """
    overlap, at = torch.zeros(len(detections.scores)), torch.full((len(detections.scores),), -1)
    images = int(torch.cat([detections.image, truth.image, torch.tensor([-1])]).max()) + 1
    rows_by_image = (
        column.argsort(stable=True).split(torch.bincount(column, minlength=images).tolist())
        for column in (detections.image, truth.image)
    )
    for mine, theirs in zip(*rows_by_image):
        if len(mine) and len(theirs):
            iou = box_iou(detections.boxes[mine], truth.boxes[theirs])
            iou[detections.classes[mine][:, None] != truth.classes[theirs]] = -1
            best, nearest = iou.max(1)
            same_class = best >= 0
            overlap[mine[same_class]] = best[same_class]
            at[mine[same_class]] = theirs[nearest[same_class]]
    return overlap, at


def detection_average_precision(detections: Detections, truth: Objects, num_classes: int) -> Tensor:
    """Average precision of the detections of each class at IoU 0.5, as PASCAL VOC defines it since 2010.

    From the highest score down, a detection is right where its best match (`matched`) has an IoU of at least MATCH and
    was not found before; a second one of the same object is wrong; one of a difficult object does not count, and a
    difficult object need not be found. AP is the area under the precision-recall curve made monotone, over all its
    points. Boxes are areas here, not VOC's pixels with both ends included.

    Args:
        detections: in all images.
        truth: the annotated objects of the same images.
        num_classes: C.

    Returns:
        float64 (C,) in [0, 1]; NaN for a class without an object that counts.

    Source: Everingham et al., The PASCAL VOC Challenge, IJCV 2010.
    """
    overlap, at = matched(detections, truth)
    result = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for k in range(num_classes):
        positives = int(((truth.classes == k) & ~truth.difficult).sum())
        if not positives:
            continue
        mine = (detections.classes == k).nonzero().flatten()
        mine = mine[detections.scores[mine].argsort(descending=True, stable=True)]
        hit = overlap[mine] >= MATCH
        difficult = hit & truth.difficult[at[mine]]
        right = (hit & _is_first(torch.where(hit, at[mine], -1)))[~difficult].double()
        recall, precision = right.cumsum(0) / positives, right.cumsum(0) / torch.arange(1, len(right) + 1)
        monotone = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
        result[k] = (recall.diff(prepend=torch.zeros(1, dtype=torch.float64)) * monotone).sum()
    return result


def correct_localisation(detections: Detections, truth: Objects, num_classes: int) -> Tensor:
    """Correct localisation (CorLoc) of each class: the share of images in which the best-scored box is right.

    The cases of a class are the images with an object of it that is not difficult. A case is right if the best-scored
    box of the class has an IoU of at least MATCH with any object of it, including a difficult one.

    Args:
        detections: in all images.
        truth: the annotated objects of the same images.
        num_classes: C.

    Returns:
        float64 (C,) in [0, 1]; NaN for a class without a case.

    Source: Deselaers et al., Weakly Supervised Localization and Learning with Generic Knowledge, IJCV 2012.
    """
    overlap, _ = matched(detections, truth)
    best = detections.scores.argsort(descending=True, stable=True)
    best = best[_is_first((detections.image * num_classes + detections.classes)[best])]
    correct = best[overlap[best] >= MATCH]
    right = set(zip(detections.image[correct].tolist(), detections.classes[correct].tolist()))
    easy = ~truth.difficult
    cases = set(zip(truth.image[easy].tolist(), truth.classes[easy].tolist()))
    result = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for k in {k for _, k in cases}:
        own = [case in right for case in cases if case[1] == k]
        result[k] = sum(own) / len(own)
    return result


def detection(model: Detector, data: ArrayData, dataset: MultiLabelDataset, **options) -> dict[str, float]:
    """Measure how well a detector finds the annotated objects.

    Args:
        model: its mode stays as it is.
        data: the images and proposals of `dataset`.
        dataset: has the boxes.
        options: those of `detect`.

    Returns:
        {"CorLoc", "detection_mAP"}: means over the classes that have cases, as fractions.

    Raises:
        ValueError: data without proposals.
    """
    detections, truth = detect(model, data, **options), objects_of(dataset)
    classes = len(dataset.classes)
    return {
        "CorLoc": correct_localisation(detections, truth, classes).nanmean().item(),
        "detection_mAP": detection_average_precision(detections, truth, classes).nanmean().item(),
    }


def best_boxes(
    detections: Detections, row: int, classes: Sequence[int], names: Sequence[str], size: tuple[int, int]
) -> list[Box]:
    """Pick the best-scored box of each of some classes in one image, for a drawing.

    Args:
        detections: in all images.
        row: the image.
        classes: indices of the classes.
        names: of all classes.
        size: (width, height) of the drawing, in pixels.

    Returns:
        Boxes in pixels; a class without a detection in the image is left out.
    """
    width, height = size
    boxes = []
    for k in classes:
        mine = ((detections.image == row) & (detections.classes == k)).nonzero().flatten()
        if len(mine):
            x1, y1, x2, y2 = detections.boxes[mine[detections.scores[mine].argmax()]].tolist()
            boxes.append(Box(names[k], x1 * width, y1 * height, x2 * width, y2 * height))
    return boxes


def object_areas(dataset: MultiLabelDataset) -> Tensor:
    """Average the share of the picture that an object of each class takes.

    Args:
        dataset: has the boxes.

    Returns:
        float64 (C,), fractions; NaN for a class without objects.
    """
    truth = objects_of(dataset)
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).double()
    sums = torch.zeros(len(dataset.classes), dtype=torch.float64).index_add(0, truth.classes, sides.prod(1))
    return sums / torch.bincount(truth.classes, minlength=len(dataset.classes))


def _is_first(values: Tensor) -> Tensor:
    """Whether each entry of a list is the first of its value, bool."""
    first = torch.zeros(len(values), dtype=torch.bool)
    first[torch.from_numpy(np.unique(values.numpy(), return_index=True)[1])] = True
    return first
