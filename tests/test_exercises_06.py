"""Lesson 06's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from udlib.attention import class_attention, energy_inside, pointing_game
from udlib.course.exercises.lesson_06 import (
    chance_of_pointing,
    class_map_through_the_pooled_vector,
    divergence_of_the_heads,
    energy_of_one_map,
)
from udlib.losses import bernoulli_kl, softmax_kl

CHECKS = [class_map_through_the_pooled_vector, divergence_of_the_heads, energy_of_one_map, chance_of_pointing]


def class_map(score=lambda z, k: z[k], divide=lambda cells: cells, weights=lambda w: w, after=lambda m: m, branch=0):
    def function(head, features, k):
        pooled = features.mean((2, 3)).requires_grad_()
        (gradient,) = torch.autograd.grad(sum(score(z, k) for z in head(pooled)[branch]), pooled)
        w = weights(gradient) / divide(features[0, 0].numel())
        return after((w[:, :, None, None] * features).sum(1))

    return function


def at_every_cell(head, features, k):
    """The literal Grad-CAM: a gradient at each cell, then its mean."""
    z = features.requires_grad_()
    (gradient,) = torch.autograd.grad(head(z.mean((2, 3)))[0][:, k].sum(), z)
    return (gradient.mean((2, 3), keepdim=True) * z).sum(1)  # still part of a graph


def divergence(first=0, second=1, squash=lambda z: z.softmax(1), reduce=lambda kl: kl.sum(1), log=torch.log):
    def function(*logits):
        p, q = squash(logits[first]), squash(logits[second])
        return reduce(p * (log(p) - log(q)))

    return function


def resized(heat, size, **options):
    return F.interpolate(heat[None, None], size=size, **({"mode": "bilinear", "align_corners": False} | options))[0, 0]


def pairs(include_own=False, divide=None, lowest=False):
    def function(maps, masks):
        n, hits = len(maps), 0.0
        for i in range(n):
            cell = int(maps[i].argmin() if lowest else maps[i].argmax())
            hits += sum(bool(masks[j].flatten()[cell]) for j in range(n) if include_own or i != j)
        return hits / (divide(n) if divide else n * n if include_own else n * (n - 1))

    return function


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (class_map_through_the_pooled_vector, class_map()),
        (class_map_through_the_pooled_vector, at_every_cell),
        (class_map_through_the_pooled_vector, lambda h, z, k: class_attention(h, z, k, relu=False)),
        (class_map_through_the_pooled_vector, lambda h, z, k: class_map()(h, z, k).float().numpy()),
        (class_map_through_the_pooled_vector, lambda h, z, k: class_map()(h, z, k).tolist()),
        (divergence_of_the_heads, divergence()),
        (divergence_of_the_heads, lambda a, o: softmax_kl(a, o, reduction="none").numpy()),
        (divergence_of_the_heads, lambda a, o: F.kl_div(o.log_softmax(1), a.softmax(1), reduction="none").sum(1)),
        (divergence_of_the_heads, lambda a, o: [float(x) for x in divergence()(a, o)]),
        (energy_of_one_map, lambda heat, mask: energy_inside(heat[None], mask[None])),
        (energy_of_one_map, lambda heat, mask: np.float64(energy_inside(heat[None], mask[None]).item())),
        (chance_of_pointing, pairs()),
        (chance_of_pointing, lambda maps, masks: torch.tensor(pairs()(maps, masks))),
        (
            chance_of_pointing,
            lambda maps, masks: np.mean(
                [float(pointing_game(maps.roll(s, 0), masks).double().mean()) for s in range(1, len(maps))]
            ),
        ),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


@pytest.mark.parametrize(
    "answer, words",
    [
        (class_map(divide=lambda cells: 1), "mean over the cells"),
        (class_map(divide=lambda cells: cells**2), "twice"),
        (class_map(weights=torch.relu), "ReLU on the weights"),
        (class_map(weights=torch.relu, divide=lambda cells: 1), "ReLU on the weights, and"),
        (class_map(after=torch.relu), "ReLU on the map"),
        (class_map(after=torch.relu, divide=lambda cells: 1), "ReLU on the map, and"),
        (class_map(score=lambda z, k: torch.sigmoid(z[k])), "gradient of the probability σ(z), which fades"),
        (class_map(score=lambda z, k: torch.sigmoid(z[k]), divide=lambda cells: 1), "not of the logit; and"),
        (class_map(score=lambda z, k: z.softmax(0)[k]), "a softmax"),
        (class_map(score=lambda z, k: z.sum()), "all classes"),
        (class_map(score=lambda z, k: z.sum(), divide=lambda cells: 1), "not of class k; and"),
        (class_map(branch=1), "calibration branch"),
        (class_map(weights=torch.abs), "absolute value of the gradient"),
        (lambda h, z, k: z.mean(1), "without weights"),
        (class_map(after=torch.neg), "wrong way round"),
        (class_map(after=lambda m: m[0]), "expected a map for each image"),
        (class_map(after=lambda m: m.sum((1, 2))), "expected a map for each image"),
        (class_map(after=lambda m: m + 1), "expected"),
    ],
)
def test_each_mistake_about_grad_cam_is_named(answer, words):
    assert words in class_map_through_the_pooled_vector(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (divergence(1, 0), "wrong direction"),
        (lambda a, o: F.kl_div(a.log_softmax(1), o.softmax(1), reduction="none").sum(1), "F.kl_div"),
        (lambda a, o: bernoulli_kl(a, o, reduction="none") * 4, "sigmoids"),
        (lambda a, o: bernoulli_kl(a, o, reduction="none"), "sigmoids, C small divergences, and their mean"),
        (lambda a, o: bernoulli_kl(o, a, reduction="none") * 4, "sigmoids, and in the wrong direction"),
        (divergence(squash=torch.sigmoid), "do not sum to one"),
        (divergence(reduce=lambda kl: kl.mean(1)), "sum over the classes"),
        (divergence(1, 0, reduce=lambda kl: kl.mean(1)), "mean over the classes, and in the wrong direction"),
        (divergence(reduce=lambda kl: kl.sum()), "sum over the images"),
        (softmax_kl, "mean over the images"),
        (lambda a, o: softmax_kl(o, a), "in the wrong direction: return one KL"),
        (divergence(log=torch.log2), "bits"),
        (lambda a, o: -divergence()(a, o), "never negative"),
        (lambda a, o: (a.softmax(1) - o.softmax(1)).abs().sum(1), "distance of the probabilities"),
        (lambda a, o: -(a.softmax(1) * o.log_softmax(1)).sum(1), "cross-entropy"),
        (lambda a, o: (divergence()(a, o) + divergence()(o, a)) / 2, "symmetric mean"),
        (lambda a, o: divergence()(a, o) + divergence()(o, a), "symmetric sum"),
        (lambda a, o: divergence()(a, o) * torch.nan, "NaN"),
        (lambda a, o: divergence()(a, o) + 1, "expected"),
        (divergence(reduce=lambda kl: kl), "expected a KL for each image"),
    ],
)
def test_each_mistake_about_the_divergence_is_named(answer, words):
    assert words in divergence_of_the_heads(answer)


def share(part, mask):
    return part[mask].sum() / part.sum()


@pytest.mark.parametrize(
    "answer, words",
    [
        (
            lambda h, m: share(h.relu(), F.interpolate(m[None, None].double(), size=h.shape)[0, 0] > 0),
            "the mask was shrunk",
        ),
        (lambda h, m: share(h.relu(), resized(m.double(), h.shape) >= 0.5), "the mask was shrunk"),
        (lambda h, m: share(resized(h, m.shape).abs(), m), "as if they were positive"),
        (lambda h, m: share(resized(h, m.shape), m), "cancel"),
        (lambda h, m: share(resized(h.relu(), m.shape), m), "before the map was resized"),
        (lambda h, m: resized(h, m.shape).relu()[m].sum(), "divide by the sum"),
        (lambda h, m: resized(h, m.shape).relu()[m].mean(), "mean inside the mask"),
        (lambda h, m: (resized(h, m.shape)[m] > 0).double().mean(), "how much of the mask"),
        (lambda h, m: share((resized(h, m.shape) > 0).double(), m), "counts positive pixels"),
        (lambda h, m: share(resized(h, m.shape).relu(), ~m), "outside"),
        (lambda h, m: m.double().mean(), "which a random map would reach"),
        (lambda h, m: share(resized(h, m.shape, mode="nearest", align_corners=None).relu(), m), "nearest neighbours"),
        (lambda h, m: share(resized(h, m.shape, align_corners=True).relu(), m), "align_corners=False"),
        (lambda h, m: share(resized(h, m.shape).square(), m), "squares"),
        (lambda h, m: 100 * energy_inside(h[None], m[None]), "per cent"),
        (lambda h, m: 0.123, "expected"),
    ],
)
def test_each_mistake_about_the_energy_is_named(answer, words):
    assert words in energy_of_one_map(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (pairs(include_own=True), "own mask"),
        (pairs(divide=lambda n: n * n), "divides by N²"),
        (pairs(divide=lambda n: 1), "number of hits"),
        (lambda maps, masks: masks.double().mean(), "the area"),
        (lambda maps, masks: pointing_game(maps, masks).double().mean(), "score itself"),
        (lambda maps, masks: pointing_game(maps.roll(1, 0), masks).double().mean(), "one pairing"),
        (lambda maps, masks: pointing_game(maps, masks.roll(2, 0)).double().mean(), "one pairing"),
        (pairs(lowest=True), "lowest cell"),
        (lambda *a: 100 * pairs()(*a), "per cent"),
        (lambda *a: 0.123, "expected"),
    ],
)
def test_each_mistake_about_the_chance_level_is_named(answer, words):
    assert words in chance_of_pointing(answer)


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize(
    "value, words",
    [
        (None, "return"),
        ("0.5", "expected"),
        (torch.zeros(3, 4), "expected"),
        ({"KL": 1.0}, "expected"),
        ([[1.0], [1.0, 2.0]], "expected"),
    ],
)
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value, words):
    assert words in check_of(lambda *arguments: value)
