"""Validation that all losses share: each helper names what is wrong, its value and what was expected."""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "none"]
Scale = Literal["paper", "released"]
Normalization = bool | Literal["l2"]
OverClasses = Literal["mean", "sum"]


def require(name: str, value: object, holds: bool, expected: str) -> None:
    """Raise ValueError unless a condition on the argument `name` holds."""
    if not holds:
        raise ValueError(f"{name} is {value}: expected {expected}")


def require_reduction(reduction: Reduction) -> None:
    """Raise ValueError for an unknown reduction."""
    require("reduction", reduction, reduction in ("mean", "none"), "'mean' or 'none'")


def require_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that is not above 0."""
    require("temperature", temperature, temperature > 0, "above 0")


def is_released(scale: Scale) -> bool:
    """Whether the scale is that of the released code; raise ValueError for an unknown one."""
    require("scale", scale, scale in ("paper", "released"), "'paper' or 'released'")
    return scale == "released"


def is_available(weight: str, value: float, **tensors: Tensor | None) -> bool:
    """Whether the term with this weight can be computed; raise ValueError where it counts and cannot be."""
    require(weight, value, value >= 0, "at least 0")
    missing = [name for name, tensor in tensors.items() if tensor is None]
    if missing and value > 0:
        raise ValueError(f"{weight} is {value} but {' and '.join(missing)} is None: pass it, or {weight}=0")
    return not missing


def labelled(logits: Tensor, targets: Tensor, ignore: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Validate logits and labels and return logits, mask of the positives C_p, mask of the negatives C_n.

    Logits are 0 where a label is ignored, so that nothing which stands there (NaN, say) can leak into a loss.
    """
    z = floating("logits", logits, "(images, classes)", ndim=2)
    require_same_shape("targets", targets, "logits", z)
    positive = positives("targets", targets)
    ignored = ignore_mask(ignore, z)
    return z.masked_fill(ignored, 0), positive & ~ignored, ~(positive | ignored)


def logit_pair(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float, ignore: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Validate two sets of logits and return both, divided by the temperature and 0 where ignored, and that mask."""
    t = floating("teacher_logits", teacher_logits, "(images, classes)", ndim=2)
    s = floating("student_logits", student_logits, "(images, classes)", ndim=2)
    require_same_shape("teacher_logits", t, "student_logits", s)
    require_temperature(temperature)
    ignored = ignore_mask(ignore, s)
    return (t / temperature).masked_fill(ignored, 0), (s / temperature).masked_fill(ignored, 0), ignored


def floating(name: str, value: Tensor, expected: str, ndim: int) -> Tensor:
    """Validate a floating-point tensor of `ndim` dimensions and return it in at least single precision."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name}: found {kind}, expected a floating-point torch tensor {expected}")
    if value.ndim != ndim or value.numel() == 0:
        raise ValueError(f"{name}: found shape {tuple(value.shape)}, expected {expected} and nothing empty")
    return value.to(torch.promote_types(value.dtype, torch.float32))


def require_same_shape(name: str, value: Tensor, other: str, reference: Tensor) -> None:
    """Raise TypeError unless `value` is a tensor and ValueError unless it has the shape of `reference`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: found {type(value).__name__}, expected a torch tensor")
    if value.shape != reference.shape:
        raise ValueError(
            f"{name} have shape {tuple(value.shape)} but {other} have {tuple(reference.shape)}: "
            "expected one value for each image and class in both"
        )


def positives(name: str, targets: Tensor) -> Tensor:
    """Validate labels, 0 or 1 in any dtype, and return the bool mask of the ones."""
    if targets.dtype == torch.bool:
        return targets
    positive = targets == 1
    wrong = (targets != 0) != positive
    if wrong.any():
        where = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name} hold {targets[tuple(where)].item()} at {where}: expected only 0 and 1")
    return positive


def ignore_mask(ignore: Tensor | None, logits: Tensor) -> Tensor:
    """Validate the mask of ignored labels and return it; all False for None."""
    if ignore is None:
        return torch.zeros_like(logits, dtype=torch.bool)
    require_same_shape("ignore", ignore, "logits", logits)
    if ignore.dtype != torch.bool:
        raise TypeError(f"ignore: found {ignore.dtype}, expected a bool mask, True = left out")
    return ignore
