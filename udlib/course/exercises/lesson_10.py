"""Checks of lesson 10: IoU, a detector's p, the two losses of its student, and the seeds that a claim needs.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions may answer with tensors, NumPy arrays or numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from scipy.stats import t as student_t
from torch import Tensor
from torch.nn import functional as F

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import among, array, compare, number
from udlib.methods.detection.losses import region_feature_loss

ARMS = {
    "baseline": [0.741, 0.748, 0.755, 0.737, 0.744],
    "detector": [0.762, 0.759, 0.771, 0.749, 0.763],
    "KD": [0.756, 0.771, 0.768, 0.749, 0.764],
    "WSD": [0.759, 0.779, 0.774, 0.748, 0.775],
}
NO_GRADIENT = "the value is right, but no gradient flows to the student: use tensors, without .item()"
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
            "two boxes that do not overlap have sides below 0, and the product of two such sides is positive: clip "
            "both at 0": every(clip=False),
            "the union counts the intersection twice: subtract it once": every(below=lambda A, B, overlap: A + B),
            "it divides by the smaller box: a box around everything would always be right; divide by the union": every(
                below=lambda A, B, overlap: min(A, B)
            ),
            "it divides by the larger box: divide by the union": every(below=lambda A, B, overlap: max(A, B)),
            "it divides by the first box: divide by the union": every(below=lambda A, B, overlap: A),
            "it divides by the second box: divide by the union": every(below=lambda A, B, overlap: B),
            "that is only the intersection: divide it by the union": every(below=lambda A, B, overlap: 1.0),
            "the intersection is subtracted twice from the union: subtract it once": every(
                below=lambda A, B, overlap: A + B - 2 * overlap
            ),
            "a pixel is added to each side: these boxes are areas, so a side is x2 − x1": every(more=1.0),
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
            "the two softmaxes are exchanged: in M^c the classes of a box compete, in M^d the boxes of a class": p(
                over_regions, over_classes
            ),
            "both softmaxes run over classes: then no box competes with another, and p can exceed 1; M^d runs over "
            "the boxes": p(over_classes, over_classes),
            "both softmaxes run over the boxes: then the classes do not compete; M^c runs over the classes": p(
                over_regions, over_regions
            ),
            "it takes the mean over the boxes: S^d adds up to 1 over them already, so take the sum": p(
                over_classes, over_regions, lambda s: s.mean(0)
            ),
            "it takes the best box alone: p is the sum over all boxes": p(
                over_classes, over_regions, lambda s: s.amax(0)
            ),
            "it takes sigmoids in place of the softmaxes": (torch.sigmoid(c) * torch.sigmoid(d)).sum(0).numpy(),
            "S^d is missing: the boxes need weights that add up to 1": c.softmax(1).sum(0).numpy(),
            "S^d is missing: that is the plain mean of S^c over the boxes": c.softmax(1).mean(0).numpy(),
            "that is one softmax of a product: take a softmax of each, then multiply": (c * d)
            .softmax(1)
            .sum(0)
            .numpy(),
            "there is one softmax too many: the sum is a probability already": p(
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
            ).item(): "it is a mean over all regions: an image with many boxes weighs more. First take the mean over "
            "each image's own regions, then over images",
            apart.mean().item(): "it is a mean over all regions, without the half: first take the mean over each "
            "image's own regions",
            2 * right: "the half is missing: 1/(2B)",
            3 * right: "it is a sum over the images: divide by their number B",
            (apart.sum() / 6).item(): "it is a sum over the regions of each image: divide by their number R_b",
            (apart.sum() / 2).item(): "it is a sum over regions and images: divide by R_b and B",
            right / 4: "it is a mean over the features: ‖·‖² is their sum",
            (
                torch.stack([apart.sqrt()[IMAGE == b].mean() for b in range(3)]).mean() / 2
            ).item(): "the norms are not squared",
            (of_image.sum() / 14).item(): "it divides by the number of regions: divide by the number of images B",
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
            bce(a * z, y) + soft: "the scale is at both terms: use z itself in the labels' term",
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
            ): "the teacher's answers are rounded to 0 and 1: its uncertainty is what it can teach",
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
        return "the value is right, but a gets no gradient: it is trained, so do not detach it"
    if (
        to_student is None
        or not torch.allclose(to_student, right_gradients[0], atol=1e-6)
        or not torch.allclose(to_scale, right_gradients[1], atol=1e-6)
    ):
        return "the value is right, but its gradient is not: both terms pull at z, so do not detach it in either"
    return None


@exercise("10.5")
def seeds_that_detect(function: Callable) -> str | None:
    """`function(arms, gain)` → the fewest seeds whose 95 % t interval of WSD − KD is at most ± gain."""
    base, detector, kd, wsd = (np.array(ARMS[name]) for name in ARMS)
    spread = (wsd - kd).std(ddof=1)
    for gain in (0.001, 0.004):  # many seeds, so that the mistakes end at different numbers
        answer, problem = number(called(function, {name: list(scores) for name, scores in ARMS.items()}, gain))
        if problem:
            return problem
        right = _fewest(spread, gain)
        if problem := compare(answer, right, _wrong_numbers_of_seeds(base, kd, wsd, gain)):
            return problem.replace("on a small example it gives", f"for a gain of {gain:g} it gives")
    return None


def _wrong_numbers_of_seeds(base: np.ndarray, kd: np.ndarray, wsd: np.ndarray, gain: float) -> dict[float, str]:
    """What the classic mistakes make of the number of seeds, where it differs from the right one."""
    d, n = wsd - kd, len(wsd)
    spread = d.std(ddof=1)
    wrong = {
        _fewest(spread, gain) - 1: "that is one seed too few: its interval is still wider than ± gain",
        _fewest(spread, gain) + 1: "that is one seed too many: one fewer is enough already",
        _fewest(spread, gain, lambda n: 1.96): "it takes 1.96, which is for many seeds: with n, take Student's t with "
        "n − 1 degrees of freedom",
        _fewest(spread, gain, lambda n: student_t.ppf(0.975, 4)): "it keeps the t of the seeds that are there: t is "
        "smaller with more seeds, so compute it again for each n, with n − 1 degrees of freedom",
        _fewest(spread, gain, lambda n: student_t.ppf(0.95, n - 1)): "it takes the quantile at 0.95, for a 90 % "
        "interval: 2.5 % are left out on each side",
        _fewest(d.std(), gain): "the standard deviation divides by n: take n − 1 (ddof=1)",
        _fewest((wsd - base).std(ddof=1), gain): "it takes the differences to the baseline: a plain teacher is the "
        "control here",
        _fewest(wsd.std(ddof=1), gain): "it takes the spread of one arm: seeds differ more than the two arms do, so "
        "take the differences, seed by seed",
        _fewest(math.sqrt(wsd.var(ddof=1) + kd.var(ddof=1)), gain): "it adds the spreads of both arms, as if the "
        "seeds "
        "were not paired: take the differences, seed by seed",
        _fewest(spread / math.sqrt(n), gain): "it divides the spread by √5 first, and then again by √n",
        _fewest(spread, 2 * gain): "the whole interval is at most 2 · gain wide here: ± gain means gain to each side",
        _fewest(spread, gain / 2): "the whole interval is made as wide as gain: ± gain means gain to each side",
    }
    return {float(seeds): sentence for seeds, sentence in reversed(wrong.items())}


def _fewest(spread: float, reach: float, quantile=lambda n: student_t.ppf(0.975, n - 1)) -> int:
    """The smallest n from 2 on for which quantile(n) · spread / √n is at most `reach`."""
    return next(n for n in count(2) if quantile(n) * spread / math.sqrt(n) <= reach)
