"""Losses: logits in, a scalar out; composite losses return a dict of named terms with `total`.

Shapes: logits and targets are (N, C), N images and C classes; targets hold 0 and 1 in any dtype. `ignore` is a bool
(N, C) mask, True = label left out of every sum, average and softmax. `reduction="none"` gives the (N,) losses of the
images instead of their mean; an image with nothing left counts as 0. Work is done in float32, in float64 for float64.

`scale="paper"` computes what the paper prints, `scale="released"` what the authors' code (LcDog/ud) is meant to
compute, with its slips repaired; each function that differs says how. The released weights are passed explicitly.

Sources: UD = Song et al., Uncertainty Distillation, ACM MM 2021; ASL = Ridnik et al., ICCV 2021;
Mahajan = Mahajan et al., ECCV 2018.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["mean", "none"]
Scale = Literal["paper", "released"]


def ova_loss(
    logits: Tensor, targets: Tensor, ignore: Tensor | None = None, reduction: Reduction = "mean", scale: Scale = "paper"
) -> Tensor:
    """One-versus-all loss, −Σ_i [y_i log σ(z_i) + (1−y_i) log(1−σ(z_i))] (UD, Eq. 3), in nats, ≥ 0.

    `paper` sums over the classes, `released` averages over them (over the kept ones where labels are ignored).

    >>> ova_loss(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))  # 4 log 2
    tensor(2.7726)

    Raises ValueError on mismatched shapes, targets outside {0, 1}, or an unknown `reduction` or `scale`.
    """
    z, positive, negative = _labelled(logits, targets, ignore)
    kept = positive | negative
    per_label = F.binary_cross_entropy_with_logits(z, positive.to(z.dtype), reduction="none") * kept
    if _is_released(scale):
        return _over_images(_average(per_label, kept), reduction)
    return _over_images(per_label.sum(1), reduction)


def partial_softmax(logits: Tensor, targets: Tensor, ignore: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Each positive class against all negatives, e^{z_i} / (e^{z_i} + Σ_{j∈C_n} e^{z_j}) (UD, Eq. 10).

    Returns (N, C) in [0, 1]: f_i at the positives, 0 elsewhere; f_i = 1 where an image has no negative.

    >>> partial_softmax(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))
    tensor([[0.3333, 0.0000, 0.0000, 0.3333]])

    Raises ValueError as `ova_loss` does, and on a temperature that is not above 0.
    """
    z, positive, negative = _labelled(logits, targets, ignore)
    return torch.sigmoid(_partial_logits(z, negative, temperature)) * positive


def pal_n_loss(
    logits: Tensor,
    targets: Tensor,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
    temperature: float = 1.0,
) -> Tensor:
    """Pick-all-labels normalised loss −1/|C_p| Σ_{i∈C_p} log f_i on the partial softmax (UD, Eq. 4, 10, 11), ≥ 0.

    An image without positives, or without negatives, contributes 0. With `temperature` = T the partial softmax is
    that of z/T, with no T² factor: at T = 3 this is the row "Softmax with temperature" of UD, Table 5.
    The same under both scales: the released code meant to average each image over its own positives.

    >>> pal_n_loss(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))  # log 3
    tensor(1.0986)

    Raises ValueError as `partial_softmax` does.
    """
    z, positive, negative = _labelled(logits, targets, ignore)
    surprise = -F.logsigmoid(_partial_logits(z, negative, temperature))
    return _over_images(_average(surprise * positive, positive), reduction)


def one_over_k_softmax_loss(
    logits: Tensor, targets: Tensor, ignore: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """−Σ_i y_i/k · log softmax(z)_i with k positives and **all** classes in the denominator (Mahajan; UD, Table 5).

    This is Eq. 4 on a full softmax. An image without positives contributes 0. Raises ValueError as `ova_loss` does.

    >>> one_over_k_softmax_loss(torch.zeros(1, 4), torch.tensor([[1, 0, 0, 1]]))  # log 4
    tensor(1.3863)
    """
    z, positive, negative = _labelled(logits, targets, ignore)
    surprise = -F.log_softmax(_leave_out(z, ~(positive | negative)), dim=1)
    return _over_images(_average(surprise * positive, positive), reduction)


def label_smoothing_loss(
    logits: Tensor,
    targets: Tensor,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
    target_logit: float = 9.0,
) -> Tensor:
    """1/C Σ_i KL(Bern(σ(±9)) ‖ Bern(σ(z_i))): label smoothing for sigmoids (UD, Section 5.3.4 and Table 5), ≥ 0.

    Averaged over the classes as Eq. 13 is; multiply by C to stand beside `ova_loss`, which sums.
    Raises ValueError as `ova_loss` does.
    """
    z, positive, _ = _labelled(logits, targets, ignore)
    smoothed = torch.where(positive, target_logit, -target_logit).to(z.dtype)
    return bernoulli_kl(smoothed, z, ignore=ignore, reduction=reduction)


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    margin: float = 0.05,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Asymmetric loss (ASL): −Σ_i y (1−p)^γ₊ log p + (1−y) p_m^γ₋ log(1−p_m), with p = σ(z), p_m = max(p − margin, 0).

    Sum over classes, mean over images, ≥ 0. The focusing weights (1−p)^γ₊ and p_m^γ₋ are constants for the gradient.
    Raises ValueError as `ova_loss` does, on a negative γ, and on a margin outside [0, 1).
    """
    _expect("gamma_neg", gamma_neg, gamma_neg >= 0, "at least 0")
    _expect("gamma_pos", gamma_pos, gamma_pos >= 0, "at least 0")
    _expect("margin", margin, 0 <= margin < 1, "a probability below 1")
    z, positive, negative = _labelled(logits, targets, ignore)
    p = torch.sigmoid(z.detach())
    focus = torch.where(positive, (1 - p) ** gamma_pos, (p - margin).clamp(min=0) ** gamma_neg)
    # log(1 − p_m) = log min(1, σ(−z) + margin), summed in logs so that margin 0 survives p = 1
    log_margin = z.new_full((), math.log(margin) if margin > 0 else -math.inf)
    log_absent = torch.logaddexp(F.logsigmoid(-z), log_margin).clamp(max=0)
    per_label = -focus * torch.where(positive, F.logsigmoid(z), log_absent) * (positive | negative)
    return _over_images(per_label.sum(1), reduction)


def dual_branch_loss(
    prediction: Any, targets: Tensor, lam: float = 0.1, ignore: Tensor | None = None, scale: Scale = "paper"
) -> dict[str, Tensor]:
    """Supervised loss of the two branches (UD, Eq. 12) → {"total", "ova", "pal_n"}, the terms before weighting.

    `prediction` has `.logits` (classification) and `.calibration_logits`, both (N, C).
    `paper`:    total = ova + λ · pal_n, ova summed over classes.
    `released`: total = (ova + λ · pal_n) / 2, ova averaged over classes; the code's own weight is lam=1.
    λ weighs C times more beside an averaged BCE. With lam=0 the calibration branch may be None; pal_n is then 0.
    Raises ValueError on lam < 0, on a missing calibration branch, and as `ova_loss` does.
    """
    ova = ova_loss(prediction.logits, targets, ignore, scale=scale)
    pal_n = torch.zeros_like(ova)
    if _available("lam", lam, calibration_logits=prediction.calibration_logits):
        pal_n = pal_n_loss(prediction.calibration_logits, targets, ignore)
    total = ova + lam * pal_n
    return {"total": total / 2 if _is_released(scale) else total, "ova": ova, "pal_n": pal_n}


def bernoulli_kl(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 1.0,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """T²/C Σ_i KL(Bern(σ(t_i/T)) ‖ Bern(σ(s_i/T))), mean over classes and images (UD, Eq. 13), ≥ 0.

    T² keeps the gradient's size as T grows. The gradient flows to both arguments: detach a teacher.

    >>> bernoulli_kl(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 2.0]]))
    tensor(0.)

    Raises ValueError on mismatched shapes, a temperature that is not above 0, or an unknown `reduction`.
    """
    t, s, left_out = _pair(teacher_logits, student_logits, temperature, ignore)
    present = torch.sigmoid(t) * (F.logsigmoid(t) - F.logsigmoid(s))
    absent = torch.sigmoid(-t) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    # an ignored label has t = s = 0, so its divergence is 0 already
    return _over_images(temperature**2 * _average(present + absent, ~left_out), reduction)


def softmax_kl(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 1.0,
    ignore: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """T² KL(softmax(t/T) ‖ softmax(s/T)), sum over classes, mean over images (UD, Eq. 14), ≥ 0.

    Ignored classes leave both softmaxes. The gradient flows to both arguments: detach a teacher.

    >>> softmax_kl(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 3.0]]))  # a common shift changes nothing
    tensor(0.)

    Raises ValueError as `bernoulli_kl` does.
    """
    t, s, left_out = _pair(teacher_logits, student_logits, temperature, ignore)
    log_t = F.log_softmax(_leave_out(t, left_out), dim=1)
    log_s = F.log_softmax(_leave_out(s, left_out), dim=1)
    return _over_images(temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1), reduction)


def attention_loss(
    teacher_map: Tensor,
    student_map: Tensor,
    normalize: bool = False,
    reduction: Reduction = "mean",
    scale: Scale = "paper",
) -> Tensor:
    """Distance of two attention maps (N, h, w), mean over images (UD, Eq. 17), ≥ 0.

    `paper`: the Frobenius norm ‖A_T − A_S‖ of each image; its gradient is 0 where the maps are equal.
    `released`: the mean of the squared differences. A teacher's map of another size is resized bilinearly to the
    student's. `normalize` then standardises each map (mean 0, population standard deviation 1; a flat map becomes 0),
    for networks whose feature scales differ. Raises ValueError unless both are (N, h, w) with equal N.
    """
    teacher = _floats("teacher_map", teacher_map, "(images, height, width)", ndim=3)
    student = _floats("student_map", student_map, "(images, height, width)", ndim=3)
    if len(teacher) != len(student):
        raise ValueError(
            f"teacher_map has shape {tuple(teacher.shape)} and student_map {tuple(student.shape)}: "
            "expected the same images in both"
        )
    if teacher.shape != student.shape:
        teacher = F.interpolate(teacher[:, None], size=student.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    teacher, student = teacher.flatten(1), student.flatten(1)
    if normalize:
        teacher, student = _standardise(teacher), _standardise(student)
    difference = teacher - student
    per_image = difference.square().mean(1) if _is_released(scale) else torch.linalg.vector_norm(difference, dim=1)
    return _over_images(per_image, reduction)


def uncertainty_distillation_loss(
    teacher: Any,
    student: Any,
    alpha: float = 0.5,
    beta: float = 0.5,
    teacher_map: Tensor | None = None,
    student_map: Tensor | None = None,
    temperature: float = 1.0,
    ignore: Tensor | None = None,
    normalize: bool = False,
    scale: Scale = "paper",
) -> dict[str, Tensor]:
    """The student's loss (UD, Eq. 18) → {"total", "classification", "calibration", "attention"}, before weighting.

    `teacher` and `student` have `.logits` and `.calibration_logits` (N, C); the maps are (N, h, w). Everything from
    the teacher is detached. `normalize` is that of `attention_loss`.
    `paper`:    total = classification + α · calibration + β · attention, being `bernoulli_kl` (Eq. 13), `softmax_kl`
                (Eq. 14) and the Frobenius `attention_loss` (Eq. 17).
    `released`: total = (classification + α · calibration) / 2 + β · attention, being ½ `bernoulli_kl`, `softmax_kl`
                and the squared `attention_loss`; the code's own values are alpha=1, beta=0.1, temperature=3.
    With alpha=0 the calibration branches may be None, with beta=0 the maps; that term is then 0. Raises ValueError
    on a negative weight, on something missing whose weight is not 0, and as the three losses do.
    """
    half = 0.5 if _is_released(scale) else 1.0
    classification = half * bernoulli_kl(teacher.logits.detach(), student.logits, temperature, ignore)
    calibration = attention = torch.zeros_like(classification)
    t, s = teacher.calibration_logits, student.calibration_logits
    if _available("alpha", alpha, teacher_calibration_logits=t, student_calibration_logits=s):
        calibration = softmax_kl(t.detach(), s, temperature, ignore)
    if _available("beta", beta, teacher_map=teacher_map, student_map=student_map):
        attention = attention_loss(teacher_map.detach(), student_map, normalize, scale=scale)
    total = half * (classification + alpha * calibration) + beta * attention
    return {"total": total, "classification": classification, "calibration": calibration, "attention": attention}


def pick_all_labels_marginals(labels: Tensor, probabilities: Tensor) -> Tensor:
    """P(z'=i) = P(y_i=1) · E[1/(1+Σ_{j≠i} y_j) | y_i=1] (UD, Eq. 7): draw labels, then one positive at random.

    `labels` (M, C) lists the label vectors of a joint distribution and `probabilities` (M,) what each weighs.
    Returns (C,), in [0, 1]; the sum is 1 − P(no label at all).

    >>> pick_all_labels_marginals(torch.tensor([[1, 0], [1, 1]]), torch.tensor([0.5, 0.5]))
    tensor([0.7500, 0.2500])

    Raises ValueError on labels outside {0, 1}, on mismatched shapes, and unless the probabilities sum to 1.
    """
    p = _floats("probabilities", probabilities, "(label vectors,)", ndim=1)
    if labels.ndim != 2 or len(labels) != len(p):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and probabilities {tuple(p.shape)}: expected (M, C) and (M,)"
        )
    if (p < 0).any() or abs(p.sum().item() - 1) > 1e-5:
        raise ValueError(
            f"probabilities sum to {p.sum().item():.6g} with minimum {p.min().item():.6g}: expected a distribution"
        )
    positive = _positives("labels", labels).to(p.dtype)
    return p @ (positive / positive.sum(1, keepdim=True).clamp(min=1))


def _partial_logits(z: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """The logit of Eq. 10's f_i, z_i − log Σ_{j∈C_n} e^{z_j} at z/T: one logsumexp serves all positives, O(N·C)."""
    _expect("temperature", temperature, temperature > 0, "above 0")
    z = z / temperature
    return z - torch.logsumexp(_leave_out(z, ~negative), dim=1, keepdim=True)


def _leave_out(z: Tensor, mask: Tensor) -> Tensor:
    # the lowest finite number and not −inf: a row left out entirely still has finite values and gradients
    return z.masked_fill(mask, torch.finfo(z.dtype).min)


def _average(per_label: Tensor, counted: Tensor) -> Tensor:
    return per_label.sum(1) / counted.sum(1).clamp(min=1)


def _over_images(per_image: Tensor, reduction: Reduction) -> Tensor:
    _expect("reduction", reduction, reduction in ("mean", "none"), "'mean' or 'none'")
    return per_image.mean() if reduction == "mean" else per_image


def _standardise(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    # variation within the rounding of the mean is no variation: without this, a flat map turns into amplified noise
    flat = norm <= 4 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return (centred / norm.masked_fill(flat, 1)).masked_fill(flat, 0) * math.sqrt(rows.shape[1])


def _labelled(logits: Tensor, targets: Tensor, ignore: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Checked logits (0 where ignored, so that nothing there can leak) and the masks of C_p and C_n."""
    z = _floats("logits", logits, "(images, classes)", ndim=2)
    _same_shape("targets", targets, "logits", z)
    positive = _positives("targets", targets)
    left_out = _left_out(ignore, z)
    return z.masked_fill(left_out, 0), positive & ~left_out, ~(positive | left_out)


def _pair(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float, ignore: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    t = _floats("teacher_logits", teacher_logits, "(images, classes)", ndim=2)
    s = _floats("student_logits", student_logits, "(images, classes)", ndim=2)
    _same_shape("teacher_logits", t, "student_logits", s)
    _expect("temperature", temperature, temperature > 0, "above 0")
    t, s = t / temperature, s / temperature
    left_out = _left_out(ignore, s)
    return t.masked_fill(left_out, 0), s.masked_fill(left_out, 0), left_out


def _floats(name: str, value: Tensor, expected: str, ndim: int) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: found {found}, expected a floating-point torch tensor {expected}")
    if value.ndim != ndim or value.numel() == 0:
        raise ValueError(f"{name}: found shape {tuple(value.shape)}, expected {expected} and nothing empty")
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _same_shape(name: str, value: Tensor, other: str, reference: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: found {type(value).__name__}, expected a torch tensor")
    if value.shape != reference.shape:
        raise ValueError(
            f"{name} have shape {tuple(value.shape)} but {other} have {tuple(reference.shape)}: "
            "expected one value for each image and class in both"
        )


def _positives(name: str, targets: Tensor) -> Tensor:
    if targets.dtype == torch.bool:
        return targets
    positive = targets == 1
    wrong = (targets != 0) != positive
    if wrong.any():
        where = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name} hold {targets[tuple(where)].item()} at {where}: expected only 0 and 1")
    return positive


def _left_out(ignore: Tensor | None, logits: Tensor) -> Tensor:
    if ignore is None:
        return torch.zeros_like(logits, dtype=torch.bool)
    _same_shape("ignore", ignore, "logits", logits)
    if ignore.dtype != torch.bool:
        raise TypeError(f"ignore: found {ignore.dtype}, expected a bool mask, True = left out")
    return ignore


def _expect(name: str, value: float, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}: expected {expected}")


def _available(weight: str, value: float, **tensors: Tensor | None) -> bool:
    """Whether the term with this weight can be computed; an error where it counts and cannot."""
    _expect(weight, value, value >= 0, "at least 0")
    missing = [name for name, tensor in tensors.items() if tensor is None]
    if missing and value > 0:
        raise ValueError(f"{weight} is {value} but {' and '.join(missing)} is None: pass it, or {weight}=0")
    return not missing


def _is_released(scale: Scale) -> bool:
    _expect("scale", scale, scale in ("paper", "released"), "'paper' or 'released'")
    return scale == "released"
