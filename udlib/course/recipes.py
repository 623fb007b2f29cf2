"""The recipes of the course by group: what `udlib runs` trains, what of it ships, and what the lessons load.

The recipes themselves are in `udlib.course.arms`; this module offers them too.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from functools import lru_cache

from udlib.course.arms import (
    ALPHAS,
    AVERAGED,
    BETAS,
    HARD_LABELS,
    HEADLINE_LAMBDAS,
    LAMBDAS,
    NETWORKS,
    PAIR_TERMS,
    PARTITIONS,
    REGIME_LAMBDAS,
    REGIMES,
    SEEDS,
    STUDENTS,
    SWEEP_SEEDS,
    TEACHERS,
    TEMPERATURES,
    TERMS,
    TRICKS,
    averaged,
    baseline,
    by_size,
    detected,
    detection,
    detectors,
    distilled,
    hard_labels,
    pairs,
    parallel,
    partitioned,
    quick,
    regimes,
    regimes_distilled,
    restart_controls,
    restarted,
    scales,
    specialists,
    sweep,
    temperatures,
    tricks,
    two_branch,
    weights,
)
from udlib.course.photo_arms import photo_groups, shipped_photo_student
from udlib.methods import method_of, needs_of
from udlib.methods.base import Recipe

__all__ = [
    "ALPHAS",
    "AVERAGED",
    "BETAS",
    "HARD_LABELS",
    "HEADLINE_LAMBDAS",
    "LAMBDAS",
    "PAIR_TERMS",
    "METRICS_ONLY",
    "NETWORKS",
    "PARTITIONS",
    "REGIMES",
    "REGIME_LAMBDAS",
    "SEEDS",
    "STUDENTS",
    "SWEEP_SEEDS",
    "TEACHERS",
    "TEMPERATURES",
    "TERMS",
    "TRICKS",
    "averaged",
    "baseline",
    "by_size",
    "detected",
    "detection",
    "detectors",
    "distilled",
    "groups",
    "hard_labels",
    "PLANNED",
    "keeps_branch",
    "keeps_logits",
    "keeps_weights",
    "pairs",
    "parallel",
    "partitioned",
    "quick",
    "regimes",
    "regimes_distilled",
    "restart_controls",
    "restarted",
    "scales",
    "select",
    "shipped_groups",
    "specialists",
    "sweep",
    "teaches",
    "temperatures",
    "tricks",
    "two_branch",
    "weights",
]


def groups() -> dict[str, list[Recipe]]:
    """Return all recipes of the course by the name of the question that they answer.

    A recipe may be in several groups.
    """
    by_group = {f"tricks/{name}": recipes for name, recipes in tricks().items()}
    by_group |= {"digits/both": [baseline("digits", seed).but(**TRICKS["both"]) for seed in SEEDS]}
    by_group |= {f"lambda/{lam:g}": recipes for lam, recipes in sweep().items()}
    by_group |= {f"digits/lambda {lam:g}": recipes for lam, recipes in sweep("digits").items()}
    by_group |= {f"regimes/{name}, lambda {lam:g}": recipes for (name, lam), recipes in regimes().items()}
    by_group |= {f"pooling/max, lambda {lam:g}": two_branch(lam, pooling="max") for lam in (0.0, 0.1)}
    by_group |= {f"scale/{name}": recipes for name, recipes in scales().items()}
    by_group |= {f"size/{network}, lambda {lam:g}": recipes for (network, lam), recipes in by_size().items()}
    by_group |= {f"hard labels/{name}": recipes for name, recipes in hard_labels().items()}
    by_group |= {
        f"distilled/{teacher} to {student}, {terms}": recipes for (teacher, student, terms), recipes in pairs().items()
    }
    by_group |= {"distilled/small_wide to small, KD + distribution": distilled("KD + distribution")}
    by_group |= {"distilled/small_wide to small, UD, maps standardised": distilled(normalize=True)}
    by_group |= {
        "distilled/small_wide to small, UD, w held constant": distilled(seeds=SWEEP_SEEDS, through_weights=False)
    }
    by_group |= {f"restart/{name}": recipes for name, recipes in (restarted() | restart_controls()).items()}
    by_group |= {f"temperature/{teacher}, T = {T:g}": recipes for (teacher, T), recipes in temperatures().items()}
    by_group |= {f"{name}/{value:g}": recipes for (name, value), recipes in weights().items()}
    by_group |= {f"regimes/{regime}, {who}": recipes for (regime, who), recipes in regimes_distilled().items()}
    by_group |= {"digits/teacher": two_branch(0.1, "digits", network="small_wide")}
    by_group |= {f"digits/{terms}": distilled(terms, "digits") for terms in PAIR_TERMS}
    by_group |= {"averaged": averaged(), "parallel/no teacher": parallel()}
    by_group |= {f"parallel/teachers, k = {k}, {kind}": recipes for (k, kind), recipes in specialists().items()}
    by_group |= {f"parallel/k = {k}, {strategy}": recipes for (k, strategy), recipes in partitioned().items()}
    by_group |= {f"detection/{name}": recipes for name, recipes in detection().items()}
    by_group |= {"quick": quick()}
    return by_group | photo_groups()


# Groups that are planned and not trained yet, so that nothing of them ships. `make runs ONLY="photos*"` trains them.
PLANNED: tuple[str, ...] = ("photos-size/*", "photos-hard/*", "photos-released/*")


def shipped_groups() -> dict[str, list[Recipe]]:
    """Return the groups whose results ship: all but those that are only planned."""
    return {name: recipes for name, recipes in groups().items() if not any(fnmatch(name, rule) for rule in PLANNED)}


def keeps_weights(candidate: Recipe) -> bool:
    """Return whether the trained network itself ships, so that a lesson can look inside.

    These are seed 0 of each baseline, of the paper's λ, of the teacher, of its students with and without the attention
    term, of PSD's student and of two of its teachers (of the parts that hold the boat), of the asymmetric loss alone,
    of the detector, and of one student on photographs.
    """
    branched, psd_student = baseline().but(lam=0.1), partitioned()[3, "both"][0]
    specialised = [method_of(psd_student.method).needs(psd_student)[name] for name in ("co 2", "dis 2")]
    return candidate in (
        baseline(),
        branched,
        branched.but(network="small_wide"),
        distilled("KD + distribution")[0],
        distilled()[0],
        psd_student,
        parallel()[0],
        *specialised,
        detectors()[0],
        shipped_photo_student(),
    )


def teaches(candidate: Recipe) -> bool:
    """Return whether a recipe of the course needs the trained network of this one."""
    return any(candidate in needs_of(student).values() for student in _names_by_recipe(groups))


def keeps_branch(candidate: Recipe) -> bool:
    """Return whether the calibration branch's logits on test ship too: those of the sweep on `scenes` do.

    The logits that ship are those that lessons read, since all results together have a limit of size.
    """
    return any(candidate in recipes for recipes in sweep().values())


# Groups of which the lessons read metrics and histories alone; with their logits, the results would be too large to
# ship.
METRICS_ONLY = (
    "tricks/CutOut",
    "digits/both",
    "digits/teacher",
    "digits/?D",
    "scale/*",
    "pooling/*",
    "size/small_narrow*",
    "size/small_wide, lambda 0",
    "*to small_narrow*",
    "*maps standardised",
    "*w held constant",
    "alpha/*",
    "regimes/*, teacher",
    "regimes/*, ?D",
    "restart/KD",
    "restart/80 epochs",
    "parallel/teachers, k = [124]*",
    "parallel/teachers, k = 3, random",
    "parallel/k = [124]*",
    "parallel/k = 3, [CDr]*",
    "detection/features",
    "detection/predictions",
    "detection/classifier",
    "detection/*, boxes",
    "detection/*, selective-search",
    "beta/0",
    "beta/0.05",
    "distilled/small to small, UD",
    "distilled/small_wide to small, KD + distribution",
    "hard labels/label smoothing",
    "digits/lambda *",
    "quick",
    "cause-*",
    "photos/teacher",
    "photos-[chrsw]*",
    "photos-today/*",
)
# Groups of which a lesson draws the answers of one network, and reads the metrics of the others.
LOGITS_OF_SEED_0 = (
    "tricks/neither",
    "regimes/no augmentation, lambda *",
    "regimes/CutOut, lambda 1",
    "photos-kd/*",
    "photos-ud*",
)
# Groups whose logits on test a lesson reads, and those on validation none does.
TEST_LOGITS_ONLY = ("detection/teacher, grid", "parallel/teachers, *", "hard labels/*", "photos*")


def keeps_logits(candidate: Recipe, split: str = "test") -> bool:
    """Return whether the logits on a split ship: they do where some group of the recipe is one that a lesson reads."""
    unread = METRICS_ONLY
    if candidate.training.seed != 0:
        unread += LOGITS_OF_SEED_0
    if split == "val":
        unread += TEST_LOGITS_ONLY
    names = _names_by_recipe(groups).get(candidate, [])
    return any(not any(fnmatch(name, rule) for rule in unread) for name in names)


@lru_cache(maxsize=2)
def _names_by_recipe(make_groups: Callable[[], dict[str, list[Recipe]]]) -> dict[Recipe, list[str]]:
    """The groups that each recipe is in, found once, since to make all groups takes a tenth of a second."""
    names: dict[Recipe, list[str]] = {}
    for name, recipes in make_groups().items():
        for recipe in recipes:
            names.setdefault(recipe, []).append(name)
    return names


def select(only: str | None = None) -> dict[str, list[Recipe]]:
    """Return the groups whose name matches a pattern (`tricks*`, `digits`), or that hold a recipe of this key.

    Without a pattern, return all groups. Raises ValueError where nothing matches.
    """
    every = groups()
    if only is None:
        return every
    selected = {name: recipes for name, recipes in every.items() if fnmatch(name, only) or name.startswith(only)}
    if not selected:
        selected = {name: [r for r in recipes if r.key == only] for name, recipes in every.items()}
        selected = {name: recipes for name, recipes in selected.items() if recipes}
    if not selected:
        raise ValueError(f"no recipe matches '{only}': choose a pattern for {', '.join(every)}, or a run's key")
    return selected
