"""Tables of metrics for the terminal."""

from __future__ import annotations

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


def headline(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers that a training ends with."""
    return {name: numbers[name] for name in HEADLINE if name in numbers}


def metric_table(numbers: dict[str, dict[str, float]], difficult: bool) -> str:
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
