"""From labelled images to a trained model's folder: train or distil, calibrate on validation, measure on test.

The settings are a `Recipe`, and the method's own `train` does the work, as for the course's results; what differs is the
data (any data set, of any size, with or without a test split), and that what comes out is for use.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from udlib.backbones import NAMES, SMALL_WIDTHS
from udlib.course.profiles import for_profile
from udlib.datasets import open_dataset
from udlib.datasets.base import (
    MultiLabelDataset,
    NoSplit,
    apply_policy,
    check_trainable,
    label_fingerprint,
    require_disjoint,
)
from udlib.datasets.pixels import images_of
from udlib.datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from udlib.methods.base import Recipe, method_of, recipe
from udlib.methods.detection import method as detection
from udlib.methods.distillation import require_same_classes
from udlib.methods.parallel.method import partitions
from udlib.models import TrainedModel, load, save_trained
from udlib.posthoc import CALIBRATORS, Calibrator
from udlib.training.batches import ArrayData
from udlib.training.checkpoints import fingerprint, remove_stale, require_same
from udlib.training.devices import make_accelerator, provenance, within_memory
from udlib.training.evaluation import Split, measure
from udlib.training.logs import EpochLog
from udlib.training.loop import History, evaluate

OURS = {
    "checkpoint",
    "log.csv",
    "partitions",
    "tensorboard",
}  # what a training leaves in its folder before there is a model


def settings(method: str = "supervised", network: str = "small", crop: bool = False, **choices) -> Recipe:
    """The recipe of a training on data of one's own; what is None in `choices` has the default of such a network.

    The small networks train from scratch as in the course. torchvision's start from ImageNet and are fine-tuned at 448 px
    as in the profile "full"; weights="none" starts them at random. With `crop`, training sees multi-scale crops as large as
    `size` says, out of images 8/7 as large, as the released code does (448 of 512). Raises ValueError for an unknown network
    or field.

    >>> settings(network="resnet18", epochs=5).size, settings(lam=0.1).training.optimizer
    (448, 'adam')
    """
    if network not in NAMES:
        raise ValueError(f"unknown network '{network}': choose one of {', '.join(NAMES)}")
    usual = recipe(method) if network in SMALL_WIDTHS else for_profile(recipe(method), "full")
    given = {name: value for name, value in choices.items() if value is not None}
    if given.get("weights") == "none":
        given["weights"] = None
    if crop:
        seen = given.get("size", usual.size)
        given |= {"size": round(seen * 8 / 7), "crop": seen}
    return usual.but(network=network, **given)


def open_splits(data: str | Path, size: int) -> dict[str, MultiLabelDataset]:
    """ "train", "val" and, where the data set has one, "test", by name.

    Raises ValueError for splits that share images, and for one to be judged on in which no label is positive.
    """
    found = {split: open_dataset(data, split, size) for split in ("train", "val")}
    try:
        found["test"] = open_dataset(data, "test", size)
    except NoSplit:
        pass
    require_disjoint({split: part.ids for split, part in found.items()})
    for split, part in found.items():
        if split != "train" and not (part.targets.bool() & ~part.difficult).any():
            raise ValueError(
                f"'{split}' has {len(part)} images and no positive label that is not difficult: nothing can be "
                "judged on it; check the class names and the split"
            )
    return found


def array_data(dataset: MultiLabelDataset, size: int, policy: str = "positive") -> ArrayData:
    """A split as `training.fit` takes it, its images decoded once (`pixels.images_of`); `policy` says what a difficult
    label counts as."""
    targets, ignore = apply_policy(dataset.targets, dataset.difficult, policy)
    return ArrayData(images_of(dataset, size), targets, ignore if policy == "ignore" else None, dataset.difficult)


def aligned(dataset: MultiLabelDataset, classes: Sequence[str]) -> Split:
    """The labels of a data set with its classes in this order; ValueError unless it has the same ones, by name."""
    for whose, missing in (
        ("model", set(dataset.classes) - set(classes)),
        ("data set", set(classes) - set(dataset.classes)),
    ):
        if missing:
            raise ValueError(
                f"the {whose} does not know '{min(missing)}': a model is measured on data with its own classes, "
                f"which are {', '.join(classes)}"
            )
    columns = [dataset.classes.index(name) for name in classes]
    posterior = None if dataset.posterior is None else dataset.posterior[:, columns]
    return Split(tuple(classes), dataset.targets[:, columns], dataset.difficult[:, columns], posterior)


def measured(model: TrainedModel, dataset: MultiLabelDataset, batch_size: int = 32) -> dict[str, dict[str, float]]:
    """Every number of `measures.measure` for a data set: "uncalibrated" and, where the model has a calibrator, "calibrated".

    Classes are matched by name, whatever their order (`aligned`).
    """
    labels = aligned(dataset, model.classes)
    return _numbers(model.logits(dataset.paths, batch_size), labels, model.read_as, model.calibrator)


def _numbers(logits: Tensor, labels: Split, read_as: str, calibrator: Calibrator | None) -> dict[str, dict[str, float]]:
    found = {"uncalibrated": measure(logits, labels, read_as)}
    return found | ({} if calibrator is None else {"calibrated": measure(logits, labels, calibrator=calibrator)})


def make_model(
    data: str | Path,
    out: str | Path,
    chosen: Recipe,
    *,
    teacher: TrainedModel | None = None,
    calibrate: str = "temperature",
    tensorboard: bool = False,
    only: str | None = None,
) -> TrainedModel | None:
    """Train `chosen` (see `settings`) on a data set and write the model into the folder `out`.

    With a `teacher`, of the same classes in the same order, the method is "distillation". `calibrate`, a kind of
    `posthoc.CALIBRATORS` or "none", is fitted on the labels of val, difficult ones as positives, as `measure` counts them.
    With `only`, the name of a teacher of parallel self-distillation, that one is trained as far as its checkpoint, for a later
    call to go on from, and None is returned. While it trains, `out` holds a checkpoint after every epoch, from which the same
    call goes on, and `log.csv`; a model that is complete is loaded.

    Raises ValueError for unusable data, for a folder that holds another training, another model or anything else, or in which
    another training is at work, and for a teacher that does not fit; OSError for a folder that cannot be written; RuntimeError
    where a GPU's memory is too small, with the batch that would fit; KeyboardInterrupt that says how far it came.
    """
    out = Path(out).expanduser()
    if calibrate not in (*CALIBRATORS, "none"):
        raise ValueError(f"unknown kind '{calibrate}' of calibrator: choose one of {', '.join(CALIBRATORS)}, none")
    splits = open_splits(data, chosen.size)
    if teacher is not None:
        _require_teacher(teacher, splits["train"].classes)
    _require_ours(out)
    first = make_accelerator().is_main_process  # of several processes, one writes
    with alone_in(out) if first and only is None else nullcontext():
        return _made(data, out, chosen, splits, teacher, calibrate, tensorboard, only, first)


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make a folder and hold it against other trainings: ValueError where one has it, OSError where it cannot be written."""
    lock, new = out / ".lock", not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, timeout=0)
        held.acquire()
    except NotImplementedError:  # a disk without locks
        pass
    except Timeout:
        raise ValueError(f"another training is at work in '{out}': wait for it, or name another folder") from None
    except OSError as error:
        raise OSError(f"cannot write in folder '{out}' ({error.strerror}): name another one") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            lock.unlink()
        held.release()
        if new:
            with suppress(OSError):  # it holds a model, then, or a training to go on with
                out.rmdir()


def _made(
    data: str | Path,
    out: Path,
    chosen: Recipe,
    splits: dict[str, MultiLabelDataset],
    teacher: TrainedModel | None,
    calibrate: str,
    tensorboard: bool,
    only: str | None,
    first: bool,
) -> TrainedModel | None:
    """`make_model`, the folder being ours."""
    classes = splits["train"].classes
    told = _identity(chosen, splits, teacher)
    record = told | asdict(chosen.training) | {"method": chosen.method, "calibrate": calibrate}
    if (present := _present(out, record)) is not None:
        return present
    log = EpochLog(out / "log.csv", out / "tensorboard" if tensorboard else None)
    _say(splits, chosen)
    train, val = (
        array_data(splits[part], chosen.size, chosen.policy if part == "train" else "positive")
        for part in ("train", "val")
    )
    if chosen.method == "detection":
        train = replace(train, proposals=detection.proposed(chosen, splits["train"], "train"))
    watch: dict[str, Any] = {"on_epoch": log if first else None}
    if chosen.method == "parallel":
        watch |= {"only": only}
        if first:
            watch["on_teacher"] = lambda name, part: print(
                f"teacher {name}: {', '.join(classes[k] for k in part)}", flush=True
            )
    network, history = _train(chosen, train, val, teacher, checkpoint=out / "checkpoint", identity=told, **watch)
    if only is not None:
        return None

    made = partial(TrainedModel, network, chosen.network, classes, chosen.side)
    seen: dict[str, Any] = {"val": splits["val"].paths if chosen.training.crop else val.images}
    if "test" in splits:
        seen["test"] = splits["test"].paths
    logits = {name: made().logits(images, chosen.training.batch_size) for name, images in seen.items()}
    labels = {name: aligned(splits[name], classes) for name in seen}
    calibrator = None if calibrate == "none" else _calibrator(calibrate, logits["val"], labels["val"])
    known = {
        "data": Path(data).name,
        "images": {name: len(part) for name, part in splits.items()},
        "epochs": len(history.rows),
        "best_epoch": history.best_epoch,
        "kept": chosen.keep,
    }
    model = made(
        calibrator=calibrator,
        training=record,
        metrics={name: _numbers(logits[name], labels[name], "sigmoid", calibrator) for name in seen},
        provenance=provenance(chosen.training.precision, history.rows) | known,
    )
    if first:
        log.write(history.rows)
        save_trained(out, model)
        shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return model


def partitioned(
    data: str | Path, out: str | Path, chosen: Recipe, k: int = 3, strategy: str = "both", seed: int = 0
) -> Recipe:
    """The recipe of parallel self-distillation with the partitions of the training labels (`parallel.partitions`).

    They are stored in `out/partitions` and read again from there; the folder of a finished model is left as it is. Raises
    ValueError as `parallel.partitions` and `make_model` do.
    """
    out = Path(out).expanduser()
    _require_ours(out)
    train = open_dataset(data, "train", chosen.size)
    targets, ignore = apply_policy(train.targets, train.difficult, chosen.policy)
    kept = out / "partitions"
    folder = None if (out / "state.json").exists() and not kept.exists() else kept
    return chosen.but(**partitions(targets, k, strategy, seed, folder, ignore if chosen.policy == "ignore" else None))


def _train(
    chosen: Recipe, train: ArrayData, val: ArrayData, teacher: TrainedModel | None, **options
) -> tuple[Any, History]:
    """The method's own training, validated each epoch with batches no larger than those it trains on."""
    method = method_of(chosen.method)
    given: dict[str, Any] = {} if teacher is None else {"teacher": teacher.network}
    config = chosen.training

    def validate(model) -> dict[str, float]:
        return evaluate(model, val, batch_size=config.batch_size, precision=config.precision, prepare=config.prepare)

    def run(batch: int):
        return method.train(
            chosen, train, None, validate=validate, validate_every=1, checkpoint_every=1, **given, **options
        )

    def trial(batch: int) -> None:
        method.train(chosen.but(batch_size=batch), train, None, max_steps=1, keep="last", **given)

    return within_memory(run, min(config.batch_size, len(train.targets)), trial, least=2)


def _calibrator(kind: str, logits: Tensor, labels: Split) -> Calibrator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it numbers the classes: here they have names
        found = CALIBRATORS[kind](logits, labels.targets)
    if found.fallbacks:
        print(
            "not calibrated, since val has only images with it or only without: "
            + ", ".join(labels.classes[k] for k in found.fallbacks)
        )
    return found


def _require_teacher(teacher: TrainedModel, classes: Sequence[str]) -> None:
    require_same_classes(teacher.classes, classes)
    if (teacher.mean, teacher.std) != (IMAGENET_MEAN, IMAGENET_STD):
        raise ValueError(
            f"the teacher normalises images by {teacher.mean} and {teacher.std}, the student by "
            f"{IMAGENET_MEAN} and {IMAGENET_STD}: both see the same batches, so take a teacher trained likewise"
        )
    if teacher.read_as != "sigmoid":
        raise ValueError(f"the teacher's logits are read as '{teacher.read_as}': a student learns from sigmoids")


def _identity(chosen: Recipe, splits: dict[str, MultiLabelDataset], teacher: TrainedModel | None) -> dict[str, Any]:
    """What a checkpoint of this training must agree with: settings, images and classes, whatever the folders are called."""
    apart = {"data", "limit", *asdict(chosen.training)}  # `fit` adds the last itself
    apart |= (
        set() if teacher is None else {"teacher", "teacher_lam"}
    )  # instead, the fingerprint of the one that there is
    told = {name: value for name, value in chosen.flat().items() if name not in apart}
    told |= {"classes": list(splits["train"].classes)}
    for name in ("train", "val"):
        told[name] = f"{len(splits[name])} images, {label_fingerprint(splits[name])}"
    return told | ({} if teacher is None else {"teacher": fingerprint(teacher.network.state_dict())})


def _require_ours(out: Path) -> None:
    """Refuse a folder that holds neither a model nor a training under way: ValueError."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"'{out}' is a file: name a folder")
    names = [path.name for path in out.iterdir()] if out.is_dir() and not (out / "state.json").is_file() else []
    if foreign := sorted(name for name in names if name not in OURS and not name.startswith(("tensors-", "."))):
        raise ValueError(
            f"'{out}' holds '{foreign[0]}', and neither a model nor a training under way: name a new folder"
        )


def _present(out: Path, record: dict[str, Any]) -> TrainedModel | None:
    """The model that the folder holds already, if it is just this one; ValueError where it is another."""
    if not (out / "state.json").is_file():
        return None
    model = load(out)
    require_same(model.training, record, out)
    remove_stale(out)  # a kill may have come between the model and this
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return model


def _say(splits: dict[str, MultiLabelDataset], chosen: Recipe) -> None:
    train = splits["train"]
    counts = ", ".join(f"{len(part):,} {name}" for name, part in splits.items())
    print(
        f"{len(train.classes)} classes; images: {counts}{'' if 'test' in splits else ' (no test split)'}; "
        f"{chosen.network} at {chosen.side} px, {chosen.training.epochs} epochs",
        flush=True,
    )
    if never := check_trainable(train.targets, train.classes):
        print(f"never present in train, so nothing will be learned of: {', '.join(never)}")
