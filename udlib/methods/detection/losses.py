"""Weakly-supervised detection: scores of an image's regions become logits of the image, and losses of a student.

Shapes: B images with C classes and M regions (boxes) in all; `image` (M,) int64 names the image of each region, 0 to
B − 1, and every image has at least one. Images may have different numbers of regions: a softmax "over regions" runs
over those of one image. Work is done in float32, in float64 for float64.

Every loss has the same form: it validates its arguments first, then computes.

Sources: WSDDN = Bilen and Vedaldi, CVPR 2016; WSD = Liu et al., ACM MM 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.losses import ova_loss
from udlib.losses.reductions import weighted_mean


def segment_logsumexp(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Compute log Σ exp of the rows of each segment, in one pass for segments of any lengths.

    Args:
        values: (M, C).
        segment: (M,) int64, the segment of each row.
        segments: number of segments.

    Returns:
        (segments, C).

    Raises:
        ValueError: mismatched shapes, a segment without rows, a row of a segment that does not exist.

    Example:
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

    # The largest value of each segment is subtracted before exp, so that nothing overflows; it needs no gradient.
    top = values.new_full((segments, values.shape[1]), -torch.inf)
    top = top.scatter_reduce(0, segment[:, None].expand_as(values), values.detach(), "amax")
    return top + torch.zeros_like(top).index_add(0, segment, (values - top[segment]).exp()).log()


def log_region_scores(
    class_scores: Tensor, region_scores: Tensor, image: Tensor, images: int, sharpen: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Compute log S^c and log S^d: softmax over classes of s·M^c, and softmax over an image's regions of s·M^d.

    Args:
        class_scores: (M, C), M^c.
        region_scores: (M, C), M^d.
        image: (M,) int64, the image of each region.
        images: B.
        sharpen: s, above 0; s = 2 makes both softmaxes sharper (WSD).

    Returns:
        log S^c and log S^d, each (M, C).

    Raises:
        ValueError: mismatched shapes, fewer than two classes, s that is not above 0, an image without regions.

    Source: WSDDN, Eq. 1–2.
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
    """Compute S^c ⊙ S^d: what each region adds to p, and so its score as a detection of each class.

    Args:
        class_scores: (M, C), M^c.
        region_scores: (M, C), M^d.
        image: (M,) int64, the image of each region.
        images: B.
        sharpen: s, as in `log_region_scores`.

    Returns:
        (M, C) in [0, 1].

    Raises:
        ValueError: as `log_region_scores`.

    Source: WSDDN, Eq. 3.
    """
    log_c, log_d = log_region_scores(class_scores, region_scores, image, images, sharpen)
    return (log_c + log_d).exp()


def detection_logits(
    class_scores: Tensor, region_scores: Tensor, image: Tensor, images: int, sharpen: float = 1.0
) -> Tensor:
    """Compute the logits of p_k = Σ_r S^c_rk S^d_rk: `torch.sigmoid` of them is p, in (0, 1).

    Since Σ_r S^d = 1, 1 − p_k = Σ_r S^d_rk (1 − S^c_rk). Both are summed in logs, so that neither p near 0 nor p near 1
    is rounded away, and `losses.ova_loss` of the logits is WSDDN's BCE. With `sharpen=2` these are the logits of q, the
    probabilities that a student learns from (WSD).

    Args:
        class_scores: (M, C), M^c.
        region_scores: (M, C), M^d.
        image: (M,) int64, the image of each region.
        images: B.
        sharpen: s, as in `log_region_scores`.

    Returns:
        (B, C); at most about 16, where float32 has no 1 − S^c left.

    Raises:
        ValueError: as `log_region_scores`.

    Example:
        >>> scores, image = torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])  # four regions, all classes alike: p = 1/2
        >>> detection_logits(scores, scores, image, images=2)
        tensor([[0., 0.],
                [0., 0.]])

    Source: WSDDN, Eq. 4.
    """
    log_c, log_d = log_region_scores(class_scores, region_scores, image, images, sharpen)

    nearly_one = 1 - torch.finfo(log_c.dtype).eps  # keeps log(1 − S^c) finite
    log_rest = torch.log1p(-log_c.exp().clamp(max=nearly_one))
    return segment_logsumexp(log_c + log_d, image, images) - segment_logsumexp(log_rest + log_d, image, images)


def region_feature_loss(
    teacher: Tensor, student: Tensor, image: Tensor, images: int, weights: Tensor | None = None
) -> Tensor:
    """Squared distance between a teacher's and a student's features of the same regions.

    1/(2B) Σ_b 1/R_b Σ_r ‖f_T,r − f_S,r‖² over the R_b regions of each image. With R regions in every image this is the
    paper's 1/(2BR) Σ_r; otherwise each image weighs the same, on however many processes its batch is shared.

    Args:
        teacher: (M, D), f_T; detached.
        student: (M, D), f_S.
        image: (M,) int64, the image of each region.
        images: B.
        weights: (B,), factors of the images' distances; None: all are 1.

    Returns:
        Scalar, ≥ 0.

    Raises:
        ValueError: mismatched shapes.

    Source: WSD, Eq. 3.
    """
    if teacher.shape != student.shape or teacher.ndim != 2 or image.shape != teacher.shape[:1]:
        raise ValueError(
            f"teacher has shape {tuple(teacher.shape)}, student {tuple(student.shape)} and image "
            f"{tuple(image.shape)}: expected (M, D) twice and (M,)"
        )

    distances = (student.float() - teacher.detach().float()).square().sum(1)
    counts = torch.bincount(image, minlength=images)
    shares = distances / counts[image]
    return (shares if weights is None else shares * weights[image]).sum() / (2 * images)


def prediction_transfer_loss(
    logits: Tensor,
    scaled_logits: Tensor,
    targets: Tensor,
    teacher_logits: Tensor,
    ignore: Tensor | None = None,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Loss of a student on labels and on a detector's predictions: BCE(σ(z), y) + BCE(σ(a ⊙ z), q).

    Both terms are sums over classes and means over images; an ignored label is left out of both. q is soft, so the
    lowest value of the second term is the entropy of q, not 0.

    Args:
        logits: (N, C), z.
        scaled_logits: (N, C), a ⊙ z.
        targets: (N, C) in {0, 1}, y.
        teacher_logits: (N, C), those of q: `detection_logits` with sharpen=2; detached.
        ignore: (N, C) bool, True = label left out.
        weights: (N,), factors of the images' losses before their mean is taken; None: all are 1.

    Returns:
        {"total", "labels", "predictions"}: scalars, in nats.

    Raises:
        TypeError: as `losses.ova_loss`.
        ValueError: mismatched shapes, and as `losses.ova_loss`.

    Source: WSD, Eq. 5 and 10.
    """
    for name, value in (("scaled_logits", scaled_logits), ("teacher_logits", teacher_logits)):
        if value.shape != logits.shape:
            raise ValueError(
                f"{name} have shape {tuple(value.shape)} and logits {tuple(logits.shape)}: expected one for each "
                "image and class in both"
            )

    labels = weighted_mean(ova_loss(logits, targets, ignore, "none"), weights)
    q = torch.sigmoid(teacher_logits.detach().to(labels.dtype))
    soft = F.binary_cross_entropy_with_logits(scaled_logits.to(labels.dtype), q, reduction="none")
    predictions = weighted_mean((soft if ignore is None else soft.masked_fill(ignore, 0)).sum(1), weights)
    return {"total": labels + predictions, "labels": labels, "predictions": predictions}
