"""Checks of lesson 05: Eq. 13 for each class, a verdict from paired runs, another temperature, smoothed labels.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions are called with torch tensors, or with lists and dicts of floats; they may answer with tensors,
NumPy numbers or floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import among, array, differentiable, numbers, shown
from udlib.course.exercises.calls import in_words
from udlib.course.exercises.intervals import wrong_interval
from udlib.statistics import paired_difference

TEACHER = torch.tensor([[2.0, -1.0, 0.5, -3.0], [-0.5, 1.5, -2.0, 0.3], [1.0, -1.2, 3.0, -0.2]], dtype=torch.float64)
STUDENT = torch.tensor([[1.2, -0.3, -0.4, -1.0], [0.7, 0.6, -1.1, -0.9], [2.4, -2.0, 1.1, 0.5]], dtype=torch.float64)
T = 2.5  # not the number of images, nor of classes

LABELS = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
TARGET_LOGIT = 2.0  # soft enough that every mistake shows


@exercise("05.1")
def kl_of_each_class(function) -> str | None:
    """`function(teacher_logits, student_logits, T)` → (C,), the mean over images of T² KL; finite at any logit."""
    value = called(function, TEACHER.clone(), STUDENT.clone().requires_grad_(), T)
    if isinstance(value, (int, float)):
        return f"{differentiable(value)}. And return one number for each class, (C,)"
    answer, problem = array(value, None, "one number for each class")
    if problem:
        return problem
    problem = _wrong_kl(answer, TEACHER, STUDENT, T) or differentiable(value)
    return problem or _kl_at_extremes(function)


def _kl_at_extremes(function) -> str | None:
    """What is wrong at logits of ±200, where a sigmoid rounds to 0 or 1."""
    extreme, away = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, -200.0]])
    answer, problem = array(called(function, extreme, away.requires_grad_(), 1.0), (2,), "one number for each class")
    if problem:
        return f"at logits of ±200: {problem}"
    if not np.isfinite(answer).all():
        return (
            f"at logits of ±200 it gives {in_words(answer)}: a sigmoid rounds to 0 or 1 there, so its log is useless. "
            "Take the logs from the logits: log σ(z) = F.logsigmoid(z), log(1 − σ(z)) = F.logsigmoid(−z)"
        )
    if not np.allclose(answer, [200.0, 0.0], rtol=1e-4, atol=1e-4):
        return (
            f"at logits of ±200 it gives {in_words(answer)}, expected [200, 0]: clipping probabilities hides large "
            "errors. Take the logs from the logits, with F.logsigmoid"
        )
    return None


def _wrong_kl(answer: np.ndarray, t: Tensor, s: Tensor, T: float) -> str | None:
    """What is wrong with the divergences of the classes, or None."""
    right = T**2 * _divergence(t, s, T)
    if answer.shape == (t.shape[1],) and np.allclose(answer, right.mean(0), rtol=1e-4, atol=1e-6):
        return None
    if answer.shape == (t.shape[1],) and not np.isfinite(answer).all():
        return (
            f"it gives {in_words(answer)} at ordinary logits: it takes the log of something that is not a "
            "probability. F.kl_div "
            "takes log-probabilities of the student first, then probabilities of the teacher"
        )
    alone = "return one number for each class, so take the mean over the images only"
    other_shapes: list[tuple[Callable[[Tensor], Tensor], str]] = [
        (lambda d: d.mean(), f"this is the mean over the classes too, one number: {alone}"),
        (lambda d: d.sum(1).mean(), f"this is the sum over the classes, one number: {alone}"),
        (lambda d: d.mean(1), f"this is one number for each image: {alone}"),
        (lambda d: d.sum(1), f"this is the sum over the classes, one number for each image: {alone}"),
        (lambda d: d.sum(0), "this is the sum over the images: take the mean over them"),
        (lambda d: d, "this is the divergence of each label: take the mean over the images"),
        (lambda d: d.mean(0, keepdim=True), "this has one row too many, shape (1, C): leave out keepdim=True"),
        (lambda d: d.mean(0) / d.shape[1], "this is divided by the number of classes too: each class keeps its own KL"),
    ]
    wrong = [(reduced(right), sentence) for reduced, sentence in other_shapes]
    for sentence, d in _wrong_kls(t, s, T).items():
        wrong += [
            (reduced(d), sentence) for reduced in (lambda d: d.mean(0), *(reduced for reduced, _ in other_shapes))
        ]
    for values, sentence in wrong:
        if answer.shape == tuple(values.shape) and np.allclose(answer, values, rtol=1e-4, atol=1e-6):
            return sentence
    if answer.shape != (t.shape[1],):
        return f"it returned shape {answer.shape}: expected {(t.shape[1],)}, one number for each class"
    return f"on a small example it gives {in_words(answer)}, expected {in_words(right.mean(0))}"


def _divergence(t: Tensor, s: Tensor, T: float = 1.0) -> Tensor:
    """KL of each label, (N, C), at logits divided by T."""
    t, s = t / T, s / T
    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    return present + torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))


def _wrong_kls(t: Tensor, s: Tensor, T: float) -> dict[str, Tensor]:
    """What the classic mistakes make of the divergence of each label, (N, C)."""
    right, p, q = _divergence(t, s, T), torch.sigmoid(t / T), torch.sigmoid(s / T)
    a, b = (t / T).log_softmax(1), (s / T).log_softmax(1)
    crossed = F.binary_cross_entropy_with_logits(s / T, p, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(t / T, p, reduction="none")
    reverse = (
        "the divergence runs the wrong way: KL(teacher ‖ student) is weighted by the teacher's probabilities, so its "
        "gradient is the difference of the two"
    )
    no_square = "the factor T² is missing: without it the gradient shrinks as T grows"
    softmax = (
        "this is the softmax form of distillation, where all classes share one probability distribution: with several "
        "labels, each class has its own sigmoid and its own Bernoulli distribution"
    )
    no_log = "F.kl_div takes the *log* of the student's probabilities first: F.kl_div(log q, p)"
    swapped = (
        "the arguments of F.kl_div are swapped: it takes the student's log-probabilities first, then the teacher's "
        "probabilities. And it sums the outcome 'present' alone: a Bernoulli has two"
    )
    regression = (
        "this is a squared error of logits: Eq. 13 compares probabilities, and becomes ⅛ of this only at very high T"
    )
    gain, loss = F.logsigmoid(t / T) - F.logsigmoid(s / T), F.logsigmoid(-t / T) - F.logsigmoid(-s / T)
    wrong = {
        no_square: right,
        "the factor is T², not T: the gradient gets one factor 1/T from the chain rule and one from the smaller "
        "difference": T * right,
        "this is divided by T²: multiply by it, since the gradient shrinks as T grows": right / T**2,
        "the temperature does nothing: divide both logits by T": _divergence(t, s),
        "the temperature does not reach the logits: divide both by T before the sigmoid": T**2 * _divergence(t, s),
        regression: (t - s) ** 2,
        f"{regression}. (This is that ⅛.)": (t - s) ** 2 / 8,
        "the teacher's entropy is subtracted without its factor T²": T**2 * crossed - entropy,
    }
    before_square = {
        "the sign is the wrong way round: a divergence is never below 0": -right,
        reverse: _divergence(s, t, T),
        "T divides the teacher's logits only: divide both, or the student learns t/T": _divergence(t / T, s),
        "T divides the student's logits only: divide both": _divergence(t, s / T),
        "T multiplies the logits: a temperature divides them": _divergence(t, s, 1 / T),
        "the weights p and 1 − p are those at T = 1: divide their logits by T too": loss.lerp(gain, t.sigmoid()),
        "the weights are the student's probabilities: take the teacher's, p and 1 − p": loss.lerp(gain, q),
        "the logs have no weights: multiply them by the teacher's probabilities, p and 1 − p": gain + loss,
        "the logs have no weights, p and 1 − p, and the half of *absent* is missing": gain,
        "log(1 − σ(z)) is not 1 − log σ(z): it is F.logsigmoid(−z)": p * gain - (1 - p) * gain,
        "the half of *absent* is subtracted: add the two halves": p * gain - (1 - p) * loss,
        "this is the cross-entropy: its gradient is right, but a divergence is 0 where the two agree. Subtract the "
        "teacher's entropy": crossed,
        "the second half is missing: a Bernoulli has two outcomes, present and absent": p * gain,
        softmax: a.exp() * (a - b),
        swapped: q * (q / p).log(),
        no_log: p * (p.log() - q),
        f"{no_log}. And its arguments are swapped": q * (q.log() - p),
        "this is a squared error of probabilities: Eq. 13 is a divergence": (p - q) ** 2,
    }
    for sentence, d in before_square.items():
        wrong |= {sentence: T**2 * d, f"{sentence}. And {no_square}": d}
    return wrong


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
            return wrong_interval(low, high, students, baselines)
        if value[2] != right.verdict:
            if right.verdict == "not detected" and value[2] == ("higher" if right.mean > 0 else "lower"):
                return "the verdict looks at the mean alone: if the interval includes 0, nothing is detected"
            return (
                f"the interval [{low:.4f}, {high:.4f}] is right, but its verdict is {shown(value[2])}: expected "
                f"'{right.verdict}', because {REASONS[right.verdict]}"
            )
    return None


REASONS = {
    "higher": "the whole interval is above 0",
    "lower": "the whole interval is below 0",
    "not detected": "the interval includes 0",
}


@exercise("05.3")
def answers_at_another_temperature(function) -> str | None:
    """`function(soft, T)`, soft = σ(t / T) of shape (N, C) → σ(t), the teacher's probabilities at T = 1."""
    soft = (torch.sigmoid(TEACHER / T) * 100).round() / 100  # two decimals, so that they can be typed
    answer, problem = array(called(function, soft.clone(), T), tuple(soft.shape), "a probability for each label")
    if problem:
        return problem
    z = torch.logit(soft)
    mistakes = {
        "this makes the labels softer still: they are divided by T already, so multiply the logits by T": torch.sigmoid(
            z / T
        ),
        "these are logits: return probabilities, so apply the sigmoid": T * z,
        "these are the logits t / T: multiply them by T, then apply the sigmoid": z,
        "these are odds: a probability is odds / (1 + odds)": (T * z).exp(),
        "log does not undo the sigmoid: torch.logit(soft) does, log(q / (1 − q))": torch.sigmoid(T * soft.log()),
        "the root makes the labels softer still, and forgets the chance of *absent*: take the power T of both, and "
        "divide q^T by q^T + (1 − q)^T": soft ** (1 / T),
        "this raises the chance of *present* to the power T and forgets the chance of *absent*: divide by the sum of "
        "both "
        "powers, q^T + (1 − q)^T": soft**T,
        "this divides by the sum over the classes, as a softmax does: sigmoids answer C separate questions, so divide "
        "by q^T + (1 − q)^T": soft**T / (soft**T).sum(1, keepdim=True),
        "this is a softmax over the classes: sigmoids answer C separate questions": (T * z).softmax(1),
        "this takes the softmax of logits that were never multiplied by T, and sigmoids share nothing": z.softmax(1),
        "these are the soft labels themselves: T changes nothing": soft,
        "a probability is multiplied by T: it is the logit that T divides": (T * soft).clamp(max=1),
        "a probability is multiplied by T, so some are above 1: it is the logit that T divides": T * soft,
        "a probability is divided by T: it is the logit that T divides": soft / T,
        "this rounds to 0 and 1: at T = 1 the teacher is surer, but not certain": soft.round(),
        "this takes the sigmoid of probabilities: go back to the logits first, with torch.logit": (T * soft).sigmoid(),
        "this takes the sigmoid of a sigmoid: go back to the logits first, with torch.logit": soft.sigmoid(),
        "present and absent are swapped": torch.sigmoid(-T * z),
    }
    right = torch.sigmoid(T * z).numpy()
    return among(answer, right, {sentence: wrong.numpy() for sentence, wrong in mistakes.items()})


@exercise("05.4")
def smoothed_targets(function) -> str | None:
    """`function(targets, target_logit)` → (N, C) probabilities, σ(±target_logit) at positives and negatives."""
    value = called(function, LABELS, TARGET_LOGIT)
    floats, problem = array(value, tuple(LABELS.shape), "a probability for each label")
    if problem:
        return problem
    if isinstance(value, Tensor) and not (value.is_floating_point() or value.dtype == torch.bool):
        return (
            f"the tensor that it returned holds whole numbers ({str(value.dtype).removeprefix('torch.')}), and "
            "probabilities lie between 0 and 1: convert the targets first, with targets.double()"
        )
    answer = torch.from_numpy(floats)
    y = LABELS.double()
    high = torch.sigmoid(torch.tensor(TARGET_LOGIT, dtype=torch.float64)).item()
    epsilon, classes = 1 - high, y.shape[1]
    right = y * high + (1 - y) * epsilon
    if torch.allclose(answer, right, rtol=1e-4, atol=1e-6):
        return None
    wrong = {
        "these are logits: the label is their sigmoid, a probability": TARGET_LOGIT * (2 * y - 1),
        "the negatives are still 0: soften both, to σ(+v) and σ(−v)": y * high,
        "the positives are still 1: soften both, to σ(+v) and σ(−v)": y + (1 - y) * epsilon,
        "positives and negatives are swapped: σ(+v) belongs to y = 1": 1 - right,
        "that is half of the smoothing: a mixture with a fair coin moves a label by only ε/2, but here it must reach "
        "σ(±v)": y * (1 - epsilon) + epsilon / 2,
        "that spreads ε over the C classes, as for a softmax. Sigmoids answer C separate questions, and each is "
        "softened alone": y * (1 - epsilon) + epsilon / classes,
        "that spreads ε over the other classes, as for a softmax. Sigmoids answer C separate questions, each "
        "softened alone": y * (1 - epsilon) + (1 - y) * epsilon / (classes - 1),
        "the labels are shifted by ½ but not spread to ±1: σ(v(y − ½)) is σ(±v/2). Take σ(v(2y − 1))": torch.sigmoid(
            TARGET_LOGIT * (y - 0.5)
        ),
        "this is a softmax over the classes, so the classes share one distribution: sigmoids answer C separate "
        "questions": (TARGET_LOGIT * (2 * y - 1)).softmax(1),
        "this is a softmax over the classes, and of v · y: sigmoids answer C separate questions, and y = 0 means −v": (
            TARGET_LOGIT * y
        ).softmax(1),
        "the negatives are below 0: they must become +ε = σ(−v)": y - epsilon,
        "on whole numbers ~y is −1 − y, and not 1 − y: write 1 - targets": y * high + (-1 - y) * epsilon,
        "this is the course's logit of 9: take the argument target_logit": torch.sigmoid(9.0 * (2 * y - 1)),
        "every label got σ(v · y): y = 0 must give σ(−v), not ½": torch.sigmoid(TARGET_LOGIT * y),
    }
    for sentence, values in wrong.items():
        if torch.allclose(answer, values, rtol=1e-4, atol=1e-6):
            return sentence
    return (
        f"at target logit {TARGET_LOGIT:g} a positive should become {high:.4g} and a negative {epsilon:.4g}; you "
        f"return {answer[0, 0].item():.4g} and {answer[0, 1].item():.4g}"
    )
