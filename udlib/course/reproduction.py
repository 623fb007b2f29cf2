"""A table of the paper as a piece of work: which trainings it needs, what they cost, and what came of them beside the paper.

Rows become recipes in `udlib.course.paper_recipes`; here they meet the store. A run is stored, half done (a checkpoint), missing, or
damaged; teachers are runs like any other, and come first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from udlib.course.paper_recipes import row_recipe
from udlib.course.paper_tables import Cell, Row, Table
from udlib.course.profiles import ASSUMED, COUNTS, COURSE_BASIS, PAPERS_DATA, PARAMETERS, decoded_bytes, is_full
from udlib.course.store import (
    HOLD_OUT,
    Recipe,
    Run,
    checkpoint_folder,
    fingerprint,
    for_profile,
    labels,
    load,
    model_folder,
    needed,
    profile,
    recipe,
    seconds,
)
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
        """Epochs in all, both halves of a self-distillation."""
        return self.recipe.training.epochs * (2 if self.recipe.method == "self_distillation" else 1)

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

    In the smoke profile they shrink as everything does. Raises ValueError for the course's size in the profile "full", which
    would enlarge it again.
    """
    if size == "course" and profile() == "full":
        raise ValueError("size is 'course' but UDLIB_PROFILE is 'full': unset UDLIB_PROFILE, or choose --size full")
    return {
        row.name: [for_profile(found) for seed in range(seeds) if (found := row_recipe(table, row, data, size, seed))]
        for row in rows
    }


def jobs_of(named: Mapping[str, Sequence[Recipe]]) -> list[Job]:
    """Every training that these recipes need, each once: first the teachers whose networks are not stored, then the rows."""
    serves = {}
    for name, recipes in named.items():
        for chosen in recipes:
            serves.setdefault(chosen, name)
    rows = {chosen: _job(chosen, name) for chosen, name in serves.items()}
    teachers = {}
    for student in [job for job in rows.values() if job.waits]:
        for role, choices in needed(student.recipe).items():
            teacher = for_profile(recipe(**choices))
            if model_folder(teacher) is None:
                teachers.setdefault(teacher, f"{role} of {student.serves}")
    first = [_job(chosen, serves.get(chosen, role), keeps_network=True) for chosen, role in teachers.items()]
    return first + [job for chosen, job in rows.items() if chosen not in teachers]


def _job(chosen: Recipe, serves: str, keeps_network: bool = False) -> Job:
    if not keeps_network:
        try:
            if load(chosen) is not None:
                return Job(chosen, serves, "stored")
        except (ValueError, KeyError, OSError) as error:
            return Job(chosen, serves, "damaged", problem=str(error))
    done = epochs_done(chosen)
    return Job(chosen, serves, "half done" if done else "missing", done, keeps_network=keeps_network)


def epochs_done(chosen: Recipe) -> int:
    """Epochs that a training's checkpoint holds; 0 where there is none, or one that resuming will refuse and name."""
    folder = checkpoint_folder(chosen)
    if folder is None:
        return 0
    done = 0
    for part in (folder / "1", folder / "2") if chosen.method == "self_distillation" else (folder,):
        try:
            done += len(json.loads((part / "state.json").read_bytes())["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return done


def cost(jobs: Sequence[Job], pace: float | None = None) -> Cost:
    """A forecast for the jobs that wait. `pace` is measured over forecast time on this machine; None: nothing is measured."""
    waiting = [job for job in jobs if job.waits]
    left = sum(seconds(job.recipe) * (1 - min(job.epochs_done / job.epochs, 1)) for job in waiting)
    basis = ASSUMED if any(is_full(job.recipe) for job in waiting) else COURSE_BASIS
    if pace is not None:
        basis = f"measured: this table's stored trainings on this machine took {pace:.2g} times the forecast"
    counts = {job.recipe: images_of(job.recipe) for job in waiting}
    results = sum(2 * (val + test) * classes for _, val, test, classes in counts.values())
    networks = sum(4e6 * PARAMETERS[job.recipe.network] for job in waiting if job.keeps_network)
    # a checkpoint holds the weights, the optimiser's memory and the best epoch's weights, and goes when its training ends
    moments = {"adam": ADAM, "sgd": SGD}
    checkpoint = max(
        (4e6 * PARAMETERS[job.recipe.network] * (2 + moments[job.recipe.training.optimizer]) for job in waiting),
        default=0.0,
    )
    memory = max((decoded_bytes(sum(counts[job.recipe][:3]), job.recipe.size) for job in waiting), default=0)
    disk = {"results": float(results), "teachers' networks": networks, "checkpoint of one training": checkpoint}
    return Cost(left * (pace or 1.0), basis, disk, float(memory))


def images_of(chosen: Recipe) -> tuple[int, int, int, int]:
    """Images for training, validation and test, and the number of classes: as published, or else counted."""
    if chosen.data in COUNTS:
        training, test, classes = COUNTS[chosen.data]
        held_out = chosen.data in PAPERS_DATA
        val = -(-training // HOLD_OUT) if held_out else 1000
        found = (training - val if held_out else training, val, test)
    else:
        found = tuple(len(labels(chosen, split).targets) for split in ("train", "val", "test"))
        classes = len(labels(chosen, "val").classes)
    return (*(min(count, chosen.limit or count) for count in found), classes)


def stored_runs(named: Mapping[str, Sequence[Recipe]]) -> dict[str, dict[int, Run]]:
    """The stored runs of each row by seed; damaged ones are left out.

    Raises ValueError where runs that are to be compared were trained on different data under one name.
    """
    found: dict[str, dict[int, Run]] = {name: {} for name in named}
    for name, recipes in named.items():
        for chosen in recipes:
            try:
                run = load(chosen)
            except (ValueError, KeyError, OSError):
                continue
            if run is not None:
                found[name][chosen.training.seed] = run
    require_same_data(run for runs in found.values() for run in runs.values())
    return found


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
            f"'{first.data}' was other data for {first.key} ({one}) than for {where} ({two}): check the root, or "
            "give one of them another name, with --data NAME --root FOLDER"
        )


def compare(table: Table, rows: Sequence[Row], data: str, size: str, seeds: int) -> list[Line]:
    """Each cell of these rows beside what is stored: columns one after the other, rows as printed.

    Differences are to the row's baseline, paired by seed, with a 95 % t interval (none for a single seed).
    """
    against = {row.name: table.baseline(row) for row in rows}
    every = {row.name: row for row in [*rows, *filter(None, against.values())]}
    named = recipes_of(table, list(every.values()), data, size, seeds)
    runs = stored_runs(named)
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
            lines.append(Line(row.name, column, row.cells.get(column), gap, ours, len(named[row.name]), difference))
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
