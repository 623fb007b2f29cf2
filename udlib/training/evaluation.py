"""Every number that the course reports of one split, from the logits and the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from udlib import calibration
from udlib.datasets.base import apply_policy
from udlib.metrics import difficult_subset, mean_average_precision, precision_recall_f1
from udlib.posthoc import Calibrator


class Split(NamedTuple):
    """The labels of one split, with which a run's logits are compared.

    Attributes:
        classes: C names.
        targets: uint8 (N, C).
        difficult: bool (N, C), True where the class is present and all its objects are difficult.
        posterior: float32 (N, C), P(y = 1 | image) where it is known, else None.
        unknown: bool (N, C), labels that nobody knows and that no number counts; None where all are known.
    """

    classes: tuple[str, ...]
    targets: Tensor
    difficult: Tensor
    posterior: Tensor | None
    unknown: Tensor | None = None

    @property
    def ignored(self) -> Tensor:
        """Bool (N, C): the labels that decisions do not count, since they are difficult or unknown."""
        return self.difficult if self.unknown is None else self.difficult | self.unknown


def measure(
    logits: Tensor,
    labels: Split,
    scores: str = "sigmoid",
    calibrator: Calibrator | None = None,
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """Compute every number that the course reports of one split.

    AP and F1 ignore difficult labels (VOC's protocol), except where the name says how they count. Calibration counts
    every marked label: to ignore those that are positive and difficult would condition on the outcome.

    Args:
        logits: (N, C).
        labels: of the same images.
        scores: "sigmoid", or "softmax" for logits that are only meaningful relative to one another, those of a network
            trained on softmax alone: mAP of the softmax then, no F1 and no calibration.
        calibrator: makes the probabilities from the logits; default: the sigmoid.
        thresholds: C numbers in [0, 1], from which on a label counts as said, for precision, recall and F1; default: 0.5.

    Returns:
        Numbers by name, fractions (NLL and its floor in nats); NaN where nothing is left to measure.

    Raises:
        ValueError: as `mean_average_precision`.
    """
    absolute = scores == "sigmoid"
    p = _reading(absolute, calibrator)(logits.double())
    numbers = _ranking_numbers(p, labels, absolute, 0.5 if thresholds is None else thresholds)
    if absolute:
        numbers |= _calibration_numbers(p, labels)
    return {name: float(value) for name, value in numbers.items()}


def _reading(absolute: bool, calibrator: Calibrator | None) -> Callable[[Tensor], Tensor]:
    """What makes probabilities of logits."""
    if calibrator is not None:
        return calibrator
    return torch.sigmoid if absolute else lambda z: z.softmax(1)


def _ranking_numbers(p: Tensor, labels: Split, decisions: bool, threshold: float | Sequence[float]) -> dict[str, float]:
    """The mAP under each policy for difficult labels and on difficult images; with decisions, also P, R and F1."""
    y, numbers = labels.targets, {}
    for policy in ("ignore", "positive", "negative"):
        targets, ignore = apply_policy(y, labels.difficult, policy)
        ignore = ignore if labels.unknown is None else ignore | labels.unknown
        suffix = "" if policy == "ignore" else f"_{policy}"
        numbers[f"mAP{suffix}"] = mean_average_precision(p, targets, ignore)
        for top, k in (("", None), ("_top3", min(3, p.shape[1]))) if decisions else ():
            rates = precision_recall_f1(p, targets, threshold, top_k=k, ignore=ignore)
            numbers |= {f"{name}{top}{suffix}": value for name, value in rates.items()}
    hard = difficult_subset(labels.difficult)
    if hard.any():
        unknown = None if labels.unknown is None else labels.unknown[hard]
        numbers["mAP_difficult"] = mean_average_precision(p[hard], y[hard], unknown)
    return numbers


def _calibration_numbers(p: Tensor, labels: Split) -> dict[str, float]:
    """Calibration errors and proper scores; with a known posterior, the true errors and the floor of the NLL."""
    y, unknown = labels.targets, labels.unknown
    confident = p >= 0.5 if unknown is None else (p >= 0.5) & ~unknown
    some = bool(confident.any())
    pooled: dict[str, Any] = {"ignore": unknown, "average": "pooled"}
    numbers = {
        "ECE": calibration.expected_calibration_error(p, y, ignore=unknown),
        "ECE_pooled": calibration.expected_calibration_error(p, y, **pooled),
        "ECE_confident": calibration.confident_calibration_error(p, y, **pooled) if some else math.nan,
        "overconfidence": (p[confident].mean() - y[confident].double().mean()).item() if some else math.nan,
        "NLL": calibration.negative_log_likelihood(p, y, unknown),
        "Brier": calibration.brier_score(p, y, unknown),
    }
    if labels.posterior is not None:
        numbers["true_CE"] = calibration.true_calibration_error(p, labels.posterior)
        numbers["true_CE_pooled"] = calibration.true_calibration_error(p, labels.posterior, average="pooled")
        numbers["NLL_floor"] = calibration.expected_nll_floor(labels.posterior)
    return numbers
