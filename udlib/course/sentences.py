"""How a lesson says what was measured: a sentence under a cell, a score over seeds, a difference with its interval.

Scores are fractions and are told in per cent; a "point" is one per cent.
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
    """Show a sentence, written by code from what was measured, as Markdown."""
    from IPython.display import Markdown, display  # commands import this module for their tables, and show nothing

    display(Markdown(sentence))


def percent(value: float) -> str:
    """A fraction in per cent; a dash where nothing was measured.

    >>> percent(0.1234), percent(float("nan"))
    ('12.3 %', '–')
    """
    return "–" if np.isnan(value) else f"{100 * value:.1f} %"


def spread(values: Sequence[float], scale: float = 100, digits: int = 2) -> str:
    """Mean ± standard deviation (n − 1) over seeds, in per cent (or, with `scale=1`, as it is).

    One value has no spread; no value, or one that could not be measured, gives a dash.

    >>> spread([0.75, 0.77, 0.76]), spread([0.1834], scale=1, digits=3), spread([]), spread([0.5, float("nan")])
    ('76.00 ± 1.00', '0.183', '–', '–')
    """
    found = scale * np.asarray(values, float)
    if not len(found) or not np.isfinite(found).all():
        return "–"
    return f"{found.mean():.{digits}f}" + (f" ± {found.std(ddof=1):.{digits}f}" if len(found) > 1 else "")


def in_units(found: PairedDifference, scale: float = 100, digits: int = 2, unit: str = " points") -> str:
    """A difference with its 95 % interval.

    >>> in_units(PairedDifference(0.012, -0.003, 0.027, 5))
    '+1.20 points [-0.30, +2.70]'
    """
    middle, low, high = (scale * value for value in found[:3])
    return f"{middle:+.{digits}f}{unit} [{low:+.{digits}f}, {high:+.{digits}f}]"


def difference(a, b=0.0) -> PairedDifference:
    """a − b paired by seed, (n,) each (or b one number for all); seeds where one of them could not be measured are left out.

    NaN with n = 0 where no pair is left. Raises ValueError where a and b have not the same seeds.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if b.ndim == 0:
        b = np.full_like(a, b)
    if a.shape != b.shape:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}: give both a value for each seed")
    kept = np.isfinite(a - b)
    return paired_difference(a[kept], b[kept]) if kept.any() else PairedDifference(np.nan, np.nan, np.nan, 0)


class Differences:
    """`difference`, which keeps what it has drawn: a lesson with many intervals should say how many, and how many exclude 0.

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
        """How many intervals were drawn, how many exclude 0, and how many would if there were nothing to find."""
        many, found = len(self.drawn), sum(each.verdict in ("higher", "lower") for each in self.drawn)
        return (
            f"{many} intervals over seeds were drawn, and {found} of them exclude 0. If there were nothing to find, about "
            f"{many / 20:.0f} would. They are not independent: the same few networks stand behind all of them."
        )


def runs(recipes: Iterable[Recipe]) -> list[Run]:
    """The runs of these recipes, one for each seed; two seeds are enough where only the path is tried (profile "smoke")."""
    return [load_or_run(chosen) for chosen in _asked(recipes)]


def trained(recipes: Iterable[Recipe]) -> bool:
    """Whether `runs` would find all that it is asked for, and train nothing."""
    return all(load(for_profile(chosen)) for chosen in _asked(recipes))


def _asked(recipes: Iterable[Recipe]) -> list[Recipe]:
    return list(recipes)[: 2 if profile() == "smoke" else None]


def stored(found: Iterable[Run], metric: str, split: str = "test") -> np.ndarray:
    """One metric of these runs (n,), a value for each seed; NaN where it could not be measured."""
    return np.array([run.metrics[split].get(metric, np.nan) for run in found])
