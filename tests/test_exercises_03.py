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
    pal_n_with_a_rival,
    paper_lambda_of_released,
    search_on_validation,
    z_prime_of_a_joint_distribution,
)
from udlib.losses import one_over_k_softmax_loss, pal_n_loss, pick_all_labels_marginals
from udlib.statistics import paired_difference

CHECKS = [pal_n_with_a_rival, z_prime_of_a_joint_distribution, search_on_validation, paper_lambda_of_released]


def with_rival(z):
    """One more class, whose logit is 0."""
    return torch.cat([z, torch.zeros(len(z), 1)], 1)


def by_library(z, y, **options):
    return pal_n_loss(with_rival(z), with_rival(y), **options)


def surprise(z, y):
    """−log f_i at the positives, 0 elsewhere."""
    return F.softplus(rivals_lse(z, y) - z) * y


def with_a_loop(z, y):
    total = 0.0
    for logits, targets in zip(z, y):
        rivals = torch.cat([logits[targets == 0], torch.zeros(1)])
        terms = [torch.logsumexp(torch.cat([rivals, one[None]]), 0) - one for one in logits[targets == 1]]
        total = total + (sum(terms) / len(terms) if terms else 0.0)
    return total / len(z)


def by_probabilities(z, y, shifted=False):
    """f in full; `shifted` subtracts each image's largest logit first, from that of the new rival too."""
    largest = z.amax(1, keepdim=True).clamp(min=0) if shifted else torch.zeros(len(z), 1)
    e = (z - largest).exp()
    f = e / ((-largest).exp() + e + (e * (1 - y)).sum(1, keepdim=True))
    return (torch.where(y == 1, -f.log(), 0.0).sum(1) / y.sum(1).clamp(min=1)).mean()


def mean(surprise, y):
    return ((surprise * y).sum(1) / y.sum(1).clamp(min=1)).mean()


def over(lse, z, y):
    """The loss with other logarithms of the rivals."""
    return mean(F.softplus(lse - z), y)


def negatives_lse(z, y, dim=1):
    return z.masked_fill(y == 1, -torch.inf).logsumexp(dim, keepdim=True)


def rivals_lse(z, y):
    return with_rival(z.masked_fill(y == 1, -torch.inf)).logsumexp(1, keepdim=True)


def positives_lse(z, y):
    return z.masked_fill(y == 0, -torch.inf).logsumexp(1, keepdim=True)


def labelled_images_only(z, y):
    some = y.any(1)
    return by_library(z[some], y[some])


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


def search(select="val", report="test", half=None, sign=1, choose=np.mean, without=None):
    def function(val, test):
        maps = {"val": val, "test": test}
        chosen = max((lam for lam in maps[select] if lam != without), key=lambda lam: choose(maps[select][lam]))
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
        (pal_n_with_a_rival, by_library),
        (pal_n_with_a_rival, with_a_loop),
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
        (pal_n_loss, "'none of these' is missing"),
        (one_over_k_softmax_loss, "full softmax"),
        (lambda z, y: one_over_k_softmax_loss(with_rival(z), with_rival(y)), "full softmax"),
        (lambda z, y: over(positives_lse(z, y), z, y), "mask is inverted"),
        (lambda z, y: over(with_rival(positives_lse(z, y)).logsumexp(1, keepdim=True), z, y), "mask is inverted"),
        (lambda z, y: over((z * (1 - y)).logsumexp(1, keepdim=True), z, y), "multiplied by 0"),
        (lambda z, y: over(with_rival(z * (1 - y)).logsumexp(1, keepdim=True), z, y), "multiplied by 0"),
        (lambda z, y: over(1 + negatives_lse(z, y), z, y), "belongs under"),
        (lambda z, y: by_library(z - z.amax(1, keepdim=True), y), "not from that of 'none of these'"),
        (lambda z, y: F.binary_cross_entropy((-surprise(z, y)).exp() * y + 0.3 * (1 - y), y), "expected"),
        (lambda z, y: surprise(z, y).sum(1).mean(), "sum over the positives"),
        (lambda z, y: surprise(z, y).sum() / y.sum(), "all images' positives at once"),
        (lambda z, y: (surprise(z, y).sum(1) / y[-1].sum()).mean(), "the last image's"),
        (lambda z, y: by_library(z, y, reduction="none").sum(), "sum over the images"),
        (lambda z, y: -by_library(z, y), "sign"),
        (lambda z, y: surprise(z, y).sum(1).mean() / y.shape[1], "number of classes"),
        (lambda z, y: ((F.softplus(-z) * y).sum(1) / y.sum(1)).mean(), "the negatives are missing"),
        (lambda z, y: (surprise(z, y).sum(1) / y.sum(1)).mean(), "0 is divided by 0"),
        (labelled_images_only, "stays in"),
        (lambda z, y: by_library(z, y) + 1.0 * (y.sum(1) == 0).any(), "with an image without a positive it gives"),
        (lambda z, y: by_library(z, y) + 1.0 * y.all(), "the only rival"),
        (by_probabilities, "e^z overflows"),
        (lambda z, y: by_probabilities(z, y, shifted=True), "0 · log 0"),
        (lambda z, y: by_probabilities(z.clamp(-50, 50), y), "a logit is cut off"),
        (lambda z, y: ((z.exp() * y).log() * y).sum(), "0 · log 0 is nan"),
        (lambda z, y: over(torch.logaddexp(negatives_lse(z, y), torch.tensor(1.0)), z, y), "its logit is 0"),
        (lambda z, y: over(torch.logaddexp(negatives_lse(z, y, dim=0), torch.tensor(0.0)), z, y), "dim 1"),
        (lambda z, y: mean(F.softplus(z - rivals_lse(z, y)), y), "are swapped"),
        (lambda z, y: over(with_rival(z - 1e4 * y).logsumexp(1, keepdim=True), z, y), "mask with −∞"),
        (nan_behind_a_where, "gradient"),
        (lambda z, y: by_library(z, y).item(), "no gradient can flow through a Python number"),
        (lambda z, y: by_library(z, y).detach(), "no gradient can flow through the tensor"),
        (lambda z, y: by_library(z, y).detach().numpy(), "no gradient can flow through a ndarray"),
        (lambda z, y: by_library(z, y) + 1, "expected"),
    ],
)
def test_each_mistake_about_the_loss_is_named(answer, words):
    assert words in pal_n_with_a_rival(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda y, p: (p[:, None] * y / others(y)).sum(0), "1 + in the denominator"),
        (lambda y, p: torch.where(y == 1, p[:, None] / others(y), 0.0).sum(0), "1 + in the denominator"),
        (lambda y, p: (p[:, None] * y / others(y).clamp(min=1)).sum(0), "1 + in the denominator"),
        (lambda y, p: (p[:, None] * y / y.sum(1, keepdim=True)).sum(0), "empty set"),
        (lambda y, p: (p[:, None] * y / (1 + y.sum(1, keepdim=True))).sum(0), "counts label i twice"),
        (lambda y, p: (p @ y.double()) * (p[:, None] / (1 + others(y))).sum(0), "only over the sets that hold label i"),
        (lambda y, p: (y / (1 + others(y))).mean(0), "probabilities of the sets are not used"),
        (lambda y, p: (y / (1 + others(y))).sum(0), "probabilities of the sets are not used"),
        (lambda y, p: z_prime(y, p) / (p @ y.double()), "multiply it by"),
        (lambda y, p: (p @ y.double()) / (p @ y.double()).sum(), "normalised marginals"),
        (lambda y, p: p @ y.double(), "factor for the number of other labels is missing"),
        (lambda y, p: (p @ y.double()) / (1 + p @ others(y)), "mean of 1/(1 + n)"),
        (lambda y, p: (p @ y.double()) ** 2 / ((p * y.sum(1)) @ y.double()), "mean of 1/(1 + n)"),
        (lambda y, p: (p @ y.double()) * (p / y.sum(1).clamp(min=1)).sum(), "only over the sets that hold label i"),
        (lambda y, p: p @ (y / y.sum(0)).double(), "number of labels in each set"),
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


def certainty(val, lam):
    d = np.subtract(val[lam], val[0.0])
    return d.mean() / d.std(ddof=1) if lam > 0 else 0.0


T = stats.t.ppf(0.975, 4)


@pytest.mark.parametrize(
    "answer, words",
    [
        (search(select="test"), "chosen on the test images"),
        (lambda val, test: (max(val), 0.0, 0.0, 0.1), "the largest λ"),
        (lambda val, test: (max(val, key=val.get), 0.0, 0.0, 0.1), "the first seed decides"),
        (lambda val, test: (max(val, key=lambda lam: max(val[lam])), 0.0, 0.0, 0.1), "best single seed"),
        (lambda val, test: (min(val, key=lambda lam: np.mean(val[lam])), 0.0, 0.0, 0.1), "worst on validation"),
        (lambda val, test: (max(val, key=lambda lam: np.mean(val[lam] + test[lam])), 0.0, 0.0, 0.1), "pooled"),
        (lambda val, test: (max(val, key=lambda lam: certainty(val, lam)), 0.0, 0.0, 0.1), "most significant"),
        (lambda val, test: (0.0, 0.0, 0.0, 0.1), "not the best on validation"),
        (lambda val, test: (0.7, 0.0, 0.0, 0.1), "was not tried"),
        (lambda val, test: search()(val, test)[1:], "1 of them is missing"),
        (lambda val, test: paired_difference(test[1.0], test[0.0]), "the PairedDifference itself"),
        (search(report="val"), "that of validation"),
        (search(half=lambda a, b: T * independent_error(a, b)), "as if the seeds were not paired"),
        (search(half=lambda a, b: stats.t.ppf(0.975, 8) * independent_error(a, b)), "as if the seeds were not paired"),
        (search(half=lambda a, b: 1.96 * error(a, b)), "1.96"),
        (search(half=lambda a, b: stats.norm.ppf(0.975) * error(a, b)), "1.96"),
        (search(half=lambda a, b: T * (a - b).std(ddof=1)), "√n"),
        (search(half=lambda a, b: T * (a - b).std() / np.sqrt(len(a))), "n − 1"),
        (search(half=lambda a, b: stats.t.ppf(0.95, 4) * error(a, b)), "90 %"),
        (search(sign=-1), "sign"),
        (lambda *maps: tuple(search()(*maps)[k] for k in (0, 2, 1, 3)), "another order"),
        (lambda *maps: (1.0, *100 * np.array(search()(*maps)[1:])), "factor 100"),
        (lambda *maps: (1.0, 0.005, *2 * [search()(*maps)[3] - 0.005]), "mean + half"),
        (search(half=lambda a, b: T * (a - b).std(ddof=1) / 5**0.5), "with four it gives"),
        (search(choose=np.median), "with four it gives"),
        (search(without=0.0), "0 is one of the settings"),
        (search(half=lambda a, b: 0.0), "the interval is"),
        (lambda val, test: (1.0, 0.5, 0.4, 0.6), "not 0.5"),
        (lambda val, test: (1.0, 0.01), "four numbers"),
        (lambda val, test: 0.3, "four numbers"),
        (lambda val, test: (1.0, "high", 0.0, 0.1), "a part of the answer is not a number"),
    ],
)
def test_each_mistake_about_the_search_is_named(answer, words):
    assert words in search_on_validation(answer)


def test_unpaired_with_welchs_degrees_of_freedom_is_named_too():
    def welch(val, test):
        found = stats.ttest_ind(test[1.0], test[0.0], equal_var=False)
        return (1.0, np.mean(np.subtract(test[1.0], test[0.0])), *found.confidence_interval(0.95))

    assert "not paired" in search_on_validation(welch)


def test_reporting_the_score_and_not_the_difference_is_named():
    def score(val, test):
        a = np.array(test[1.0])
        return 1.0, a.mean(), *stats.t.interval(0.95, 4, a.mean(), a.std(ddof=1) / np.sqrt(5))

    assert "mAP of the chosen" in search_on_validation(score)


def test_the_example_tells_the_answers_apart():
    mean = {lam: np.mean(VAL[lam]) for lam in VAL}
    answers = [
        max(VAL),
        max(VAL, key=VAL.get),
        max(VAL, key=lambda lam: max(VAL[lam])),
        max(VAL, key=mean.get),
        min(VAL, key=mean.get),
        max(TEST, key=lambda lam: np.mean(TEST[lam])),
        max(VAL, key=lambda lam: np.mean(VAL[lam] + TEST[lam])),
        max(VAL, key=lambda lam: certainty(VAL, lam)),
    ]
    assert len(set(answers)) == len(answers)
    a, b = np.array(TEST[max(VAL, key=mean.get)]), np.array(TEST[0.0])
    assert independent_error(a, b) > 3 * error(a, b), "pairing by seed must matter"


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda released, classes: released / classes, "the other way round"),
        (lambda released, classes: released, "C times more"),
        (lambda released, classes: released * classes / 2, "halves both"),
        (lambda released, classes: 2 * released * classes, "it cancels in their ratio"),
        (lambda released, classes: released / (2 * classes), "before the whole loss"),
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
        answer = search()(val, test)
        val.clear()
        return answer

    assert search_on_validation(careless) is None and VAL
