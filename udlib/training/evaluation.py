"""Every number that the course reports of one split, from the logits and the labels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from udlib import calibration
from udlib.datasets.base import apply_policy
from udlib.metrics import difficult_subset, mean_average_precision, precision_recall_f1
from udlib.posthoc import Calibrator


class Split(NamedTuple):
    """The labels of one split, as a run's logits are to be compared with."""

    classes: tuple[str, ...]
    targets: Tensor  # uint8 (N, C)
    difficult: Tensor  # bool (N, C)
    posterior: Tensor | None  # float32 (N, C)


def measure(
    logits: Tensor, found: Split, scores: str = "sigmoid", calibrator: Calibrator | None = None
) -> dict[str, float]:
    """Every number the course reports of one split, as fractions.

    AP and F1 ignore difficult labels (VOC's protocol), except where the name says how they count. Calibration counts
    every marked label: ignoring those that are positive and difficult would condition on the outcome.

    `scores="softmax"` is for logits without a level, of a network trained on softmax alone: mAP of the softmax, no F1, no
    calibration. Probabilities are the sigmoid of the logits, or what `calibrator` makes of them.
    """
    y, leveled = found.targets, scores == "sigmoid"
    read = calibrator or (lambda z: torch.sigmoid(z) if leveled else z.softmax(1))
    p = read(logits.double())
    numbers = {}
    for policy in ("ignore", "positive", "negative"):
        targets, ignore = apply_policy(y, found.difficult, policy)
        suffix = "" if policy == "ignore" else f"_{policy}"
        numbers[f"mAP{suffix}"] = mean_average_precision(p, targets, ignore)
        for top, k in (("", None), ("_top3", min(3, p.shape[1]))) if leveled else ():
            scores = precision_recall_f1(p, targets, top_k=k, ignore=ignore)
            numbers |= {f"{name}{top}{suffix}": value for name, value in scores.items()}
    hard = difficult_subset(found.difficult)
    if hard.any():
        numbers["mAP_difficult"] = mean_average_precision(p[hard], y[hard])
    if not leveled:
        return {name: float(value) for name, value in numbers.items()}
    confident = p >= 0.5
    numbers |= {
        "ECE": calibration.expected_calibration_error(p, y),
        "ECE_pooled": calibration.expected_calibration_error(p, y, average="pooled"),
        "ECE_confident": calibration.confident_calibration_error(p, y, average="pooled")
        if confident.any()
        else math.nan,
        "overconfidence": (p[confident].mean() - y[confident].double().mean()).item() if confident.any() else math.nan,
        "NLL": calibration.negative_log_likelihood(p, y),
        "Brier": calibration.brier_score(p, y),
    }
    if found.posterior is not None:
        numbers["true_CE"] = calibration.true_calibration_error(p, found.posterior)
        numbers["true_CE_pooled"] = calibration.true_calibration_error(p, found.posterior, average="pooled")
        numbers["NLL_floor"] = calibration.expected_nll_floor(found.posterior)
    return {name: float(value) for name, value in numbers.items()}
