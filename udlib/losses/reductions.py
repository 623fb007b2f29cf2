"""Sums, averages and masks that all losses share."""

import torch
from torch import Tensor

from udlib.losses.checks import Reduction


def leave_out(z: Tensor, mask: Tensor) -> Tensor:
    """Logits that take no part in a softmax where the mask is True."""
    # The lowest finite number and not −inf: a row that is left out entirely still has finite values and gradients.
    return z.masked_fill(mask, torch.finfo(z.dtype).min)


def average(per_label: Tensor, counted: Tensor) -> Tensor:
    """Average over the counted labels of each image (N,); 0 for an image without any.

    `per_label` (N, C) must be 0 at the other labels.
    """
    return per_label.sum(1) / counted.sum(1).clamp(min=1)


def weighted_mean(per_image: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over images of the weighted losses (N,); the plain mean without weights."""
    return per_image.mean() if weights is None else (weights * per_image).mean()


def over_images(per_image: Tensor, reduction: Reduction) -> Tensor:
    """The mean over images, or the losses of the images (N,) for `reduction="none"`."""
    return per_image.mean() if reduction == "mean" else per_image
