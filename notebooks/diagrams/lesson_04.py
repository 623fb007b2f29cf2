"""Lesson 04: a reliability diagram, from single predictions to the calibration error."""

import numpy as np
import torch
from matplotlib.patches import Circle

from notebooks.diagrams.drawing import CALIBRATION, CLASSIFICATION, INK, WHITE, Box, Diagram, mixed
from udlib.calibration import expected_calibration_error, reliability_curve

BINS = 5
# A few predictions of each bin, and how many of their labels are present: an overconfident network.
PREDICTIONS = {
    (0.02, 0.04, 0.05, 0.07, 0.10, 0.13, 0.15, 0.18): 1,
    (0.22, 0.27, 0.31, 0.36): 1,
    (0.42, 0.48, 0.51, 0.57): 2,
    (0.62, 0.66, 0.72, 0.76): 2,
    (0.83, 0.89, 0.92, 0.95, 0.98): 3,
}
LEFT, WIDE, TOP, HIGH = 62, 290, 92, 196  # of the reliability diagram


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and labels, (N, 1)."""
    f = np.concatenate(list(PREDICTIONS))
    y = np.concatenate([np.arange(len(some)) >= len(some) - present for some, present in PREDICTIONS.items()])
    return torch.tensor(f)[:, None], torch.tensor(y.astype(float))[:, None]


def reliability_bins() -> Diagram:
    """Predictions in bins, the point of each bin, and the gaps that make the calibration error."""
    f, y = example()
    curve = reliability_curve(f, y, BINS, average="pooled")
    error = expected_calibration_error(f, y, BINS, average="pooled")
    d = Diagram(
        640,
        336,
        "From predictions to a reliability diagram and the calibration error",
        f"Above, {len(f)} predicted probabilities lie on a line from 0 to 1, cut into {BINS} bins; filled dots are "
        "labels that are present. Below, each bin is a point: its mean predicted probability against the share of "
        "its labels that are present. A vertical line joins each point to the diagonal: the gap. On the right, a "
        "table has the number of predictions, both means and the gap of each bin. The expected calibration error is"
        f" the mean gap, weighted by the number of predictions: {100 * error:.1f} per cent.",
    )

    def place(p: float, share: float) -> tuple[float, float]:
        return LEFT + WIDE * p, TOP + HIGH * (1 - share)

    d.text(LEFT, 18, "1. Sort the predictions into bins", align="left", weight="bold")
    for b in range(BINS):
        d.area(
            LEFT + b * WIDE / BINS,
            30,
            WIDE / BINS,
            38,
            mixed(CLASSIFICATION.color, 0.08 if b % 2 else 0.2),
            linewidth=0.6,
        )
    for p, label in zip(f[:, 0].tolist(), y[:, 0].tolist()):
        dot(d, (LEFT + WIDE * p, 41 if label else 57), INK if label else WHITE)
    d.text(LEFT - 8, 41, "present", align="right", size=10)
    d.text(LEFT - 8, 57, "absent", align="right", size=10)

    d.area(LEFT, TOP, WIDE, HIGH)
    for b in range(1, BINS):
        d.line([place(b / BINS, 0), place(b / BINS, 1)], lw=0.5, linestyle=(0, (2, 3)))
    d.line([place(0, 0), place(1, 1)], lw=1.1, linestyle=(0, (5, 3)))
    for confidence, frequency in zip(curve.confidence.tolist(), curve.frequency.tolist()):
        d.line([place(confidence, confidence), place(confidence, frequency)], CALIBRATION, lw=3.0, linestyle="-")
        dot(d, place(confidence, frequency), CLASSIFICATION.dark, 4.5)
    for p in (0, 0.5, 1):
        d.text(LEFT + WIDE * p, TOP + HIGH + 12, f"{p:g}", size=10)
        d.text(LEFT - 8, TOP + HIGH * (1 - p), f"{p:g}", size=10, align="right")
    d.text(LEFT + WIDE / 2, TOP + HIGH + 30, "mean predicted probability $\\bar f_b$ of a bin")
    d.text(18, TOP + HIGH / 2, "share of labels present $\\bar y_b$", rotation=90)
    d.area(*place(0.015, 0.54), 0.29 * WIDE, 0.125 * HIGH, linewidth=0, zorder=3.5)
    d.text(*place(0.16, 0.48), "on the diagonal:\n0.9 means 0.9", size=10)
    d.arrow(place(0.27, 0.415), place(0.355, 0.365), lw=0.9, head=6)
    table(d, curve, error)
    return d


def table(d: Diagram, curve, error: float) -> None:
    """The right half: a row for each bin, and the weighted mean."""
    d.text(384, 18, "2. Compare the two means of each bin", align="left", weight="bold")
    columns = (402, 462, 508, 554, 608)
    for x, words in zip(columns, ("bin $b$", "$n_b$", "$\\bar f_b$", "$\\bar y_b$", "gap")):
        d.text(x, 42, words)
    d.line([(380, 54), (632, 54)], lw=0.8)
    rows = zip(curve.count.tolist(), curve.confidence.tolist(), curve.frequency.tolist())
    for b, (count, confidence, frequency) in enumerate(rows):
        at = 70 + 22 * b
        words = (f"{b / BINS:.1f}–{(b + 1) / BINS:.1f}", f"{count:.0f}", f"{confidence:.2f}", f"{frequency:.2f}")
        for x, word in zip(columns, (*words, f"{abs(frequency - confidence):.2f}")):
            d.text(x, at, word)
    d.text(384, 208, "3. Average the gaps, weighted by $n_b$", align="left", weight="bold")
    box = Box(384, 222, 250, 68)
    d.box(box.x, box.y, box.width, box.height, role=CALIBRATION, line="-")
    ground = CALIBRATION.tint
    d.text(
        508,
        240,
        "$\\mathrm{ECE} = \\sum_b\\; \\frac{n_b}{N}\\, |\\, \\bar y_b - \\bar f_b \\,|$",
        size=12,
        ground=ground,
    )
    d.text(
        508,
        272,
        f"= {100 * error:.1f} % here. Class-wise (Eq. 2): the\nmean of such sums over the classes.",
        ground=ground,
    )
    d.text(384, 312, "Points below the diagonal: the network\npromises too much.", align="left", size=10)


def dot(d: Diagram, at: tuple[float, float], fill, radius: float = 3.2) -> None:
    """A round mark."""
    d.patch(Circle(at, radius, facecolor=fill, edgecolor=INK, linewidth=0.8, zorder=6))


DIAGRAMS = {"reliability_bins": reliability_bins}
