"""The other published systems on images of one's own: `udlib parallel` and `udlib detection`. What comes out is a model as
that of `udlib train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from udlib.cli.models import make, resumable
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
from udlib.cli.running import side_by_side


def parallel(
    data: Data,
    out: Out = Path("model"),
    network: Network = None,
    k: Annotated[
        int, typer.Option(min=1, help="Number of parts of each partition of the classes; 1: one teacher for all.")
    ] = 3,
    strategy: Annotated[
        str,
        typer.Option(
            help="Which parts have teachers: both (parts of classes that often occur in one image, and of classes that "
            "seldom "
            "do), CGP or DGP alone, or random."
        ),
    ] = "both",
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of the co-occurrence teachers; the others have the rest.")
    ] = 0.5,
    partition_seed: Annotated[int, typer.Option(min=0, help="Seed of the clustering that finds the parts.")] = 0,
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
    ema: Annotated[
        float, typer.Option(min=0, max=1, help="Running average of the weights over this share of all steps.")
    ] = 0.065,
    compile: Compile = False,
    difficult: Difficult = "positive",
    keep: Keep = "best",
    calibrate: Calibrate = "temperature",
    missing: Missing = "fail",
    tensorboard: Tensorboard = False,
    jobs: Annotated[int, typer.Option(min=1, help="Teachers trained side by side, in processes of their own.")] = 1,
    teacher: Annotated[str | None, typer.Option(hidden=True)] = None,
    context: typer.Context = None,
) -> None:
    """Train a model by Parallel Self-Distillation (Xu et al., 2022): teachers of a few classes each, and a student of all.

    Trains 2 K networks like the student, then the student. FOLDER/partitions keeps the parts of the classes. All else is as
    in udlib train: what FOLDER holds afterwards, and how an interrupted training goes on. With --from, teachers and student
    begin with the model's weights.

    Example: udlib parallel VOCdevkit/VOC2007 --network resnet18 --k 3 --out voc07
    """
    from udlib.workshop import partitioned, settings, train_model

    start_model = model_to_start_from(start, new_head, out)
    place = chosen(data, missing)
    recipe = settings(
        "parallel",
        network,
        start=start_model,
        alpha=alpha,
        warm_up=0.1,
        ema=ema,
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
        compile=compile,
        policy=difficult,
        keep=keep,
    )
    recipe = partitioned(place, out, recipe, k, strategy, partition_seed)
    if teacher is not None:
        with resumable():
            train_model(place, out, recipe, start=start_model, calibrate=calibrate, only=teacher)
        return
    names = list(recipe.settings.teachers())
    if jobs > 1 and not (out / "state.json").exists():
        failed = side_by_side(names, jobs, lambda name: [*context.obj, "--teacher", name])
        if failed:
            raise RuntimeError(
                f"{failed} of {len(names)} teachers failed: run the same command with --jobs 1 to see why"
            )
    make(place, out, recipe, start=start_model, calibrate=calibrate, tensorboard=tensorboard)


def detection(
    data: Data,
    out: Out = Path("model"),
    network: Network = None,
    teacher: Annotated[str | None, typer.Option(help="The detector's network; default: the student's.")] = None,
    proposals: Annotated[
        str,
        typer.Option(
            help="Where the detector looks: grid (windows at four scales), selective-search "
            "(needs OpenCV), or boxes (the annotated ones, an upper bound)."
        ),
    ] = "grid",
    transfer: Annotated[
        str,
        typer.Option(
            help="What the student is taught: features (stage 1), predictions (stage 2), both, or "
            "none, which trains no detector."
        ),
    ] = "both",
    taught_by: Annotated[
        str,
        typer.Option(
            help="Whose predictions the student learns: a detector's or, as a control, a plain classifier's (with "
            "--transfer "
            "predictions)."
        ),
    ] = "detector",
    pool: Annotated[
        int, typer.Option(min=1, help="Side of a pooled box in bins; the paper has 7, on maps of 14 cells.")
    ] = 2,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the detector's layers; the paper has 4096.")] = 256,
    dropout: Annotated[float, typer.Option(help="Dropout after each layer; the paper has 0.5.")] = 0.0,
    multi_scale: Annotated[
        bool, typer.Option(help="Train the detector on images of three sizes, as the paper does.")
    ] = True,
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
    ema: Ema = 0.0,
    compile: Compile = False,
    difficult: Difficult = "positive",
    keep: Keep = "best",
    calibrate: Calibrate = "temperature",
    missing: Missing = "fail",
    tensorboard: Tensorboard = False,
) -> None:
    """Train a model on what a weakly-supervised detector teaches (Liu et al., 2018): its features of boxes, and its predictions.

    Trains a detector from the images' labels alone, without a box, and then the student, which sees whole images and is
    what FOLDER holds. All else is as in udlib train: what FOLDER holds afterwards, and how an interrupted training goes on.
    With --from, the student begins with the model's weights, and so does the backbone of a detector of the same network.

    Example: udlib detection VOCdevkit/VOC2007 --network resnet18 --pool 7 --hidden 4096 --dropout 0.5 --out voc07
    """
    from udlib.workshop import settings

    start_model = model_to_start_from(start, new_head, out)
    recipe = settings(
        "detection",
        network,
        start=start_model,
        proposals=proposals,
        transfer=transfer,
        taught_by=taught_by,
        pool=pool,
        hidden=hidden,
        dropout=dropout,
        multi_scale=multi_scale,
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
        ema=ema,
        compile=compile,
        policy=difficult,
        keep=keep,
    )
    recipe = recipe.but(teacher=teacher or recipe.network)
    make(chosen(data, missing), out, recipe, start=start_model, calibrate=calibrate, tensorboard=tensorboard)
