"""Checks of lesson 07: the attention term, Eq. 18 for each image, and a weight by its pull.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Losses must be torch tensors with a gradient; numbers may be tensors, NumPy numbers or floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from udlib import losses
from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import array, compare, differentiable, number
from udlib.course.exercises.calls import in_words

WHOLE_BATCH = "it is one norm over the whole batch: take one norm for each image"


@exercise("07.1")
def attention_term(function) -> str | None:
    """`function(teacher_map, student_map)` → Eq. 17: teacher's map resized, Frobenius norm per image, then the mean."""
    same = _draw(1, 2, 3, 3), _draw(2, 2, 3, 3)
    other = _draw(3, 2, 5, 5), same[1]  # 5 to 3: no resizing agrees with another by accident
    for teacher, student in (same, other):
        cells = [" x ".join(map(str, maps.shape[1:])) for maps in (teacher, student)]
        try:
            value = called(function, teacher.clone(), student.clone().requires_grad_())
        except RuntimeError as error:
            if cells[0] == cells[1] or "size of tensor" not in str(error):
                raise
            return (
                f"the teacher's map has {cells[0]} cells and the student's {cells[1]}: resize the teacher's map first"
            )
        answer, problem = number(value)
        problem = problem or compare(
            answer, losses.attention_loss(teacher, student).item(), _wrong_terms(teacher, student)
        )
        problem = problem or differentiable(value, "the teacher")
        if problem:
            return problem if cells[0] == cells[1] else f"with a teacher's map of {cells[0]} cells, {problem}"
    equal = same[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(called(function, same[0].clone(), equal), equal)
    if not slope.isfinite().all():
        return (
            "the value is right, but where the two maps are equal the gradient is NaN: a square root has no slope at "
            "0. torch.linalg.vector_norm gives 0 there"
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
    norms, squares = gap.flatten(1).norm(dim=1), gap.square()
    pairs = target[:, None] - student  # (N, N, h, w): what a channel dimension that was left in makes of the difference
    wrong = {
        norms.square().mean().item(): "this is the norm squared: Eq. 17 has the norm itself, so take the square root "
        "per image",
        squares.mean().item(): "this is a mean over all cells (the released code's): Eq. 17 takes the norm of each "
        "image, the root of the *sum* over its cells",
        squares.mean((1, 2)).sqrt().mean().item(): "it divides by the number of cells before the root: sum over them",
        squares.mean().sqrt().item(): "it is the root of a mean over all cells of all images: take the root of each "
        "image's *sum*, and then the mean over the images",
        gap.norm().item(): WHOLE_BATCH,
        gap.norm().item() / len(gap): WHOLE_BATCH,
        norms.sum().item(): "it sums over the images: take their mean, as every other term does",
        gap.abs().sum((1, 2)).mean().item(): "it sums absolute differences: Eq. 17 is a Euclidean norm",
        gap.abs().mean().item(): "it is a mean of absolute differences (an L1 loss): Eq. 17 is a Euclidean norm",
        **{
            wrong.item(): "it takes a norm of each row of a map: all cells of an image go into one norm"
            for dim in (1, 2)
            for wrong in (gap.norm(dim=dim).mean(), gap.norm(dim=dim).sum(1).mean())
        },
        **{
            losses.attention_loss(target, student, normalize).item(): "the maps are normalised first, so their size "
            "does not count: Eq. 17 takes them as they are"
            for normalize in (True, "l2")
        },
        (1 - F.cosine_similarity(target.flatten(1), student.flatten(1))).mean().item(): "this is a cosine distance, "
        "which ignores how large the maps are: Eq. 17 is the norm of their difference",
        F.cosine_similarity(target.flatten(1), student.flatten(1)).mean().item(): "this is a cosine, largest where "
        "the "
        "maps agree: Eq. 17 is the norm of their difference",
        **{
            wrong.item(): "each map is pooled to one number first, and where it looks is lost: compare cell by cell"
            for means in [gap.mean((1, 2))]
            for wrong in (means.abs().mean(), means.square().mean(), means.norm())
        },
        **{
            wrong.item(): "each map of the teacher is compared with the student's maps of *all* images: compare image by "
            "image, and take the channel dimension for F.interpolate away again, with [:, 0]"
            for wrong in (
                pairs.norm(),
                pairs.norm(dim=(1, 2)).mean(),
                pairs.norm(dim=(2, 3)).mean(),
                pairs.flatten(1).norm(dim=1).mean(),
            )
        },
        gap.sum((1, 2)).abs().mean().item(): "differences of opposite sign cancel: square them before the sum",
        torch.linalg.matrix_norm(gap, 2)
        .mean()
        .item(): "this is the spectral norm of a matrix: take the norm of all cells of a map together (Frobenius)",
    }
    if teacher.shape != student.shape:
        grown = teacher - resized(student, teacher.shape[1:], **options)
        wrong |= {
            mean_norm(grown): "the student's map was resized: bring the teacher's map to the size of the student's",
            mean_norm(resized(teacher, size, mode="nearest") - student): "it picks the nearest cell: resize with "
            "mode='bilinear'",
            mean_norm(resized(teacher, size, mode="bilinear", align_corners=True) - student): "align_corners=True "
            "stretches the map: cells are areas, so leave align_corners=False",
            mean_norm(resized(teacher, size, mode="area") - student): "it averages blocks of cells: resize with "
            "mode='bilinear'",
            mean_norm(teacher[:, : size[0], : size[1]] - student): "it cuts the teacher's map off: resize it",
        }
    return wrong


@exercise("07.2")
def distillation_totals(function) -> str | None:
    """`function(teacher, student, alpha, beta, teacher_map, student_map)` → Eq. 18 of each image, constant teacher."""
    alpha, beta = 0.7, 0.2
    teacher = SimpleNamespace(logits=_draw(4, 3, 4), calibration_logits=_draw(5, 3, 4))
    student = SimpleNamespace(logits=_draw(6, 3, 4), calibration_logits=_draw(7, 3, 4))
    maps = [_draw(8, 3, 2, 2), _draw(9, 3, 2, 2)]
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
        return "it returned a dict: return only the weighted sum of the three terms, one number for each image"
    answer, problem = array(value, None, "one number for each image")
    if problem:
        return problem
    problem = _wrong_total(answer, *_totals(teacher, student, alpha, beta, maps)) or differentiable(
        value, "the teacher"
    )
    if problem:
        return problem
    if not all(leaf.requires_grad for leaf in leaves.values()):
        return (
            "the values are right, but it changes the tensors that it was given: take detach(), which leaves them as "
            "they are, in place of requires_grad_(False) or detach_()"
        )
    slopes = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    moved = {name: slope is not None and bool(slope.abs().sum() > 0) for name, slope in zip(leaves, slopes)}
    leaking = [name for name, moves in moved.items() if moves and "teacher" in name]
    still = [name for name, moves in moved.items() if not moves and "student" in name]
    if leaking and len(still) == 3:
        return "the values are right, but the student is detached, and the teacher is not: it is the other way round"
    if leaking:
        return (
            f"the values are right, but a gradient flows into {' and '.join(leaking)}: the teacher is a constant "
            "here, so detach() everything that comes from it"
        )
    if still:
        return (
            f"the values are right, but no gradient reaches {' and '.join(still)}: detach the teacher, not the student"
        )
    return None


def _wrong_total(answer: np.ndarray, right: Tensor, mistakes: dict[str, Tensor]) -> str | None:
    """What is wrong with the totals of the images, or None."""
    if answer.shape == right.shape and np.allclose(answer, right, rtol=1e-4, atol=1e-6):
        return None
    if answer.ndim == 0 and np.isclose(answer, right.mean(), rtol=1e-4):
        return "this is the mean over the images: one number is asked for each, so ask each term for reduction='none'"
    if answer.ndim == 0 and np.isclose(answer, right.sum(), rtol=1e-4):
        return "this is the sum over the images: one number is asked for each"
    for sentence, wrong in mistakes.items():
        if any(
            answer.shape == form.shape and np.allclose(answer, form, rtol=1e-4, atol=1e-6)
            for form in (wrong, wrong.mean(), wrong.sum())
        ):
            return sentence
    if answer.shape != right.shape:
        return f"it returned shape {answer.shape}: expected {tuple(right.shape)}, one for each image"
    return f"on a small example it gives {in_words(answer)}, expected {in_words(right)}"


def _totals(teacher, student, alpha: float, beta: float, maps) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 18 of each image, (N,), and what the classic mistakes make of it."""
    with torch.no_grad():
        t, s, classes = teacher, student, teacher.logits.shape[1]
        b = losses.bernoulli_kl(t.logits, s.logits, reduction="none")
        c = losses.softmax_kl(t.calibration_logits, s.calibration_logits, reduction="none")
        gap = (maps[0] - maps[1]).flatten(1)
        a = gap.norm(dim=1)
        back = (
            losses.bernoulli_kl(s.logits, t.logits, reduction="none"),
            losses.softmax_kl(s.calibration_logits, t.calibration_logits, reduction="none"),
        )
        crossed = (
            losses.bernoulli_kl(t.calibration_logits, s.calibration_logits, reduction="none"),
            losses.softmax_kl(t.logits, s.logits, reduction="none"),
        )
        squashed = (
            losses.bernoulli_kl(t.logits.sigmoid(), s.logits.sigmoid(), reduction="none"),
            losses.softmax_kl(t.calibration_logits.softmax(1), s.calibration_logits.softmax(1), reduction="none"),
        )
        one_sided = t.logits.sigmoid() * (F.logsigmoid(t.logits) - F.logsigmoid(s.logits))
        soft = F.binary_cross_entropy_with_logits(s.logits, torch.sigmoid(t.logits), reduction="none")
        rest = alpha * c + beta * a
        right = b + rest
        reverse = "the divergence runs the wrong way: the teacher's distribution comes first, KL(T ‖ S)"
        averaged = "a term is a mean over the batch, the same number for every image: use reduction='none' in each term"
        entropy = (
            "the classification term is a binary cross-entropy with soft targets: its gradient is right, but Eq. 13 "
            "is "
            "a divergence, which is 0 where the two agree. Take bernoulli_kl"
        )
        take_logits = "the functions of `losses` take logits: they apply the sigmoid and the softmax themselves"
        wrong = {
            "α and β are swapped: α weighs the calibration term (Eq. 14), β the attention (Eq. 17)": b
            + beta * c
            + alpha * a,
            "α stands on the wrong term: the classification term has weight 1, the calibration α": alpha * b
            + c
            + beta * a,
            "the weights stand on the wrong terms: 1 for classification, α for calibration, β for attention": alpha * b
            + beta * c
            + a,
            "α multiplies the attention too: its weight is β alone": b + alpha * (c + beta * a),
            "the terms are not weighted: α on the calibration term and β on the attention": b + c + a,
            "α and β are 0.5 here, whatever the check passes: use the arguments": b + 0.5 * c + 0.5 * a,
            "the attention term (Eq. 17) is missing": b + alpha * c,
            "the calibration term (Eq. 14) is missing": b + beta * a,
            "the classification term (Eq. 13) is missing": rest,
            "the classification term has weight 1 in Eq. 18, not 1 − α": (1 - alpha) * b + rest,
            "the classification term has weight 1 in Eq. 18, not 1 − α − β": (1 - alpha - beta) * b + rest,
            "this sums Eq. 13 over the classes: take their mean": classes * b + rest,
            "this takes the mean of Eq. 14 over the classes: take the sum, because it is one distribution over all of "
            "them": b + alpha * c / classes + beta * a,
            "the attention term is squared: Eq. 17 has the norm itself": b + alpha * c + beta * a**2,
            "the attention term is a mean over all cells: Eq. 17 takes a norm for each image": b
            + alpha * c
            + beta * (gap**2).mean(1),
            "the attention term is a mean over all cells of all images: Eq. 17 takes a norm for each image": b
            + alpha * c
            + beta * (gap**2).mean(),
            f"the attention term: {WHOLE_BATCH}": b + alpha * c + beta * gap.norm(),
            entropy: soft.mean(1) + rest,
            f"{entropy}. And take the mean over the classes": soft.sum(1) + rest,
            reverse: back[0] + alpha * back[1] + beta * a,
            f"{reverse}, in Eq. 13 too": back[0] + rest,
            f"{reverse}, in Eq. 14 too": b + alpha * back[1] + beta * a,
            "the branches are swapped: sigmoids (Eq. 13) go with `logits`, the softmax (Eq. 14) with "
            "`calibration_logits`": crossed[0] + alpha * crossed[1] + beta * a,
            "Eq. 14 compares the calibration branches: take `calibration_logits` there": b
            + alpha * crossed[1]
            + beta * a,
            "Eq. 13 compares the classifiers: take `logits` there": crossed[0] + rest,
            "Eq. 13 compares a sigmoid for each class, not the softmax": crossed[1] + rest,
            take_logits: squashed[0] + alpha * squashed[1] + beta * a,
            f"{take_logits} (Eq. 13)": squashed[0] + rest,
            f"{take_logits} (Eq. 14)": b + alpha * squashed[1] + beta * a,
            "Eq. 13 compares two probabilities for each class, p and 1 − p: the part of 1 − p is missing": one_sided.mean(
                1
            )
            + rest,
            "each image's loss is divided by the number of images: only a mean over them does that": right / len(right),
            "Eq. 14 is a softmax over all classes, not a sigmoid for each": b + alpha * crossed[0] + beta * a,
            averaged: b + alpha * c + beta * a.mean(),
            f"{averaged} (Eq. 14 too)": b + alpha * c.mean() + beta * a.mean(),
            f"{averaged} (Eq. 14)": b + alpha * c.mean() + beta * a,
            f"{averaged} (Eq. 13)": b.mean() + rest,
        }
    return right, wrong


PULLS = (
    np.array([0.20, 0.50, 0.10, 0.40]),  # lengths of the unweighted terms' gradients, for each image
    np.array([0.90, 0.30, 0.60, 1.40]),
    np.array([2.00, 5.00, 1.00, 7.00]),
)


@exercise("07.3")
def weight_of_a_share(function) -> str | None:
    """`function(pull_b, pull_ps, pull_att, alpha, share)` → the β at which attention has this share of the pull."""
    for alpha, share in ((0.5, 0.2), (0.3, 0.4)):
        answer, problem = number(called(function, *(pull.copy() for pull in PULLS), alpha, share))
        if problem:
            return problem
        b, c, a = (float(pull.mean()) for pull in PULLS)
        rest, odds = b + alpha * c, share / (1 - share)
        ratios = (PULLS[0] + alpha * PULLS[1]) / PULLS[2]
        mistakes = {
            share * rest / a: "this is the share of what the other two pull: take the share of all three, because "
            "the attention's own pull is one of them",
            share
            * (rest + a)
            / a: "the attention has weight 1 in this sum of the three: its weight is β there too, so solve for β",
            share * (b + c + a) / a: "the three pulls are not weighted in their sum: α weighs the calibration, β the "
            "attention",
            share / (1 + share) * rest / a: "there is a wrong sign: with β on one side, the factor is 1 − share",
            odds * (b + 0.5 * c) / a: "α is 0.5 here, whatever the check passes: use the argument",
            share / (100 - share) * rest / a: "the share is a fraction, not per cent: do not divide it by 100",
            a / (odds * rest): "this is 1/β: turn the fraction over",
            odds: "this is how many times as hard as the other two the attention pulls: divide by its length, and "
            "multiply by theirs",
            odds * (b + c) / a: "α is missing: the calibration term pulls with α times its length",
            odds * b / a: "the calibration term is missing among the others",
            odds * rest * a: "this multiplies by the attention's pull: the harder a term pulls, the smaller its weight",
            odds * (1 + alpha): "this is the share of the weights: multiply each weight by the length of its gradient",
            share: "this is the share itself: what counts is the weight times the pull",
            rest / a * (1 - share) / share: "the share is upside down: this is the β at which the other two terms "
            "have that share",
            rest / a: "at this β the attention has half of the pull, whatever the share",
            odds * float(ratios.mean()): "this is a mean of ratios, in which images with a small pull of attention "
            "decide: take the mean of each pull first",
        }
        if problem := compare(answer, odds * rest / a, mistakes):
            return problem
    return None


def _draw(seed: int, *shape: int) -> Tensor:
    """Normal values with one decimal, so that they can be typed."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * 10).round() / 10
