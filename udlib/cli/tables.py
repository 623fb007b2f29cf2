"""`udlib reproduce`: train what a table of the paper lacks, and print our numbers beside the paper's."""

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
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="table1 … table5; --list shows all names.")
    ] = None,
    list_tables: Annotated[bool, typer.Option("--list", help="List the tables, with their titles and data.")] = False,
    data: Annotated[
        str | None, typer.Option(help="voc2007, coco2014, scenes, … or a folder; default: the paper's data.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="The folder of the data set; results do not store this path.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="full (448 px, for a GPU) or course (64 px, for a CPU).")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds of each row; an interval needs two.", min=1)] = 5,
    rows: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Part of a row's name, or a pattern such as '*18, [KU]D*'.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print what would be trained, how, and at what cost.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Only print the table of what is stored, without training.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw the differences to the baselines into this PNG file.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Number of trainings side by side; 0: one per core, or one on a GPU.", min=0)
    ] = 1,
    only: Annotated[
        str | None, typer.Option(hidden=True, help="Train only the run with this key, and print no table.")
    ] = None,
) -> None:
    """Train what one table of the UD paper lacks, and print the paper's numbers beside ours.

    udlib reproduce table3a --data voc2007 --root ~/VOCdevkit --plan

    udlib reproduce table3a --data scenes --show

    The size is full for the papers' data sets and course for all others, unless --size or UDLIB_PROFILE sets it.
    Teachers are trained first. A training that was stopped continues from its last checkpoint when the same command
    runs again. Our numbers are means over seeds; differences to a row's baseline are paired by seed and have a t
    interval. A dagger marks cells in which the paper contradicts itself. Results are stored under the name of the data
    set, never under its path: those on the course's own data in the course's store, all others in `runs` in the data
    folder (`UDLIB_DATA`).

    Exit code 1 when a training failed or a stored result is damaged, 2 for a wrong command, 130 after Ctrl-C.
    """
    if list_tables:
        _list()
        raise typer.Exit()
    if table is None:
        raise ValueError("which table? `udlib reproduce --list` names them")
    from udlib.course import paper_recipes as tables
    from udlib.course import paper_tables as paper
    from udlib.course.reproduction import compare, cost, jobs_of, recipes_of, require_same_data, stored_runs
    from udlib.training.devices import hardware

    require_writable(csv, figure)
    paper_table = paper.table(table)
    table_rows = paper_table.matching(rows)
    name = _place(data or paper_table.data, root)
    size = size or tables.default_size(name)
    recipes_by_row = recipes_of(paper_table, table_rows, name, size, seeds)
    trainings = jobs_of(recipes_by_row)
    waiting = {job.recipe: job.serves for job in trainings if job.waits}
    networks = [job.recipe for job in trainings if job.keeps_network]
    present = [run for runs in stored_runs(recipes_by_row).values() for run in runs.values()]
    here = [run for run in present if run.provenance["hardware"] == hardware()]
    pace = measured_pace(here) if here else None
    again = shlex.join(["udlib", *context.obj])
    if only is not None:
        waiting = {recipe: serves for recipe, serves in waiting.items() if recipe.key == only}
        raise typer.Exit(int(bool(train_all(waiting, pace or 1.0, again, networks))))

    _announce(paper_table, name, size, trainings)
    if plan:
        _say_plan(trainings, cost(trainings, pace), pace, size)
        raise typer.Exit()
    failed = 0
    if waiting and not show:
        require_same_data(present, next(iter(waiting)))
        print(f"to train: {duration(cost(trainings, pace).seconds)} of computing")
        if jobs != 1 and len(waiting) > 1:
            failed = train_side_by_side(
                waiting, jobs or cores(), ["reproduce", *_words(table, name, size, seeds, rows), "--only"]
            )
        else:
            failed = train_all(waiting, pace or 1.0, again, networks)
    lines = compare(paper_table, table_rows, name, size, seeds)
    _deliver(paper_table, lines, name, size, seeds, csv, figure)
    damaged = _report_damaged(trainings)
    raise typer.Exit(int(bool(failed or damaged)))


def _announce(table, name: str, size: str, trainings) -> None:
    """Print what is to be reproduced, and how much of it is stored."""
    other = f" (the paper: {table.data})" if name != table.data else ""
    print(f"{table.name}: {table.title}, on {name}{other}, {size} size")
    states = ("stored", "half done", "missing", "damaged")
    counts = [f"{sum(job.state == state for job in trainings)} {state}" for state in states]
    print(f"{len(trainings)} trainings: {', '.join(counts)}")


def _report_damaged(trainings) -> bool:
    """Name the damaged results on stderr; return whether there are any."""
    damaged = [job for job in trainings if job.state == "damaged"]
    for job in damaged:
        print(
            f"damaged, and left as it is: {job.serves}, {job.recipe.key}: {job.problem}; delete its folder, and the "
            f"same "
            "command trains it again",
            file=sys.stderr,
        )
    return bool(damaged)


def _list() -> None:
    """Print one line per table: what it compares, on which data, and how many of its cells are doubtful."""
    from udlib.course.paper_tables import TABLES

    for table in TABLES.values():
        doubtful = sum(bool(cell.doubt) for row in table.rows for cell in row.cells.values())
        own_rows = sum(not row.cited for row in table.rows)
        print(
            f"{table.name:<8} {table.title}; {table.data}; {own_rows} rows of the paper's own, "
            f"{len(table.rows) - own_rows} cited; "
            f"{doubtful} of {sum(len(row.cells) for row in table.rows)} cells doubtful"
        )


def _place(data: str, root: Path | None) -> str:
    """Return the name of the data set; note its folder for this process and for those that it starts."""
    from udlib.course.profiles import PAPERS_DATA
    from udlib.datasets import EMBEDDED
    from udlib.datasets.layouts import PHOTOS
    from udlib.datasets.roots import place, placed

    if data in EMBEDDED:
        if root is not None:
            raise ValueError(
                f"'{data}' is made by udlib and has no root: leave --root out, or give the folder's data another name"
            )
        return data
    if root is not None:
        place(data, root)
    elif data not in (PHOTOS, *PAPERS_DATA) and placed(data) is None:
        folder = Path(data).expanduser()
        if not folder.is_dir():
            raise ValueError(
                f"unknown data set '{data}': choose one of {', '.join((*EMBEDDED, PHOTOS, *PAPERS_DATA))}, or name a folder"
            )
        data = folder.resolve().name
        if data in (*EMBEDDED, PHOTOS, *PAPERS_DATA):
            raise ValueError(
                f"folder '{folder}' has the name of a data set that udlib knows: say which data it holds, with "
                "--data NAME --root FOLDER"
            )
        place(data, folder)
    return data


def _words(table: str, name: str, size: str, seeds: int, rows: str | None) -> list[str]:
    """The command that trains one run of this table; the processes inherit the root."""
    return [table, "--data", name, "--size", size, "--seeds", str(seeds), *(["--rows", rows] if rows else [])]


def _say_plan(jobs, forecast_cost, pace: float | None, size: str) -> None:
    """Print what would be trained, what it would cost, and where every setting comes from."""
    from udlib.course.paper_recipes import COURSE_DEPARTURES, DEPARTURES, settings
    from udlib.datasets.pixels import IN_MEMORY

    waiting = [job for job in jobs if job.waits]
    for job in waiting:
        state = f"{job.epochs_done} of {job.epochs} epochs done" if job.epochs_done else "missing"
        print(
            f"  {job.serves}, seed {job.recipe.training.seed}: {state}, "
            f"{duration(forecast([job.recipe], pace or 1.0))} in all"
        )
    hours = "GPU-hours" if size == "full" else "hours of computing"
    print(f"\nleft: {forecast_cost.seconds / 3600:.1f} {hours} ({forecast_cost.basis})")
    print("disk: " + ", ".join(f"{name} {_bytes(count)}" for name, count in forecast_cost.disk.items()))
    print(
        f"memory: {_bytes(forecast_cost.memory)} for the decoded images; a split of more than {_bytes(IN_MEMORY)} "
        f"lies in a file, "
        "which takes as much of the disk and as much memory as is free"
    )
    if size == "full":
        print("\nsettings, and where each comes from:")
        for name, values, source, where in settings([job.recipe for job in jobs]):
            print(f"  {name:<15} {values:<32} {source}: {where}")
    print("\nother than in the paper or the released code:")
    for name, what in (DEPARTURES if size == "full" else COURSE_DEPARTURES).items():
        print(f"  {name}: {what}")


def _bytes(count: float) -> str:
    """A size in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _deliver(table, lines, name: str, size: str, seeds: int, csv: Path | None, figure: Path | None) -> None:
    """Print the table, and write it to the files that the options name."""
    from udlib.course import comparison
    from udlib.figures import plots
    from udlib.files import atomic_write

    print(f"\n{comparison.as_tables(table, lines)}\n")
    if seeds < 2:
        print("One seed has no spread and no interval: a difference of one pair says little. Use --seeds 2 or more.")
    if size == "course":
        print("Course size: small networks at 64 px stand in. Compare the differences and their signs, not the levels.")
    if csv is not None:
        atomic_write(csv, comparison.as_csv(table, name, size, lines).encode())
        print(f"written: {csv}")
    if figure is not None:
        picture = comparison.figure(table, lines, f"UD, {table.name}: {table.title} ({name}, {size} size)")
        atomic_write(figure, plots.png(picture))
        print(f"written: {figure}")
