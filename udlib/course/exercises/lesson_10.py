"""Checks of lesson 10: IoU, a detector's p, the two losses of its student, and what detection adds to a teacher.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions may answer with tensors, NumPy arrays or numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import among, array, compare, number, paired_interval
from udlib.methods.detection.losses import region_feature_loss

ARMS = {
    "baseline": [0.741, 0.748, 0.755, 0.737, 0.744],
    "detector": [0.762, 0.759, 0.771, 0.749, 0.763],
    "KD": [0.756, 0.771, 0.768, 0.749, 0.764],
    "WSD": [0.759, 0.779, 0.774, 0.748, 0.775],
}
NO_GRADIENT = "the value is right, but no gradient flows to the student: stay with tensors, without .item()"
IMAGE = torch.tensor([0, 0, 0, 0, 1, 2, 2])  # images with four, one and two regions


def _random(*shape: int, seed: int = 10) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@exercise("10.1")
def intersection_over_union(function: Callable) -> str | None:
    """`function(a, b)` → IoU of two boxes x1, y1, x2, y2."""
    pairs = [
        ((0.0, 0.0, 4.0, 2.0), (2.0, 1.0, 6.0, 5.0)),
        ((0.1, 0.2, 0.9, 0.8), (0.3, 0.3, 0.5, 0.7)),
        ((0.0, 0.0, 1.0, 1.0), (2.0, 3.0, 4.0, 5.0)),
        ((0.0, 0.0, 1.0, 1.0), (0.2, 3.0, 0.6, 5.0)),
        ((0.2, 0.2, 0.6, 0.7), (0.2, 0.2, 0.6, 0.68)),
    ]

    def iou(a, b, clip=True, below=lambda A, B, overlap: A + B - overlap, more=0.0):
        sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + more for k in (0, 1)]
        inside = max(sides[0], 0) * max(sides[1], 0) if clip else sides[0] * sides[1]
        areas = [(box[2] - box[0] + more) * (box[3] - box[1] + more) for box in (a, b)]
        return inside / below(*areas, inside)

    parsed = [number(called(function, a, b)) for a, b in pairs]
    if problem := next((problem for _, problem in parsed if problem), None):
        return problem

    def every(**changes) -> np.ndarray:
        return np.array([iou(a, b, **changes) for a, b in pairs])

    ious, right = np.array([value for value, _ in parsed]), every()
    problem = among(
        ious,
        right,
        {
            "two boxes that do not meet have sides below 0, whose product may be positive: clip both at 0": every(
                clip=False
            ),
            "the union counts the intersection twice: subtract it once": every(below=lambda A, B, overlap: A + B),
            "it divides by the smaller box: a box around everything would always be right; divide by the union": every(
                below=lambda A, B, overlap: min(A, B)
            ),
            "it divides by the larger box: divide by the union": every(below=lambda A, B, overlap: max(A, B)),
            "it divides by the first box: divide by the union": every(below=lambda A, B, overlap: A),
            "it divides by the second box: divide by the union": every(below=lambda A, B, overlap: B),
            "that is the intersection: divide it by the union": every(below=lambda A, B, overlap: 1.0),
            "the union loses the intersection twice: subtract it once": every(
                below=lambda A, B, overlap: A + B - 2 * overlap
            ),
            "a pixel is added to each side: these boxes are areas, whose ends do not count in": every(more=1.0),
        },
    )
    if problem and "on a small example" in problem:
        k = int(np.abs(ious - right).argmax())
        return f"for {pairs[k][0]} and {pairs[k][1]} it gives {ious[k]:.4g}, expected {right[k]:.4g}"
    return problem


@exercise("10.2")
def probability_of_an_image(function: Callable) -> str | None:
    """`function(Mc, Md)` → p (C,), the sum over regions of softmax over classes times softmax over regions."""
    c, d = 1.5 * _random(5, 3), 1.5 * _random(5, 3, seed=11)
    answer, problem = array(called(function, c.clone(), d.clone()), (3,), "one probability for each class")
    if problem:
        return problem
    over_classes, over_regions = (lambda m: m.softmax(1)), (lambda m: m.softmax(0))

    def p(first, second, end=lambda s: s.sum(0)):
        return end(first(c) * second(d)).numpy()

    return among(
        answer,
        p(over_classes, over_regions),
        {
            "the two softmaxes are exchanged: M^c competes over classes (of one box), M^d over boxes (for one "
            "class)": p(over_regions, over_classes),
            "both softmaxes run over classes: then no box competes with another, and p can exceed 1; M^d runs over "
            "the boxes": p(over_classes, over_classes),
            "both softmaxes run over the boxes: then classes do not compete; M^c runs over the classes": p(
                over_regions, over_regions
            ),
            "it takes the mean over the boxes: S^d adds up to 1 over them already, so take the sum": p(
                over_classes, over_regions, lambda s: s.mean(0)
            ),
            "it takes the best box alone: p is the sum over all boxes": p(
                over_classes, over_regions, lambda s: s.amax(0)
            ),
            "it takes sigmoids where softmaxes stand": (torch.sigmoid(c) * torch.sigmoid(d)).sum(0).numpy(),
            "S^d is missing: the boxes need weights that add up to 1": c.softmax(1).sum(0).numpy(),
            "S^d is missing: that is the plain mean of S^c over the boxes": c.softmax(1).mean(0).numpy(),
            "that is one softmax of a product: take a softmax of each, and then the product": (c * d)
            .softmax(1)
            .sum(0)
            .numpy(),
            "one more softmax follows: the sum is a probability already": p(
                over_classes, over_regions, lambda s: s.sum(0).softmax(0)
            ),
        },
    )


@exercise("10.3")
def feature_loss(function: Callable) -> str | None:
    """`function(teacher, student, image, images)` → 1/(2B) Σ_b 1/R_b Σ_r ‖f_T − f_S‖², teacher detached."""
    teacher_features, student_features = _random(7, 4), _random(7, 4, seed=12)
    teacher, student = (part.clone().requires_grad_() for part in (teacher_features, student_features))
    value = called(function, teacher, student, IMAGE.clone(), 3)
    answer, problem = number(value)
    if problem:
        return problem
    apart = (teacher_features - student_features).square().sum(1)
    of_image = torch.stack([apart[IMAGE == b].mean() for b in range(3)])
    right = region_feature_loss(teacher_features, student_features, IMAGE, 3).item()
    if problem := compare(
        answer,
        right,
        {
            (
                apart.mean() / 2
            ).item(): "it is a mean over all regions: an image with many boxes weighs more. First the mean over each "
            "image's "
            "own regions, then over images",
            apart.mean().item(): "it is a mean over all regions, without the half: first the mean over each image's "
            "own regions",
            2 * right: "the half is missing: 1/(2B)",
            3 * right: "it is a sum over the images: divide by their number B",
            (apart.sum() / 6).item(): "it is a sum over the regions of each image: divide by their number R_b",
            (apart.sum() / 2).item(): "it is a sum over regions and images: divide by R_b and B",
            right / 4: "it is a mean over the features: ‖·‖² is their sum",
            (
                torch.stack([apart.sqrt()[IMAGE == b].mean() for b in range(3)]).mean() / 2
            ).item(): "the norms are not squared",
            (of_image.sum() / 14).item(): "it divides by the number of regions where the number of images B belongs",
        },
    ):
        return problem
    if not isinstance(value, Tensor) or not value.requires_grad:
        return NO_GRADIENT
    to_teacher, to_student = torch.autograd.grad(value, [teacher, student], allow_unused=True)
    if to_teacher is not None and to_teacher.abs().max() > 1e-9:
        return "the value is right, but a gradient flows to the teacher: detach its features"
    return NO_GRADIENT if to_student is None else None


@exercise("10.4")
def loss_of_the_student(function: Callable) -> str | None:
    """`function(z, a, y, q)` → BCE(σ(z), y) + BCE(σ(a ⊙ z), q), sums over classes, means over images, q detached."""
    z, a = 1.4 * _random(5, 4), torch.tensor([0.2, 0.7, 1.6, 0.4], dtype=torch.float64)
    y = (_random(5, 4, seed=13) > 0.4).double()
    q = torch.sigmoid(1.3 * _random(5, 4, seed=14))
    student, scale, teacher_answers = (part.clone().requires_grad_() for part in (z, a, q))
    value = called(function, student, scale, y, teacher_answers)
    answer, problem = number(value)
    if problem:
        return problem

    def bce(logits, target, over=lambda loss: loss.sum(1).mean()):
        return over(F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")).item()

    label, soft = bce(z, y), bce(a * z, q)
    scaled = (a * torch.sigmoid(z)).clamp(1e-6, 1 - 1e-6)
    if problem := compare(
        answer,
        label + soft,
        {
            label + bce(z, q): "the scale a is missing: the teacher's term sees a ⊙ z",
            bce(a * z, y) + soft: "the scale is at both terms: the labels' term has z itself",
            bce(a * z, y) + bce(z, q): "a is at the wrong term: it scales what is compared with the teacher",
            label: "the teacher's term is missing",
            soft: "the labels' term is missing: the student learns from the labels as well",
            (label + soft) / 4: "both are means over classes: take sums, and means over images",
            (label + soft) * 5: "it is a sum over the images: take the mean over them",
            label + soft / 4: "the teacher's term is a mean over classes: take the sum",
            (label + soft) / 2: "that is half of it: the two terms are added",
            label
            + bce(
                a * z, (q > 0.5).double()
            ): "the teacher's answers are rounded to 0 and 1: its doubt is what it has to teach",
            label
            + F.binary_cross_entropy(scaled, q, reduction="none")
            .sum(1)
            .mean()
            .item(): "a multiplies the probability: it multiplies the logit, inside the sigmoid",
            label
            + bce(z, torch.sigmoid(a * torch.logit(q))): "a scales the teacher's logits: it belongs to the student's",
            label + bce(z / a, q): "it divides by a: a multiplies the logit",
        },
    ):
        return problem
    again, by = z.clone().requires_grad_(), a.clone().requires_grad_()
    whole = (
        (
            F.binary_cross_entropy_with_logits(again, y, reduction="none")
            + F.binary_cross_entropy_with_logits(by * again, q, reduction="none")
        )
        .sum(1)
        .mean()
    )
    right_gradients = torch.autograd.grad(whole, [again, by], retain_graph=True)
    if not isinstance(value, Tensor) or not value.requires_grad:
        return NO_GRADIENT
    to_student, to_scale, to_teacher = torch.autograd.grad(value, [student, scale, teacher_answers], allow_unused=True)
    if to_teacher is not None and to_teacher.abs().max() > 1e-9:
        return "the value is right, but a gradient flows to the teacher: detach q"
    if to_scale is None:
        return "the value is right, but a gets no gradient: it is learned, so do not detach it"
    if (
        to_student is None
        or not torch.allclose(to_student, right_gradients[0], atol=1e-6)
        or not torch.allclose(to_scale, right_gradients[1], atol=1e-6)
    ):
        return "the value is right, but its gradient is not: both terms pull at z, so detach it in neither"
    return None


@exercise("10.5")
def what_detection_adds(function: Callable) -> str | None:
    """`function(arms)` → (mean, low, high) of WSD minus KD, paired by seed."""
    value = called(function, {name: list(scores) for name, scores in ARMS.items()})
    base, detector, kd, wsd = (np.array(ARMS[name]) for name in ARMS)
    return paired_interval(
        value,
        wsd,
        kd,
        {
            (
                wsd - base
            ).mean(): "that is WSD minus the baseline: what any teacher gives is in it. Compare with a plain teacher",
            (detector - base).mean(): "that compares the teachers: asked is what arrives in the student",
            (
                wsd - detector
            ).mean(): "that is the student minus its teacher: asked is what WSD teaches beyond a plain classifier",
            (detector - kd).mean(): "that is the detector minus a student of KD: compare student with student",
            (kd - base).mean(): "that is what a plain teacher gives: asked is what WSD adds to it",
            (kd - wsd).mean(): "the difference is the wrong way round: WSD minus KD",
            wsd.mean(): "that is a score: asked is a difference of two arms",
        },
    )
