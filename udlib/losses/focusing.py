"""Losses against labels that focus: they give less weight to labels that are already predicted well."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.losses.checks import Reduction, labelled, require, require_reduction
from udlib.losses.reductions import over_images


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = 2.0,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss: binary cross-entropy that gives a label less weight the better it is predicted.

    −Σ_i (1−p_t)^γ log p_t, where p_t is the probability of the label's true value: σ(z_i) at the positives and 1−σ(z_i)
    at the negatives. It is summed over classes; γ = 0 is `ova_loss`. The gradient also flows through the focusing
    weight (1−p_t)^γ, in contrast to `asymmetric_loss`. There is no class weight α.

    Args:
        logits: (N, C), z.
        targets: (N, C) in {0, 1}, any dtype.
        gamma: γ, focus on the labels that are predicted badly, at least 0 and finite.
        ignore: (N, C) bool, True = label left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: as `ova_loss`.
        ValueError: a γ that is negative or infinite, mismatched shapes, targets outside {0, 1}, an unknown `reduction`.

    Example:
        >>> focal_loss(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))  # 4 · ½² · log 2
        tensor(0.6931)

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 4.
    """
    require_reduction(reduction)
    require("gamma", gamma, 0 <= gamma < math.inf, "at least 0, and finite")
    z, positive, negative = labelled(logits, targets, ignore)

    cross_entropy = F.binary_cross_entropy_with_logits(z, positive.to(z.dtype), reduction="none")
    # (1 − p_t)^γ, computed from its logarithm: a power would have an infinite gradient at p_t = 1 for γ < 1.
    focus = torch.exp(gamma * F.logsigmoid(torch.where(positive, -z, z)))
    return over_images((focus * cross_entropy * (positive | negative)).sum(1), reduction)


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    margin: float = 0.05,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Asymmetric loss: binary cross-entropy that gives easy negatives less weight than positives.

    −Σ_i [y (1−p)^γ₊ log p + (1−y) p_m^γ₋ log(1−p_m)] with p = σ(z) and p_m = max(p − margin, 0), summed over classes.
    The focusing weights (1−p)^γ₊ and p_m^γ₋ are constants for the gradient.

    Args:
        logits: (N, C), z.
        targets: (N, C) in {0, 1}, any dtype, y.
        gamma_neg: γ₋, focus of the negatives, at least 0.
        gamma_pos: γ₊, focus of the positives, at least 0.
        margin: probability below which a negative costs nothing, in [0, 1).
        ignore: (N, C) bool, True = label left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: as `ova_loss`.
        ValueError: a negative γ, a margin outside [0, 1), mismatched shapes, targets outside {0, 1}, an unknown
            `reduction`.

    Example:
        >>> asymmetric_loss(torch.zeros(1, 2), torch.tensor([[1, 1]]))  # 2 log 2: no focus on positives
        tensor(1.3863)

    Source: ASL.
    """
    require_reduction(reduction)
    require("gamma_neg", gamma_neg, gamma_neg >= 0, "at least 0")
    require("gamma_pos", gamma_pos, gamma_pos >= 0, "at least 0")
    require("margin", margin, 0 <= margin < 1, "a probability below 1")
    z, positive, negative = labelled(logits, targets, ignore)

    p = torch.sigmoid(z.detach())
    focus = torch.where(positive, (1 - p) ** gamma_pos, (p - margin).clamp(min=0) ** gamma_neg)
    # log(1 − p_m) = log min(1, σ(−z) + margin), summed in logs so that margin 0 survives p = 1.
    log_margin = z.new_full((), math.log(margin) if margin > 0 else -math.inf)
    log_absent = torch.logaddexp(F.logsigmoid(-z), log_margin).clamp(max=0)
    per_label = -focus * torch.where(positive, F.logsigmoid(z), log_absent) * (positive | negative)
    return over_images(per_label.sum(1), reduction)
