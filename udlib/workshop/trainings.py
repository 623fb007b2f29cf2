"""From a recipe and data to a trained network, the same way for every method.

The method names the networks that it needs and its own stages. The workshop trains the needed networks if the caller does
not bring them, runs the stages through the one loop, and joins their histories. Every checkpoint carries fingerprints of
the data, the settings, each teacher's weights, and the result of the stage before. So a training resumes only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from udlib.backbones import backbone
from udlib.methods import method_of, needs_of
from udlib.methods.base import LossFunction, Recipe, Stage, Stages, make_recipe
from udlib.training.batches import ArrayData, as_data
from udlib.training.checkpoints import fingerprint, refuse_old_trainings
from udlib.training.devices import keeps_devices, make_accelerator
from udlib.training.loop import History, Saving, Watch, fit
from udlib.workshop.answers import kept_answers
from udlib.workshop.starts import begin_with, only_classes

OnTeacher = Callable[[str, Recipe], None]


class Trained(NamedTuple):
    """A network, and the history of all its stages: rows carry on counting their epochs."""

    network: nn.Module
    history: History


@keeps_devices
def train(
    recipe: Recipe,
    data: ArrayData | Dataset,
    *,
    teachers: Mapping[str, nn.Module] | None = None,
    watch: Watch = Watch(),
    saving: Saving = Saving(),
    max_steps: int | None = None,
    on_teacher: OnTeacher | None = None,
    answers: Path | None = None,
) -> Trained:
    """Train a recipe; the same seed gives the same network.

    Each stage, and each teacher that is trained here, has a checkpoint folder of its own below `saving.folder`, so that
    a kill at any moment is resumed to the same network.

    Args:
        recipe: what to train. Its fields `data`, `size` and `limit` only name the data, which stands in the next argument.
        data: the training set; with proposals, if the method looks at boxes.
        teachers: the networks that the recipe needs, by name: the method's, and "start" for a recipe with a start. None:
            they are trained now, one after the other; a network that is trained only to teach is not validated, and
            teaches with its last weights. A "start" may be brought for any recipe, also alone; it is then that of the
            teachers too where the method says so (`Method.teachers_start`).
        watch: what looks at the network that is made, never at its teachers. The recipe says which epoch to keep.
        saving: the checkpoints; `saving.identity` says which data this is.
        max_steps: the largest number of steps of each stage, for a trial.
        on_teacher: called with the name and the recipe of each teacher before it is trained.
        answers: the folder in which a teacher's answers to crops are kept, for the other students of the same seed; None:
            they are computed as they are needed.

    Raises:
        ValueError: for teachers that do not go with the recipe, and for a checkpoint of another training.
        FloatingPointError: for a loss, a gradient or a teacher's answer that is not finite.
        KeyboardInterrupt: after Ctrl-C, saying how to resume.
    """
    method = method_of(recipe.method)
    needs = needs_of(recipe)
    data = as_data(data).to(make_accelerator().device)
    method.check(recipe, data)
    if needs:
        _require_stages(recipe)  # before a teacher is trained; `fit` sees to the rest
    if (folder := saving.below("")) is not None:
        refuse_old_trainings(folder)
    seconds = 0.0
    if teachers is None or teachers.keys() == {"start"}:
        teachers = dict(teachers or {})
        for name in [name for name in needs if name not in teachers]:
            if on_teacher is not None:
                on_teacher(name, needs[name])
            teachers[name], history = train_teacher(
                recipe, name, data, saving=saving, max_steps=max_steps, start=teachers.get("start")
            )
            seconds += sum(history.column("seconds"))
    if teachers.keys() - {"start"} != needs.keys() - {"start"} or needs.keys() - teachers.keys():
        raise ValueError(f"the teachers are {', '.join(teachers) or 'none'}: expected {', '.join(needs) or 'none'}")

    identity = dict(saving.identity) | settings_of(recipe) | boxes_of(data)
    identity |= {f"teacher {name}": fingerprint(network.state_dict()) for name, network in teachers.items()}
    defaults = default_settings(recipe) | dict(saving.defaults)
    runner = _Stages(recipe, watch, replace(saving, identity=identity, defaults=defaults), max_steps)
    runner.start, runner.answers = teachers.get("start"), answers
    own = {name: network for name, network in teachers.items() if name != "start"}
    trained = runner.run(method.stages(recipe, data, own))
    if seconds:
        trained.history.rows[0]["teachers_seconds"] = seconds
    return trained


def train_teacher(
    recipe: Recipe,
    name: str,
    data: ArrayData | Dataset,
    *,
    saving: Saving = Saving(),
    max_steps: int | None = None,
    start: nn.Module | None = None,
) -> Trained:
    """Train one of the networks that a recipe needs, in the folder where `train` looks for it.

    Several processes may so share the teachers of one recipe. `start` is the network that was brought for the recipe; the
    teacher begins with it too where its method says so, and where it is the same network.

    Raises:
        ValueError: for a name that the recipe does not need.
    """
    needs = needs_of(recipe)
    if name not in needs:
        raise ValueError(f"there is no teacher '{name}' to train: choose one of {', '.join(needs) or 'none'}")
    teacher = needs[name].but(keep="last")
    data = as_data(data)
    own = data if teacher.classes is None else data.only(teacher.classes)
    begin = None
    shared = method_of(recipe.method).teachers_start and not recipe.start  # a recipe's own start is its student's alone
    if start is not None and shared and teacher.network == recipe.network:
        begin = {"start": start if teacher.classes is None else only_classes(start, teacher.classes)}
    return train(teacher, own, teachers=begin, saving=replace(saving, folder=saving.below(name)), max_steps=max_steps)


def _require_stages(recipe: Recipe) -> None:
    """Refuse to freeze more stages than the network has (ValueError)."""
    if recipe.training.freeze:
        with torch.random.fork_rng([]), torch.device("meta"):
            backbone(recipe.network).frozen_layers(recipe.training.freeze)


class _Stages:
    """Runs the stages of one recipe, and joins what they give."""

    def __init__(self, recipe: Recipe, watch: Watch, saving: Saving, max_steps: int | None):
        self.recipe, self.watch, self.saving, self.max_steps = recipe, watch, saving, max_steps
        self.identity = dict(saving.identity)
        self.done: list[tuple[Stage, History]] = []
        self.start: nn.Module | None = None  # a trained network, with whose weights the first stage begins
        self.answers: Path | None = None  # the folder of the teachers' answers

    def run(self, stages: Stages) -> Trained:
        """Walk through the stages; a stage is made only after the one before it is trained, and may build on it."""
        history: History | None = None
        while True:
            try:
                stage = stages.send(history)
            except StopIteration as end:
                return Trained(end.value, self._joined())
            if self.start is not None and not self.done:
                begin_with(stage.starts or stage.network.get_submodule(stage.student), self.start)
            history = fit(
                stage.network,
                stage.data,
                self._loss(stage),
                stage.config,
                augment=stage.augment,
                watch=self._watching(stage),
                saving=replace(self.saving, folder=self.saving.below(stage.name), identity=self.identity),
                max_steps=self.max_steps,
            )
            self.done.append((stage, history))
            self.identity = self.identity | {f"after stage {len(self.done)}": _outcome(stage, history)}

    def _loss(self, stage: Stage) -> LossFunction:
        """The stage's loss, on batches that carry the teacher's answers where it asks for them."""
        if stage.ask is None:
            return stage.loss_fn
        ask, images = stage.ask, stage.data.images
        if self.answers is not None and stage.config.crop and isinstance(images, Tensor) and not self._several():
            ask = kept_answers(stage, self.answers, self._teachers())
        return lambda network, batch: stage.loss_fn(network, batch._replace(answers=ask(batch)))

    def _several(self) -> bool:
        return make_accelerator().num_processes > 1

    def _teachers(self) -> dict[str, object]:
        """What stands for the teachers' weights. Where the student begins makes no difference to a teacher."""
        return {
            name: value
            for name, value in self.identity.items()
            if name.startswith("teacher ") and name != "teacher start"
        }

    def _watching(self, stage: Stage) -> Watch:
        """The caller's watch, which sees the student alone, and epochs that carry on counting."""
        watch, before, path = self.watch, self._epochs(), stage.student
        if not stage.validated:
            return Watch()
        validate, on_epoch = watch.validate, watch.on_epoch
        return Watch(
            validate and (lambda network: validate(network.get_submodule(path))),
            watch.every,
            watch.select,
            stage.keep or self.recipe.keep,
            on_epoch
            and (
                lambda epoch, network, row: on_epoch(
                    epoch + before, network.get_submodule(path), _row(row, stage, before)
                )
            ),
        )

    def _epochs(self) -> int:
        return sum(stage.config.epochs for stage, _ in self.done)

    def _joined(self) -> History:
        rows, before = [], 0
        for stage, history in self.done:
            rows += [_row(row, stage, before) for row in history.rows]
            before += stage.config.epochs
        stage, last = self.done[-1]
        best = None if last.best_epoch is None else last.best_epoch + before - stage.config.epochs
        return History(rows, best, _part(last.best_weights, stage.student), last.precision)


def _row(row: Mapping[str, float], stage: Stage, before: int) -> dict[str, float]:
    return {**row, **stage.label, "epoch": row["epoch"] + before}


def _part(weights: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The state of a submodule out of that of the whole network."""
    start = f"{path}." if path else ""
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}


def _outcome(stage: Stage, history: History) -> str:
    """Stands for what a stage gave: its last weights and its best ones."""
    states = {"last": stage.network.state_dict(), "best": history.best_weights}
    return fingerprint({f"{which}/{name}": value for which, state in states.items() for name, value in state.items()})


def settings_of(recipe: Recipe) -> dict[str, object]:
    """What a recipe says of a checkpoint: all of it but the data's name and what `fit` adds itself."""
    apart = {"data", "limit", "classes", *asdict(recipe.training)}
    return {name: value for name, value in recipe.flat().items() if name not in apart} | {
        "only classes": recipe.classes
    }


def default_settings(recipe: Recipe) -> dict[str, object]:
    """`settings_of` a recipe of this method that chooses nothing: what a field means that an older checkpoint lacks."""
    return settings_of(make_recipe(recipe.method, type(recipe.settings)))


def boxes_of(data: ArrayData) -> dict[str, str]:
    """What stands for the proposals of a training set in a checkpoint, if it has any."""
    boxes = data.proposals
    if boxes is None:
        return {}
    tensors = {"boxes": boxes.boxes, "scores": boxes.scores, "starts": boxes.starts, "counts": boxes.counts}
    return {"boxes": fingerprint(tensors)}
