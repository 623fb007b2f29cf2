"""Explorers: a slider over values that exist, a picture that is already drawn, and numbers in HTML beside it.

Model (`frame`: a value in, a `Frame` out), figure (`udlib.plots`) and view (`Explorer`) are apart, so that each can be
tested alone. A value that was never computed is never shown: the sliders have no positions between the given values.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import ipywidgets
import torch
from matplotlib.figure import Figure
from torch import Tensor

from udlib import overlays, plots
from udlib.attention import class_attention, energy_inside, uncertainty_attention
from udlib.calibration import calibration_interval, calibration_noise, confident_calibration_error
from udlib.calibration import expected_calibration_error, reliability_curve, true_calibration_error
from udlib.datasets.base import MultiLabelDataset, to_memory
from udlib.datasets.transforms import normalise
from udlib.experiments import Run
from udlib.heads import DualBranchNet
from udlib.localisation import box_mask
from udlib.losses import softmax_kl
from udlib.metrics import average_precision
from udlib.plots import png
from udlib.statistics import Interval

NOTE = "Test images; difficult labels count as marked. Intervals: 95 %, over resampled images."
NLL = "NLL, nats"


class Frame(NamedTuple):
    """What an explorer shows for one setting: a figure, its description in words, and a table of named readings."""

    figure: Figure
    alt: str
    readings: Mapping[str, str]
    table: Sequence[Sequence[str]] = ()  # rows, head first, to stand below the picture


class Explorer(ipywidgets.VBox):
    """Sliders above a picture and its readings.

    `controls` maps a name to its values, each with a slider; `frame(*values)` computes what is shown and is called once
    per setting (`warm` computes all of them now, so that every move is instant). An error in `frame` is shown in place
    of the picture, with its message, and leaves the sliders working.
    """

    made = "computed"  # what a value without a position was not

    def __init__(self, controls: Mapping[str, Sequence[Hashable]], frame: Callable[..., Frame], note: str = "",
                 start: Mapping[str, Hashable] | None = None, warm: bool = False):
        for name, values in controls.items():
            if not len(values):
                raise ValueError(f"control '{name}' has no values: give at least one")
        chosen = {name: (start or {}).get(name, values[0]) for name, values in controls.items()}
        for name, value in chosen.items():
            self._require(name, value, controls[name])
        self._render = cache(lambda *values: _rendered(frame(*values)))
        self.sliders = {name: ipywidgets.SelectionSlider(
            options=list(values), value=chosen[name], description=name, continuous_update=True,
            style={"description_width": "initial"}, layout=ipywidgets.Layout(width="480px"))
            for name, values in controls.items()}
        # flex-start: a box stretches its children to its own width, and a stretched picture is blurred
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", align_self="flex-start"))
        self.readout = ipywidgets.HTML()
        self.table = ipywidgets.HTML()
        self.message = ipywidgets.HTML(f"<small>{html.escape(note)}</small>" if note else "")
        super().__init__([*self.sliders.values(), self.readout, self.picture, self.table, self.message])
        for slider in self.sliders.values():
            slider.observe(lambda _: self._show(), names="value")
        if warm:
            self._warm([()], list(controls.values()))
        self._show()

    def _warm(self, settings: list[tuple], remaining: list[Sequence]) -> None:
        if remaining:
            return self._warm([(*s, value) for s in settings for value in remaining[0]], remaining[1:])
        for setting in settings:
            self._render(*setting)

    @property
    def value(self) -> tuple:
        """The present setting, one value per slider."""
        return tuple(slider.value for slider in self.sliders.values())

    def move(self, **values: Hashable) -> None:
        """Set sliders by name, as a hand would; raises ValueError for a name or a value that has no position."""
        for name, value in values.items():
            if name not in self.sliders:
                raise ValueError(f"there is no slider '{name}': this explorer has {', '.join(self.sliders)}")
            self._require(name, value, self.sliders[name].options)
            self.sliders[name].value = value

    def _require(self, name: str, value: Hashable, values: Sequence[Hashable]) -> None:
        if value not in values:
            raise ValueError(f"{name} = {value} was not {self.made}: choose one of {', '.join(map(str, values))}")

    def _show(self) -> None:
        try:
            picture, readout, table = self._render(*self.value)
        except Exception as error:  # a callback's exception would otherwise be lost in the server's log
            where = ", ".join(f"{name} = {slider.value}" for name, slider in self.sliders.items())
            self.readout.value = (f"<pre style='color:#b00'>{html.escape(where)}: {type(error).__name__}: "
                                  f"{html.escape(str(error))}</pre>")
            return
        self.picture.value = picture
        self.readout.value = readout
        self.table.value = table


class LambdaExplorer(Explorer):
    """λ and the seed under two sliders: calibration and accuracy of the run that was trained with them.

    `runs[λ]` lists that λ's runs, the same seeds in the same order for each; the smallest λ is drawn beside the chosen
    one, for comparison. All pictures are drawn at once (`warm`), so every move is instant. `samples` is the number of
    bootstrap samples of test images behind each interval. A λ that was not trained has no position and is refused.
    """

    made = "trained"

    def __init__(self, runs: Mapping[float, Sequence[Run]], start: Mapping[str, Hashable] | None = None,
                 samples: int = 100, warm: bool = True):
        self.runs, self.samples = _by_seed(runs, "λ"), samples
        super().__init__({"λ": sorted(self.runs), "seed": list(next(iter(self.runs.values())))}, self.frame, start=start,
                         warm=warm, note=f"Trained at these λ and nowhere between. {NOTE}")

    def measure(self, lam: float, seed: int) -> dict[str, Interval]:
        """The readings as fractions; `low` and `high` are NaN where a reading has no interval."""
        return measured(self.runs[lam][seed], self.samples)

    def frame(self, lam: float, seed: int) -> Frame:
        """The picture, the readings and the table of one run."""
        least = min(self.runs)
        return _compared({f"λ = {value:g}": self.runs[value][seed] for value in dict.fromkeys((least, lam))},
                         f"trained at λ = {lam:g}, seed {seed}", f"λ = {lam:g}, seed {seed}", self.measure(lam, seed))


class TeacherExplorer(Explorer):
    """Teacher, temperature and seed under three sliders: the student that was trained with them, beside the baseline.

    `runs[(teacher, T)]` lists the students of that teacher at that temperature, `baseline` the runs on hard labels; all have
    the same seeds in the same order, and every teacher has every T. All pictures are drawn at once (`warm`), so every move
    is instant. `samples` is that of `LambdaExplorer`. A temperature that was not trained has no position and is refused.
    """

    made = "trained"

    def __init__(self, runs: Mapping[tuple[str, float], Sequence[Run]], baseline: Sequence[Run],
                 start: Mapping[str, Hashable] | None = None, samples: int = 100, warm: bool = True):
        named = _by_seed({**runs, "baseline": baseline}, "teacher and T, and for the baseline")
        self.baseline, self.runs, self.samples = named.pop("baseline"), named, samples
        teachers, temperatures = list(dict.fromkeys(teacher for teacher, _ in named)), sorted({T for _, T in named})
        missing = [f"{teacher} at T = {T:g}" for teacher in teachers for T in temperatures if (teacher, T) not in named]
        if missing or not named:
            raise ValueError(f"there are no runs of {', '.join(missing) or 'any teacher'}: expected every teacher at every T")
        super().__init__({"teacher": teachers, "T": temperatures, "seed": list(self.baseline)}, self.frame, start=start,
                         warm=warm, note=f"Students trained at these temperatures and nowhere between. {NOTE}")

    def measure(self, teacher: str, T: float, seed: int) -> dict[str, Interval]:
        """The readings as fractions, the NLL in nats; `low` and `high` are NaN where a reading has no interval."""
        run = self.runs[teacher, T][seed]
        return measured(run, self.samples) | {NLL: Interval(run.metrics["test"].get("NLL", math.nan), math.nan, math.nan)}

    def frame(self, teacher: str, T: float, seed: int) -> Frame:
        """The picture, the readings and the table of one student."""
        setting = f"taught by {teacher} at T = {T:g}, seed {seed}"
        return _compared({"baseline": self.baseline[seed], "student": self.runs[teacher, T][seed]}, setting, setting,
                         self.measure(teacher, T, seed))


def measured(run: Run, samples: int) -> dict[str, Interval]:
    """What an explorer reads off a run, as fractions, with bootstrap intervals of `samples` sets of test images.

    `low` and `high` are NaN where a reading has no interval.
    """
    p, found = run.probabilities(), run.labels()
    known = run.metrics["test"]
    readings = {name: Interval(known.get(key, math.nan), math.nan, math.nan)
                for name, key in (("mAP", "mAP"), ("mAP, Difficult", "mAP_difficult"))}
    variants = {"ECE, class-wise": (expected_calibration_error, found.targets, {}),
                "ECE, pooled": (expected_calibration_error, found.targets, {"average": "pooled"}),
                "ECE, p ≥ 0.5": (confident_calibration_error, found.targets, {"average": "pooled"})}
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
        raise ValueError(f"the runs have the seeds { {setting: list(found) for setting, found in named.items()} }: "
                         f"expected the same ones for every {each}, and at least one")
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
    return [["class", "positives", "AP, %", "ECE, %", "mean p − share, points"],
            *[[name, str(int(count)), "–" if ap.isnan() else f"{100 * ap:.1f}", f"{100 * error:.1f}", f"{100 * over:+.1f}"]
              for name, count, ap, error, over in zip(found.classes, found.targets.sum(0), precision, errors, excess)]]


def _in_nats(reading: Interval) -> str:
    return "–" if math.isnan(reading.estimate) else f"{reading.estimate:.4f}"


class AttentionExplorer(Explorer):
    """Picture, network and map under three sliders: where a network looks, and what its two heads say.

    `models` are trained networks by name; `rows` says which pictures of `dataset` to offer; the networks see them as
    squares of `size` pixels. `MAPS`: uncertainty attention (a network without calibration branch has none), and the class
    attention, without ReLU, of the most probable class and of the least certain one (p nearest ½). Each network looks at
    all pictures once, at the start; a frame is drawn when it is first looked at, and kept. `warm` draws all of them now.
    """

    made = "loaded"
    MAPS = ("uncertainty", "most probable class", "least certain class")

    def __init__(self, models: Mapping[str, DualBranchNet], dataset: MultiLabelDataset, rows: Sequence[int], size: int = 64,
                 start: Mapping[str, Hashable] | None = None, warm: bool = False):
        self.models, self.dataset, self.rows, self.size = dict(models), dataset, list(rows), size
        if not self.models or not self.rows:
            raise ValueError(f"{len(self.models)} networks and {len(self.rows)} pictures: give at least one of each")
        images = normalise(to_memory(dataset.subset(self.rows), size))
        with torch.inference_mode():
            self.seen = {name: model.eval()(images) for name, model in self.models.items()}
        super().__init__({"picture": self.rows, "network": list(self.models), "map": list(self.MAPS)}, self.frame,
                         start=start, warm=warm, note="Dashed boxes: difficult objects. Each map has its own scale; solid lines "
                         "hold its most positive part, dashed lines its most negative.")

    def look(self, picture: int, network: str, kind: str) -> tuple[Tensor | None, str]:
        """The chosen map (h, w), or None where there is none, and in words what it is a map of."""
        k, model, seen = self.rows.index(picture), self.models[network], self.seen[network]
        features = seen.features[k:k + 1]
        if kind == "uncertainty":
            if seen.calibration_logits is None:
                return None, "no calibration branch"
            return uncertainty_attention(model.head, features, model.pooling)[0], "uncertainty attention"
        p = torch.sigmoid(seen.logits[k])
        chosen = int(p.argmax() if kind == "most probable class" else (p - 0.5).abs().argmin())
        return (class_attention(model.head, features, chosen, model.pooling, relu=False)[0],
                f"{self.dataset.classes[chosen]}, p = {p[chosen]:.2f}")

    def measure(self, picture: int, network: str, kind: str) -> dict[str, str]:
        """The heads' divergence; of the map's positive and negative part the share on objects, and that of the picture."""
        k, seen, heat = self.rows.index(picture), self.seen[network], self.look(picture, network, kind)[0]
        divergence = "–" if seen.calibration_logits is None else \
            f"{softmax_kl(seen.calibration_logits[k:k + 1], seen.logits[k:k + 1]):.3f} nats"
        readings = {"KL of the heads": divergence}
        for group, hard in (("easy", False), ("difficult", True)):
            boxes = [box for box in self.dataset.boxes(picture) if box.difficult == hard]
            mask = box_mask(boxes, self.dataset.image_size(picture), self.size)[None]
            shares = ["–", "–"] if heat is None else [_share(energy_inside(sign * heat[None], mask)) for sign in (1, -1)]
            readings[f"on {group} objects"] = f"+ {shares[0]}, − {shares[1]}, picture {_share(mask.double().mean())}" \
                if boxes else "none here"
        return readings

    def frame(self, picture: int, network: str, kind: str) -> Frame:
        """The picture with its boxes, the map over it, the bars of both heads for the six highest classes, and the readings."""
        seen, (heat, what) = self.seen[network], self.look(picture, network, kind)
        k = self.rows.index(picture)
        heads = {"sigmoid": torch.sigmoid(seen.logits[k]), "softmax": seen.logits[k].softmax(0)}
        if seen.calibration_logits is not None:
            heads["calibration branch's softmax"] = seen.calibration_logits[k].softmax(0)
        top = torch.stack(list(heads.values())).amax(0).argsort(descending=True)[:6].tolist()
        labels, hard = self.dataset.targets[picture], self.dataset.difficult[picture]
        marks = [" (difficult)" if hard[c] else " (labelled)" if labels[c] else "" for c in top]
        readings = self.measure(picture, network, kind)
        said = ", ".join(f"{name} {value}" for name, value in readings.items())
        return Frame(overlays.attention(self.dataset.image(picture), heat,
                                        [self.dataset.classes[c] + mark for c, mark in zip(top, marks)],
                                        {name: p[top].tolist() for name, p in heads.items()}, what,
                                        self.dataset.boxes(picture)),
                     f"picture {picture}, {network}, {what}: {said}", readings)


def _share(value: Tensor) -> str:
    return "–" if value.isnan().any() else f"{100 * float(value):.0f} %"


def _in_percent(reading: Interval) -> str:
    if math.isnan(reading.estimate):
        return "–"
    ends = "" if math.isnan(reading.low) else f" [{100 * reading.low:.1f}, {100 * reading.high:.1f}]"
    return f"{100 * reading.estimate:.1f}{ends} %"


def _rendered(frame: Frame) -> tuple[bytes, str, str]:
    cells = "".join(f"<td style='padding:2px 14px 2px 0'>{html.escape(name)}<br><b>{html.escape(value)}</b></td>"
                    for name, value in frame.readings.items())
    return png(frame.figure), (f"<table role='status' aria-label='{html.escape(frame.alt, quote=True)}'>"
                               f"<tr>{cells}</tr></table>"), _table(frame.table)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as an HTML table, head first: the first column to the left, numbers to the right."""
    if not rows:
        return ""
    def line(cells: Sequence[str], tag: str) -> str:
        align = ["left"] + ["right"] * (len(cells) - 1)
        return "<tr>" + "".join(f"<{tag} style='text-align:{side};padding:0 12px 0 0'>{html.escape(str(cell))}</{tag}>"
                                for cell, side in zip(cells, align)) + "</tr>"
    return f"<table>{line(rows[0], 'th')}{''.join(line(row, 'td') for row in rows[1:])}</table>"

