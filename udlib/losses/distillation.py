"""Losses against a teacher: divergences of probabilities, distance of attention maps, and their sum (UD, Eq. 18)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.losses.checks import (
    Normalization,
    OverClasses,
    Reduction,
    Scale,
    floating,
    is_available,
    is_released,
    logit_pair,
    require,
    require_reduction,
)
from udlib.losses.reductions import average, leave_out, over_images, weighted_mean


def bernoulli_kl(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 1.0,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
    over_classes: OverClasses = "mean",
) -> Tensor:
    """Divergence of a student's sigmoids from a teacher's, averaged over the classes or summed.

    T²/C Σ_i KL(Bern(σ(t_i/T)) ‖ Bern(σ(s_i/T))). The factor T² keeps the size of the gradient as T grows. The gradient
    flows to both arguments: detach a teacher.

    Eq. 13 prints a mean over the classes, while Eq. 3, its counterpart for labels, prints a sum. The sum is C times the
    mean.

    Args:
        teacher_logits: (N, C), t.
        student_logits: (N, C), s.
        temperature: T, above 0.
        ignore: (N, C) bool, True = label left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.
        over_classes: "mean" over an image's kept classes, or their "sum", which drops the factor 1/C.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: logits that are not floating-point tensors, `ignore` that is not bool.
        ValueError: mismatched shapes, a temperature that is not above 0, an unknown `reduction` or `over_classes`.

    Example:
        >>> bernoulli_kl(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 2.0]]))
        tensor(0.)

    Source: UD, Eq. 13.
    """
    require_reduction(reduction)
    require("over_classes", over_classes, over_classes in ("mean", "sum"), "'mean' or 'sum'")
    t, s, ignored = logit_pair(teacher_logits, student_logits, temperature, ignore)

    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    absent = torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    # An ignored label has t = s = 0, so its divergence is 0 already.
    divergence = present + absent
    per_image = divergence.sum(1) if over_classes == "sum" else average(divergence, ~ignored)
    return over_images(temperature**2 * per_image, reduction)


def softmax_kl(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 1.0,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Divergence of a student's softmax over the classes from a teacher's.

    T² KL(softmax(t/T) ‖ softmax(s/T)), summed over classes. Ignored classes leave both softmaxes. The gradient flows to
    both arguments: detach a teacher.

    Args:
        teacher_logits: (N, C), t.
        student_logits: (N, C), s.
        temperature: T, above 0.
        ignore: (N, C) bool, True = class left out.
        reduction: "mean" over images, or "none" for the (N,) losses of the images.

    Returns:
        Scalar, or (N,); in nats, ≥ 0.

    Raises:
        TypeError: logits that are not floating-point tensors, `ignore` that is not bool.
        ValueError: mismatched shapes, a temperature that is not above 0, an unknown `reduction`.

    Example:
        >>> softmax_kl(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 3.0]]))  # a common shift changes nothing
        tensor(0.)

    Source: UD, Eq. 14.
    """
    require_reduction(reduction)
    t, s, ignored = logit_pair(teacher_logits, student_logits, temperature, ignore)

    log_t = F.log_softmax(leave_out(t, ignored), dim=1)
    log_s = F.log_softmax(leave_out(s, ignored), dim=1)
    return over_images(temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1), reduction)


def attention_loss(
    teacher_map: Tensor,
    student_map: Tensor,
    normalize: Normalization = False,
    reduction: Reduction = "mean",
    scale: Scale = "paper",
) -> Tensor:
    """Distance between a teacher's and a student's attention map.

    `paper`: the Frobenius norm ‖A_T − A_S‖ of each image; its gradient is 0 where the maps are equal.
    `released`: the mean of the squared differences.

    Args:
        teacher_map: (N, h', w'), A_T; resized bilinearly to the student's map where its size differs.
        student_map: (N, h, w), A_S.
        normalize: what happens to each map first, after resizing, for networks whose features differ in scale. True
            standardises it (mean 0, population standard deviation 1; a flat map becomes 0). "l2" divides it by its
            L2 norm over the cells (a map of zeros stays so, and has a gradient of 0): the distances of `paper` then
            lie in [0, 2], with √2 for orthogonal maps and 2 for opposite ones.
        reduction: "mean" over images, or "none" for the (N,) distances of the images.
        scale: "paper" or "released", as above.

    Returns:
        Scalar, or (N,); in the unit of the maps (squared for `released`; none where normalised), ≥ 0.

    Raises:
        TypeError: maps that are not floating-point tensors.
        ValueError: maps that are not (N, h, w) with equal N, an unknown `normalize`, `reduction` or `scale`.

    Example:
        >>> attention_loss(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 3.0))  # √(4 · 9)
        tensor(6.)
        >>> attention_loss(torch.ones(1, 2, 2), torch.full((1, 2, 2), -3.0), normalize="l2")
        tensor(2.)

    Source: UD, Eq. 17.
    """
    require_reduction(reduction)
    require("normalize", normalize, normalize in (False, True, "l2"), "False, True or 'l2'")
    released = is_released(scale)
    teacher = floating("teacher_map", teacher_map, "(images, height, width)", ndim=3)
    student = floating("student_map", student_map, "(images, height, width)", ndim=3)
    if len(teacher) != len(student):
        raise ValueError(
            f"teacher_map has shape {tuple(teacher.shape)} and student_map {tuple(student.shape)}: "
            "expected the same images in both"
        )

    if teacher.shape != student.shape:
        teacher = F.interpolate(teacher[:, None], size=student.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    teacher, student = teacher.flatten(1), student.flatten(1)
    if normalize:
        scaled = _of_unit_norm if normalize == "l2" else _standardised
        teacher, student = scaled(teacher), scaled(student)
    difference = teacher - student
    per_image = difference.square().mean(1) if released else torch.linalg.vector_norm(difference, dim=1)
    return over_images(per_image, reduction)


def uncertainty_distillation_loss(
    teacher: Any,
    student: Any,
    alpha: float = 0.5,
    beta: float = 0.5,
    teacher_map: Tensor | None = None,
    student_map: Tensor | None = None,
    temperature: float = 1.0,
    ignore: Tensor | None = None,
    normalize: Normalization = False,
    scale: Scale = "paper",
    over_classes: OverClasses = "mean",
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Loss of a student in uncertainty distillation: classification, calibration and attention.

    `paper`: total = classification + α · calibration + β · attention, being `bernoulli_kl` (Eq. 13), `softmax_kl`
    (Eq. 14) and the Frobenius `attention_loss` (Eq. 17).
    `released`: total = (classification + α · calibration) / 2 + β · attention, being ½ `bernoulli_kl`, `softmax_kl`
    and the squared `attention_loss`; the released code's own values are alpha=1, beta=0.1, temperature=3, and its maps
    are those of `attention.uncertainty_attention` with weighting="released".

    Args:
        teacher: has `.logits` and `.calibration_logits` (N, C); everything from it is detached.
        student: has the same. With alpha=0 both calibration branches may be None; that term is then 0.
        alpha: α, weight of the calibration term, at least 0.
        beta: β, weight of the attention term, at least 0.
        teacher_map: (N, h', w'), detached; may be None with beta=0, as the student's; the attention term is then 0.
        student_map: (N, h, w).
        temperature: T of both divergences, above 0.
        ignore: (N, C) bool, True = label left out.
        normalize: False, True or "l2": what happens to the maps, as in `attention_loss`.
        scale: "paper" or "released", as above.
        over_classes: "mean" or "sum", of the classification term, as in `bernoulli_kl`.
        weights: (N,), factors of the images' losses before their mean is taken; None: all are 1.

    Returns:
        {"total", "classification", "calibration", "attention"}: scalars, the last three before weighting.

    Raises:
        TypeError: as `bernoulli_kl` and `attention_loss`.
        ValueError: a negative weight, a branch or map that is missing though its weight is above 0, and as
            `bernoulli_kl`, `softmax_kl` and `attention_loss`.

    Source: UD, Eq. 18.
    """
    half = 0.5 if is_released(scale) else 1.0
    t, s = teacher.calibration_logits, student.calibration_logits
    with_calibration = is_available("alpha", alpha, teacher_calibration_logits=t, student_calibration_logits=s)
    with_attention = is_available("beta", beta, teacher_map=teacher_map, student_map=student_map)

    divergences = bernoulli_kl(teacher.logits.detach(), student.logits, temperature, ignore, "none", over_classes)
    classification = half * weighted_mean(divergences, weights)
    calibration = attention = torch.zeros_like(classification)
    if with_calibration:
        calibration = weighted_mean(softmax_kl(t.detach(), s, temperature, ignore, "none"), weights)
    if with_attention:
        assert teacher_map is not None and student_map is not None  # is_available has checked it
        distances = attention_loss(teacher_map.detach(), student_map, normalize, "none", scale)
        attention = weighted_mean(distances, weights)
    total = half * (classification + alpha * calibration) + beta * attention
    return {"total": total, "classification": classification, "calibration": calibration, "attention": attention}


def _standardised(rows: Tensor) -> Tensor:
    """Rows of mean 0 and population standard deviation 1; a flat row becomes 0."""
    centred = rows - rows.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    # Variation within the rounding of the mean is no variation: without this, a flat map becomes amplified noise.
    flat = norm <= 4 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return (centred / norm.masked_fill(flat, 1)).masked_fill(flat, 0) * math.sqrt(rows.shape[1])


def _of_unit_norm(rows: Tensor) -> Tensor:
    """Rows of L2 norm 1; a row of zeros stays so."""
    # The size of a row does not matter, so that its largest value is a constant for the gradient. Divided by it, the
    # squares of a tiny row do not underflow. Below the smallest normal number a gradient would not be finite.
    largest = rows.detach().abs().amax(1, keepdim=True)
    zero = largest < torch.finfo(rows.dtype).tiny
    scaled = (rows / largest.masked_fill(zero, 1)).masked_fill(zero, 0)
    return scaled / torch.linalg.vector_norm(scaled, dim=1, keepdim=True).masked_fill(zero, 1)
