"""Commands for one's own data: train a model, distil it, measure it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from udlib.cli.options import (
    Batch,
    Batches,
    Calibrate,
    Compile,
    Crop,
    Csv,
    Data,
    Difficult,
    Ema,
    Epochs,
    Erase,
    Flip,
    Freeze,
    HeadLr,
    Keep,
    Lr,
    Model,
    Network,
    Out,
    Seed,
    Size,
    Start,
    Tensorboard,
    Weights,
    require_writable,
)

# How a number's name is read out, part by part: "CF1_top3_negative" is "CF1, top 3, difficult as negative".
PARTS = {
    "top3": "top 3",
    "positive": "difficult as positive",
    "negative": "difficult as negative",
    "difficult": "difficult images",
    "confident": "p ≥ 0.5",
    "NLL": "NLL (nats)",
    "Brier": "Brier score (fraction)",
}

MAPS = {"raw": False, "standardised": True}  # what `Settings.normalize` calls them

HEADLINE = (
    "mAP",
    "mAP_difficult",
    "CF1",
    "OF1",
    "CF1_top3",
    "OF1_top3",
    "ECE",
    "ECE_pooled",
    "true_CE",
    "true_CE_pooled",
    "overconfidence",
    "NLL",
    "Brier",
)


def train(
    data: Data,
    out: Out = Path("model"),
    network: Network = "small",
    lam: Annotated[
        float,
        typer.Option(
            help="λ, the weight of the calibration branch (Song et al., 2021, Eq. 12); 0: without "
            "one, and so without uncertainty maps."
        ),
    ] = 0.1,
    epochs: Epochs = None,
    size: Size = None,
    batch: Batch = None,
    lr: Lr = None,
    head_lr: HeadLr = None,
    freeze: Freeze = None,
    weights: Weights = None,
    start: Start = None,
    seed: Seed = 0,
    flip: Flip = True,
    erase: Erase = 0.0,
    crop: Crop = False,
    ema: Ema = 0.0,
    compile: Compile = False,
    difficult: Difficult = "positive",
    keep: Keep = "best",
    calibrate: Calibrate = "temperature",
    tensorboard: Tensorboard = False,
) -> None:
    """Train a calibrated multi-label classifier on a folder of labelled images.

    DATA needs the splits train and val; where there is a test split, the model is measured on it. FOLDER gets the model
    (udlib predict, evaluate and distill take it, and udlib.load in Python) and log.csv, a row per epoch.

    After Ctrl-C (exit code 130), a kill or a power cut the same command goes on from the last epoch's checkpoint.
    A folder that holds anything else is left alone.

    Example: udlib train VOCdevkit/VOC2007 --network resnet18 --out voc07
    """
    from udlib.models import load
    from udlib.workshop import settings

    start_model = None if start is None else load(start)
    recipe = settings(
        network=network,
        lam=lam,
        epochs=epochs,
        size=size,
        batch_size=batch,
        lr=lr,
        head_lr=head_lr,
        freeze=freeze,
        weights=weights,
        seed=seed,
        flip=flip,
        erase=erase,
        crop=crop,
        ema=ema,
        compile=compile,
        policy=difficult,
        keep=keep,
    )
    make(data, out, recipe, start=start_model, calibrate=calibrate, tensorboard=tensorboard)


def distill(
    data: Data,
    teacher: Annotated[Path, typer.Option(metavar="FOLDER", help="The trained model that teaches.")],
    out: Out = Path("student"),
    network: Network = "small",
    alpha: Annotated[
        float,
        typer.Option(help="Weight of the teacher's calibration branch (Song et al., 2021, Eq. 14); 0.5 in the paper."),
    ] = 0.0,
    beta: Annotated[
        float, typer.Option(help="Weight of its uncertainty attention (Eq. 17); 0.5 in the paper; see above.")
    ] = 0.0,
    over_classes: Annotated[
        str, typer.Option(help="The classification branch's loss over the classes: their mean (Eq. 13) or their sum.")
    ] = "mean",
    temperature: Annotated[float, typer.Option(help="Softens both networks' answers; above 0.")] = 1.0,
    ramp: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="FROM TO", help="Shares of the steps between which β rises from 0; 0 0: whole from the start."
        ),
    ] = (0.0, 0.0),
    maps: Annotated[
        str,
        typer.Option(
            help="Compare the networks' uncertainty maps as they are (raw), standardised, or l2: at unit norm."
        ),
    ] = "raw",
    weighting: Annotated[
        str,
        typer.Option(
            help="Weights of a map's channels: gradient (Eq. 15), or released, the authors' code's, nearly equal."
        ),
    ] = "gradient",
    scale: Annotated[
        str, typer.Option(help="Factors of the terms: the paper's, or released, the authors' code's.")
    ] = "paper",
    teacher_size: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Side in pixels at which the teacher sees the student's crops (needs --crop); default: the student's size.",
        ),
    ] = None,
    epochs: Epochs = None,
    size: Annotated[int | None, typer.Option(min=16, help="Side of the square images; default: the teacher's.")] = None,
    batch: Batch = None,
    lr: Lr = None,
    head_lr: HeadLr = None,
    freeze: Freeze = None,
    weights: Weights = None,
    start: Start = None,
    seed: Seed = 0,
    flip: Flip = True,
    erase: Erase = 0.0,
    crop: Crop = False,
    ema: Ema = 0.0,
    compile: Compile = False,
    keep: Keep = "best",
    calibrate: Calibrate = "temperature",
    tensorboard: Tensorboard = False,
) -> None:
    """Train a smaller model on the answers of a trained one: by plain KD, or by Uncertainty Distillation.

    Without --alpha and --beta it is KD. With them it is UD, whose student has a calibration branch, and so uncertainty maps.
    At the paper's weights its student ranked worse than by KD in this course, far worse from a random start. The cause is
    that Eq. 13 is averaged: with --alpha 0.5 --beta 0.5 --over-classes sum, a fine-tuned student ranked as well as by KD and
    was better calibrated (README).

    The student learns from the teacher's answers to the training images alone; labels are needed to choose the epoch and
    to calibrate (val), and to measure (test). Both must have the same classes in the same order.

    All else is as in udlib train: what FOLDER holds afterwards, and how an interrupted training goes on.

    Example: udlib distill VOCdevkit/VOC2007 --teacher voc07 --network mobilenet_v2 --out voc07-small
    """
    from udlib.models import load
    from udlib.workshop import settings

    teacher_model, start_model = load(teacher), None if start is None else load(start)
    recipe = settings(
        "distillation",
        network,
        alpha=alpha,
        beta=beta,
        temperature=temperature,
        over_classes=over_classes,
        ramp=ramp,
        normalize=MAPS.get(maps, maps),
        weighting=weighting,
        scale=scale,
        teacher_size=teacher_size,
        epochs=epochs,
        size=size or teacher_model.size,
        batch_size=batch,
        lr=lr,
        head_lr=head_lr,
        freeze=freeze,
        weights=weights,
        seed=seed,
        flip=flip,
        erase=erase,
        crop=crop,
        ema=ema,
        compile=compile,
        keep=keep,
    )
    models = {"teacher": teacher_model, "start": start_model}
    make(data, out, recipe, **models, calibrate=calibrate, tensorboard=tensorboard)


def evaluate(
    data: Data,
    model: Model = Path("model"),
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    csv: Csv = None,
    batch: Batches = 32,
) -> None:
    """Measure a trained model on a data set: ranking, decisions, calibration, before and after calibration.

    The data must have the model's classes, by name; their order may differ. Where images have difficult labels (VOC),
    these are left out of mAP and F1 unless the line says how they count, and count as positives in all calibration
    errors. The CSV has every number, as fractions.
    """
    from udlib.datasets import open_dataset
    from udlib.datasets.layouts import require_no_own_folder
    from udlib.models import load
    from udlib.training.devices import within_memory
    from udlib.training.logs import write_csv
    from udlib.workshop import measured

    require_writable(csv)
    trained = load(model)
    require_no_own_folder(data)
    dataset = open_dataset(data, split, trained.size)
    for note in dataset.notes:
        print(f"note  {note}")
    numbers = within_memory(
        lambda size: measured(trained, dataset, size),
        batch,
        lambda size: trained.logits(dataset.subset(range(min(size, len(dataset)))), size),
    )
    print(f"{len(dataset):,} images of '{split}', {len(trained.classes)} classes\n")
    print(_table(numbers, bool(dataset.difficult.any())))
    if csv is not None:
        names = numbers["uncalibrated"]
        write_csv(csv, [["metric", *numbers], *([name, *(kind[name] for kind in numbers.values())] for name in names)])
        print(f"\nwritten: {csv}")


def make(data: str, out: Path, recipe, **options) -> None:
    """Make a model and say how good it is."""
    from udlib.workshop import train_model

    with resumable():
        model = train_model(data, out, recipe, **options)
    difficult = {name: "mAP_difficult" in numbers["uncalibrated"] for name, numbers in model.metrics.items()}
    for name, numbers in model.metrics.items():
        note = ", on which the calibrator was fitted" if name == "val" and model.calibrator else ""
        print(
            f"\n{name}{note}\n{_table({kind: _headline(values) for kind, values in numbers.items()}, difficult[name])}"
        )
    print(f"\nThe model is in '{out}': udlib predict IMAGE... --model {out}. More numbers: udlib evaluate.")


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C ends the command with exit code 130 and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        print(f"\nudlib: {str(stop) or 'stopped'}; the same command goes on from there", file=sys.stderr)
        raise typer.Exit(130) from None


def _headline(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers that a training ends with."""
    return {name: numbers[name] for name in HEADLINE if name in numbers}


def _table(numbers: dict[str, dict[str, float]], difficult: bool) -> str:
    """Metrics as text, a column before calibration and one after."""
    from udlib.figures.text import as_text

    rows = [["", *(f"{kind}, %" for kind in numbers)]]
    for name in numbers["uncalibrated"]:
        if name.endswith(("_positive", "_negative")) and not difficult:
            continue  # the same number as without the suffix
        values = [kind[name] for kind in numbers.values()]
        score = name.startswith(("NLL", "Brier"))
        rows.append([_label(name), *(f"{value:.4f}" if score else f"{100 * value:.2f}" for value in values)])
    return as_text(rows)


def _label(name: str) -> str:
    """A metric's name in words.

    >>> _label("CF1_top3_negative"), _label("ECE"), _label("true_CE_pooled")
    ('CF1, top 3, difficult as negative', 'ECE, class-wise', 'true calibration error, pooled')
    """
    if name in ("ECE", "true_CE"):
        name += "_class-wise"
    first, *rest = (PARTS.get(part, part) for part in name.replace("true_CE", "true calibration error").split("_"))
    return ", ".join([first, *rest])
