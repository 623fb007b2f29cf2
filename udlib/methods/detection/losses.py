"""Weakly-supervised detection: what the regions of an image say together, and what a student learns from them.

Shapes: B images with C classes and M regions (boxes) in all; `image` (M,) int64 names the image of each region, 0 to
B - 1, and every image has at least one. Images may have different numbers of regions: a softmax "over regions" runs over
those of one image. Work is done in float32, in float64 for float64.

Sources: WSDDN = Bilen and Vedaldi, CVPR 2016; WSD = Liu et al., ACM MM 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.losses import ova_loss


def segment_logsumexp(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """log Σ exp of the rows (M, C) of each segment → (segments, C): one pass for segments of any lengths.

    `segment` (M,) int64 names the segment of each row. Raises ValueError for a segment without rows, and for a name that
    no segment has.

    >>> segment_logsumexp(torch.zeros(3, 1), torch.tensor([0, 0, 1]), 2).exp()
    tensor([[2.],
            [1.]])
    """
    if values.ndim != 2 or segment.shape != values.shape[:1]:
        raise ValueError(
            f"values have shape {tuple(values.shape)} and segment {tuple(segment.shape)}: expected (M, C) and (M,)"
        )
    counts = torch.bincount(segment, minlength=segments)
    if len(counts) > segments:
        raise ValueError(f"segment holds {len(counts) - 1}: expected 0 to {segments - 1}")
    if (counts == 0).any():
        raise ValueError(
            f"image {int((counts == 0).nonzero()[0])} of the batch has no region: give each at least one, the "
            "whole image for example"
        )
    top = values.new_full((segments, values.shape[1]), -torch.inf)
    top = top.scatter_reduce(0, segment[:, None].expand_as(values), values.detach(), "amax")
    return top + torch.zeros_like(top).index_add(0, segment, (values - top[segment]).exp()).log()


def log_region_scores(
    class_scores: Tensor, region_scores: Tensor, image: Tensor, images: int, sharpen: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log S^c and log S^d, each (M, C): softmax over classes of s·M^c, softmax over an image's regions of s·M^d (WSDDN, Eq. 1–2).

    `class_scores` M^c and `region_scores` M^d are (M, C); `sharpen` s = 2 makes both softmaxes sharper (WSD). Raises
    ValueError for mismatched shapes, fewer than two classes, s that is not above 0, and as `segment_logsumexp` does.
    """
    if class_scores.shape != region_scores.shape or class_scores.ndim != 2:
        raise ValueError(
            f"class_scores have shape {tuple(class_scores.shape)} and region_scores {tuple(region_scores.shape)}: "
            "expected (M, C) twice"
        )
    if class_scores.shape[1] < 2:
        raise ValueError("there is 1 class: a softmax over classes needs at least 2")
    if not sharpen > 0:
        raise ValueError(f"sharpen is {sharpen}: expected a number above 0")
    c, d = (
        sharpen * scores.to(torch.promote_types(scores.dtype, torch.float32))
        for scores in (class_scores, region_scores)
    )
    return F.log_softmax(c, dim=1), d - segment_logsumexp(d, image, images)[image]


def region_probabilities(
    class_scores: Tensor, region_scores: Tensor, image: Tensor, images: int, sharpen: float = 1.0
) -> Tensor:
    """S^c ⊙ S^d (M, C) in [0, 1]: what each region adds to p (WSDDN, Eq. 3), and so its score as a detection of each class.

    Raises ValueError as `log_region_scores` does.
    """
    return sum(log_region_scores(class_scores, region_scores, image, images, sharpen)).exp()


def detection_logits(
    class_scores: Tensor, region_scores: Tensor, image: Tensor, images: int, sharpen: float = 1.0
) -> Tensor:
    """The logits (B, C) of p_k = Σ_r S^c_rk S^d_rk (WSDDN, Eq. 4): `torch.sigmoid` of them is p, in (0, 1).

    Since Σ_r S^d = 1, 1 − p_k = Σ_r S^d_rk (1 − S^c_rk): both are summed in logs, so that neither p near 0 nor p near 1 is
    rounded away, and `losses.ova_loss` of the logits is WSDDN's BCE. At most about 16, where float32 has no 1 − S^c left.
    With `sharpen=2` these are q, what a student is taught (WSD). Raises ValueError as `log_region_scores` does.

    >>> scores, image = torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])  # four regions without an opinion: p = 1/2
    >>> detection_logits(scores, scores, image, images=2)
    tensor([[0., 0.],
            [0., 0.]])
    """
    log_c, log_d = log_region_scores(class_scores, region_scores, image, images, sharpen)
    nearly_one = 1 - torch.finfo(log_c.dtype).eps
    log_rest = torch.log1p(-log_c.exp().clamp(max=nearly_one))
    return segment_logsumexp(log_c + log_d, image, images) - segment_logsumexp(log_rest + log_d, image, images)


def region_feature_loss(teacher: Tensor, student: Tensor, image: Tensor, images: int) -> Tensor:
    """1/(2B) Σ_b 1/R_b Σ_r ‖f_T,r − f_S,r‖² (WSD, Eq. 3), over the R_b regions of each image, ≥ 0.

    `teacher` (detached) and `student` (M, D) are features of the same regions. With R regions in every image this is the
    paper's 1/(2BR) Σ_r; otherwise each image weighs the same, on however many processes its batch is shared. Raises
    ValueError for mismatched shapes.
    """
    if teacher.shape != student.shape or teacher.ndim != 2 or image.shape != teacher.shape[:1]:
        raise ValueError(
            f"teacher has shape {tuple(teacher.shape)}, student {tuple(student.shape)} and image "
            f"{tuple(image.shape)}: expected (M, D) twice and (M,)"
        )
    apart = (student.float() - teacher.detach().float()).square().sum(1)
    counts = torch.bincount(image, minlength=images)
    return (apart / counts[image]).sum() / (2 * images)


def prediction_transfer_loss(
    logits: Tensor, scaled: Tensor, targets: Tensor, taught_logits: Tensor, ignore: Tensor | None = None
) -> dict[str, Tensor]:
    """BCE(σ(z), y) + BCE(σ(a ⊙ z), q) (WSD, Eq. 5 and 10) → {"total", "labels", "predictions"}.

    `logits` z, `scaled` a ⊙ z, and `taught_logits`, those of q (`detection_logits` with sharpen=2; detached), are (N, C). Both
    terms are sums over classes and means over images; an ignored label is left out of both. q is soft, so the second
    term does not reach 0 but the entropy of q. Raises ValueError for mismatched shapes, and as `losses.ova_loss` does.
    """
    labels = ova_loss(logits, targets, ignore)
    for name, value in (("scaled", scaled), ("taught_logits", taught_logits)):
        if value.shape != logits.shape:
            raise ValueError(
                f"{name} have shape {tuple(value.shape)} and logits {tuple(logits.shape)}: expected one for each "
                "image and class in both"
            )
    q = torch.sigmoid(taught_logits.detach().to(labels.dtype))
    soft = F.binary_cross_entropy_with_logits(scaled.to(labels.dtype), q, reduction="none")
    predictions = (soft if ignore is None else soft.masked_fill(ignore, 0)).sum(1).mean()
    return {"total": labels + predictions, "labels": labels, "predictions": predictions}
