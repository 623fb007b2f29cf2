"""Checks of lesson 08: a schedule with a restart, which epoch teaches, ridge's shrinkage, coins learned, a share of a gain.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions may answer with tensors, NumPy numbers or floats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import compare, number

HALF, WARM, PEAK = 24, 6, 0.4

# Both halves of a history: another epoch wins by each wrong rule, and NumPy's argmax would take the NaN for the
# largest.
ROWS = [
    {"epoch": 1, "half": 1, "total": 9.0},
    {"epoch": 2, "half": 1, "total": 7.0, "mAP": 0.40},
    {"epoch": 3, "half": 1, "total": 6.0},
    {"epoch": 4, "half": 1, "total": 5.0, "mAP": math.nan},
    {"epoch": 5, "half": 1, "total": 4.0},
    {"epoch": 6, "half": 1, "total": 3.0, "mAP": 0.71},
    {"epoch": 7, "half": 1, "total": 1.5},
    {"epoch": 8, "half": 1, "total": 2.0, "mAP": 0.66},
    {"epoch": 9, "half": 2, "total": 4.5},
    {"epoch": 10, "half": 2, "total": 1.0, "mAP": 0.74},
    {"epoch": 11, "half": 2, "total": 0.8},
    {"epoch": 12, "half": 2, "total": 0.9, "mAP": 0.70},
]
TEST_MAP = {
    1: 0.20,
    2: 0.38,
    3: 0.78,
    4: 0.55,
    5: 0.60,
    6: 0.63,
    7: 0.64,
    8: 0.65,
    9: 0.66,
    10: 0.69,
    11: 0.81,
    12: 0.67,
}

ARMS = {
    "40 epochs": [0.741, 0.748, 0.755, 0.737, 0.744],
    "restart, hard labels": [0.752, 0.767, 0.763, 0.741, 0.757],
    "restart, UD": [0.759, 0.772, 0.775, 0.747, 0.769],
}


def _schedule(half: int, warm: int, peak: float) -> list[float]:
    def one_half(s: int) -> float:
        return peak * (s + 1) / warm if s < warm else peak / 2 * (1 + math.cos(math.pi * (s - warm) / (half - warm)))

    return 2 * [one_half(s) for s in range(half)]


def _cosine(u: float) -> float:
    return PEAK / 2 * (1 + math.cos(math.pi * u))


def _wrong_schedules() -> dict[str, list[float]]:
    """What the classic mistakes make of the schedule, by the sentence that names them."""
    right, span = _schedule(HALF, WARM, PEAK), HALF - WARM
    first, falling = right[:HALF], right[WARM:HALF]
    from_peak = [_cosine(s / HALF) for s in range(HALF)]
    late = [*first, _cosine(1.0), *first[:-1]]  # `step <= half` before `step - half - 1`
    late_by_remainder = [*first, _cosine(1.0), *right[: HALF - 1]]
    whole = [*first[:WARM], *(_cosine(2 * (s - WARM) / span) for s in range(WARM, HALF))]
    share = [*first[:WARM], *(_cosine(s / HALF) for s in range(WARM, HALF))]
    return {
        "there is no restart: one cosine runs over both halves. Count the steps from 0 again at step = half": [
            *first[:WARM],
            *(_cosine((s - WARM) / (2 * HALF - WARM)) for s in range(WARM, 2 * HALF)),
        ],
        "there is no restart: after the first half the rate stays low. Count the steps from 0 again at step = half": [
            *first,
            *(_cosine(1.0) for _ in range(HALF)),
        ],
        "there is no restart: the cosine continues beyond its end and rises again. Count the steps from 0 at step = "
        "half": [
            *first,
            *(_cosine((s - WARM) / span) for s in range(HALF, 2 * HALF)),
        ],
        "the second half has no warm-up: after the restart the rate must rise over `warm` steps again": [
            *first,
            *from_peak,
        ],
        "the second half has no warm-up, and starts in mid-cosine: both halves are alike": [
            *first,
            *falling,
            *(_cosine(1.0) for _ in range(WARM)),
        ],
        "after the warm-up the rate jumps to twice the peak: 1 + cos runs from 2 to 0, so it is peak / 2 times that": 2
        * [*first[:WARM], *(2 * rate for rate in falling)],
        "this is a whole cosine, down and up again: take half of one, cos(π u), which ends at the low point": 2 * whole,
        "the restart comes one step late: step = half is the first step of the second half": late,
        "the restart comes one step late, and the second half ends too soon": late_by_remainder[: 2 * HALF],
        "the cosine counts from the start of the half: u is 0 at s = warm and 1 at s = half": 2 * share,
        "the warm-up starts at 0 and its last step misses the peak: it is (s + 1) / warm": 2
        * [*(PEAK * s / WARM for s in range(WARM)), *falling],
        "the peak of the second half is lower: a restart goes back to the full rate": [
            *first,
            *(rate / 2 for rate in first),
        ],
    }


@exercise("08.1")
def schedule_with_one_restart(function) -> str | None:
    """`function(step, half, warm, peak)` → the rate: linear warm-up, then half a cosine, in each of two halves."""
    rates_of_first_case = []
    for step in range(2 * HALF):
        value, problem = number(called(function, step, HALF, WARM, PEAK))
        if problem:
            return problem
        rates_of_first_case.append(value)
    for half, warm, peak in ((HALF, WARM, PEAK), (10, 1, 1.0), (7, 5, 2.0)):
        right = _schedule(half, warm, peak)
        answers = (
            rates_of_first_case
            if half == HALF
            else [number(called(function, step, half, warm, peak))[0] for step in range(2 * half)]
        )
        wrong = [
            step for step in range(2 * half) if not math.isclose(answers[step], right[step], rel_tol=1e-5, abs_tol=1e-9)
        ]
        if not wrong:
            continue
        if half == HALF:
            for sentence, wrong_rates in _wrong_schedules().items():
                if np.allclose(rates_of_first_case, wrong_rates, rtol=1e-5, atol=1e-9):
                    return sentence
        step = wrong[0]
        return (
            f"with half = {half}, warm = {warm}, peak = {peak:g}, step {step} has {answers[step]:.4g}, expected "
            f"{right[step]:.4g}"
        )
    return None


@exercise("08.2")
def teacher_of_the_second_half(function) -> str | None:
    """`function(rows, test_map)` → the epoch of the first half with the highest validation mAP, never a NaN."""
    answer, problem = number(called(function, [dict(row) for row in ROWS], dict(TEST_MAP)))
    if problem:
        return problem
    answers = {
        8: "epoch 8 is the last epoch of the first half, but the paper takes the previous *best* network",
        3: "epoch 3 is the best on the test images, but they must judge the student later: choose on validation",
        11: "epoch 11 is the best on the test images, and of the second half: choose on validation, before the restart",
        10: "epoch 10 lies in the second half, and does not exist yet when the teacher is needed: look at half 1 only",
        7: "epoch 7 has the lowest training loss, but overfitting lowers it too: choose by validation mAP",
        4: "epoch 4 has a NaN for its mAP: np.argmax takes it for the largest, so leave such rows out",
        2: "epoch 2 has the lowest mAP that was measured: take the highest",
        0.71: "that is the mAP of the teacher: return its epoch",
        5: '5 is the place of the right row in the list: return its "epoch"',
        12: "epoch 12 is the last of all: the teacher comes from the first half, the best on validation",
    }
    return compare(answer, 6, answers)


@exercise("08.3")
def shrinkage_of_a_direction(function) -> str | None:
    """`function(d, penalty, rounds)` → (d / (d + penalty)) ** rounds."""
    for d, penalty, rounds in ((3.0, 0.5, 3), (0.2, 0.7, 2), (1.5, 0.4, 1), (0.0, 0.3, 2), (2.0, 0.0, 4)):
        answer, problem = number(called(function, d, penalty, rounds))
        if problem:
            return problem
        s = d / (d + penalty)
        wrong = {
            d / (d + rounds * penalty): "this is one fit with a larger penalty: refitting multiplies factors, s · s · "
            "…, "
            "so small directions vanish faster",
            s ** (rounds + 1): "that is one round too many: one round is the teacher alone",
            s ** (rounds - 1): "that is one round too few: the teacher's own fit counts",
            1 - s**rounds: "that is what is lost of the direction: return what is left",
            (1 - s) ** rounds: "that is penalty / (d + penalty), what one fit loses: return what is left",
            (d**2 / (d**2 + penalty))
            ** rounds: "d is an eigenvalue of K, so do not square it; the square would be right for a singular value "
            "of the features",
            s * rounds: "it multiplies by the number of rounds: each round multiplies by s again, which is a power",
            s / rounds: "it divides by the number of rounds: each round multiplies by s again, which is a power",
        }
        where = f"at d = {d:g}, penalty {penalty:g}, rounds {rounds}: "
        if problem := compare(answer, s**rounds, wrong if rounds > 1 else {}):
            return problem if "expected" not in problem else where + problem.removeprefix("on a small example ")
    return None


@exercise("08.4")
def coin_learned_by_heart(function) -> str | None:
    """`function(p, y, pi)` → the slope of p − π on y − π, through the origin, over all entries."""
    generator = torch.Generator().manual_seed(8)
    pi = torch.rand(24, 5, generator=generator, dtype=torch.float64) ** 2
    y = (torch.rand(24, 5, generator=generator, dtype=torch.float64) < pi).double()
    p = (0.55 * pi + 0.35 * y + 0.1 * torch.rand(24, 5, generator=generator, dtype=torch.float64)).clamp(0, 1)
    answer, problem = number(called(function, p, y, pi))
    if problem:
        return problem

    def slope(a: Tensor, b: Tensor) -> float:
        return ((a * b).sum() / (b * b).sum()).item()

    right = slope(p - pi, y - pi)
    if math.isclose(answer, right, rel_tol=1e-6):
        return None
    return compare(
        answer,
        right,
        {
            slope(
                y - pi, p - pi
            ): "the slope is taken the wrong way round: divide by the squares of y − π, not of p − π",
            slope(
                p - p.mean(), y - y.mean()
            ): "a network that only knows the picture would score high here: subtract the "
            "posterior, not the mean, from both",
            slope(
                p, y
            ): "a network that knows the picture and not the label would score high here: subtract the posterior "
            "from both",
            slope(p, y - pi): "subtract the posterior from p as well: m compares two errors",
            slope(p - pi, y): "subtract the posterior from y as well: m compares two errors",
            math.sqrt(
                abs(slope(p - pi, y - pi) * slope(y - pi, p - pi))
            ): "that is a correlation: it is 1 for a network that learned only half of each coin, if it did so "
            "everywhere",
            ((p - pi) * (y - pi)).sum().item(): "the denominator is missing: divide by the sum of (y − π)²",
            ((p - pi) * (y - pi)).mean().item(): "the denominator is missing: divide by the mean of (y − π)²",
            ((p - pi) / (y - pi))
            .mean()
            .item(): "the mean of the ratios gives labels near π a huge weight: divide sum by sum",
        },
    )


@exercise("08.5")
def share_of_the_teacher(function) -> str | None:
    """`function(arms)` → the part of UD's mean gain over 40 epochs that UD has over the restart on hard labels."""
    answer, problem = number(called(function, {name: list(scores) for name, scores in ARMS.items()}))
    if problem:
        return problem
    base, hard, soft = (np.array(ARMS[name]) for name in ARMS)
    whole, teacher, restart = soft - base, soft - hard, hard - base
    mistakes = {
        restart.mean() / whole.mean(): "that is the restart's share: return what the teacher adds to the restart",
        teacher.mean() / restart.mean(): "that is the teacher's gain beside the restart's: divide by the whole gain, "
        "restart, UD minus 40 epochs",
        1.0: "UD minus 40 epochs has the restart in it: the teacher's own gain is UD minus the restart on hard labels",
        whole.mean() / teacher.mean(): "the share is upside down: divide the part of the gain by the whole gain",
        (teacher / whole).mean(): "this is a mean of shares, in which a seed with a small whole gain decides: take "
        "the "
        "means of the gains first",
        -teacher.mean() / whole.mean(): "the sign is the wrong way round: UD minus hard labels",
        teacher.mean(): "that is the teacher's gain in mAP: divide it by the whole gain",
        teacher.mean() / base.mean(): "that is a gain in parts of the score: divide by the whole gain",
        teacher.mean() / hard.mean(): "that is a gain in parts of the score: divide by the whole gain",
        100 * teacher.mean() / whole.mean(): "that is in per cent: return the fraction",
        whole.mean(): "that is the whole gain: return the teacher's share of it",
        restart.mean(): "that is what the restart alone gives: return the teacher's share of the whole gain",
    }
    return compare(answer, teacher.mean() / whole.mean(), mistakes)
