"""Commands for one's own data: train a model, distil it, measure it, use it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import typer

from udlib.cli.options import require_writable

DATA = "A folder of labelled images in a known layout (VOC, …), or scenes or digits, which come with the course."
BY_NETWORK = "default: what suits the network"
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA)]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model goes; the same command resumes there.")]
Model = Annotated[Path, typer.Option(metavar="FOLDER", envvar="UDLIB_MODEL", help="The trained model.")]
Network = Annotated[
    str,
    typer.Option(
        help="small_narrow, small, small_wide (for 64 px and a CPU), resnet18, resnet101, "
        "vgg19_bn or mobilenet_v2 (fine-tuned at 448 px, on a GPU)."
    ),
]
Size = Annotated[int | None, typer.Option(min=16, help=f"Side of the square images in pixels; {BY_NETWORK}.")]
Epochs = Annotated[int | None, typer.Option(min=1, help=f"Times through the training images; {BY_NETWORK}.")]
Batch = Annotated[int | None, typer.Option(min=2, help=f"Images per step; {BY_NETWORK}.")]
Lr = Annotated[float | None, typer.Option(help=f"Highest learning rate; {BY_NETWORK}.")]
Weights = Annotated[
    str | None, typer.Option(help=f"torchvision's pretrained weights, such as IMAGENET1K_V1, or none; {BY_NETWORK}.")
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same model, bit for bit on a CPU.")
]
Flip = Annotated[bool, typer.Option(help="Mirror images at random; not for letters, left and right hands, …")]
Crop = Annotated[
    bool,
    typer.Option(
        "--crop",
        help="Train on crops at random scales and places, out of images 8/7 as large "
        "(512 px for 448), as the paper's code does.",
    ),
]
Ema = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Keep a running average of the weights over this share of all steps, "
        "0.065 say; 0: the weights as they are.",
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile: pays for large networks on a GPU.")]
Erase = Annotated[float, typer.Option(min=0, max=1, help="Chance of random erasing (CutOut).")]
Difficult = Annotated[
    str, typer.Option(help="What VOC's difficult labels count as in training: positive, ignore, negative.")
]
Keep = Annotated[str, typer.Option(help="Which epoch's weights: best (mAP on val) or last.")]
Calibrate = Annotated[
    str,
    typer.Option(
        help="Fitted on val: temperature, label-temperature, platt, beta, isotonic, none. "
        "All but temperature are fitted class by class, and want more images."
    ),
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's events too, beside log.csv.")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the numbers to this file, too.")]
Batches = Annotated[int, typer.Option("--batch", min=1, help="Images at a time.")]

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
    weights: Weights = None,
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
    from udlib.workshop import settings

    chosen = settings(
        network=network,
        lam=lam,
        epochs=epochs,
        size=size,
        batch_size=batch,
        lr=lr,
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
    make(data, out, chosen, calibrate=calibrate, tensorboard=tensorboard)


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
    temperature: Annotated[float, typer.Option(help="Softens both networks' answers; above 0.")] = 1.0,
    epochs: Epochs = None,
    size: Annotated[int | None, typer.Option(min=16, help="Side of the square images; default: the teacher's.")] = None,
    batch: Batch = None,
    lr: Lr = None,
    weights: Weights = None,
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

    Without --alpha and --beta it is KD, for no weights of UD had a higher mAP in this course. With them it is UD, whose
    student has a calibration branch, and so uncertainty maps. At the paper's weights, small networks from a random start
    ranked far worse than by KD; at --alpha 0.5 --beta 0.005 a little worse, and they were better calibrated (README).

    The student learns from the teacher's answers to the training images alone; labels are needed to choose the epoch and
    to calibrate (val), and to measure (test). Both must have the same classes in the same order.

    All else is as in udlib train: what FOLDER holds afterwards, and how an interrupted training goes on.

    Example: udlib distill VOCdevkit/VOC2007 --teacher voc07 --network mobilenet_v2 --out voc07-small
    """
    from udlib.models import load
    from udlib.workshop import settings

    master = load(teacher)
    chosen = settings(
        "distillation",
        network,
        alpha=alpha,
        beta=beta,
        temperature=temperature,
        epochs=epochs,
        size=size or master.size,
        batch_size=batch,
        lr=lr,
        weights=weights,
        seed=seed,
        flip=flip,
        erase=erase,
        crop=crop,
        ema=ema,
        compile=compile,
        keep=keep,
    )
    make(data, out, chosen, teacher=master, calibrate=calibrate, tensorboard=tensorboard)


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
    from udlib.models import load
    from udlib.training.devices import within_memory
    from udlib.training.logs import write_csv
    from udlib.workshop import measured

    require_writable(csv)
    found = load(model)
    dataset = open_dataset(data, split, found.size)
    numbers = within_memory(
        lambda size: measured(found, dataset, size), batch, lambda size: found.logits(dataset.paths[:size], size)
    )
    print(f"{len(dataset):,} images of '{split}', {len(found.classes)} classes\n")
    print(_table(numbers, bool(dataset.difficult.any())))
    if csv is not None:
        names = numbers["uncalibrated"]
        write_csv(csv, [["metric", *numbers], *([name, *(kind[name] for kind in numbers.values())] for name in names)])
        print(f"\nwritten: {csv}")


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    model: Model = Path("model"),
    top: Annotated[int | None, typer.Option(min=1, help="Only so many labels an image, the surest.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least confidence of a label; default: 0.5, or with --top none.")
    ] = None,
    map_folder: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FOLDER",
            help="Write each image's uncertainty map over it there, as PNG; for models with a calibration branch.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Write the confidence in every class to this file, a line an image."
        ),
    ] = None,
    batch: Batches = 32,
) -> None:
    """Name what is in images, with calibrated confidence: of labels given 80 %, about 80 % are right.

    An image that is missing or broken is named, and the others are answered; the exit code is then 1.

    Example: udlib predict holiday/*.jpg --model voc07 --map maps
    """
    from udlib.models import load
    from udlib.training.devices import within_memory
    from udlib.training.logs import write_csv

    require_writable(csv)
    found = load(model)
    if map_folder is not None:
        found.require_branch()
        if map_folder.exists() and not map_folder.is_dir():
            raise NotADirectoryError(f"'{map_folder}' is a file: name a folder for the maps")
    rows, broken, taken = [], 0, set()
    for some in _in_parts(_files(images), batch):
        paths, pixels = [], []
        for path in some:
            try:
                pixels.append(found.prepare(path))
            except (ValueError, OSError) as error:
                print(f"udlib: {error}", file=sys.stderr)
                broken += 1
            else:
                paths.append(path)
        if not paths:
            continue
        said = within_memory(
            lambda size: found.predict(pixels, size), len(pixels), lambda size: found.predict(pixels[:size], size)
        )
        for path, labels in zip(paths, said.labels(threshold, top)):
            answer = ", ".join(f"{name} {100 * p:.1f} %" for name, p in labels)
            print(f"{path}: {answer or 'no label is sure enough'}", flush=True)
        rows += [[path, *row] for path, row in zip(paths, said.probabilities.tolist())]
        if map_folder is not None:
            for path in paths:
                _write_map(found, path, map_folder, taken)
    if csv is not None:
        write_csv(csv, [["image", *found.classes], *rows])
    raise typer.Exit(int(broken > 0))


def make(data: str, out: Path, chosen, **options) -> None:
    """Make a model and say how good it is."""
    from udlib.workshop import train_model

    with resumable():
        model = train_model(data, out, chosen, **options)
    difficult = {name: "mAP_difficult" in numbers["uncalibrated"] for name, numbers in model.metrics.items()}
    for name, numbers in model.metrics.items():
        note = ", on which the calibrator was fitted" if name == "val" and model.calibrator else ""
        print(f"\n{name}{note}\n{_table({kind: _headline(found) for kind, found in numbers.items()}, difficult[name])}")
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
    from udlib.course.report import as_text

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


def _files(given: Sequence[Path]) -> list[Path]:
    """The images that were named, and those in folders that were named; FileNotFoundError for a folder without any."""
    from PIL import Image

    endings, found = set(Image.registered_extensions()), []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(item for item in path.iterdir() if item.suffix.lower() in endings)
        if not inside:
            raise FileNotFoundError(f"folder '{path}' holds no images: name image files, or a folder that holds some")
        found += inside
    return found


def _in_parts(items: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _write_map(model, path: Path, folder: Path, taken: set[str]) -> None:
    """The image with its uncertainty map beside it, as `folder/<name>.png`, numbered where the name is taken already."""
    from udlib.datasets.base import load_rgb
    from udlib.figures.overlays import attention_grid
    from udlib.figures.plots import png
    from udlib.files import atomic_write

    image = load_rgb(path, upright=True)
    values = model.uncertainty_map(image)
    image.thumbnail((1024, 1024))
    name = next(name for name in chain([path.stem], (f"{path.stem}-{k}" for k in count(2))) if name not in taken)
    taken.add(name)
    folder.mkdir(parents=True, exist_ok=True)
    title = path.name.encode(errors="backslashreplace").decode()  # a name may be no text
    figure = attention_grid([image], {"uncertainty": [values]}, [title], side=4)
    atomic_write(folder / f"{name}.png", png(figure))
