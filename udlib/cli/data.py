"""`udlib data`: describe a data set, check its files, download VOC, and make the folder of `photos`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from udlib.cli.options import Missing, require_drop_or_fail, require_writable

if TYPE_CHECKING:
    from udlib.datasets import MultiLabelDataset
    from udlib.datasets.layouts import Source
    from udlib.datasets.summary import Labels, Sizes

app = typer.Typer(
    no_args_is_help=True,
    help="Describe a data set, check its files, download VOC, and make the folder of photos.",
)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="scenes, digits, photos, voc2007, voc2012, coco2014 or nuswide; or the path of a CSV, or of a folder in one of "
        "these layouts.",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a data set that is given by name (default: the folder of that name below UDLIB_DATA)."
    ),
]


@app.command()
def describe(
    data: Data,
    root: Root = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Describe only this split; may be repeated.", metavar="NAME")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the counts, a row per split and class, to this CSV."),
    ] = None,
    sizes: Annotated[bool, typer.Option(help="Read the size of every picture, which takes the most time.")] = True,
    missing: Annotated[
        str,
        typer.Option(
            metavar="drop|fail",
            help="Images whose file is missing: drop them and say how many, or fail. Files that cannot be decoded are counted.",
        ),
    ] = "drop",
) -> None:
    """Count images, labels per image, positives, difficult and unknown labels of each class, and picture sizes.

    Unknown labels (-1 in a CSV) have a table of their own where there are any.
    """
    from udlib.datasets.summary import class_table, label_statistics
    from udlib.figures.text import as_text, counted

    require_writable(csv)
    try:
        source = _source(data, root)
        if require_drop_or_fail(missing) == "drop" and source.layout != "photos":
            source = replace(source, options={**source.options, "missing": "absent"})
        parts = {name: source.open(name) for name in split} if split else _splits_that_there_are(source)
        for note in dict.fromkeys(note for part in parts.values() for note in part.notes):
            print(f"note  {note}", file=sys.stderr)
        for name, part in parts.items():
            if part.skipped:
                print(
                    f"{name}: {counted(len(part.skipped), 'listed image')} missing (first: {part.skipped[0][0]})",
                    file=sys.stderr,
                )
        labels = {name: label_statistics(part.targets, part.difficult, part.unknown) for name, part in parts.items()}
        size_by_split = {name: _sizes(name, part) for name, part in parts.items()} if sizes else {}
    except KeyboardInterrupt:
        print(
            "\nstopped; reading the sizes of the pictures takes longest, and --no-sizes leaves it out", file=sys.stderr
        )
        raise typer.Exit(130) from None
    classes = next(iter(parts.values())).classes
    print(f"{len(classes)} classes, {source.layout} layout, in '{source.folder()}'\n")
    print(as_text(_rows(labels, size_by_split)))
    print("\nimages of each class, difficult ones in brackets\n")
    print(as_text(_class_rows(labels, classes)))
    if unknown := _unknown_rows(labels, classes):
        print("\nunknown labels of each class (-1 in the CSV): neither positive nor negative\n")
        print(as_text(unknown))
    if csv is not None:
        from udlib.files import atomic_write

        atomic_write(csv, class_table(labels, classes).to_csv(index=False, lineterminator="\n").encode())
        print(f"\nwritten to '{csv}'")


@app.command()
def check(data: Data, root: Root = None, missing: Missing = "fail") -> None:
    """Read every list and annotation, compare the splits, decode every image, and report each problem.

    With --missing drop, images that are missing or cannot be decoded are notes, as udlib train --missing drop goes without
    them.

    The exit code is 0 when nothing is wrong, 1 when something is, and 130 after Ctrl-C. A note is not a problem.
    """
    from udlib.datasets.checks import check
    from udlib.figures.text import counted

    wrong = notes = 0
    try:
        source = _source(data, root)
        if require_drop_or_fail(missing) == "drop" and source.layout != "photos":
            source = replace(source, options={**source.options, "missing": "drop"})
        for finding in check(source):
            print(f"{'WRONG' if finding.wrong else 'note '} {finding.text}", flush=True)
            wrong, notes = wrong + finding.wrong, notes + (not finding.wrong)
    except KeyboardInterrupt:
        print(f"\nstopped before the end: {counted(wrong, 'problem')} so far", file=sys.stderr)
        raise typer.Exit(130) from None
    ending = f" ({counted(notes, 'note')})" if notes else ""
    print(f"{counted(wrong, 'problem')} found{ending}" if wrong else f"nothing is wrong{ending}")
    raise typer.Exit(int(wrong > 0))


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="voc2007 (0.9 GB) or voc2012 (2 GB).", show_default=False)
    ],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder for the archives and VOCdevkit (default: the folder of that name below UDLIB_DATA)."),
    ] = None,
) -> None:
    """Fetch the archives of VOC2007 or VOC2012, check them against torchvision's checksums, and extract them.

    After an interruption the same command goes on. You may also put archives that you already have into the folder.
    """
    from udlib.datasets import data_root
    from udlib.datasets.sources import archives, download

    folder = root.expanduser() if root is not None else data_root() / name
    parts = archives(name)
    try:
        for step in download(folder, parts):
            print(step, flush=True)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    print(f"{name} is ready in '{folder}'; " + " and ".join(archive.filename for archive in parts) + " may be deleted")


@app.command()
def photos(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="The folder of the photographs (default: UDLIB_PHOTOS, else photos below UDLIB_DATA).",
        ),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option("--coco", metavar="ROOT", help="Make the folder from COCO's val2017 in this folder."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --coco: the folder that is made (default: photos below UDLIB_DATA)."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every photograph and compare it with the table.")
    ] = False,
) -> None:
    """Say whether the photographs of the data set `photos` are there, check them, or make them from COCO's val2017.

    After an interruption the same command goes on. COCO's own files are only read.
    """
    from udlib.datasets.photos import check_photos, prepare_photos, require_photos

    if folder is not None and coco is not None:
        raise ValueError(f"--coco makes a folder, so '{folder}' is one too many: leave it out, or write --out {folder}")
    if out is not None and coco is None:
        raise ValueError("--out names the folder that --coco makes: give --coco ROOT too, or leave --out out")
    try:
        if coco is not None:
            folder = prepare_photos(coco, out)
        place = check_photos(folder) if check else require_photos(folder)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here" if coco else "\nstopped", file=sys.stderr)
        raise typer.Exit(130) from None
    print(f"photos: all 2,693 photographs are in '{place}'" + (", and each is the table's" if check else ""))


def _source(data: str, root: Path | None) -> Source:
    """The folder of a data set; an embedded one is made first."""
    from udlib.datasets import EMBEDDED, open_dataset
    from udlib.datasets.layouts import Source, require_no_own_folder, source

    if root is None:
        require_no_own_folder(data)
    if data in EMBEDDED:
        return Source("voc", open_dataset(data, "val", root=root).root)
    return source(data, root)


def _splits_that_there_are(source: Source) -> dict[str, MultiLabelDataset]:
    """The splits of a data set; a line says which of the usual ones it does not have."""
    from udlib.datasets.base import NoSplit

    parts, reasons = {}, []
    for name in source.splits():
        try:
            parts[name] = source.open(name)
        except NoSplit as reason:
            reasons.append(f"split '{name}' is not counted: {reason}")
    if not parts:
        raise ValueError(f"'{source.root}' has no split that can be read: {reasons[0]}")
    for reason in reasons:
        print(reason, file=sys.stderr)
    return parts


def _sizes(split: str, part: MultiLabelDataset) -> Sizes | None:
    """Sizes of the pictures that can be read; None where none can."""
    from udlib.datasets.summary import size_statistics
    from udlib.figures.text import counted
    from udlib.progress import track

    sizes, broken = [], 0
    for i in track(range(len(part)), description=f"{split}: sizes"):
        try:
            sizes.append(part.image_size(i))
        except OSError:
            broken += 1
    if broken:
        print(f"{split}: {counted(broken, 'picture')} cannot be read; `udlib data check` names them", file=sys.stderr)
    return size_statistics(sizes) if sizes else None


def _rows(labels: dict[str, Labels], sizes: dict[str, Sizes | None]) -> list[list[str]]:
    """Rows of the table of splits, head first; without rows of sizes where these were not read."""
    from udlib.figures.text import counted

    def row(title: str, value: Callable[[Labels], str]) -> list[str]:
        return [title, *(value(part) for part in labels.values())]

    def size_row(title: str, value: Callable[[Sizes], str]) -> list[str]:
        return [title, *("–" if part is None else value(part) for part in sizes.values())]

    rows = [
        ["", *labels],
        row("images", lambda part: f"{part.images:,}"),
        row("labels per image", lambda part: f"{part.mean:.2f}"),
    ]
    for count in sorted({count for part in labels.values() for count in part.labels_per_image}):
        title = "without labels" if count == 0 else f"with {counted(count, 'label')}"
        rows.append(row(title, lambda part, count=count: f"{part.labels_per_image.get(count, 0):,}"))
    rows.append(row("with a difficult one", lambda part: f"{part.difficult_images:,}"))
    if any(part.unknown_images for part in labels.values()):
        rows.append(row("with an unknown one", lambda part: f"{part.unknown_images:,}"))
    if sizes:
        rows += [
            size_row("width, px", lambda part: _range(*part.width)),
            size_row("height, px", lambda part: _range(*part.height)),
            size_row("commonest size", lambda part: f"{part.commonest[0]} × {part.commonest[1]} ({part.share:.0%})"),
        ]
    return rows


def _range(smallest: int, median: float, largest: int) -> str:
    return f"{smallest}–{largest}, median {median:g}" if smallest < largest else f"{smallest}"


def _class_rows(labels: dict[str, Labels], classes: tuple[str, ...]) -> list[list[str]]:
    """Rows of the table of classes, head first: positives of each split, with the difficult ones in brackets."""

    def cell(part: Labels, k: int) -> str:
        return f"{part.positives[k]:,}" + (f" ({part.difficult[k]:,})" if part.difficult[k] else "")

    return [["", *labels], *([name, *(cell(part, k) for part in labels.values())] for k, name in enumerate(classes))]


def _unknown_rows(labels: dict[str, Labels], classes: tuple[str, ...]) -> list[list[str]]:
    """Rows of the table of unknown labels, head first and their sum last; none where all labels are known."""
    if not any(part.unknown_images for part in labels.values()):
        return []
    rows = [[name, *(f"{part.unknown[k]:,}" for part in labels.values())] for k, name in enumerate(classes)]
    return [["", *labels], *rows, ["all classes", *(f"{sum(part.unknown):,}" for part in labels.values())]]
