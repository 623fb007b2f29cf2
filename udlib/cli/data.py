"""`udlib data`: what a data set holds, whether it is whole, and how to get one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from udlib.cli.options import require_writable

if TYPE_CHECKING:
    from udlib.datasets import MultiLabelDataset
    from udlib.datasets.layouts import Source
    from udlib.datasets.summary import Labels, Sizes

app = typer.Typer(
    no_args_is_help=True,
    help="What a data set holds (describe), whether it is whole (check), and how to get one (download).",
)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="scenes, digits, voc2007, voc2012, coco2014, nuswide, or the path of a folder in such a layout, or of a CSV.",
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(help="Where a data set given by name lies (default: the folder of that name below UDLIB_DATA)."),
]


@app.command()
def describe(
    data: Data,
    root: Root = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.", metavar="NAME")] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the counts, a row per split and class, to this CSV."),
    ] = None,
    sizes: Annotated[bool, typer.Option(help="Read the size of every picture, the slow part.")] = True,
) -> None:
    """Count images, labels per image, positives and difficult labels of each class, and the sizes of the pictures.

    COCO, NUS-WIDE and CSV folders are counted without the images that are missing; how many are is said.
    """
    from udlib.datasets.summary import class_table, label_statistics

    require_writable(csv)
    try:
        found = _source(data, root)
        opened = {name: _open(found, name) for name in split or found.splits()}
        for name, part in opened.items():
            if part.skipped:
                print(
                    f"{name}: {_counted(len(part.skipped), 'listed image')} missing (first: {part.skipped[0][0]})",
                    file=sys.stderr,
                )
        labels = {name: label_statistics(part.targets, part.difficult) for name, part in opened.items()}
        measured = {name: _sizes(name, part) for name, part in opened.items()} if sizes else {}
    except KeyboardInterrupt:
        print(
            "\nstopped; what takes longest are the sizes of the pictures, which --no-sizes leaves out", file=sys.stderr
        )
        raise typer.Exit(130) from None
    classes = next(iter(opened.values())).classes
    print(f"{len(classes)} classes, {found.layout} layout, in '{found.folder()}'\n")
    print(_aligned(_rows(labels, measured)))
    print("\nimages of each class, difficult ones in brackets\n")
    print(_aligned(_class_rows(labels, classes)))
    if csv is not None:
        from udlib.files import atomic_write

        atomic_write(csv, class_table(labels, classes).to_csv(index=False, lineterminator="\n").encode())
        print(f"\nwritten to '{csv}'")


@app.command()
def check(data: Data, root: Root = None) -> None:
    """Read every list and annotation, compare the splits, decode every image, and name all that is wrong.

    Exit code 0 when nothing is wrong, 1 when something is, 130 after Ctrl-C. Notes are worth knowing and no fault.
    """
    from udlib.datasets.checks import check

    wrong = notes = 0
    try:
        for finding in check(_source(data, root)):
            print(f"{'WRONG' if finding.wrong else 'note '} {finding.text}", flush=True)
            wrong, notes = wrong + finding.wrong, notes + (not finding.wrong)
    except KeyboardInterrupt:
        print(f"\nstopped before the end: {_counted(wrong, 'problem')} so far", file=sys.stderr)
        raise typer.Exit(130) from None
    ending = f" ({_counted(notes, 'note')})" if notes else ""
    print(f"{_counted(wrong, 'problem')} found{ending}" if wrong else f"nothing is wrong{ending}")
    raise typer.Exit(int(wrong > 0))


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="voc2007 (0.9 GB) or voc2012 (2 GB).", show_default=False)
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that will hold the archives and VOCdevkit (default: the folder of that name below UDLIB_DATA)."
        ),
    ] = None,
) -> None:
    """Fetch the archives of VOC2007 or VOC2012, check them against torchvision's checksums, and extract them.

    After an interruption the same command goes on. Archives that you have already may be put into the folder yourself.
    """
    from udlib.datasets import data_root
    from udlib.datasets.sources import archives, download

    folder = root.expanduser() if root is not None else data_root() / name
    wanted = archives(name)
    try:
        for step in download(folder, wanted):
            print(step, flush=True)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    print(f"{name} is ready in '{folder}'; " + " and ".join(archive.filename for archive in wanted) + " may be deleted")


def _source(data: str, root: Path | None) -> Source:
    from udlib.datasets import EMBEDDED, open_dataset
    from udlib.datasets.layouts import Source, source

    if data in EMBEDDED:
        return Source("voc", open_dataset(data, "val", root=root).root)
    return source(data, root)


def _open(found: Source, split: str) -> MultiLabelDataset:
    return found.open(split) if found.layout == "voc" else found.open(split, missing="drop")


def _sizes(split: str, part: MultiLabelDataset) -> Sizes | None:
    """Sizes of the pictures that can be read; None where none can."""
    from udlib.datasets.summary import size_statistics
    from udlib.progress import track

    found, broken = [], 0
    for i in track(range(len(part)), description=f"{split}: sizes"):
        try:
            found.append(part.image_size(i))
        except OSError:
            broken += 1
    if broken:
        print(f"{split}: {_counted(broken, 'picture')} cannot be read; `udlib data check` names them", file=sys.stderr)
    return size_statistics(found) if found else None


def _rows(labels: dict[str, Labels], sizes: dict[str, Sizes | None]) -> list[list[str]]:
    def row(title: str, value) -> list[str]:
        return [title, *(value(found) for found in labels.values())]

    rows = [
        ["", *labels],
        row("images", lambda found: f"{found.images:,}"),
        row("labels per image", lambda found: f"{found.mean:.2f}"),
    ]
    for count in sorted({count for found in labels.values() for count in found.labels_per_image}):
        title = "without labels" if count == 0 else f"with {_counted(count, 'label')}"
        rows.append(row(title, lambda found, count=count: f"{found.labels_per_image.get(count, 0):,}"))
    rows.append(row("with a difficult one", lambda found: f"{found.difficult_images:,}"))
    for title, part in (("width, px", "width"), ("height, px", "height")):
        if sizes:
            rows.append([title, *(_range(*getattr(found, part)) if found else "–" for found in sizes.values())])
    if sizes:
        rows.append(
            [
                "commonest size",
                *(
                    f"{found.commonest[0]} × {found.commonest[1]} ({found.share:.0%})" if found else "–"
                    for found in sizes.values()
                ),
            ]
        )
    return rows


def _range(smallest: int, median: float, largest: int) -> str:
    return f"{smallest}–{largest}, median {median:g}" if smallest < largest else f"{smallest}"


def _class_rows(labels: dict[str, Labels], classes: tuple[str, ...]) -> list[list[str]]:
    def cell(found: Labels, k: int) -> str:
        return f"{found.positives[k]:,}" + (f" ({found.difficult[k]:,})" if found.difficult[k] else "")

    return [["", *labels], *([name, *(cell(found, k) for found in labels.values())] for k, name in enumerate(classes))]


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
