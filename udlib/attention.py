"""Where a network looks: uncertainty attention (UD, Eq. 15–16), Grad-CAM of a class; how maps locate, and compare.

Both maps weigh the channels of the last feature map Z (N, D, h, w) by a gradient that is summed over its cells. Under
global pooling p = pool(Z), average or max, Σ_hw ∂p_c/∂Z_chw = 1, so that Σ_hw ∂f/∂Z_chw = ∂f/∂p_c. The gradient only
has to go through the head, back to the pooled vector, and costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udlib.modes import evaluating

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda features: features.flatten(2).mean(2),
    "max": lambda features: features.flatten(2).amax(2),
}

# From the slope g (N, D) of the divergence to the channels' weights w.
WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "gradient": lambda slope: slope,
    "released": lambda slope: slope.detach().softmax(1),
}


def uncertainty_attention(
    head: nn.Module,
    features: Tensor,
    pooling: str = "avg",
    create_graph: bool = False,
    weighting: str = "gradient",
) -> Tensor:
    """Map of where the two branches of one network disagree about an image.

    A_hw = Σ_c w_c Z_chw, without ReLU and without normalisation. The weights are w_c = Σ_hw ∂KL/∂Z_chw with
    KL = KL(softmax(calibration logits) ‖ softmax(logits)) of each image, and the gradient is taken through both
    branches. Eq. 15 prints teacher against student; the text speaks of the two branches of one network.

    The released code takes a softmax over the channels of these w and holds the result constant. As w is tiny, each
    weight is then nearly 1/D, and the map is close to the mean activation. Its student has the heads in training mode
    here; with this function teacher and student alike have them in evaluation mode.

    Args:
        head: maps pooled features (N, D) to `(logits, calibration_logits)`: a `heads.DualBranchHead`. It computes in
            evaluation mode; its mode, its running statistics and its parameters' gradients are left as they were.
        features: (N, D, h, w), the backbone's last map Z; may come from `inference_mode` or `no_grad`.
        pooling: "avg" or "max", the network's own.
        create_graph: whether the result can be differentiated through w too, and not only through Z. No effect with
            weighting="released", whose weights are constants.
        weighting: "gradient", w as above, or "released", softmax(w) over the channels.

    Returns:
        (N, h, w), at least float32; positive or negative. In nats, and for "released" in the unit of the features.
        Differentiable in `features` where these are.

    Raises:
        ValueError: features that are not (N, D, h, w), an unknown pooling or weighting, a head without a calibration
            branch.

    Source: UD, Eq. 15–16; "released": LcDog/ud.
    """
    return _attention(head, features, pooling, lambda branches: _divergence(*branches), create_graph, weighting)


def uncertainty_attention_of(prediction: Any, create_graph: bool = True, weighting: str = "gradient") -> Tensor:
    """Uncertainty map of a forward pass that was already made, in the mode of that pass: for a student in training.

    In evaluation mode it equals `uncertainty_attention`. In training mode the calibration branch normalises by the
    batch, as in the very forward pass that is trained; running statistics, which lag behind, are not used.

    Args:
        prediction: has `.features` (N, D, h, w), `.pooled` (N, D), from which the logits were computed, and `.logits`
            and `.calibration_logits` (N, C), all with their graph.
        create_graph: whether the map can be differentiated through w too. Only then is the gradient of a loss on the
            map exact: with w held constant, steps against the gradient can, and do, raise the loss. No effect with
            weighting="released".
        weighting: "gradient" or "released", as in `uncertainty_attention`. After a pass in training mode "released"
            mixes the images of a batch, as the released code does; for weights of each image alone, hand
            `prediction.features` to `uncertainty_attention`.

    Returns:
        (N, h, w), at least float32; in nats, and for "released" in the unit of the features.

    Raises:
        ValueError: an unknown weighting, a prediction without a calibration branch.

    Source: UD, Eq. 15–16; "released": LcDog/ud.
    """
    _require_weighting(weighting)
    create_graph = create_graph and weighting != "released"
    # In half precision the sum over channels would be rounded, and the backward pass with it.
    with torch.autocast(prediction.features.device.type, enabled=False):
        score = _divergence(prediction.logits, prediction.calibration_logits)
        (weights,) = torch.autograd.grad(score, prediction.pooled, create_graph=create_graph, retain_graph=True)
        return _weighted_sum(WEIGHTINGS[weighting](weights), prediction.features)


def class_attention(
    head: nn.Module,
    features: Tensor,
    classes: Tensor | int,
    pooling: str = "avg",
    branch: str = "classification",
    relu: bool = True,
) -> Tensor:
    """Grad-CAM of one class per image: where the network sees evidence for that class.

    ReLU(Σ_c α_c Z_chw), α_c being the mean over cells of ∂z_k/∂Z_chw.

    Args:
        head: maps pooled features (N, D) to `(logits, calibration_logits)`, as in `uncertainty_attention`.
        features: (N, D, h, w), the backbone's last map Z; may come from `inference_mode` or `no_grad`.
        classes: the class k of each image, an int or an int64 tensor (N,); may come from `inference_mode` too.
        pooling: "avg" or "max", the network's own.
        branch: whose logit z_k to explain, "classification" or "calibration".
        relu: False also keeps the evidence against the class.

    Returns:
        (N, h, w), at least float32, in units of the logit. With average pooling, without ReLU and for a linear branch
        a map sums to z_k minus its bias.

    Raises:
        ValueError: features that are not (N, D, h, w), an unknown pooling, branch or class, neither one class nor N, classes
            that are not whole numbers, a head without the branch.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017.
    """
    if branch not in ("classification", "calibration"):
        raise ValueError(f"branch is '{branch}': expected 'classification' or 'calibration'")

    def score(branches: tuple[Tensor, Tensor | None]) -> Tensor:
        logits = branches[branch == "calibration"]
        if logits is None:
            raise ValueError("the head has no calibration branch: choose branch='classification'")
        return logits.gather(1, _class_of_each(classes, logits)[:, None]).sum()

    # The weights come summed over cells; Grad-CAM averages over them.
    maps = _attention(head, features, pooling, score, create_graph=False) / features[0, 0].numel()
    return maps.relu() if relu else maps


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of a map's positive part that lies inside a mask: the energy-based pointing game.

    A flat map scores the mask's share of the picture, which is the level of chance.

    Args:
        maps: (N, h, w), resized bilinearly to the masks.
        masks: (N, H, W) bool.

    Returns:
        (N,) in [0, 1]; NaN where a map has no positive part.

    Raises:
        ValueError: shapes that do not belong to the same images, masks that are not bool.

    Example:
        >>> energy_inside(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
        tensor([0.7500])

    Source: Wang et al., Score-CAM, 2020.
    """
    positive = _resized(maps, masks).relu()
    return (positive * masks).sum((1, 2)) / positive.sum((1, 2))


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether the highest cell of a map lies inside a mask.

    Args:
        maps: (N, h, w), resized bilinearly to the masks.
        masks: (N, H, W) bool.

    Returns:
        (N,) bool.

    Raises:
        ValueError: shapes that do not belong to the same images, masks that are not bool.

    Example:
        >>> pointing_game(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[False, True]]]))
        tensor([False])

    Source: Zhang et al., 2016.
    """
    highest = _resized(maps, masks).flatten(1).argmax(1)
    return masks.flatten(1).gather(1, highest[:, None])[:, 0]


def map_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the cells of two maps of the same image: whether both look at the same places.

    The size and the offset of a map make no difference.

    Args:
        a: (N, h, w), e.g. a student's maps.
        b: (N, h', w'), e.g. a teacher's; resized bilinearly to the size of `a` where its size differs.

    Returns:
        (N,) in [−1, 1], float64; NaN where either map is flat.

    Raises:
        ValueError: maps that are not (N, h, w) of the same images.

    Example:
        >>> map_correlation(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[5.0, 3.0]]]))
        tensor([-1.], dtype=torch.float64)
    """
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b):
        raise ValueError(
            f"maps have shapes {tuple(a.shape)} and {tuple(b.shape)}: expected (N, h, w) of the same images"
        )
    eps = torch.finfo(torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)).eps
    a, b = a.double(), b.double()
    if a.shape != b.shape:
        b = F.interpolate(b[:, None], size=a.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return (_centred(a, eps) * _centred(b, eps)).sum(1).clamp(-1, 1)


def _divergence(logits: Tensor, calibration_logits: Tensor | None) -> Tensor:
    """KL(softmax(calibration logits) ‖ softmax(logits)), summed over images."""
    if calibration_logits is None:
        raise ValueError(
            "the head has no calibration branch, and uncertainty attention compares both branches: train with λ > 0 (lam=0.1)"
        )
    log_p, log_q = F.log_softmax(calibration_logits, dim=1), F.log_softmax(logits, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum()


def _class_of_each(classes: Tensor | int, logits: Tensor) -> Tensor:
    """The class of each image as a tensor (N,) that autograd may keep; ValueError for classes that do not fit."""
    given = torch.as_tensor(classes, device=logits.device)
    count, known = logits.shape
    if given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
        raise ValueError(f"classes are {given.dtype}: expected whole numbers from 0 to {known - 1}")
    if given.ndim and given.shape != (count,):
        raise ValueError(
            f"classes have shape {tuple(given.shape)}: expected one class, or one for each of the {count} images, ({count},)"
        )
    if not ((given >= 0) & (given < known)).all():
        raise ValueError(f"classes run from {given.min()} to {given.max()}: expected 0 to {known - 1}")
    return given.long().expand(count).clone()  # a clone, since autograd cannot keep a tensor of inference mode


def _branches(head: nn.Module, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
    """What a head answers, also one that was made or loaded in inference mode, whose tensors autograd cannot keep."""
    tensors = dict(head.named_parameters()) | dict(head.named_buffers())
    if not any(tensor.is_inference() for tensor in tensors.values()):
        return head(pooled)
    return torch.func.functional_call(head, {name: tensor.clone() for name, tensor in tensors.items()}, (pooled,))


def _require_weighting(weighting: str) -> None:
    """Refuse an unknown weighting (ValueError)."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is '{weighting}': expected 'gradient' or 'released'")


def _attention(
    head: nn.Module,
    features: Tensor,
    pooling: str,
    score: Callable[[tuple[Tensor, Tensor | None]], Tensor],
    create_graph: bool,
    weighting: str = "gradient",
) -> Tensor:
    """Σ_c w_c Z_c, w from the gradient of `score`, a sum over images of what both branches say, at the pooled features."""
    if features.ndim != 4 or features.numel() == 0:
        raise ValueError(f"features have shape {tuple(features.shape)}: expected (images, channels, height, width)")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is '{pooling}': expected 'avg' or 'max'")
    _require_weighting(weighting)
    create_graph = create_graph and weighting != "released"
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    # In half precision the sum over channels would be rounded, and the backward pass with it.
    full_precision = torch.autocast(features.device.type, enabled=False)
    # The gradient is needed even where the caller, a plain prediction, computes without gradients.
    with torch.inference_mode(False), torch.enable_grad(), full_precision, evaluating(head):
        pooled = POOLINGS[pooling](features if create_graph else features.detach())
        if not pooled.requires_grad:
            pooled = pooled.clone().requires_grad_()  # a clone, since a tensor of inference mode cannot require one
        (weights,) = torch.autograd.grad(score(_branches(head, pooled)), pooled, create_graph=create_graph)
    with full_precision:
        return _weighted_sum(WEIGHTINGS[weighting](weights), features)


def _weighted_sum(weights: Tensor, features: Tensor) -> Tensor:
    """Σ_c w_c Z_c (N, h, w), in at least float32."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return torch.einsum("nc,nchw->nhw", weights.to(features.dtype), features)


def _centred(maps: Tensor, eps: float) -> Tensor:
    """Each map's cells as a row of mean 0 and L2 norm 1; NaN for a flat map."""
    rows = maps.flatten(1)
    rows = rows / rows.abs().amax(1, keepdim=True)  # of size 1, or the squares of a tiny map would underflow
    centred = rows - rows.mean(1, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    # Variation within the rounding of the maps that came in is none.
    flat = norm <= 4 * eps * torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return (centred / norm).masked_fill(flat, math.nan)


def _resized(maps: Tensor, masks: Tensor) -> Tensor:
    """The maps at the size of their masks."""
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks) or masks.dtype != torch.bool:
        raise ValueError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} of {masks.dtype}: expected (N, h, w) and "
            "bool (N, H, W) of the same images"
        )
    if maps.shape == masks.shape:
        return maps
    return F.interpolate(maps[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
