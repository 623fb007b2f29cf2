"""The settings of a full-size training, as the main paper has them, each with where it comes from.

The course's recipes stand at the size of a laptop; `full_size` gives the same recipe with torchvision's networks at 448 px.
"""

from __future__ import annotations

from udlib.backbones import SMALL_WIDTHS
from udlib.methods.base import Recipe

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


def is_full(recipe: Recipe) -> bool:
    """Whether a recipe is at full size already: its network is a pretrained one."""
    return recipe.network not in SMALL_WIDTHS


def full_size(recipe: Recipe) -> Recipe:
    """The recipe at full size; one whose network is pretrained already stays as it is."""
    if is_full(recipe):
        return recipe
    networks = {part: value for part, value in recipe.flat().items() if part in ("network", "teacher")}
    size = {part: value for part, (value, *_) in FULL.items() if part not in ASKED}
    size["size"] = FULL["crop"][0]  # whole images, as large as the crops of the paper's recipes
    return recipe.but(**{part: FULL_SIZE.get(value, value) for part, value in networks.items()}, **size)
