"""Train or load: the results of recipes, those that ship with the course and the reader's own.

What a reader trains lies in a store of their own, one folder per run (`state.json` and a safetensors file), written
atomically and checked on reading. It is looked into first; then come the packed results that ship (`udlib.course.packed`).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from udlib.course.data import SPLITS, arrays, dataset, fingerprint, labels, split_of
from udlib.course.packed import PackedResults
from udlib.course.profiles import for_profile, profile, seconds
from udlib.course.runs import LOGITS, Run, read_as
from udlib.datasets.base import checkout, data_root, require_disjoint
from udlib.methods import method_of, recipe
from udlib.methods.base import Recipe
from udlib.training.checkpoints import load_checkpoint, load_weights, save_checkpoint
from udlib.training.devices import provenance
from udlib.training.evaluation import measure
from udlib.training.loop import Saving, Watch
from udlib.training.prediction import on_validation, predict
from udlib.workshop import train as train_method

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
    "stored_keys",
    "train",
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
    if profile() == "smoke":
        return store() / "none"
    return (checkout() / "data" if checkout() else data_root()) / "results"


def shipped() -> PackedResults:
    """The packed results that ship with the course."""
    return PackedResults(results_folder())


def stored_keys() -> set[str]:
    """The keys of all results, the reader's own and those that ship."""
    return {path.parent.name for path in store().glob("*/state.json")} | shipped().keys()


def result_folder(recipe: Recipe) -> Path:
    """Where the reader's own result of a recipe belongs."""
    return store() / recipe.key


def checkpoint_folder(recipe: Recipe) -> Path | None:
    """Where a training under way keeps its checkpoint; None in the smoke profile, which keeps none."""
    return data_root() / "checkpoints" / recipe.key if profile() != "smoke" else None


def identity_of(recipe: Recipe) -> dict[str, Any]:
    """What a stored result says of its recipe."""
    return {"method": recipe.method} | recipe.choices()


def save(run: Run, folder: Path | None = None) -> Path:
    """Write a run into its folder, logits in half precision; an interrupted write leaves what was there before."""
    folder = folder or result_folder(run.recipe)
    tensors = {name: value.half() for name in LOGITS if (value := getattr(run, name)) is not None}
    results = {"metrics": run.metrics, "history": run.history, "provenance": run.provenance}
    save_checkpoint(folder, tensors, {"recipe": identity_of(run.recipe)} | results)
    return folder


def load(recipe: Recipe, folder: Path | None = None) -> Run | None:
    """Load the result of a recipe: the reader's own, else the one that ships; None where there is neither.

    Raises:
        ValueError: for a damaged result, or one of another recipe.
    """
    for place in [result_folder(recipe), results_folder() / recipe.key] if folder is None else [folder]:
        if (stored := load_checkpoint(place)) is not None:
            return _run(recipe, *stored, f"'{place}'")
    return _load_shipped(recipe) if folder is None else None


def _load_shipped(recipe: Recipe) -> Run | None:
    packed = shipped()
    state = packed.state(recipe.key)
    return None if state is None else _run(recipe, packed.logits(recipe.key), state, f"the packed result {recipe.key}")


def _run(recipe: Recipe, tensors: Mapping[str, Tensor], state: Mapping[str, Any], where: str) -> Run:
    expected = json.loads(json.dumps(identity_of(recipe)))
    if state.get("recipe") != expected:
        raise ValueError(
            f"{where} holds the result of {state.get('recipe')}, not of {expected}: "
            "move it away, and `udlib runs` trains the recipe again"
        )
    logits = {name: tensors[name].float() if name in tensors else None for name in LOGITS}
    results = {name: state[name] for name in ("metrics", "history", "provenance")}
    return Run(recipe, **logits, **results)


def model_folder(recipe: Recipe) -> Path:
    """Where the reader's own trained network of a recipe belongs."""
    return (store() if profile() == "smoke" else data_root()) / "models" / recipe.key


def save_model(run: Run) -> Path:
    """Store the trained network of a fresh run among the reader's own."""
    if run.model is None:
        raise ValueError(f"the run of {run.recipe} was loaded and holds no network: train it with retrain=True")
    folder = model_folder(run.recipe)
    save_checkpoint(folder, run.model.state_dict(), {"recipe": identity_of(run.recipe)})
    return folder


def has_model(recipe: Recipe) -> bool:
    """Whether the trained network of a recipe is stored, at the size of the profile."""
    recipe = for_profile(recipe)
    folders = (model_folder(recipe), _model_of_01(recipe))
    return any((folder / "state.json").exists() for folder in folders) or recipe.key in shipped().network_keys()


def _model_of_01(recipe: Recipe) -> Path:
    """Where udlib 0.1 kept a network that was trained again."""
    return results_folder() / "models" / recipe.key


def load_model(recipe: Recipe) -> nn.Module:
    """Load the trained network of a recipe, in eval mode; one that is not stored is trained now, and stored.

    Raises:
        ValueError: for a stored network that is damaged, of another architecture, or no safetensors file.
    """
    recipe = for_profile(recipe)
    folder = model_folder(recipe)
    stored = load_checkpoint(folder) or load_checkpoint(_model_of_01(recipe)) or shipped().network(recipe.key)
    if stored is None:
        run = load_or_run(recipe, retrain=True)
        save_model(run)
        return run.model.eval()
    model = method_of(recipe.method).build(recipe, len(labels(recipe, "val").classes))
    load_weights(model, stored[0], folder)
    return model.eval()


def needed(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes whose networks a recipe needs, by the name they have for its method; often none."""
    return method_of(recipe.method).needs(recipe)


def train(recipe: Recipe, checkpoint: Path | None = None) -> Run:
    """Train a recipe and measure it; with `checkpoint`, a folder, it resumes after a kill.

    Raises:
        ValueError: where two of the three splits share images.
    """
    require_disjoint({split: split_of(recipe, split).ids for split in SPLITS})
    method, config, data_print = method_of(recipe.method), recipe.training, fingerprint(recipe)
    network, history = train_method(
        recipe,
        arrays(recipe, "train", recipe.policy),
        teachers={name: load_model(teacher) for name, teacher in needed(recipe).items()},
        watch=Watch(on_validation(arrays(recipe, "val"), config, read_as(recipe)), every=VALIDATE_EVERY),
        saving=Saving(checkpoint, every=VALIDATE_EVERY, identity={"images and labels": data_print}),
    )
    logits, metrics = {}, {}
    options = {"precision": config.precision, "prepare": config.prepare}
    for split in ("val", "test"):
        predictions = predict(network, arrays(recipe, split), **options)
        for name in ("logits", "calibration_logits"):
            value = getattr(predictions, name)
            # Half precision is what is stored: measure what a later reader will have.
            logits[f"{split}_{name}"] = None if value is None else value.half().float()
        metrics[split] = measure(logits[f"{split}_logits"], labels(recipe, split), read_as(recipe))
    test = split_of(recipe, "test")
    if any(test.objects):
        metrics["test"] |= method.localise(network, arrays(recipe, "test"), test, **options)
    origin = provenance(config.precision, history.rows) | {"data": data_print}
    return Run(recipe, **logits, metrics=metrics, history=history.rows, provenance=origin, model=network)


def load_or_run(recipe: Recipe, retrain: bool = False) -> Run:
    """Load the run of a recipe, at the size of the profile; one that is not stored is trained, and stored.

    `retrain=True` trains in any case and leaves the stored result alone. What a training costs is said first.
    """
    recipe = for_profile(recipe)
    if not retrain and (run := load(recipe)) is not None:
        return run
    if profile() != "smoke":
        minutes = max(seconds(recipe) / 60, 0.1)
        print(f"training {recipe}: about {minutes:.1f} minutes on two laptop-class cores")
    if retrain:
        return train(recipe)
    run = train(recipe, checkpoint_folder(recipe))
    save(run)
    return run
