"""Checks of lesson 02: the loss of Eq. 3, average precision, CF1, and where a threshold may be chosen.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions are called with torch tensors; they may answer with tensors, NumPy numbers or floats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import compare, number, numbers

LOGITS = torch.tensor([[2.0, -1.0, 0.5, -3.0], [-0.5, 1.5, -2.0, 0.0], [1.0, -1.0, 3.0, -0.2]])
TARGETS = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])

SCORES = torch.tensor([0.30, 0.95, 0.10, 0.80, 0.70, 0.55, 0.20, 0.60, 0.05, 0.40], dtype=torch.float64)
RELEVANT = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 0, 0])

PROBABILITIES = torch.tensor(
    [[0.9, 0.6, 0.1], [0.8, 0.7, 0.3], [0.4, 0.5, 0.2], [0.7, 0.1, 0.4], [0.6, 0.2, 0.45]], dtype=torch.float64
)
PRESENT = torch.tensor([[1, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]])


@exercise("02.1")
def ova_loss_from_logits(function) -> str | None:
    """`function(logits, targets)` → Eq. 3: summed over classes, averaged over images, finite at any logit."""
    answer, problem = number(called(function, LOGITS, TARGETS.float()))
    if problem:
        return problem
    y = TARGETS.float()
    per_label = F.binary_cross_entropy_with_logits(LOGITS, y, reduction="none")
    swapped = F.binary_cross_entropy_with_logits(LOGITS, 1 - y, reduction="none")
    right = per_label.sum(1).mean().item()
    only_positive = (per_label * y).sum(1).mean().item()
    mistakes = {
        per_label.mean().item(): "this is the mean over the classes: Eq. 3 sums over them, so it is C times larger",
        per_label.sum().item(): "this is the sum over the images too: sum over the classes, then take the mean over "
        "images",
        -right: "the sign is the wrong way round: log f is negative, so the loss needs the minus of Eq. 3",
        swapped.sum(1).mean().item(): "positives and negatives are swapped: y = 1 goes with log σ(z)",
        only_positive: "the negatives are missing: the second half of Eq. 3 is (1 − y) log(1 − f)",
    }
    problem = compare(answer, right, mistakes)
    if problem:
        return problem
    extreme = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])
    answer, problem = number(called(function, extreme, torch.tensor([[1.0, 0.0], [1.0, 0.0]])))
    if problem:
        return f"at logits of ±200: {problem}"
    if not math.isfinite(answer):
        return (
            f"at logits of ±200 it gives {answer}: a sigmoid in single precision rounds to 0 or 1 there, and its log "
            f"is "
            "lost. Work from the logits: −log σ(z) = softplus(−z)"
        )
    if not math.isclose(answer, 200.0, rel_tol=1e-4):
        return (
            f"at logits of ±200 it gives {answer:.4g}, the loss is 200: clipping probabilities hides large errors. "
            "Work from the logits: −log σ(z) = softplus(−z)"
        )
    return None


@exercise("02.2")
def average_precision_of_one_class(function) -> str | None:
    """`function(scores, targets)`, both (N,) → mean of the precision at the positives' ranks; NaN without one."""
    answer, problem = number(called(function, SCORES, RELEVANT))
    if problem:
        return problem
    right, mistakes = _average_precisions(SCORES, RELEVANT)
    problem = compare(answer, right, mistakes)
    if problem:
        return problem
    answer, problem = number(called(function, SCORES, torch.zeros_like(RELEVANT)))
    if problem:
        return f"for a class without a positive, {problem}"
    if not math.isnan(answer):
        return (
            f"a class without a positive gets {answer:.3g}: it has no ranking to judge, so return NaN (a 0 would drag "
            "the mean over the classes down)"
        )
    return None


@exercise("02.3")
def cf1_of_classes(function) -> str | None:
    """`function(probabilities, targets)` → 2·CP·CR / (CP + CR) at p ≥ 0.5, 0/0 = 0."""
    answer, problem = number(called(function, PROBABILITIES, PRESENT))
    if problem:
        return problem
    right, mistakes = _cf1s(PROBABILITIES, PRESENT)
    if math.isnan(answer):
        return "it gives NaN: the third class here is never predicted, so its precision is 0/0. Count that as 0"
    return compare(answer, right, mistakes)


@exercise("02.4")
def threshold_from_validation(function) -> str | None:
    """`function(val_p, val_y, test_p, test_y, thresholds)` → (threshold of the best CF1 on validation, test CF1)."""
    generator = torch.Generator().manual_seed(2)
    val_y, test_y = (torch.rand(60, 3, generator=generator) < 0.4 for _ in range(2))
    # validation scores stand 0.2 higher than test scores, so that the best thresholds of the two differ
    val_p, test_p = (
        0.35 * y + 0.35 * torch.rand(60, 3, generator=generator) + low for y, low in ((val_y, 0.25), (test_y, 0.05))
    )
    thresholds = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    on_val, on_test = ([_cf1(p, y, t) for t in thresholds] for p, y in ((val_p, val_y), (test_p, test_y)))
    best_val, best_test = (max(range(len(thresholds)), key=scores.__getitem__) for scores in (on_val, on_test))
    value = called(function, val_p, val_y.int(), test_p, test_y.int(), thresholds)
    (threshold, score), problem = numbers(value, "(threshold, CF1 on the test images)", 2)
    if problem:
        return problem
    if math.isclose(threshold, thresholds[best_test], abs_tol=1e-6):
        return (
            f"threshold {threshold:.2g} was chosen on the test images: what is then reported there is too good. Choose "
            "on validation, report on test"
        )
    if not math.isclose(threshold, thresholds[best_val], abs_tol=1e-6):
        return (
            f"threshold {threshold:.2g} is not the best on validation: there, CF1 is highest at {thresholds[best_val]}"
        )
    if math.isclose(score, on_val[best_val], abs_tol=1e-6):
        return "the threshold is right, but the CF1 beside it is that of validation: report it on the test images"
    if not math.isclose(score, on_test[best_val], abs_tol=1e-6):
        return f"the threshold is right, but CF1 on the test images is {on_test[best_val]:.4g} there, not {score:.4g}"
    return None


def _average_precisions(scores: Tensor, targets: Tensor) -> tuple[float, dict[float, str]]:
    """AP of one class without ties, and what the classic mistakes make of it."""

    def at_ranks(order: Tensor) -> tuple[Tensor, Tensor]:
        hits = targets[order].double()
        return hits, hits.cumsum(0) / torch.arange(1, len(hits) + 1)

    hits, precision = at_ranks(scores.argsort(descending=True))
    reversed_hits, reversed_precision = at_ranks(scores.argsort())
    at_positives = precision[hits == 1]
    envelope = at_positives.flip(0).cummax(0).values
    # the line that scikit-learn's curve draws starts at recall 0, precision 1
    corners = torch.cat([torch.ones(1, dtype=torch.float64), precision])
    recall = torch.cat([torch.zeros(1, dtype=torch.float64), hits.cumsum(0) / hits.sum()])
    interpolated = (
        "this joins the points of the curve (trapezoids, or the highest precision further on): the non-"
        "interpolated AP takes the precision at each positive as it is"
    )
    return at_positives.mean().item(), {
        reversed_precision[reversed_hits == 1]
        .mean()
        .item(): "the ranking is sorted ascending: the highest score must come first",
        torch.trapezoid(corners, recall).item(): interpolated,
        torch.trapezoid(precision, recall[1:]).item(): interpolated,
        envelope.mean().item(): interpolated,
        (precision * hits).mean().item(): "it divides by all images: divide the sum by the number of positives",
        precision.mean().item(): "it averages the precision over all ranks: only the ranks of positives count",
    }


def _cf1(probabilities: Tensor, targets: Tensor, threshold: float = 0.5) -> float:
    return _cf1s(probabilities, targets, threshold)[0]


def _cf1s(probabilities: Tensor, targets: Tensor, threshold: float = 0.5) -> tuple[float, dict[float, str]]:
    """CF1, and what the classic mistakes make of it."""

    def counts(predicted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (predicted & targets.bool()).sum(0).double(), predicted.sum(0).double(), targets.sum(0).double()

    def ratio(part: Tensor, whole: Tensor) -> Tensor:
        return torch.where(whole > 0, part / whole.clamp(min=1), 0.0)

    def harmonic(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(a + b > 0, 2 * a * b / (a + b).clamp(min=1e-12), 0.0)

    def mean_then_f1(predicted: Tensor) -> float:
        hits, claims, actual = counts(predicted)
        return harmonic(ratio(hits, claims).mean(), ratio(hits, actual).mean()).item()

    hits, claims, actual = counts(probabilities >= threshold)
    precision, recall = ratio(hits, claims), ratio(hits, actual)
    micro = harmonic(ratio(hits.sum(), claims.sum()), ratio(hits.sum(), actual.sum())).item()
    return mean_then_f1(probabilities >= threshold), {
        harmonic(precision, recall)
        .mean()
        .item(): "this is the mean of the classes' F1: take the means CP and CR first, then one F1 of the two",
        micro: "this is the micro F1 (OF1): it sums the counts of all classes. CF1 averages the classes' ratios",
        mean_then_f1(probabilities > threshold): "a probability of exactly 0.5 counts as predicted: compare with >=",
        (
            (precision.mean() + recall.mean()) / 2
        ).item(): "this is the plain mean of CP and CR: F1 is their harmonic mean, 2·CP·CR / (CP + CR)",
        precision[claims > 0].mean().item(): "this is a precision alone: CF1 needs CP and CR",
    }
