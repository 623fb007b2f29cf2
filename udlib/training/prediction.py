"""What a trained network says about images, and how well it ranks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from udlib.metrics import mean_average_precision
from udlib.modes import evaluating
from udlib.training.batches import ArrayData, as_data, load
from udlib.training.devices import autocast, keeps_devices, make_accelerator
from udlib.training.optimization import TrainingConfig


class Predictions(NamedTuple):
    """Both branches' logits for all N images in order, on the CPU in float32, beside the labels."""

    logits: Tensor  # (N, C)
    calibration_logits: Tensor | None  # (N, C), None without a calibration branch
    targets: Tensor  # (N, C)
    difficult: Tensor | None  # (N, C) bool
    unknown: Tensor | None = None  # (N, C) bool


@keeps_devices
@torch.no_grad()
def predict(
    model: nn.Module,
    data: ArrayData | Dataset,
    *,
    batch_size: int = 256,
    precision: str = "auto",
    calibration: bool = True,
    prepare: Callable[[Tensor], Tensor] | None = None,
    workers: int = 0,
) -> Predictions:
    """Compute the logits of both branches for every image, in order, exact with any number of processes.

    Args:
        model: a network, in eval mode while this runs.
        data: N images; their labels are handed through.
        batch_size: images at a time, over all processes.
        precision: "auto", "bf16" or "fp32".
        calibration: whether to run the calibration branch.
        prepare: makes float images of uint8 ones; None: normalises them as the network expects.
        workers: processes that decode a Dataset's images.
    """
    data, prepare = as_data(data), prepare or TrainingConfig().prepare_for(model)
    accelerator = make_accelerator()
    device, rank, processes = accelerator.device, accelerator.process_index, accelerator.num_processes
    count = len(data.targets)
    # Every process takes an equal slice of each batch; the last batch wraps around, and its surplus is cut off below.
    share = math.ceil(batch_size / processes)
    padded = torch.arange(math.ceil(count / processes) * processes) % count
    indices = [rows.chunk(processes)[rank] for rows in padded.split(share * processes)]
    sees_regions = getattr(model, "sees_regions", False)
    gathered = []
    with evaluating(model.to(device)):
        for batch in load(data, indices, prepare, device, workers):
            with autocast(device, precision):
                inputs = (batch.images, batch.regions) if sees_regions else (batch.images,)
                prediction = model(*inputs, calibration=calibration)
            branches = [logits for logits in prediction[:2] if logits is not None]
            # Gathered batch by batch: after the loop, the batches of the processes would stand one after the other.
            gathered.append(accelerator.gather(torch.stack(branches).transpose(0, 1).float().contiguous()).cpu())
    logits = torch.cat(gathered)[:count].unbind(1)
    branch = logits[1] if len(logits) > 1 else None
    return Predictions(logits[0], branch, data.targets.cpu(), data.difficult, data.unknown)


def evaluate(model: nn.Module, data: ArrayData | Dataset, scores: str = "sigmoid", **options) -> dict[str, float]:
    """Measure mAP with difficult labels ignored (VOC's protocol), and NLL with all; unknown labels are left out of both.

    Args:
        model: a network.
        data: N images and their labels.
        scores: "softmax" is for logits without a level: images are ranked by softmax, and there is no NLL.
        options: those of `predict`.

    Returns:
        "mAP" as a fraction, and "NLL", the mean log loss of a label in nats.
    """
    predictions = predict(model, data, calibration=False, **options)
    logits, targets, difficult = predictions.logits, predictions.targets, predictions.difficult
    unknown = predictions.unknown
    ignore = difficult if unknown is None else unknown if difficult is None else difficult | unknown
    if scores == "softmax":
        return {"mAP": float(mean_average_precision(logits.softmax(1), targets, ignore))}
    known = slice(None) if unknown is None else ~unknown.cpu()
    nll = nn.functional.binary_cross_entropy_with_logits(logits[known], targets.float()[known]).item()
    return {"mAP": float(mean_average_precision(logits, targets, ignore)), "NLL": nll}


def on_validation(
    data: ArrayData | Dataset, config: TrainingConfig, scores: str = "sigmoid", batch_size: int = 256
) -> Callable[[nn.Module], Mapping[str, float]]:
    """Make `validate(network)` for `training.fit`: `evaluate` on these images, as `config` computes."""
    held_out = as_data(data)
    return lambda network: evaluate(
        network,
        held_out,
        scores,
        batch_size=batch_size,
        precision=config.precision,
        prepare=config.prepare_for(network),
        workers=config.workers,
    )
