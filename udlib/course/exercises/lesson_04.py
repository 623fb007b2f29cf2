"""Checks of lesson 04: class-wise ECE, a temperature from validation, the noise of an ECE, company and confidence.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions are called with torch tensors; they may answer with tensors, NumPy numbers or floats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from udlib.calibration import expected_calibration_error, maximum_calibration_error, negative_log_likelihood
from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import compare, number, numbers

# No probability on an inner edge of 5 bins; class 1 leaves bins empty; 0 and 1 occur; the classes err in both
# directions.
PROBABILITIES = torch.tensor(
    [
        [0.03, 0.95, 0.37],
        [0.12, 1.00, 0.45],
        [0.17, 1.00, 0.31],
        [0.33, 0.91, 0.72],
        [0.49, 0.85, 0.67],
        [0.55, 0.09, 0.00],
        [0.71, 0.05, 0.00],
        [0.88, 0.13, 0.92],
        [0.93, 0.99, 0.53],
        [0.96, 0.97, 0.25],
    ],
    dtype=torch.float64,
)
TARGETS = torch.tensor(
    [[0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 0, 0]]
)
BINS = 5


@exercise("04.1")
def classwise_ece(function) -> str | None:
    """`function(probabilities, targets, bins)` → Eq. 2 with bins of equal width, for each class, then the mean."""
    try:
        value = called(function, PROBABILITIES, TARGETS, BINS)
    except IndexError as error:
        return (
            f"it stopped with IndexError: {error}. A probability of exactly 1 belongs to the last bin; there is no "
            "bin after it"
        )
    answer, problem = number(value)
    if problem:
        return problem
    if math.isnan(answer):
        return "it gives NaN: an empty bin has no mean. Skip it, since its weight is 0"
    right = expected_calibration_error(PROBABILITIES, TARGETS, BINS)
    return compare(answer, right, _wrong_eces(PROBABILITIES, TARGETS, BINS))


def _wrong_eces(p: Tensor, y: Tensor, bins: int) -> dict[float, str]:
    """What the classic mistakes make of the class-wise ECE."""
    sides = torch.maximum(p, 1 - p)
    folded = "the bins hold max(p, 1 − p), the confidence in the decision: Eq. 2 bins P(y = 1), from 0 to 1"
    unweighted = "this is the unweighted mean over the bins: weight each gap by the bin's share of the images"
    lost = "a probability of exactly 1 got lost: it belongs to the last bin"
    signed = "signed gaps cancel: take the absolute value in each bin, before the sum"
    wrong = {}
    for average, also in (("classwise", ""), ("pooled", ", and it is pooled over the classes")):
        which = (p * bins).long().clamp(max=bins - 1)
        columns = [(p[:, k], y[:, k].double(), which[:, k]) for k in range(p.shape[1])]
        if average == "pooled":
            columns = [(p.flatten(), y.flatten().double(), which.flatten())]
        gaps = [torch.stack([y_[w == b].mean() - p_[w == b].mean() for b in w.unique()]) for p_, y_, w in columns]
        weights = [torch.stack([(w == b).double().mean() for b in w.unique()]) for _, _, w in columns]
        inside = [
            torch.stack([((y_ - p_) * (w == b) * keep(p_)).sum().abs() for b in range(bins)]).sum() / len(p_)
            for keep in (lambda q: q < 1, lambda q: q > 0)
            for p_, y_, w in columns
        ]
        half = len(columns)
        wrong |= {
            _mean(g.abs().mean() for g in gaps): unweighted + also,
            _mean(g.abs().sum() / bins for g in gaps): unweighted + also,
            _mean((w * g).sum().abs() for w, g in zip(weights, gaps)): signed + also,
            _mean((w * g).sum() for w, g in zip(weights, gaps)): signed + also,
            _mean(-(w * g).sum() for w, g in zip(weights, gaps)): signed + also,
            _mean(inside[:half]): lost + also,
            _mean(inside[half:]): "a probability of exactly 0 got lost: it belongs to the first bin" + also,
            maximum_calibration_error(p, y, bins, average): "this is the largest gap: Eq. 2 takes the weighted mean"
            + also,
            expected_calibration_error(sides, ((p >= 0.5) == y.bool()).int(), bins, average): folded + also,
        }
        wrong |= {_folded_upper_half(p, y, bins, average): folded + also}
    return wrong | {
        expected_calibration_error(
            p, y, bins, "pooled"
        ): "this is the pooled ECE: bin each class apart, then take the mean over the classes",
        expected_calibration_error(p, y, bins) * p.shape[1]: "it sums over the classes: take their mean",
        expected_calibration_error(p, y, bins) * len(p): "it sums over the images: divide by their number",
        expected_calibration_error(
            p, y, bins, binning="mass"
        ): "these are bins of equal mass: take bins of equal width",
    }


def _folded_upper_half(p: Tensor, y: Tensor, bins: int, average: str) -> float:
    """The error of decisions with `bins` bins over [½, 1], the confidence's own range."""
    sides = 2 * torch.maximum(p, 1 - p) - 1
    which, gap = (sides * bins).long().clamp(max=bins - 1), ((p >= 0.5) == y.bool()).double() - torch.maximum(p, 1 - p)
    columns = zip(which.T, gap.T) if average == "classwise" else [(which.flatten(), gap.flatten())]
    return _mean(sum((g * (w == b)).sum().abs() for b in range(bins)) / len(g) for w, g in columns)


def _mean(values) -> float:
    return float(np.mean([float(value) for value in values]))


@exercise("04.2")
def temperature_from_validation(function) -> str | None:
    """`function(val_z, val_y, test_z, test_y, temperatures)` → (T of the lowest NLL on val; test NLL, pooled ECE)."""
    generator = torch.Generator().manual_seed(4)
    val_z, test_z = (2 * torch.randn(300, 3, generator=generator, dtype=torch.float64) - 1 for _ in range(2))
    # labels that want other temperatures on the two splits
    val_y, test_y = (
        torch.rand(z.shape, generator=generator, dtype=torch.float64) < torch.sigmoid(z / temperature_of_labels)
        for z, temperature_of_labels in ((val_z, 2.5), (test_z, 1.4))
    )
    temperatures = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5]
    value = called(function, val_z, val_y.int(), test_z, test_y.int(), temperatures)
    (temperature, nll, ece), problem = numbers(value, "(temperature, NLL on test, pooled ECE on test)", 3)
    if problem:
        return problem

    def best(z: Tensor, y: Tensor, score=negative_log_likelihood, inverse: bool = False) -> float:
        return min(temperatures, key=lambda t: score(torch.sigmoid(z * t if inverse else z / t), y))

    right = best(val_z, val_y)
    wrong = {
        best(val_z, val_y, inverse=True): "that multiplies by T: a temperature divides the logits, σ(z / T)",
        best(test_z, test_y): "it was fitted on the test images, so they can no longer judge it. Choose T on "
        "validation",
        best(
            test_z, test_y, inverse=True
        ): "it was fitted on the test images, and multiplies by T: divide, on validation",
        best(
            val_z, val_y, lambda q, y: expected_calibration_error(q, y, average="pooled")
        ): "it has the lowest ECE: take the lowest NLL, which is a proper score and less noisy",
        max(temperatures): "you took the largest temperature, not the one with the lowest NLL",
        best(torch.cat([val_z, test_z]), torch.cat([val_y, test_y])): "validation and test are pooled: the test "
        "images may judge the temperature, but must take no part in choosing it",
        max(
            temperatures, key=lambda t: negative_log_likelihood(torch.sigmoid(val_z / t), val_y)
        ): "it has the highest NLL: take the lowest",
    }
    if not math.isclose(temperature, right, abs_tol=1e-6):
        explanation = next(
            (sentence for t, sentence in wrong.items() if math.isclose(temperature, t, abs_tol=1e-6)), None
        )
        explanation = explanation or f"on validation the NLL is lowest at {right:g}"
        return f"the temperature is {temperature:.3g}: {explanation}"
    scores = {
        name: (
            negative_log_likelihood(q, y),
            expected_calibration_error(q, y, average="pooled"),
            expected_calibration_error(q, y),
        )
        for name, q, y in (
            ("right", torch.sigmoid(test_z / right), test_y),
            ("validation", torch.sigmoid(val_z / right), val_y),
            ("plain", torch.sigmoid(test_z), test_y),
            ("times", torch.sigmoid(test_z * right), test_y),
        )
    }
    wrong_scores = {
        "validation": "those of validation: report on the test images",
        "plain": "those before the temperature: divide the test logits by it as well",
        "times": "those of logits multiplied by T: it divides the logits",
    }
    for name, sentence in wrong_scores.items():
        if math.isclose(nll, scores[name][0], rel_tol=1e-4) or math.isclose(ece, scores[name][1], rel_tol=1e-4):
            return f"the temperature is right, but the scores beside it are {sentence}"
    if math.isclose(ece, scores["right"][2], rel_tol=1e-4):
        return "the temperature is right, but the ECE beside it is the class-wise one: report the pooled ECE"
    for name, answer, right_score in zip(("NLL", "ECE"), (nll, ece), scores["right"]):
        if not math.isclose(answer, right_score, rel_tol=1e-4, abs_tol=1e-6):
            return (
                f"the temperature is right, but the {name} on the test images is {right_score:.4g} there, not "
                f"{answer:.4g}"
            )
    return None


@exercise("04.3")
def noise_of_a_perfect_model(function) -> str | None:
    """`function(probabilities, draws, generator)` → mean class-wise ECE of labels drawn from the probabilities."""
    p = torch.rand(150, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    p = p**2 * 0.98 + 0.01  # skewed like real answers: a fair coin or a threshold gives something else

    def ask(draws: int, seed: int):
        return number(called(function, p, draws, torch.Generator().manual_seed(seed)))

    try:
        answer, problem = ask(200, 0)
    except (NameError, ValueError) as error:
        return (
            f"it stopped with {type(error).__name__}: {error}. If you used the real labels: this task needs none. "
            "Draw labels from the probabilities, inside the function"
        )
    if problem:
        return problem
    errors = _drawn(p, p)
    right, off = float(np.mean(errors)), float(np.std(errors))
    problem = compare(
        answer,
        right,
        {
            expected_calibration_error(
                p, (p >= 0.5).int()
            ): "the labels are thresholded, p ≥ 0.5, and not drawn: at a probability of 0.7, seven draws in ten must "
            "be 1",
            expected_calibration_error(
                p, (p > 0.5).int(), average="pooled"
            ): "the labels are thresholded and the ECE is pooled: draw them, class-wise",
            0.0: "it gives 0: even a perfectly calibrated model shows an ECE above 0 on finite data",
        },
    )
    if problem and "expected" not in problem:
        return problem
    if math.isclose(answer, ask(1, 0)[0], rel_tol=1e-9):
        return "1 draw and 200 draws give the same answer: expected the mean over `draws` sets of labels"
    if not math.isclose(answer, ask(200, 0)[0], rel_tol=1e-9):
        return "the same seed gives two different answers: pass the generator to every draw"
    near = 5 * off * math.sqrt(1 / 200 + 1 / 100)  # five standard errors of the two means
    if abs(answer - right) <= near:
        same = math.isclose(answer, ask(200, 1)[0], rel_tol=1e-9)
        return "another seed gives the same answer: use the generator that your function gets" if same else None
    alternatives = {
        "it draws each label from a fair coin: draw it from its probability": np.mean(
            _drawn(p, torch.full_like(p, 0.5))
        ),
        "it draws 1 where it should draw 0: P(y = 1) is p, not 1 − p": np.mean(_drawn(p, 1 - p)),
        "this is the pooled ECE: take the class-wise one": np.mean(_drawn(p, p, average="pooled")),
        "it sums over the draws: take their mean": 200 * right,
    }
    for sentence, wrong in alternatives.items():
        if abs(answer - wrong) <= max(near, 0.03 * wrong):
            return sentence
    return (
        f"on a small example it gives {answer:.4g}, expected about {right:.4g} (± {near:.2g}): the mean over 200 sets "
        f"of "
        "labels, drawn from the probabilities"
    )


def _drawn(p: Tensor, chances: Tensor, **options) -> list[float]:
    """The ECE of 100 sets of labels drawn from `chances`."""
    generator = torch.Generator().manual_seed(7)
    return [expected_calibration_error(p, torch.bernoulli(chances, generator=generator), **options) for _ in range(100)]


@exercise("04.4")
def company_and_confidence(function) -> str | None:
    """`function(probabilities, targets)` → mean y − p among p ≥ 0.5 with ≥ 3 other labels, minus that with ≤ 1."""
    generator = torch.Generator().manual_seed(6)
    p = torch.rand(24, 6, generator=generator, dtype=torch.float64)
    y = (torch.rand(24, 6, generator=generator, dtype=torch.float64) < 0.15 + 0.5 * p).double()
    answer, problem = number(called(function, p, y))
    if problem:
        return problem
    own, total = y.sum(1, keepdim=True) - y, y.sum(1, keepdim=True).expand_as(y)
    sure, residual = p >= 0.5, y - p

    def effect(values: Tensor, counts: Tensor, selected: Tensor, few: int = 1, many: int = 3) -> float:
        return (values[selected & (counts >= many)].mean() - values[selected & (counts <= few)].mean()).item()

    right = effect(residual, own, sure)
    return compare(
        answer,
        right,
        {
            effect(residual, total, sure): "it counts the label itself: leave y_i out of the number of others",
            -right: "the sign is the wrong way round (few minus many, or p − y): take y − p, and many minus few",
            effect(residual, own, torch.ones_like(sure)): "it takes all answers: use only the confident ones, p ≥ 0.5",
            effect(residual, total, torch.ones_like(sure)): "it takes all answers, and it counts the label itself",
            effect(
                y, own, sure
            ): "it compares shares alone: but the two groups may also differ in confidence, so take y − p",
            effect(residual, own, sure, 2, 3): "few means at most 1 other label here, not 2",
            effect(residual, own, sure, 1, 4): "many means at least 3 other labels: compare with >=",
            effect(residual, own, sure, 0, 3): "few means 0 or 1 other label: compare with <=",
            residual[sure & (own >= 3)]
            .mean()
            .item(): "that is only the mean with many others: subtract the mean with few",
        },
    )
