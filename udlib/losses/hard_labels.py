"""Losses against labels: one-versus-all, PAL-N and its relatives, and both branches together."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.losses.checks import (
    Reduction,
    Scale,
    floating,
    is_available,
    is_released,
    labelled,
    positives,
    require_reduction,
    require_temperature,
)
from udlib.losses.distillation import bernoulli_kl
from udlib.losses.reductions import average, leave_out, over_images, weighted_mean


def ova_loss(
    logits: Tensor, targets: Tensor, ignore: Tensor | None = None, reduction: Reduction = "mean", scale: Scale = "paper"
) -> Tensor:
    """One-versus-all loss: the binary cross-entropy of every label.

    −Σ_i [y_i log σ(z_i) + (1−y_i) log(1−σ(z_i))]. `paper` sums over the classes; `released` averages over them (over
    the kept ones where labels are ignored).

    Args:
        logits: (N, C), z.
        targets: (N, C) in {0, 1}, any dtype, y.
        ignore: (N, C) bool, True = label left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.
        scale: "paper" or "released", as above.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: logits that are not a floating-point tensor, targets that are no tensor, `ignore` that is not bool.
        ValueError: mismatched shapes, targets outside {0, 1}, an unknown `reduction` or `scale`.

    Example:
        >>> ova_loss(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))  # 4 log 2
        tensor(2.7726)

    Source: UD, Eq. 3.
    """
    require_reduction(reduction)
    released = is_released(scale)
    z, positive, negative = labelled(logits, targets, ignore)

    kept = positive | negative
    per_label = F.binary_cross_entropy_with_logits(z, positive.to(z.dtype), reduction="none") * kept
    return over_images(average(per_label, kept) if released else per_label.sum(1), reduction)


def partial_softmax(logits: Tensor, targets: Tensor, ignore: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Probability of each positive class against all negative ones.

    f_i = e^{z_i} / (e^{z_i} + Σ_{j∈C_n} e^{z_j}), C_n being the negatives of the image.

    Args:
        logits: (N, C), z.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = label left out.
        temperature: T, above 0; the softmax is that of z/T.

    Returns:
        (N, C) in [0, 1]: f_i at the positives, 0 elsewhere; f_i = 1 where an image has no negative.

    Raises:
        TypeError: as `ova_loss`.
        ValueError: mismatched shapes, targets outside {0, 1}, a temperature that is not above 0.

    Example:
        >>> partial_softmax(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))
        tensor([[0.3333, 0.0000, 0.0000, 0.3333]])

    Source: UD, Eq. 10.
    """
    require_temperature(temperature)
    z, positive, negative = labelled(logits, targets, ignore)

    return torch.sigmoid(_partial_logits(z, negative, temperature)) * positive


def pal_n_loss(
    logits: Tensor,
    targets: Tensor,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
    temperature: float = 1.0,
) -> Tensor:
    """Pick-all-labels loss, normalised: the mean of −log f over an image's positives.

    −1/|C_p| Σ_{i∈C_p} log f_i, f being `partial_softmax`. An image without positives, or without negatives, contributes
    0. There is no T² factor: with `temperature` = 3 this is the row "Softmax with temperature" of UD, Table 5. Both
    scales are the same here: the released code meant to average each image over its own positives.

    Args:
        logits: (N, C).
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = label left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.
        temperature: T, above 0; the partial softmax is that of z/T.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: as `ova_loss`.
        ValueError: mismatched shapes, targets outside {0, 1}, a temperature that is not above 0, an unknown
            `reduction`.

    Example:
        >>> pal_n_loss(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))  # log 3
        tensor(1.0986)

    Source: UD, Eq. 4, 10 and 11.
    """
    require_reduction(reduction)
    require_temperature(temperature)
    z, positive, negative = labelled(logits, targets, ignore)

    negative_log = -F.logsigmoid(_partial_logits(z, negative, temperature))
    return over_images(average(negative_log * positive, positive), reduction)


def one_over_k_softmax_loss(
    logits: Tensor, targets: Tensor, ignore: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Softmax loss that shares the weight 1 equally among an image's k positives.

    −Σ_i y_i/k · log softmax(z)_i, with **all** classes in the denominator: Eq. 4 on a full softmax. An image without
    positives contributes 0.

    Args:
        logits: (N, C), z.
        targets: (N, C) in {0, 1}, any dtype, y.
        ignore: (N, C) bool, True = label left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: as `ova_loss`.
        ValueError: mismatched shapes, targets outside {0, 1}, an unknown `reduction`.

    Example:
        >>> one_over_k_softmax_loss(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))  # log 4
        tensor(1.3863)

    Source: Mahajan; UD, Eq. 4 and Table 5.
    """
    require_reduction(reduction)
    z, positive, negative = labelled(logits, targets, ignore)

    negative_log = -F.log_softmax(leave_out(z, ~(positive | negative)), dim=1)
    return over_images(average(negative_log * positive, positive), reduction)


def label_smoothing_loss(
    logits: Tensor,
    targets: Tensor,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
    target_logit: float = 9.0,
) -> Tensor:
    """Label smoothing for sigmoids: the divergence from labels that are nearly, but not quite, 0 and 1.

    1/C Σ_i KL(Bern(σ(±9)) ‖ Bern(σ(z_i))), + at the positives. It averages over the classes as Eq. 13 does; multiply by
    C to compare it with `ova_loss`, which sums.

    Args:
        logits: (N, C), z.
        targets: (N, C) in {0, 1}, any dtype.
        ignore: (N, C) bool, True = label left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.
        target_logit: logit of a smoothed positive; a smoothed negative has its opposite.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: as `ova_loss`.
        ValueError: mismatched shapes, targets outside {0, 1}, an unknown `reduction`.

    Source: UD, Section 5.3.4 and Table 5.
    """
    require_reduction(reduction)
    z, positive, _ = labelled(logits, targets, ignore)

    smoothed = torch.where(positive, target_logit, -target_logit).to(z.dtype)
    return bernoulli_kl(smoothed, z, ignore=ignore, reduction=reduction)


def dual_branch_loss(
    prediction: Any,
    targets: Tensor,
    lam: float = 0.1,
    ignore: Tensor | None = None,
    scale: Scale = "paper",
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Supervised loss of the classification and the calibration branch together.

    `paper`: total = ova + λ · pal_n, ova summed over classes.
    `released`: total = (ova + λ · pal_n) / 2, ova averaged over classes; the released code's own weight is lam=1.
    λ weighs C times more beside an averaged BCE.

    Args:
        prediction: has `.logits` (classification) and `.calibration_logits`, both (N, C). With lam=0 the latter may be
            None; pal_n is then 0.
        targets: (N, C) in {0, 1}, any dtype.
        lam: λ, weight of the calibration branch's loss, at least 0.
        ignore: (N, C) bool, True = label left out.
        scale: "paper" or "released", as above.
        weights: (N,), factors of the images' losses before their mean is taken; None: all are 1.

    Returns:
        {"total", "ova", "pal_n"}: scalars, the last two before weighting.

    Raises:
        TypeError: as `ova_loss`.
        ValueError: lam < 0, a calibration branch that is missing though lam > 0, and as `ova_loss`.

    Source: UD, Eq. 12.
    """
    released = is_released(scale)
    with_calibration = is_available("lam", lam, calibration_logits=prediction.calibration_logits)

    ova = weighted_mean(ova_loss(prediction.logits, targets, ignore, "none", scale), weights)
    pal_n = torch.zeros_like(ova)
    if with_calibration:
        pal_n = weighted_mean(pal_n_loss(prediction.calibration_logits, targets, ignore, "none"), weights)
    total = ova + lam * pal_n
    return {"total": total / 2 if released else total, "ova": ova, "pal_n": pal_n}


def pick_all_labels_marginals(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Distribution of one positive label, picked at random from label vectors drawn from a joint distribution.

    P(z'=i) = P(y_i=1) · E[1/(1+Σ_{j≠i} y_j) | y_i=1].

    Args:
        labels: (M, C) in {0, 1}, the label vectors of a joint distribution.
        probabilities: (M,), the probability of each; they sum to 1.

    Returns:
        (C,) in [0, 1]; the sum is 1 − P(no label at all).

    Raises:
        TypeError: probabilities that are not a floating-point tensor.
        ValueError: labels outside {0, 1}, mismatched shapes, probabilities that are negative or do not sum to 1.

    Example:
        >>> pick_all_labels_marginals(torch.tensor([[1, 0], [1, 1]]), torch.tensor([0.5, 0.5]))
        tensor([0.7500, 0.2500])

    Source: UD, Eq. 7.
    """
    p = floating("probabilities", probabilities, "(label vectors,)", ndim=1)
    if labels.ndim != 2 or len(labels) != len(p):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and probabilities {tuple(p.shape)}: expected (M, C) and (M,)"
        )
    if (p < 0).any() or abs(p.sum().item() - 1) > 1e-5:
        raise ValueError(
            f"probabilities sum to {p.sum().item():.6g} with minimum {p.min().item():.6g}: expected a distribution"
        )
    positive = positives("labels", labels).to(p.dtype)

    return p @ (positive / positive.sum(1, keepdim=True).clamp(min=1))


def _partial_logits(z: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """The logit of Eq. 10's f_i, z_i − log Σ_{j∈C_n} e^{z_j} at z/T."""
    z = z / temperature
    # One logsumexp over the negatives serves all positives of an image: O(N·C).
    return z - torch.logsumexp(leave_out(z, ~negative), dim=1, keepdim=True)
