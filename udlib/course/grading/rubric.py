"""The lines of the rubric with their points; docs/project/rubric.md explains each of them."""

from __future__ import annotations

from typing import NamedTuple


class Criterion(NamedTuple):
    """A line of the rubric: its name here, its points, what it asks, and whether a machine judges it."""

    name: str
    points: int
    text: str
    machine: bool = True


CRITERIA = (
    Criterion("runs", 10, "The report runs from top to bottom"),
    Criterion("same", 10, "A new run gives the stored numbers"),
    Criterion("protocol", 5, "The protocol is complete"),
    Criterion("order", 10, "The protocol comes before the results"),
    Criterion("seeds", 10, "Both arms have the same seeds, five or more"),
    Criterion("untouched", 10, "Nobody looks at test before the choice"),
    Criterion("choice", 5, "The choice is the best on validation"),
    Criterion("interval", 15, "The paired difference and its interval are right"),
    Criterion("verdict", 5, "The verdict follows from the interval"),
    Criterion("figures", 10, "Every figure has a caption and a description"),
    Criterion("fit", 5, "Arms, metric and data fit the claim", machine=False),
    Criterion("limits", 5, "The discussion names limits, in plain words", machine=False),
)
MACHINE_POINTS = sum(criterion.points for criterion in CRITERIA if criterion.machine)
PEOPLES_POINTS = sum(criterion.points for criterion in CRITERIA if not criterion.machine)
