"""The explorer of partitions: k and the strategy, with the graph of labels and what was measured."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from udlib.course.explorers.base import Explorer, Frame
from udlib.course.runs import Run
from udlib.figures.label_graphs import Partition, partition_graph
from udlib.statistics import paired_difference, summary

READ = {
    "mAP": ("mAP", 100, 2, " %"),
    "pooled ECE": ("ECE_pooled", 100, 2, " %"),
    "pooled true error": ("true_CE_pooled", 100, 2, " %"),
    "NLL": ("NLL", 1, 4, " nats"),
}


class PartitionExplorer(Explorer):
    """k and the strategy under two sliders: the graph with its parts, and what was measured of the networks trained on them.

    `partitions[k, strategy]` holds parts of the `names`, by group ("co" and "dis", or one of them), and `runs[k, strategy]`
    the students of these parts; where nothing was trained it lacks the key or holds nothing, and the readings say so. They
    are means over seeds with 95 % t intervals, and differences from `control`, runs of the same seeds without a teacher.
    """

    GROUPS = {"co": "CGP: classes that go together", "dis": "DGP: classes that seldom do"}

    def __init__(
        self,
        affinity,
        names: Sequence[str],
        partitions: Mapping[tuple[int, str], Mapping[str, Partition]],
        runs: Mapping[tuple[int, str], Sequence[Run]],
        control: Sequence[Run],
        start: Mapping[str, Hashable] | None = None,
    ):
        self.affinity, self.names, self.partitions, self.runs = (
            np.asarray(affinity, float),
            list(names),
            partitions,
            runs,
        )
        self.control = {run.recipe.training.seed: run for run in control}
        ks, strategies = (list(dict.fromkeys(values)) for values in zip(*partitions))
        if missing := [(k, strategy) for k in ks for strategy in strategies if (k, strategy) not in partitions]:
            raise ValueError(f"there are no partitions for {missing}: give every strategy at every k")
        seeds = {run.recipe.training.seed for found in runs.values() for run in found}
        if unpaired := seeds - self.control.keys():
            raise ValueError(f"control has no run of seed {min(unpaired)}: give it the seeds of all other runs")
        super().__init__(
            {"k": ks, "strategy": strategies},
            self.frame,
            start=start,
            note="Test images. Means over seeds with 95 % t intervals; differences are paired by seed.",
        )

    def measure(self, k: int, strategy: str) -> dict[str, str]:
        """The readings, in words; of a setting without runs, that there are none."""
        found = self.runs.get((k, strategy))
        if not found:
            return {"trained": f"nothing with k = {k} and {strategy}: no number to show"}
        seeds = [run.recipe.training.seed for run in found]
        readings = {"trained": f"{len(found)} seed{'s' * (len(found) > 1)}"}
        for name, (key, scale, digits, unit) in READ.items():
            values = [scale * run.metrics["test"].get(key, math.nan) for run in found]
            against = [scale * self.control[seed].metrics["test"].get(key, math.nan) for seed in seeds]
            if not np.isfinite([values, against]).all():
                readings[name] = "–"
                continue
            level, apart = summary(values), paired_difference(values, against)
            ends = "" if math.isnan(level.low) else f" [{level.low:.{digits}f}, {level.high:.{digits}f}]"
            readings[name] = f"{level.mean:.{digits}f}{ends}{unit}"
            readings[f"{name}, minus no teacher"] = _interval(*apart[:3], digits) + f", {apart.verdict}"
        return readings

    def frame(self, k: int, strategy: str) -> Frame:
        """The graph of each partition, the readings, and a table of the parts."""
        parts, readings = self.partitions[k, strategy], self.measure(k, strategy)
        drawn = {
            self.GROUPS[group] if strategy != "random" else f"at random, sizes of {self.GROUPS[group][:3]}": found
            for group, found in parts.items()
        }
        if k == 1:
            drawn = {"one part of all classes": found for found in parts.values()}
        said = ", ".join(f"{name} {value}" for name, value in readings.items())
        table = [
            ["parts", "classes"],
            *(
                [title.split(":")[0] + f", part {number}", " ".join(self.names[c] for c in part)]
                for title, found in drawn.items()
                for number, part in enumerate(found, 1)
            ),
        ]
        return Frame(partition_graph(self.affinity, self.names, drawn), f"k = {k}, {strategy}: {said}", readings, table)


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    ends = "" if math.isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{mean:+.{digits}f}{ends}"
