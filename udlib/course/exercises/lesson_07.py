"""Checks of lesson 07: the attention term, the loss of Eq. 18, a paired interval, and a weight chosen on validation.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Losses must be torch tensors with a gradient; numbers may be tensors, NumPy numbers or floats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import torch
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor
from torch.nn import functional as F

from udlib import losses
from udlib.course.exercises import NotAttempted, called, exercise
from udlib.course.exercises.answers import compare, number, numbers, shown

VERDICTS = ("higher", "lower", "not detected")


@exercise("07.1")
def attention_term(function) -> str | None:
    """`function(teacher_map, student_map)` → Eq. 17: teacher's map resized, Frobenius norm per image, then the mean."""
    same = _draw(1, 3, 4, 4), _draw(2, 3, 4, 4)
    other = _draw(3, 3, 7, 7), same[1]  # 7 to 4: no resizing agrees with another by accident
    for teacher, student in (same, other):
        answer, problem = _loss(called(function, teacher.clone(), student.clone().requires_grad_()))
        problem = problem or compare(
            answer, losses.attention_loss(teacher, student).item(), _wrong_terms(teacher, student)
        )
        if problem:
            return problem if teacher.shape == student.shape else f"with a teacher's map of 7 x 7 cells, {problem}"
    equal = same[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(called(function, same[0].clone(), equal), equal)
    if not slope.isfinite().all():
        return (
            "the value is right, but where the two maps are equal the gradient is NaN: a square root has no slope at "
            "0. "
            "torch.linalg.vector_norm answers 0 there"
        )
    return None


def _wrong_terms(teacher: Tensor, student: Tensor) -> dict[float, str]:
    """What the classic mistakes make of Eq. 17, for maps of one size or of two."""
    size, options = student.shape[1:], {"mode": "bilinear", "align_corners": False}

    def resized(maps: Tensor, size, **options) -> Tensor:
        return F.interpolate(maps[:, None], size=size, **options)[:, 0]

    def mean_norm(gap: Tensor) -> float:
        return gap.flatten(1).norm(dim=1).mean().item()

    target = resized(teacher, size, **options)
    gap = target - student
    norms = gap.flatten(1).norm(dim=1)
    wrong = {
        (norms**2)
        .mean()
        .item(): "this is the norm squared: Eq. 17 has the norm itself, so take the square root per image",
        (gap**2)
        .mean()
        .item(): "this is a mean over all cells (the released code's): Eq. 17 takes the norm of each image, "
        "the root of the *sum* over its cells",
        (gap**2).mean((1, 2)).sqrt().mean().item(): "it divides by the number of cells before the root: sum over them",
        gap.norm().item(): "it is one norm over the whole batch: take one norm for each image, then the mean over "
        "images",
        norms.sum().item(): "it sums over the images: take their mean, as every other term does",
        gap.abs().sum((1, 2)).mean().item(): "it sums absolute differences: Eq. 17 is a Euclidean norm",
        gap.sum((1, 2)).abs().mean().item(): "differences of opposite sign cancel: square them before the sum",
        torch.linalg.matrix_norm(gap, 2)
        .mean()
        .item(): "this is the spectral norm of a matrix: take the Frobenius norm, that of all cells in a row",
    }
    if teacher.shape != student.shape:
        grown = teacher - resized(student, teacher.shape[1:], **options)
        wrong |= {
            mean_norm(grown): "the student's map was resized: bring the teacher's map to the size of the student's",
            mean_norm(resized(teacher, size, mode="nearest") - student): "it picks the nearest cell: resize with "
            "mode='bilinear'",
            mean_norm(resized(teacher, size, mode="bilinear", align_corners=True) - student): "align_corners=True "
            "stretches the map: "
            "cells are areas, so "
            "leave "
            "align_corners=False",
            mean_norm(teacher[:, : size[0], : size[1]] - student): "it cuts the teacher's map off: resize it",
        }
    return wrong


@exercise("07.2")
def distillation_total(function) -> str | None:
    """`function(teacher, student, alpha, beta, teacher_map, student_map)` → Eq. 18, with a constant teacher."""
    alpha, beta = 0.7, 0.2
    teacher = SimpleNamespace(logits=_draw(4, 5, 6), calibration_logits=_draw(5, 5, 6))
    student = SimpleNamespace(logits=_draw(6, 5, 6), calibration_logits=_draw(7, 5, 6))
    maps = [_draw(8, 5, 4, 4), _draw(9, 5, 4, 4)]
    leaves = {
        "the teacher's logits": teacher.logits,
        "the teacher's calibration logits": teacher.calibration_logits,
        "the teacher's map": maps[0],
        "the student's logits": student.logits,
        "the student's calibration logits": student.calibration_logits,
        "the student's map": maps[1],
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    value = called(function, teacher, student, alpha, beta, *maps)
    if isinstance(value, Mapping):
        if "total" not in value:
            return "it returned a dict without 'total': return the weighted sum, alone or under that name"
        value = value["total"]
        if value is ...:
            raise NotAttempted
    answer, problem = _loss(value)
    if problem:
        return problem
    right, mistakes = _totals(teacher, student, alpha, beta, maps)
    problem = compare(answer, right, mistakes)
    if problem:
        return problem
    slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    moved = {name: slope is not None and bool(slope.abs().sum() > 0) for name, slope in zip(leaves, slopes)}
    leaking = [name for name, moves in moved.items() if moves and "teacher" in name]
    if leaking:
        return (
            f"the value is right, but a gradient flows into {' and '.join(leaking)}: the teacher is a constant here, "
            "so detach() all that comes from it"
        )
    still = [name for name, moves in moved.items() if not moves and "student" in name]
    if still:
        return f"the value is right, but no gradient reaches {' and '.join(still)}: detach the teacher, not the student"
    return None


def _totals(teacher, student, alpha: float, beta: float, maps) -> tuple[float, dict[float, str]]:
    """Eq. 18, and what the classic mistakes make of it."""
    with torch.no_grad():
        t, s, classes = teacher, student, teacher.logits.shape[1]
        b, c = losses.bernoulli_kl(t.logits, s.logits), losses.softmax_kl(t.calibration_logits, s.calibration_logits)
        a = losses.attention_loss(*maps)
        gap = (maps[0] - maps[1]).flatten(1)
        squared, cells = (gap**2).sum(1).mean(), (gap**2).mean()
        back = losses.bernoulli_kl(s.logits, t.logits), losses.softmax_kl(s.calibration_logits, t.calibration_logits)
        crossed = (
            losses.bernoulli_kl(t.calibration_logits, s.calibration_logits),
            losses.softmax_kl(t.logits, s.logits),
        )
        right = b + alpha * c + beta * a
        reverse = "the divergence runs the wrong way: the teacher's distribution stands first, KL(T ‖ S)"
        swapped = (
            "the branches are swapped: sigmoids (Eq. 13) go with `logits`, the softmax (Eq. 14) with "
            "`calibration_logits`"
        )
        wrong = {
            b
            + beta * c
            + alpha * a: "α and β are swapped: α weighs the calibration term (Eq. 14), β the attention (Eq. 17)",
            alpha * b
            + c
            + beta * a: "α stands on the wrong term: the classification term has weight 1, the calibration α",
            alpha * b
            + beta * c
            + a: "the weights stand on the wrong terms: 1 for classification, α for calibration, β for attention",
            b + alpha * (c + beta * a): "α multiplies the attention too: its weight is β alone",
            b + c + a: "the terms are not weighted: α on the calibration term and β on the attention",
            b + alpha * c: "the attention term (Eq. 17) is missing",
            b + beta * a: "the calibration term (Eq. 14) is missing",
            alpha * c + beta * a: "the classification term (Eq. 13) is missing",
            (1 - alpha) * b + alpha * c + beta * a: "the classification term has weight 1 in Eq. 18, not 1 − α",
            classes * b + alpha * c + beta * a: "Eq. 13 is a mean over the classes, this is their sum",
            b
            + alpha * c / classes
            + beta * a: "Eq. 14 sums over the classes, this is their mean: it is one distribution over all of them",
            b + alpha * c + beta * squared: "the attention term is squared: Eq. 17 has the norm itself",
            b
            + alpha * c
            + beta * cells: "the attention term is a mean over all cells: Eq. 17 takes a norm for each image",
            back[0] + alpha * back[1] + beta * a: reverse,
            back[0] + alpha * c + beta * a: reverse,
            b + alpha * back[1] + beta * a: reverse,
            crossed[0] + alpha * crossed[1] + beta * a: swapped,
            b + alpha * crossed[0] + beta * a: "Eq. 14 is a softmax over all classes, not a sigmoid for each",
        }
    return right.item(), {value.item(): sentence for value, sentence in wrong.items()}


PAIRS = [
    ([0.780, 0.791, 0.775, 0.788, 0.783], [0.765, 0.779, 0.763, 0.769, 0.770], "higher"),
    ([0.041, 0.047, 0.038, 0.044, 0.040], [0.045, 0.051, 0.043, 0.046, 0.045], "lower"),
    ([0.771, 0.782, 0.768, 0.779, 0.766], [0.764, 0.785, 0.770, 0.768, 0.765], "not detected"),
    ([0.74, 0.77, 0.75], [0.75, 0.76, 0.77], "not detected"),
]


@exercise("07.3")
def paired_interval(function) -> str | None:
    """`function(ours, theirs)` → (mean, low, high, verdict) of ours − theirs, a paired 95 % t interval."""
    for ours, theirs, verdict in PAIRS:
        value = called(function, list(ours), list(theirs))
        interval, problem = numbers(value, "(mean, low, high, verdict)", 3, beside=1)
        if problem:
            return problem
        problem = _wrong_interval(*interval, np.array(ours), np.array(theirs))
        if problem:
            return problem
        if value[3] not in VERDICTS:
            return f"the verdict is {shown(value[3])}: expected one of {', '.join(VERDICTS)}"
        if value[3] != verdict:
            return _wrong_verdict(value[3], verdict, *interval)
    return None


def _wrong_verdict(answer: str, verdict: str, mean: float, low: float, high: float) -> str:
    interval = f"[{low:+.4f}, {high:+.4f}]"
    if verdict == "not detected":
        return (
            f"the interval {interval} holds 0 and the verdict is '{answer}': the sign of the mean alone decides nothing"
        )
    if answer == "not detected":
        return f"the interval {interval} leaves out 0, so the difference is detected: '{verdict}'"
    return f"the interval {interval} lies on one side of 0, and the verdict '{answer}' names the other"


def _wrong_interval(mean: float, low: float, high: float, a: np.ndarray, b: np.ndarray) -> str | None:
    """What is wrong with an interval of a − b, or None."""
    d, n = a - b, len(a)

    def near(x: float, y: float) -> bool:
        return math.isclose(x, y, rel_tol=1e-3, abs_tol=1e-7)

    if not near(mean, d.mean()):
        if near(mean, -d.mean()):
            return "the sign is the wrong way round: take ours minus theirs"
        if near(mean, d.sum()):
            return "the differences are added up: take their mean"
        return f"the mean difference is {d.mean():+.4f} there, not {mean:+.4f}"
    if near(low, mean) and near(high, mean):
        return "low and high are the mean itself: go a margin to either side"
    half, standard = (high - low) / 2, d.std(ddof=1)
    if half < 0:
        return "low lies above high"
    if not near((low + high) / 2, mean):
        return "low and high do not lie at the same distance from the mean: a t interval does"
    t, root = student_t.ppf(0.975, n - 1), math.sqrt(n)
    unpaired = math.sqrt(a.var(ddof=1) / n + b.var(ddof=1) / n)
    alone = "that ignores the pairs: take the spread of the differences, seed by seed, not that of each method"
    return (
        None
        if near(half, t * standard / root)
        else _compare_half(
            half,
            t * standard / root,
            {
                norm.ppf(0.975)
                * standard
                / root: "it uses the normal quantile 1.96: with so few seeds Student's t is wider",
                1.96 * standard / root: "it uses the normal quantile 1.96: with so few seeds Student's t is wider",
                2 * standard / root: "it uses 2 for the quantile: with so few seeds Student's t is wider",
                student_t.ppf(0.95, n - 1)
                * standard
                / root: "that is a 90 % interval: a 95 % one leaves 2.5 % on each side",
                student_t.ppf(0.975, n) * standard / root: "n differences have n − 1 degrees of freedom, not n",
                t * standard: "the square root of n is missing: the mean of n differences is less uncertain than one "
                "of them",
                t * standard / n: "it divides by n: the standard error divides by the square root of n",
                t
                * d.std()
                / root: "the standard deviation divides by n: take n − 1 (ddof=1), since the mean is estimated too",
                standard / root: "low and high are one standard error away: multiply by the t quantile",
                standard: "low and high are one standard deviation away: that describes seeds, not their mean",
                t * unpaired: alone,
                student_t.ppf(0.975, 2 * n - 2) * unpaired: alone,
            },
        )
    )


def _compare_half(answer: float, right: float, mistakes: dict[float, str]) -> str:
    for wrong, sentence in mistakes.items():
        if math.isclose(answer, wrong, rel_tol=1e-3):
            return sentence
    return f"low and high lie {answer:.5f} from the mean there, expected {right:.5f}"


@exercise("07.4")
def weight_from_validation(function) -> str | None:
    """`function(val, test)`: {α: mAP of each seed} → (α with the best mean on validation, its mean on test)."""
    val = {0.0: [0.70, 0.71, 0.72], 0.5: [0.74, 0.75, 0.73], 1.0: [0.69, 0.80, 0.70], 2.0: [0.73, 0.72, 0.71]}
    test = {0.0: [0.69, 0.70, 0.68], 0.5: [0.72, 0.735, 0.71], 1.0: [0.70, 0.71, 0.69], 2.0: [0.75, 0.76, 0.72]}
    mean = {
        split: {alpha: float(np.mean(seeds)) for alpha, seeds in answer.items()}
        for split, answer in (("val", val), ("test", test))
    }
    value = called(function, val, test)
    (alpha, score), problem = numbers(value, "(α, its mean mAP on test)", 2)
    if problem:
        return problem
    if alpha != 0.5:
        return {
            2.0: "α = 2 was chosen on the test images: what is then reported there is too good. Choose on validation",
            1.0: "α = 1 has the best single seed on validation, by luck: compare means over seeds",
            0.0: "α = 0 has the lowest mean on validation or on test: a higher mAP is better",
        }.get(alpha, f"α = {alpha:g} was not tried: choose one of {', '.join(f'{a:g}' for a in val)}")
    return (
        None
        if math.isclose(score, mean["test"][0.5], abs_tol=1e-6)
        else compare(
            score,
            mean["test"][0.5],
            {
                mean["val"][
                    0.5
                ]: "α is right, but the mAP beside it is that of validation, on which it was chosen: report on test",
                max(
                    test[0.5]
                ): "α is right, but the mAP beside it is that of the best seed: report the mean over seeds",
                test[0.5][0]: "α is right, but the mAP beside it is that of seed 0 alone: report the mean over seeds",
                max(
                    mean["test"].values()
                ): "α is right, but the mAP beside it is the best of all α on test: report that of your α",
            },
        )
    )


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _loss(value) -> tuple[float, str | None]:
    """The value of a loss that can be minimised, or a sentence about what is wrong with it."""
    answer, problem = number(value)
    if problem:
        return answer, problem
    if not isinstance(value, Tensor) or not value.requires_grad:
        return answer, (
            f"it returned {shown(value)}, through which no gradient can flow: a loss must stay a torch tensor, "
            "without .item(), NumPy, or a detached student"
        )
    return answer, None
