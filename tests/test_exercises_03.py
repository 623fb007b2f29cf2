"""Lesson 03's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from udlib.course.exercises.lesson_03 import (
    TEST,
    VAL,
    pal_n_from_logits,
    paper_lambda_of_released,
    search_on_validation,
    z_prime_of_a_joint_distribution,
)
from udlib.losses import one_over_k_softmax_loss, pal_n_loss, pick_all_labels_marginals
from udlib.statistics import paired_difference

CHECKS = [pal_n_from_logits, z_prime_of_a_joint_distribution, search_on_validation, paper_lambda_of_released]


def surprise(z, y):
    """−log f_i of Eq. 10 at the positives, 0 elsewhere."""
    lse = z.masked_fill(y == 1, -torch.inf).logsumexp(1, keepdim=True)
    return F.softplus(lse - z) * y


def with_a_loop(z, y):
    total = 0.0
    for logits, targets in zip(z, y):
        negatives = logits[targets == 0]
        terms = [torch.logsumexp(torch.cat([negatives, one[None]]), 0) - one for one in logits[targets == 1]]
        total = total + (sum(terms) / len(terms) if terms else 0.0)
    return total / len(z)


def by_probabilities(z, y):
    e = z.exp()
    f = e / (e + (e * (1 - y)).sum(1, keepdim=True))
    return (torch.where(y == 1, -f.log(), 0.0).sum(1) / y.sum(1).clamp(min=1)).mean()


def labelled_images_only(z, y):
    some = y.any(1)
    return pal_n_loss(z[some], y[some])


def nan_behind_a_where(z, y):
    per_image = torch.where(y.any(1), surprise(z, y).sum(1) / y.sum(1), 0.0)
    return per_image.mean()


def z_prime(labels, probabilities):
    return pick_all_labels_marginals(labels, probabilities)


def others(labels):
    return labels.sum(1, keepdim=True).double() - labels


def in_a_loop(labels, probabilities):
    found = []
    for i in range(labels.shape[1]):
        rows = labels[:, i] == 1
        found.append(float((probabilities[rows] / labels[rows].sum(1)).sum()))
    return found


def search(select="val", report="test", half=None, sign=1):
    def function(val, test):
        maps = {"val": val, "test": test}
        chosen = max(maps[select], key=lambda lam: np.mean(maps[select][lam]))
        a, b = (np.array(maps[report][lam]) for lam in (chosen, 0.0))
        found = paired_difference(a, b)
        reach = found.high - found.mean if half is None else half(a, b)
        return chosen, sign * found.mean, sign * found.mean - reach, sign * found.mean + reach

    return function


def by_scipy(val, test):
    chosen = max(val, key=lambda lam: sum(val[lam]))
    found = stats.ttest_rel(test[chosen], test[0.0])
    low, high = found.confidence_interval(0.95)
    return np.array([chosen, np.mean(np.subtract(test[chosen], test[0.0])), low, high])


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (pal_n_from_logits, pal_n_loss),
        (pal_n_from_logits, with_a_loop),
        (pal_n_from_logits, lambda z, y: pal_n_loss(z, y).item()),
        (pal_n_from_logits, lambda z, y: pal_n_loss(z, y).detach().numpy()),
        (z_prime_of_a_joint_distribution, z_prime),
        (z_prime_of_a_joint_distribution, in_a_loop),
        (z_prime_of_a_joint_distribution, lambda labels, p: z_prime(labels, p).float().numpy()),
        (search_on_validation, search()),
        (search_on_validation, by_scipy),
        (search_on_validation, lambda *maps: torch.tensor(search()(*maps))),
        (search_on_validation, lambda *maps: list(search()(*maps))),
        (paper_lambda_of_released, lambda released, classes: torch.tensor(released * classes)),
        (paper_lambda_of_released, lambda released, classes: np.float64(released) * classes),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_of(answer) is None


@pytest.mark.parametrize(
    "answer, words",
    [
        (one_over_k_softmax_loss, "full softmax"),
        (lambda z, y: surprise(z, y).sum(1).mean(), "sum over the positives"),
        (lambda z, y: surprise(z, y).sum() / y.sum(), "all images' positives at once"),
        (lambda z, y: (surprise(z, y).sum(1) / y[-1].sum()).mean(), "the last image's"),
        (lambda z, y: pal_n_loss(z, y, reduction="none").sum(), "sum over the images"),
        (lambda z, y: -pal_n_loss(z, y), "sign"),
        (lambda z, y: surprise(z, y).sum(1).mean() / y.shape[1], "number of classes"),
        (lambda z, y: ((F.softplus(-z) * y).sum(1) / y.sum(1)).mean(), "there is no softmax"),
        (
            lambda z, y: (
                ((z.masked_fill(y == 1, -torch.inf).logsumexp(1, keepdim=True) - z) * y).sum(1) / y.sum(1)
            ).mean(),
            "itself is missing",
        ),
        (lambda z, y: (surprise(z, y).sum(1) / y.sum(1)).mean(), "0 is divided by 0"),
        (labelled_images_only, "stays in"),
        (lambda z, y: pal_n_loss(z, y) + 1.0 * (y.sum(1) == 0).any(), "with an image without a positive it gives"),
        (lambda z, y: pal_n_loss(z, y) + 1.0 * y.all(), "no rivals"),
        (by_probabilities, "±10,000"),
        (nan_behind_a_where, "gradient"),
        (lambda z, y: pal_n_loss(z, y) + 1, "expected"),
    ],
)
def test_each_mistake_about_the_loss_is_named(answer, words):
    assert words in pal_n_from_logits(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda y, p: (p[:, None] * y / others(y)).sum(0), "1 + in the denominator"),
        (lambda y, p: torch.where(y == 1, p[:, None] / others(y), 0.0).sum(0), "1 + in the denominator"),
        (lambda y, p: (p[:, None] * y / others(y).clamp(min=1)).sum(0), "1 + in the denominator"),
        (lambda y, p: (p[:, None] * y / y.sum(1, keepdim=True)).sum(0), "empty set"),
        (lambda y, p: (p[:, None] * y / (1 + y.sum(1, keepdim=True))).sum(0), "counts label i twice"),
        (lambda y, p: (p @ y.double()) * (p[:, None] / (1 + others(y))).sum(0), "only over the sets that hold label i"),
        (lambda y, p: z_prime(y, p) / (p @ y.double()), "multiply it by"),
        (lambda y, p: (p @ y.double()) / (p @ y.double()).sum(), "normalised marginals"),
        (lambda y, p: p @ y.double(), "factor for the number of other labels is missing"),
        (lambda y, p: (p @ y.double()) / (1 + p @ others(y)), "mean of 1/(1 + n)"),
        (lambda y, p: z_prime(y, p) / z_prime(y, p).sum(), "at least one label"),
        (lambda y, p: z_prime(y, p) + 0.1, "expected"),
    ],
)
def test_each_mistake_about_z_prime_is_named(answer, words):
    assert words in z_prime_of_a_joint_distribution(answer)


def error(a, b):
    return (a - b).std(ddof=1) / np.sqrt(len(a))


def independent_error(a, b):
    return np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))


T = stats.t.ppf(0.975, 4)


@pytest.mark.parametrize(
    "answer, words",
    [
        (search(select="test"), "chosen on the test images"),
        (search(report="val"), "that of validation"),
        (search(half=lambda a, b: T * independent_error(a, b)), "as if the seeds were not paired"),
        (search(half=lambda a, b: stats.t.ppf(0.975, 8) * independent_error(a, b)), "as if the seeds were not paired"),
        (search(half=lambda a, b: 1.96 * error(a, b)), "1.96"),
        (search(half=lambda a, b: stats.norm.ppf(0.975) * error(a, b)), "1.96"),
        (search(half=lambda a, b: T * (a - b).std(ddof=1)), "√n"),
        (search(half=lambda a, b: T * (a - b).std() / np.sqrt(len(a))), "n − 1"),
        (search(half=lambda a, b: stats.t.ppf(0.95, 4) * error(a, b)), "90 %"),
        (search(sign=-1), "sign"),
        (search(half=lambda a, b: 0.0), "the interval is"),
        (lambda val, test: (0.1, 0.0, 0.0, 0.0), "not the best on validation"),
        (lambda val, test: (0.3, 0.5, 0.4, 0.6), "not 0.5"),
        (lambda val, test: (0.3, 0.01), "four numbers"),
        (lambda val, test: 0.3, "four numbers"),
        (lambda val, test: (0.3, "high", 0.0, 0.1), "a part of the answer is not a number"),
    ],
)
def test_each_mistake_about_the_search_is_named(answer, words):
    assert words in search_on_validation(answer)


def test_unpaired_with_welchs_degrees_of_freedom_is_named_too():
    def welch(val, test):
        found = stats.ttest_ind(test[0.3], test[0.0], equal_var=False)
        return (0.3, np.mean(np.subtract(test[0.3], test[0.0])), *found.confidence_interval(0.95))

    assert "not paired" in search_on_validation(welch)


def test_reporting_the_score_and_not_the_difference_is_named():
    def score(val, test):
        a = np.array(test[0.3])
        return 0.3, a.mean(), *stats.t.interval(0.95, 4, a.mean(), a.std(ddof=1) / np.sqrt(5))

    assert "mAP of the chosen" in search_on_validation(score)


def test_the_example_tells_the_answers_apart():
    best = [max(maps, key=lambda lam: np.mean(maps[lam])) for maps in (VAL, TEST)]
    assert best == [0.3, 1.0]
    a, b = np.array(TEST[0.3]), np.array(TEST[0.0])
    assert independent_error(a, b) > 3 * error(a, b), "pairing by seed must matter"


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda released, classes: released / classes, "the other way round"),
        (lambda released, classes: released, "C times more"),
        (lambda released, classes: released * classes / 2, "halves both"),
        (lambda released, classes: 2 * released * classes, "only their ratio"),
        (lambda released, classes: 1.6, "expected 80"),
    ],
)
def test_each_mistake_about_the_scale_is_named(answer, words):
    assert words in paper_lambda_of_released(answer)


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize(
    "value, words",
    [
        (None, "return"),
        ("0.5", "expected"),
        (torch.zeros(3, 4), "expected"),
        ({"loss": 1.0}, "expected"),
        ([1.0, "a"], "expected"),
    ],
)
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value, words):
    assert words in check_of(lambda *arguments: value)


@pytest.mark.parametrize("check_of", CHECKS)
def test_nan_is_no_right_answer(check_of):
    shapes = {z_prime_of_a_joint_distribution: 3, search_on_validation: 4}
    value = [float("nan")] * shapes[check_of] if check_of in shapes else float("nan")
    assert check_of(lambda *arguments: value) is not None


def test_a_check_leaves_its_example_as_it_was():
    def careless(val, test):
        val.clear()
        return search()(VAL, test)

    assert search_on_validation(careless) is None and VAL
