"""The assessed project, "Is this claim true on your data?": a study with its protocol, its choice and its test.

A study writes three files into the folder of the report: `protocol.json` before any training, `results.csv` with one row per
number, and `choice.json` when validation has chosen among the candidates. `udlib grade` reads these files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from udlib.statistics import PairedDifference, paired_difference

PROTOCOL, RESULTS, CHOICE = "protocol.json", "results.csv", "choice.json"
COLUMNS = ("seed", "arm", "split", "metric", "value")
METRICS = ("mAP", "CF1", "ECE", "ECE_pooled", "overconfidence", "NLL", "Brier")  # those that a study writes down
IN_NATS = ("NLL",)  # all others are fractions, which a sentence gives in points
VERDICTS = {"higher": {"higher": "holds", "lower": "reversed"}, "lower": {"lower": "holds", "higher": "reversed"}}


@dataclass(frozen=True)
class Protocol:
    """What a study decides before it trains.

    Attributes:
        claim: The claim in the words of docs/results.md.
        data: A name such as "digits", or the path of a folder that `udlib data check` accepts.
        metric: The metric that decides, one of `METRICS`.
        expected: What the claim says of the metric: "higher" or "lower".
        arms: Settings of each arm, by name: fields of a recipe, such as {"lam": 1.0}; "method" names its method.
        against: The arm that the chosen one is compared with.
        candidates: The arms among which validation chooses; one alone needs no choice.
        choose_by: The metric by which validation chooses, and whether its best value is the "higher" or the "lower" one.
        seeds: Every arm is trained once with each.
        common: Settings that all arms share.
    """

    claim: str
    data: str
    metric: str
    expected: str
    arms: Mapping[str, Mapping[str, Any]]
    against: str
    candidates: Sequence[str]
    choose_by: Sequence[str]
    seeds: Sequence[int]
    common: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.metric not in METRICS or self.choose_by[0] not in METRICS:
            unknown = self.metric if self.metric not in METRICS else self.choose_by[0]
            raise ValueError(f"unknown metric '{unknown}': choose one of {', '.join(METRICS)}")
        for direction in (self.expected, self.choose_by[1]):
            if direction not in VERDICTS:
                raise ValueError(f"a direction is '{direction}': write 'higher' or 'lower'")
        if missing := [arm for arm in (self.against, *self.candidates) if arm not in self.arms]:
            raise ValueError(f"there is no arm '{missing[0]}': the arms are {', '.join(self.arms)}")
        if not self.candidates or self.against in self.candidates:
            raise ValueError(f"candidates are {list(self.candidates)}: name at least one arm, and not '{self.against}'")
        if len(set(self.seeds)) < len(self.seeds) or len(self.seeds) < 2:
            raise ValueError(f"seeds are {list(self.seeds)}: name at least two, each once; the rubric asks for five")


class Study:
    """One comparison from the protocol to the paired difference; writes the three files that `udlib grade` reads.

    Args:
        folder: Where the files are written: the folder of the report.
        choices: The fields of `Protocol`.

    Raises:
        ValueError: For a protocol that cannot be carried out.
    """

    def __init__(self, folder: str | Path = ".", **choices: Any):
        self.protocol = Protocol(**choices)
        self.folder = Path(folder)
        self.networks: dict[tuple[str, int], nn.Module] = {}
        for name in (RESULTS, CHOICE):  # of an earlier run of the report
            (self.folder / name).unlink(missing_ok=True)
        content = asdict(self.protocol)
        content["seeds"], content["candidates"] = list(self.protocol.seeds), list(self.protocol.candidates)
        _write_json(self.folder / PROTOCOL, content)

    def train(self) -> None:
        """Train every arm with every seed, and write down the numbers on validation. Nothing looks at the test split."""
        from udlib.workshop import train

        for seed in self.protocol.seeds:
            for arm in self.protocol.arms:
                data = self._data(arm, seed)
                recipe = data.recipe
                self.networks[arm, seed] = train(recipe, data.arrays("train", recipe.policy)).network
                self._write_rows(arm, seed, "val")
            print(f"seed {seed}: {len(self.protocol.arms)} arms are trained", flush=True)

    def choose(self) -> str:
        """Choose the candidate with the best mean over seeds on validation, and write the choice down.

        Raises:
            FileNotFoundError: Before anything was trained.
        """
        metric, best = self.protocol.choose_by
        means = {arm: sum(values) / len(values) for arm, values in self._by_arm("val", metric).items()}
        pick = max if best == "higher" else min
        chosen = pick(self.protocol.candidates, key=means.__getitem__)
        _write_json(self.folder / CHOICE, {"chosen": chosen, "split": "val", "metric": metric, "means": means})
        return chosen

    @property
    def chosen(self) -> str:
        """The arm that validation chose.

        Raises:
            FileNotFoundError: Before `choose`.
        """
        path = self.folder / CHOICE
        if not path.is_file():
            raise FileNotFoundError("nothing is chosen yet: call choose() before you look at the test split")
        return json.loads(path.read_text(encoding="utf-8"))["chosen"]

    def test(self) -> PairedDifference:
        """Measure the chosen arm and the one that it is compared with on test; returns their paired difference.

        Raises:
            FileNotFoundError: Before `choose`.
        """
        for arm in (self.chosen, self.protocol.against):
            for seed in self.protocol.seeds:
                self._write_rows(arm, seed, "test")
        values = self._by_arm("test", self.protocol.metric)
        return paired_difference(values[self.chosen], values[self.protocol.against])

    def sentence(self, difference: PairedDifference) -> str:
        """Return the sentence that states a difference, in the form that `udlib grade` reads."""
        metric = self.protocol.metric
        factor, unit, digits = (1, "nats", 4) if metric in IN_NATS else (100, "points", 2)
        mean, low, high = (f"{factor * value:+.{digits}f}" for value in difference[:3])
        verdict = VERDICTS[self.protocol.expected].get(difference.verdict, difference.verdict)
        return (
            f"Difference of {metric}, {self.chosen} minus {self.protocol.against}, over {difference.n} seeds: {mean} {unit}, "
            f"95 % interval [{low}, {high}]. Verdict: {verdict}."
        )

    def values(self, split: str, metric: str | None = None) -> dict[str, list[float]]:
        """Return a metric (by default the protocol's) by arm, in the order of the seeds."""
        return self._by_arm(split, metric or self.protocol.metric)

    def _data(self, arm: str, seed: int):
        from udlib.course.data import RecipeData
        from udlib.methods import recipe

        choices = {**self.protocol.common, **self.protocol.arms[arm]}
        return RecipeData(recipe(choices.pop("method", "supervised"), data=self.protocol.data, seed=seed, **choices))

    def _write_rows(self, arm: str, seed: int, split: str) -> None:
        """Predict one split and write down its numbers."""
        from udlib.course.runs import read_as
        from udlib.training.evaluation import measure
        from udlib.training.prediction import predict

        data, network = self._data(arm, seed), self.networks[arm, seed]
        config = data.recipe.training
        logits = predict(
            network, data.arrays(split), precision=config.precision, prepare=config.prepare_for(network)
        ).logits
        numbers = measure(logits, data.labels(split), read_as(data.recipe))
        write_rows(self.folder, [(seed, arm, split, name, numbers[name]) for name in METRICS if name in numbers])

    def _by_arm(self, split: str, metric: str) -> dict[str, list[float]]:
        by_arm: dict[str, list[float]] = {}
        for row in read_rows(self.folder / RESULTS):
            if (row["split"], row["metric"]) == (split, metric):
                by_arm.setdefault(row["arm"], []).append(float(row["value"]))
        return by_arm


def write_rows(folder: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Add rows (seed, arm, split, metric, value) to `results.csv`, which gets its header first."""
    path = folder / RESULTS
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of `results.csv`.

    Raises:
        FileNotFoundError: Before anything was trained.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no '{path.name}' yet: train first")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1, default=dict) + "\n", encoding="utf-8")
