"""Checks of lesson 09: the affinity of labels, ASL's inverse, scattered answers, the loss of PSD, a fair claim.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions may answer with tensors, NumPy arrays or numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from math import comb

import numpy as np
import torch
from torch import Tensor

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import among, array, compare, number, numbers
from udlib.losses import asymmetric_loss
from udlib.methods.parallel import label_affinity

LABELS = np.array(
    [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 1]],
    float,
)
PARTS = [[1, 4, 0], [3], [5, 2]]  # no part in order, and no order its own inverse
ARMS = {
    "BCE": [0.741, 0.748, 0.755, 0.737, 0.744],
    "BCE, averaged": [0.749, 0.753, 0.761, 0.742, 0.753],
    "ASL": [0.756, 0.771, 0.768, 0.749, 0.764],
    "PSD": [0.766, 0.779, 0.784, 0.747, 0.777],
}


@exercise("09.1")
def affinity_of_labels(function: Callable) -> str | None:
    """`function(Y)` → S = (A + Aᵀ)/2 with A_ij = sqrt(M_ij / N_j) and diagonal 0."""
    try:
        value = called(function, LABELS.copy())
    except (AttributeError, TypeError):  # written for torch
        value = called(function, torch.from_numpy(LABELS.copy()))
    answer, problem = array(value, (4, 4), "one row and one column for each class")
    if problem:
        return problem
    M, N = LABELS.T @ LABELS, LABELS.sum(0)
    right, empty = label_affinity(M, N), 1 - np.eye(4)
    rate = M / N * empty
    overall = (M / len(LABELS)) ** 0.5
    return among(
        answer,
        right,
        {
            "the diagonal is kept: M_ii compares a class with itself and says nothing, so set it to 0": right
            + np.eye(4),
            "it is not symmetric: A_ij and A_ji are two rates of one pair, and S is their mean": rate**0.5,
            "it is not symmetric, and divides rows by N_i: M / N divides column j by N_j. S is the mean of both": (
                rate**0.5
            ).T,
            "it is not symmetric, and the diagonal is kept: set it to 0 and take the mean of A and its transpose": (
                M / N
            )
            ** 0.5,
            "the root is missing: A_ij is the root of the rate M_ij / N_j": (rate + rate.T) / 2,
            "this is the root of the mean of two rates: take the root of each rate first, then the mean": (
                (rate + rate.T) / 2
            )
            ** 0.5,
            "it divides by the number of all images: the rate is a share of the images of class j, so divide by N_j": overall
            * empty,
            "it divides by the number of all images, and keeps the diagonal": overall,
            "A + Aᵀ is twice as large: S is the mean of the two": 2 * right,
            "that is M, the counts: a common class appears often with every class. Divide by N_j": M,
            "that is M without its diagonal, the counts: a common class appears often with every class. Divide by "
            "N_j": M * empty,
            "this is the geometric mean (cosine) of the two roots: S is their arithmetic mean": (rate * rate.T) ** 0.25,
            "this is M_ij over the root of N_i N_j, the cosine of two classes: S is the mean of two roots": M
            / np.sqrt(np.outer(N, N))
            * empty,
        },
    )


@exercise("09.2")
def chance_from_asl(function: Callable) -> str | None:
    """`function(p, gamma, margin)` → π = r/(1 + r) with r = max(p − m, 0)^γ p / (1 − p + m)."""
    single, problem = number(called(function, 0.7, 4, 0.05))
    if problem:
        return problem
    p = np.array([0.01, 0.03, 0.2, 0.5, 0.8, 0.97])
    for gamma, margin in ((4, 0.05), (3, 0.1), (1, 0.0), (2.5, 0.04)):
        answer, problem = array(called(function, p.copy(), gamma, margin), p.shape, "one chance for each p")
        if problem:
            return problem
        m = np.clip(p - margin, 0, None)
        odds = m**gamma * p / (1 - p + margin)

        def chance(r: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                return r / (1 + r)

        with np.errstate(invalid="ignore", divide="ignore"):
            wrong = {
                "those are the odds r: the chance is r / (1 + r)": odds,
                "it is upside down: that is the chance of a 0, 1 − π": 1 / (1 + odds),
                "this is the focal weight without the margin: a negative counts p − m, and not at all below m": chance(
                    p**gamma * p / (1 - p)
                ),
                "for p below the margin this is a power of a negative base: clip p − m at 0 first": chance(
                    (p - margin) ** gamma * p / (1 - p + margin)
                ),
                "the factor p is missing: it comes from the slope of the sigmoid, p (1 − p), of which 1 − p "
                "cancels": chance(m**gamma / (1 - p + margin)),
                "the margin is missing in the denominator: the loss has log(1 − p + m)": chance(m**gamma * p / (1 - p)),
                "the denominator must be 1 − (p − m) = 1 − p + m": chance(m**gamma * p / (1 - p - margin)),
                "the numerator has the shifted probability a second time: the slope of the sigmoid has p itself, not "
                "p − m": chance(m ** (gamma + 1) / (1 - p + margin)),
                "that is the answer itself: the map of BCE. ASL's is another": p,
            }
        if not margin:  # then some of them coincide, or are right
            wrong = {sentence: value for sentence, value in wrong.items() if not np.allclose(value, chance(odds))}
        if problem := among(answer, chance(odds), wrong):
            where = f"with γ = {gamma:g}, m = {margin:g}, "
            return problem if "expected" not in problem else where + problem.removeprefix("on a small example ")
    r = 0.65**4 * 0.7 / 0.35
    return compare(single, r / (1 + r), {})


@exercise("09.3")
def scattered_answers(function: Callable) -> str | None:
    """`function(logits, parts)` → (N, C): column c is what the network of c's part said of class c."""
    right = torch.randn(3, 6, generator=torch.Generator().manual_seed(9))
    logits_by_part = [right[:, part].clone() for part in PARTS]
    answer, problem = array(
        called(function, [z.clone() for z in logits_by_part], [list(part) for part in PARTS]),
        (3, 6),
        "a row for each image and a column for each class",
    )
    order = [c for part in PARTS for c in part]
    joined = torch.cat(logits_by_part, 1)
    if problem:
        if answer.shape == (6, 3):
            return "rows and columns are exchanged: images are rows, classes are columns"
        return problem
    partly, by_part = torch.zeros_like(right), torch.zeros_like(right)
    partly[:, PARTS[0]] = logits_by_part[0]
    sorted_parts = torch.empty_like(right)
    for z, part in zip(logits_by_part, PARTS):
        sorted_parts[:, sorted(part)] = z
    by_part[:, PARTS[-1]] = logits_by_part[-1]
    return among(
        answer,
        right.numpy(),
        {
            key: value.numpy()
            for key, value in {
                "the columns are in the order of the parts: put each at the place of its class among all classes": joined,
                "the columns are moved the wrong way round: column n of the joined answers *goes to* place "
                "order[n]": joined[:, order],
                "only the first part is filled in, and zeros are left elsewhere: go through all parts": partly,
                "only the last part is left: one tensor must gather all parts, so make it before the loop": by_part,
                "the classes of a part are taken in rising order, but its columns are in the order in which the part "
                "lists them": sorted_parts,
            }.items()
        },
    )


@exercise("09.4")
def loss_of_psd(function: Callable) -> str | None:
    """`function(z, y, z_co, z_dis, alpha)` → ½ ASL + ½ α ‖z − z_co‖² + ½ (1 − α) ‖z − z_dis‖², teachers detached."""
    draw = torch.Generator().manual_seed(4)
    z, co, dis = (1.5 * torch.randn(5, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    y = (torch.rand(5, 4, generator=draw) < 0.4).long()
    alpha = 0.3
    student, *teachers = (part.clone().requires_grad_() for part in (z, co, dis))
    value = called(function, student, y, *teachers, alpha)
    answer, problem = number(value)
    if problem:
        return problem
    label = asymmetric_loss(z, y).item()
    to_co, to_dis = ((z - part).square().sum(1).mean().item() for part in (co, dis))
    right = (label + alpha * to_co + (1 - alpha) * to_dis) / 2
    if problem := compare(
        answer,
        right,
        {
            (label + (1 - alpha) * to_co + alpha * to_dis)
            / 2: "α stands at the wrong group: multiply the term of the co-occurrence teachers by α",
            label + alpha * to_co + (1 - alpha) * to_dis: "the halves are missing: all three terms are halved",
            label
            + (alpha * to_co + (1 - alpha) * to_dis)
            / 2: "the halves are missing at the labels' term: multiply it by ½ too",
            label / 2
            + alpha * to_co
            + (1 - alpha) * to_dis: "the halves are missing at the teachers' terms: multiply them by ½ too",
            (label + (alpha * to_co + (1 - alpha) * to_dis) / 4)
            / 2: "the distances are means over classes: take sums over classes, as for ASL, and means over images",
            (label + 5 * (alpha * to_co + (1 - alpha) * to_dis))
            / 2: "the distances are a sum over the images: take the mean over them",
            (5 * label + alpha * to_co + (1 - alpha) * to_dis)
            / 2: "ASL is a sum over the images: take the mean over them",
            5 * right: "it is a sum over the images: take the mean over them",
            (label + to_co + to_dis) / 2: "the weights α and 1 − α are missing",
            (label + alpha * (to_co + to_dis)) / 2: "both groups have the weight α: give the second 1 − α",
            (alpha * to_co + (1 - alpha) * to_dis)
            / 2: "the labels' term is missing: the student learns from the labels as well",
            (label + alpha * math.sqrt(to_co) + (1 - alpha) * math.sqrt(to_dis))
            / 2: "the distances are squared: leave out the root",
            (label + (z - alpha * co - (1 - alpha) * dis).square().sum(1).mean().item())
            / 2: "this is the distance to the teachers' mean: its gradient is right, but its value lacks a constant, "
            "which says how far the teachers disagree",
            (
                label
                + sum(
                    weight * (torch.sigmoid(z) - torch.sigmoid(part)).square().sum(1).mean().item()
                    for weight, part in ((alpha, co), (1 - alpha, dis))
                )
            )
            / 2: "it compares probabilities: take the distance between logits",
        },
    ):
        return problem
    if not isinstance(value, Tensor) or not value.requires_grad:
        return (
            "the value is right, but no gradient flows to the student: use tensors, without .item() or .detach() on z"
        )
    gradients = torch.autograd.grad(value, [student, *teachers], allow_unused=True)
    if any(g is not None and g.abs().max() > 1e-9 for g in gradients[1:]):
        return "the value is right, but a gradient flows to the teachers: detach their logits"
    p = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(
        (
            asymmetric_loss(p, y)
            + alpha * (p - co).square().sum(1).mean()
            + (1 - alpha) * (p - dis).square().sum(1).mean()
        )
        / 2,
        p,
    )
    if gradients[0] is None or not torch.allclose(gradients[0], expected, rtol=1e-4, atol=1e-6):
        return "the value is right, but the student's gradient is not: z must not be detached in any of the terms"
    return None


@exercise("09.5")
def wins_of_the_teachers(function: Callable) -> str | None:
    """`function(arms)` → (seeds in which PSD is above ASL, chance of so many or more if each seed is a fair coin)."""
    value = called(function, {name: list(scores) for name, scores in ARMS.items()})
    (wins, chance), problem = numbers(value, "(seeds won, chance of so many or more)", 2)
    if problem:
        return problem
    won, n = int(np.sum(np.array(ARMS["PSD"]) > np.array(ARMS["ASL"]))), len(ARMS["PSD"])
    tail = [sum(comb(n, k) for k in range(w, n + 1)) / 2**n for w in range(n + 2)]
    if problem := compare(
        wins,
        won,
        {
            float(
                np.sum(np.array(ARMS["PSD"]) > np.array(ARMS["BCE, averaged"]))
            ): "that compares PSD with BCE, so the effect of the loss is counted in: compare with ASL, seed by seed",
            float(np.sum(np.array(ARMS["ASL"]) > np.array(ARMS["PSD"]))): "that counts the seeds that PSD loses",
            float(
                sum(a > b for a in ARMS["PSD"] for b in ARMS["ASL"])
            ): "that compares every seed of one arm with every seed of the other: compare entry k with entry k",
            won / n: "that is the share of the seeds: return their number",
        },
    ):
        return problem
    return compare(
        chance,
        tail[won],
        {
            tail[won]
            * 2: "the number is right, and this is the chance for both directions: return that of so many *or more*",
            comb(n, won) / 2**n: "the number is right, but this is the chance of exactly so many: more count too",
            tail[won + 1]: "the number is right, but this is the chance of more than so many: so many counts too",
            1 - tail[won]: "the number is right, but this is the chance of fewer: return 1 minus it",
            1
            - tail[
                won + 1
            ]: "the number is right, but this is the chance of so many or fewer: return that of so many or more",
            0.5**won: "the number is right, but this leaves out the seed that is lost, which may be any of them",
            won / n: "the number is right, but this is the share of the seeds: return how often a fair coin does as "
            "well",
        },
    )
