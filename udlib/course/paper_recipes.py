"""The rows of the paper's tables (`udlib.course.paper_tables`) as recipes: at the paper's size, or at the course's on any data set.

A row's method is the same at both sizes. At full size every setting has a source (`SOURCES`): the paper, the released code
where the paper is silent, or this project. At the course's size small networks stand in, trained as the course's are, so
that the rows which the course asks about too are the very recipes of `udlib.course.recipes`.
"""

from __future__ import annotations

from udlib.course.data import HOLD_OUT
from udlib.course.paper_tables import Row, Table
from udlib.course.profiles import EPOCHS, FULL, OURS, PAPER, PAPERS_DATA, RELEASED, profile
from udlib.course.recipes import HARD_LABELS, TERMS, TRICKS, baseline
from udlib.methods import recipe
from udlib.methods.base import Recipe

SIZES = ("course", "full")
STAND_INS = {"resnet101": "small_wide", "resnet18": "small", "mobilenet_v2": "small_narrow"}
SECOND_TEACHER = "small"  # the course's second teacher; as a row of its own VGG-19-BN has no stand-in

# What a row's method is, by table and method: the module of udlib.methods, and its choices.
METHODS = {
    "table1": {name: ("supervised", choices) for name, choices in TRICKS.items()},
    "table2": {"without branch": ("supervised", {}), "with branch": ("supervised", {"lam": 0.1})},
    "table3": {"baseline": ("supervised", {}), **{name: ("distillation", TERMS[name]) for name in ("KD", "UD")}},
    "table4": {"hard labels": ("self_distillation", {"distil": False}), "UD": ("self_distillation", {"distil": True})},
    "table5": {
        "hard labels": ("supervised", {}),
        **{name: ("supervised", found) for name, found in HARD_LABELS.items()},
        **{name: ("distillation", TERMS[name]) for name in ("KD + distribution", "UD")},
    },
}

# Where every other setting of a full-size recipe comes from: source, and the place or the reason.
SOURCES = {name: (source, where) for name, (_, source, where) in FULL.items()} | {
    "data": (PAPER, "section 5"),
    "network": (PAPER, "the tables"),
    "teacher": (PAPER, "the tables"),
    "lam": (PAPER, "Eq. 12, 0.1 by its grid search; 0 without the branch"),
    "teacher_lam": (PAPER, "Eq. 12; that KD's teacher has the branch too is our reading"),
    "alpha": (PAPER, "Eq. 18; 0 for KD"),
    "beta": (PAPER, "Eq. 18; 0 for KD, and without attention"),
    "temperature": (PAPER, "section 5.3.4; its equations have none, the released code has the T² factor"),
    "normalize": (PAPER, "Eq. 17"),
    "scale": (PAPER, "Eqs. 3 and 11 as printed: sums over classes"),
    "loss": (PAPER, "section 5.3.4"),
    "smoothing": (PAPER, "section 5.3.4"),
    "distil": (PAPER, "section 5.3.2; what the row without UD trains on after the restart is our reading"),
    "through_weights": (OURS, "the paper does not say whether Eq. 15 is differentiated"),
    "seed": (OURS, "seeds 0, 1, 2, …"),
    "limit": (OURS, "all images"),
    "shift": (OURS, "no shifts"),
    "warm_up": (OURS, "unused by the cosine and step schedules"),
    "precision": (OURS, "bf16 where the hardware has it"),
    "channels_last": (OURS, "speed alone"),
    "compile": (OURS, "speed alone"),
    "ema": (OURS, "no running average of the weights"),
    "workers": (OURS, "images are decoded beforehand"),
}

# What a full-size recipe cannot express, or does otherwise: what the paper or the released code does, and what happens here.
DEPARTURES = {
    "step decay": "Table 1 without cosine decay: the paper gives no schedule; here: a tenth for the last third of the steps",
    "validation": f"{PAPER}: trains on all of its training images; here: one in {HOLD_OUT} is held out for validation",
    "epoch": f"{RELEASED}: the best epoch on the test images; here: the last one, and Table 4's teacher by the held-out images",
    "losses": f'{RELEASED}: other factors than the equations (udlib.losses, scale="released"); here: the equations',
    "seeds": "the paper does not say how many runs a mean has; here: --seeds of them, a teacher and its student share one",
}
COURSE_DEPARTURES = {
    "size": "the course's networks, image size and training; compare differences and their signs, not levels",
    "stand-ins": "small_wide for ResNet-101, small for ResNet-18, small_narrow for MobileNet-v2; Table 1 on small",
    "VGG-19-BN": "as a teacher the course's second one (small) stands in; as a row of Table 2 it has no stand-in",
    "temperature": "1 in distillation, as in the equations; the paper's text has 3",
}


def row_recipe(table: Table, row: Row, data: str | None = None, size: str = "full", seed: int = 0) -> Recipe | None:
    """The recipe that repeats a row on `data` (None: the paper's) with one seed.

    None for a cited row, and at the course's size for a network without a stand-in. Raises ValueError for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"size is '{size}': choose one of {', '.join(SIZES)}")
    if row.cited:
        return None
    method, choices = METHODS[table.name[:6]][row.method]
    data = data or table.data
    if size == "course":
        network = "small" if table.name == "table1" else STAND_INS.get(row.network)
        if network is None:
            return None
        taught = {"teacher": STAND_INS.get(row.teacher, SECOND_TEACHER)} if row.teacher else {}
        return recipe(method, **{**baseline(data, seed).choices(), "network": network, **taught, **choices})
    changes = {"epochs": EPOCHS.get(data, FULL["epochs"][0])}
    if method == "self_distillation":
        changes["epochs"] = 40
    if method != "supervised":
        changes["temperature"] = 3.0
    if row.teacher:
        changes["teacher"] = row.teacher
    if choices.get("schedule") == "one-cycle":  # the course's cosine decay has a warm-up, the paper's has none
        choices = choices | {"schedule": "cosine"}
    full = {name: value for name, (value, *_) in FULL.items()}
    return recipe(method, **{**full, "data": data, "network": row.network, "seed": seed, **changes, **choices})


def default_size(data: str) -> str:
    """ "full" for the data sets of papers and in the profile "full"; "course" for any other, and in the profile "smoke"."""
    return {"smoke": "course", "full": "full"}.get(profile(), "full" if data in PAPERS_DATA else "course")


def settings(recipes: list[Recipe]) -> list[tuple[str, str, str, str]]:
    """What full-size recipes choose: (name, values, source, where), in the order of the sources."""
    rank = (PAPER, RELEASED, OURS)
    found: dict[str, list] = {}
    for chosen in recipes:
        for name, value in chosen.flat().items():
            values = found.setdefault(name, [])
            if name not in ("method", "seed", "classes") and value not in values:
                values.append(value)
    lines = [(name, ", ".join(map(str, values)), *SOURCES[name]) for name, values in found.items() if values]
    return sorted(lines, key=lambda line: rank.index(line[2]))
