"""The study of a report as its last run wrote it: protocol, results and choice, read with care."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from udlib.course.grading.notebook import Cell
from udlib.course.grading.sandbox import Execution
from udlib.course.project import CHOICE, COLUMNS, PROTOCOL, RESULTS, Protocol

SIGNED = r"[+\-−]?\s?\d+(?:\.\d+)?"
FINDING = re.compile(
    rf"(?P<seeds>\d+)\s+seeds[^\[\]]*?:\s*(?P<mean>{SIGNED})\s*(?P<unit>points|nats)?[^\[\]]*\[\s*(?P<low>{SIGNED})\s*,\s*"
    rf"(?P<high>{SIGNED})\s*\]",
    re.IGNORECASE,
)
VERDICT = re.compile(r"verdict:\W*(holds|reversed|not detected)", re.IGNORECASE)
Values = dict[tuple[str, str, str], dict[int, float]]  # by (arm, split, metric), then by seed


class Finding(NamedTuple):
    """The sentence of a report that states its finding; numbers are fractions or nats.

    `places` are the half units of the last digits of mean, low and high: how far rounding may move each.
    """

    cell: int
    seeds: int
    numbers: tuple[float, float, float]
    places: tuple[float, float, float]
    verdict: str


@dataclass(frozen=True)
class Study:
    """What a report's files say; a part that is missing or unusable is None, and `problems` says why."""

    protocol: Protocol | None
    values: Values
    chosen: str | None
    problems: Mapping[str, str]

    def of(self, arm: str, split: str, metric: str) -> dict[int, float]:
        """The values of an arm by seed."""
        return self.values.get((arm, split, metric), {})

    def pairs(self) -> tuple[list[int], list[float], list[float]]:
        """The seeds that both arms have on test, and the metric of the chosen arm and of the other one."""
        if self.protocol is None or self.chosen is None:
            return [], [], []
        ours = self.of(self.chosen, "test", self.protocol.metric)
        theirs = self.of(self.protocol.against, "test", self.protocol.metric)
        seeds = sorted(ours.keys() & theirs.keys())
        return seeds, [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def study_of(execution: Execution) -> Study:
    """Read the study that the run of a report wrote."""
    problems: dict[str, str] = {}
    protocol = _protocol(execution.last(PROTOCOL), problems)
    try:
        values = values_of(execution.last(RESULTS) or "")
    except ValueError as error:
        values, problems[RESULTS] = {}, str(error)
    if not values and RESULTS not in problems:
        problems[RESULTS] = f"the run wrote no {RESULTS}"
    return Study(protocol, values, _chosen(execution.last(CHOICE), protocol, problems), problems)


def _protocol(text: str | None, problems: dict[str, str]) -> Protocol | None:
    if text is None:
        problems[PROTOCOL] = f"the run wrote no {PROTOCOL}"
        return None
    try:
        protocol = Protocol(**json.loads(text))
        [int(seed) for seed in protocol.seeds]
        return protocol
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        problems[PROTOCOL] = f"{PROTOCOL} cannot be used: {str(error).replace('Protocol.__init__() ', '')}"
        return None


def _chosen(text: str | None, protocol: Protocol | None, problems: dict[str, str]) -> str | None:
    if text is None:
        if protocol is not None and len(protocol.candidates) == 1:
            return protocol.candidates[0]
        problems[CHOICE] = f"the run wrote no {CHOICE}"
        return None
    try:
        return str(json.loads(text)["chosen"])
    except (ValueError, TypeError, KeyError, RecursionError):
        problems[CHOICE] = f'{CHOICE} cannot be used: it must hold {{"chosen": "name of an arm"}}'
        return None


def values_of(text: str) -> Values:
    """Read the text of `results.csv`.

    Raises:
        ValueError: It lacks a column, a number is not finite, or a number stands there twice.
    """
    reader = csv.DictReader(io.StringIO(text))
    values: Values = {}
    if text.strip() and (missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]):
        raise ValueError(f"{RESULTS} has no column '{missing[0]}': its columns are {', '.join(COLUMNS)}")
    for number, row in enumerate(reader, 2):
        try:
            seed, value = int(row["seed"]), float(row["value"])
        except (TypeError, ValueError):
            raise ValueError(f"{RESULTS}, line {number}: seed or value is no number") from None
        if not math.isfinite(value):
            continue  # a metric that a split does not have
        of_arm = values.setdefault((str(row["arm"]), str(row["split"]), str(row["metric"])), {})
        if of_arm.get(seed, value) != value:
            raise ValueError(
                f"{RESULTS}, line {number}: seed {seed} of '{row['arm']}' has two different values of {row['metric']} "
                f"on {row['split']}: delete the file before you train again"
            )
        of_arm[seed] = value
    return values


def finding_of(cells: Sequence[Cell]) -> Finding | None:
    """Find the sentence that states the finding: in a cell of text tagged `finding`, or else in any; the last one counts."""
    texts = [cell for cell in cells if cell.kind == "markdown"]
    tagged = [cell for cell in texts if "finding" in cell.tags]
    for cell in reversed(tagged or texts):
        plain = cell.source.replace("*", "").replace("\n", " ")
        if match := FINDING.search(plain):
            verdict = VERDICT.search(plain)
            words = match["mean"], match["low"], match["high"]
            factor = 0.01 if (match["unit"] or "").lower() == "points" else 1.0
            return Finding(
                cell.number,
                int(match["seeds"]),
                _three(factor * _number(word) for word in words),
                _three(factor * 0.5 * 10.0 ** -len(word.partition(".")[2]) for word in words),
                verdict[1].lower() if verdict else "",
            )
    return None


def _number(word: str) -> float:
    return float(word.replace("−", "-").replace(" ", ""))


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
