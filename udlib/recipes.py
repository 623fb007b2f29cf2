"""The recipes of the course, by group: what `udlib runs` trains and the lessons load."""

from __future__ import annotations

from fnmatch import fnmatch

from udlib.experiments import Recipe, recipe

SEEDS = range(5)

# λ of UD's Eq. 12. The paper chooses 0.1; the sweep covers the course's main data set, the headline values the others.
LAMBDAS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HEADLINE_LAMBDAS = (0.0, 0.1, 1.0)

# Table 1 of UD asks what two tricks are worth: CutOut (random erasing) and cosine decay of the learning rate.
TRICKS = {
    "neither": {"erase": 0.0, "schedule": "step"},
    "CutOut": {"erase": 0.5, "schedule": "step"},
    "cosine decay": {"erase": 0.0, "schedule": "one-cycle"},
    "both": {"erase": 0.5, "schedule": "one-cycle"},
}


# How much a network can overfit decides what there is to calibrate: the course's regime, and one on either side of it.
REGIMES = {"no augmentation": {"flip": False}, "flips": {}, "CutOut": {"erase": 0.5}}
REGIME_LAMBDAS = (0.0, 1.0)


def baseline(data: str = "scenes", seed: int = 0) -> Recipe:
    """The course's baseline: the small network, BCE (UD, Eq. 3), flips, cosine decay with a warm-up.

    A mirrored digit is no digit, so `digits` is shifted by up to two pixels instead of flipped.
    """
    moves = {"flip": False, "shift": 2} if data == "digits" else {}
    return recipe(data=data, seed=seed, **moves)


def tricks(data: str = "scenes") -> dict[str, list[Recipe]]:
    """The four combinations of Table 1's tricks, each with every seed."""
    return {name: [baseline(data, seed).but(**changes) for seed in SEEDS] for name, changes in TRICKS.items()}


def two_branch(lam: float, data: str = "scenes", **changes) -> list[Recipe]:
    """The baseline with the calibration branch at weight λ (UD, Eq. 12), with every seed; λ = 0 is the baseline itself."""
    return [baseline(data, seed).but(lam=lam, **changes) for seed in SEEDS]


def sweep(data: str = "scenes") -> dict[float, list[Recipe]]:
    """The trained values of λ, each with every seed: the whole grid on `scenes`, the headline values elsewhere."""
    return {lam: two_branch(lam, data) for lam in (LAMBDAS if data == "scenes" else HEADLINE_LAMBDAS)}


def regimes() -> dict[tuple[str, float], list[Recipe]]:
    """Three training regimes, each without the calibration branch and with it."""
    return {(name, lam): two_branch(lam, **changes) for name, changes in REGIMES.items() for lam in REGIME_LAMBDAS}


def scales() -> dict[str, list[Recipe]]:
    """The paper's sum over classes against the released code's mean: on `scenes`, λ = 0.1 beside a mean is 1.6 beside a sum.

    Without clipping, the two differ by a factor of the whole loss alone, which Adam hardly sees.
    """
    alike = {"released, lambda 0.1": {"lam": 0.1, "scale": "released"}, "paper, lambda 1.6": {"lam": 1.6}}
    return {"paper, lambda 0.1": two_branch(0.1), **{name: two_branch(**choices) for name, choices in alike.items()},
            **{f"{name}, no clipping": two_branch(**choices, clip=0.0) for name, choices in alike.items()}}


def quick() -> list[Recipe]:
    """Trainings of seconds, which the tests repeat and hold against what ships."""
    return [baseline(seed=seed).but(network="small_narrow", limit=600, epochs=10) for seed in SEEDS]


def groups() -> dict[str, list[Recipe]]:
    """All recipes whose results ship, by the name of the question they answer; one recipe may stand in several."""
    named = {f"tricks/{name}": recipes for name, recipes in tricks().items()}
    named |= {"digits/both": [baseline("digits", seed).but(**TRICKS["both"]) for seed in SEEDS]}
    named |= {f"lambda/{lam:g}": recipes for lam, recipes in sweep().items()}
    named |= {f"digits/lambda {lam:g}": recipes for lam, recipes in sweep("digits").items()}
    named |= {f"regimes/{name}, lambda {lam:g}": recipes for (name, lam), recipes in regimes().items()}
    named |= {f"pooling/max, lambda {lam:g}": two_branch(lam, pooling="max") for lam in (0.0, 0.1)}
    named |= {f"scale/{name}": recipes for name, recipes in scales().items()}
    return named | {"quick": quick()}


def keeps_weights(chosen: Recipe) -> bool:
    """Whether the trained network itself ships: seed 0 of each baseline and of the paper's λ, for looking inside one."""
    return chosen in (baseline("scenes"), baseline("digits"), baseline("scenes").but(lam=0.1))


def keeps_branch(chosen: Recipe) -> bool:
    """Whether the calibration branch's logits ship too: in the sweep on `scenes`. The budget is for what lessons read."""
    return any(chosen in recipes for recipes in sweep().values())


def select(only: str | None = None) -> dict[str, list[Recipe]]:
    """The groups whose name matches a pattern (`tricks*`, `digits`), or that hold a recipe of this key.

    Raises ValueError where nothing matches.
    """
    found = {name: recipes for name, recipes in groups().items()
             if only is None or fnmatch(name, only) or name.startswith(only)}
    if not found:
        found = {name: [r for r in recipes if r.key == only] for name, recipes in groups().items()}
        found = {name: recipes for name, recipes in found.items() if recipes}
    if not found:
        raise ValueError(f"no recipe matches '{only}': choose a pattern for {', '.join(groups())}, or a run's key")
    return found
