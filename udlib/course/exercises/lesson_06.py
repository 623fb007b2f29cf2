"""Checks of lesson 06: Grad-CAM through the pooled vector, the divergence of Eq. 15, energy in a mask, a chance level.

Each check works out on small inputs of its own what the right answer gives and what each classic mistake gives, and
compares. Functions are called with torch tensors in double precision; they may answer with tensors, arrays or floats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.attention import class_attention, energy_inside, pointing_game
from udlib.course.exercises import called, exercise
from udlib.course.exercises.answers import compare, number, shown
from udlib.heads import DualBranchHead
from udlib.losses import softmax_kl

CELLS = (3, 4)
LOGITS = torch.tensor([[2.0, -1.0, 0.5, -3.0], [-0.5, 1.5, -2.0, 0.0], [1.0, -1.0, 3.0, -0.2]], dtype=torch.float64)
CALIBRATION_LOGITS = torch.tensor(
    [[1.0, 0.5, -0.5, -1.0], [0.5, 2.5, -1.0, 1.0], [-0.5, 0.3, 1.2, 0.7]], dtype=torch.float64
)


@exercise("06.1")
def class_map_through_the_pooled_vector(function) -> str | None:
    """`function(head, features, k)` → Σ_c α_c Z_c without ReLU, α the mean over cells of ∂z_k/∂Z, average pooling."""
    generator = torch.Generator().manual_seed(6)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        head = DualBranchHead(5, 3, embedding=4).double().eval()
    features, k = torch.randn(2, 5, *CELLS, generator=generator, dtype=torch.float64) + 0.3, 1
    # `called` sees a value that requires a gradient as it is
    answer, problem = _tensor(
        called(function, head, features.clone(), k), (2, *CELLS), "a map for each image, (N, h, w)"
    )
    if problem:
        return problem
    right = class_attention(head, features, k, relu=False)
    cells, weight = math.prod(CELLS), head.classification.weight.detach()
    p = torch.sigmoid(head(features.mean((2, 3)))[0].detach())

    def weighted(w: Tensor) -> Tensor:
        return torch.einsum("nc,nchw->nhw", w.expand(2, -1), features)

    slope, slopes = (p * (1 - p))[:, [k]], weight.sum(0)
    softmax = (
        torch.autograd.functional.jacobian(lambda z: z.softmax(1)[:, k].sum(), head(features.mean((2, 3)))[0].detach())
        @ weight
    )
    branch = class_attention(head, features, k, branch="calibration", relu=False)
    scaled = (
        "the gradient at the mean is the sum over the cells. Grad-CAM weighs by the mean over the cells: divide by h·w"
    )
    return _match(
        answer,
        right,
        [
            (weighted(weight[k]), scaled),
            (
                weighted(weight[k]) / cells**2,
                "this divides by h·w twice: the gradient at a cell is ∂z/∂mean / (h·w) already",
            ),
            (
                weighted(weight[k].relu()) / cells,
                "this puts a ReLU on the weights: channels that lower the class's logit count too",
            ),
            (weighted(weight[k].relu()), f"this puts a ReLU on the weights, and {scaled}"),
            (right.relu(), "this puts a ReLU on the map: here both signs are wanted"),
            (weighted(weight[k]).relu(), f"this puts a ReLU on the map, and {scaled}"),
            (
                weighted(weight[k] * slope) / cells,
                "this is the gradient of the probability σ(z), which fades where the network is "
                "sure: take that of the logit",
            ),
            (
                weighted(weight[k] * slope),
                f"this is the gradient of the probability σ(z), not of the logit; and {scaled}",
            ),
            (weighted(softmax) / cells, "this is the gradient of the probability (a softmax): take that of the logit"),
            (
                weighted(slopes) / cells,
                "this is the gradient of the logits of all classes: take only that of class k",
            ),
            (weighted(slopes), f"this is the gradient of the logits of all classes, not of class k; and {scaled}"),
            (
                branch,
                "this is the calibration branch's logit: head(pooled) gives the pair (logits, calibration_logits)",
            ),
            (
                weighted(weight[k].abs()) / cells,
                "this takes the absolute value of the gradient: keep its sign, which "
                "says whether a channel speaks for or against the class",
            ),
            (features.mean(1), "this is the mean of the channels, without weights"),
            (-right, "the sign is the wrong way round"),
        ],
    )


@exercise("06.2")
def divergence_of_the_heads(function) -> str | None:
    """`function(calibration_logits, logits)` → (N,), KL(softmax(calibration) ‖ softmax(classification)) per image."""
    a, o = CALIBRATION_LOGITS, LOGITS
    right = softmax_kl(a, o, reduction="none")
    value = called(function, a.clone(), o.clone())
    total = {
        right.sum().item(): "the sum over the images",
        right.mean().item(): "the mean over the images",
        softmax_kl(o, a).item(): "the mean over the images, in the wrong direction",
    }
    single, problem = number(value)
    if not problem and not isinstance(value, str):
        near = next(
            (words for wrong, words in total.items() if math.isclose(single, wrong, rel_tol=1e-4)), "one number"
        )
        return f"this is {near}: return one KL for each image, shape (N,)"
    answer, problem = _tensor(value, (3,), "a KL for each image, (N,)")
    if problem:
        return problem
    if not answer.isfinite().all():
        return "it gives NaN or an infinity: stay in logarithms, log_softmax instead of the log of a softmax"
    p, q = a.softmax(1), o.softmax(1)
    s, t = torch.sigmoid(a), torch.sigmoid(o)
    bernoulli = s * (s / t).log() + (1 - s) * ((1 - s) / (1 - t)).log()
    back = t * (t / s).log() + (1 - t) * ((1 - t) / (1 - s)).log()
    problem = _match(
        answer,
        right,
        [
            (
                softmax_kl(o, a, reduction="none"),
                "the wrong direction: the calibration branch comes first, so its softmax weighs the logarithms",
            ),
            (bernoulli.sum(1), "these are sigmoids, C small divergences: Eq. 15 compares two softmaxes"),
            (
                bernoulli.mean(1),
                "these are sigmoids, C small divergences, and their mean: Eq. 15 compares two softmaxes",
            ),
            (back.sum(1), "these are sigmoids, and in the wrong direction: Eq. 15 compares two softmaxes"),
            ((s * (s / t).log()).sum(1), "these are sigmoids, which do not sum to one: take softmaxes"),
            (right / right.new_tensor(4.0), "this is the mean over the classes: a KL is a sum over the classes"),
            (softmax_kl(o, a, reduction="none") / 4, "this is the mean over the classes, and in the wrong direction"),
            (right / math.log(2), "this is in bits: the course counts in nats, so take the natural logarithm"),
            (-right, "the sign is the wrong way round: a KL is never negative"),
            (
                (p - q).abs().sum(1),
                "this is the distance of the probabilities: a KL weighs the difference of their logarithms by the "
                "first probability",
            ),
            (-(p * q.log()).sum(1), "this is the cross-entropy: the entropy of the first distribution is still in it"),
            (
                (right + softmax_kl(o, a, reduction="none")) / 2,
                "this is the symmetric mean of both directions: Eq. 15 has one",
            ),
            (
                right + softmax_kl(o, a, reduction="none"),
                "this is the symmetric sum of both directions: Eq. 15 has one",
            ),
        ],
    )
    if problem and torch.allclose(answer, softmax_kl(o, a, reduction="none"), rtol=1e-4):
        problem += ". (F.kl_div(input, target) is KL(target ‖ input): its second argument is the first distribution)"
    return problem


@exercise("06.3")
def energy_of_one_map(function) -> str | None:
    """`function(heat, mask)` → share inside the mask of the map's positive part, resized bilinearly to the mask."""
    generator = torch.Generator().manual_seed(3)
    heat = torch.randn(3, 4, generator=generator, dtype=torch.float64) + 0.2
    mask = torch.zeros(10, 13, dtype=torch.bool)  # no multiple of the map: shrinking and resizing differ
    mask[1:6, 4:9] = True
    answer, problem = number(called(function, heat.clone(), mask.clone()))
    if problem:
        return problem
    right = energy_inside(heat[None], mask[None]).item()
    large, nearest = (
        F.interpolate(heat[None, None], size=mask.shape, **options)[0, 0]
        for options in ({"mode": "bilinear", "align_corners": False}, {"mode": "nearest"})
    )
    corners = F.interpolate(heat[None, None], size=mask.shape, mode="bilinear", align_corners=True)[0, 0]
    early = F.interpolate(heat.relu()[None, None], size=mask.shape, mode="bilinear", align_corners=False)[0, 0]
    area = mask.double().mean().item()

    def share(part: Tensor, inside: Tensor) -> float:
        return (part[inside].sum() / part.sum()).item()

    shrunk = {}
    for mode in ("nearest", "nearest-exact", "area", "bilinear"):
        soft = F.interpolate(mask[None, None].double(), size=heat.shape, mode=mode)[0, 0]
        words = "the mask was shrunk to the map, and its edge is lost: resize the map to the mask"
        shrunk |= {
            share(heat.relu(), soft > 0): words,
            share(heat.relu(), soft >= 0.5): words,
            (heat.relu() * soft).sum().item() / heat.relu().sum().item(): words,
        }
    return compare(
        answer,
        right,
        {
            share(large.abs(), mask): "negative cells count here as if they were positive: only the positive part is "
            "energy",
            share(large, mask): "negative cells count here and cancel positive ones: set them to 0 with a ReLU",
            share(
                early, mask
            ): "the negative part was removed before the map was resized: resize first, because negative cells lower "
            "the values beside them",
            large.relu()[mask].sum().item(): "this is a sum: divide by the sum over the whole map",
            large.relu()[mask]
            .mean()
            .item(): "this is a mean inside the mask: energy is a share of the whole map's sum",
            (large[mask] > 0)
            .double()
            .mean()
            .item(): "this says how much of the mask is positive: energy asks how much of the "
            "positive part lies in the mask",
            share((large > 0).double(), mask): "this counts positive pixels: energy weighs each pixel by its value",
            share(large.relu(), ~mask): "this is the share outside the mask",
            area: "this is the area of the mask, which a random map would reach",
            share(nearest.relu(), mask): 'the map was resized by nearest neighbours: take mode="bilinear"',
            share(
                corners.relu(), mask
            ): "the map was resized with align_corners=True: take align_corners=False, as images are resized",
            share(large.square(), mask): "this squares the map: take its positive part as it is",
            100 * right: "this is in per cent: return a share, between 0 and 1",
        }
        | shrunk,
    )


@exercise("06.4")
def chance_of_pointing(function) -> str | None:
    """`function(maps, masks)` → the mean over all pairs of different images of "map i points into mask j"."""
    generator = torch.Generator().manual_seed(9)  # no two of the answers below agree
    maps = torch.randn(7, 4, 5, generator=generator, dtype=torch.float64)
    masks = torch.rand(7, 4, 5, generator=generator, dtype=torch.float64) < torch.linspace(0.15, 0.75, 7)[:, None, None]
    for i in range(5):  # maps that find their own object more often than another's
        masks[i].view(-1)[maps[i].argmax()] = True
    answer, problem = number(called(function, maps.clone(), masks.clone()))
    if problem:
        return problem
    hits = masks.flatten(1)[:, maps.flatten(1).argmax(1)].double()
    off = hits.sum() - hits.diagonal().sum()
    right, n = (off / 42).item(), len(maps)
    pairings = {
        pointing_game(maps.roll(shift, 0), masks)
        .double()
        .mean()
        .item(): "this is one pairing of maps and masks: take all pairs of different images"
        for shift in range(1, n)
    }
    lowest = masks.flatten(1)[:, maps.flatten(1).argmin(1)].double()
    return compare(
        answer,
        right,
        {
            hits.mean().item(): "the pairs of a map with its own mask are in the mean: leave the diagonal out",
            (off / n**2).item(): "it leaves the own mask out but divides by N²: there are N (N − 1) pairs",
            off.item(): "this is the number of hits: divide by the N (N − 1) pairs",
            masks.double()
            .mean()
            .item(): "this is the area of the masks, which a random cell would reach: maps may prefer some places, so "
            "use the maps themselves",
            pointing_game(maps, masks).double().mean().item(): "this is the score itself, each map with its own mask",
            ((lowest.sum() - lowest.diagonal().sum()) / 42).item(): "this points at the lowest cell: take the highest",
            100 * right: "this is in per cent: return a share, between 0 and 1",
        }
        | pairings,
    )


def _tensor(value, shape: tuple[int, ...], words: str) -> tuple[Tensor, str | None]:
    """The value as a float64 tensor of this shape, or a sentence about what came instead."""
    nothing = torch.zeros(shape, dtype=torch.float64)
    if value is None:
        return nothing, f"the function returned nothing: end it with return (expected is {words})"
    try:
        if isinstance(value, str):
            raise TypeError
        answer = torch.as_tensor(
            np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
        )
    except (TypeError, ValueError):
        return nothing, f"it returned {shown(value)}: expected {words}"
    if tuple(answer.shape) != shape:
        return nothing, f"it returned shape {tuple(answer.shape)}: expected {words}, here {shape}"
    return answer, None


def _match(answer: Tensor, right: Tensor, mistakes: list[tuple[Tensor, str]]) -> str | None:
    """None for the right values, else the sentence of the mistake that gives just these."""

    def same(other: Tensor) -> bool:
        return torch.allclose(answer, other.double(), rtol=1e-4, atol=1e-6)

    if same(right):
        return None
    explanation = next((sentence for wrong, sentence in mistakes if same(wrong)), None)
    first, expected = answer.flatten()[0].item(), right.flatten()[0].item()
    return explanation or f"on a small example the first value is {first:.4g}, expected {expected:.4g}"
