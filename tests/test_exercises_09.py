"""Lesson 09's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

from math import comb

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from udlib.course.exercises import NotAttempted
from udlib.course.exercises.lesson_09 import (
    affinity_of_labels,
    chance_from_asl,
    loss_of_psd,
    scattered_answers,
    wins_of_the_teachers,
)
from udlib.losses import asymmetric_loss
from udlib.methods.parallel import label_affinity, parallel_loss

CHECKS = [affinity_of_labels, chance_from_asl, scattered_answers, loss_of_psd, wins_of_the_teachers]


def affinity(Y, root=0.5, empty=True, by=None, symmetric=lambda A: (A + A.T) / 2, after=1.0):
    M, N = Y.T @ Y, Y.sum(0)
    A = (M / (N if by is None else by(Y))) ** root
    return symmetric(A - np.diag(np.diag(A)) if empty else A) ** after


def by_torch(Y):
    Y = torch.as_tensor(Y)
    A = (Y.T @ Y / Y.sum(0)).sqrt()
    A.fill_diagonal_(0)
    return (A + A.T) / 2


def torch_only(Y):
    A = (Y.t() @ Y / Y.sum(dim=0)).sqrt().fill_diagonal_(0)
    return (A + A.t()) / 2


def chance(
    p,
    gamma,
    margin,
    base=lambda p, m: np.clip(p - m, 0, None),
    factor=lambda p: p,
    below=lambda p, m: 1 - p + m,
    ends=lambda r: r / (1 + r),
):
    return ends(base(p, margin) ** gamma * factor(p) / below(p, margin))


def scatter(logits, parts):
    z = torch.empty(len(logits[0]), sum(map(len, parts)))
    for said, part in zip(logits, parts):
        z[:, part] = said
    return z


def psd(z, y, co, dis, alpha, label=0.5, taught=0.5, swap=False, detach=True, over=lambda d: d.sum(1).mean()):
    if detach:
        co, dis = co.detach(), dis.detach()
    weights = (1 - alpha, alpha) if swap else (alpha, 1 - alpha)
    return label * asymmetric_loss(z, y) + taught * sum(w * over((z - t).square()) for w, t in zip(weights, (co, dis)))


def wins(a="PSD", b="ASL", chance=lambda w, n: sum(comb(n, k) for k in range(w, n + 1)) / 2**n):
    def function(arms):
        won = sum(x > y for x, y in zip(arms[a], arms[b]))
        return won, chance(won, len(arms[b]))

    return function


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (affinity_of_labels, affinity),
        (affinity_of_labels, by_torch),
        (affinity_of_labels, torch_only),
        (affinity_of_labels, lambda Y: label_affinity(Y.T @ Y, Y.sum(0))),
        (affinity_of_labels, lambda Y: affinity(Y).tolist()),
        (affinity_of_labels, lambda Y: affinity(Y).astype(np.float32)),
        (chance_from_asl, chance),
        (chance_from_asl, lambda p, g, m: chance(torch.as_tensor(p), g, m, base=lambda p, m: (p - m).clamp(min=0))),
        (chance_from_asl, lambda p, g, m: chance(p, g, m, base=lambda p, m: np.maximum(p - m, 0))),
        (chance_from_asl, lambda p, g, m: 1 - 1 / (1 + chance(p, g, m, ends=lambda r: r))),
        (scattered_answers, scatter),
        (
            scattered_answers,
            lambda logits, parts: torch.cat(logits, 1)[:, np.argsort([c for part in parts for c in part])],
        ),
        (scattered_answers, lambda logits, parts: scatter(logits, parts).numpy()),
        (scattered_answers, lambda logits, parts: scatter(logits, parts).tolist()),
        (loss_of_psd, psd),
        (loss_of_psd, lambda *a: parallel_loss(*a)["total"]),
        (loss_of_psd, lambda *a: psd(*a, over=lambda d: d.sum() / len(d))),
        (wins_of_the_teachers, wins()),
        (wins_of_the_teachers, lambda arms: list(wins()(arms))),
        (wins_of_the_teachers, wins(chance=lambda w, n: binomtest(w, n, alternative="greater").pvalue)),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda Y: affinity(Y, empty=False), "diagonal is kept"),
        (lambda Y: affinity(Y, symmetric=lambda A: A), "not symmetric"),
        (lambda Y: affinity(Y, symmetric=lambda A: A.T), "divides rows"),
        (lambda Y: affinity(Y, symmetric=lambda A: A, empty=False), "not symmetric, and the diagonal"),
        (lambda Y: affinity(Y, root=1), "the root is missing"),
        (lambda Y: affinity(Y, root=1, after=0.5), "root of the mean"),
        (lambda Y: affinity(Y, by=len), "number of all images"),
        (lambda Y: affinity(Y, by=len, empty=False), "all images, and keeps"),
        (lambda Y: affinity(Y, symmetric=lambda A: A + A.T), "twice as large"),
        (lambda Y: Y.T @ Y, "the counts"),
        (lambda Y: Y.T @ Y * (1 - np.eye(4)), "without its diagonal, the counts"),
        (lambda Y: affinity(Y, symmetric=lambda A: np.sqrt(A * A.T)), "geometric mean"),
        (lambda Y: affinity(Y, 1, symmetric=lambda A: np.sqrt(A * A.T)), "cosine of two classes"),
        (lambda Y: np.zeros((4, 4)), "expected"),
        (lambda Y: Y, "shape (8, 4)"),
    ],
)
def test_each_mistake_about_the_affinity_is_named(answer, words):
    assert words in affinity_of_labels(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda p, g, m: chance(p, g, m, ends=lambda r: r), "those are the odds"),
        (lambda p, g, m: chance(p, g, m, ends=lambda r: 1 / (1 + r)), "upside down"),
        (lambda p, g, m: chance(p, g, 0), "without the margin"),
        (lambda p, g, m: chance(p, g, m, base=lambda p, m: p - m), "negative base"),
        (lambda p, g, m: chance(p, g, m, factor=lambda p: 1), "factor p is missing"),
        (lambda p, g, m: chance(p, g, m, below=lambda p, m: 1 - p), "missing in the denominator"),
        (lambda p, g, m: chance(p, g, m, below=lambda p, m: 1 - p - m), "the denominator must be"),
        (lambda p, g, m: chance(p, g, m, factor=lambda p: np.clip(p - m, 0, None)), "p itself"),
        (lambda p, g, m: p, "the answer itself"),
        (lambda p, g, m: chance(p, 4, 0.05), "with γ = 3"),  # the numbers of the lesson, built in
        (lambda p, g, m: 0.5, "shape ()"),
        (lambda p, g, m: np.zeros(3), "expected"),
    ],
)
def test_each_mistake_about_the_inverse_is_named(answer, words):
    assert words in chance_from_asl(answer)


def without(logits, parts, keep):
    z = torch.zeros(len(logits[0]), 6)
    z[:, parts[keep]] = logits[keep]
    return z


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda logits, parts: torch.cat(logits, 1), "order of the parts"),
        (lambda logits, parts: torch.cat(logits, 1)[:, [c for part in parts for c in part]], "wrong way round"),
        (lambda logits, parts: without(logits, parts, 0), "only the first part"),
        (lambda logits, parts: without(logits, parts, -1), "only the last part"),
        (lambda logits, parts: scatter(logits, [sorted(part) for part in parts]), "rising order"),
        (lambda logits, parts: scatter(logits, parts).T, "exchanged"),
        (lambda logits, parts: torch.cat(logits, 0), "rows"),  # of different widths: torch says so
        (lambda logits, parts: logits, "expected"),
        (lambda logits, parts: -scatter(logits, parts), "expected"),
    ],
)
def test_each_mistake_about_scattering_is_named(answer, words):
    try:
        said = scattered_answers(answer)
    except RuntimeError as error:  # `check` catches it and shows it
        assert words == "rows" and "Sizes of tensors" in str(error)
    else:
        assert words in said


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda *a: psd(*a, swap=True), "α stands at the wrong group"),
        (lambda *a: psd(*a, label=1, taught=1), "halves are missing: all three"),
        (lambda *a: psd(*a, label=1), "halves are missing at the labels"),
        (lambda *a: psd(*a, taught=1), "halves are missing at the teachers"),
        (lambda *a: psd(*a, detach=False), "flows to the teachers"),
        (lambda *a: psd(*a, over=torch.mean), "means over classes"),
        (lambda *a: psd(*a, over=torch.sum), "distances are a sum over the images"),
        (lambda *a: psd(*a, label=2.5), "ASL is a sum over the images"),
        (lambda *a: 5 * psd(*a), "it is a sum over the images"),
        (lambda *a: psd(*a, label=0), "labels' term is missing"),
        (lambda *a: psd(*a, over=lambda d: d.sum(1).mean().sqrt()), "leave out the root"),
        (
            lambda z, y, co, dis, alpha: (
                (asymmetric_loss(z, y) + psd(z, y, co, dis, 1, 0, 1) + psd(z, y, co, dis, 0, 0, 1)) / 2
            ),
            "weights α and 1 − α are missing",
        ),
        (
            lambda z, y, co, dis, alpha: psd(z, y, co, dis, 1, 0.5, alpha / 2) + psd(z, y, co, dis, 0, 0, alpha / 2),
            "both groups have the weight α",
        ),
        (lambda z, y, co, dis, alpha: psd(z, y, alpha * co + (1 - alpha) * dis, co, 1), "teachers' mean"),
        (
            lambda z, y, co, dis, alpha: (
                asymmetric_loss(z, y) / 2 + psd(z.sigmoid(), y, co.sigmoid(), dis.sigmoid(), alpha, 0)
            ),
            "probabilities",
        ),
        (lambda *a: psd(*a).item(), "no gradient flows to the student"),
        (lambda z, *a: psd(z.detach(), *a), "no gradient flows to the student"),
        (lambda z, y, *a: asymmetric_loss(z, y) / 2 + psd(z.detach(), y, *a, label=0), "student's gradient is not"),
        (lambda *a: torch.tensor(0.0), "expected"),
        (lambda z, *a: z, "single number"),
    ],
)
def test_each_mistake_about_the_loss_is_named(answer, words):
    assert words in loss_of_psd(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (wins(b="BCE"), "the loss is counted in"),
        (wins(b="BCE, averaged"), "the loss is counted in"),
        (wins("ASL", "PSD"), "seeds that PSD loses"),
        (lambda arms: (sum(a > b for a in arms["PSD"] for b in arms["ASL"]), 0.5), "every seed of one arm"),
        (lambda arms: (0.8, 0.5), "the share of the seeds: return their number"),
        (wins(chance=lambda w, n: binomtest(w, n).pvalue), "both directions"),
        (wins(chance=lambda w, n: comb(n, w) / 2**n), "exactly so many"),
        (wins(chance=lambda w, n: 1 / 2**n), "more than so many"),
        (wins(chance=lambda w, n: 1 - 6 / 2**n), "chance of fewer"),
        (wins(chance=lambda w, n: 31 / 2**n), "so many or fewer"),
        (wins(chance=lambda w, n: 0.5**w), "the seed that is lost"),
        (wins(chance=lambda w, n: w / n), "how often a fair coin"),
        (wins(chance=lambda w, n: 0.9), "expected 0.1875"),
        (lambda arms: (3, 0.5), "expected 4"),
        (lambda arms: wins()(arms)[1], "a pair"),
    ],
)
def test_each_mistake_about_the_wins_is_named(answer, words):
    assert words in wins_of_the_teachers(answer)


def test_a_pair_with_dots_in_it_counts_as_not_attempted():
    with pytest.raises(NotAttempted):
        wins_of_the_teachers(lambda arms: (4, ...))


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize(
    "value, words",
    [(None, "return"), ("0.5", "expected"), (torch.zeros(3, 4, 2), "expected"), ({"S": 1.0}, "expected")],
)
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value, words):
    assert words in check_of(lambda *arguments: value)


@pytest.mark.parametrize("check_of", CHECKS)
def test_a_function_that_still_holds_dots_counts_as_not_attempted(check_of):
    with pytest.raises(NotAttempted):
        check_of(lambda *arguments: ...)
