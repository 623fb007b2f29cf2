"""Lesson 07's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from torch.nn import functional as F

from udlib import losses
from udlib.course.exercises import NotAttempted
from udlib.course.exercises.lesson_07 import attention_term, distillation_total, paired_interval, weight_from_validation
from udlib.losses import attention_loss, bernoulli_kl, softmax_kl, uncertainty_distillation_loss
from udlib.statistics import paired_difference

CHECKS = [attention_term, distillation_total, paired_interval, weight_from_validation]


def resized(teacher, student, **options):
    options = {"mode": "bilinear"} | options
    return F.interpolate(teacher[:, None], size=student.shape[1:], **options)[:, 0]


def by_images(teacher, student):
    gaps = resized(teacher, student) - student
    return torch.stack([torch.linalg.norm(gap) for gap in gaps]).mean()


def assembled(teacher, student, alpha, beta, teacher_map, student_map, form=lambda total: total):
    total = bernoulli_kl(teacher.logits.detach(), student.logits)
    total = total + alpha * softmax_kl(teacher.calibration_logits.detach(), student.calibration_logits)
    return form(total + beta * attention_loss(teacher_map.detach(), student_map))


def by_library(teacher, student, alpha, beta, teacher_map, student_map):
    return uncertainty_distillation_loss(teacher, student, alpha, beta, teacher_map, student_map)


def interval(form=tuple, kind=float):
    def function(ours, theirs):
        found = paired_difference(ours, theirs)
        return form([*map(kind, found[:3]), found.verdict])

    return function


def by_formula(ours, theirs, quantile=lambda n: student_t.ppf(0.975, n - 1), ddof=1, root=np.sqrt, verdict=None):
    d = np.subtract(ours, theirs)
    half = quantile(len(d)) * d.std(ddof=ddof) / root(len(d))
    low, high = d.mean() - half, d.mean() + half
    told = "higher" if low > 0 else "lower" if high < 0 else "not detected"
    return d.mean(), low, high, told if verdict is None else verdict(d.mean(), told)


def choose(by="val", report="test", of=np.mean, pick=max, told=np.mean, form=tuple):
    def function(val, test):
        splits = {"val": val, "test": test}
        alpha = pick(val, key=lambda a: of(splits[by][a]))
        return form([alpha, told(splits[report][alpha])])

    return function


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (attention_term, attention_loss),
        (attention_term, by_images),
        (attention_term, lambda t, s: torch.linalg.matrix_norm(resized(t.detach(), s) - s).mean()),
        (distillation_total, assembled),
        (distillation_total, by_library),
        (distillation_total, lambda *a: assembled(*a, form=lambda total: {"total": total})),
        (distillation_total, lambda *a: assembled(*a, form=lambda total: total[None])),
        (paired_interval, interval()),
        (paired_interval, interval(list, np.float64)),
        (paired_interval, interval(kind=torch.tensor)),
        (paired_interval, by_formula),
        (weight_from_validation, choose()),
        (weight_from_validation, choose(form=list)),
        (weight_from_validation, choose(told=lambda seeds: torch.tensor(np.mean(seeds)))),
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
        (lambda t, s: attention_loss(t[:, :4, :4], s), "cuts"),
        (lambda t, s: (resized(t, s) - s).square().sum((1, 2)).sqrt().mean(), "NaN"),
        (lambda t, s: attention_loss(t, s.detach()), "no gradient"),
        (lambda t, s: attention_loss(t, s).item(), "no gradient"),
        (lambda t, s: attention_loss(t, s, reduction="none"), "single number"),
        (lambda t, s: attention_loss(t, s, normalize=True), "expected"),
    ],
)
def test_each_mistake_about_the_attention_term_is_named(answer, words):
    assert words in attention_term(answer)


def mixed(build):
    """An answer that weighs the three terms its own way: `build(classification, calibration, attention, α, β)`."""

    def function(t, s, alpha, beta, t_map, s_map):
        return build(
            bernoulli_kl(t.logits.detach(), s.logits),
            softmax_kl(t.calibration_logits.detach(), s.calibration_logits),
            attention_loss(t_map.detach(), s_map),
            alpha,
            beta,
        )

    return function


def leaking(which):
    def function(t, s, alpha, beta, t_map, s_map):
        parts = {"logits": t.logits, "calibration": t.calibration_logits, "map": t_map}
        parts = {name: part if name == which else part.detach() for name, part in parts.items()}
        return (
            bernoulli_kl(parts["logits"], s.logits)
            + alpha * softmax_kl(parts["calibration"], s.calibration_logits)
            + beta * attention_loss(parts["map"], s_map)
        )

    return function


def undetached(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(t.logits, s.logits)
        + alpha * softmax_kl(t.calibration_logits, s.calibration_logits)
        + beta * attention_loss(t_map, s_map)
    )


def reversed_kl(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(s.logits, t.logits.detach())
        + alpha * softmax_kl(s.calibration_logits, t.calibration_logits.detach())
        + beta * attention_loss(t_map.detach(), s_map)
    )


def crossed(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(t.calibration_logits, s.calibration_logits)
        + alpha * softmax_kl(t.logits, s.logits)
        + beta * attention_loss(t_map, s_map)
    )


def squared(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(t.logits, s.logits)
        + alpha * softmax_kl(t.calibration_logits, s.calibration_logits)
        + beta * attention_loss(t_map, s_map, reduction="none").square().mean()
    )


def over_cells(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(t.logits, s.logits)
        + alpha * softmax_kl(t.calibration_logits, s.calibration_logits)
        + beta * losses.attention_loss(t_map, s_map, scale="released")
    )


def wrong_student(t, s, alpha, beta, t_map, s_map):
    return (
        bernoulli_kl(t.logits.detach(), s.logits)
        + alpha * softmax_kl(t.calibration_logits.detach(), s.calibration_logits.detach())
        + beta * attention_loss(t_map.detach(), s_map)
    )


@pytest.mark.parametrize(
    "answer, words",
    [
        (
            undetached,
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
        (mixed(lambda b, c, a, alpha, beta: (1 - alpha) * b + alpha * c + beta * a), "1 − α"),
        (mixed(lambda b, c, a, alpha, beta: 6 * b + alpha * c + beta * a), "mean over the classes"),
        (mixed(lambda b, c, a, alpha, beta: b + alpha * c / 6 + beta * a), "sums over the classes"),
        (mixed(lambda b, c, a, alpha, beta: 3 * b + c), "expected"),
        (squared, "squared"),
        (over_cells, "mean over all cells"),
        (reversed_kl, "wrong way"),
        (crossed, "branches are swapped"),
        (lambda *a: {"attention": 1.0}, "total"),
        (lambda *a: assembled(*a).detach(), "no gradient"),
        (lambda *a: assembled(*a).item(), "no gradient"),
    ],
)
def test_each_mistake_about_eq_18_is_named(answer, words):
    assert words in distillation_total(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda a, b: by_formula(a, b, quantile=lambda n: 1.96), "1.96"),
        (lambda a, b: by_formula(a, b, quantile=lambda n: 2), "uses 2"),
        (lambda a, b: by_formula(a, b, quantile=lambda n: student_t.ppf(0.95, n - 1)), "90 %"),
        (lambda a, b: by_formula(a, b, quantile=lambda n: student_t.ppf(0.975, n)), "degrees of freedom"),
        (lambda a, b: by_formula(a, b, quantile=lambda n: 1), "standard error"),
        (lambda a, b: by_formula(a, b, quantile=lambda n: 0), "mean itself"),
        (lambda a, b: by_formula(a, b, root=lambda n: 1), "square root of n is missing"),
        (lambda a, b: by_formula(a, b, root=lambda n: n), "divides by n: the standard error"),
        (lambda a, b: by_formula(a, b, ddof=0), "ddof=1"),
        (lambda a, b: by_formula(b, a), "ours minus theirs"),
        (
            lambda a, b: by_formula(a, b, verdict=lambda mean, told: "higher" if mean > 0 else "lower"),
            "sign of the mean alone",
        ),
        (lambda a, b: by_formula(a, b, verdict=lambda mean, told: "not detected"), "leaves out 0"),
        (lambda a, b: by_formula(a, b, verdict=lambda mean, told: "lower"), "names the other"),
        (lambda a, b: by_formula(a, b, verdict=lambda mean, told: "yes"), "expected one of"),
        (lambda a, b: (*by_formula(a, b)[:2], 1.0, "higher"), "same distance"),
        (lambda a, b: (0.5, 0.4, 0.6, "higher"), "mean difference is"),
        (lambda a, b: (sum(a) - sum(b), 0.0, 1.0, "higher"), "added up"),
        (lambda a, b: (by_formula(a, b)[0], *by_formula(a, b)[2:0:-1], "higher"), "low lies above high"),
        (lambda a, b: by_formula(a, b)[:3], "four things"),
        (lambda a, b: ("big", 0.0, 1.0, "higher"), "not a number"),
    ],
)
def test_each_mistake_about_the_interval_is_named(answer, words):
    assert words in paired_interval(answer)


def test_an_interval_that_ignores_the_pairs_is_named():
    def welch(ours, theirs):
        a, b = np.array(ours), np.array(theirs)
        half = student_t.ppf(0.975, 2 * len(a) - 2) * np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
        middle = a.mean() - b.mean()
        return middle, middle - half, middle + half, "not detected"

    assert "ignores the pairs" in paired_interval(welch)


@pytest.mark.parametrize(
    "answer, words",
    [
        (choose(by="test"), "chosen on the test images"),
        (choose(of=max), "best single seed"),
        (choose(pick=min), "lowest"),
        (choose(report="val"), "that of validation"),
        (choose(told=max), "best seed"),
        (choose(told=lambda s: s[0]), "seed 0"),
        (lambda val, test: (0.5, max(np.mean(seeds) for seeds in test.values())), "best of all α"),
        (lambda val, test: (0.7, 0.7), "not tried"),
        (lambda val, test: (0.5, 0.1), "expected"),
        (lambda val, test: 0.5, "pair"),
        (lambda val, test: ("0,5", 0.7), "not a number"),
    ],
)
def test_each_mistake_about_choosing_alpha_is_named(answer, words):
    assert words in weight_from_validation(answer)


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (paired_interval, lambda *a: (0.1, ..., ..., "higher")),
        (weight_from_validation, lambda *a: (0.5, ...)),
        (distillation_total, lambda *a: {"total": ...}),
        *[(check_of, lambda *a: ...) for check_of in CHECKS],
    ],
)
def test_an_answer_with_dots_in_it_counts_as_not_attempted(check_of, answer):
    with pytest.raises(NotAttempted):
        check_of(answer)


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize("value", [None, "0.5", torch.zeros(3, 4), 7.0, object()])
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value):
    said = check_of(lambda *arguments: value)
    assert isinstance(said, str) and any(words in said for words in ("return", "expected", "gradient"))
