"""An explorer of arms beside each other: every seed's difference, for any metric."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from udlib.course.evidence import Arms
from udlib.course.explorers.base import Explorer, Frame
from udlib.course.measurements import metric_values
from udlib.course.report import unit_of
from udlib.course.sentences import spread
from udlib.figures.plots import seed_intervals


class SeedExplorer(Explorer):
    """Differences between arms that are paired by seed, with a tick for each seed.

    Args:
        name: What the groups are, for the first slider.
        groups: The arms of each group, by the group's name; all groups have arms of the same names.
        metrics: Names of the metrics, as `measurements.metric_values` takes them, by what they are called.
        note: A note below the picture.

    Raises:
        FileNotFoundError: Where a run is not stored.
    """

    def __init__(self, name: str, groups: Mapping[str, Arms], metrics: Mapping[str, str], note: str = "") -> None:
        self.groups, self.metrics = groups, metrics
        arms = list(next(iter(groups.values())))
        super().__init__({name: list(groups), "metric": list(metrics), "against": arms}, self._frame, note)

    def _frame(self, group: str, called: str, against: str) -> Frame:
        metric = self.metrics[called]
        unit, factor, digits = unit_of(metric)
        values = {name: factor * np.array(metric_values(arm, metric)) for name, arm in self.groups[group].items()}
        gaps = {
            f"{name} − {against}": (found - values[against]).tolist()
            for name, found in values.items()
            if name != against
        }
        readings = {name: spread(found.tolist(), 1, digits) for name, found in values.items()}
        alt = f"{called} of {group}: " + ", ".join(f"{name} {value}" for name, value in readings.items())
        axis = f"{called}, {unit}" if unit else called
        return Frame(seed_intervals(gaps, axis, f"{group}, paired by seed", zero=True), alt, readings)
