"""Which data a stored run belongs to, and whether the folder of its data set still holds just them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from udlib.course.data import SPLITS, RecipeData
from udlib.course.runs import Run
from udlib.datasets import EMBEDDED
from udlib.datasets.layouts import PHOTOS
from udlib.methods.base import Recipe
from udlib.workshop.measurements import differences, identity_of


def data_of(recipe: Recipe, known: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Any]:
    """What a run's provenance says of its data.

    Args:
        recipe: names the data.
        known: "splits" of an earlier answer; files that nobody touched since are not read again.

    Returns:
        "data", the fingerprint of all splits' images and labels by name; for data that are not the course's own, which never
        change, also "splits", the identity of each with its image files.
    """
    data = RecipeData(recipe)
    said: dict[str, Any] = {"data": data.fingerprint()}
    if recipe.data not in (*EMBEDDED, PHOTOS):
        known = known or {}
        said["splits"] = {name: identity_of(data.split(name), known.get(name, {})) for name in SPLITS}
    return said


def require_current(runs: Iterable[Run]) -> None:
    """Refuse runs whose data set has other labels or other pixels by now.

    Runs pass whose data set is not on this machine, and those on the course's own data.

    Raises:
        ValueError: naming the run, the split and what to do.
    """
    for run in runs:
        recipe, stored = run.recipe, run.provenance.get("splits", {})
        if recipe.data in (*EMBEDDED, PHOTOS):
            continue
        try:
            now = data_of(recipe, stored)
        except (OSError, ValueError):
            continue  # the folder is elsewhere: the numbers can still be read
        changed = [f"{what} of '{name}'" for name in stored if (what := differences(stored[name], now["splits"][name]))]
        if not changed and run.provenance.get("data", now["data"]) != now["data"]:
            changed = ["labels or names of images"]
        if changed:
            raise ValueError(
                f"the stored result {recipe.key} was measured on other data: the {' and the '.join(changed)} in "
                f"'{recipe.data}' have changed since; put them back as they were, or train anew under another name "
                "(udlib reproduce --data NAME --root FOLDER)"
            )
