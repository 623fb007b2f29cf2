"""All that is measured of a network when its training ends, since networks do not ship."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from udlib.attention import map_correlation, uncertainty_attention
from udlib.backbones import SMALL_WIDTHS
from udlib.course.data import RecipeData
from udlib.course.runs import read_as
from udlib.datasets.shifts import SHIFTS, STRENGTHS
from udlib.methods import method_of, needs_of
from udlib.modes import evaluating
from udlib.posthoc import CALIBRATORS
from udlib.training.batches import ArrayData, load
from udlib.training.checkpoints import fingerprint
from udlib.training.devices import autocast, make_accelerator
from udlib.training.evaluation import measure
from udlib.training.optimization import TrainingConfig
from udlib.training.prediction import predict

TOGETHER = 32  # images of a pretrained network: on a CPU, larger batches leave its cache and take nearly twice as long
Metrics = dict[str, dict[str, float]]  # of each split
POST_HOC = ("temperature", "label-temperature")  # calibrators that are fitted on validation and cost no training
# The metrics that a shift or a calibrator may change, of all that `measure` gives; six digits of each ship.
OF_A_VARIANT = ("mAP", "ECE", "ECE_pooled", "ECE_confident", "overconfidence", "NLL", "Brier")
_KNOWN_MAPS: dict[str, Tensor] = {}  # of `_teacher_maps`; those of a teacher take 0.2 MB
UNDER_SHIFT = ("photos",)  # data sets whose test images are measured under shift too


def measured(data: RecipeData, network: nn.Module, needs: Mapping[str, nn.Module]) -> tuple[dict[str, Any], Metrics]:
    """Return both splits' logits and every number of a trained network.

    Args:
        data: The data of its recipe.
        network: The trained network.
        needs: The networks that the recipe needs, by name; the maps of a "teacher" are compared with the network's.
    """
    recipe, config = data.recipe, data.recipe.training
    options: dict[str, Any] = {"precision": config.precision, "prepare": config.prepare_for(network)}
    if recipe.network not in SMALL_WIDTHS:
        options["batch_size"] = TOGETHER
    logits: dict[str, Any] = {}
    metrics: Metrics = {}
    for split in ("val", "test"):
        predictions = predict(network, data.arrays(split), **options)
        for name in ("logits", "calibration_logits"):
            value = getattr(predictions, name)
            # Half precision is what is stored: measure what a later reader will have.
            logits[f"{split}_{name}"] = None if value is None else value.half().float()
        metrics[split] = measure(logits[f"{split}_logits"], data.labels(split), read_as(recipe))
    if any(data.split("test").objects):
        locate = method_of(recipe.method).localise
        metrics["test"] |= locate(network, data.arrays("test"), data.split("test"), **options)
    if recipe.data in UNDER_SHIFT:
        metrics |= dict(variants(data, network, logits, options))
        metrics["test"] |= map_agreement(data, network, needs.get("teacher"))
        if on_train := map_agreement(data, network, needs.get("teacher"), "train"):
            metrics["train"] = on_train
    return logits, metrics


def variants(
    data: RecipeData, network: nn.Module, logits: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the numbers on the shifted test images, and everywhere those after calibration on validation.

    Args:
        data: The data of the network's recipe.
        network: The trained network.
        logits: Its logits on "val" and "test", as `measured` names them.
        options: Those of `predict`.
    """
    reading, labels = read_as(data.recipe), data.labels("test")
    calibrators: dict[str, Any] = {}
    if reading == "sigmoid":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes that are absent from validation
            calibrators = {
                kind: CALIBRATORS[kind](logits["val_logits"], data.labels("val").targets) for kind in POST_HOC
            }

    def numbers(name: str, values: Tensor) -> Iterator[tuple[str, dict[str, float]]]:
        for kind, calibrator in calibrators.items():
            yield f"{name}/{kind}", _of_a_variant(measure(values, labels, calibrator=calibrator))

    yield from numbers("test", logits["test_logits"])
    for shift in SHIFTS:
        for strength in STRENGTHS:
            images = data.under_shift("test", shift, strength)
            values = predict(network, images, calibration=False, **options).logits.half().float()
            name = f"{shift}-{strength}"
            yield name, _of_a_variant(measure(values, labels, reading))
            yield from numbers(name, values)


def _of_a_variant(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(numbers[name], 6) for name in OF_A_VARIANT if name in numbers}


def map_agreement(
    data: RecipeData, network: nn.Module, teacher: nn.Module | None, split: str = "test"
) -> dict[str, float]:
    """Compare the uncertainty maps of a student with its teacher's on the images of a split.

    Args:
        data: The data of the student's recipe.
        network: The student.
        teacher: The teacher, which sees the same images at its own size; None for a network without one.
        split: "test", or "train": the images that the student learned from, without augmentation.

    Returns:
        "map_correlation" (mean over images of the correlation over cells), "map_distance" (mean of ‖A_T − A_S‖, Eq. 17),
        and "map_norm" and "teacher_map_norm" (means of ‖A_S‖ and ‖A_T‖), all at the size of the student's map. Empty where
        a network has no calibration branch, and so no map.

    Source: UD, Eq. 15–17.
    """
    parts = (network, teacher)
    if any(getattr(getattr(part, "head", None), "calibration", None) is None for part in parts):
        return {}
    arrays, recipe = data.arrays(split), data.recipe
    size = needs_of(recipe).get("teacher", recipe).side
    ours = uncertainty_maps(network, arrays, recipe.training)
    theirs = _teacher_maps(data, teacher, size, split)
    theirs = nn.functional.interpolate(theirs[:, None], ours.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return {
        "map_correlation": map_correlation(ours, theirs).nanmean().item(),
        "map_distance": (theirs - ours).flatten(1).norm(dim=1).mean().item(),
        "map_norm": ours.flatten(1).norm(dim=1).mean().item(),
        "teacher_map_norm": theirs.flatten(1).norm(dim=1).mean().item(),
    }


def _teacher_maps(data: RecipeData, teacher: Any, size: int, split: str) -> Tensor:
    """The maps of a teacher on the images of a split, computed once for all the students that a process trains."""
    key = f"{split} of {data.fingerprint()}, {fingerprint(teacher.state_dict())}, {size} px"
    if key not in _KNOWN_MAPS:
        config = replace(data.recipe.training, crop=size)
        _KNOWN_MAPS[key] = uncertainty_maps(teacher, data.arrays(split), config)
    return _KNOWN_MAPS[key]


def uncertainty_maps(network: Any, arrays: ArrayData, config: TrainingConfig, batch_size: int = TOGETHER) -> Tensor:
    """Return the uncertainty map (N, h, w) of each image (UD, Eq. 15–16), at the side that `config` says."""
    device = make_accelerator().device
    rows = list(torch.arange(len(arrays.targets)).split(batch_size))
    maps = []
    with evaluating(network.to(device)):
        for batch in load(arrays, rows, config.prepare_for(network), device, workers=0):
            with torch.inference_mode(), autocast(device, config.precision):
                features = network.backbone(batch.images)
            maps.append(uncertainty_attention(network.head, features, network.pooling).float().cpu())
    return torch.cat(maps)
