"""Explorers over trained runs: λ and the seed, or the teacher and the seed, with calibration and accuracy beside the curve."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from udlib.calibration import (
    calibration_interval,
    calibration_noise,
    confident_calibration_error,
    expected_calibration_error,
    reliability_curve,
    true_calibration_error,
)
from udlib.course.explorers.base import Explorer, Frame
from udlib.course.runs import Run
from udlib.figures import plots
from udlib.metrics import average_precision
from udlib.statistics import Interval

NOTE = "Test images; difficult labels count as marked. Intervals: 95 %, over resampled images."
NLL = "NLL, nats"


class LambdaExplorer(Explorer):
    """λ and the seed under two sliders: calibration and accuracy of the run that was trained with them.

    `runs[λ]` lists that λ's runs, the same seeds in the same order for each; the smallest λ is drawn beside the chosen
    one, for comparison. All pictures are drawn at once (`warm`), so every move is instant. `samples` is the number of
    bootstrap samples of test images behind each interval. A λ that was not trained has no position and is refused.
    """

    made = "trained"

    def __init__(
        self,
        runs: Mapping[float, Sequence[Run]],
        start: Mapping[str, Hashable] | None = None,
        samples: int = 100,
        warm: bool = True,
    ):
        self.runs, self.samples = _by_seed(runs, "λ"), samples
        super().__init__(
            {"λ": sorted(self.runs), "seed": list(next(iter(self.runs.values())))},
            self.frame,
            start=start,
            warm=warm,
            note=f"Trained at these λ and nowhere between. {NOTE}",
        )

    def measure(self, lam: float, seed: int) -> dict[str, Interval]:
        """The readings as fractions; `low` and `high` are NaN where a reading has no interval."""
        return measured(self.runs[lam][seed], self.samples)

    def frame(self, lam: float, seed: int) -> Frame:
        """The picture, the readings and the table of one run."""
        least = min(self.runs)
        return _compared(
            {f"λ = {value:g}": self.runs[value][seed] for value in dict.fromkeys((least, lam))},
            f"trained at λ = {lam:g}, seed {seed}",
            f"λ = {lam:g}, seed {seed}",
            self.measure(lam, seed),
        )


class TeacherExplorer(Explorer):
    """Teacher, temperature and seed under three sliders: the student that was trained with them, beside the baseline.

    `runs[(teacher, T)]` lists the students of that teacher at that temperature, `baseline` the runs on hard labels; all have
    the same seeds in the same order, and every teacher has every T. All pictures are drawn at once (`warm`), so every move
    is instant. `samples` is that of `LambdaExplorer`. A temperature that was not trained has no position and is refused.
    """

    made = "trained"

    def __init__(
        self,
        runs: Mapping[tuple[str, float], Sequence[Run]],
        baseline: Sequence[Run],
        start: Mapping[str, Hashable] | None = None,
        samples: int = 100,
        warm: bool = True,
    ):
        named = _by_seed({**runs, "baseline": baseline}, "teacher and T, and for the baseline")
        self.baseline, self.runs, self.samples = named.pop("baseline"), named, samples
        teachers, temperatures = list(dict.fromkeys(teacher for teacher, _ in named)), sorted({T for _, T in named})
        missing = [f"{teacher} at T = {T:g}" for teacher in teachers for T in temperatures if (teacher, T) not in named]
        if missing or not named:
            raise ValueError(
                f"there are no runs of {', '.join(missing) or 'any teacher'}: expected every teacher at every T"
            )
        super().__init__(
            {"teacher": teachers, "T": temperatures, "seed": list(self.baseline)},
            self.frame,
            start=start,
            warm=warm,
            note=f"Students trained at these temperatures and nowhere between. {NOTE}",
        )

    def measure(self, teacher: str, T: float, seed: int) -> dict[str, Interval]:
        """The readings as fractions, the NLL in nats; `low` and `high` are NaN where a reading has no interval."""
        run = self.runs[teacher, T][seed]
        return measured(run, self.samples) | {
            NLL: Interval(run.metrics["test"].get("NLL", math.nan), math.nan, math.nan)
        }

    def frame(self, teacher: str, T: float, seed: int) -> Frame:
        """The picture, the readings and the table of one student."""
        setting = f"taught by {teacher} at T = {T:g}, seed {seed}"
        return _compared(
            {"baseline": self.baseline[seed], "student": self.runs[teacher, T][seed]},
            setting,
            setting,
            self.measure(teacher, T, seed),
        )


def measured(run: Run, samples: int) -> dict[str, Interval]:
    """What an explorer reads off a run, as fractions, with bootstrap intervals of `samples` sets of test images.

    `low` and `high` are NaN where a reading has no interval.
    """
    p, found = run.probabilities(), run.labels()
    known = run.metrics["test"]
    readings = {
        name: Interval(known.get(key, math.nan), math.nan, math.nan)
        for name, key in (("mAP", "mAP"), ("mAP, Difficult", "mAP_difficult"))
    }
    variants = {
        "ECE, class-wise": (expected_calibration_error, found.targets, {}),
        "ECE, pooled": (expected_calibration_error, found.targets, {"average": "pooled"}),
        "ECE, p ≥ 0.5": (confident_calibration_error, found.targets, {"average": "pooled"}),
    }
    if not (p >= 0.5).any():  # a network that never says yes has no confident answers to measure
        del variants["ECE, p ≥ 0.5"]
    if found.posterior is not None:
        variants["true error, pooled"] = (true_calibration_error, found.posterior, {"average": "pooled"})
    for name, (error, against, options) in variants.items():
        readings[name] = calibration_interval(error, p, against, samples=samples, **options)
    noise = calibration_noise(p, samples=10)
    return readings | {"ECE, class-wise, if perfect": Interval(noise, math.nan, math.nan)}


def _by_seed(runs: Mapping[Hashable, Sequence[Run]], each: str) -> dict[Hashable, dict[int, Run]]:
    """The runs of every setting by their seed; ValueError unless all settings have the same seeds."""
    named = {setting: {run.recipe.training.seed: run for run in found} for setting, found in runs.items()}
    seeds = list(next(iter(named.values()), {}))
    if not seeds or any(list(found) != seeds for found in named.values()):
        raise ValueError(
            f"the runs have the seeds { {setting: list(found) for setting, found in named.items()} }: "
            f"expected the same ones for every {each}, and at least one"
        )
    return named


def _compared(runs: Mapping[str, Run], title: str, setting: str, measured: Mapping[str, Interval]) -> Frame:
    """The last of these runs as a frame, drawn beside the others: reliability curves, readings, a table of the classes."""
    run = list(runs.values())[-1]
    targets = run.labels().targets
    curves = {name: reliability_curve(each.probabilities(), targets, average="pooled") for name, each in runs.items()}
    readings = {name: _in_nats(reading) if name == NLL else _in_percent(reading) for name, reading in measured.items()}
    said = ", ".join(f"{name} {value}" for name, value in readings.items())
    return Frame(plots.reliability(curves, title), f"{setting}: {said}", readings, _classes(run))


def _classes(run: Run) -> list[list[str]]:
    p, found = run.probabilities(), run.labels()
    precision = average_precision(p, found.targets, found.difficult)
    errors = (expected_calibration_error(p[:, [k]], found.targets[:, [k]]) for k in range(p.shape[1]))
    excess = p.mean(0) - found.targets.double().mean(0)
    return [
        ["class", "positives", "AP, %", "ECE, %", "mean p − share, points"],
        *[
            [
                name,
                str(int(count)),
                "–" if ap.isnan() else f"{100 * ap:.1f}",
                f"{100 * error:.1f}",
                f"{100 * over:+.1f}",
            ]
            for name, count, ap, error, over in zip(found.classes, found.targets.sum(0), precision, errors, excess)
        ],
    ]


def _in_nats(reading: Interval) -> str:
    return "–" if math.isnan(reading.estimate) else f"{reading.estimate:.4f}"


def _in_percent(reading: Interval) -> str:
    if math.isnan(reading.estimate):
        return "–"
    ends = "" if math.isnan(reading.low) else f" [{100 * reading.low:.1f}, {100 * reading.high:.1f}]"
    return f"{100 * reading.estimate:.1f}{ends} %"
