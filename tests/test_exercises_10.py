"""Lesson 10's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from torch.nn import functional as F
from torchvision.ops import box_iou

from udlib.course.exercises import NotAttempted
from udlib.course.exercises.lesson_10 import (
    feature_loss,
    intersection_over_union,
    loss_of_the_student,
    probability_of_an_image,
    seeds_that_detect,
)
from udlib.methods.detection.losses import prediction_transfer_loss, region_feature_loss, region_probabilities

CHECKS = [probability_of_an_image, intersection_over_union, feature_loss, loss_of_the_student, seeds_that_detect]


def iou(a, b, clip=True, below=lambda A, B, I: A + B - I, more=0.0):
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + more for k in (0, 1)]
    if clip:
        sides = [max(side, 0) for side in sides]
    areas = [(box[2] - box[0] + more) * (box[3] - box[1] + more) for box in (a, b)]
    return sides[0] * sides[1] / below(*areas, sides[0] * sides[1])


def p(Mc, Md, first=1, second=0, end=lambda s: s.sum(0)):
    return end(Mc.softmax(first) * Md.softmax(second))


def features(
    teacher,
    student,
    image,
    images,
    detach=True,
    norm=lambda d: d.square().sum(1),
    factor=0.5,
    over=lambda d, image, images: sum(d[image == b].mean() for b in range(images)) / images,
):
    return factor * over(norm((teacher.detach() if detach else teacher) - student), image, images)


def wsd(
    z,
    a,
    y,
    q,
    label=lambda z, a: z,
    taught=lambda z, a: a * z,
    over=lambda loss: loss.sum(1).mean(),
    detach=True,
    answer=lambda q: q,
):
    def bce(logits, targets):
        return over(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"))

    return bce(label(z, a), y) + bce(taught(z, a), answer(q.detach() if detach else q))


def seeds(spread=None, quantile=lambda n: student_t.ppf(0.975, n - 1), more=0, factor=1):
    def function(arms, gain):
        s = np.subtract(arms["WSD"], arms["KD"]).std(ddof=1) if spread is None else spread(arms)
        return next(n for n in range(2, 9999) if quantile(n) * s / n**0.5 <= factor * gain) + more

    return function


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (probability_of_an_image, p),
        (probability_of_an_image, lambda c, d: p(c, d).tolist()),
        (
            probability_of_an_image,
            lambda c, d: region_probabilities(c, d, torch.zeros(len(c), dtype=torch.int64), 1).sum(0),
        ),
        (probability_of_an_image, lambda c, d: torch.einsum("rk,rk->k", c.softmax(-1), d.softmax(0)).numpy()),
        (intersection_over_union, iou),
        (intersection_over_union, lambda a, b: box_iou(torch.tensor([a]), torch.tensor([b]))[0, 0]),
        (intersection_over_union, lambda a, b: float(iou(np.array(a), np.array(b)))),
        (feature_loss, features),
        (feature_loss, region_feature_loss),
        (loss_of_the_student, wsd),
        (loss_of_the_student, lambda z, a, y, q: prediction_transfer_loss(z, a * z, y, torch.logit(q))["total"]),
        (seeds_that_detect, seeds()),
        (seeds_that_detect, lambda arms, gain: np.int64(seeds()(arms, gain))),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


@pytest.mark.parametrize(
    "check_of, answer, words",
    [
        (probability_of_an_image, lambda c, d: p(c, d, 0, 1), "exchanged"),
        (probability_of_an_image, lambda c, d: p(c, d, 1, 1), "both softmaxes run over classes"),
        (probability_of_an_image, lambda c, d: p(c, d, 0, 0), "both softmaxes run over the boxes"),
        (probability_of_an_image, lambda c, d: p(c, d, end=lambda s: s.mean(0)), "mean over the boxes"),
        (probability_of_an_image, lambda c, d: p(c, d, end=lambda s: s.amax(0)), "the best box alone"),
        (probability_of_an_image, lambda c, d: (c.sigmoid() * d.sigmoid()).sum(0), "sigmoids"),
        (probability_of_an_image, lambda c, d: c.softmax(1).sum(0), "S^d is missing"),
        (probability_of_an_image, lambda c, d: c.softmax(1).mean(0), "plain mean"),
        (probability_of_an_image, lambda c, d: (c * d).softmax(1).sum(0), "one softmax of a product"),
        (probability_of_an_image, lambda c, d: p(c, d).softmax(0), "one softmax too many"),
        (probability_of_an_image, lambda c, d: p(c, d).sum(), "shape ()"),
        (probability_of_an_image, lambda c, d: p(c, d) / 3, "on a small example"),
        (intersection_over_union, lambda a, b: iou(a, b, clip=False), "clip both at 0"),
        (intersection_over_union, lambda a, b: iou(a, b, below=lambda A, B, I: A + B), "counts the intersection twice"),
        (intersection_over_union, lambda a, b: iou(a, b, below=lambda A, B, I: min(A, B)), "the smaller box"),
        (intersection_over_union, lambda a, b: iou(a, b, below=lambda A, B, I: max(A, B)), "the larger box"),
        (intersection_over_union, lambda a, b: iou(a, b, below=lambda A, B, I: A), "the first box"),
        (intersection_over_union, lambda a, b: iou(a, b, below=lambda A, B, I: B), "the second box"),
        (intersection_over_union, lambda a, b: iou(a, b, below=lambda A, B, I: 1), "that is only the intersection"),
        (
            intersection_over_union,
            lambda a, b: iou(a, b, below=lambda A, B, I: A + B - 2 * I),
            "the intersection is subtracted twice",
        ),
        (intersection_over_union, lambda a, b: iou(a, b, more=1), "a pixel is added"),
        (intersection_over_union, lambda a, b: 0.5, "expected"),
        (intersection_over_union, lambda a, b: None, "nothing"),
        (feature_loss, lambda *a: features(*a, over=lambda d, i, n: d.mean()), "a mean over all regions: an image"),
        (feature_loss, lambda *a: features(*a, over=lambda d, i, n: d.mean(), factor=1), "without the half"),
        (feature_loss, lambda *a: features(*a, factor=1), "the half is missing"),
        (feature_loss, lambda *a: features(*a, factor=1.5), "sum over the images"),
        (feature_loss, lambda *a: features(*a, over=lambda d, i, n: d.sum() / n), "divide by their number R_b"),
        (feature_loss, lambda *a: features(*a, over=lambda d, i, n: d.sum()), "sum over regions and images"),
        (feature_loss, lambda *a: features(*a, norm=lambda d: d.square().mean(1)), "a mean over the features"),
        (feature_loss, lambda *a: features(*a, norm=lambda d: d.norm(dim=1)), "not squared"),
        (feature_loss, lambda *a: features(*a, detach=False), "detach its features"),
        (feature_loss, lambda *a: features(*a).item(), "no gradient"),
        (feature_loss, lambda t, s, i, n: features(t, s.detach(), i, n) + 0 * t.sum(), "no gradient"),
        (loss_of_the_student, lambda *a: wsd(*a, taught=lambda z, a: z), "the scale a is missing"),
        (loss_of_the_student, lambda *a: wsd(*a, label=lambda z, a: a * z), "at both terms"),
        (loss_of_the_student, lambda *a: wsd(*a, label=lambda z, a: a * z, taught=lambda z, a: z), "at the wrong term"),
        (loss_of_the_student, lambda *a: wsd(*a, over=torch.mean), "both are means over classes"),
        (loss_of_the_student, lambda *a: wsd(*a, over=torch.sum), "sum over the images"),
        (loss_of_the_student, lambda *a: wsd(*a) / 2, "half of it"),
        (loss_of_the_student, lambda *a: wsd(*a, detach=False), "detach q"),
        (loss_of_the_student, lambda *a: wsd(*a, answer=lambda q: (q > 0.5).double()), "rounded to 0 and 1"),
        (
            loss_of_the_student,
            lambda *a: wsd(*a, answer=lambda q: torch.sigmoid(2 * torch.logit(q))),
            "on a small example",
        ),
        (loss_of_the_student, lambda *a: wsd(*a, taught=lambda z, a: z / a), "divides by a"),
        (loss_of_the_student, lambda z, a, y, q: wsd(z, a.detach(), y, q), "it is trained"),
        (
            loss_of_the_student,
            lambda z, a, y, q: wsd(z, a, y, q, taught=lambda z, a: a * z.detach()),
            "its gradient is not",
        ),
        (loss_of_the_student, lambda *a: wsd(*a).item(), "no gradient"),
        (
            loss_of_the_student,
            lambda z, a, y, q: F.binary_cross_entropy_with_logits(z, y, reduction="none").sum(1).mean(),
            "teacher's term is missing",
        ),
        (
            loss_of_the_student,
            lambda z, a, y, q: F.binary_cross_entropy_with_logits(a * z, q, reduction="none").sum(1).mean(),
            "labels' term is missing",
        ),
        (seeds_that_detect, seeds(more=-1), "one seed too few"),
        (seeds_that_detect, seeds(more=1), "one seed too many"),
        (seeds_that_detect, seeds(quantile=lambda n: 1.96), "1.96"),
        (seeds_that_detect, seeds(quantile=lambda n: student_t.ppf(0.975, 4)), "the seeds that are there"),
        (seeds_that_detect, seeds(quantile=lambda n: student_t.ppf(0.95, n - 1)), "90 %"),
        (seeds_that_detect, seeds(lambda arms: np.subtract(arms["WSD"], arms["KD"]).std()), "ddof=1"),
        (
            seeds_that_detect,
            seeds(lambda arms: np.subtract(arms["WSD"], arms["baseline"]).std(ddof=1)),
            "is the control",
        ),
        (seeds_that_detect, seeds(lambda arms: np.std(arms["WSD"], ddof=1)), "the spread of one arm"),
        (
            seeds_that_detect,
            seeds(lambda arms: (np.var(arms["WSD"], ddof=1) + np.var(arms["KD"], ddof=1)) ** 0.5),
            "not paired",
        ),
        (
            seeds_that_detect,
            seeds(lambda arms: np.subtract(arms["WSD"], arms["KD"]).std(ddof=1) / 5**0.5),
            "by √5 first",
        ),
        (seeds_that_detect, seeds(factor=0.5), "as wide as gain"),
        (seeds_that_detect, lambda arms, gain: 500, "for a gain of 0.001 it gives 500, expected"),
    ],
)
def test_a_mistake_is_named(check_of, answer, words):
    assert words in check_of(answer)


@pytest.mark.parametrize("check_of", CHECKS)
def test_an_open_exercise_counts_as_not_attempted(check_of):
    with pytest.raises(NotAttempted):
        check_of(lambda *arguments: ...)
