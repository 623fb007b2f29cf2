"""How large a training is: the profiles, and a forecast of what it costs.

A recipe of the course stands at the course's size: `for_profile` gives its size in another profile.
"""

from __future__ import annotations

import math
import os

from udlib.datasets.layouts import NAMED
from udlib.methods import method_of
from udlib.methods.base import Recipe
from udlib.methods.full_size import ASKED, EPOCHS, FULL, FULL_SIZE, OURS, PAPER, RELEASED, full_size, is_full

__all__ = [
    "ASKED",
    "ASSUMED",
    "COUNTS",
    "COURSE_BASIS",
    "EPOCHS",
    "FULL",
    "FULL_SIZE",
    "NOT_IN_SMOKE",
    "OURS",
    "PAPER",
    "PAPERS_DATA",
    "PARAMETERS",
    "PROFILES",
    "RELEASED",
    "SPEED",
    "decoded_bytes",
    "for_profile",
    "is_full",
    "profile",
    "seconds",
]

PROFILES = ("smoke", "course", "full")
# Pretrained networks train for a minute even on a few photographs, and the photographs may not be there: the smoke profile
# takes these results as they ship.
NOT_IN_SMOKE = ("photos",)
# Images per second of one training step on two laptop-class cores (64 px), and of a full-size one (448 px, bf16) on one GPU.
# The latter are assumed, not measured: three forward passes at 40 TFLOP/s, a fifth of that rate for MobileNet-v2, whose
# time goes into memory rather than arithmetic.
SPEED = {
    "small_narrow": 2000,
    "small": 1000,
    "small_wide": 400,
    "mobilenet_v2": 1100,
    "resnet18": 900,
    "resnet101": 210,
    "vgg19_bn": 85,
}
# Fine-tuned on photographs, on one such core: images per second at 128 px, with the stem and four stages frozen. The first
# and the last are measured.
LITE_SPEED = {"efficientnet_lite0": 110, "efficientnet_lite1": 85, "efficientnet_lite2": 64}
LITE_SIDE = 128
ASSUMED = (
    "assumed, not measured: one GPU that sustains 40 TFLOP/s in bf16, with images decoded beforehand "
    f"({', '.join(f'{name} {SPEED[name]}' for name in ('resnet101', 'vgg19_bn', 'resnet18', 'mobilenet_v2'))} images/s)"
)
COURSE_BASIS = "two laptop-class cores, as measured for the course"
# Parameters of each backbone in millions, without the heads.
PARAMETERS = {
    "small_narrow": 0.0784,
    "small": 0.31,
    "small_wide": 1.232,
    "mobilenet_v2": 2.22,
    "resnet18": 11.18,
    "resnet101": 42.5,
    "vgg19_bn": 20.04,
    "efficientnet_lite0": 3.371,
    "efficientnet_lite1": 4.136,
    "efficientnet_lite2": 4.811,
}
# Images of (training and validation, test) as published, and the number of classes; of the embedded sets, of training alone.
COUNTS = {
    "scenes": (2000, 4000, 16),
    "digits": (2000, 4000, 10),
    "photos": (1316, 1108, 29),
    "voc2007": (5011, 4952, 20),
    "voc2012": (5717, 5823, 20),
    "coco2014": (82783, 40504, 80),
    "nuswide": (161789, 107859, 81),
}
PAPERS_DATA = tuple(NAMED)


def profile() -> str:
    """`UDLIB_PROFILE`: smoke (a few steps, into a temporary store), course (the default) or full (448 px, GPU)."""
    name = os.environ.get("UDLIB_PROFILE", "course")
    if name not in PROFILES:
        raise ValueError(f"UDLIB_PROFILE is '{name}': choose one of {', '.join(PROFILES)}")
    return name


def for_profile(recipe: Recipe, name: str | None = None) -> Recipe:
    """The recipe at the size of a profile: unchanged, a few steps on a few images, or full size with torchvision's nets.

    A recipe of full size stays as it is in the profiles course and full.
    """
    name = name or profile()
    if name == "smoke":
        return recipe if recipe.data in NOT_IN_SMOKE else recipe.but(limit=96, epochs=2, batch_size=32)
    return full_size(recipe) if name == "full" else recipe


def seconds(recipe: Recipe) -> float:
    """A rough forecast of the training time on two laptop-class cores (a full-size recipe: on one GPU, see `ASSUMED`).

    The method says what an image costs in an epoch; the networks that it needs are not counted.
    """
    images = min(recipe.limit or math.inf, COUNTS.get(recipe.data, (2000 if recipe.size == 64 else 5000,))[0])
    cost = method_of(recipe.method).cost(recipe)
    return images * cost.epochs * sum(steps * _seconds_a_step(recipe, name) for name, steps in cost.steps.items())


def _seconds_a_step(recipe: Recipe, network: str) -> float:
    """Seconds of a training step for one image; of networks that were never measured, as for the smallest pretrained one."""
    if network in SPEED:
        return 1 / SPEED[network]
    return (recipe.side / LITE_SIDE) ** 2 / LITE_SPEED.get(network, LITE_SPEED["efficientnet_lite0"])


def decoded_bytes(images: int, side: int) -> int:
    """What so many decoded images take, uint8 with three channels.

    >>> decoded_bytes(1, 448)
    602112
    """
    return images * 3 * side * side
