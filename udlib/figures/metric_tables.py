"""Tables of the numbers of `evaluation.measure`, with their names in words."""

from __future__ import annotations

from collections.abc import Mapping

from udlib.figures.text import as_text

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


def headline(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that a training ends with.

    Args:
        numbers: All numbers of a split, by name.
    """
    return {name: numbers[name] for name in HEADLINE if name in numbers}


def metric_rows(numbers: Mapping[str, Mapping[str, float]], difficult: bool) -> list[list[str]]:
    """Return metrics as rows of text, head first: a column before calibration and one after.

    Args:
        numbers: "uncalibrated" and, where there is a calibrator, "calibrated": the numbers by name, as fractions.
        difficult: Whether there are difficult labels; without them, rows that say how these count are left out.
    """
    rows = [["", *(f"{kind}, %" for kind in numbers)]]
    for name in numbers["uncalibrated"]:
        if name.endswith(("_positive", "_negative")) and not difficult:
            continue  # the same number as without the suffix
        values = [kind[name] for kind in numbers.values()]
        score = name.startswith(("NLL", "Brier"))
        rows.append([_label(name), *(f"{value:.4f}" if score else f"{100 * value:.2f}" for value in values)])
    return rows


def metric_table(numbers: Mapping[str, Mapping[str, float]], difficult: bool) -> str:
    """Lay out `metric_rows` for the terminal.

    Args:
        numbers: As in `metric_rows`.
        difficult: As in `metric_rows`.
    """
    return as_text(metric_rows(numbers, difficult))


def _label(name: str) -> str:
    """A metric's name in words.

    >>> _label("CF1_top3_negative"), _label("ECE"), _label("true_CE_pooled")
    ('CF1, top 3, difficult as negative', 'ECE, class-wise', 'true calibration error, pooled')
    """
    if name in ("ECE", "true_CE"):
        name += "_class-wise"
    first, *rest = (PARTS.get(part, part) for part in name.replace("true_CE", "true calibration error").split("_"))
    return ", ".join([first, *rest])
