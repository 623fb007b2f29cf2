"""From labelled images to a trained model's folder: train, calibrate on validation, measure on test.

The settings are a `Recipe`, and `trainings.train` does the work, as for the course's results. What differs is the data
(any data set, of any size, with or without a test split), and that what comes out is for use.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from udlib.backbones import TIMM, require_side
from udlib.datasets import open_dataset
from udlib.datasets.base import MultiLabelDataset, apply_policy, label_fingerprint
from udlib.datasets.layouts import Source
from udlib.datasets.readable import require_readable
from udlib.datasets.training_splits import notes_on
from udlib.methods import method_of
from udlib.methods.base import Recipe, make_recipe
from udlib.methods.parallel import partitions
from udlib.methods.teachers import require_same_classes
from udlib.models import TrainedModel, save_trained
from udlib.posthoc import CALIBRATORS, Calibrator
from udlib.training.batches import ArrayData
from udlib.training.checkpoints import fingerprint
from udlib.training.devices import make_accelerator, provenance, within_memory
from udlib.training.evaluation import Split
from udlib.training.logs import EpochLog
from udlib.training.loop import Saving, Watch
from udlib.training.optimization import normalisation_of
from udlib.training.prediction import on_validation
from udlib.workshop.folders import alone_in, finished_model, require_ours
from udlib.workshop.measurements import SPLITS, identity_of, up_to_date
from udlib.workshop.splits import aligned, array_data, called, numbers_of, open_splits, say_left_out
from udlib.workshop.starts import NewHead, Start, start_for
from udlib.workshop.trainings import Trained, train, train_teacher


def train_model(
    data: str | Path | Source,
    out: str | Path,
    recipe: Recipe,
    *,
    teacher: TrainedModel | None = None,
    start: TrainedModel | NewHead | None = None,
    calibrate: str = "temperature",
    tensorboard: bool = False,
    only: str | None = None,
) -> TrainedModel | None:
    """Train a recipe on a data set, and write the model into the folder `out`.

    While it trains, `out` holds a checkpoint after every epoch, from which the same call goes on, and `log.csv`. A model
    that is complete is loaded; the splits whose labels or image files changed since are measured again.

    Args:
        data: a name, a folder in a known layout, or what `datasets.find_dataset` returns, as in
            `find_dataset("my_images", missing="drop")`, which leaves out images that cannot be read.
        out: the model's folder; it is made, or holds this very training.
        recipe: see `settings`.
        teacher: a trained model with the same classes in the same order, for a method that needs one "teacher".
        start: a trained model of the same network and the same classes in the same order, with whose weights the training
            begins, or `NewHead(model)` where it knows other classes; None: at random, or with the recipe's `weights`.
        calibrate: a kind of `posthoc.CALIBRATORS`, or "none". It is fitted on the labels of val, difficult ones as
            positives, as `measure` counts them.
        tensorboard: whether to write events for TensorBoard too.
        only: the name of one teacher that the method needs. It alone is trained, as far as its checkpoint, for a later
            call to go on from, and None is returned.

    Raises:
        ValueError: for unusable data, for a folder that holds another training, another model or anything else, or in
            which another training is at work, for images or labels of train or val that are not those of the training, and
            for a teacher or a start that does not fit.
        OSError: for a folder that cannot be written.
        RuntimeError: where a GPU's memory is too small, with the batch that would fit.
        KeyboardInterrupt: after Ctrl-C, saying how far it came.
    """
    out = Path(out).expanduser()
    if calibrate not in (*CALIBRATORS, "none"):
        raise ValueError(f"unknown kind '{calibrate}' of calibrator: choose one of {', '.join(CALIBRATORS)}, none")
    splits = open_splits(data, recipe.size)
    if teacher is not None:
        _require_teacher(teacher, splits["train"].classes)
    begin = None if start is None else start_for(start, recipe, splits["train"].classes)
    if begin is not None:
        recipe = recipe.but(weights=None)  # the start's replace them
    require_ours(out)
    work = _ModelTraining(recipe, splits, out, called(data), teacher, begin, calibrate)
    with alone_in(out) if work.first and only is None else nullcontext():
        if (model := finished_model(out, work.record, work.defaults)) is not None:
            current = up_to_date(model, splits, out)
            if current is not model and work.first:
                save_trained(out, current)
            return current
        if recipe.network.startswith(TIMM):
            require_side(recipe.network, recipe.side)
        if "test" in splits and not (isinstance(data, Source) and data.options.get("missing") == "drop"):
            # Those of train and val are decoded before the first epoch, and these only after the last.
            require_readable(splits["test"])
        log = EpochLog(out / "log.csv", out / "tensorboard" if tensorboard else None)
        _say(splits, recipe, begin)
        if only is not None:
            network = None if begin is None else begin.network
            work.within_memory(
                lambda: train_teacher(recipe, only, work.training_set, saving=work.saving, start=network)
            )
            return None
        return work.model(work.train(log), log)


@dataclass(frozen=True)
class _ModelTraining:
    """One training on one's own data, in a folder that is ours."""

    recipe: Recipe
    splits: Mapping[str, MultiLabelDataset]
    out: Path
    data_name: str
    teacher: TrainedModel | None
    start: Start | None
    calibrate: str

    @property
    def first(self) -> bool:
        """Whether this process writes; of several, one does."""
        return make_accelerator().is_main_process

    @property
    def saving(self) -> Saving:
        """A checkpoint after every epoch, which belongs to these images and classes, whatever the folders are called."""
        pixels = {f"{name} image files": self.identities[name]["content"] for name in ("train", "val")}
        # An older checkpoint does not know its image files.
        return Saving(self.out / "checkpoint", identity=_data_of(self.splits) | pixels, defaults=pixels)

    @cached_property
    def identities(self) -> dict[str, dict[str, str]]:
        """What stands for the labels and the pixels of each split."""
        return {name: identity_of(part) for name, part in self.splits.items()}

    @cached_property
    def record(self) -> dict[str, Any]:
        """What is stored with the model of how it was trained, and what a finished one is recognised by."""
        apart = {"data", "limit", *asdict(self.recipe.training)}
        # Of a teacher that was given, the weights say more than the recipe of one that was not trained.
        apart |= set() if self.teacher is None else {"teacher", "teacher_lam"}
        record = {name: value for name, value in self.recipe.flat().items() if name not in apart}
        record |= _data_of(self.splits) | asdict(self.recipe.training)
        for name, model in {"teacher": self.teacher, "start": self.start}.items():
            record |= {} if model is None else {name: fingerprint(model.network.state_dict())}
        return record | {"method": self.recipe.method, "calibrate": self.calibrate}

    @property
    def defaults(self) -> dict[str, Any]:
        """What each field of a recipe is where the record of an earlier version lacks it."""
        return make_recipe(self.recipe.method, type(self.recipe.settings)).flat()

    @cached_property
    def held_out(self) -> ArrayData:
        """The images and labels of val."""
        return array_data(self.splits["val"], self.recipe.size)

    @cached_property
    def training_set(self) -> ArrayData:
        """The images and labels of train, with the boxes that the method looks at."""
        dataset, recipe = self.splits["train"], self.recipe
        data = array_data(dataset, recipe.size, recipe.policy)
        return replace(data, proposals=method_of(recipe.method).proposals(recipe, dataset, "train"))

    def train(self, log: EpochLog) -> Trained:
        """Train with batches as large as the recipe says, validated each epoch with batches no larger than those."""
        config, data = self.recipe.training, self.training_set
        # Images in memory need no processes that decode them.
        validate = on_validation(self.held_out, replace(config, workers=0), batch_size=config.batch_size)
        watch = Watch(validate, on_epoch=log if self.first else None)
        options = {"teachers": self.teachers, "watch": watch, "saving": self.saving}
        say = self._say_teacher if self.first else None
        return self.within_memory(lambda: train(self.recipe, data, **options, on_teacher=say))

    def within_memory(self, run: Callable[[], Trained]) -> Trained:
        """`run()`; where a GPU's memory is too small for it, one step with smaller batches says which would fit."""

        def trial(batch: int) -> None:
            smaller = self.recipe.but(batch_size=batch, keep="last")
            train(smaller, self.training_set, teachers=self.teachers, max_steps=1)

        batch_size = min(self.recipe.training.batch_size, len(self.training_set.targets))
        return within_memory(lambda batch: run(), batch_size, trial, least=2)

    @property
    def teachers(self) -> dict[str, nn.Module] | None:
        """The networks that the caller brought, if any; others are trained."""
        models = {"teacher": self.teacher, "start": self.start}
        return {name: model.network for name, model in models.items() if model is not None} or None

    def _say_teacher(self, name: str, teacher: Recipe) -> None:
        if teacher.classes is not None:
            classes = self.splits["train"].classes
            print(f"teacher {name}: {', '.join(classes[k] for k in teacher.classes)}", flush=True)

    def model(self, trained: Trained, log: EpochLog) -> TrainedModel:
        """Calibrate and measure the network, and write the model's folder."""
        recipe, (network, history) = self.recipe, trained
        classes = self.splits["train"].classes
        uncalibrated = TrainedModel(network, recipe.network, classes, recipe.side)
        # Crops are resized differently from whole images, so val is decoded anew where training saw crops.
        val = self.splits["val"]
        images: dict[str, Any] = {"val": val if recipe.training.crop else self.held_out.images}
        if "test" in self.splits:
            images["test"] = self.splits["test"]
        logits = {name: uncalibrated.logits(part, recipe.training.batch_size) for name, part in images.items()}
        labels = {name: aligned(self.splits[name], classes) for name in images}
        calibrator = None if self.calibrate == "none" else _calibrator(self.calibrate, logits["val"], labels["val"])
        origin = {
            "data": self.data_name,
            "images": {name: len(part) for name, part in self.splits.items()},
            "epochs": len(history.rows),
            "best_epoch": history.best_epoch,
            "kept": recipe.keep,
            "left_out": {name: len(getattr(part, "skipped", ())) for name, part in self.splits.items()},
            SPLITS: self.identities,
        }
        calibrated = replace(uncalibrated, calibrator=calibrator)
        model = replace(
            calibrated,
            training=self.record,
            metrics={name: numbers_of(calibrated, logits[name], labels[name]) for name in images},
            provenance=provenance(history.precision or recipe.training.precision, history.rows) | origin,
        )
        if self.first:
            log.write(history.rows)
            save_trained(self.out, model)
            shutil.rmtree(self.out / "checkpoint", ignore_errors=True)
        return model


def partitioned(
    data: str | Path | Source, out: str | Path, recipe: Recipe, k: int = 3, strategy: str = "both", seed: int = 0
) -> Recipe:
    """Put the partitions of the training labels into a recipe of parallel self-distillation (`parallel.partitions`).

    They are stored in `out/partitions` and read again from there; the folder of a finished model is left as it is.

    Raises:
        ValueError: as `parallel.partitions` and `train_model` do.
    """
    out = Path(out).expanduser()
    require_ours(out)
    train_split = open_dataset(data, "train", recipe.size)
    targets, ignore = apply_policy(train_split.targets, train_split.difficult, recipe.policy)
    ignore = ignore if train_split.unknown is None else ignore | train_split.unknown
    kept = out / "partitions"
    folder = None if (out / "state.json").exists() and not kept.exists() else kept
    return recipe.but(**partitions(targets, k, strategy, seed, folder, ignore if ignore.any() else None))


def _data_of(splits: Mapping[str, MultiLabelDataset]) -> dict[str, Any]:
    """The classes, and what stands for the images and labels that a training sees."""
    seen = {name: f"{len(splits[name])} images, {label_fingerprint(splits[name])}" for name in ("train", "val")}
    return {"classes": list(splits["train"].classes)} | seen


def _calibrator(kind: str, logits: Tensor, labels: Split) -> Calibrator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it numbers the classes: here they have names
        calibrator = CALIBRATORS[kind](logits, labels.targets, labels.unknown)
    if calibrator.fallbacks:
        print(
            "not calibrated, because all images of val have the label or none has it: "
            + ", ".join(labels.classes[k] for k in calibrator.fallbacks)
        )
    return calibrator


def _require_teacher(teacher: TrainedModel, classes: tuple[str, ...]) -> None:
    require_same_classes(teacher.classes, classes)
    expected = normalisation_of(teacher.network)
    if (teacher.mean, teacher.std) != expected:
        raise ValueError(
            f"the teacher normalises images by {teacher.mean} and {teacher.std}, but its network '{teacher.backbone}' "
            f"expects {expected[0]} and {expected[1]}: choose a teacher that `udlib train` made"
        )
    if teacher.read_as != "sigmoid":
        raise ValueError(
            f"the teacher's logits are read by a {teacher.read_as}, but a student learns from sigmoids: choose another teacher"
        )


def _say(splits: Mapping[str, MultiLabelDataset], recipe: Recipe, start: Start | None) -> None:
    train_split = splits["train"]
    counts = ", ".join(f"{len(part):,} {name}" for name, part in splits.items())
    print(
        f"{len(train_split.classes)} classes; images: {counts}{'' if 'test' in splits else ' (no test split)'}; "
        f"{recipe.network} at {recipe.side} px, {recipe.training.epochs} epochs",
        flush=True,
    )
    for note in () if start is None else start.notes:
        print(note, flush=True)
    if recipe.network.startswith(TIMM) and recipe.weights is None and start is None:
        print(f"{recipe.network} begins at random; with --weights pretrained it begins with timm's weights", flush=True)
    say_left_out(splits)
    for note in notes_on(splits):
        print(f"note  {note}", flush=True)
