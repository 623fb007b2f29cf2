"""From a recipe to a run: train it, or load the result that ships with the course.

A `Recipe` says everything that decides a result. A `Run` holds the logits on validation and test, the metrics computed from
them, the history, and where the numbers come from. Results live in one folder per run (`state.json` and a safetensors
file), written atomically and checked on reading.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from udlib.course.profiles import for_profile, profile, seconds
from udlib.datasets import EMBEDDED, open_dataset
from udlib.datasets.base import apply_policy, checkout, data_root, label_fingerprint, require_disjoint
from udlib.datasets.pixels import images_of
from udlib.datasets.roots import placed
from udlib.methods.base import Recipe, method_of, recipe
from udlib.posthoc import CALIBRATORS
from udlib.training.batches import ArrayData
from udlib.training.checkpoints import load_checkpoint, load_weights, save_checkpoint
from udlib.training.devices import provenance
from udlib.training.evaluation import Split, measure
from udlib.training.localisation import localisation
from udlib.training.loop import predict

# VOC by its name means what papers train and test on (VOC2012's test labels are secret). They choose on no other images;
# here every HOLD_OUT-th training image is validation.
PUBLISHED = {"voc2007": ("trainval", "test"), "voc2012": ("train", "val")}
HOLD_OUT = 10


def dataset(data: str, split: str, size: int, limit: int | None = None):
    """The data set of a recipe, opened once."""
    return _opened(data, split, size, limit, placed(data))


@cache
def _opened(data: str, split: str, size: int, limit: int | None, where: Path | None):
    """`where` only tells apart what has lain under one name."""
    training, test = PUBLISHED.get(data, (split, split))
    found = open_dataset(data, test if split == "test" else training, size)
    if data in PUBLISHED and split != "test":
        found = found.subset(i for i in range(len(found)) if (i % HOLD_OUT == 0) == (split == "val"))
    return found if limit is None else found.subset(range(min(limit, len(found))))


def _dataset(chosen: Recipe, split: str):
    found = dataset(chosen.data, split, chosen.size, chosen.limit)
    return found if chosen.classes is None else found.only(chosen.classes)


@cache
def _images(data: str, split: str, size: int, limit: int | None, where: Path | None) -> Tensor:
    return images_of(dataset(data, split, size, limit), size)


def fingerprint(chosen: Recipe) -> str:
    """Stands for the images' ids and labels of all three splits: which data set this is."""
    return label_fingerprint(*(_dataset(chosen, split) for split in ("train", "val", "test")))


def labels(chosen: Recipe, split: str) -> Split:
    """The labels of a recipe's split ("train", "val" or "test")."""
    found = _dataset(chosen, split)
    return Split(found.classes, found.targets, found.difficult, found.posterior)


def arrays(chosen: Recipe, split: str, policy: str = "positive") -> ArrayData:
    """Images, labels and proposals of a recipe's split, with difficult labels counted as the policy says."""
    found = labels(chosen, split)
    targets, ignore = apply_policy(found.targets, found.difficult, policy)
    images = _images(chosen.data, split, chosen.size, chosen.limit, placed(chosen.data))
    method = method_of(chosen.method)
    boxes = method.proposed(chosen, _dataset(chosen, split), split) if hasattr(method, "proposed") else None
    return ArrayData(images, targets, ignore if policy == "ignore" else None, found.difficult, boxes)


@dataclass(frozen=True)
class Run:
    """A trained recipe: float32 logits (N, C) per branch and split (None where they do not ship), metrics, history, provenance."""

    recipe: Recipe
    val_logits: Tensor | None = field(repr=False)
    test_logits: Tensor | None = field(repr=False)
    val_calibration_logits: Tensor | None = field(repr=False)
    test_calibration_logits: Tensor | None = field(repr=False)
    metrics: dict[str, dict[str, float]] = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)
    model: nn.Module | None = field(default=None, repr=False, compare=False)  # just after training only

    def labels(self, split: str = "test") -> Split:
        return labels(self.recipe, split)

    def probabilities(self, split: str = "test") -> Tensor:
        """Sigmoid of the classification logits, float64 (N, C); raises ValueError where these have no level, or do not ship."""
        if read_as(self.recipe) != "sigmoid":
            raise ValueError(
                f"the logits of {self.recipe} were trained by a softmax and have no level: rank by their softmax"
            )
        return torch.sigmoid(self._logits(split).double())

    def _logits(self, split: str) -> Tensor:
        logits = {"val": self.val_logits, "test": self.test_logits}[split]
        if logits is None:
            raise ValueError(
                f"the logits of {self.recipe} do not ship, only its metrics: "
                "load_or_run(recipe, retrain=True) trains it again and has them"
            )
        return logits

    def recalibrated(self, kind: str, fit_on: str = "val", report_on: str = "test") -> Tensor:
        """Probabilities after post-hoc calibration, float64 (N, C): `posthoc.CALIBRATORS[kind]` fitted on one split.

        A map fitted on the labels that judge it looks better than it is: raises ValueError where `fit_on` is `report_on`,
        and where the two splits share images; also for an unknown kind.
        """
        if kind not in CALIBRATORS:
            raise ValueError(f"unknown kind '{kind}' of calibrator: choose one of {', '.join(CALIBRATORS)}")
        if fit_on == report_on:
            raise ValueError(
                f"the calibrator would be fitted on '{fit_on}' and judged on the same images: "
                "fit it on 'val' and report on 'test'"
            )
        require_disjoint({split: _dataset(self.recipe, split).ids for split in (fit_on, report_on)})
        return CALIBRATORS[kind](self._logits(fit_on), self.labels(fit_on).targets)(self._logits(report_on))

    def without_branch(self, *splits: str) -> Run:
        """The run without the calibration branch's logits on these splits (default: on both), smaller to store."""
        return replace(self, **{f"{split}_calibration_logits": None for split in splits or ("val", "test")})

    def without_logits(self) -> Run:
        """The run's metrics, history and provenance alone: a few kilobytes."""
        return replace(self.without_branch(), val_logits=None, test_logits=None)


@cache
def _smoke_store() -> Path:
    return Path(tempfile.mkdtemp(prefix="udlib-smoke-"))


def store() -> Path:
    """The folder of results: `data/results` of the checkout, or a temporary one in the smoke profile."""
    if profile() == "smoke":
        return Path(os.environ.get("UDLIB_SMOKE_STORE") or _smoke_store())
    return (checkout() / "data" if checkout() else data_root()) / "results"


def result_folder(chosen: Recipe) -> Path:
    """Where the result of a recipe belongs: in the store that ships for embedded data, else among the data that do not ship."""
    own = chosen.data not in EMBEDDED and profile() != "smoke"
    return (data_root() / "runs" if own else store()) / chosen.key


def checkpoint_folder(chosen: Recipe) -> Path | None:
    """Where a training under way keeps its checkpoint; None in the smoke profile, which keeps none."""
    return data_root() / "checkpoints" / chosen.key if profile() != "smoke" else None


def save(run: Run, folder: Path | None = None) -> Path:
    """Write a run; logits in half precision. An interrupted write leaves what was there before."""
    folder = folder or result_folder(run.recipe)
    named = {name: getattr(run, name) for name in _LOGITS}
    tensors = {name: value.half() for name, value in named.items() if value is not None}
    save_checkpoint(
        folder,
        tensors,
        {
            "recipe": {"method": run.recipe.method} | run.recipe.choices(),
            "metrics": run.metrics,
            "history": run.history,
            "provenance": run.provenance,
        },
    )
    return folder


_LOGITS = ("val_logits", "test_logits", "val_calibration_logits", "test_calibration_logits")


def load(chosen: Recipe, folder: Path | None = None) -> Run | None:
    """The stored run of this recipe, or None. Raises ValueError for a damaged result or one of another recipe."""
    folder = folder or result_folder(chosen)
    found = load_checkpoint(folder)
    if found is None:
        return None
    tensors, state = found
    expected = json.loads(json.dumps({"method": chosen.method} | chosen.choices()))
    if state.get("recipe") != expected:
        raise ValueError(
            f"'{folder}' holds the result of {state.get('recipe')}, not of {expected}: "
            "move it away, and `udlib runs` trains the recipe again"
        )
    logits = {name: tensors[name].float() if name in tensors else None for name in _LOGITS}
    return Run(chosen, **logits, metrics=state["metrics"], history=state["history"], provenance=state["provenance"])


def save_model(run: Run, keep: bool = True) -> Path:
    """Store the trained network of a fresh run: beside the results, or with keep=False among the data that do not ship."""
    if run.model is None:
        raise ValueError(f"the run of {run.recipe} was loaded and holds no network: train it with retrain=True")
    folder = _networks(keep) / run.recipe.key
    save_checkpoint(folder, run.model.state_dict(), {"recipe": {"method": run.recipe.method} | run.recipe.choices()})
    return folder


def _networks(keep: bool) -> Path:
    return (store() if keep or profile() == "smoke" else data_root()) / "models"


def model_folder(chosen: Recipe) -> Path | None:
    """The folder of a recipe's trained network, at the size of the profile; None where it is not stored."""
    folders = [_networks(keep) / for_profile(chosen).key for keep in (True, False)]
    return next((folder for folder in folders if (folder / "state.json").exists()), None)


def load_model(chosen: Recipe) -> nn.Module:
    """The trained network of a recipe, in eval mode: stored, or else trained now, and stored for the next time. Raises
    ValueError for a stored one that is damaged, of another architecture, or no safetensors file."""
    chosen = for_profile(chosen)
    folder = model_folder(chosen)
    if folder is None:
        run = load_or_run(chosen, retrain=True)
        save_model(run, keep=False)
        return run.model.eval()
    model = method_of(chosen.method).build(chosen, len(labels(chosen, "val").classes))
    load_weights(model, load_checkpoint(folder)[0], folder)
    return model.eval()


def read_as(chosen: Recipe) -> str:
    """How a recipe's logits are to be read: "sigmoid", or "softmax" where only their differences mean anything."""
    method = method_of(chosen.method)
    return method.scores(chosen) if hasattr(method, "scores") else "sigmoid"


def needed(chosen: Recipe) -> dict[str, dict[str, Any]]:
    """The choices of the recipes whose networks a recipe needs, by the name they have for its method; often none."""
    method = method_of(chosen.method)
    return method.needs(chosen) if hasattr(method, "needs") else {}


def train(chosen: Recipe, checkpoint: Path | None = None) -> Run:
    """Train a recipe and measure it. With `checkpoint`, a folder, it resumes after a kill.

    Raises ValueError where two of the three splits share images.
    """
    require_disjoint({split: _dataset(chosen, split).ids for split in ("train", "val", "test")})
    data = arrays(chosen, "train", chosen.policy)
    val = arrays(chosen, "val")
    method = method_of(chosen.method)
    given = {name: load_model(recipe(**choices)) for name, choices in needed(chosen).items()}
    model, history = method.train(chosen, data, val, checkpoint=checkpoint, **given)
    logits, metrics = {}, {}
    for split in ("val", "test"):
        found = predict(
            model, arrays(chosen, split), precision=chosen.training.precision, prepare=chosen.training.prepare
        )
        # Half precision is what is stored: measure what a later reader will have.
        for name in ("logits", "calibration_logits"):
            logits[f"{split}_{name}"] = None if (value := getattr(found, name)) is None else value.half().float()
        metrics[split] = measure(logits[f"{split}_logits"], labels(chosen, split), read_as(chosen))
    if any(_dataset(chosen, "test").objects):
        locate = getattr(method, "located", localisation)
        metrics["test"] |= locate(
            model,
            arrays(chosen, "test"),
            _dataset(chosen, "test"),
            precision=chosen.training.precision,
            prepare=chosen.training.prepare,
        )
    made = provenance(chosen.training.precision, history.rows) | {"data": fingerprint(chosen)}
    return Run(chosen, **logits, metrics=metrics, history=history.rows, provenance=made, model=model)


def load_or_run(chosen: Recipe, retrain: bool = False) -> Run:
    """The run of a recipe, at the size of the profile: loaded if it is stored, else trained (and stored).

    `retrain=True` trains in any case and leaves the stored result alone. What a training costs is said first.
    """
    chosen = for_profile(chosen)
    if not retrain and (found := load(chosen)) is not None:
        return found
    if profile() != "smoke":
        print(f"training {chosen}: about {max(seconds(chosen) / 60, 0.1):.1f} minutes on two laptop-class cores")
    if retrain:
        return train(chosen)
    run = train(chosen, checkpoint_folder(chosen))
    save(run)
    return run
