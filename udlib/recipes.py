"""The recipes of the course, by group: what `udlib runs` trains and the lessons load."""

from __future__ import annotations

from fnmatch import fnmatch

from udlib.experiments import Recipe, recipe

SEEDS = range(5)

# Table 1 of UD asks what two tricks are worth: CutOut (random erasing) and cosine decay of the learning rate.
TRICKS = {
    "neither": {"erase": 0.0, "schedule": "step"},
    "CutOut": {"erase": 0.5, "schedule": "step"},
    "cosine decay": {"erase": 0.0, "schedule": "one-cycle"},
    "both": {"erase": 0.5, "schedule": "one-cycle"},
}


def baseline(data: str = "scenes", seed: int = 0) -> Recipe:
    """The course's baseline: the small network, BCE (UD, Eq. 3), flips, cosine decay with a warm-up.

    A mirrored digit is no digit, so `digits` is shifted by up to two pixels instead of flipped.
    """
    moves = {"flip": False, "shift": 2} if data == "digits" else {}
    return recipe(data=data, seed=seed, **moves)


def tricks(data: str = "scenes") -> dict[str, list[Recipe]]:
    """The four combinations of Table 1's tricks, each with every seed."""
    return {name: [baseline(data, seed).but(**changes) for seed in SEEDS] for name, changes in TRICKS.items()}


def quick() -> list[Recipe]:
    """Trainings of seconds, which the tests repeat and hold against what ships."""
    return [baseline(seed=seed).but(network="small_narrow", limit=600, epochs=10) for seed in SEEDS]


def groups() -> dict[str, list[Recipe]]:
    """All recipes whose results ship, by the name of the question they answer."""
    named = {f"tricks/{name}": recipes for name, recipes in tricks().items()}
    return {**named, "digits/baseline": [baseline("digits", seed) for seed in SEEDS],
            "digits/both": [baseline("digits", seed).but(**TRICKS["both"]) for seed in SEEDS],
            "quick": quick()}


def keeps_weights(chosen: Recipe) -> bool:
    """Whether the trained network itself ships: seed 0 of each baseline, for lessons that look inside one."""
    return chosen in (baseline("scenes"), baseline("digits"))


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
