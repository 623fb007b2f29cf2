"""A table of the paper as a piece of work: the trainings that it needs, their cost, and their results beside the paper's.

Rows become recipes in `udlib.course.paper_recipes`; here they meet the store. A run is stored, half done (a checkpoint),
missing, or damaged; teachers are runs like any other, and come first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from udlib.course.data import HOLD_OUT, fingerprint, labels
from udlib.course.paper_recipes import row_recipe
from udlib.course.paper_tables import Cell, Row, Table
from udlib.course.profiles import (
    ASSUMED,
    COUNTS,
    COURSE_BASIS,
    PAPERS_DATA,
    PARAMETERS,
    decoded_bytes,
    for_profile,
    is_full,
    profile,
    seconds,
)
from udlib.course.runs import Run
from udlib.course.store import checkpoint_folder, has_model, load, needed
from udlib.course.stored_data import require_current
from udlib.methods import method_of
from udlib.methods.base import Recipe
from udlib.statistics import PairedDifference, paired_difference

# Columns of the paper and metrics of the test split here. In precision, recall and F1 a difficult label counts as absent, as
# in the released code; on data without difficult labels that changes nothing.
METRICS = {"mAP": "mAP", "Difficult": "mAP_difficult", "Best": "mAP", "Worst": "mAP"}
OVER_SEEDS = {"Best": max, "Worst": min}
ADAM, SGD = 2, 1  # numbers that the optimiser remembers for each parameter


@dataclass(frozen=True)
class Job:
    """One training of a table: for which row (or whose teacher), whether it is stored, and how many epochs a checkpoint has."""

    recipe: Recipe
    serves: str
    state: str  # "stored", "half done", "missing" or "damaged"
    epochs_done: int = 0
    problem: str = ""  # of a damaged one
    keeps_network: bool = False  # another job needs the trained network

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return method_of(self.recipe.method).cost(self.recipe).epochs

    @property
    def waits(self) -> bool:
        """Whether it is still to be trained, or to be finished."""
        return self.state in ("half done", "missing")


@dataclass(frozen=True)
class Cost:
    """What is left to do will take: seconds of training, bytes on the disk, bytes of memory for decoded images."""

    seconds: float
    basis: str
    disk: dict[str, float]
    memory: float


@dataclass(frozen=True)
class Line:
    """One cell of a table beside ours, in per cent: `ours` has one value per stored seed of the `asked` ones."""

    row: str
    column: str
    paper: Cell | None
    paper_difference: Cell | None  # to the row's baseline; doubtful where either cell is
    ours: tuple[float, ...]
    asked: int  # seeds; 0 for a row that is not trained here at all
    difference: PairedDifference | None


def recipes_of(table: Table, rows: Sequence[Row], data: str, size: str, seeds: int) -> dict[str, list[Recipe]]:
    """The recipes of each row, one per seed, by the row's name; an empty list for rows that nothing here trains.

    In the smoke profile they shrink as everything does.

    Raises:
        ValueError: for the course's size in the profile "full", which would enlarge it again.
    """
    if size == "course" and profile() == "full":
        raise ValueError("size is 'course' but UDLIB_PROFILE is 'full': unset UDLIB_PROFILE, or choose --size full")
    recipes_by_row = {}
    for row in rows:
        recipes = (row_recipe(table, row, data, size, seed) for seed in range(seeds))
        recipes_by_row[row.name] = [for_profile(recipe) for recipe in recipes if recipe]
    return recipes_by_row


def jobs_of(recipes_by_row: Mapping[str, Sequence[Recipe]]) -> list[Job]:
    """Every training that these recipes need, each once: first the teachers whose networks are not stored, then the rows."""
    row_of: dict[Recipe, str] = {}
    for name, recipes in recipes_by_row.items():
        for recipe in recipes:
            row_of.setdefault(recipe, name)
    jobs = {recipe: _job(recipe, name) for recipe, name in row_of.items()}
    teachers: dict[Recipe, str] = {}
    for job in jobs.values():
        if job.waits:
            for role, teacher in needed(job.recipe).items():
                if not has_model(teacher):
                    teachers.setdefault(for_profile(teacher), f"{role} of {job.serves}")
    first = [_job(recipe, row_of.get(recipe, role), keeps_network=True) for recipe, role in teachers.items()]
    return first + [job for recipe, job in jobs.items() if recipe not in teachers]


def _job(recipe: Recipe, serves: str, keeps_network: bool = False) -> Job:
    if not keeps_network:
        try:
            if load(recipe, logits=False) is not None:
                return Job(recipe, serves, "stored")
        except (ValueError, KeyError, OSError) as error:
            return Job(recipe, serves, "damaged", problem=str(error))
    done = epochs_done(recipe)
    return Job(recipe, serves, "half done" if done else "missing", done, keeps_network=keeps_network)


def epochs_done(recipe: Recipe) -> int:
    """Epochs that a training's checkpoints hold; 0 where there is none, or one that resuming will refuse and name."""
    folder = checkpoint_folder(recipe)
    if folder is None:
        return 0
    done = 0
    for path in [
        folder / "state.json",
        *folder.glob("*/state.json"),
    ]:  # a method with several stages has a folder for each
        try:
            done += len(json.loads(path.read_bytes())["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return done


def cost(jobs: Sequence[Job], pace: float | None = None) -> Cost:
    """Forecast what the jobs that wait will take.

    Args:
        jobs: all jobs, stored ones among them.
        pace: measured over forecast time on this machine; None: nothing is measured.
    """
    waiting = [job for job in jobs if job.waits]
    left = sum(seconds(job.recipe) * (1 - min(job.epochs_done / job.epochs, 1)) for job in waiting)
    basis = ASSUMED if any(is_full(job.recipe) for job in waiting) else COURSE_BASIS
    if pace is not None:
        basis = f"measured: this table's stored trainings on this machine took {pace:.2g} times the forecast"
    counts = {job.recipe: images_of(job.recipe) for job in waiting}
    results = sum(2 * (val + test) * classes for _, val, test, classes in counts.values())
    networks = sum(4e6 * PARAMETERS[job.recipe.network] for job in waiting if job.keeps_network)
    # A checkpoint holds the weights, the optimiser's memory and the best epoch's weights, and goes when its training ends.
    moments = {"adam": ADAM, "sgd": SGD}
    checkpoints = (
        4e6 * PARAMETERS[job.recipe.network] * (2 + moments[job.recipe.training.optimizer]) for job in waiting
    )
    memory = max((decoded_bytes(sum(counts[job.recipe][:3]), job.recipe.size) for job in waiting), default=0)
    disk = {
        "results": float(results),
        "teachers' networks": networks,
        "checkpoint of one training": max(checkpoints, default=0.0),
    }
    return Cost(left * (pace or 1.0), basis, disk, float(memory))


def images_of(recipe: Recipe) -> tuple[int, int, int, int]:
    """Images for training, validation and test, and the number of classes: as published, or else counted."""
    if recipe.data in COUNTS:
        training, test, classes = COUNTS[recipe.data]
        held_out = recipe.data in PAPERS_DATA
        val = -(-training // HOLD_OUT) if held_out else 1000
        counts = (training - val if held_out else training, val, test)
    else:
        counts = tuple(len(labels(recipe, split).targets) for split in ("train", "val", "test"))
        classes = len(labels(recipe, "val").classes)
    return (*(min(count, recipe.limit or count) for count in counts), classes)


def stored_runs(recipes_by_row: Mapping[str, Sequence[Recipe]]) -> dict[str, dict[int, Run]]:
    """The stored runs of each row by seed; damaged ones are left out.

    Raises:
        ValueError: where runs that are to be compared were trained on different data under one name, or on data that have
            changed since.
    """
    runs_by_row: dict[str, dict[int, Run]] = {name: {} for name in recipes_by_row}
    for name, recipes in recipes_by_row.items():
        for recipe in recipes:
            try:
                run = load(recipe, logits=False)
            except (ValueError, KeyError, OSError):
                continue
            if run is not None:
                runs_by_row[name][recipe.training.seed] = run
    stored = [run for runs in runs_by_row.values() for run in runs.values()]
    require_same_data(stored)
    require_current(stored)
    return runs_by_row


def require_same_data(runs: Iterable[Run], now: Recipe | None = None) -> None:
    """Refuse runs whose images or labels differ, from each other or from the data set that `now` would train on.

    With `now`, the data set is opened: whatever is wrong with it is raised here.
    """
    prints = {run.provenance["data"]: run.recipe for run in runs if "data" in run.provenance}
    if now is not None:
        prints.setdefault(fingerprint(now), None)
    if len(prints) > 1:
        (one, first), (two, second), *_ = prints.items()
        where = second.key if second else "the folder that it names now"
        raise ValueError(
            f"'{first.data}' was different data for {first.key} ({one}) than for {where} ({two}): check the root, or "
            "give one of them another name, with --data NAME --root FOLDER"
        )


def compare(table: Table, rows: Sequence[Row], data: str, size: str, seeds: int) -> list[Line]:
    """Each cell of these rows beside what is stored: columns one after the other, rows as printed.

    Differences are to the row's baseline, paired by seed, with a 95 % t interval (none for a single seed).
    """
    against = {row.name: table.baseline(row) for row in rows}
    every = {row.name: row for row in [*rows, *filter(None, against.values())]}
    recipes_by_row = recipes_of(table, list(every.values()), data, size, seeds)
    runs = stored_runs(recipes_by_row)
    lines = []
    for column in table.columns:
        for row in rows:
            base = against[row.name]
            own = _values(runs[row.name], column)
            theirs = _values(runs[base.name], column) if base else {}
            pairs = [(own[seed], theirs[seed]) for seed in own if seed in theirs]
            over = OVER_SEEDS.get(column)
            difference = paired_difference(*zip(*pairs)) if pairs and not over else None
            ours = (over(own.values()),) if over and own else tuple(own.values())
            gap = _gap(row.cells.get(column), base.cells.get(column)) if base and not over else None
            lines.append(
                Line(row.name, column, row.cells.get(column), gap, ours, len(recipes_by_row[row.name]), difference)
            )
    return lines


def _values(runs: Mapping[int, Run], column: str) -> dict[int, float]:
    metric = METRICS.get(column, f"{column}_negative")
    return {
        seed: 100 * run.metrics["test"][metric] for seed, run in sorted(runs.items()) if metric in run.metrics["test"]
    }


def _gap(cell: Cell | None, base: Cell | None) -> Cell | None:
    if cell is None or base is None:
        return None
    return Cell(cell.value - base.value, doubts=tuple(dict.fromkeys((*cell.doubts, *base.doubts))))
