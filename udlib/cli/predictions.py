"""`udlib predict`: a trained model used on new images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from udlib.cli.options import Batches, Model, require_writable
from udlib.cli.patterns import expanded
from udlib.cli.picture_files import select

if TYPE_CHECKING:
    from torch import Tensor

    from udlib.models import Confidences, TrainedModel


def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, patterns of them, or folders of them.")
    ],
    model: Model = Path("model"),
    top: Annotated[int | None, typer.Option(min=1, help="Only this many labels of each image, the surest.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Least confidence of a label; default: 0.5, or the classes' own (udlib thresholds), or with --top none.",
        ),
    ] = None,
    map_folder: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FOLDER",
            help="Draw each image's uncertainty map over it, as a PNG in this folder; for models with a calibration branch.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Write the probability of every class to this file, a line for each image."
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the subfolders of folders, too.")] = False,
    batch: Batches = None,
) -> None:
    """Name what is in images, with calibrated probabilities: about 80 % of the labels with 80 % are right.

    If an image is missing or broken, its name is printed, the others are still predicted, and the exit code is 1. The same goes
    for photographs in HEIC format where the package pillow-heif, which reads them, is not installed: pip install
    "udlib[heic]". The command counts the other files and the subfolders of a folder that it skips.
    Rows of the CSV are written as they come: after Ctrl-C (exit code 130) or on a full disk the file holds whole rows of all
    images before.

    Patterns such as holiday/*.jpg work where the shell does not replace them, as on Windows, and inside quotes.

    Example: udlib predict holiday/*.jpg --model voc07 --map maps
    """
    from udlib.figures.text import counted
    from udlib.models import load
    from udlib.training.devices import within_memory
    from udlib.training.rows import RowWriter
    from udlib.workshop import threshold_note

    require_writable(csv)
    trained = load(model)
    if map_folder is not None:
        trained.require_branch()
        if map_folder.exists() and not map_folder.is_dir():
            raise NotADirectoryError(f"'{map_folder}' is a file: name a folder for the maps")
    if threshold is None and top is None and set(trained.thresholds) != {0.5}:
        print(f"udlib: labels {threshold_note(trained)}", file=sys.stderr)
    selection = select(expanded(images), recursive)
    for sentence in selection.sentences():
        print(f"udlib: {sentence}", file=sys.stderr)
    paths, batch = selection.images, batch or trained.batch_size
    answered = tried = 0
    names: set[str] = set()
    with ExitStack() as stack:
        table = None if csv is None else stack.enter_context(RowWriter(csv, ["image", *trained.classes]))
        try:
            for start in range(0, len(paths), batch):
                pictures = _prepared(trained, paths[start : start + batch])
                if pictures:
                    predict_some = partial(_predict, trained, pictures)
                    confidences = within_memory(predict_some, len(pictures), predict_some)
                    if table is not None:
                        table.write([[path, *row] for path, row in zip(pictures, confidences.probabilities.tolist())])
                    _print_answers(pictures, confidences, threshold, top)
                    for path in pictures if map_folder is not None else ():
                        _write_map(trained, path, map_folder, names)
                answered, tried = answered + len(pictures), min(start + batch, len(paths))
        except KeyboardInterrupt:
            rows = (
                f"; '{csv}' holds the rows of {counted(table.rows, 'image')}"
                if table is not None and table.started
                else ""
            )
            print(f"\nudlib: stopped after {tried:,} of {counted(len(paths), 'image')}{rows}", file=sys.stderr)
            raise typer.Exit(130) from None
    raise typer.Exit(int(answered < len(paths) or bool(selection.heic)))


def _print_answers(
    pictures: Iterable[Path], confidences: Confidences, threshold: float | None, top: int | None
) -> None:
    """Print a line for each image."""
    for path, labels in zip(pictures, confidences.labels(threshold, top)):
        answer = ", ".join(f"{name} {100 * p:.1f} %" for name, p in labels)
        print(f"{path}: {answer or 'no label is sure enough'}", flush=True)


def _prepared(model: TrainedModel, paths: Sequence[Path]) -> dict[Path, Tensor]:
    """The images that can be read, as the model sees them; the others are named on stderr."""
    pictures = {}
    for path in paths:
        try:
            pictures[path] = model.prepare(path)
        except (ValueError, OSError) as error:
            print(f"udlib: {error}", file=sys.stderr)
    return pictures


def _predict(model: TrainedModel, pictures: Mapping[Path, Tensor], batch: int) -> Confidences:
    return model.predict(list(pictures.values())[:batch], batch)


def _write_map(model, path: Path, folder: Path, names: set[str]) -> None:
    """Write an image with its uncertainty map beside it as `folder/<name>.png`, numbered where that name is used already."""
    from udlib.figures.overlays import attention_grid
    from udlib.figures.plots import png
    from udlib.files import atomic_write

    image = model.read(path)
    values = model.uncertainty_map(image)
    image.thumbnail((1024, 1024))
    name = next(name for name in chain([path.stem], (f"{path.stem}-{k}" for k in count(2))) if name not in names)
    names.add(name)
    folder.mkdir(parents=True, exist_ok=True)
    title = path.name.encode(errors="backslashreplace").decode()  # a name may be no text
    figure = attention_grid([image], {"uncertainty": [values]}, [title], side=4)
    atomic_write(folder / f"{name}.png", png(figure))
