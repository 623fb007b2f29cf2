"""Commands for one's own data: train a model, and distil it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from udlib.cli.options import (
    Batch,
    Calibrate,
    Compile,
    Crop,
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
    Missing,
    Network,
    NewHead,
    Out,
    Seed,
    Size,
    Start,
    Tensorboard,
    Weights,
    chosen,
    model_to_start_from,
)

if TYPE_CHECKING:
    from udlib.datasets.layouts import Source

MAPS = {"raw": False, "standardised": True}  # what `Settings.normalize` calls them


def train(
    data: Data,
    out: Out = Path("model"),
    network: Network = None,
    lam: Annotated[
        float,
        typer.Option(
            help="λ, the weight of the calibration branch (Song et al., 2021, Eq. 12); 0: no branch, and so no uncertainty maps."
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
    new_head: NewHead = False,
    seed: Seed = 0,
    flip: Flip = True,
    erase: Erase = 0.0,
    crop: Crop = False,
    ema: Ema = 0.0,
    compile: Compile = False,
    difficult: Difficult = "positive",
    keep: Keep = "best",
    calibrate: Calibrate = "temperature",
    missing: Missing = "fail",
    tensorboard: Tensorboard = False,
) -> None:
    """Train a calibrated multi-label classifier on a folder of labelled images.

    DATA needs the splits train and val; if it has a test split, the model is measured on it. FOLDER gets the model, for
    udlib predict, evaluate and distill and for udlib.load in Python, and log.csv with a row for each epoch.

    After Ctrl-C (exit code 130), a kill or a power cut the same command goes on from the last epoch's checkpoint.
    A folder that holds anything else is refused.

    A finished training has run through its whole learning rate, so it gets no more epochs. To go on from its model, train a
    second one with --from; --lr chooses a lower rate for it.

    Examples: udlib train VOCdevkit/VOC2007 --network resnet18 --out voc07

    udlib train VOCdevkit/VOC2007 --from voc07 --epochs 10 --lr 0.0003 --out voc07-more

    udlib train my_images --from voc07 --new-head --out mine
    """
    from udlib.workshop import settings

    start_model = model_to_start_from(start, new_head, out)
    recipe = settings(
        network=network,
        start=start_model,
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
    make(chosen(data, missing), out, recipe, start=start_model, calibrate=calibrate, tensorboard=tensorboard)


def distill(
    data: Data,
    teacher: Annotated[Path, typer.Option(metavar="FOLDER", help="The trained model that teaches.")],
    out: Out = Path("student"),
    network: Network = None,
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
            metavar="FROM TO", help="β rises from 0 between these shares of the steps; 0 0: full β from the start."
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
            help="Weights of a map's channels: gradient (Eq. 15), or released (nearly equal, as in the authors' code)."
        ),
    ] = "gradient",
    scale: Annotated[
        str, typer.Option(help="Factors of the terms: paper, or released (as in the authors' code).")
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
    new_head: NewHead = False,
    seed: Seed = 0,
    flip: Flip = True,
    erase: Erase = 0.0,
    crop: Crop = False,
    ema: Ema = 0.0,
    compile: Compile = False,
    keep: Keep = "best",
    calibrate: Calibrate = "temperature",
    missing: Missing = "fail",
    tensorboard: Tensorboard = False,
) -> None:
    """Train a smaller model on the answers of a trained one: by plain KD, or by Uncertainty Distillation.

    Without --alpha and --beta it is KD. With them it is UD: the student then has a calibration branch and uncertainty maps.
    With the paper's weights, UD gave a lower mAP than KD in this course, and a much lower one from a random start. The cause
    is that Eq. 13 is averaged: with --alpha 0.5 --beta 0.5 --over-classes sum, no loss of mAP was detected for fine-tuned
    students, and they were better calibrated (README).

    The student learns only from the teacher's answers to the training images. Labels serve to choose the epoch and to
    calibrate (val), and to measure (test). Teacher and data must have the same classes in the same order.

    Everything else is as in udlib train: what FOLDER holds afterwards, and how an interrupted training goes on.

    Example: udlib distill VOCdevkit/VOC2007 --teacher voc07 --network mobilenet_v2 --out voc07-small
    """
    from udlib.models import load
    from udlib.workshop import settings

    teacher_model, start_model = load(teacher), model_to_start_from(start, new_head, out)
    recipe = settings(
        "distillation",
        network,
        start=start_model,
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
    make(chosen(data, missing), out, recipe, **models, calibrate=calibrate, tensorboard=tensorboard)


def make(data: str | Source, out: Path, recipe, **options) -> None:
    """Make a model and say how good it is."""
    from udlib.figures.metric_tables import headline, metric_table
    from udlib.workshop import train_model

    with resumable():
        model = train_model(data, out, recipe, **options)
    difficult = {name: "mAP_difficult" in numbers["uncalibrated"] for name, numbers in model.metrics.items()}
    for name, numbers in model.metrics.items():
        note = ", on which the calibrator was fitted" if name == "val" and model.calibrator else ""
        print(
            f"\n{name}{note}\n{metric_table({kind: headline(values) for kind, values in numbers.items()}, difficult[name])}"
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
