"""The few files that `udlib gpu` leaves, and what the pages and lessons show of them.

`tests.json` has the outcome of the tests, `throughput-gpu.json` what the benchmark measured, `gpu-photos.json` the metrics,
history and provenance of each training, and `machine.json` where, when and from which commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from udlib.course.gpu_arms import ARMS
from udlib.course.sentences import spread
from udlib.figures.text import as_markdown
from udlib.figures.text import counted as counted_noun
from udlib.files import atomic_write

TESTS, THROUGHPUT, PHOTOS, MACHINE = "tests.json", "throughput-gpu.json", "gpu-photos.json", "machine.json"
SHIPPED = (THROUGHPUT, PHOTOS)  # what `collect` copies
MEGABYTES = 5  # that all of them may take
RIVALS = ("peer", "ours", "bare")
COLUMNS = {
    "mAP": "mAP",
    "mAP_difficult": "mAP, difficult images",
    "ECE": "ECE, class-wise",
    "ECE_pooled": "ECE, pooled",
}
NO_RESULT = (
    "No results from a GPU ship yet.\n"
    "GPU code is tested on a simulated device that checks tensor placement; kernels and speed are untested."
)
NOTE = "Per cent on the test split, mean ± standard deviation over seeds."


def read(path: Path) -> dict[str, Any] | None:
    """Read one of the files; None where there is none.

    Raises:
        ValueError: A damaged file.
    """
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"'{path}' is damaged ({error}): delete it, and `udlib gpu` writes it again") from error


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write one of the files, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(content, indent=1).encode())


def speeds(content: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return images per second of all rivals, without torch.compile and, where it was measured, with it.

    Args:
        content: Of a throughput file; None for none.

    Returns:
        A dictionary for each way of running, with "torch.compile" ("no" or "yes") and a number for each rival.
    """
    figures = [] if content is None else content["figures"].get("throughput", [])
    names = [f"{rival}_images_per_second" for rival in RIVALS]
    whole = [figure["values"] for figure in figures if all(name in figure["values"] for name in names)]
    return [
        {"torch.compile": compiled} | {rival: values[name] for rival, name in zip(RIVALS, names)}
        for compiled, values in zip(("no", "yes"), whole)
    ]


def is_whole(content: Mapping[str, Any] | None) -> bool:
    """Return whether a throughput file has all its figures; those by torch.compile, which come last, may be missing."""
    figures = [] if content is None else content["figures"].get("throughput", [])
    return any(figure["what"].startswith("peak memory") for figure in figures)


def photo_table(content: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of the arms on photographs, head first.

    Only seeds of which every arm is trained are counted, so that all rows have the same.

    Args:
        content: Of a file of trainings.
    """
    runs = content["runs"]
    seeds = [{run["seed"] for run in runs if run["arm"] == arm} for arm in ARMS]
    complete = set.intersection(*seeds)
    rows = [["network", "seeds", *COLUMNS.values()]]
    for arm in ARMS:
        metrics = [run["metrics"]["test"] for run in runs if run["arm"] == arm and run["seed"] in complete]
        if metrics:
            rows.append([arm, str(len(metrics)), *(spread([m[name] for m in metrics]) for name in COLUMNS)])
    return rows


def generated_part(folder: Path) -> str:
    """Return what the README says about results from a GPU: their tables, or that there are none.

    Args:
        folder: Of the results that ship.
    """
    parts = []
    if (throughput := read(folder / THROUGHPUT)) is not None and (rows := speeds(throughput)):
        values = throughput["figures"]["throughput"][0]["values"]
        head = ["images a second", *RIVALS]
        table = [[f"torch.compile: {row['torch.compile']}", *(f"{row[rival]:.0f}" for rival in RIVALS)] for row in rows]
        parts.append(
            f"On one {throughput['provenance']['hardware']}, a training step of UD with its data "
            f"({values['teacher']} → {values['student']}, {values['side']} px):\n\n{as_markdown([head, *table])}"
        )
    if (trainings := read(folder / PHOTOS)) is not None and len(table := photo_table(trainings)) > 1:
        hardware = trainings["machine"]["hardware"]
        parts.append(f"`photos` at 224 px, trained on one {hardware}:\n\n{as_markdown(table)}\n\n{NOTE}")
    return "\n\n".join(parts) or NO_RESULT


def collect(folder: Path, destination: Path) -> list[Path]:
    """Copy results of a GPU to those that ship.

    Args:
        folder: What `udlib gpu` wrote.
        destination: Of the results that ship.

    Returns:
        The new files.

    Raises:
        FileNotFoundError: The folder has no results.
        ValueError: They come from a trial on a CPU, or a file is damaged or not whole.
    """
    contents = {name: read(Path(folder) / name) for name in SHIPPED}
    if not any(contents.values()):
        raise FileNotFoundError(
            f"'{folder}' has neither {' nor '.join(SHIPPED)}: name the folder that `udlib gpu` wrote, gpu-results by default"
        )
    machine = read(Path(folder) / MACHINE) or {}
    if machine.get("smoke") or machine.get("device") != "cuda":
        raise ValueError(f"'{folder}' comes from a trial without a GPU, which proves nothing: run `udlib gpu` on a GPU")
    written = []
    for name, content in contents.items():
        if content is None or name == THROUGHPUT and not is_whole(content):
            continue
        write(destination / name, content)
        written.append(destination / name)
    return written


def of_run(run: Any, arm: str) -> dict[str, Any]:
    """Return what is kept of a training: all its numbers, without logits."""
    return {
        "key": run.recipe.key,
        "arm": arm,
        "seed": run.recipe.training.seed,
        "recipe": {"method": run.recipe.method} | run.recipe.choices(),
        "metrics": run.metrics,
        "history": run.history,
        "provenance": run.provenance,
    }


def counted(runs: Sequence[Mapping[str, Any]]) -> str:
    """Say how many trainings there are, and of how many seeds all arms are trained."""
    whole = set.intersection(*({run["seed"] for run in runs if run["arm"] == arm} for arm in ARMS))
    return f"{len(runs)} trainings; every arm with {counted_noun(len(whole), 'seed')}"
