"""Explorers over trained runs: λ or the teacher, and the seed, with calibration and accuracy beside a curve."""

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

NOTE = "Test images; difficult labels count as present. Intervals: 95 %, over resampled images."
NLL = "NLL, nats"


class LambdaExplorer(Explorer):
    """λ and the seed under two sliders: calibration and accuracy of the run that was trained with them.

    The run of the smallest λ is drawn beside the selected one, for comparison. A λ that was not trained has no
    position, and is refused.

    Args:
        runs: `runs[λ]` lists the runs of that λ, the same seeds in the same order for each.
        start: First value of some sliders, by name.
        samples: Number of bootstrap samples of test images behind each interval.
        warm: Whether to draw all frames now, so that every move is instant.

    Raises:
        ValueError: Unless all values of λ have the same seeds.
    """

    origin = "trained"

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
            note=f"Networks were trained only at these λ. {NOTE}",
        )

    def measure(self, lam: float, seed: int) -> dict[str, Interval]:
        """Return the readings as fractions; `low` and `high` are NaN where a reading has no interval."""
        return measure_run(self.runs[lam][seed], self.samples)

    def frame(self, lam: float, seed: int) -> Frame:
        """Return the picture, the readings and the table of one run."""
        least = min(self.runs)
        return _compared(
            {f"λ = {value:g}": self.runs[value][seed] for value in dict.fromkeys((least, lam))},
            f"trained at λ = {lam:g}, seed {seed}",
            f"λ = {lam:g}, seed {seed}",
            self.measure(lam, seed),
        )


class TeacherExplorer(Explorer):
    """Teacher, temperature and seed under three sliders: the student that was trained with them, beside the baseline.

    A temperature that was not trained has no position, and is refused.

    Args:
        runs: `runs[teacher, T]` lists the students of that teacher at that temperature; every teacher has every T.
        baseline: The runs on hard labels. All lists have the same seeds in the same order.
        start: First value of some sliders, by name.
        samples: Number of bootstrap samples of test images behind each interval.
        warm: Whether to draw all frames now, so that every move is instant.

    Raises:
        ValueError: Unless all settings have the same seeds, and every teacher every temperature.
    """

    origin = "trained"

    def __init__(
        self,
        runs: Mapping[tuple[str, float], Sequence[Run]],
        baseline: Sequence[Run],
        start: Mapping[str, Hashable] | None = None,
        samples: int = 100,
        warm: bool = True,
    ):
        runs_by_seed = _by_seed({**runs, "baseline": baseline}, "teacher and T, and for the baseline")
        self.baseline, self.runs, self.samples = runs_by_seed.pop("baseline"), runs_by_seed, samples
        teachers, temperatures = (
            list(dict.fromkeys(teacher for teacher, _ in runs_by_seed)),
            sorted({T for _, T in runs_by_seed}),
        )
        missing = [
            f"{teacher} at T = {T:g}" for teacher in teachers for T in temperatures if (teacher, T) not in runs_by_seed
        ]
        if missing or not runs_by_seed:
            raise ValueError(
                f"there are no runs of {', '.join(missing) or 'any teacher'}: expected every teacher at every T"
            )
        super().__init__(
            {"teacher": teachers, "T": temperatures, "seed": list(self.baseline)},
            self.frame,
            start=start,
            warm=warm,
            note=f"Students were trained only at these temperatures. {NOTE}",
        )

    def measure(self, teacher: str, T: float, seed: int) -> dict[str, Interval]:
        """Return the readings as fractions, the NLL in nats; `low` and `high` are NaN without an interval."""
        run = self.runs[teacher, T][seed]
        return measure_run(run, self.samples) | {
            NLL: Interval(run.metrics["test"].get("NLL", math.nan), math.nan, math.nan)
        }

    def frame(self, teacher: str, T: float, seed: int) -> Frame:
        """Return the picture, the readings and the table of one student."""
        setting = f"taught by {teacher} at T = {T:g}, seed {seed}"
        return _compared(
            {"baseline": self.baseline[seed], "student": self.runs[teacher, T][seed]},
            setting,
            setting,
            self.measure(teacher, T, seed),
        )


def measure_run(run: Run, samples: int) -> dict[str, Interval]:
    """Return what an explorer reads off a run, as fractions, with bootstrap intervals.

    Args:
        run: The run; its logits must be stored.
        samples: Number of sets of test images to draw for the intervals.

    Returns:
        Each reading by name; `low` and `high` are NaN where it has no interval.
    """
    p, labels = run.probabilities(), run.labels()
    metrics = run.metrics["test"]
    readings = {
        name: Interval(metrics.get(key, math.nan), math.nan, math.nan)
        for name, key in (("mAP", "mAP"), ("mAP, Difficult", "mAP_difficult"))
    }
    variants = {
        "ECE, class-wise": (expected_calibration_error, labels.targets, {}),
        "ECE, pooled": (expected_calibration_error, labels.targets, {"average": "pooled"}),
        "ECE, p ≥ 0.5": (confident_calibration_error, labels.targets, {"average": "pooled"}),
    }
    if not (p >= 0.5).any():  # a network that never says yes has no confident answers to measure
        del variants["ECE, p ≥ 0.5"]
    if labels.posterior is not None:
        variants["true error, pooled"] = (true_calibration_error, labels.posterior, {"average": "pooled"})
    for name, (error, against, options) in variants.items():
        readings[name] = calibration_interval(error, p, against, samples=samples, **options)
    noise = calibration_noise(p, samples=10)
    return readings | {"ECE, class-wise, if perfect": Interval(noise, math.nan, math.nan)}


def _by_seed(runs: Mapping[Hashable, Sequence[Run]], each: str) -> dict[Hashable, dict[int, Run]]:
    """The runs of every setting by their seed; ValueError unless all settings have the same seeds."""
    by_seed = {
        setting: {run.recipe.training.seed: run for run in runs_of_setting} for setting, runs_of_setting in runs.items()
    }
    seeds = list(next(iter(by_seed.values()), {}))
    if not seeds or any(list(runs_of_setting) != seeds for runs_of_setting in by_seed.values()):
        seeds_by_setting = {setting: list(runs_of_setting) for setting, runs_of_setting in by_seed.items()}
        raise ValueError(
            f"the runs have the seeds {seeds_by_setting}: expected the same ones for every {each}, and at least one"
        )
    return by_seed


def _compared(runs: Mapping[str, Run], title: str, setting: str, measurements: Mapping[str, Interval]) -> Frame:
    """The last of these runs as a frame, drawn beside the others, with readings and a table of the classes."""
    run = list(runs.values())[-1]
    targets = run.labels().targets
    curves = {name: reliability_curve(each.probabilities(), targets, average="pooled") for name, each in runs.items()}
    readings = {
        name: _in_nats(reading) if name == NLL else _in_percent(reading) for name, reading in measurements.items()
    }
    readings_in_words = ", ".join(f"{name} {value}" for name, value in readings.items())
    return Frame(plots.reliability(curves, title), f"{setting}: {readings_in_words}", readings, _classes(run))


def _classes(run: Run) -> list[list[str]]:
    """Rows of a table, head first: accuracy and calibration of each class."""
    p, labels = run.probabilities(), run.labels()
    precision = average_precision(p, labels.targets, labels.difficult)
    errors = (expected_calibration_error(p[:, [k]], labels.targets[:, [k]]) for k in range(p.shape[1]))
    excess = p.mean(0) - labels.targets.double().mean(0)
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
            for name, count, ap, error, over in zip(labels.classes, labels.targets.sum(0), precision, errors, excess)
        ],
    ]


def _in_nats(reading: Interval) -> str:
    """A reading in nats, or a dash where nothing was measured."""
    return "–" if math.isnan(reading.estimate) else f"{reading.estimate:.4f}"


def _in_percent(reading: Interval) -> str:
    """A reading with its interval in per cent, or a dash where nothing was measured."""
    if math.isnan(reading.estimate):
        return "–"
    ends = "" if math.isnan(reading.low) else f" [{100 * reading.low:.1f}, {100 * reading.high:.1f}]"
    return f"{100 * reading.estimate:.1f}{ends} %"
