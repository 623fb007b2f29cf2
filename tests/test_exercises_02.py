"""Lesson 02's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import pytest
import torch
from sklearn.metrics import (
    auc,
    average_precision_score,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
)
from torch.nn import functional as F

from udlib.course.exercises.lesson_02 import (
    average_precision_of_one_class,
    cf1_of_classes,
    cheapest_decisions,
    ova_loss_from_logits,
)
from udlib.losses import ova_loss
from udlib.metrics import average_precision, precision_recall_f1

CHECKS = [ova_loss_from_logits, average_precision_of_one_class, cf1_of_classes, cheapest_decisions]


def by_hand_ap(scores, targets):
    hits = targets[scores.argsort(descending=True)].double()
    return (hits.cumsum(0) / torch.arange(1, len(hits) + 1))[hits == 1].mean()


def decide(threshold=lambda miss: 1 / (1 + miss)):
    return lambda p, miss: p >= threshold(miss)


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (ova_loss_from_logits, ova_loss),
        (ova_loss_from_logits, lambda z, y: (F.softplus(z) - y * z).sum(1).mean()),
        (ova_loss_from_logits, lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="sum").item() / len(z)),
        (average_precision_of_one_class, by_hand_ap),
        (average_precision_of_one_class, lambda s, y: average_precision(s[:, None], y[:, None])),
        (average_precision_of_one_class, lambda s, y: average_precision_score(y, s) if y.any() else float("nan")),
        (cf1_of_classes, lambda p, y: precision_recall_f1(p, y)["CF1"]),
        (cheapest_decisions, decide()),
        (cheapest_decisions, lambda p, miss: (p * miss > 1 - p).int()),
        (cheapest_decisions, lambda p, miss: (p.numpy() / (1 - p.numpy()) >= 1 / miss).tolist()),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


def naive(z, y):
    f = torch.sigmoid(z)
    return -(y * f.log() + (1 - y) * (1 - f).log()).sum(1).mean()


def clipped(z, y):
    f = torch.sigmoid(z).clamp(1e-6, 1 - 1e-6)
    return -(y * f.log() + (1 - y) * (1 - f).log()).sum(1).mean()


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda z, y: ova_loss(z, y, scale="released"), "mean over the classes"),
        (lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="sum"), "sum over the images"),
        (lambda z, y: -ova_loss(z, y), "sign"),
        (lambda z, y: ova_loss(z, 1 - y), "swapped"),
        (lambda z, y: -(y * F.logsigmoid(z)).sum(1).mean(), "negatives are missing"),
        (naive, "its log is useless"),
        (clipped, "clipping"),
        (lambda z, y: ova_loss(z, y) + 1, "expected"),
    ],
)
def test_each_mistake_about_the_loss_is_named(answer, words):
    assert words in ova_loss_from_logits(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda s, y: by_hand_ap(-s, y), "ascending"),
        (lambda s, y: auc(*precision_recall_curve(y, s)[1::-1]), "interpolated"),
        (lambda s, y: average_precision(s[:, None], y[:, None], variant="voc10-area"), "interpolated"),
        (lambda s, y: by_hand_ap(s, y) * y.double().mean(), "number of positives"),
        (
            lambda s, y: (y[s.argsort(descending=True)].double().cumsum(0) / torch.arange(1, len(s) + 1)).mean(),
            "all ranks",
        ),
        (lambda s, y: average_precision_score(y, s) if y.any() else 0.0, "NaN"),
        (lambda s, y: by_hand_ap(s, y) / 3, "expected"),
    ],
)
def test_each_mistake_about_average_precision_is_named(answer, words):
    assert words in average_precision_of_one_class(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda p, y: f1_score(y, p >= 0.5, average="macro", zero_division=0), "mean of the classes' F1"),
        (lambda p, y: f1_score(y, p >= 0.5, average="micro"), "micro"),
        (lambda p, y: precision_recall_f1(p, y, 0.5 + 1e-9)["CF1"], ">="),
        (lambda p, y: (precision_recall_f1(p, y)["CP"] + precision_recall_f1(p, y)["CR"]) / 2, "harmonic"),
        (lambda p, y: ((p >= 0.5) & y.bool()).sum(0).div((p >= 0.5).sum(0)).mean(), "0/0"),
        (lambda p, y: 0.99, "expected"),
    ],
)
def test_each_mistake_about_cf1_is_named(answer, words):
    assert words in cf1_of_classes(answer)


def test_the_right_cf1_is_that_of_scikit_learns_macro_precision_and_recall():
    def answer(p, y):
        cp, cr = (score(y, p >= 0.5, average="macro", zero_division=0) for score in (precision_score, recall_score))
        return 2 * cp * cr / (cp + cr)

    assert cf1_of_classes(answer) is None


@pytest.mark.parametrize(
    "answer, words",
    [
        (decide(lambda miss: 0.5), "the costs change nothing"),
        (decide(lambda miss: miss / (1 + miss)), "upside down"),
        (decide(lambda miss: 1 / miss), "the threshold is 1/miss"),
        (decide(lambda miss: miss), "the cost itself"),
        (lambda p, miss: ~decide()(p, miss), "exchanged"),
        (lambda p, miss: p, "no decisions"),
        (decide(lambda miss: 0.65), "the answer should be yes"),
        (decide(lambda miss: 1 / (1 + miss) - 0.12), "the answer should be no"),
        (lambda p, miss: decide()(p, miss)[0], "a yes or no for each label"),
    ],
)
def test_each_mistake_about_the_costs_is_named(answer, words):
    assert words in cheapest_decisions(answer)


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize(
    "value, words",
    [
        (None, "return"),
        ("0.5", "expected"),
        (torch.zeros(3, 4), "expected"),
        ({"CF1": 1.0}, "expected"),
    ],
)
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value, words):
    assert words in check_of(lambda *arguments: value)


def test_a_forgotten_return_is_named():
    assert "end it with return" in ova_loss_from_logits(lambda z, y: None)
