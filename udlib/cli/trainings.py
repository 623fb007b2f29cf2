"""`udlib runs`: train what the course's results lack, one after the other or side by side."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from udlib.cli.options import Only
from udlib.cli.running import cores, duration, forecast, measured_pace, ships, train_all, train_side_by_side


def runs(
    only: Only = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be trained and how long it takes.")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train stored and damaged ones again, and replace them.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Trainings side by side; 0: one per core, or one on a GPU.", min=0)] = 1,
) -> None:
    """Train the course's recipes that are not stored yet; after an interruption the same command goes on.

    The small networks gain little from a second core, so on a CPU `--jobs 0` is about twice as fast in all.

    Exit code 1 when a stored result is damaged or a training failed, 130 after Ctrl-C.
    """
    from udlib.course.profiles import for_profile
    from udlib.course.recipes import select
    from udlib.course.report import stored
    from udlib.course.store import absent_results

    groups = {recipe: group for group, recipes in select(only).items() for recipe in recipes}
    stored_runs, damaged = stored(list(groups))
    complete = {run.recipe.key for run in stored_runs if not _lacks_network(run.recipe)} | damaged.keys()
    done = set() if retrain else complete
    waiting = {recipe: group for recipe, group in groups.items() if for_profile(recipe).key not in done}
    pace = measured_pace(stored_runs)
    print(
        f"{len(groups)} results: {len(stored_runs)} stored, {len(damaged)} damaged, {len(waiting)} to train"
        + (f" in {duration(forecast(waiting, pace))}" if waiting else "")
    )
    if absent := absent_results():
        print(f"note: {absent}")
    if plan:
        for recipe, group in waiting.items():
            print(f"  {group}: {for_profile(recipe)}, {duration(forecast([recipe], pace))}")
        raise typer.Exit()
    if jobs != 1 and len(waiting) > 1:
        failed = train_side_by_side(waiting, jobs or cores(), ["runs", *(["--retrain"] if retrain else []), "--only"])
    else:
        failed = train_all(waiting, pace, f"udlib runs --only {only!r}" if only else "udlib runs")
    for key in [] if retrain else damaged:
        print(f"damaged, and left as it is: {key}; `udlib runs --only {key} --retrain` replaces it", file=sys.stderr)
    raise typer.Exit(int(bool(failed or damaged and not retrain)))


def _lacks_network(recipe) -> bool:
    from udlib.course.recipes import keeps_weights
    from udlib.course.store import has_model

    return ships(recipe, keeps_weights) and not has_model(recipe)
