"""The explorer of partitions: k and the strategy, with the graph of labels and the measurements."""

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
    """k and the strategy under two sliders: the graph with its parts, and measurements of the networks trained on them.

    Readings are means over seeds with 95 % t intervals, and differences from `control`. Where nothing was trained, they
    say so.

    Args:
        affinity: Affinity of the labels (C, C), in [0, 1] and symmetric.
        names: The C class names.
        partitions: `partitions[k, strategy]` holds parts of the classes by group: "co", "dis", or both.
        runs: `runs[k, strategy]` holds the students of these parts; a setting without runs may be missing.
        control: Runs of the same seeds without a teacher.
        start: First value of some sliders, by name.

    Raises:
        ValueError: Where a strategy lacks some k, and where a seed has no control.
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
        self.affinity, self.names = np.asarray(affinity, float), list(names)
        self.partitions, self.runs = partitions, runs
        self.control = {run.recipe.training.seed: run for run in control}
        ks, strategies = (list(dict.fromkeys(values)) for values in zip(*partitions))
        if missing := [(k, strategy) for k in ks for strategy in strategies if (k, strategy) not in partitions]:
            raise ValueError(f"there are no partitions for {missing}: give every strategy at every k")
        seeds = {run.recipe.training.seed for runs_of_setting in runs.values() for run in runs_of_setting}
        if unpaired := seeds - self.control.keys():
            raise ValueError(f"control has no run of seed {min(unpaired)}: give it the seeds of all other runs")
        super().__init__(
            {"k": ks, "strategy": strategies},
            self.frame,
            start=start,
            note="Test images. Means over seeds with 95 % t intervals; differences are paired by seed.",
        )

    def measure(self, k: int, strategy: str) -> dict[str, str]:
        """Return the readings of one setting in words; of a setting without runs, that there are none."""
        runs = self.runs.get((k, strategy))
        if not runs:
            return {"trained": f"no run has k = {k} and {strategy}, so there is no number to show"}
        seeds = [run.recipe.training.seed for run in runs]
        readings = {"trained": f"{len(runs)} seed{'s' * (len(runs) > 1)}"}
        for name, (key, scale, digits, unit) in READ.items():
            values = [scale * run.metrics["test"].get(key, math.nan) for run in runs]
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
        """Return the graph of each partition, the readings, and a table of the parts."""
        parts, readings = self.partitions[k, strategy], self.measure(k, strategy)
        partitions = {
            self.GROUPS[group] if strategy != "random" else f"at random, sizes of {self.GROUPS[group][:3]}": partition
            for group, partition in parts.items()
        }
        if k == 1:
            partitions = {"one part of all classes": list(parts.values())[-1]}
        readings_in_words = ", ".join(f"{name} {value}" for name, value in readings.items())
        table = [
            ["parts", "classes"],
            *(
                [title.split(":")[0] + f", part {number}", " ".join(self.names[c] for c in part)]
                for title, partition in partitions.items()
                for number, part in enumerate(partition, 1)
            ),
        ]
        return Frame(
            partition_graph(self.affinity, self.names, partitions),
            f"k = {k}, {strategy}: {readings_in_words}",
            readings,
            table,
        )


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    """A difference with the ends of its interval, if it has one."""
    ends = "" if math.isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{mean:+.{digits}f}{ends}"
