"""`udlib runs`: train what the course's results lack, one after the other or side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Annotated

import typer

from udlib.cli.options import Only


def runs(
    only: Only = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be trained and how long it takes.")] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train stored and damaged ones too, in their place.")] = False,
    jobs: Annotated[int, typer.Option(help="Trainings side by side; 0: one per core, or one on a GPU.", min=0)] = 1,
) -> None:
    """Train the course's recipes that are not stored yet; after an interruption the same command goes on.

    The small networks gain little from a second core, so on a CPU `--jobs 0` is about twice as fast in all.

    Exit code 1 when a stored result is damaged or a training failed, 130 after Ctrl-C.
    """
    from udlib import experiments, recipes
    from udlib.report import stored

    named = {recipe: group for group, found in recipes.select(only).items() for recipe in found}
    present, damaged = stored(list(named))
    done = set() if retrain else {run.recipe.key for run in present if not _lacks_network(run.recipe)} | damaged.keys()
    waiting = {recipe: group for recipe, group in named.items() if experiments.for_profile(recipe).key not in done}
    pace = _pace(present)
    print(f"{len(named)} results: {len(present)} stored, {len(damaged)} damaged, {len(waiting)} to train"
          + (f" in {_duration(_forecast(waiting, pace))}" if waiting else ""))
    if plan:
        for recipe, group in waiting.items():
            print(f"  {group}: {experiments.for_profile(recipe)}, {_duration(_forecast([recipe], pace))}")
        raise typer.Exit()
    if jobs != 1 and len(waiting) > 1:
        failed = _train_side_by_side(list(waiting), jobs or _cores(), retrain)
    else:
        failed = _train_all(waiting, pace, only)
    for key in [] if retrain else damaged:
        print(f"damaged, and left as it is: {key}; `udlib runs --only {key} --retrain` replaces it", file=sys.stderr)
    raise typer.Exit(int(bool(failed or damaged and not retrain)))


def _train_all(waiting, pace: float, only: str | None) -> int:
    """Train and store recipes (with their group's names) one after the other; returns how many failed."""
    from udlib.experiments import for_profile

    left, spent, expected, failed = list(waiting), 0.0, 0.0, 0
    for k, (recipe, group) in enumerate(waiting.items(), 1):
        chosen = for_profile(recipe)
        print(f"[{k} of {len(waiting)}] {group}: {chosen}; "
              f"all that is left takes {_duration(_forecast(left, pace))}", flush=True)
        start = time.perf_counter()
        try:
            _train(chosen)
        except KeyboardInterrupt:
            again = f"udlib runs --only {only!r}" if only else "udlib runs"
            print(f"\nstopped: {k - 1} of {len(waiting)} are trained and stored. `{again}` goes on from here, "
                  "this training from its last checkpoint.", file=sys.stderr)
            raise typer.Exit(130) from None
        except FloatingPointError as error:
            print(f"failed: {chosen.key}: {error}", file=sys.stderr)
            failed += 1
        spent, expected = spent + time.perf_counter() - start, expected + _forecast([recipe])
        pace = spent / expected
        left.remove(recipe)
    return failed


def _cores() -> int:
    """How many trainings fit side by side: one per core, or one where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def _train_side_by_side(waiting, jobs: int, retrain: bool) -> int:
    """Train each recipe in its own process, `jobs` at a time, each with its share of the cores; counts failures."""
    threads = str(max((os.cpu_count() or 1) // jobs, 1))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "UDLIB_PROGRESS": "0"}
    command = [sys.executable, "-m", "udlib", "runs", *(["--retrain"] if retrain else []), "--only"]
    start = time.perf_counter()
    left, running, finished, failed = list(waiting), {}, 0, 0
    try:
        while left or running:
            while len(running) < jobs and (recipe := _next(left, running.values())):
                left.remove(recipe)
                running[subprocess.Popen([*command, recipe.key], env=environment, stdout=subprocess.DEVNULL)] = recipe
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                recipe, finished = running.pop(process), finished + 1
                failed += process.returncode != 0
                pace = (time.perf_counter() - start) / finished
                print(f"[{finished} of {len(waiting)}] {recipe}{' FAILED' * (process.returncode != 0)}; "
                      f"all that is left takes {_duration(pace * (len(left) + len(running)))}", flush=True)
    except KeyboardInterrupt:
        for process in running:  # they got the Ctrl-C too, and end with a checkpoint
            process.wait()
        print(f"\nstopped: {finished} of {len(waiting)} are trained and stored. The same command goes on from here, "
              "these trainings from their last checkpoints.", file=sys.stderr)
        raise typer.Exit(130) from None
    return failed


def _next(left, running):
    """The first of the recipes left that waits for no network which another one makes; None where all wait."""
    from udlib.experiments import model_folder, needed, recipe

    def missing(chosen):
        found = [recipe(**choices) for choices in needed(chosen).values()]
        return [teacher for teacher in found if model_folder(teacher) is None]

    coming = {*left, *running, *(teacher for chosen in running for teacher in missing(chosen))}
    return next((chosen for chosen in left if not coming.intersection(missing(chosen))), None)


def _train(chosen) -> None:
    from udlib import recipes
    from udlib.datasets import data_root
    from udlib.experiments import profile, save, save_model, train

    checkpoint = data_root() / "checkpoints" / chosen.key if profile() != "smoke" else None
    run = train(chosen, checkpoint)
    shipped = run if _ships(chosen, recipes.keeps_logits) else run.without_logits()
    save(shipped if _ships(chosen, recipes.keeps_branch) else shipped.without_branch())
    if _ships(chosen, recipes.keeps_weights):
        save_model(run)
    elif _ships(chosen, recipes.teaches):
        save_model(run, keep=False)
    if checkpoint is not None:  # or a later --retrain would resume at the end of this one
        shutil.rmtree(checkpoint, ignore_errors=True)


def _ships(chosen, keeps) -> bool:
    """Whether `keeps` says so of a recipe, which is given at the size of the profile."""
    from udlib import experiments, recipes

    return any(experiments.for_profile(recipe) == chosen and keeps(recipe)
               for found in recipes.groups().values() for recipe in found)


def _lacks_network(chosen) -> bool:
    from udlib.experiments import store
    from udlib.recipes import keeps_weights

    return _ships(chosen, keeps_weights) and not (store() / "models" / chosen.key / "state.json").exists()


def _forecast(recipes, pace: float = 1.0) -> float:
    """Seconds that these recipes will train at the size of the profile; `pace` is measured over forecast time."""
    from udlib.experiments import for_profile, seconds

    return pace * sum(seconds(for_profile(recipe)) for recipe in recipes)


def _pace(present) -> float:
    """How much slower than forecast the stored trainings of this very processor were; 1 where there are none."""
    from udlib.devices import processor
    from udlib.experiments import seconds

    here = [run for run in present if run.provenance["hardware"] == processor()]
    return sum(run.provenance["seconds"] for run in here) / sum(seconds(run.recipe) for run in here) if here else 1.0


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"
