"""How large a training is: the profiles, the paper's size with the source of every setting, and a forecast of the cost.

A `Recipe` of the course stands at the course's size: `for_profile` gives its size in another profile. The recipes of the
paper's tables (`udlib.course.paper_recipes`) take their full size from the same `FULL`.
"""

from __future__ import annotations

import math
import os

from udlib.datasets.layouts import NAMED

PROFILES = ("smoke", "course", "full")
FULL_SIZE = {"small_narrow": "mobilenet_v2", "small": "resnet18", "small_wide": "resnet101"}

# Where a setting comes from, and the place or the reason.
PAPER, RELEASED, OURS = "paper", "released code", "ours"

# The settings of a full-size training: value, source, where.
FULL = {
    "size": (512, RELEASED, "the side that images are first resized to; whole ones are tested at the side of crops"),
    "crop": (448, PAPER, "section 5.1; at five scales and five places, as the released code draws them"),
    "weights": ("IMAGENET1K_V1", PAPER, "torchvision's, section 5.1; in 2021 it had these alone"),
    "epochs": (20, PAPER, "section 5.1; 40 on COCO, and 2 x 40 in Table 4"),
    "schedule": ("cosine", PAPER, "section 5.1"),
    "erase": (0.5, RELEASED, "the paper has random erasing and no chance"),
    "flip": (True, RELEASED, "not stated in the paper"),
    "pooling": ("max", RELEASED, "not stated in the paper"),
    "embedding": (512, RELEASED, "not stated in the paper"),
    "bias": (False, RELEASED, "not stated in the paper"),
    "policy": ("positive", RELEASED, "difficult labels count as positives in training"),
    "optimizer": ("sgd", RELEASED, "not stated in the paper"),
    "lr": (1e-3, RELEASED, "not stated in the paper"),
    "lr_end": (0.1, RELEASED, "not stated in the paper"),
    "momentum": (0.9, RELEASED, "not stated in the paper"),
    "weight_decay": (1e-4, RELEASED, "not stated in the paper"),
    "clip": (5.0, RELEASED, "not stated in the paper"),
    "batch_size": (16, OURS, "the released code's 2 leaves a GPU idle"),
    "keep": ("last", OURS, "the released code reports its best epoch on the test images"),
}
# What recipes of the course ask about, which no profile may change.
ASKED = ("schedule", "erase", "flip", "pooling", "policy", "keep", "momentum", "clip", "crop")
EPOCHS = {"coco2014": 40, "nuswide": 40}

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
ASSUMED = (
    "assumed, not measured: one GPU that sustains 40 TFLOP/s in bf16, with images decoded beforehand "
    f"({', '.join(f'{name} {SPEED[name]}' for name in ('resnet101', 'vgg19_bn', 'resnet18', 'mobilenet_v2'))} images/s)"
)
COURSE_BASIS = "two laptop-class cores, as measured for the course"
# A detector's step beside a classifier's with the same backbone, as measured for the course: regions are pooled and each of
# them goes through two layers.
REGIONS = 2.0
# Parameters of each backbone in millions, without the heads.
PARAMETERS = {
    "small_narrow": 0.0784,
    "small": 0.31,
    "small_wide": 1.232,
    "mobilenet_v2": 2.22,
    "resnet18": 11.18,
    "resnet101": 42.5,
    "vgg19_bn": 20.04,
}
# Images of (training and validation, test) as published, and the number of classes; of the embedded sets, of training alone.
COUNTS = {
    "scenes": (2000, 4000, 16),
    "digits": (2000, 4000, 10),
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


def is_full(chosen) -> bool:
    """Whether a recipe is at full size already: its network is one of torchvision's."""
    return chosen.network in FULL_SIZE.values() or chosen.network == "vgg19_bn"


def for_profile(chosen, name: str | None = None):
    """The recipe at the size of a profile: unchanged, a few steps on a few images, or full size with torchvision's nets.

    A recipe of full size stays as it is in the profiles course and full.
    """
    name = name or profile()
    if name == "smoke":
        return chosen.but(limit=96, epochs=2, batch_size=32)
    if name == "full" and not is_full(chosen):
        named = {part: value for part, value in chosen.flat().items() if part in ("network", "teacher")}
        size = {part: value for part, (value, *_) in FULL.items() if part not in ASKED}
        size["size"] = FULL["crop"][0]  # whole images, as large as the crops of the paper's recipes
        return chosen.but(**{part: FULL_SIZE.get(value, value) for part, value in named.items()}, **size)
    return chosen


def seconds(chosen) -> float:
    """A rough forecast of the training time on two laptop-class cores (a full-size recipe: on one GPU, see `ASSUMED`).

    A teacher costs a forward pass, a third of its training step; after a restart the network is its own. A detector's step
    is REGIONS times a classifier's, and so is that of its student in stage 1.
    """
    images = min(chosen.limit or math.inf, COUNTS.get(chosen.data, (2000 if chosen.size == 64 else 5000,))[0])
    step = 1 / SPEED[chosen.network]
    if chosen.method == "self_distillation":
        step += step + chosen.settings.distil * step / 3
    elif chosen.method == "detection":
        step = _detection_step(chosen.settings, step, is_full(chosen))
    elif is_full(chosen) and hasattr(chosen.settings, "teacher"):  # a small teacher's answers are stored beforehand
        step += 1 / (3 * SPEED[chosen.settings.teacher])
    return images * chosen.training.epochs * step


def _detection_step(chosen, step: float, full: bool) -> float:
    """Seconds for an image of a detector, or of its student, averaged over the stages; a small teacher's answers are stored
    before stage 2."""
    if chosen.part == "teacher":
        return REGIONS * step
    share, asked = chosen.stage_epochs * chosen.features, (REGIONS if chosen.boxed else 1) / (3 * SPEED[chosen.teacher])
    return share * (REGIONS * step + asked) + (1 - share) * (step + chosen.predictions * full * asked)


def decoded_bytes(images: int, side: int) -> int:
    """What so many decoded images take, uint8 with three channels.

    >>> decoded_bytes(1, 448)
    602112
    """
    return images * 3 * side * side
