"""Reader for a folder of images with a CSV of labels."""

import csv
import difflib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from udlib.datasets.base import NoSplit
from udlib.datasets.folders import Entries, Listed, Missing, Report, first_repeated, inside, portion, refuse, utf8

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
SPLITS = ("train", "val", "test")
SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}  # where no column names the split


class Custom(Listed):
    """One split of a folder of images with a CSV of labels.

    The CSV is UTF-8, with a comma, semicolon or tab between columns. Its first line names the columns:

    - `file` (or filename, file_name, image, path): the image, relative to the folder of images.
    - `split`, optional: train, val or test. Without it the hash of the file name divides the images into 70, 15 and
      15 %, so that images added later do not move the others. Pictures that belong together (one patient, one video)
      need a split column.
    - Either one column for each class, with 1 where it is present and 0 where it is not: `file,cat,dog` / `a.jpg,1,0`;
    - or a column `labels` with the names of the classes that are present, separated by ; or |: `file,labels` /
      `a.jpg,cat|dog`. An empty cell means an image without labels.

    There is no third state. An empty cell or -1 in the column of a class is an error, since some people mean "absent"
    by it and others "unknown".

    Args:
        root: The CSV, or a folder that holds `labels.csv`, or else just one CSV.
        split: "train", "val", "test", or "trainval", the first two together.
        classes: The names of the classes, in order. With it, a column or a label of another name is an error. By
            default the class columns in order, or the names in `labels` of all splits, sorted.
        images: The folder of images; by default `images` beside the CSV where it exists, else the CSV's own folder.
        missing: "raise"; "drop" images whose file is missing or cannot be decoded; or "absent", only those whose file is
            missing, without decoding any. `skipped` then lists them.
        transform: A function of a PIL RGB image.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The CSV is unusable; the error names its line.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        images: str | Path | None = None,
        missing: Missing = "raise",
        transform: Callable | None = None,
    ):
        path = find_csv(Path(root).expanduser())
        names = ("train", "val") if split == "trainval" else (split,)
        listing = read_csv(path, classes)
        rows = [row for row in listing.rows if row.split in names]
        if not rows:
            counts = ", ".join(f"{name} {sum(row.split == name for row in listing.rows)}" for name in SPLITS)
            raise NoSplit(
                f"'{path}' has no image of split '{split}' (found: {counts}): choose train, val, test or "
                "trainval, mark rows so in the column 'split', or leave that column out"
            )
        folder = image_folder(path, images)
        column = {name: k for k, name in enumerate(listing.classes)}
        targets = torch.zeros(len(rows), len(column), dtype=torch.uint8)
        for i, row in enumerate(rows):
            targets[i, [column[name] for name in row.labels]] = 1
        entries = Entries(listing.classes, [row.file for row in rows], [folder / row.file for row in rows], targets)
        super().__init__("folder", folder, split, entries, missing=missing, transform=transform)


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a CSV: its path below the folder of images, its split, and the classes that are present."""

    file: str
    split: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What a CSV of labels holds: all class names in order, and a row for each image."""

    classes: tuple[str, ...]
    rows: list[Row]


def find_csv(root: Path) -> Path:
    """Find the CSV of labels.

    Args:
        root: The CSV itself, or a folder that holds it.

    Returns:
        The CSV.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The folder holds several, and none is called `labels.csv`.
    """
    if root.is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"'{root}' is neither a CSV nor a folder that holds one: check the path")
    files = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.is_file())
    if (root / "labels.csv") in files:
        return root / "labels.csv"
    if not files:
        raise FileNotFoundError(
            f"folder '{root}' holds no CSV: put 'labels.csv' there, with the columns file and labels"
        )
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise ValueError(f"folder '{root}' holds {names}: name the one with the labels 'labels.csv', or give its path")
    return files[0]


def image_folder(path: Path, images: str | Path | None = None) -> Path:
    """Find the folder that a CSV's file names are relative to.

    Args:
        path: The CSV.
        images: The folder, if it is known.

    Returns:
        `images`, else the folder `images` beside the CSV, else the CSV's own folder.

    Raises:
        FileNotFoundError: `images` is not a folder.
    """
    if images is None:
        return path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    folder = Path(images).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"folder of images '{folder}' does not exist: check images=")
    return folder


def read_csv(path: Path, classes: Sequence[str] | None = None, report: Report = refuse) -> Listing:
    """Read all rows of a CSV of labels.

    Args:
        path: The CSV.
        classes: The names of the classes, if others are to be refused.
        report: Receives each problem of a line; by default it is raised as ValueError.

    Returns:
        The class names and the rows that are usable.

    Raises:
        ValueError: The columns or the whole file are unusable, or by default, a line is.
    """
    (_, header), *lines = _lines(path)
    columns = _Columns(path, header, classes)
    rows: list[Row] = []
    line_of_file: dict[str, int] = {}
    for number, cells in lines:
        try:
            row = columns.row(cells)
            if row.file in line_of_file:
                raise ValueError(f"lists '{row.file}' of line {line_of_file[row.file]} again: list each image once")
            line_of_file[row.file] = number
            rows.append(row)
        except ValueError as error:
            report(f"'{path}' line {number}: {error}")
    if not rows:
        raise ValueError(f"'{path}' lists no image: expected a line for each below the column names")
    names = columns.classes or tuple(sorted({name for row in rows for name in row.labels}))
    if not names:
        raise ValueError(f"'{path}' names no class at all: fill the column 'labels'")
    return Listing(names, rows)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, each with its number and its cells; at least one."""
    with utf8(path, "save it as 'CSV UTF-8'") as file:
        text = file.read()
    header = next((line for line in text.splitlines() if line.strip()), None)
    if header is None:
        raise ValueError(f"'{path}' is empty: expected a line of column names, file among them, and a line per image")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(header), strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if cells and any(cell.strip() for cell in cells):
                lines.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise ValueError(f"'{path}' line {reader.line_num} is no CSV ({error}): check its quotes") from error
    return lines


def _delimiter(header: str) -> str:
    """The separator of the columns: the one with which the first line names a column of files."""

    def names(sign: str) -> list[str]:
        return [cell.strip().lower() for cell in next(csv.reader([header], delimiter=sign))]

    return next((sign for sign in ",;\t" if len(names(sign)) > 1 and set(names(sign)) & set(FILE_COLUMNS)), ",")


class _Columns:
    """The columns of a CSV: finds out what each holds, and turns the cells of a line into a `Row`."""

    def __init__(self, path: Path, header: list[str], classes: Sequence[str] | None):
        self.header, lowercase = header, [name.lower() for name in header]
        if repeated := first_repeated(classes or ()):
            raise ValueError(f"classes hold {repeated!r} more than once: each class needs its own name")
        if "" in header:
            raise ValueError(f"'{path}' column {header.index('') + 1} has no name: name each column, or take it out")
        if repeated := first_repeated(header):
            raise ValueError(f"'{path}' has the column {repeated!r} more than once: each column needs its own name")
        files = [name for name in lowercase if name in FILE_COLUMNS]
        if len(files) != 1:
            raise ValueError(
                f"'{path}' has the columns {', '.join(header)}: expected just one named "
                f"{' or '.join(FILE_COLUMNS)}, parted by commas, semicolons or tabs"
            )
        self.file = lowercase.index(files[0])
        self.split = lowercase.index("split") if "split" in lowercase else None
        self.labels = lowercase.index("labels") if "labels" in lowercase else None
        others = [name for i, name in enumerate(header) if i not in (self.file, self.split, self.labels)]
        if self.labels is not None:
            if others:
                raise ValueError(
                    f"'{path}' has a column 'labels' and the unknown column '{others[0]}': "
                    "give either 'labels' or one column for each class, and nothing else"
                )
            self.classes, self.places = tuple(classes or ()), {}
            return
        if classes is not None:
            _require_known(path, "column", others, classes)
            if absent := [name for name in classes if name not in others]:
                raise ValueError(f"'{path}' has no column '{absent[0]}': found {', '.join(others) or 'no class'}")
        elif not others:
            raise ValueError(f"'{path}' has no labels: add a column 'labels', or one column of 0 and 1 for each class")
        self.classes = tuple(classes) if classes is not None else tuple(others)
        self.places = {name: header.index(name) for name in self.classes}

    def row(self, cells: list[str]) -> Row:
        """One image; ValueError for unusable cells."""
        if len(cells) != len(self.header):
            raise ValueError(
                f"has {len(cells)} cells where the first line names {len(self.header)} columns: "
                "check its separators, and put quotes around a cell that holds one"
            )
        file = inside(cells[self.file])
        split = _split_of(file) if self.split is None else cells[self.split]
        if split not in SPLITS:
            raise ValueError(f"has split = {split!r}: expected {', '.join(SPLITS)}")
        return Row(file, split, self._listed(cells) if self.labels is not None else self._marked(cells))

    def _listed(self, cells: list[str]) -> tuple[str, ...]:
        """The classes in the column `labels`."""
        names = [name.strip() for name in cells[self.labels].replace("|", ";").split(";")]
        names = list(dict.fromkeys(name for name in names if name))
        if self.classes:
            _require_known(None, "label", names, self.classes)
        return tuple(names)

    def _marked(self, cells: list[str]) -> tuple[str, ...]:
        """The classes whose column holds 1."""
        present = []
        for name, place in self.places.items():
            value = cells[place]
            if value not in ("0", "1"):
                raise ValueError(
                    f"column '{name}' holds {value!r}: expected 0 or 1, since each column beside file and "
                    "split is a class; an image whose label is not known is better left out"
                )
            if value == "1":
                present.append(name)
        return tuple(present)


def _require_known(path: Path | None, kind: str, names: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse a name that is not among the classes, with the most similar one."""
    for name in names:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, 1)
            hint = f"did you mean '{close[0]}'?" if close else "add it to classes=, or take it out"
            raise ValueError(
                f"{f'{path!s} has' if path else 'has'} the unknown {kind} '{name}': known are "
                f"{', '.join(classes)}; {hint}"
            )


def _split_of(file: str) -> str:
    """The split of an image by the hash of its file name."""
    place, end = portion(file), 0.0
    for split, share in SHARES.items():
        end += share
        if place < end:
            return split
    return SPLITS[-1]
