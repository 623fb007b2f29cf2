"""The arms of the experiments on photographs, where the main paper's claims were made, and of the search for a cause.

The networks have ImageNet weights and are fine-tuned, as in the paper; sizes are such that two CPU cores carry them.
`data/README.md` says how the regime was chosen, by the baseline alone, and what was decided before any run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from udlib.course.arms import BETAS, SEEDS, TERMS, distilled, two_branch
from udlib.methods import recipe
from udlib.methods.base import Recipe

STUDENT, TEACHER = "efficientnet_lite0", "efficientnet_lite2"
# Chosen on validation by the baseline alone, and frozen; see data/README.md.
FINE_TUNING: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 5e-4,
    "head_lr": 1e-3,
    "epochs": 10,
    "batch_size": 28,  # divides 1,316 images, so that no epoch leaves one out
    "freeze": 4,
    "crop_scales": (1.0, 0.875, 0.75),
    "erase": 0.0,
}
REGIME: dict[str, Any] = {
    "data": "photos",
    "size": 240,
    "crop": 128,
    "network": STUDENT,
    "weights": "IMAGENET1K",
    "embedding": 512,
    **FINE_TUNING,
}
TEACHER_SIZE = 224
# The teacher is trained like the students, on the same regions at 224 px, but with CutOut.
TEACHER_TRAINING = {"erase": 0.5}
TAUGHT = {"teacher": TEACHER, "teacher_size": TEACHER_SIZE, "teacher_training": TEACHER_TRAINING}

# λ of UD's Eq. 12. The last is the released code's: 1, but beside a mean over the 29 classes (lesson 03, section 7).
PHOTO_LAMBDAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 29.0)
# What the authors' released code computes (methods.md): its factors, its temperature, and its nearly equal weights w.
RELEASED = {"alpha": 1.0, "beta": 0.1, "temperature": 3.0, "scale": "released", "weighting": "released"}

# Changes to UD at the printed weights, each of which may be what keeps the accuracy.
CHANGES: dict[str, dict[str, Any]] = {
    "UD": {},
    "UD, Eq. 13 summed": {"over_classes": "sum"},
    "UD, no attention": {"beta": 0.0},
    "UD, no distribution": {"alpha": 0.0},
    "UD, β ramped up": {"ramp": (0.25, 0.75)},
    "UD released": RELEASED,
    "UD, lr / 10": {},  # the learning rates depend on the data set
}
STARTS = ("first", "trained")  # ImageNet or random weights; or the trained λ = 0.1 student of the same seed
CONTROLS = ("KD", "hard labels")
FROM_STUDENT = {"method": "supervised", "lam": 0.1}

# What people use today against overconfidence, beside temperature scaling, which needs no training.
CALIBRATORS_OF_TODAY: dict[str, dict[str, Any]] = {
    "CutOut": {"erase": 0.5},
    "focal loss": {"loss": "focal"},
    "label smoothing": {"loss": "label-smoothing"},
    "asymmetric loss": {"loss": "asymmetric"},
}
SOFTMAX_ROWS = {"softmax, T = 3": {"loss": "softmax"}, "1/k softmax": {"loss": "one-over-k"}}  # of Table 5
# The released code's pooling, classifier and optimiser, at the course's size.
AS_RELEASED = {"pooling": "max", "bias": False, "optimizer": "sgd", "lr": 1e-2, "head_lr": 1e-2, "weight_decay": 1e-4}


def photo_branch(lam: float = 0.0, **changes) -> list[Recipe]:
    """Return a student that learns hard labels with the calibration branch at weight λ, with every seed; 0: the baseline."""
    return [recipe(**{**REGIME, "lam": lam, **changes, "seed": seed}) for seed in SEEDS]


def photo_teachers() -> list[Recipe]:
    """Return the teacher of every seed: the larger network, on larger crops."""
    return photo_branch(0.1, **TEACHER_TRAINING, network=TEACHER, crop=TEACHER_SIZE)


def photo_students(terms: str = "UD", **changes) -> list[Recipe]:
    """Return a student that learns some of the `arms.TERMS` from its teacher, with every seed."""
    return [recipe("distillation", **{**REGIME, **TAUGHT, **TERMS[terms], **changes, "seed": seed}) for seed in SEEDS]


def shipped_photo_student() -> Recipe:
    """Return the student whose trained network ships, so that a lesson can use it on a picture without the photographs."""
    return photo_students(over_classes="sum")[0]


def photos() -> dict[str, list[Recipe]]:
    """Return the main arms on photographs: hard labels, the teacher, and what a student learns from it."""
    return {
        "baseline": photo_branch(),
        "lambda 0.1": photo_branch(0.1),
        "lambda 1": photo_branch(1.0),
        "teacher": photo_teachers(),
        "KD": photo_students("KD"),
        "UD": photo_students(),
        "UD released": photo_students(**RELEASED),
    }


def causes(data: str) -> dict[tuple[str, str], list[Recipe]]:
    """Return the search for what makes UD at the printed weights lose accuracy, by start and arm.

    Each start has the changes of `CHANGES` and two controls with the same start and as many epochs.

    Args:
        data: "photos" or "scenes".
    """
    arms = {}
    for start in STARTS:
        begin = {"start": FROM_STUDENT} if start == "trained" else {}
        for name, changes in CHANGES.items():
            arms[start, name] = _students(data, begin, changes, slow=name == "UD, lr / 10")
        arms[start, "KD"] = _students(data, begin, TERMS["KD"])
        hard = photo_branch if data == "photos" else two_branch
        arms[start, "hard labels"] = hard(0.1, **begin)
    return arms


def _students(data: str, begin: Mapping[str, Any], changes: Mapping[str, Any], slow: bool = False) -> list[Recipe]:
    """Students of one arm; `slow` divides the student's learning rates by ten, and nobody else's."""
    if data != "photos":
        rates = {"lr": 3e-4, "teacher_training": {"lr": 3e-3}} if slow else {}
        start = {"start": FROM_STUDENT | {"lr": 3e-3}} if slow and begin else begin
        return distilled("UD", data, **rates, **start, **changes)
    usual = {name: FINE_TUNING[name] for name in ("lr", "head_lr")}
    rates: dict[str, Any] = {}
    if slow:
        rates = {name: value / 10 for name, value in usual.items()} | {"teacher_training": TEACHER_TRAINING | usual}
    start = {"start": FROM_STUDENT | usual} if slow and begin else begin
    return photo_students(**rates, **start, **changes)


def summed_without_attention(data: str) -> list[Recipe]:
    """Return a control that was added once it was seen that UD keeps its accuracy with Eq. 13 summed.

    Args:
        data: "photos" or "scenes".
    """
    return _students(data, {}, TERMS["KD + distribution"] | {"over_classes": "sum"})


def betas(data: str) -> dict[float, list[Recipe]]:
    """Return UD by the weight β > 0 of its attention term; the paper prints 0.5.

    Args:
        data: "photos" or "scenes".
    """
    return {beta: _students(data, {}, {"beta": beta}) for beta in BETAS if beta > 0}


def photo_weights() -> dict[str, list[Recipe]]:
    """Return UD with other weights of its attention term than the paper's, and with maps of unit norm."""
    return {
        "KD + distribution": photo_students("KD + distribution"),
        "UD, unit maps": photo_students(normalize="l2"),
        **{f"UD, β = {beta:g}": recipes for beta, recipes in betas("photos").items() if beta != 0.5},
    }


def photo_sweep() -> dict[float, list[Recipe]]:
    """Return the trained values of λ on photographs."""
    return {lam: photo_branch(lam) for lam in PHOTO_LAMBDAS}


def photo_calibrators() -> dict[str, list[Recipe]]:
    """Return what people use today against overconfidence: each is a way to learn from hard labels."""
    return {name: photo_branch(**changes) for name, changes in CALIBRATORS_OF_TODAY.items()}


def photo_restarts() -> dict[str, list[Recipe]]:
    """Return Table 4 of UD: twice the epochs with one restart, then hard labels, KD or UD from the best network so far."""
    second = {"hard labels": {"distil": False}, "KD": TERMS["KD"], "UD": {}}
    return {
        name: [recipe("self_distillation", **{**REGIME, **changes, "seed": seed}) for seed in SEEDS]
        for name, changes in second.items()
    }


def photo_sizes() -> dict[float, list[Recipe]]:
    """Return Table 2 of UD for a second network: the teacher's, at the students' size, without and with the branch."""
    return {lam: photo_branch(lam, network=TEACHER) for lam in (0.0, 0.1)}


def photo_as_released() -> dict[str, list[Recipe]]:
    """Return pooling, classifier and optimiser as the released code has them, with their own baseline and teacher."""
    return {
        "baseline": photo_branch(**AS_RELEASED),
        "teacher": photo_branch(0.1, **AS_RELEASED, **TEACHER_TRAINING, network=TEACHER, crop=TEACHER_SIZE),
        "KD": photo_students("KD", **AS_RELEASED),
        "UD released": photo_students(**RELEASED, **AS_RELEASED),
    }


def photo_groups() -> dict[str, list[Recipe]]:
    """Return all recipes on photographs, and those of the search for a cause, by group, in the order of training."""
    # The part before "/" names what is trained, packed and committed together.
    family = {"KD": "photos-kd", "UD": "photos-ud", "UD released": "photos-ud-released"}
    groups: dict[str, Sequence[Recipe]] = {
        f"{family.get(name, 'photos')}/{name}": recipes for name, recipes in photos().items()
    }
    for data, prefix in (("scenes", "cause"), ("photos", "photos-cause")):
        groups[f"{prefix}-control/KD + distribution, Eq. 13 summed"] = summed_without_attention(data)
        groups |= {f"{prefix}-{start}/{name}": recipes for (start, name), recipes in causes(data).items()}
    groups |= {f"photos-weights/{name}": recipes for name, recipes in photo_weights().items()}
    groups |= {f"photos-today/{name}": recipes for name, recipes in photo_calibrators().items()}
    groups |= {f"photos-lambda/{lam:g}": recipes for lam, recipes in photo_sweep().items()}
    groups |= {f"photos-restart/{name}": recipes for name, recipes in photo_restarts().items()}
    groups |= {f"photos-size/{TEACHER}, lambda {lam:g}": recipes for lam, recipes in photo_sizes().items()}
    groups |= {f"photos-hard/{name}": photo_branch(**changes) for name, changes in SOFTMAX_ROWS.items()}
    groups |= {f"photos-released/{name}": recipes for name, recipes in photo_as_released().items()}
    return {name: list(recipes) for name, recipes in groups.items()}
