"""Lesson 07's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from udlib import losses
from udlib.course.exercises import NotAttempted
from udlib.course.exercises.lesson_07 import attention_term, distillation_totals, weight_of_a_share
from udlib.losses import attention_loss, bernoulli_kl, softmax_kl, uncertainty_distillation_loss

CHECKS = [attention_term, distillation_totals, weight_of_a_share]


def resized(teacher, student, **options):
    options = {"mode": "bilinear"} | options
    return F.interpolate(teacher[:, None], size=student.shape[1:], **options)[:, 0]


def with_channel(teacher, student):
    return F.interpolate(teacher[:, None], size=student.shape[1:], mode="bilinear")


def by_images(teacher, student):
    gaps = resized(teacher, student) - student
    return torch.stack([torch.linalg.norm(gap) for gap in gaps]).mean()


def terms(t, s, t_map, s_map, constant=lambda part: part.detach()):
    """The three terms of each image."""
    return (
        bernoulli_kl(constant(t.logits), s.logits, reduction="none"),
        softmax_kl(constant(t.calibration_logits), s.calibration_logits, reduction="none"),
        attention_loss(constant(t_map), s_map, reduction="none"),
    )


def assembled(teacher, student, alpha, beta, teacher_map, student_map):
    b, c, a = terms(teacher, student, teacher_map, student_map)
    return b + alpha * c + beta * a


def image_by_image(teacher, student, alpha, beta, teacher_map, student_map):
    """The library's total of one image at a time."""

    def one(network, k):
        return SimpleNamespace(
            logits=network.logits[k : k + 1], calibration_logits=network.calibration_logits[k : k + 1]
        )

    return torch.stack(
        [
            uncertainty_distillation_loss(
                one(teacher, k), one(student, k), alpha, beta, teacher_map[k : k + 1], student_map[k : k + 1]
            )["total"]
            for k in range(len(teacher_map))
        ]
    )


def beta_of(pull_b, pull_ps, pull_att, alpha, share):
    return share / (1 - share) * (pull_b.mean() + alpha * pull_ps.mean()) / pull_att.mean()


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (attention_term, attention_loss),
        (attention_term, by_images),
        (attention_term, lambda t, s: torch.linalg.matrix_norm(resized(t.detach(), s) - s).mean()),
        (distillation_totals, assembled),
        (distillation_totals, image_by_image),
        (weight_of_a_share, beta_of),
        (weight_of_a_share, lambda *a: torch.tensor(beta_of(*a))),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda t, s: attention_loss(t, s, scale="released"), "mean over all cells"),
        (lambda t, s: attention_loss(t, s, reduction="none").square().mean(), "norm squared"),
        (lambda t, s: (resized(t, s) - s).square().mean((1, 2)).sqrt().mean(), "number of cells"),
        (lambda t, s: (resized(t, s) - s).norm(), "whole batch"),
        (lambda t, s: attention_loss(t, s, reduction="none").sum(), "sums over the images"),
        (lambda t, s: (resized(t, s) - s).abs().sum((1, 2)).mean(), "absolute"),
        (lambda t, s: (resized(t, s) - s).sum((1, 2)).abs().mean(), "cancel"),
        (lambda t, s: torch.linalg.matrix_norm(resized(t, s) - s, 2).mean(), "spectral"),
        (lambda t, s: (t - resized(s, t)).flatten(1).norm(dim=1).mean(), "the student's map was resized"),
        (lambda t, s: attention_loss(resized(t, s, mode="nearest"), s), "nearest"),
        (lambda t, s: attention_loss(resized(t, s, align_corners=True), s), "align_corners"),
        (lambda t, s: attention_loss(t[:, :3, :3], s), "cuts"),
        (lambda t, s: (resized(t, s) - s).square().sum((1, 2)).sqrt().mean(), "NaN"),
        (lambda t, s: attention_loss(t, s.detach()), "no gradient"),
        (lambda t, s: attention_loss(t, s).item(), "no gradient"),
        (lambda t, s: attention_loss(t, s, reduction="none"), "single number"),
        (lambda t, s: attention_loss(t, s, normalize=True), "normalised first"),
        (lambda t, s: attention_loss(t, s, normalize="l2"), "normalised first"),
        (lambda t, s: F.l1_loss(s, resized(t, s)), "an L1 loss"),
        (lambda t, s: (resized(t, s) - s).norm(dim=2).mean(), "norm of each row"),
        (lambda t, s: (resized(t, s) - s).norm(dim=2).sum(1).mean(), "norm of each row"),
        (lambda t, s: (1 - F.cosine_similarity(resized(t, s).flatten(1), s.flatten(1))).mean(), "cosine distance"),
        (lambda t, s: F.cosine_similarity(resized(t, s).flatten(1), s.flatten(1)).mean(), "this is a cosine"),
        (lambda t, s: (resized(t, s).mean((1, 2)) - s.mean((1, 2))).abs().mean(), "pooled to one number"),
        (lambda t, s: (resized(t, s).mean((1, 2)) - s.mean((1, 2))).norm(), "pooled to one number"),
        (lambda t, s: F.mse_loss(resized(t, s), s).sqrt(), "all cells of all images"),
        (lambda t, s: (with_channel(t, s) - s).flatten(1).norm(dim=1).mean(), "take the channel dimension"),
        (lambda t, s: (with_channel(t, s) - s).norm(dim=(1, 2)).mean(), "take the channel dimension"),
        (lambda t, s: (with_channel(t, s) - s).norm(dim=(2, 3)).mean(), "take the channel dimension"),
        (lambda t, s: torch.cdist(resized(t, s).flatten(1), s.flatten(1)).mean(), "the student's maps of *all* images"),
        (lambda t, s: attention_loss(resized(t, s, mode="area"), s), "averages blocks of cells"),
        (lambda t, s: (t - s).flatten(1).norm(dim=1).mean(), "5 x 5 cells and the student's 3 x 3: resize"),
        (lambda t, s: attention_loss(t[:, :3, :3], s), "with a teacher's map of 5 x 5 cells"),
        (lambda t, s: 1.5 * attention_loss(t, s), "expected"),
    ],
)
def test_each_mistake_about_the_attention_term_is_named(answer, words):
    assert words in attention_term(answer)


def mixed(build, **options):
    """An answer that weighs the three terms its own way: `build(classification, calibration, attention, α, β)`."""
    return lambda t, s, alpha, beta, *maps: build(*terms(t, s, *maps, **options), alpha, beta)


def leaking(which):
    def function(t, s, alpha, beta, t_map, s_map):
        leaves = {"logits": t.logits, "calibration": t.calibration_logits, "map": t_map}
        through = leaves[which]
        b, c, a = terms(t, s, t_map, s_map, lambda part: part if part is through else part.detach())
        return b + alpha * c + beta * a

    return function


def eq_18(b, c, a, alpha, beta):
    return b + alpha * c + beta * a


def with_attention(attention):
    """Eq. 18 with another attention term: `attention(teacher_map, student_map)`."""

    def function(t, s, alpha, beta, t_map, s_map):
        b, c, _ = terms(t, s, t_map, s_map)
        return b + alpha * c + beta * attention(t_map.detach(), s_map)

    return function


def with_classification(classification):
    """Eq. 18 with another first term: `classification(teacher_logits, student_logits)`."""

    def function(t, s, alpha, beta, t_map, s_map):
        _, c, a = terms(t, s, t_map, s_map)
        return classification(t.logits.detach(), s.logits) + alpha * c + beta * a

    return function


def reversed_kl(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(s.logits, t.logits.detach(), reduction="none")
        + alpha * softmax_kl(s.calibration_logits, t.calibration_logits.detach(), reduction="none")
        + beta * attention_loss(t_map.detach(), s_map, reduction="none")
    )


def crossed(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(t.calibration_logits, s.calibration_logits, reduction="none")
        + alpha * softmax_kl(t.logits, s.logits, reduction="none")
        + beta * attention_loss(t_map, s_map, reduction="none")
    )


def wrong_student(t, s, alpha, beta, t_map, s_map):
    cut = SimpleNamespace(logits=s.logits, calibration_logits=s.calibration_logits.detach())
    return assembled(t, cut, alpha, beta, t_map, s_map)


def with_distribution(distribution):
    """Eq. 18 with another second term: `distribution(teacher, student)`, of the two networks' answers."""

    def function(t, s, alpha, beta, t_map, s_map):
        b, _, a = terms(t, s, t_map, s_map)
        fixed = SimpleNamespace(logits=t.logits.detach(), calibration_logits=t.calibration_logits.detach())
        return b + alpha * distribution(fixed, s) + beta * a

    return function


def one_sided(t, s):
    return F.kl_div(F.logsigmoid(s), t.sigmoid(), reduction="none").mean(1)


def in_place(change):
    """Eq. 18 of tensors that are made constant themselves."""

    def function(t, s, alpha, beta, t_map, s_map):
        for part in (t.logits, t.calibration_logits, t_map):
            change(part)
        return mixed(eq_18, constant=lambda part: part)(t, s, alpha, beta, t_map, s_map)

    return function


def constant_student(t, s, alpha, beta, t_map, s_map):
    cut = SimpleNamespace(logits=s.logits.detach(), calibration_logits=s.calibration_logits.detach())
    return mixed(eq_18, constant=lambda part: part)(t, cut, alpha, beta, t_map, s_map.detach())


def calibration_twice(t, s, alpha, beta, t_map, s_map):
    b = bernoulli_kl(t.calibration_logits.detach(), s.calibration_logits, reduction="none")
    _, c, a = terms(t, s, t_map, s_map)
    return b + alpha * c + beta * a


def soft_bce(t, s):
    return F.binary_cross_entropy_with_logits(s, torch.sigmoid(t), reduction="none")


@pytest.mark.parametrize(
    "answer, words",
    [
        (
            mixed(eq_18, constant=lambda part: part),
            "a gradient flows into the teacher's logits and the teacher's calibration logits and the teacher's map",
        ),
        (leaking("logits"), "into the teacher's logits:"),
        (leaking("calibration"), "into the teacher's calibration logits:"),
        (leaking("map"), "into the teacher's map:"),
        (wrong_student, "no gradient reaches the student's calibration logits"),
        (mixed(lambda b, c, a, alpha, beta: b + beta * c + alpha * a), "swapped"),
        (mixed(lambda b, c, a, alpha, beta: alpha * b + c + beta * a), "α stands on the wrong term"),
        (mixed(lambda b, c, a, alpha, beta: alpha * b + beta * c + a), "wrong terms"),
        (mixed(lambda b, c, a, alpha, beta: b + alpha * (c + beta * a)), "β alone"),
        (mixed(lambda b, c, a, alpha, beta: b + c + a), "not weighted"),
        (mixed(lambda b, c, a, alpha, beta: b + alpha * c), "attention term (Eq. 17) is missing"),
        (mixed(lambda b, c, a, alpha, beta: b + beta * a), "calibration term (Eq. 14) is missing"),
        (mixed(lambda b, c, a, alpha, beta: alpha * c + beta * a), "classification term (Eq. 13) is missing"),
        (mixed(lambda b, c, a, alpha, beta: (1 - alpha) * b + alpha * c + beta * a), "not 1 − α"),
        (mixed(lambda b, c, a, alpha, beta: (1 - alpha - beta) * b + alpha * c + beta * a), "not 1 − α − β"),
        (mixed(lambda b, c, a, alpha, beta: 4 * b + alpha * c + beta * a), "sums Eq. 13 over the classes"),
        (mixed(lambda b, c, a, alpha, beta: b + alpha * c / 4 + beta * a), "mean of Eq. 14 over the classes"),
        (mixed(lambda b, c, a, alpha, beta: 3 * b + c), "expected"),
        (with_attention(lambda t, s: attention_loss(t, s, reduction="none") ** 2), "squared"),
        (with_attention(lambda t, s: (t - s).square().mean((1, 2))), "mean over all cells"),
        (with_attention(lambda t, s: losses.attention_loss(t, s, scale="released")), "cells of all images"),
        (with_attention(lambda t, s: (t - s).norm()), "one norm over the whole batch"),
        (with_attention(attention_loss), "the same number for every image"),
        (with_classification(lambda t, s: soft_bce(t, s).mean(1)), "cross-entropy with soft targets"),
        (with_classification(lambda t, s: soft_bce(t, s).sum(1)), "cross-entropy with soft targets"),
        (with_classification(bernoulli_kl), "the same number for every image"),
        (reversed_kl, "wrong way"),
        (crossed, "branches are swapped"),
        (mixed(lambda b, c, a, alpha, beta: b + 0.5 * c + 0.5 * a), "are 0.5 here"),
        (mixed(lambda b, c, a, alpha, beta: (b + alpha * c + beta * a) / 3), "divided by the number of images"),
        (mixed(lambda b, c, a, alpha, beta: (b + alpha * c + beta * a).sum()), "this is the sum over the images"),
        (with_classification(lambda t, s: softmax_kl(t, s, reduction="none")), "a sigmoid for each class"),
        (with_classification(lambda t, s: bernoulli_kl(t.sigmoid(), s.sigmoid(), reduction="none")), "take logits"),
        (calibration_twice, "take `logits` there"),
        (with_classification(one_sided), "the part of 1 − p is missing"),
        (
            with_distribution(lambda t, s: softmax_kl(t.logits, s.logits, reduction="none")),
            "`calibration_logits` there",
        ),
        (
            with_distribution(
                lambda t, s: softmax_kl(
                    t.calibration_logits.softmax(1), s.calibration_logits.softmax(1), reduction="none"
                )
            ),
            "take logits",
        ),
        (in_place(lambda part: part.requires_grad_(False)), "it changes the tensors that it was given"),
        (in_place(lambda part: part.detach_()), "it changes the tensors that it was given"),
        (constant_student, "it is the other way round"),
        (lambda *a: list(assembled(*a)), "a list: join its tensors to one"),
        (lambda *a: torch.tensor(assembled(*a).tolist()), "torch.tensor(…)"),
        (lambda *a: uncertainty_distillation_loss(*a), "a dict"),
        (lambda *a: uncertainty_distillation_loss(*a)["total"], "mean over the images"),
        (lambda *a: assembled(*a)[:2], "one for each image"),
        (lambda *a: assembled(*a).detach(), "no gradient"),
        (lambda *a: assembled(*a).tolist(), "no gradient can flow through a list"),
    ],
)
def test_each_mistake_about_eq_18_is_named(answer, words):
    assert words in distillation_totals(answer)


def pulls(build):
    """A β made from the mean pulls: `build(b, ps, att, alpha, share)`."""
    return lambda b, ps, att, alpha, share: build(b.mean(), ps.mean(), att.mean(), alpha, share)


@pytest.mark.parametrize(
    "answer, words",
    [
        (pulls(lambda b, ps, att, alpha, share: share * (b + alpha * ps) / att), "what the other two pull"),
        (pulls(lambda b, ps, att, alpha, share: share / (1 - share) * (b + ps) / att), "α is missing"),
        (pulls(lambda b, ps, att, alpha, share: share / (1 - share) * b / att), "calibration term is missing"),
        (pulls(lambda b, ps, att, alpha, share: share / (1 - share) * (b + alpha * ps) * att), "multiplies"),
        (pulls(lambda b, ps, att, alpha, share: share / (1 - share) * (1 + alpha)), "share of the weights"),
        (pulls(lambda b, ps, att, alpha, share: share), "the share itself"),
        (pulls(lambda b, ps, att, alpha, share: (1 - share) / share * (b + alpha * ps) / att), "upside down"),
        (pulls(lambda b, ps, att, alpha, share: (b + alpha * ps) / att), "half of the pull"),
        (lambda b, ps, att, alpha, share: share / (1 - share) * ((b + alpha * ps) / att).mean(), "a mean of ratios"),
        (pulls(lambda b, ps, att, alpha, share: share * (b + alpha * ps + att) / att), "weight 1 in this sum"),
        (pulls(lambda b, ps, att, alpha, share: share * (b + ps + att) / att), "not weighted in their sum"),
        (pulls(lambda b, ps, att, alpha, share: share / (1 + share) * (b + alpha * ps) / att), "wrong sign"),
        (pulls(lambda b, ps, att, alpha, share: share / (1 - share) * (b + 0.5 * ps) / att), "α is 0.5 here"),
        (pulls(lambda b, ps, att, alpha, share: beta_of(b, ps, att, alpha, share / 100)), "not per cent"),
        (pulls(lambda b, ps, att, alpha, share: 1 / beta_of(b, ps, att, alpha, share)), "this is 1/β"),
        (pulls(lambda b, ps, att, alpha, share: share / (1 - share)), "divide by its length"),
        (pulls(lambda b, ps, att, alpha, share: 1.5), "expected"),
    ],
)
def test_each_mistake_about_the_share_of_the_pull_is_named(answer, words):
    assert words in weight_of_a_share(answer)


def test_at_this_weight_the_attention_has_the_share_that_was_asked_for():
    b, ps, att = np.array([0.2, 0.4]), np.array([1.0, 3.0]), np.array([5.0, 6.0])
    pulled = np.array([b.mean(), 0.5 * ps.mean(), beta_of(b, ps, att, 0.5, 0.2) * att.mean()])
    assert np.isclose(pulled[2] / pulled.sum(), 0.2)


@pytest.mark.parametrize("check_of", CHECKS)
def test_an_answer_with_dots_in_it_counts_as_not_attempted(check_of):
    with pytest.raises(NotAttempted):
        check_of(lambda *a: ...)


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize("value", [None, "0.5", torch.zeros(3, 4), 7.0, object()])
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value):
    said = check_of(lambda *arguments: value)
    assert isinstance(said, str) and any(words in said for words in ("return", "expected", "gradient"))
