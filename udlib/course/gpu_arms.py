"""The arms of the experiment on photographs at 224 px, which `udlib gpu` trains on one GPU.

They are those of `photo_arms` in the same regime: only sizes and precision differ. Images are stored as squares of 256 px, as
the paper's code stores 512 for crops of 448. The student sees crops of 224 px, and the teacher the same regions at 256 px, which
is all that is stored.
"""

from __future__ import annotations

from typing import Any

from udlib.course.photo_arms import RELEASED, photo_branch, photo_students, photo_teachers
from udlib.methods.base import Recipe

SIZES: dict[str, Any] = {"size": 256, "crop": 224, "precision": "bf16"}
TEACHER_SIZE = 256
# The same arms on a CPU, to try the whole path: a few steps on stamps, in which nothing is learnt.
SMOKE_SIZES: dict[str, Any] = {"size": 64, "crop": 56, "limit": 96, "epochs": 2, "batch_size": 32}
SMOKE_TEACHER_SIZE = 64

ARMS = ("baseline", "lambda 1", "teacher", "KD", "UD", "UD released")


def gpu_photos(smoke: bool = False) -> dict[str, list[Recipe]]:
    """Return the arms on photographs at 224 px, each with every seed, in the order of training.

    Args:
        smoke: Whether to take stamps in place of photographs, for a trial on a CPU.
    """
    sizes, larger = (SMOKE_SIZES, SMOKE_TEACHER_SIZE) if smoke else (SIZES, TEACHER_SIZE)
    taught = sizes | {"teacher_size": larger}
    return {
        "baseline": photo_branch(**sizes),
        "lambda 1": photo_branch(1.0, **sizes),
        "teacher": [teacher.but(**sizes | {"crop": larger}) for teacher in photo_teachers()],
        "KD": photo_students("KD", **taught),
        "UD": photo_students(**taught),
        "UD released": photo_students(**RELEASED, **taught),
    }


def by_seed(smoke: bool = False) -> list[dict[str, Recipe]]:
    """Return the same arms seed by seed, since they are compared within a seed; a smoke trial has one seed."""
    arms = gpu_photos(smoke)
    seeds = [dict(zip(arms, recipes)) for recipes in zip(*arms.values())]
    return seeds[:1] if smoke else seeds
