"""Lesson 05's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from scipy.stats import ttest_ind, ttest_rel
from torch.nn import functional as F

from udlib.course.exercises import NotAttempted
from udlib.course.exercises.lesson_05 import (
    STUDENT,
    T,
    answers_at_another_temperature,
    kl_of_each_class,
    smoothed_targets,
    verdict_from_pairs,
)
from udlib.losses import bernoulli_kl
from udlib.statistics import paired_difference


def divergence(t, s, T=1.0):
    """Of each label, (N, C), without T²."""
    t, s = t / T, s / T
    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    return present + torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))


def kl_by_library(t, s, T):
    """`bernoulli_kl` of one class at a time."""
    return torch.stack([bernoulli_kl(t[:, [c]], s[:, [c]], T) for c in range(t.shape[1])])


def kl_by_torch(t, s, T):
    of_student = torch.stack([F.logsigmoid(s / T), F.logsigmoid(-s / T)])
    of_teacher = torch.stack([F.logsigmoid(t / T), F.logsigmoid(-t / T)])
    return T**2 * F.kl_div(of_student, of_teacher, reduction="none", log_target=True).sum(0).mean(0)


def kl_in_numpy(t, s, T):
    return T**2 * divergence(t, s.detach(), T).numpy().mean(0)


def bce(z, p):
    return F.binary_cross_entropy_with_logits(z, p, reduction="none")


def cross_entropy_minus_entropy(t, s, T):
    p = torch.sigmoid(t / T)
    return T**2 * (bce(s / T, p) - bce(t / T, p)).mean(0)


def verdict(low, high):
    return low, high, "higher" if low > 0 else "lower" if high < 0 else "not detected"


def by_scipy(students, baselines):
    found = ttest_rel(students, baselines).confidence_interval(0.95)
    return verdict(found.low, found.high)


def in_torch(students, baselines):
    d = torch.tensor(students) - torch.tensor(baselines)
    half = student_t.ppf(0.975, len(d) - 1) * d.std() / len(d) ** 0.5
    return [*verdict(d.mean() - half, d.mean() + half)]


def at_one(soft, T):
    return torch.sigmoid(T * torch.logit(soft))


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (kl_of_each_class, kl_by_library),
        (kl_of_each_class, kl_by_torch),
        (kl_of_each_class, cross_entropy_minus_entropy),
        (verdict_from_pairs, by_scipy),
        (verdict_from_pairs, in_torch),
        (verdict_from_pairs, lambda a, b: (*paired_difference(a, b)[1:3], paired_difference(a, b).verdict)),
        (answers_at_another_temperature, at_one),
        (answers_at_another_temperature, lambda q, T: q**T / (q**T + (1 - q) ** T)),
        (answers_at_another_temperature, lambda q, T: (1 / (1 + (1 / q.numpy() - 1) ** T)).tolist()),
        (smoothed_targets, lambda y, v: torch.sigmoid(v * (2 * y.float() - 1))),
        (smoothed_targets, lambda y, v: 1 / (1 + np.exp(-v * (2 * y.numpy() - 1)))),
        (smoothed_targets, lambda y, v: [[1 / (1 + np.exp(-v if k else v)) for k in row] for row in y.tolist()]),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


def by_probabilities(t, s, T, clip=0.0):
    p, q = (torch.sigmoid(z / T).clamp(clip, 1 - clip) for z in (t, s))
    return T**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(0)


def softmax_form(t, s, T):
    return F.kl_div((s / T).log_softmax(1), (t / T).softmax(1), reduction="none")


def p_log_p_over_q(t, s, T):
    p, q = torch.sigmoid(t / T), torch.sigmoid(s / T)
    return p * (p / q).log()


def log_ratio(t, s, T):
    return F.logsigmoid(t / T) - F.logsigmoid(s / T)


def by_weights(present, absent=None):
    """Eq. 13 with other weights of its two halves than p and 1 − p; `present` and `absent` get the teacher's logits."""

    def function(t, s, T):
        p = present(t)
        rest = 1 - p if absent is None else absent(t)
        return T**2 * (p * log_ratio(t, s, T) + rest * log_ratio(-t, -s, T)).mean(0)

    return function


@pytest.mark.parametrize(
    "answer, words",
    [
        (bernoulli_kl, "the mean over the classes too"),
        (lambda t, s, T: bernoulli_kl(t, s, T, reduction="none"), "one number for each image"),
        (lambda t, s, T: bernoulli_kl(t, s, T, over_classes="sum"), "sum over the classes, one number"),
        (lambda t, s, T: bernoulli_kl(t, s, T, None, "none", "sum"), "one number for each image"),
        (lambda t, s, T: T**2 * divergence(t, s, T), "divergence of each label"),
        (lambda t, s, T: T**2 * divergence(t, s, T).sum(0), "sum over the images"),
        (lambda t, s, T: divergence(t, s, T).mean(0), "T² is missing"),
        (lambda t, s, T: T * divergence(t, s, T).mean(0), "T², not T"),
        (lambda t, s, T: -kl_by_library(t, s, T), "never below 0"),
        (lambda t, s, T: kl_by_library(s, t, T), "runs the wrong way"),
        (lambda t, s, T: bernoulli_kl(s, t, T), "runs the wrong way"),
        (lambda t, s, T: divergence(s, t, T).mean(0), "And the factor T² is missing"),
        (lambda t, s, T: divergence(t, s).mean(0), "does nothing"),
        (lambda t, s, T: T**2 * divergence(t, s).mean(0), "does not reach the logits"),
        (lambda t, s, T: T**2 * divergence(t / T, s).mean(0), "teacher's logits only"),
        (lambda t, s, T: T**2 * divergence(t, s / T).mean(0), "student's logits only"),
        (lambda t, s, T: T**2 * divergence(t * T, s * T).mean(0), "multiplies"),
        (lambda t, s, T: T**2 * bce(s / T, torch.sigmoid(t / T)).mean(0), "cross-entropy"),
        (lambda t, s, T: T**2 * p_log_p_over_q(t, s, T).mean(0), "second half"),
        (lambda t, s, T: T**2 * softmax_form(t, s, T).mean(0), "softmax form"),
        (lambda t, s, T: T**2 * softmax_form(t, s, T).sum(1).mean(), "softmax form"),
        (lambda t, s, T: softmax_form(t, s, T).mean(0), "softmax form"),
        (
            lambda t, s, T: T**2 * F.kl_div(F.logsigmoid(t / T), torch.sigmoid(s / T), reduction="none").mean(0),
            "swapped",
        ),
        (lambda t, s, T: F.kl_div(torch.sigmoid(s / T), torch.sigmoid(t / T)), "takes the *log*"),
        (lambda t, s, T: T**2 * F.kl_div(torch.sigmoid(t / T), torch.sigmoid(s / T)), "its arguments are swapped"),
        (lambda t, s, T: F.kl_div(s, t, reduction="none").mean(0), "something that is not a probability"),
        (lambda t, s, T: F.mse_loss(s, t), "squared error of logits"),
        (lambda t, s, T: ((t - s) ** 2 / 8).mean(0), "squared error of logits"),
        (
            lambda t, s, T: ((torch.sigmoid(t / T) - torch.sigmoid(s / T)) ** 2).mean(0),
            "squared error of probabilities",
        ),
        (lambda t, s, T: T**2 * divergence(t, s, T).mean(0, keepdim=True), "keepdim"),
        (lambda t, s, T: T**2 * divergence(t, s, T).mean(0) / 4, "number of classes too"),
        (lambda t, s, T: divergence(t, s, T).mean(0) / T**2, "divided by T²"),
        (lambda t, s, T: bce(s / T, torch.sigmoid(t / T)).mean(0), "entropy. And the factor T² is missing"),
        (lambda t, s, T: p_log_p_over_q(t, s, T).mean(0), "present and absent. And the factor T² is missing"),
        (by_weights(torch.sigmoid), "those at T = 1"),
        (by_weights(lambda t: torch.sigmoid(STUDENT / T)), "the student's probabilities"),
        (by_weights(torch.ones_like, torch.ones_like), "have no weights: multiply"),
        (by_weights(torch.ones_like, torch.zeros_like), "and the half of *absent* is missing"),
        (by_weights(lambda t: torch.sigmoid(t / T), lambda t: -torch.sigmoid(-t / T)), "add the two halves"),
        (lambda t, s, T: T**2 * ((2 * torch.sigmoid(t / T) - 1) * log_ratio(t, s, T)).mean(0), "not 1 − log σ(z)"),
        (by_probabilities, "from the logits"),
        (lambda *a: by_probabilities(*a, clip=1e-6), "clipping"),
        (lambda t, s, T: 1.5 * kl_by_library(t, s, T), "expected"),
        (lambda t, s, T: bernoulli_kl(t, s, T).item(), "no gradient can flow through a Python number"),
        (lambda t, s, T: kl_by_library(t, s, T).tolist(), "no gradient can flow through a list"),
        (lambda t, s, T: kl_by_library(t, s.detach(), T), "no gradient can flow through the tensor"),
        (kl_in_numpy, "no gradient can flow through a ndarray"),
    ],
)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_each_mistake_about_the_divergence_is_named(answer, words):
    assert words in kl_of_each_class(answer)


def halved(quantile=None, ddof=1, root=True, sign=1, scale=1):
    def function(students, baselines):
        d = sign * np.subtract(students, baselines)
        half = (quantile or student_t.ppf(0.975, len(d) - 1)) * d.std(ddof=ddof) / (len(d) ** 0.5 if root else 1)
        return verdict(scale * (d.mean() - half), scale * (d.mean() + half))

    return function


def bootstrap(seed):
    def function(students, baselines):
        d = np.subtract(students, baselines)
        draws = np.random.default_rng(seed).choice(d, (1000, len(d))).mean(1)
        return verdict(*np.quantile(draws, [0.025, 0.975]))

    return function


def unpaired(equal_var):
    def function(students, baselines):
        found = ttest_ind(students, baselines, equal_var=equal_var).confidence_interval(0.95)
        return verdict(found.low, found.high)

    return function


@pytest.mark.parametrize(
    "answer, words",
    [
        (unpaired(True), "not paired"),
        (unpaired(False), "not paired"),
        (halved(1.96), "1.96"),
        (halved(ddof=0), "ddof=1"),
        (halved(root=False), "√n times"),
        (halved(student_t.ppf(0.975, 5)), "not n"),
        *((bootstrap(seed), "a bootstrap of the differences") for seed in range(5)),
        (halved(1.96, ddof=0), "Student's t, 2.776. And the standard deviation divides by n"),
        (halved(1.96, root=False), "Student's t, 2.776. And that is the spread"),
        (halved(ddof=0, root=False), "without ddof=1"),
        (halved(1.0), "one standard error"),
        (halved(student_t.ppf(0.975, 4) / 5**0.5), "divides it by √n"),
        (lambda a, b: (*by_scipy(a, b)[1::-1], "higher"), "ends are swapped"),
        (lambda a, b: (np.subtract(a, b).mean(), np.ptp(by_scipy(a, b)[:2]) / 2, "higher"), "half of the width"),
        (halved(sign=-1), "sign"),
        (halved(student_t.ppf(0.95, 4)), "90 %"),
        (halved(scale=100), "as fractions"),
        (lambda a, b: verdict(min(np.subtract(a, b)), max(np.subtract(a, b))), "interval of the mean"),
        (lambda a, b: (*by_scipy(a, b)[:2], "higher" if np.mean(a) > np.mean(b) else "lower"), "mean alone"),
        (lambda a, b: (*by_scipy(a, b)[:2], "not detected"), "expected 'higher'"),
        (lambda a, b: (*by_scipy(a, b)[:2], True), "expected 'higher'"),
        (lambda a, b: (*by_scipy(a, b)[:2], "higher" if by_scipy(a, b)[0] > 0 else "lower"), "because the interval"),
        (
            lambda a, b: (*by_scipy(a, b)[:2], "better" if by_scipy(a, b)[2] == "higher" else "same"),
            "expected 'higher'",
        ),
        (lambda a, b: (0.0, 1.0, "not detected"), "expected ["),
        (lambda a, b: by_scipy(a, b)[:2], "three things"),
        (lambda a, b: ("low", 1.0, "higher"), "not a number"),
    ],
)
def test_each_mistake_about_the_verdict_is_named(answer, words):
    assert words in verdict_from_pairs(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda q, T: torch.sigmoid(torch.logit(q) / T), "softer still"),
        (lambda q, T: T * torch.logit(q), "these are logits"),
        (lambda q, T: q**T, "chance of *absent*"),
        (lambda q, T: q**T / (q**T).sum(1, keepdim=True), "sum over the classes"),
        (lambda q, T: (T * torch.logit(q)).softmax(1), "a softmax over the classes"),
        (lambda q, T: torch.logit(q).softmax(1), "softmax of logits that were never multiplied"),
        (lambda q, T: q, "the soft labels themselves"),
        (lambda q, T: (T * q).clamp(max=1), "a probability is multiplied"),
        (lambda q, T: torch.sigmoid(T * q), "sigmoid of probabilities"),
        (lambda q, T: 1 - at_one(q, T), "swapped"),
        (lambda q, T: torch.sigmoid(T * torch.log(q)), "log does not undo the sigmoid"),
        (lambda q, T: q ** (1 / T), "softer still, and forgets"),
        (lambda q, T: T * q, "some are above 1"),
        (lambda q, T: q / T, "a probability is divided"),
        (lambda q, T: torch.sigmoid(q), "sigmoid of a sigmoid"),
        (lambda q, T: torch.logit(q), "the logits t / T"),
        (lambda q, T: (q / (1 - q)) ** T, "these are odds"),
        (lambda q, T: (q > 0.5).float(), "rounds to 0 and 1"),
        (lambda q, T: at_one(q, 2 * T), "expected"),
        (lambda q, T: at_one(q, T).mean(), "a probability for each label"),
    ],
)
def test_each_mistake_about_another_temperature_is_named(answer, words):
    assert words in answers_at_another_temperature(answer)


def mixed(high, low):
    def function(y, v):
        epsilon = 1 / (1 + np.exp(v))
        return y * high(epsilon) + (1 - y) * low(epsilon)

    return function


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda y, v: v * (2 * y - 1), "these are logits"),
        (mixed(lambda e: 1 - e, lambda e: 0), "negatives are still 0"),
        (mixed(lambda e: 1, lambda e: e), "positives are still 1"),
        (mixed(lambda e: e, lambda e: 1 - e), "swapped"),
        (mixed(lambda e: 1 - e / 2, lambda e: e / 2), "half of the smoothing"),
        (mixed(lambda e: 1 - e + e / 4, lambda e: e / 4), "as for a softmax"),
        (mixed(lambda e: 1 - e, lambda e: e / 3), "as for a softmax"),
        (lambda y, v: torch.sigmoid(v * y), "not ½"),
        (lambda y, v: torch.sigmoid(v * (y - 0.5)), "σ(±v/2)"),
        (lambda y, v: (v * (2.0 * y - 1)).softmax(1), "a softmax over the classes"),
        (lambda y, v: (v * y).softmax(1), "a softmax over the classes"),
        (lambda y, v: y - 1 / (1 + np.exp(v)), "below 0"),
        (lambda y, v: y / (1 + np.exp(-v)) + ~y / (1 + np.exp(v)), "write 1 - targets"),
        (lambda y, v: torch.sigmoid(9.0 * (2 * y - 1)), "take the argument"),
        (lambda y, v: y, "holds whole numbers (int64)"),
        (lambda y, v: y == 1, "should become"),
        (mixed(lambda e: 0.9, lambda e: 0.1), "should become"),
        (lambda y, v: torch.zeros(2, 2), "expected (3, 4)"),
    ],
)
def test_each_mistake_about_smoothed_labels_is_named(answer, words):
    assert words in smoothed_targets(answer)


def test_labels_that_are_overwritten_in_place_are_told_of_and_stay_as_they_were_for_the_next_attempt():
    def in_place(y, v):
        y[y == 1], y[y == 0] = torch.sigmoid(torch.tensor(v)), torch.sigmoid(torch.tensor(-v))
        return y

    assert "convert the targets first" in smoothed_targets(in_place)
    assert smoothed_targets(lambda y, v: torch.sigmoid(v * (2 * y - 1))) is None
    assert smoothed_targets(lambda y, v: torch.full(y.shape, 1 / (1 + np.exp(v)))) is not None


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (verdict_from_pairs, lambda a, b: (0.1, ..., "higher")),
        (answers_at_another_temperature, lambda soft, T: ...),
    ],
)
def test_an_answer_with_dots_in_it_counts_as_not_attempted(check_of, answer):
    with pytest.raises(NotAttempted):
        check_of(answer)


@pytest.mark.parametrize(
    "check_of", [kl_of_each_class, verdict_from_pairs, answers_at_another_temperature, smoothed_targets]
)
@pytest.mark.parametrize(
    "value, words",
    [
        (None, "return"),
        ("0.5", "expected"),
        (torch.zeros(3, 5), "expected"),
        ({"KL": 1.0}, "expected"),
    ],
)
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value, words):
    assert words in check_of(lambda *arguments: value)
