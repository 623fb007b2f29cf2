"""Trainings one after the other or side by side: what `udlib runs` and `udlib reproduce` share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from udlib.course.runs import Run
    from udlib.methods.base import Recipe


def train_all(waiting: Mapping[Recipe, str], pace: float, again: str, networks: Collection[Recipe] = ()) -> int:
    """Train and store recipes, each with its group's name, one after the other; returns how many failed.

    `again` is the command that goes on after Ctrl-C, and `networks` are the recipes whose network is to be kept in any case.
    """
    import torch

    from udlib.course.profiles import for_profile

    left, spent, expected, failed = list(waiting), 0.0, 0.0, 0
    for number, (original, group) in enumerate(waiting.items(), 1):
        recipe = for_profile(original)
        rest = duration(forecast(left, pace))
        print(f"[{number} of {len(waiting)}] {group}: {recipe}; all that is left takes {rest}", flush=True)
        start = time.perf_counter()
        try:
            _train(recipe, original in networks)
        except KeyboardInterrupt:
            print(
                f"\nstopped: {number - 1} of {len(waiting)} are trained and stored. `{again}` goes on from here, "
                "this training from its last checkpoint.",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None
        except (FloatingPointError, torch.OutOfMemoryError) as error:
            full = isinstance(error, torch.OutOfMemoryError)
            batch = recipe.training.batch_size
            reason = f"batches of {batch} do not fit into the GPU's free memory" if full else error
            print(f"failed: {recipe.key}: {reason}", file=sys.stderr)
            failed += 1
        spent, expected = spent + time.perf_counter() - start, expected + forecast([original])
        pace = spent / expected
        left.remove(original)
    return failed


def cores() -> int:
    """How many trainings fit side by side: one per core, or one where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def train_side_by_side(waiting: Mapping[Recipe, str], jobs: int, command: list[str]) -> int:
    """Train each recipe in its own process; `command`, words after `udlib`, trains one when its key is added."""
    return side_by_side(waiting, jobs, lambda recipe: [*command, recipe.key], next_free)


def first_of(left: Sequence[Any], running: Iterable[Any]) -> Any:
    """The first that is left, whatever runs."""
    return left[0] if left else None


def side_by_side(
    waiting: Collection[Any],
    jobs: int,
    words: Callable[[Any], list[str]],
    choose: Callable[[Sequence[Any], Iterable[Any]], Any] = first_of,
) -> int:
    """Run a process `udlib WORDS` for each of `waiting`, `jobs` at a time, each with its share of the cores; counts failures.

    `words(one)` are its words, and `choose(left, running)` says which is next, None to wait for one that runs.
    """
    threads = str(max((os.cpu_count() or 1) // jobs, 1))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "UDLIB_PROGRESS": "0"}
    command = [sys.executable, "-m", "udlib"]
    start = time.perf_counter()
    left, running, finished, failed = list(waiting), {}, 0, 0
    try:
        while left or running:
            while len(running) < jobs and (one := choose(left, running.values())):
                left.remove(one)
                process = subprocess.Popen([*command, *words(one)], env=environment, stdout=subprocess.DEVNULL)
                running[process] = one
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                one, finished = running.pop(process), finished + 1
                failed += process.returncode != 0
                pace = (time.perf_counter() - start) / finished
                rest = duration(pace * (len(left) + len(running)))
                outcome = " FAILED" * (process.returncode != 0)
                print(f"[{finished} of {len(waiting)}] {one}{outcome}; all that is left takes {rest}", flush=True)
    except KeyboardInterrupt:
        for process in running:  # they got the Ctrl-C too, and end with a checkpoint
            process.wait()
        print(
            f"\nstopped: {finished} of {len(waiting)} are trained and stored. The same command goes on from here, "
            "these trainings from their last checkpoints.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    return failed


def next_free(left: Sequence[Recipe], running: Iterable[Recipe]) -> Recipe | None:
    """The first of the recipes left that waits for no network which another one makes; None where all wait."""
    from udlib.course.store import has_model, needed

    def missing(recipe: Recipe) -> list[Recipe]:
        return [teacher for teacher in needed(recipe).values() if not has_model(teacher)]

    coming = {*left, *running, *(teacher for recipe in running for teacher in missing(recipe))}
    return next((recipe for recipe in left if not coming.intersection(missing(recipe))), None)


def _train(recipe: Recipe, keep_network: bool) -> None:
    from udlib.course import recipes
    from udlib.course.store import load, train_and_store

    stored = keep_network and load(recipe, logits=False) is not None  # it is trained for its network alone
    ours = ships(recipe, lambda each: recipes.keeps_weights(each) or recipes.teaches(each))
    train_and_store(recipe, network=keep_network or ours, numbers=not stored)


def ships(recipe: Recipe, keeps: Callable[[Recipe], bool] = lambda recipe: True) -> bool:
    """Whether a recipe, given at the size of the profile, is one of the course's for which `keeps` says yes."""
    from udlib.course.profiles import for_profile
    from udlib.course.recipes import groups

    of_the_course = (each for recipes in groups().values() for each in recipes)
    return any(for_profile(each) == recipe and keeps(each) for each in of_the_course)


def forecast(recipes: Iterable[Recipe], pace: float = 1.0) -> float:
    """Seconds that these recipes will train at the size of the profile; `pace` is measured over forecast time."""
    from udlib.course.profiles import for_profile, seconds

    return pace * sum(seconds(for_profile(recipe)) for recipe in recipes)


def measured_pace(runs: Iterable[Run]) -> float:
    """How much slower than forecast the stored trainings of this very processor were; 1 where there are none."""
    from udlib.course.profiles import seconds
    from udlib.training.devices import hardware

    here = [run for run in runs if run.provenance["hardware"] == hardware()]
    return sum(run.provenance["seconds"] for run in here) / sum(seconds(run.recipe) for run in here) if here else 1.0


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(99), duration(600), duration(36000)
    ('about 99 s', 'about 10 min', 'about 10 h')
    """
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 3 * 3600 else f"about {seconds / 3600:.0f} h"
