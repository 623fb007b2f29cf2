"""Lesson 08's checks: right answers pass, every classic mistake is named, anything else gets a helpful sentence."""

import math

import numpy as np
import pytest
import torch

from udlib.course.exercises.lesson_08 import (
    coin_learned_by_heart,
    schedule_with_one_restart,
    share_of_the_teacher,
    shrinkage_of_a_direction,
    teacher_of_the_second_half,
)

CHECKS = [
    schedule_with_one_restart,
    teacher_of_the_second_half,
    shrinkage_of_a_direction,
    coin_learned_by_heart,
    share_of_the_teacher,
]


def rate(
    within=lambda step, half: step % half,
    rising=lambda s, warm: (s + 1) / warm,
    amplitude=0.5,
    turns=1.0,
    from_warm=True,
    second=1.0,
):
    """A schedule whose parts can be broken one at a time."""

    def function(step, half, warm, peak):
        s = within(step, half)
        if step >= half:
            peak = peak * second
        if s < warm:
            return peak * rising(s, warm)
        share = (s - warm) / (half - warm) if from_warm else s / half
        return amplitude * peak * (1 + math.cos(math.pi * turns * share))

    return function


def by_tensors(step, half, warm, peak):
    s = torch.tensor(float(step % half), dtype=torch.float64)
    falling = peak * torch.cos(math.pi * (s - warm) / (half - warm) / 2) ** 2  # cos² u/2 is (1 + cos u) / 2
    return torch.where(s < warm, peak * (s + 1) / warm, falling)


def best(rows, half=(1,), key="mAP", pick=max):
    kept = [row for row in rows if row["half"] in half and not math.isnan(row.get(key, math.nan))]
    return pick(kept, key=lambda row: row[key])


def slope(a, b):
    return (a * b).sum() / (b * b).sum()


def share(build=lambda forty, hard, soft: (soft - hard) / (soft - forty), mean=np.mean):
    """A share made from the means of the three arms."""
    return lambda arms: build(*(mean(arms[name]) for name in ("40 epochs", "restart, hard labels", "restart, UD")))


@pytest.mark.parametrize(
    "check_of, answer",
    [
        (schedule_with_one_restart, rate()),
        (schedule_with_one_restart, rate(within=lambda step, half: step - half if step >= half else step)),
        (schedule_with_one_restart, by_tensors),
        (schedule_with_one_restart, lambda *a: np.float32(rate()(*a))),
        (teacher_of_the_second_half, lambda rows, test: best(rows)["epoch"]),
        (teacher_of_the_second_half, lambda rows, test: np.int64(best(rows)["epoch"])),
        (teacher_of_the_second_half, lambda rows, test: float(best(rows)["epoch"])),
        (shrinkage_of_a_direction, lambda d, penalty, rounds: (d / (d + penalty)) ** rounds),
        (shrinkage_of_a_direction, lambda d, penalty, rounds: np.power(1 / (1 + penalty / d), rounds) if d else 0.0),
        (
            shrinkage_of_a_direction,
            lambda d, penalty, rounds: torch.tensor(d / (d + penalty), dtype=torch.float64) ** rounds,
        ),
        (coin_learned_by_heart, lambda p, y, pi: slope(p - pi, y - pi)),
        (coin_learned_by_heart, lambda p, y, pi: float(slope(p.numpy() - pi.numpy(), y.numpy() - pi.numpy()))),
        (coin_learned_by_heart, lambda p, y, pi: ((p - pi) * (y - pi)).mean() / (y - pi).square().mean()),
        (share_of_the_teacher, share()),
        (share_of_the_teacher, share(mean=sum)),
        (share_of_the_teacher, lambda arms: torch.tensor(share()(arms))),
        (share_of_the_teacher, share(lambda forty, hard, soft: 1 - (hard - forty) / (soft - forty))),
    ],
)
def test_a_right_answer_passes_whatever_it_is_made_with(check_of, answer):
    assert check_of(answer) is None


@pytest.mark.parametrize(
    "answer, words",
    [
        (rate(within=lambda step, half: step), "no restart: the cosine continues"),
        (rate(within=lambda step, half: min(step, half)), "after the first half the rate stays low"),
        (rate(within=lambda step, half: step if step <= half else step - half - 1), "one step late"),
        (rate(within=lambda step, half: step % (half + 1)), "one step late"),
        (rate(amplitude=1.0), "twice the peak"),
        (rate(turns=2.0), "a whole cosine"),
        (rate(from_warm=False), "counts from the start of the half"),
        (rate(rising=lambda s, warm: s / warm), "misses the peak"),
        (rate(second=0.5), "peak of the second half is lower"),
        (lambda step, half, warm, peak: rate()(step, 2 * half, warm, peak), "no restart: one cosine"),
        (
            lambda step, half, warm, peak: (
                rate()(step, half, warm, peak) if step < half else rate()(step % half + warm, half, warm, peak)
            ),
            "step 24 has",
        ),
        (lambda step, half, warm, peak: peak, "step 0 has"),
        (lambda step, half, warm, peak: rate()(step, 24, 6, peak), "half = 10"),  # the numbers of the example, built in
    ],
)
def test_each_mistake_about_the_schedule_is_named(answer, words):
    assert words in schedule_with_one_restart(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda rows, test: 8, "last epoch of the first half"),
        (lambda rows, test: max(range(1, 9), key=test.get), "on the test images"),
        (lambda rows, test: max(test, key=test.get), "and of the second half"),
        (lambda rows, test: best(rows, (1, 2))["epoch"], "does not exist yet"),
        (lambda rows, test: best(rows, key="total", pick=min)["epoch"], "lowest training loss"),
        (lambda rows, test: best(rows, pick=min)["epoch"], "lowest mAP"),
        (lambda rows, test: best(rows)["mAP"], "return its epoch"),
        (lambda rows, test: rows.index(best(rows)), "place of the right row"),
        (lambda rows, test: 4, "NaN"),
        (lambda rows, test: rows[-1]["epoch"], "last of all"),
        (lambda rows, test: 1, "expected 6"),
        (best, "expected"),
    ],
)
def test_each_mistake_about_the_teacher_is_named(answer, words):
    if answer is best:
        answer = lambda rows, test: best(rows)  # noqa: E731  the row itself
    assert words in teacher_of_the_second_half(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda d, p, n: d / (d + n * p), "one fit with a larger penalty"),
        (lambda d, p, n: (d / (d + p)) ** (n + 1), "one round too many"),
        (lambda d, p, n: (d / (d + p)) ** (n - 1), "one round too few"),
        (lambda d, p, n: 1 - (d / (d + p)) ** n, "what is lost"),
        (lambda d, p, n: (p / (d + p)) ** n, "what one fit loses"),
        (lambda d, p, n: (d * d / (d * d + p)) ** n, "singular value"),
        (lambda d, p, n: n * d / (d + p), "multiplies by the number"),
        (lambda d, p, n: d / (d + p) / n, "divides by the number"),
        (lambda d, p, n: d / (d + p), "expected"),
    ],
)
def test_each_mistake_about_the_shrinkage_is_named(answer, words):
    assert words in shrinkage_of_a_direction(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda p, y, pi: slope(y - pi, p - pi), "wrong way round"),
        (lambda p, y, pi: slope(p - p.mean(), y - y.mean()), "knows the picture"),
        (slope, "knows the picture and not the label"),
        (lambda p, y, pi: slope(p, y - pi), "posterior from p"),
        (lambda p, y, pi: slope(p - pi, y), "posterior from y"),
        (lambda p, y, pi: (slope(p - pi, y - pi) * slope(y - pi, p - pi)).sqrt(), "correlation"),
        (lambda p, y, pi: ((p - pi) * (y - pi)).sum(), "denominator is missing: divide by the sum"),
        (lambda p, y, pi: ((p - pi) * (y - pi)).mean(), "denominator is missing: divide by the mean"),
        (lambda p, y, pi: ((p - pi) / (y - pi)).mean(), "ratios"),
        (lambda p, y, pi: 0.5, "expected"),
        (lambda p, y, pi: p - pi, "single number"),
    ],
)
def test_each_mistake_about_the_memory_is_named(answer, words):
    if answer is slope:
        answer = lambda p, y, pi: slope(p, y)  # noqa: E731
    assert words in coin_learned_by_heart(answer)


@pytest.mark.parametrize(
    "answer, words",
    [
        (share(lambda forty, hard, soft: (hard - forty) / (soft - forty)), "the restart's share"),
        (share(lambda forty, hard, soft: (soft - hard) / (hard - forty)), "beside the restart's"),
        (share(lambda forty, hard, soft: 1.0), "has the restart in it"),
        (share(lambda forty, hard, soft: (soft - forty) / (soft - hard)), "upside down"),
        (share(lambda forty, hard, soft: (hard - soft) / (soft - forty)), "sign"),
        (share(lambda forty, hard, soft: soft - hard), "the teacher's gain in mAP"),
        (share(lambda forty, hard, soft: (soft - hard) / hard), "parts of the score"),
        (share(lambda forty, hard, soft: (soft - hard) / forty), "parts of the score"),
        (share(lambda forty, hard, soft: 100 * (soft - hard) / (soft - forty)), "per cent"),
        (share(lambda forty, hard, soft: soft - forty), "the whole gain"),
        (share(lambda forty, hard, soft: hard - forty), "what the restart alone gives"),
        (lambda arms: share(mean=np.array)(arms).mean(), "a mean of shares"),
        (lambda arms: share(mean=np.array)(arms), "single number"),
        (share(lambda forty, hard, soft: 0.7), "expected"),
    ],
)
def test_each_mistake_about_the_share_is_named(answer, words):
    assert words in share_of_the_teacher(answer)


def test_a_check_does_not_let_an_answer_change_what_it_is_judged_by():
    def spoils(rows, test_map):
        for row in rows:
            row["half"] = 2
        return best(rows, (2,), pick=min)["epoch"]

    assert teacher_of_the_second_half(spoils) is not None
    assert teacher_of_the_second_half(lambda rows, test: best(rows)["epoch"]) is None


@pytest.mark.parametrize("check_of", CHECKS)
@pytest.mark.parametrize(
    "value, words",
    [
        (None, "return"),
        ("0.5", "expected"),
        (torch.zeros(3, 4), "expected"),
        ({"rate": 1.0}, "expected"),
    ],
)
def test_garbage_gets_a_sentence_that_says_what_is_expected(check_of, value, words):
    said = check_of(lambda *arguments: value)
    assert words in said
