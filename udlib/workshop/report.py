"""The page that `udlib evaluate --html` writes: a model measured on a data set, and where it was confident and wrong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from udlib.calibration import ReliabilityCurve, reliability_curve
from udlib.datasets.base import MultiLabelDataset
from udlib.figures import report_page
from udlib.figures.classifier_plots import reliability
from udlib.figures.metric_tables import metric_rows
from udlib.figures.report_page import Mistake, paragraph, section, table
from udlib.figures.style import figure_html, png
from udlib.metrics import average_precision, precision_recall_f1
from udlib.models import TrainedModel
from udlib.training.evaluation import Split
from udlib.workshop.fitted_images import notes_on_fitting
from udlib.workshop.splits import aligned, numbers_of
from udlib.workshop.thresholds import decision_sentence

MOST = 12  # mistakes of each kind


def evaluation_page(
    model: TrainedModel, dataset: MultiLabelDataset, logits: Tensor | None = None, title: str = "a trained model"
) -> str:
    """Measure a model on a data set, and write down what was found as an HTML page.

    The page has the table of all numbers, the reliability diagram, a row for each class, and thumbnails of the labels that
    the model gives most confidently and the annotation does not have, and the other way round. Difficult labels are no
    mistakes. Every picture has a description in words.

    Where the model, its calibrator or its thresholds were fitted on these images, the page says so above all numbers.

    Args:
        model: the trained model.
        dataset: with the model's classes.
        logits: the model's on these images, (N, C); default: they are computed.
        title: what is measured on what.

    Returns:
        The page, which needs no other file.

    Raises:
        ValueError: data with other classes.
    """
    labels = aligned(dataset, model.classes)
    logits = model.logits(dataset) if logits is None else logits
    numbers = numbers_of(model, logits, labels)
    probabilities = _probabilities(model, logits)
    own = probabilities[list(probabilities)[-1]]
    said, missed = _confident_mistakes(dataset, own, labels, model)
    sections = [
        paragraph(
            f"{len(dataset):,} images, {len(model.classes)} classes; network {model.backbone} at {model.size} px. "
            + (decision_sentence(model) if "CF1" in numbers["uncalibrated"] else "")
        ),
        *(paragraph(f"Note: {note}.") for note in notes_on_fitting(model, dataset)),
        section(
            "All numbers",
            table(metric_rows(numbers, bool(labels.difficult.any())), "In per cent, except NLL and Brier score."),
        ),
        section("Reliability", _diagram(probabilities, labels)),
        section("Classes", table(_class_rows(own, labels, model), "In per cent. Difficult labels are left out.")),
        section(
            "Given with confidence, and not labelled",
            paragraph("Errors of the model, or labels that were forgotten. The most probable ones come first."),
            report_page.mistakes(said, "There are none."),
        ),
        section(
            "Labelled, and found improbable",
            paragraph("Errors of the model, or wrong labels. The least probable ones come first."),
            report_page.mistakes(missed, "There are none."),
        ),
    ]
    return report_page.page(f"Evaluation: {title}", sections)


def _probabilities(model: TrainedModel, logits: Tensor) -> dict[str, Tensor]:
    """The probabilities before and, where there is a calibrator, after calibration; the last are the model's own."""
    z = logits.double()
    raw = torch.sigmoid(z) if model.read_as == "sigmoid" else torch.softmax(z, dim=1)
    return {"uncalibrated": raw} | ({} if model.calibrator is None else {"calibrated": model.calibrator(z)})


def _diagram(probabilities: Mapping[str, Tensor], labels: Split) -> str:
    """The reliability diagram of all labels together, and its points in words."""
    curves = {
        name: reliability_curve(p, labels.targets, ignore=labels.unknown, average="pooled")
        for name, p in probabilities.items()
    }
    alt = "Reliability diagram, all classes together. " + " ".join(
        f"{name.capitalize()}: {_points(curve)}." for name, curve in curves.items()
    )
    return figure_html(png(reliability(curves)), alt, "Share of positives over the predicted probability, in 15 bins.")


def _points(curve: ReliabilityCurve) -> str:
    """The points of a curve in words."""
    filled = zip(curve.confidence.tolist(), curve.frequency.tolist(), curve.count.tolist())
    return "; ".join(
        f"at a mean probability of {100 * p:.0f} % {100 * share:.0f} % of {int(count):,} labels are positive"
        for p, share, count in filled
        if count
    )


def _class_rows(probabilities: Tensor, labels: Split, model: TrainedModel) -> list[list[str]]:
    """A row for each class, head first."""
    y, ignore = labels.targets, labels.ignored
    positives = (y.bool() & ~ignore).sum(0).tolist()
    ap = average_precision(probabilities, y, ignore).tolist()
    rows = [["class", "images with it", "AP", "threshold", "precision", "recall", "F1"]]
    for k, name in enumerate(model.classes):
        at = slice(k, k + 1)
        rates = precision_recall_f1(probabilities[:, at], y[:, at], model.thresholds[k], ignore=ignore[:, at])
        cells = [ap[k], model.thresholds[k], *(rates[rate] for rate in ("CP", "CR", "CF1"))]
        rows.append([name, f"{positives[k]:,}", *("–" if value != value else f"{100 * value:.1f}" for value in cells)])
    return rows


def _confident_mistakes(
    dataset: MultiLabelDataset, probabilities: Tensor, labels: Split, model: TrainedModel
) -> tuple[list[Mistake], list[Mistake]]:
    """Labels that are given and not there, the most probable first; and labels that are there and not given."""
    given = probabilities >= torch.tensor(model.thresholds, dtype=probabilities.dtype)
    there, counted = labels.targets.bool(), ~labels.ignored
    kinds = ((given & ~there & counted, -probabilities), (~given & there & counted, probabilities))
    lists = []
    for wrong, order in kinds:
        entries = wrong.nonzero()
        worst = order[wrong].argsort(stable=True)[:MOST]
        lists.append(
            [
                Mistake(
                    dataset.image(i),
                    str(dataset.ids[i]),
                    model.classes[k],
                    float(probabilities[i, k]),
                    bool(there[i, k]),
                )
                for i, k in entries[worst].tolist()
            ]
        )
    return lists[0], lists[1]
