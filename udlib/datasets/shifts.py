"""Images as they come when something has changed since training: blurred, noisy, or taken in low light."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# What each of the three strengths of a shift means.
BLUR = (0.006, 0.0125, 0.025)  # standard deviation of the Gaussian, as a share of the image's side
NOISE = (0.05, 0.1, 0.2)  # standard deviation of the noise of each value, on the scale from 0 to 1
LOW_LIGHT = (0.5, 0.25, 0.125)  # share of the light that is left
SHIFTS = ("blur", "noise", "low-light")
STRENGTHS = (1, 2, 3)
TOGETHER = 128  # images at a time, which bounds the memory


def shifted(images: Tensor, shift: str, strength: int) -> Tensor:
    """Apply a shift to images.

    The noise of image i is the same in every call, so that networks are compared on the same pictures.

    Args:
        images: uint8 (N, 3, H, W).
        shift: One of `SHIFTS`.
        strength: 1, 2 or 3.

    Returns:
        uint8 (N, 3, H, W); the input stays as it is.

    Raises:
        ValueError: An unknown shift or strength, or images that are not uint8 (N, 3, H, W).

    Example:
        >>> shifted(torch.full((1, 3, 2, 2), 200, dtype=torch.uint8), "low-light", 1)[0, 0]
        tensor([[100, 100],
                [100, 100]], dtype=torch.uint8)
    """
    if shift not in SHIFTS:
        raise ValueError(f"shift is '{shift}': choose one of {', '.join(SHIFTS)}")
    if strength not in STRENGTHS:
        raise ValueError(f"strength is {strength}: choose 1, 2 or 3")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} {tuple(images.shape)}: expected torch.uint8 (N, 3, H, W)")
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    parts = [_shifted(part, shift, strength - 1, first) for first, part in _portions(images)]
    return torch.cat(parts).contiguous(memory_format=layout)


def _portions(images: Tensor) -> list[tuple[int, Tensor]]:
    """The images in portions, each with the number of its first image."""
    return [(first, images[first : first + TOGETHER]) for first in range(0, len(images), TOGETHER)]


def _shifted(images: Tensor, shift: str, level: int, first: int) -> Tensor:
    """One portion, whose first image has the number `first`."""
    if shift == "blur":
        return _blurred(images, BLUR[level] * images.shape[-1])
    if shift == "low-light":
        return (images.float() * LOW_LIGHT[level]).round().to(torch.uint8)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(first)) * (255 * NOISE[level])
    return (images + noise.to(images.device)).round().clamp(0, 255).to(torch.uint8)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur with mirrored edges: along the rows, then along the columns."""
    height, width = images.shape[-2:]
    rows, columns = (_blurring(side, sigma).to(images.device) for side in (height, width))
    return (rows @ images.float() @ columns.T).round().clamp(0, 255).to(torch.uint8)


def _blurring(side: int, sigma: float) -> Tensor:
    """The matrix (side, side) that blurs a line of pixels: on a CPU, a product of matrices is faster than a convolution."""
    reach = min(round(3 * sigma), side - 1)  # the mirror image of a line is no longer than the line
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    lines = F.pad(torch.eye(side)[:, None], (reach, reach), mode="reflect")
    return F.conv1d(lines, (weights / weights.sum()).view(1, 1, -1))[:, 0].T
