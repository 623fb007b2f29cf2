"""How a lesson reports what was measured: a sentence under a cell, a score over seeds, a difference with its interval.

Scores are fractions and are reported in per cent; a "point" is one per cent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from udlib.course.profiles import for_profile, profile
from udlib.course.runs import Run
from udlib.course.store import load, load_or_run
from udlib.methods.base import Recipe
from udlib.statistics import PairedDifference, paired_difference


def say(sentence: str) -> None:
    """Show a sentence, which code wrote from measurements, as Markdown."""
    from IPython.display import Markdown, display  # commands import this module for their tables, and show nothing

    display(Markdown(sentence))


def percent(value: float) -> str:
    """Return a fraction in per cent; a dash where nothing was measured.

    >>> percent(0.1234), percent(float("nan"))
    ('12.3 %', '–')
    """
    return "–" if np.isnan(value) else f"{100 * value:.1f} %"


def spread(values: Sequence[float], scale: float = 100, digits: int = 2) -> str:
    """Return mean ± standard deviation (n − 1) over seeds, in words.

    One value has no spread. Without a value, or with one that could not be measured, the answer is a dash.

    Args:
        values: One score per seed.
        scale: Factor before printing; 100 gives per cent.
        digits: Digits after the decimal point.

    >>> spread([0.75, 0.77, 0.76]), spread([0.1834], scale=1, digits=3), spread([]), spread([0.5, float("nan")])
    ('76.00 ± 1.00', '0.183', '–', '–')
    """
    scores = scale * np.asarray(values, float)
    if not len(scores) or not np.isfinite(scores).all():
        return "–"
    return f"{scores.mean():.{digits}f}" + (f" ± {scores.std(ddof=1):.{digits}f}" if len(scores) > 1 else "")


def in_units(interval: PairedDifference, scale: float = 100, digits: int = 2, unit: str = " points") -> str:
    """Return a difference with its 95 % interval, in words.

    Args:
        interval: The difference.
        scale: Factor before printing; 100 gives points.
        digits: Digits after the decimal point.
        unit: Unit after the mean, with a leading space.

    >>> in_units(PairedDifference(0.012, -0.003, 0.027, 5))
    '+1.20 points [-0.30, +2.70]'
    """
    middle, low, high = (scale * value for value in interval[:3])
    return f"{middle:+.{digits}f}{unit} [{low:+.{digits}f}, {high:+.{digits}f}]"


def in_table(interval: PairedDifference, scale: float = 100, digits: int = 2) -> str:
    """Return a difference with its 95 % interval for a cell of a table: without unit, and bold where it is detected.

    Args:
        interval: The difference.
        scale: Factor before printing; 100 gives points.
        digits: Digits after the decimal point.

    >>> in_table(PairedDifference(0.012, 0.003, 0.021, 5)), in_table(PairedDifference(0.012, -0.003, 0.027, 5))
    ('**+1.20 [+0.30, +2.10]**', '+1.20 [-0.30, +2.70]')
    """
    words = in_units(interval, scale, digits, "")
    return f"**{words}**" if interval.verdict in ("higher", "lower") else words


def difference(a, b=0.0) -> PairedDifference:
    """Return a − b, paired by seed, with its 95 % t interval.

    Seeds for which one of the two could not be measured are left out; without any pair, the result is NaN with n = 0.

    Args:
        a: (n,), one value per seed.
        b: (n,) with the same seeds in the same order, or one number for all.

    Raises:
        ValueError: Where a and b have different numbers of seeds.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if b.ndim == 0:
        b = np.full_like(a, b)
    if a.shape != b.shape:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}: give both a value for each seed")
    measured_in_both = np.isfinite(a - b)
    return (
        paired_difference(a[measured_in_both], b[measured_in_both])
        if measured_in_both.any()
        else PairedDifference(np.nan, np.nan, np.nan, 0)
    )


class Differences:
    """`difference` with a memory: it counts the intervals of a lesson, and how many of them exclude 0.

    >>> difference = Differences()
    >>> difference([0.75, 0.77, 0.76], [0.70, 0.71, 0.72]).verdict, len(difference.drawn)
    ('higher', 1)
    """

    def __init__(self) -> None:
        self.drawn: list[PairedDifference] = []

    def __call__(self, a, b=0.0) -> PairedDifference:
        self.drawn.append(difference(a, b))
        return self.drawn[-1]

    def count(self) -> str:
        """Return in words: how many intervals there are, how many exclude 0, and how many would by chance alone."""
        many, excluding_zero = len(self.drawn), sum(each.verdict in ("higher", "lower") for each in self.drawn)
        return (
            f"This lesson has {many} intervals over seeds, and {excluding_zero} of them exclude 0. If there were no differences "
            f"at all, about {many / 20:.0f} would exclude 0 by chance. The intervals are not independent: all of them come from "
            "the same few networks."
        )


def runs(recipes: Iterable[Recipe]) -> list[Run]:
    """Return the runs of these recipes, one for each seed.

    Runs that are not stored are trained. In the profile "smoke", which only tries the path, two seeds are enough.
    """
    return [load_or_run(recipe) for recipe in _needed_by_the_profile(recipes)]


def trained(recipes: Iterable[Recipe]) -> bool:
    """Return whether `runs` would load everything, and train nothing."""
    return all(load(for_profile(recipe)) for recipe in _needed_by_the_profile(recipes))


def _needed_by_the_profile(recipes: Iterable[Recipe]) -> list[Recipe]:
    """The recipes that the profile trains: two in "smoke", else all."""
    return list(recipes)[: 2 if profile() == "smoke" else None]


def stored(runs: Iterable[Run], metric: str, split: str = "test") -> np.ndarray:
    """Return one metric of these runs (n,), a value for each seed; NaN where it could not be measured."""
    return np.array([run.metrics[split].get(metric, np.nan) for run in runs])
