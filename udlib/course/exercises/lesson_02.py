"""Checks of lesson 02: the loss of Eq. 3, average precision, CF1, and a threshold from costs.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions are called with torch tensors; they may answer with tensors, NumPy numbers or floats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import array, compare, number

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
            f"at logits of ±200 it gives {answer}: a sigmoid in single precision rounds to 0 or 1 there, so its log "
            "is useless. Work from the logits: −log σ(z) = softplus(−z)"
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
            f"a class without a positive gets {answer:.3g}: there is no ranking to judge, so return NaN (a 0 would "
            "drag "
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
def cheapest_decisions(function) -> str | None:
    """`function(probabilities, miss)` → bool (N, C): yes where p · miss ≥ 1 − p, the lower expected cost."""
    for miss in (2.6, 0.3):  # no probability lies on a threshold
        answer, problem = array(
            called(function, PROBABILITIES.clone(), miss), tuple(PROBABILITIES.shape), "a yes or no for each label"
        )
        if problem:
            return problem
        p = PROBABILITIES.numpy()
        if not np.isin(answer, (0, 1)).all():
            return "these are numbers and no decisions: return True for a yes and False for a no"
        above = {
            "the costs change nothing: at 0.5 a miss and a false alarm cost the same": 0.5,
            "the threshold is upside down: the more a miss costs, the sooner it pays to say yes": miss / (1 + miss),
            "the threshold is 1/miss, but a false alarm happens only if the label is absent, with probability 1 − p: "
            "say yes where p · miss ≥ 1 − p": 1 / miss,
            "the threshold is the cost itself: compare the expected costs, p · miss against 1 − p": miss,
        }
        right = p >= 1 / (1 + miss)
        if np.array_equal(answer, right):
            continue
        if np.array_equal(answer, ~right):
            return "yes and no are exchanged: say yes where a no would cost more"
        for sentence, threshold in above.items():
            if np.array_equal(answer, p >= threshold):
                return sentence
        i, c = (int(k) for k in np.argwhere(answer != right)[0])
        return (
            f"at p = {p[i, c]:.4g} a no costs p · miss =  {p[i, c] * miss:.4g} on average and a yes 1 − p = "
            f"{1 - p[i, c]:.4g}: the answer should be {'yes' if right[i, c] else 'no'}"
        )
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
        .item(): "the ranking is in ascending order: the highest score must come first",
        torch.trapezoid(corners, recall).item(): interpolated,
        torch.trapezoid(precision, recall[1:]).item(): interpolated,
        envelope.mean().item(): interpolated,
        (precision * hits).mean().item(): "it divides by all images: divide the sum by the number of positives",
        precision.mean().item(): "it averages the precision over all ranks: only the ranks of positives count",
    }


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
