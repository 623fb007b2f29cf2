"""Trainings one after the other or side by side: what `udlib runs` and `udlib reproduce` share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import typer


def train_all(waiting, pace: float, again: str, networks=()) -> int:
    """Train and store recipes (with their group's names) one after the other; returns how many failed.

    `again` is the command that goes on after Ctrl-C, and `networks` are the recipes whose network is to be kept in any case.
    """
    import torch

    from udlib.course.store import for_profile

    left, spent, expected, failed = list(waiting), 0.0, 0.0, 0
    for k, (recipe, group) in enumerate(waiting.items(), 1):
        chosen = for_profile(recipe)
        print(
            f"[{k} of {len(waiting)}] {group}: {chosen}; all that is left takes {duration(forecast(left, pace))}",
            flush=True,
        )
        start = time.perf_counter()
        try:
            _train(chosen, recipe in networks)
        except KeyboardInterrupt:
            print(
                f"\nstopped: {k - 1} of {len(waiting)} are trained and stored. `{again}` goes on from here, "
                "this training from its last checkpoint.",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None
        except (FloatingPointError, torch.OutOfMemoryError) as error:
            full = isinstance(error, torch.OutOfMemoryError)
            reason = f"batches of {chosen.training.batch_size} do not fit into the GPU's free memory" if full else error
            print(f"failed: {chosen.key}: {reason}", file=sys.stderr)
            failed += 1
        spent, expected = spent + time.perf_counter() - start, expected + forecast([recipe])
        pace = spent / expected
        left.remove(recipe)
    return failed


def cores() -> int:
    """How many trainings fit side by side: one per core, or one where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def train_side_by_side(waiting, jobs: int, command: list[str]) -> int:
    """Train each recipe in its own process; `command`, words after `udlib`, trains one when its key is added."""
    return side_by_side(waiting, jobs, lambda recipe: [*command, recipe.key], next_free)


def side_by_side(waiting, jobs: int, words, choose=lambda left, running: left[0] if left else None) -> int:
    """A process `udlib WORDS` for each of `waiting`, `jobs` at a time, each with its share of the cores; counts failures.

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
                running[subprocess.Popen([*command, *words(one)], env=environment, stdout=subprocess.DEVNULL)] = one
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                one, finished = running.pop(process), finished + 1
                failed += process.returncode != 0
                pace = (time.perf_counter() - start) / finished
                print(
                    f"[{finished} of {len(waiting)}] {one}{' FAILED' * (process.returncode != 0)}; "
                    f"all that is left takes {duration(pace * (len(left) + len(running)))}",
                    flush=True,
                )
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


def next_free(left, running):
    """The first of the recipes left that waits for no network which another one makes; None where all wait."""
    from udlib.course.store import model_folder, needed, recipe

    def missing(chosen):
        found = [recipe(**choices) for choices in needed(chosen).values()]
        return [teacher for teacher in found if model_folder(teacher) is None]

    coming = {*left, *running, *(teacher for chosen in running for teacher in missing(chosen))}
    return next((chosen for chosen in left if not coming.intersection(missing(chosen))), None)


def _train(chosen, keep_network: bool) -> None:
    from udlib.course import recipes
    from udlib.course.store import checkpoint_folder, result_folder, save, save_model, train

    stored = keep_network and (result_folder(chosen) / "state.json").exists()  # it is trained for its network alone
    checkpoint = checkpoint_folder(chosen)
    run = train(chosen, checkpoint)
    # the course's results have a budget; what stands in none of its groups is its owner's, and keeps its logits
    shipped = run if ships(chosen, recipes.keeps_logits) or not ships(chosen) else run.without_logits()
    if not stored:
        save(shipped.without_branch("val") if ships(chosen, recipes.keeps_branch) else shipped.without_branch())
    if ships(chosen, recipes.keeps_weights):
        save_model(run)
    elif keep_network or ships(chosen, recipes.teaches):
        save_model(run, keep=False)
    if checkpoint is not None:  # or a later --retrain would resume at the end of this one
        shutil.rmtree(checkpoint, ignore_errors=True)


def ships(chosen, keeps=lambda recipe: True) -> bool:
    """Whether a recipe, given at the size of the profile, is one of the course's for which `keeps` says yes."""
    from udlib.course import recipes
    from udlib.course import store as experiments

    return any(
        experiments.for_profile(recipe) == chosen and keeps(recipe)
        for found in recipes.groups().values()
        for recipe in found
    )


def forecast(recipes, pace: float = 1.0) -> float:
    """Seconds that these recipes will train at the size of the profile; `pace` is measured over forecast time."""
    from udlib.course.store import for_profile, seconds

    return pace * sum(seconds(for_profile(recipe)) for recipe in recipes)


def measured_pace(present) -> float:
    """How much slower than forecast the stored trainings of this very processor were; 1 where there are none."""
    from udlib.course.store import seconds
    from udlib.training.devices import hardware

    here = [run for run in present if run.provenance["hardware"] == hardware()]
    return sum(run.provenance["seconds"] for run in here) / sum(seconds(run.recipe) for run in here) if here else 1.0


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(99), duration(600), duration(36000)
    ('about 99 s', 'about 10 min', 'about 10 h')
    """
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 3 * 3600 else f"about {seconds / 3600:.0f} h"
