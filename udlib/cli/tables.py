"""`udlib reproduce`: a table of the paper, trained as far as it is missing, and printed beside the paper's numbers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from udlib.cli.options import require_writable
from udlib.cli.running import cores, duration, forecast, measured_pace, train_all, train_side_by_side


def reproduce(
    context: typer.Context,
    table: Annotated[str | None, typer.Argument(metavar="TABLE", help="table1 … table5; --list names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="The tables: what each asks, and on which data.")] = False,
    data: Annotated[
        str | None, typer.Option(help="voc2007, coco2014, scenes, … or a folder; default: the paper's.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="The folder that holds the data set; no result ever stores it.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="full (448 px, a GPU) or course (64 px, a CPU).")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0 … N-1 of each row; an interval needs two.", min=1)] = 5,
    rows: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Part of the rows' names, or e.g. '*18, [KU]D*'.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be trained, how, and at what cost; no more.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Only print the table of what is stored; train nothing.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this CSV file too.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Write the differences to the baselines to this PNG file too.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Trainings side by side; 0: one per core, or one on a GPU.", min=0)] = 1,
    only: Annotated[
        str | None, typer.Option(hidden=True, help="Train the one run of this key and print no table.")
    ] = None,
) -> None:
    """Train what one table of the UD paper lacks, and print the paper's numbers beside ours.

    udlib reproduce table3a --data voc2007 --root ~/VOCdevkit --plan

    udlib reproduce table3a --data scenes --show

    The size is full for the data sets of papers and the course's for others, unless --size or UDLIB_PROFILE says otherwise.
    Teachers are trained first; a training that was stopped goes on from its last checkpoint when the same command is given
    again. Ours are means over seeds; differences to a row's baseline are paired by seed, with a t interval. A dagger marks
    cells in which the paper contradicts itself. Results lie under the data set's name, never its path: those of the course's
    own data in its store, all others in `runs` below the data root (`UDLIB_DATA`).

    Exit code 1 when a training failed or a stored result is damaged, 2 for a wrong command, 130 after Ctrl-C.
    """
    if listed:
        _list()
        raise typer.Exit()
    if table is None:
        raise ValueError("which table? `udlib reproduce --list` names them")
    from udlib.course import paper_recipes as tables
    from udlib.course import paper_tables as paper
    from udlib.course.reproduction import compare, cost, jobs_of, recipes_of, require_same_data, stored_runs
    from udlib.training.devices import hardware

    require_writable(csv, figure)
    found = paper.table(table)
    chosen = found.matching(rows)
    name = _place(data or found.data, root)
    size = size or tables.default_size(name)
    named = recipes_of(found, chosen, name, size, seeds)
    work = jobs_of(named)
    waiting = {job.recipe: job.serves for job in work if job.waits}
    networks = [job.recipe for job in work if job.keeps_network]
    present = [run for runs in stored_runs(named).values() for run in runs.values()]
    here = [run for run in present if run.provenance["hardware"] == hardware()]
    pace = measured_pace(here) if here else None
    again = shlex.join(["udlib", *context.obj])
    if only is not None:
        waiting = {recipe: serves for recipe, serves in waiting.items() if recipe.key == only}
        raise typer.Exit(int(bool(train_all(waiting, pace or 1.0, again, networks))))

    other = f" (the paper: {found.data})" if name != found.data else ""
    print(f"{found.name}: {found.title}, on {name}{other}, {size} size")
    counts = [
        f"{sum(job.state == state for job in work)} {state}" for state in ("stored", "half done", "missing", "damaged")
    ]
    print(f"{len(work)} trainings: {', '.join(counts)}")
    if plan:
        _say_plan(work, cost(work, pace), pace, size)
        raise typer.Exit()
    failed = 0
    if waiting and not show:
        require_same_data(present, next(iter(waiting)))
        print(f"to train: {duration(cost(work, pace).seconds)} of computing")
        if jobs != 1 and len(waiting) > 1:
            failed = train_side_by_side(
                waiting, jobs or cores(), ["reproduce", *_words(table, name, size, seeds, rows), "--only"]
            )
        else:
            failed = train_all(waiting, pace or 1.0, again, networks)
    lines = compare(found, chosen, name, size, seeds)
    _deliver(found, lines, name, size, seeds, csv, figure)
    damaged = [job for job in work if job.state == "damaged"]
    for job in damaged:
        print(
            f"damaged, and left as it is: {job.serves}, {job.recipe.key}: {job.problem}; delete its folder, and the same "
            "command trains it again",
            file=sys.stderr,
        )
    raise typer.Exit(int(bool(failed or damaged)))


def _list() -> None:
    from udlib.course.paper_tables import TABLES

    for found in TABLES.values():
        doubtful = sum(bool(cell.doubt) for row in found.rows for cell in row.cells.values())
        trained = sum(not row.cited for row in found.rows)
        print(
            f"{found.name:<8} {found.title}; {found.data}; {trained} rows of the paper's own, {len(found.rows) - trained} cited; "
            f"{doubtful} of {sum(len(row.cells) for row in found.rows)} cells doubtful"
        )


def _place(data: str, root: Path | None) -> str:
    """The name of the data set, its folder noted for this process and those that it starts."""
    from udlib.course.profiles import PAPERS_DATA
    from udlib.datasets import EMBEDDED
    from udlib.datasets.roots import place, placed

    if data in EMBEDDED:
        if root is not None:
            raise ValueError(
                f"'{data}' is made by udlib and has no root: leave --root out, or give the folder's data another name"
            )
        return data
    if root is not None:
        place(data, root)
    elif data not in PAPERS_DATA and placed(data) is None:
        folder = Path(data).expanduser()
        if not folder.is_dir():
            raise ValueError(
                f"unknown data set '{data}': choose one of {', '.join((*EMBEDDED, *PAPERS_DATA))}, or name a folder"
            )
        data = folder.resolve().name
        if data in (*EMBEDDED, *PAPERS_DATA):
            raise ValueError(
                f"folder '{folder}' has the name of a data set that udlib knows: say which data it holds, with "
                "--data NAME --root FOLDER"
            )
        place(data, folder)
    return data


def _words(table: str, name: str, size: str, seeds: int, rows: str | None) -> list[str]:
    """The command of one training of this table; its root is inherited."""
    return [table, "--data", name, "--size", size, "--seeds", str(seeds), *(["--rows", rows] if rows else [])]


def _say_plan(work, expected, pace: float | None, size: str) -> None:
    from udlib.course.paper_recipes import COURSE_DEPARTURES, DEPARTURES, settings
    from udlib.datasets.pixels import IN_MEMORY

    waiting = [job for job in work if job.waits]
    for job in waiting:
        state = f"{job.epochs_done} of {job.epochs} epochs done" if job.epochs_done else "missing"
        print(
            f"  {job.serves}, seed {job.recipe.training.seed}: {state}, {duration(forecast([job.recipe], pace or 1.0))} in all"
        )
    hours = "GPU-hours" if size == "full" else "hours of computing"
    print(f"\nleft: {expected.seconds / 3600:.1f} {hours} ({expected.basis})")
    print("disk: " + ", ".join(f"{name} {_bytes(count)}" for name, count in expected.disk.items()))
    print(
        f"memory: {_bytes(expected.memory)} for the decoded images; a split of more than {_bytes(IN_MEMORY)} lies in a file, "
        "which takes as much of the disk and as much memory as is free"
    )
    if size == "full":
        print("\nsettings, and where each comes from:")
        for name, values, source, where in settings([job.recipe for job in work]):
            print(f"  {name:<15} {values:<32} {source}: {where}")
    print("\nother than in the paper or the released code:")
    for name, what in (DEPARTURES if size == "full" else COURSE_DEPARTURES).items():
        print(f"  {name}: {what}")


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _deliver(found, lines, name: str, size: str, seeds: int, csv: Path | None, figure: Path | None) -> None:
    """Print the table, and write it where the options say."""
    from udlib.course import comparison
    from udlib.figures import plots
    from udlib.files import atomic_write

    print(f"\n{comparison.as_tables(found, lines)}\n")
    if seeds < 2:
        print("One seed has no spread and no interval: a difference of one pair says little. Use --seeds 2 or more.")
    if size == "course":
        print("Course size: small networks at 64 px stand in. Compare the differences and their signs, not the levels.")
    if csv is not None:
        atomic_write(csv, comparison.as_csv(found, name, size, lines).encode())
        print(f"written: {csv}")
    if figure is not None:
        drawn = comparison.figure(found, lines, f"UD, {found.name}: {found.title} ({name}, {size} size)")
        atomic_write(figure, plots.png(drawn))
        print(f"written: {figure}")
