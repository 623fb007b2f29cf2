"""The rows of the paper's tables (`udlib.course.paper_tables`) as recipes, at the paper's size or at the course's.

A row's method is the same at both sizes. At full size every setting has a source (`SOURCES`): the paper, the released
code where the paper is silent, or this project. At the course's size small networks stand in, trained as the course's
are, so that rows about which the course asks too are the very recipes of `udlib.course.arms`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from udlib.course.arms import HARD_LABELS, TERMS, TRICKS, baseline
from udlib.course.data import HOLD_OUT
from udlib.course.paper_tables import Row, Table
from udlib.course.profiles import EPOCHS, FULL, OURS, PAPER, PAPERS_DATA, RELEASED, profile
from udlib.methods import recipe
from udlib.methods.base import Recipe

SIZES = ("course", "full")
STAND_INS = {"resnet101": "small_wide", "resnet18": "small", "mobilenet_v2": "small_narrow"}
SECOND_TEACHER = "small"  # the course's second teacher; as a row of its own VGG-19-BN has no stand-in


class RowMethod(NamedTuple):
    """How a row of a table is trained.

    Attributes:
        method: The module of udlib.methods.
        choices: Its settings at both sizes.
        full_size: Further settings at the paper's size, which replace those of `FULL`.
    """

    method: str
    choices: dict[str, Any]
    full_size: dict[str, Any] = {}


def _distilled(terms: str) -> RowMethod:
    """Distillation on these terms, with the paper's temperature at its size."""
    return RowMethod("distillation", TERMS[terms], {"temperature": 3.0})


def _restarted(distil: bool) -> RowMethod:
    """Self-distillation: twice 40 epochs at the paper's size, on whatever data."""
    return RowMethod("self_distillation", {"distil": distil}, {"temperature": 3.0, "epochs": 40})


# How each row is trained, by table and the row's method.
METHODS = {
    "table1": {name: RowMethod("supervised", choices) for name, choices in TRICKS.items()},
    "table2": {"without branch": RowMethod("supervised", {}), "with branch": RowMethod("supervised", {"lam": 0.1})},
    "table3": {"baseline": RowMethod("supervised", {}), **{name: _distilled(name) for name in ("KD", "UD")}},
    "table4": {"hard labels": _restarted(distil=False), "UD": _restarted(distil=True)},
    "table5": {
        "hard labels": RowMethod("supervised", {}),
        **{name: RowMethod("supervised", choices) for name, choices in HARD_LABELS.items()},
        **{name: _distilled(name) for name in ("KD + distribution", "UD")},
    },
}

# Where every other setting of a full-size recipe comes from: source, and the place or the reason.
SOURCES = {name: (source, where) for name, (_, source, where) in FULL.items()} | {
    "data": (PAPER, "section 5"),
    "network": (PAPER, "the tables"),
    "teacher": (PAPER, "the tables"),
    "lam": (PAPER, "Eq. 12; its grid search chose 0.1; 0 means no branch"),
    "teacher_lam": (PAPER, "Eq. 12; we assume that KD's teacher has the branch too"),
    "alpha": (PAPER, "Eq. 18; 0 for KD"),
    "beta": (PAPER, "Eq. 18; 0 for KD, and without attention"),
    "temperature": (PAPER, "section 5.3.4; its equations have no T, the released code has T and the factor T²"),
    "normalize": (PAPER, "Eq. 17"),
    "scale": (PAPER, "Eqs. 3 and 11 as printed: sums over classes"),
    "loss": (PAPER, "section 5.3.4"),
    "smoothing": (PAPER, "section 5.3.4"),
    "distil": (PAPER, "section 5.3.2; we assume that the row without UD trains on hard labels after the restart"),
    "through_weights": (OURS, "the paper does not say whether Eq. 15 is differentiated"),
    "start": (PAPER, "section 5.1: ImageNet weights; the paper says nothing more"),
    "head_lr": (RELEASED, "one learning rate for all layers"),
    "freeze": (RELEASED, "all layers are trained"),
    "crop_scales": (RELEASED, "five scales, 1 to 0.5"),
    "teacher_size": (RELEASED, "teacher and student see the same size"),
    "teacher_training": (OURS, "the teacher is trained like the student"),
    "weighting": (PAPER, "Eq. 15"),
    "over_classes": (PAPER, "Eq. 13 as printed: a mean over classes"),
    "ramp": (PAPER, "Eq. 18: one weight throughout"),
    "gamma": (OURS, "used only by the focal loss"),
    "seed": (OURS, "seeds 0, 1, 2, …"),
    "limit": (OURS, "all images"),
    "shift": (OURS, "no shifts"),
    "warm_up": (OURS, "unused by the cosine and step schedules"),
    "precision": (OURS, "bf16 where the hardware has it"),
    "channels_last": (OURS, "changes only the speed"),
    "compile": (OURS, "changes only the speed"),
    "ema": (OURS, "no running average of the weights"),
    "workers": (OURS, "images are decoded beforehand"),
}

# What a full-size recipe cannot express, or does otherwise: what the paper or the released code does, and what happens
# here.
DEPARTURES = {
    "step decay": "Table 1 without cosine decay: the paper gives no schedule; here: a tenth of the learning rate for the last "
    "third of the steps",
    "validation": f"{PAPER}: trains on all of its training images; here: one in {HOLD_OUT} is held out for validation",
    "epoch": f"{RELEASED}: the best epoch on the test images; here: the last one, and Table 4's teacher by the "
    f"held-out images",
    "losses": f'{RELEASED}: other factors than the equations (udlib.losses, scale="released"); here: the equations',
    "seeds": "the paper does not say over how many runs a mean is taken; here: over --seeds runs, with one seed for a teacher "
    "and its student",
}
COURSE_DEPARTURES = {
    "size": "the course's networks, image size and training; compare differences and their signs, not the numbers themselves",
    "stand-ins": "small_wide for ResNet-101, small for ResNet-18, small_narrow for MobileNet-v2; Table 1 on small",
    "VGG-19-BN": "small stands in for it as a teacher; as a row of Table 2 it has no stand-in",
    "temperature": "1 in distillation, as in the equations; the paper's text has 3",
}


def row_recipe(table: Table, row: Row, data: str | None = None, size: str = "full", seed: int = 0) -> Recipe | None:
    """Return the recipe that repeats a row with one seed.

    Args:
        table: The table of the paper.
        row: One of its rows.
        data: Name of the data set; None for the paper's.
        size: "course" or "full".
        seed: The seed.

    Returns:
        The recipe; None for a cited row, and at the course's size for a network without a stand-in.

    Raises:
        ValueError: For an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"size is '{size}': choose one of {', '.join(SIZES)}")
    if row.cited:
        return None
    plan = METHODS[table.name[:6]][row.method]
    data = data or table.data
    if size == "course":
        return _course_recipe(table, row, plan, data, seed)
    choices = {"epochs": EPOCHS.get(data, FULL["epochs"][0]), **plan.full_size}
    if row.teacher:
        choices["teacher"] = row.teacher
    choices |= plan.choices
    if choices.get("schedule") == "one-cycle":  # the course's cosine decay has a warm-up, the paper's has none
        choices["schedule"] = "cosine"
    full = {name: value for name, (value, *_) in FULL.items()}
    return recipe(plan.method, **{**full, "data": data, "network": row.network, "seed": seed, **choices})


def _course_recipe(table: Table, row: Row, plan: RowMethod, data: str, seed: int) -> Recipe | None:
    """The recipe of a row at the course's size; None for a network without a stand-in."""
    network = "small" if table.name == "table1" else STAND_INS.get(row.network)
    if network is None:
        return None
    teacher = {"teacher": STAND_INS.get(row.teacher, SECOND_TEACHER)} if row.teacher else {}
    return recipe(plan.method, **{**baseline(data, seed).choices(), "network": network, **teacher, **plan.choices})


def default_size(data: str) -> str:
    """Return the size at which a data set is trained unless a command says otherwise.

    It is "full" for the data sets of papers and in the profile "full", "course" for all others and in the profile
    "smoke".
    """
    return {"smoke": "course", "full": "full"}.get(profile(), "full" if data in PAPERS_DATA else "course")


def settings(recipes: list[Recipe]) -> list[tuple[str, str, str, str]]:
    """Return what full-size recipes choose, in the order of the sources.

    Returns:
        (name, values, source, place or reason) of each setting.
    """
    rank = (PAPER, RELEASED, OURS)
    values_by_name: dict[str, list] = {}
    for one_recipe in recipes:
        for name, value in one_recipe.flat().items():
            values = values_by_name.setdefault(name, [])
            if name not in ("method", "seed", "classes") and value not in values:
                values.append(value)
    lines = [(name, ", ".join(map(str, values)), *SOURCES[name]) for name, values in values_by_name.items() if values]
    return sorted(lines, key=lambda line: rank.index(line[2]))
