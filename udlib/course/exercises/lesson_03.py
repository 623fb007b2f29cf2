"""Checks of lesson 03: the loss of Eq. 11 with one more rival, z' of Eq. 7, an honest search for λ, and what λ weighs.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions are called with torch tensors (03.3: with lists); they may answer with tensors, arrays or floats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import array, compare, differentiable, number, numbers
from udlib.course.exercises.choices import (
    PARTS,
    best_on_validation,
    example_scores,
    other_searches,
    reports,
    wrong_choice,
)
from udlib.losses import one_over_k_softmax_loss, pal_n_loss, pick_all_labels_marginals

LOGITS = torch.tensor([[2.0, -1.0, 0.5, -3.0, 0.3], [-0.5, 1.5, -2.0, 0.0, 1.0], [1.0, -1.0, 3.0, -0.2, 0.4]])
TARGETS = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0]])  # one, two and three positives

# Sets of three labels, the empty one among them; in each row some probability, so that no two mistakes agree.
SETS = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]])
WEIGHTS = torch.tensor([0.10, 0.20, 0.15, 0.05, 0.25, 0.07, 0.18], dtype=torch.float64)

VAL, TEST = example_scores([0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 29.0, 100.0])  # mAPs of five seeds for each λ


@exercise("03.1")
def pal_n_with_a_rival(function) -> str | None:
    """`function(logits, targets)` → Eq. 11 with one more rival of logit 0: mean over positives, mean over images."""
    leaf = LOGITS.clone().requires_grad_()
    value = called(function, leaf, TARGETS.clone())
    answer, problem = number(value)
    if problem:
        return problem
    if math.isnan(answer):
        return (
            "it gives nan: where f is 0, as at the negatives of the cell above, log f is −∞, and 0 · log 0 is nan. Take "
            "log f only at the positives, with torch.where"
        )
    mistakes = _pal_n_mistakes(LOGITS, TARGETS) | _mistakes_in_logarithms(LOGITS, TARGETS)
    problem = compare(answer, _with_rival(LOGITS, TARGETS).item(), mistakes)
    return problem or differentiable(value) or _pal_n_edges(function)


def _with_rival(z: Tensor, y: Tensor) -> Tensor:
    """Eq. 11 where "none of these", with a logit of 0, stands in every denominator: one more negative class."""
    rival = torch.zeros(len(z), 1)
    return pal_n_loss(torch.cat([z, rival], 1), torch.cat([y, rival], 1))


def _pal_n_mistakes(z: Tensor, y: Tensor) -> dict[float, str]:
    """What the classic mistakes make of the loss."""
    e, k, right = z.exp(), y.sum(1), _with_rival(z, y).item()
    negatives, positives = ((e * part).sum(1, keepdim=True) for part in (1 - y, y))
    f = e / (1 + e + negatives)
    surprise = -f.log() * y

    def mean(surprise: Tensor) -> float:
        return ((surprise * y).sum(1) / k).mean().item()

    missing = (
        "the rival 'none of these' is missing, so this is Eq. 10, as in the cell above: add e^0 = 1 to every "
        "denominator"
    )
    full = (
        "this is a full softmax: the other positives are in the denominator too. Only the positive itself, the "
        "negatives and the new rival belong there"
    )
    inverted = "the mask is inverted: it keeps the positives and hides the negatives, which are the rivals"
    by_zero = "a logit that is multiplied by 0 becomes 0, and e^0 = 1 is still in the sum: mask it with −∞"
    bce = "this is a binary cross-entropy of f: Eq. 11 has log f at the positives, and nothing at the negatives"
    zeroed = (e**0 * y).sum(1, keepdim=True) + negatives
    cross = F.binary_cross_entropy(f, y, reduction="none")
    return {
        pal_n_loss(z, y).item(): missing,
        one_over_k_softmax_loss(z, y).item(): f"{full}; and 'none of these' is missing",
        mean(((1 + e.sum(1, keepdim=True)) / e).log()): full,
        mean(((e + positives) / e).log()): inverted,
        mean(((1 + e + positives) / e).log()): inverted,
        mean(((1 + positives) / e).log()): inverted,
        mean(((e + zeroed) / e).log()): by_zero,
        mean(((1 + e + zeroed) / e).log()): by_zero,
        cross.mean().item(): bce,
        cross.sum(1).mean().item(): bce,
        _with_rival(z - z.amax(1, keepdim=True), y).item(): "the largest logit is subtracted from every logit but not "
        "from that of 'none of these', which then is −max",
        surprise.sum(1).mean().item(): "this is the sum over the positives of an image: Eq. 11 takes their mean, so "
        "divide by |C_p|",
        (surprise.sum() / k.sum()).item(): "this divides by all images' positives at once: take the mean over the "
        "positives of each image first, or crowded images weigh more",
        (surprise.sum(1) / k[-1]).mean().item(): "every image is divided by the last image's number of positives, as "
        "in the released code: each image has its own number",
        (surprise.sum(1) / k).sum().item(): "this is the sum over the images: the loss of a batch is their mean",
        -right: "the sign is the wrong way round: log f is negative, so the loss needs the minus of Eq. 11",
        mean(((1 + negatives) / e).log()): "the positive itself is missing in its denominator",
        mean(F.softplus(-z)): "this is −log σ(z) at the positives: the negatives are missing in the denominator",
        (surprise.sum(1) / y.shape[1]).mean().item(): "this divides by the number of classes: divide by the number of "
        "positives of each image",
    }


def _mistakes_in_logarithms(z: Tensor, y: Tensor) -> dict[float, str]:
    """What slips with softplus and logsumexp make of the loss."""
    negatives = z.exp() * (1 - y)
    lse = negatives.sum(1, keepdim=True).log()
    rivals = torch.logaddexp(lse, torch.zeros(()))

    def mean(surprise: Tensor) -> float:
        return ((surprise * y).sum(1) / y.sum(1)).mean().item()

    return {
        mean(F.softplus(lse + 1 - z)): "1 is added to the logarithm: it belongs under it, log(1 + Σ e^z), which is "
        "torch.logaddexp(lse, 0)",
        mean(F.softplus(torch.logaddexp(lse, torch.ones(())) - z)): "the logit of 'none of these' is 1 here, which "
        "adds e^1 to the sum: its logit is 0, and e^0 is 1",
        mean(F.softplus(z - rivals)): "this is −log(1 − f): the two terms in the softplus are swapped, and −log f is "
        "softplus(lse − z)",
        mean(F.softplus((1 + negatives.sum(0)).log() - z)): "the negatives are summed over the images: the rivals of "
        "a positive are in its own image, so sum over the classes, dim 1",
    }


def _pal_n_edges(function) -> str | None:
    """Images without positives or without negatives, gradients, and logits at which e^z overflows."""
    empty = TARGETS.clone()
    empty[1] = 0
    leaf = LOGITS.clone().requires_grad_()
    value = called(function, leaf, empty)
    answer, problem = number(value)
    if problem:
        return f"with an image without a positive, {problem}"
    right = _with_rival(LOGITS, empty).item()
    if not math.isfinite(answer):
        return (
            f"with an image without a positive it gives {answer}: there, 0 is divided by 0. Such an image counts as "
            "0, so divide by the number of positives or 1, whichever is larger"
        )
    if not math.isclose(answer, right, rel_tol=1e-4):
        left_out = (
            " You left it out of the mean, but it counts as 0 and stays in."
            if math.isclose(answer, right * 3 / 2, rel_tol=1e-4)
            else ""
        )
        return f"with an image without a positive it gives {answer:.4g}, expected {right:.4g}.{left_out}"
    value.backward()
    if not leaf.grad.isfinite().all() or leaf.grad[1].any():
        return (
            "the values are right, but an image without a positive gets a gradient that is not 0: a NaN or an "
            "infinity "
            "in a branch of torch.where still reaches the gradient"
        )
    every = torch.ones_like(TARGETS)
    answer, problem = number(called(function, LOGITS.clone(), every))
    right = _with_rival(LOGITS, every).item()
    if problem or not math.isclose(answer, right, rel_tol=1e-4):
        return problem or (
            f"where every class is positive, 'none of these' is the only rival and the loss is {right:.4g}, not "
            f"{answer:.4g}"
        )
    return _pal_n_extremes(function)


def _pal_n_extremes(function) -> str | None:
    """Logits of ±10,000, at which e^z overflows, and what an attempt does against it."""
    crowded = torch.tensor([[100.0, 80.0, 90.0]])
    answer, _ = number(called(function, crowded, torch.ones_like(crowded)))
    overflows = not math.isfinite(answer)
    extreme = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    answer, problem = number(called(function, extreme, torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])))
    if problem:
        return f"at logits of ±10,000, {problem}"
    if math.isclose(answer, 1e4, rel_tol=1e-4):
        return _masked_by_a_number(function)
    happens = (
        "e^z overflows"
        if overflows
        else "log f cannot get that low where a logit is cut off, or where a small number is added to f"
        if math.isfinite(answer)
        else "without the largest logit nothing overflows, but e^z of the others rounds to 0, log 0 is −∞, and "
        "0 · log 0 has no value"
    )
    return (
        f"at logits of ±10,000 it gives {answer:.4g}, the loss is 10000: {happens}. Stay in logarithms: −log f = "
        "softplus(logaddexp(logsumexp over the negatives, 0) − z)"
    )


def _masked_by_a_number(function) -> str | None:
    """A positive logit of 10,000, which a mask of −10,000 moves to 0, where it is a rival still."""
    logits, targets = torch.tensor([[1e4, 0.0, -1e4]]), torch.tensor([[1.0, 1, 0]])
    answer, problem = number(called(function, logits, targets))
    right = _with_rival(logits, targets).item()
    if problem or math.isclose(answer, right, rel_tol=1e-4):
        return problem
    return (
        f"at logits of ±10,000 it gives {answer:.4g}, the loss is {right:.4g}. If the positives are masked with a "
        "number, it is too small for such logits: mask with −∞"
    )


@exercise("03.2")
def z_prime_of_a_joint_distribution(function) -> str | None:
    """`function(labels, probabilities)`, (M, C) and (M,) → P(z' = i) of Eq. 7, (C,)."""
    value, classes = called(function, SETS.clone(), WEIGHTS.clone()), SETS.shape[1]
    values, problem = array(value, (classes,), f"a vector of {classes} numbers, one for each class")
    if problem:
        return problem
    answer, right = torch.from_numpy(values), pick_all_labels_marginals(SETS, WEIGHTS)
    if torch.allclose(answer, right, atol=1e-5):
        return None
    alone = "a label that is alone in its image gives 1/0, so the 1 + in the denominator is missing"
    if answer.isinf().any():
        return f"it gives {_row(answer)}: {alone}"
    if answer.isnan().any():
        return (
            f"it gives {_row(answer)}: 0 divided by 0. If it comes from the empty set: nothing is picked there, and "
            f"it adds 0. Otherwise {alone}"
        )
    for wrong, sentence in _z_prime_mistakes(right, alone):
        if torch.allclose(answer, wrong, atol=1e-5):
            return sentence
    return f"on a small example it gives {_row(answer)}, expected {_row(right)}"


def _z_prime_mistakes(right: Tensor, alone: str) -> list[tuple[Tensor, str]]:
    """What the classic mistakes make of z', and the sentence about each."""
    y, weights = SETS.double(), WEIGHTS[:, None]
    size = y.sum(1, keepdim=True)
    others, marginals = size - y, WEIGHTS @ y
    over_all = "the mean is taken over all sets: Eq. 7 takes it given y_i = 1, only over the sets that hold label i"
    unweighted = "the probabilities of the sets are not used: a rare set must count less"
    mean_first = "the mean of 1/(1 + n) is not 1/(1 + mean of n): divide first, then take the mean"
    ignored = "these are the normalised marginals, which ignore the other labels of an image"
    return [
        ((weights * y / others.clamp(min=1)).sum(0), alone),
        (
            (weights * y / (1 + size)).sum(0),
            "this counts label i twice, once in the sum and once in the 1 +: the sum of Eq. 7 runs over j ≠ i",
        ),
        (marginals * (weights / (1 + others)).sum(0), over_all),
        (marginals * (weights / size.clamp(min=1)).sum(), over_all),
        (marginals * (weights / size.clamp(min=1))[size > 0].sum(), over_all),
        ((y / (1 + others)).mean(0), unweighted),
        ((y / (1 + others)).sum(0), unweighted),
        ((y / (1 + others)).sum(0) / y.sum(0), unweighted),
        (right / marginals, "this is the conditional mean alone: multiply it by P(y_i = 1)"),
        (marginals / marginals.sum(), ignored),
        (marginals, "these are the marginals P(y_i = 1): the factor for the number of other labels is missing"),
        (marginals / (1 + WEIGHTS @ others), mean_first),
        (marginals**2 / (weights * y * size).sum(0), mean_first),
        (
            (weights * y / y.sum(0)).sum(0),
            "this divides by the number of sets that hold a label: divide by the number of labels in each set",
        ),
        (
            right / right.sum(),
            "this is z' given at least one label: Eq. 7 is not normalised, and sums to 1 − P(no label)",
        ),
    ]


@exercise("03.3")
def search_on_validation(function) -> str | None:
    """`function(val, test)` → (λ chosen on validation, paired mean difference to λ = 0 on test, low, high)."""
    value = called(function, {lam: list(v) for lam, v in VAL.items()}, {lam: list(v) for lam, v in TEST.items()})
    (lam, *interval), problem = numbers(value, PARTS, 4)
    if problem:
        return problem
    problem = wrong_choice(lam, VAL, TEST, "λ")
    if problem:
        return problem
    candidates = reports(best_on_validation(VAL), VAL, TEST)
    right = candidates[0][0]
    for candidate, sentence in candidates:
        if all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(interval, candidate)):
            return sentence or other_searches(lambda *scores: called(function, *scores))
    if not math.isclose(interval[0], right[0], abs_tol=1e-6):
        return f"λ is right, but the mean difference on test is {right[0]:.4g} there, not {interval[0]:.4g}"
    return (
        f"λ and the mean are right, but the interval is [{right[1]:.4g}, {right[2]:.4g}], not [{interval[1]:.4g}, "
        f"{interval[2]:.4g}]"
    )


@exercise("03.4")
def paper_lambda_of_released(function) -> str | None:
    """`function(released, num_classes)` → the λ of Eq. 12 beside a sum that is `released` beside a mean: C·λ."""
    for released, classes in ((0.1, 16), (1.0, 80)):
        answer, problem = number(called(function, released, classes))
        if problem:
            return problem
        problem = compare(
            answer,
            released * classes,
            {
                released
                / classes: "this is the other way round: next to a mean over C classes, a term weighs C times more",
                released: "the same λ weighs C times more next to a mean than next to a sum",
                released * classes / 2: "the released code halves both terms, so the ½ cancels in their ratio",
                released
                / (2 * classes): "the factor 1/(2C) stands before the whole loss and changes no direction: the "
                "λ of the paper's scale is what multiplies L_ps inside the last bracket",
                2 * released * classes: "the factor 2C divides both terms of the loss, so it cancels in their ratio",
            },
        )
        if problem:
            return problem
    return None


def _row(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values.tolist()) + ")"
