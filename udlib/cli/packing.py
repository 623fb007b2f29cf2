"""`udlib pack`: runs of the course's recipes into the few files that ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer


def pack(
    group: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Only groups with this name, and those that share their file of logits."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be written, and how large it is.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Also change results that are packed already.")] = False,
    half: Annotated[
        bool,
        typer.Option(
            "--half", help="Store networks in float16: half the size, but the last digits in the lessons change."
        ),
    ] = False,
) -> None:
    """Pack your own runs of the course's recipes into the few files of results that ship.

    The groups whose names are equal before the "/" form a family: the family of `lambda/0.1` is `lambda`. The logits of
    a family are in one file, which is written once. So a family is left out until all its runs are trained.

    Exit code 1 when a family was left out.
    """
    from udlib.course import recipes
    from udlib.course.packing import new_contents
    from udlib.course.packing import pack as pack_runs
    from udlib.course.profiles import profile
    from udlib.datasets.base import checkout, data_root

    if profile() == "smoke":
        raise ValueError("runs of the smoke profile are too small to ship: unset UDLIB_PROFILE to pack the course's")
    source, destination = data_root() / "runs", (checkout() / "data" if checkout() else data_root()) / "results"
    groups = recipes.groups()
    families = {name.partition("/")[0] for name in recipes.select(group)}
    keys = {
        name: [recipe.key for recipe in members]
        for name, members in groups.items()
        if name.partition("/")[0] in families
    }
    complete = _complete(keys, source, destination)
    course = {recipe.key: recipe for members in groups.values() for recipe in members}
    packable = {key: course[key] for members in complete.values() for key in members}
    options = {
        "replace": replace,
        "half": half,
        "keeps": lambda key, name: _ships(course[key], name),
        "networks": _networks(packable, source),
    }
    if plan:
        sizes = {name: len(content) for name, content in new_contents(source, destination, complete, **options).items()}
    else:
        paths = pack_runs(source, destination, complete, **options)
        sizes = {path.relative_to(destination).as_posix(): path.stat().st_size for path in paths}
    for name, size in sizes.items():
        print(f"{'would write' if plan else 'wrote'} {name}: {_megabytes(size)}")
    if not sizes:
        print("nothing to write: all that is trained is packed already")
    weights = [path.stat().st_size for path in destination.rglob("*") if path.is_file()]
    print(f"'{destination}' holds {len(weights)} files of {_megabytes(sum(weights))}")
    raise typer.Exit(int(len(complete) < len(keys)))


def _complete(keys: Mapping[str, Sequence[str]], source: Path, destination: Path) -> dict[str, Sequence[str]]:
    """The groups of the families whose runs are all trained or packed; says of each family what it has and lacks."""
    from udlib.course.packed import PackedResults

    packed, complete = PackedResults(destination).keys(), {}
    for family in dict.fromkeys(name.partition("/")[0] for name in keys):
        members = {name: runs for name, runs in keys.items() if name.partition("/")[0] == family}
        runs = {key for of_group in members.values() for key in of_group}
        trained = {key for key in runs if (source / key / "state.json").exists()}
        untrained = len(runs - trained - packed)
        print(f"{family}: {len(runs)} runs, {len(runs & packed)} packed, {len(trained)} in '{source}'", end="")
        print(
            f"; {untrained} are not trained, so it is left out (`udlib runs --only '{family}*'`)" if untrained else ""
        )
        if not untrained:
            complete |= members
    return complete


def _ships(recipe, name: str) -> bool:
    """Whether the logits with this name ship for a recipe of the course."""
    from udlib.course.recipes import keeps_branch, keeps_logits

    split = name.partition("_")[0]
    if name.endswith("calibration_logits") and not (split == "test" and keeps_branch(recipe)):
        return False
    return keeps_logits(recipe, split)


def _networks(course: Mapping[str, object], source: Path) -> dict[str, Path]:
    """The folders of the trained networks that ship, by key: below `source`, or with the networks that train others."""
    from udlib.course.recipes import keeps_weights

    places = (source / "models", source.parent / "models")
    folders = {key: place / key for place in places for key in course if (place / key / "state.json").exists()}
    return {key: folder for key, folder in folders.items() if keeps_weights(course[key])}


def _megabytes(size: int) -> str:
    """A size in bytes, in words."""
    return f"{size / 1e6:.2f} MB"
