"""`udlib evaluate` and `udlib thresholds`: a trained model measured, and its decisions fitted to validation."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from udlib.cli.options import Batches, Csv, Data, Missing, Model, chosen, require_writable

if TYPE_CHECKING:
    from udlib.datasets import MultiLabelDataset
    from udlib.models import TrainedModel


def evaluate(
    data: Data,
    model: Model = Path("model"),
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "test",
    csv: Csv = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with the numbers, each class, and confident mistakes."
        ),
    ] = None,
    batch: Batches = None,
    missing: Missing = "fail",
) -> None:
    """Measure a trained model on a data set: ranking, decisions, calibration, before and after calibration.

    The data must have the model's classes, by name; their order may differ. Where images have difficult labels (VOC),
    these are left out of mAP and F1 unless the line says how they count, and count as positives in all calibration
    errors. The CSV has every number, as fractions. The page is one file that needs no other and no network: the table, the
    reliability diagram, average precision, precision and recall of each class, and thumbnails of the images on which the
    model was most confident and the label says otherwise. Where the model, its calibrator or its thresholds were fitted on
    these images, command and page say so, since their numbers look too good then.

    Example: udlib evaluate VOCdevkit/VOC2007 --model voc07 --html report.html
    """
    from udlib.datasets import open_dataset
    from udlib.figures.metric_tables import metric_table
    from udlib.files import atomic_write
    from udlib.models import load
    from udlib.training.devices import within_memory
    from udlib.training.logs import write_csv
    from udlib.workshop import (
        aligned,
        decision_sentence,
        evaluation_page,
        notes_on_fitting,
        numbers_of,
        say_left_out,
    )

    require_writable(csv, html)
    trained = load(model)
    dataset = open_dataset(chosen(data, missing), split, trained.size)
    labels = aligned(dataset, trained.classes)
    logits = within_memory(
        lambda size: trained.logits(dataset, size),
        batch or trained.batch_size,
        lambda size: _trial(trained, dataset, size),
    )
    numbers = numbers_of(trained, logits, labels)
    print(f"{len(dataset):,} images of '{split}', {len(trained.classes)} classes")
    say_left_out({split: dataset})
    for note in (*dataset.notes, *notes_on_fitting(trained, dataset)):
        print(f"note  {note}")
    print()
    print(metric_table(numbers, bool(dataset.difficult.any())))
    if "CF1" in numbers["uncalibrated"]:
        print(f"\n{decision_sentence(trained)}")
    if csv is not None:
        names = numbers["uncalibrated"]
        write_csv(csv, [["metric", *numbers], *([name, *(kind[name] for kind in numbers.values())] for name in names)])
        print(f"\nwritten: {csv}")
    if html is not None:
        page = evaluation_page(trained, dataset, logits, f"{model} on '{split}' of {data}")
        atomic_write(html, page.encode(errors="backslashreplace"))
        print(f"\nwritten: {html}")


def thresholds(
    data: Data,
    model: Model = Path("model"),
    split: Annotated[str, typer.Option(help="The split to fit on: not the one that you measure on.")] = "val",
    csv: Csv = None,
    batch: Batches = None,
    missing: Missing = "fail",
) -> None:
    """Fit each class's threshold, from which on its label counts as said: the one with the highest F1 on val.

    The thresholds are stored in the model's folder, in place of 0.5. udlib predict and udlib evaluate use them from then on,
    and say so; udlib predict --threshold 0.5 passes over them. They belong to the probabilities after calibration, and
    difficult labels are left out. Classes of few positives are named, since their thresholds may not suit other images.
    The numbers that the folder stores are measured again at the new thresholds.

    Example: udlib thresholds VOCdevkit/VOC2007 --model voc07
    """
    from udlib.datasets import open_dataset
    from udlib.figures.text import as_text
    from udlib.models import load, save_trained
    from udlib.training.devices import within_memory
    from udlib.training.logs import write_csv
    from udlib.workshop import fit_thresholds
    from udlib.workshop.thresholds import FITTED

    require_writable(csv)
    trained, source = load(model), chosen(data, missing)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        fitted = within_memory(
            lambda size: fit_thresholds(trained, source, split, size),
            batch or trained.batch_size,
            lambda size: _trial(trained, open_dataset(source, split, trained.size), size),
        )
    save_trained(model, fitted)
    origin = fitted.provenance[FITTED]
    columns = (origin["positives"], fitted.thresholds, origin["F1 at 0.5"], origin["F1"])
    rows = [["class", "positives", "threshold", "F1 at 0.5", "F1"], *zip(fitted.classes, *columns)]
    print(f"{origin['images']:,} images of '{split}', {len(fitted.classes)} classes; F1 in %\n")
    shown = [
        [name, f"{count:,}", f"{t:.3f}", f"{100 * usual:.2f}", f"{100 * best:.2f}"]
        for name, count, t, usual, best in rows[1:]
    ]
    print(as_text([rows[0], *shown]))
    for note in notes:
        print(f"\n{note.message}")
    if dropped := [name for name in trained.metrics if name not in fitted.metrics]:
        print(
            f"\nThe stored numbers of {' and '.join(dropped)} are dropped: they were measured at other thresholds, and on "
            "data that are not these. udlib train with the command of the training measures them again."
        )
    print(f"\nThe thresholds are in '{model}': udlib predict and udlib evaluate use them.")
    if csv is not None:
        write_csv(csv, rows)
        print(f"\nwritten: {csv}")


def _trial(model: TrainedModel, dataset: MultiLabelDataset, batch: int) -> None:
    """Predict one batch."""
    model.logits(dataset.subset(range(min(batch, len(dataset)))), batch)
