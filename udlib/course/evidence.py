"""Arms beside each other, for a lesson's section of evidence: a table and a figure of differences, paired by seed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from udlib.course.measurements import metric_values
from udlib.course.report import unit_of
from udlib.course.sentences import difference, in_table, in_units, say, spread
from udlib.course.store import for_profile, load, load_or_run
from udlib.figures.plots import estimates
from udlib.figures.text import as_markdown
from udlib.methods.base import Recipe
from udlib.statistics import PairedDifference

NO_BREAK = "\N{NO-BREAK SPACE}"  # a number stays on one line
Arms = Mapping[str, Sequence[Recipe]]  # the recipes of each arm, one per seed
Contrasts = Mapping[str, tuple[Sequence[Recipe], Sequence[Recipe]]]  # by the name of a row


def train_missing(arms: Arms) -> Arms:
    """Train the runs of these arms that are not stored, and return the arms."""
    for recipes in arms.values():
        for recipe in recipes:
            if load(for_profile(recipe), logits=False) is None:
                load_or_run(recipe)
    return arms


def differences(arms: Arms, reference: str, metric: str) -> dict[str, PairedDifference]:
    """Return each arm's difference to one of them, seed by seed, on test.

    Args:
        arms: The arms by name.
        reference: Name of the arm that the others are compared with; it is left out.
        metric: Name of the metric, or "SPLIT NAME", as `measurements.metric_values` takes it.

    Raises:
        FileNotFoundError: Where a run is not stored.
    """
    base = metric_values(arms[reference], metric)
    return {name: difference(metric_values(arms[name], metric), base) for name in arms if name != reference}


def evidence_table(arms: Arms, metrics: Mapping[str, str], reference: str) -> list[list[str]]:
    """Return mean ± standard deviation of each arm, and its difference to one of them where that is detected.

    Args:
        arms: The arms by name.
        metrics: The head of each column by the metric's name.
        reference: Name of the arm that the others are compared with.

    Returns:
        Rows of cells, head first. A detected difference is bold, as "**+1.20**" behind the mean.
    """
    rows = [[f"Mean ± sd over seeds (**change** from {reference}, if detected)", *metrics.values()]]
    gaps = {metric: differences(arms, reference, metric) for metric in metrics}
    for name, recipes in arms.items():
        cells = []
        for metric in metrics:
            _, factor, digits = _shown(metric)
            cell = spread(metric_values(recipes, metric), factor, digits)
            gap = gaps[metric].get(name)
            if gap is not None and gap.verdict in ("higher", "lower"):
                cell += f" (**{factor * gap.mean:+.{digits}f}**)"
            cells.append(cell)
        rows.append([name, *cells])
    return rows


def show_evidence(arms: Arms, metrics: Mapping[str, str], reference: str, title: str = "") -> None:
    """Show `evidence_table` below a title, which also says how to read it."""
    say(_titled(title, evidence_table(arms, metrics, reference)))


def contrast_table(contrasts: Contrasts, metrics: Mapping[str, str]) -> list[list[str]]:
    """Return differences between pairs of arms, paired by seed, on test.

    Args:
        contrasts: For each row, the recipes of one arm and those of the arm that is subtracted, both in order of seeds.
        metrics: The head of each column by the metric's name.

    Returns:
        Rows of cells, head first. A cell is "+1.20 [+0.30, +2.10]", and bold where the difference is detected.
    """
    rows = [["Difference [95 % interval], **bold** where it is detected", *metrics.values()]]
    for name, (ours, theirs) in contrasts.items():
        gaps = {metric: difference(metric_values(ours, metric), metric_values(theirs, metric)) for metric in metrics}
        rows.append([name, *(in_table(gap, *_shown(metric)[1:]) for metric, gap in gaps.items())])
    return rows


def show_contrasts(contrasts: Contrasts, metrics: Mapping[str, str], title: str = "") -> None:
    """Show `contrast_table` below a title, which also says how to read it."""
    say(_titled(title, contrast_table(contrasts, metrics)))


def in_words(gap: PairedDifference, metric: str) -> str:
    """Return a difference with its unit and 95 % interval.

    >>> in_words(PairedDifference(0.012, 0.003, 0.021, 5), "mAP")
    '+1.20 points [+0.30, +2.10]'
    """
    unit, factor, digits = _shown(metric)
    return in_units(gap, factor, digits, f" {unit}" if unit else "")


def _shown(metric: str) -> tuple[str, float, int]:
    """Unit, factor and digits of a metric in a lesson: three digits are enough."""
    unit, factor, digits = unit_of(metric)
    return unit, factor, min(digits, 3)


def _titled(title: str, rows: list[list[str]]) -> str:
    """A table below its title. What the first head says stands there too, since it would squeeze the numbers."""
    (how_to_read, *heads), *body = rows
    unbroken = [[name, *(re.sub(r" (?![(\[])", NO_BREAK, cell) for cell in cells)] for name, *cells in body]
    return (f"**{title}.** " if title else "") + f"{how_to_read}\n\n" + as_markdown([["", *heads], *unbroken])


def evidence_figure(arms: Arms, metrics: Mapping[str, str], reference: str, title: str = "") -> Figure:
    """Draw each arm's difference to one of them with its 95 % t interval, for one metric or for several of one unit.

    Args:
        arms: The arms by name.
        metrics: What each metric is called, by its name.
        reference: Name of the arm that the others are compared with.
        title: Title above the axes.

    Raises:
        ValueError: For metrics of different units.
    """
    units = {unit_of(metric)[:2] for metric in metrics}
    if len(units) > 1:
        raise ValueError(f"the metrics {', '.join(metrics)} have different units: draw a figure for each")
    ((unit, factor),) = units
    groups = {}
    for metric, words in metrics.items():
        gaps = differences(arms, reference, metric).values()
        ends = zip(*((factor * gap.mean, factor * gap.low, factor * gap.high) for gap in gaps))
        mean, low, high = (list(values) for values in ends)
        groups[words] = (mean, low, high)
    names = [name for name in arms if name != reference]
    what = next(iter(metrics.values())) if len(metrics) == 1 else "difference"
    figure = estimates(names, groups, f"{what}, against {reference}" + (f" ({unit})" if unit else ""), title)
    axes = figure.axes[0]
    axes.axvline(0, color="black", linewidth=0.8)
    if len(groups) > 1:  # beside the axes: inside, it would hide intervals where there are few rows
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
