"""Train or load the result of a recipe.

The reader's own results are in a store of their own, one folder per run (`own_results`). `load` looks there first, and
then among the packed results that ship with the course (`packed`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from udlib import workshop
from udlib.course.data import RecipeData, arrays, dataset, fingerprint, labels
from udlib.course.measuring import measured
from udlib.course.own_results import OwnResults
from udlib.course.packed import PackedResults
from udlib.course.profiles import NOT_IN_SMOKE, for_profile, profile, seconds
from udlib.course.runs import LOGITS, Run, read_as
from udlib.course.shipped import missing_results
from udlib.course.stored_data import data_of, require_current
from udlib.datasets import EMBEDDED
from udlib.datasets.base import checkout, data_root
from udlib.datasets.layouts import PHOTOS
from udlib.methods import method_of, needs_of, recipe
from udlib.methods.base import Recipe
from udlib.training.checkpoints import load_weights
from udlib.training.devices import provenance
from udlib.training.loop import Saving, Watch
from udlib.training.prediction import on_validation

__all__ = [
    "Recipe",
    "Run",
    "arrays",
    "dataset",
    "fingerprint",
    "for_profile",
    "labels",
    "load",
    "load_model",
    "load_or_run",
    "needed",
    "profile",
    "recipe",
    "save",
    "save_model",
    "seconds",
    "shipped",
    "store",
    "train",
    "train_and_store",
]

VALIDATE_EVERY = 5  # epochs between two validations of the course's trainings, and between two checkpoints


@cache
def _smoke_store() -> Path:
    return Path(tempfile.mkdtemp(prefix="udlib-smoke-"))


def store() -> Path:
    """The folder of the reader's own results: `runs` among the data, or a temporary one in the smoke profile."""
    if profile() == "smoke":
        return Path(os.environ.get("UDLIB_SMOKE_STORE") or _smoke_store())
    return data_root() / "runs"


def results_folder() -> Path:
    """The folder of the results that ship: `data/results` of the checkout, where 0.1 also kept the reader's own.

    There are none in the smoke profile, where everything is trained.
    """
    return store() / "none" if profile() == "smoke" else _folder_of_what_ships()


def _folder_of_what_ships() -> Path:
    return (checkout() / "data" if checkout() else data_root()) / "results"


def absent_results() -> str | None:
    """Where the results that ship come from, in a sentence, where they are not here; None where they are or nobody asks."""
    return None if profile() == "smoke" else missing_results(results_folder())


def shipped() -> PackedResults:
    """The packed results that ship with the course."""
    return PackedResults(results_folder())


def places(recipe: Recipe | None = None) -> list[OwnResults | PackedResults]:
    """Where results are looked for, in this order: the reader's own, those that 0.1 kept beside what ships, what ships.

    In the smoke profile, recipes on the data of `NOT_IN_SMOKE` are looked for in what ships too.
    """
    folder = results_folder()
    stores: list[OwnResults | PackedResults] = [own_results(), OwnResults(folder, folder / "models"), shipped()]
    if recipe is not None and recipe.data in NOT_IN_SMOKE and profile() == "smoke":
        stores.append(PackedResults(_folder_of_what_ships()))
    return stores


def own_results() -> OwnResults:
    """The reader's own results."""
    return OwnResults(store(), (store() if profile() == "smoke" else data_root()) / "models")


def result_folder(recipe: Recipe) -> Path:
    """Where the reader's own result of a recipe belongs."""
    return store() / recipe.key


def checkpoint_folder(recipe: Recipe) -> Path | None:
    """Where a training under way keeps its checkpoint; None in the smoke profile, which keeps none."""
    return data_root() / "checkpoints" / recipe.key if profile() != "smoke" else None


def identity_of(recipe: Recipe) -> dict[str, Any]:
    """What a stored result says of its recipe."""
    return {"method": recipe.method} | recipe.choices()


def save(run: Run) -> Path:
    """Write a run among the reader's own, logits in half precision; an interrupted write leaves what was there before."""
    tensors = {name: value.half() for name in LOGITS if (value := getattr(run, name)) is not None}
    state = {"metrics": run.metrics, "history": run.history, "provenance": run.provenance}
    return own_results().save(run.recipe.key, tensors, {"recipe": identity_of(run.recipe)} | state)


def load(recipe: Recipe, logits: bool = True) -> Run | None:
    """Load the result of a recipe: the reader's own, else the one that ships; None where there is neither.

    `logits=False` reads the numbers alone, which is much faster for many runs.

    Raises:
        ValueError: for a damaged result, or one of another recipe.
    """
    results = (place.find(recipe.key, logits) for place in places(recipe))
    stored = next((result for result in results if result is not None), None)
    if stored is None:
        return None
    state, tensors = stored
    if state.get("recipe") != (expected := json.loads(json.dumps(identity_of(recipe)))):
        raise ValueError(
            f"'{recipe.key}' holds the result of {state.get('recipe')}, not of {expected}: "
            "move it away, and `udlib runs` trains the recipe again"
        )
    numbers = {name: state[name] for name in ("metrics", "history", "provenance")}
    return Run(recipe, **{name: tensors[name].float() if name in tensors else None for name in LOGITS}, **numbers)


def save_model(run: Run) -> Path:
    """Store the trained network of a fresh run among the reader's own."""
    if run.model is None:
        raise ValueError(f"the run of {run.recipe} was loaded and holds no network: train it with retrain=True")
    return own_results().save_network(run.recipe.key, run.model.state_dict(), {"recipe": identity_of(run.recipe)})


def has_model(recipe: Recipe) -> bool:
    """Whether the trained network of a recipe is stored, at the size of the profile."""
    return any(place.has_network(for_profile(recipe).key) for place in places(recipe))


def load_model(recipe: Recipe) -> nn.Module:
    """Load the trained network of a recipe, in eval mode; one that is not stored is trained now, and stored.

    Raises:
        ValueError: for a stored network that is damaged, of another architecture, or no safetensors file.
    """
    recipe = for_profile(recipe)
    networks = (place.network(recipe.key) for place in places(recipe))
    network = next((network for network in networks if network is not None), None)
    if network is None:
        run = load_or_run(recipe, retrain=True)
        save_model(run)
        return run.model.eval()
    model = method_of(recipe.method).build(recipe, len(labels(recipe, "val").classes))
    load_weights(model, network[0], Path(recipe.key))
    return model.eval()


def needed(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes whose networks a recipe needs, by the name they have for its method; often none."""
    return needs_of(recipe)


def train(recipe: Recipe, checkpoint: Path | None = None) -> Run:
    """Train a recipe and measure it; with `checkpoint`, a folder, it resumes after a kill.

    Raises:
        ValueError: where two of the three splits share images.
    """
    data, teachers = RecipeData(recipe), {name: load_model(teacher) for name, teacher in needed(recipe).items()}
    data.require_disjoint()
    trained = workshop.train(
        recipe,
        data.arrays("train", recipe.policy),
        teachers=teachers,
        watch=Watch(on_validation(data.arrays("val"), recipe.training, read_as(recipe)), every=VALIDATE_EVERY),
        saving=Saving(checkpoint, every=VALIDATE_EVERY, identity={"images and labels": data.fingerprint()}),
        answers=data_root() / "answers" if profile() != "smoke" else None,
    )
    logits, metrics = measured(data, trained.network, teachers)
    rows, precision = trained.history.rows, trained.history.precision
    origin = provenance(precision or recipe.training.precision, rows) | data_of(recipe)
    return Run(recipe, **logits, metrics=metrics, history=rows, provenance=origin, model=trained.network)


def train_and_store(recipe: Recipe, network: bool = False, numbers: bool = True) -> Run:
    """Train a recipe, going on from its checkpoint if there is one, store what comes of it, and remove the checkpoint.

    The network is stored first: a training counts as done when its numbers are there.

    Args:
        recipe: At the size of the profile.
        network: Whether to store the trained network.
        numbers: Whether to store the run; not for one that is trained again for its network alone.
    """
    checkpoint = checkpoint_folder(recipe)
    run = train(recipe, checkpoint)
    if network:
        save_model(run)
    if numbers:
        save(run)
    if checkpoint is not None:  # or a later training of the same recipe would resume at the end of this one
        shutil.rmtree(checkpoint, ignore_errors=True)
    return run


def load_or_run(recipe: Recipe, retrain: bool = False) -> Run:
    """Load the run of a recipe, at the size of the profile; one that is not stored is trained, and stored.

    `retrain=True` trains in any case, and leaves the stored result alone. The expected time is printed before a training.

    Raises:
        ValueError: for a stored result on data that have changed since.
    """
    recipe = for_profile(recipe)
    if not retrain and (run := load(recipe)) is not None:
        require_current([run])
        return run
    if profile() != "smoke":
        if recipe.data in (*EMBEDDED, PHOTOS) and (absent := absent_results()):
            print(f"note: {absent}")
        minutes = max(seconds(recipe) / 60, 0.1)
        print(f"training {recipe}: about {minutes:.1f} minutes on two laptop-class cores")
    run = train(recipe, None if retrain else checkpoint_folder(recipe))
    if not retrain:
        save(run)
    return run
