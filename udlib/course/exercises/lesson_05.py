"""Checks of lesson 05: Eq. 13 with a temperature, a verdict from paired runs, a choice on validation, smoothed labels.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions are called with torch tensors, or with lists and dicts of floats; they may answer with tensors,
NumPy numbers or floats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import t as student_t
from scipy.stats import ttest_ind
from torch import Tensor
from torch.nn import functional as F

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import compare, number, numbers, shown
from udlib.losses import bernoulli_kl
from udlib.statistics import paired_difference

TEACHER = torch.tensor([[2.0, -1.0, 0.5, -3.0], [-0.5, 1.5, -2.0, 0.3], [1.0, -1.2, 3.0, -0.2]], dtype=torch.float64)
STUDENT = torch.tensor([[1.2, -0.3, -0.4, -1.0], [0.7, 0.6, -1.1, -0.9], [2.4, -2.0, 1.1, 0.5]], dtype=torch.float64)
T = 3.0

LABELS = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
TARGET_LOGIT = 2.0  # soft enough that every mistake shows


@exercise("05.1")
def kl_with_temperature(function) -> str | None:
    """`function(teacher_logits, student_logits, T)` → Eq. 13 on logits divided by T, times T²; finite at any logit."""
    answer, problem = number(called(function, TEACHER, STUDENT, T))
    if problem:
        return problem
    right = bernoulli_kl(TEACHER, STUDENT, T).item()
    if not math.isnan(answer) and (problem := compare(answer, right, _wrong_kls(TEACHER, STUDENT, T))):
        return problem
    extreme, away = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, -200.0]])
    answer, problem = number(called(function, extreme, away, 1.0))
    if problem:
        return f"at logits of ±200: {problem}"
    if not math.isfinite(answer):
        return (
            f"at logits of ±200 it gives {answer}: a sigmoid rounds to 0 or 1 there, and its log is lost. Take the "
            f"logs from "
            "the logits: log σ(z) = F.logsigmoid(z), log(1 − σ(z)) = F.logsigmoid(−z)"
        )
    if not math.isclose(answer, 100.0, rel_tol=1e-4):
        return (
            f"at logits of ±200 it gives {answer:.4g}, the divergence is 100: clipping probabilities hides large "
            f"errors. "
            "Take the logs from the logits, with F.logsigmoid"
        )
    return None


def _wrong_kls(t: Tensor, s: Tensor, T: float) -> dict[float, str]:
    """What the classic mistakes make of Eq. 13 with a temperature."""

    def entropy(logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.sigmoid(logits))

    right = bernoulli_kl(t, s, T).item()
    classes, images = t.shape[1], t.shape[0]
    reverse = (
        "the divergence runs the wrong way: KL(teacher ‖ student) is weighted by the teacher's probabilities, so its "
        "gradient is the difference of the two"
    )
    no_square = "the factor T² is missing: without it the gradient shrinks as T grows"
    crossed = T**2 * F.binary_cross_entropy_with_logits(s / T, torch.sigmoid(t / T)).item()
    present = T**2 * (torch.sigmoid(t / T) * (F.logsigmoid(t / T) - F.logsigmoid(s / T))).mean().item()
    return {
        right / T**2: no_square,
        right
        / T: "the factor is T², not T: the gradient loses one 1/T to the chain rule and one to the smaller difference",
        right * classes: "this is the sum over the classes: Eq. 13 takes their mean",
        right * classes * images: "this is the sum over classes and images: take the mean over both",
        right * images: "this is the sum over the images: take the mean over them",
        -right: "the sign is the wrong way round: a divergence is never below 0",
        bernoulli_kl(s, t, T).item(): reverse,
        bernoulli_kl(s, t, T).item() / T**2: f"{reverse}. And {no_square}",
        bernoulli_kl(t, s).item(): "the temperature does nothing: divide both logits by T",
        T**2
        * bernoulli_kl(t, s).item(): "the temperature does not reach the logits: divide both by T before the sigmoid",
        T**2
        * bernoulli_kl(
            t / T, s
        ).item(): "T divides the teacher's logits only: both are divided, or the student learns t/T",
        T**2 * bernoulli_kl(t, s / T).item(): "T divides the student's logits only: divide both",
        T**2 * bernoulli_kl(t * T, s * T).item(): "T multiplies the logits: a temperature divides them",
        crossed: "this is the cross-entropy: right gradient, but a divergence is 0 where the two agree. Subtract the "
        "teacher's entropy",
        crossed - entropy(t / T).item(): "the teacher's entropy is subtracted without its factor T²",
        present: "the second half is missing: a Bernoulli has two outcomes, present and absent",
    }


# Seeds differ by far more than the two methods do: only the pairs can tell.
STUDENTS, BASELINES = [0.771, 0.742, 0.759, 0.785, 0.748], [0.766, 0.735, 0.757, 0.778, 0.744]
# And five pairs whose mean is above 0 and whose interval holds 0; then some whose student is worse.
UNSURE, BESIDE = [0.771, 0.742, 0.759, 0.785, 0.743], [0.761, 0.746, 0.747, 0.778, 0.745]
WORSE = [0.761, 0.731, 0.752, 0.770, 0.741]


@exercise("05.2")
def verdict_from_pairs(function) -> str | None:
    """`function(students, baselines)` → (low, high, "higher", "lower" or "not detected"), a paired 95 % t interval."""
    for students, baselines in ((STUDENTS, BASELINES), (UNSURE, BESIDE), (WORSE, BASELINES)):
        value = called(function, list(students), list(baselines))
        (low, high), problem = numbers(value, "(low, high, verdict)", 2, beside=1)
        if problem:
            return problem
        right = paired_difference(students, baselines)
        if not (math.isclose(low, right.low, abs_tol=1e-6) and math.isclose(high, right.high, abs_tol=1e-6)):
            return _wrong_interval(low, high, students, baselines)
        if value[2] != right.verdict:
            if right.verdict == "not detected" and value[2] == ("higher" if right.mean > 0 else "lower"):
                return "the verdict looks at the mean alone: an interval that holds 0 detects nothing"
            return (
                f"the interval [{low:.4f}, {high:.4f}] is right, but its verdict is {shown(value[2])}: expected "
                f"'{right.verdict}'"
            )
    return None


def _wrong_interval(low: float, high: float, students: list[float], baselines: list[float]) -> str:
    """The classic mistake that gives these ends, or what was expected."""
    a, b = np.asarray(students), np.asarray(baselines)
    d, n = a - b, len(a)
    t, error = student_t.ppf(0.975, n - 1), d.std(ddof=1) / math.sqrt(n)
    unpaired = ttest_ind(a, b).confidence_interval(0.95)
    welch = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    not_paired = (
        "the runs are not paired: subtract seed by seed first, or the spread of the seeds, which both share, hides the "
        "difference"
    )
    wrong = [
        (
            d.mean() - t * d.std(ddof=0) / math.sqrt(n),
            d.mean() + t * d.std(ddof=0) / math.sqrt(n),
            "the standard deviation divides by n: from a sample it divides by n − 1 (ddof=1)",
        ),
        (
            d.mean() - 1.96 * error,
            d.mean() + 1.96 * error,
            "1.96 is the quantile for many runs: with five it is Student's t, 2.776",
        ),
        (
            d.mean() - t * d.std(ddof=1),
            d.mean() + t * d.std(ddof=1),
            "that is the spread of single differences: the mean of n is √n times more certain",
        ),
        (-d.mean() - t * error, -d.mean() + t * error, "the sign is the wrong way round: students minus baselines"),
        (d.min(), d.max(), "those are the smallest and the largest difference: build an interval of the mean"),
        (
            d.mean() - student_t.ppf(0.95, n - 1) * error,
            d.mean() + student_t.ppf(0.95, n - 1) * error,
            "that is a 90 % interval: 2.5 % are cut off on either side, the quantile is that of 0.975",
        ),
        (*unpaired, not_paired),
        (*welch, not_paired),
        *(
            (d.mean() - q * spread, d.mean() + q * spread, not_paired)
            for q in (t, 1.96, student_t.ppf(0.975, 2 * n - 2))
            for spread in [math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n)]
        ),
        (*(100 * (d.mean() + sign * t * error) for sign in (-1, 1)), "the ends are in points: give them as fractions"),
    ]
    for wrong_low, wrong_high, sentence in wrong:
        if math.isclose(low, wrong_low, abs_tol=2e-6) and math.isclose(high, wrong_high, abs_tol=2e-6):
            return sentence
    right = paired_difference(students, baselines)
    return f"on a small example the interval is [{low:.4f}, {high:.4f}], expected [{right.low:.4f}, {right.high:.4f}]"


# Validation prefers 3 on average; its best single run is of 5; the test images prefer 1. Seeds differ more than
# settings.
ON_VAL = {1.0: [0.741, 0.752, 0.758], 3.0: [0.749, 0.766, 0.762], 5.0: [0.731, 0.779, 0.748]}
ON_TEST = {1.0: [0.765, 0.768, 0.772], 3.0: [0.752, 0.764, 0.757], 5.0: [0.748, 0.771, 0.751]}


@exercise("05.3")
def temperature_by_validation(function) -> str | None:
    """`function(on_val, on_test)`, both {T: scores of the seeds} → (T of the best mean on val, its mean on test)."""
    value = called(function, {k: list(v) for k, v in ON_VAL.items()}, {k: list(v) for k, v in ON_TEST.items()})
    (temperature, score), problem = numbers(value, "(T, mean score on the test images)", 2)
    if problem:
        return problem

    def best(scores: dict, by=np.mean, pick=max) -> float:
        return pick(scores, key=lambda temperature: by(scores[temperature]))

    right = best(ON_VAL)
    explanations = {
        best(
            ON_TEST
        ): "it was chosen on the test images: what is then reported there is too good. Choose on validation",
        best(
            ON_VAL, max
        ): "it has the best single seed: a choice must hold for the method, so compare the means over seeds",
    }
    if not math.isclose(temperature, right, abs_tol=1e-6):
        return (
            f"T = {temperature:g}: {explanations.get(temperature, f'on validation the mean is highest at {right:g}')}"
        )
    wrong_scores = {
        float(np.mean(ON_VAL[right])): "that of validation: report the test images",
        max(ON_TEST[right]): "the best seed's: report the mean over seeds",
        max(map(np.mean, ON_TEST.values())): "that of the best T on the test images: report the T that was chosen",
        float(np.sum(ON_TEST[right])): "a sum over seeds: report the mean",
    }
    right_score = float(np.mean(ON_TEST[right]))
    if math.isclose(score, right_score, rel_tol=1e-6):
        return None
    sentence = next((words for wrong, words in wrong_scores.items() if math.isclose(score, wrong, rel_tol=1e-6)), None)
    return (
        f"T is right, but the score beside it is "
        f"{sentence or f'{score:.4g}: on the test images its mean is {right_score:.4g}'}"
    )


@exercise("05.4")
def smoothed_targets(function) -> str | None:
    """`function(targets, target_logit)` → (N, C) probabilities, σ(±target_logit) at positives and negatives."""
    value = called(function, LABELS, TARGET_LOGIT)
    shape = tuple(LABELS.shape)
    if value is None:
        return "the function returned nothing: end it with return"
    try:
        answer = torch.as_tensor(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        return f"it returned {shown(value)}: expected a tensor of shape {shape}"
    if answer.shape != shape:
        return (
            f"it returned {shown(value)} of shape {tuple(answer.shape)}: expected {shape}, a probability for each label"
        )
    y = LABELS.double()
    high = torch.sigmoid(torch.tensor(TARGET_LOGIT, dtype=torch.float64)).item()
    epsilon, classes = 1 - high, shape[1]
    right = y * high + (1 - y) * epsilon
    if torch.allclose(answer, right, rtol=1e-4, atol=1e-6):
        return None
    wrong = {
        "these are logits: the label is their sigmoid, a probability": TARGET_LOGIT * (2 * y - 1),
        "the negatives are still 0: both sides are softened, to σ(+v) and σ(−v)": y * high,
        "the positives are still 1: both sides are softened, to σ(+v) and σ(−v)": y + (1 - y) * epsilon,
        "positives and negatives are swapped: σ(+v) belongs to y = 1": 1 - right,
        "that is half of the smoothing: mixing with a fair coin moves a label by ε/2 only, and here it ends at σ(±v)": y
        * (1 - epsilon)
        + epsilon / 2,
        "that spreads ε over the C classes, as for a softmax. Sigmoids are C questions of their own, and each is "
        "softened alone": y * (1 - epsilon) + epsilon / classes,
        "that spreads ε over the other classes, as for a softmax. Sigmoids are C questions of their own, each "
        "softened alone": y * (1 - epsilon) + (1 - y) * epsilon / (classes - 1),
        "every label got σ(v · y): y = 0 must give σ(−v), not ½": torch.sigmoid(TARGET_LOGIT * y),
    }
    for sentence, values in wrong.items():
        if torch.allclose(answer, values, rtol=1e-4, atol=1e-6):
            return sentence
    return (
        f"at target logit {TARGET_LOGIT:g} a positive should become {high:.4g} and a negative {epsilon:.4g}; found "
        f"{answer[0, 0].item():.4g} and {answer[0, 1].item():.4g}"
    )
