"""The columns of a CSV of labels: what each holds, and what the cells of a line say."""

import csv
import difflib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from udlib.datasets.folders import first_repeated, inside, portion, utf8
from udlib.datasets.names import clean

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
SPLITS = ("train", "val", "test")
# What tools call the splits.
SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
SPLIT_NAMES |= {name: name for name in SPLITS}
SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}  # where no column names the split
# What a cell in the column of a class means, in lower case.
STATES = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "-1": -1, "-1.0": -1}
LIST_COLUMNS = ("label", "tags", "tag", "class", "classes", "target", "targets", "category", "categories")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a CSV.

    Args:
        file: Its path below the folder of images.
        split: Its split.
        labels: The classes that are present.
        unknown: The classes of which the CSV says that nobody knows.
        weight: The weight of its loss.
    """

    file: str
    split: str
    labels: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    weight: float = 1.0


def lines_of(path: Path) -> list[tuple[int, list[str]]]:
    """Read the lines of a CSV.

    Args:
        path: A UTF-8 file with a comma, semicolon or tab between columns.

    Returns:
        The lines that are not blank, each with its number and its cells; at least one.

    Raises:
        ValueError: The file is empty, not UTF-8, or no CSV.
    """
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

    return next((sign for sign in ",;\t" if set(names(sign)) & set(FILE_COLUMNS)), ",")


class Columns:
    """The columns of a CSV, found by the names in its first line.

    Args:
        path: The CSV, for errors.
        header: The names in its first line.
        classes: The names of the classes, if others are to be refused.
        split: The split of all its images, where the file is that of one split.

    Attributes:
        labels: The column `labels`, if there is one.
        classes: The names of the classes, in the form with one column for each.
        known: The classes that were given.
        split: The column `split`, if there is one.

    Raises:
        ValueError: The columns are unusable.
    """

    def __init__(self, path: Path, header: list[str], classes: Sequence[str] | None = None, split: str | None = None):
        self.header, lowercase = header, [name.lower() for name in header]
        self.known, self.of_file = tuple(classes or ()), split
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
        self.split, self.labels, self.weight = (
            lowercase.index(name) if name in lowercase else None for name in ("split", "labels", "weight")
        )
        own = (self.file, self.split, self.labels, self.weight)
        others = [name for i, name in enumerate(header) if i not in own]
        if self.labels is not None:
            if others:
                raise ValueError(
                    f"'{path}' has a column 'labels' and the unknown column '{others[0]}': "
                    "give either 'labels' or one column for each class, and nothing else"
                )
            self.classes, self.places = (), {}
            return
        places = {clean(name): header.index(name) for name in others}
        if classes is not None:
            require_known(f"'{path}' has", "column", list(places), classes)
            if absent := [name for name in classes if name not in places]:
                raise ValueError(f"'{path}' has no column '{absent[0]}': found {', '.join(others) or 'no class'}")
        self.classes = tuple(classes) if classes is not None else tuple(places)
        self.places = {name: places[name] for name in self.classes}

    @property
    def labelled(self) -> bool:
        """Whether any column holds labels."""
        return self.labels is not None or bool(self.classes)

    def row(self, cells: list[str]) -> Row:
        """Read one image. In the form with a column `labels`, that cell is read later, with all others of the column.

        Args:
            cells: The cells of its line.

        Raises:
            ValueError: A cell is unusable.
        """
        if len(cells) != len(self.header):
            raise ValueError(
                f"has {len(cells)} cells where the first line names {len(self.header)} columns: "
                "check its separators, and put quotes around a cell that holds one"
            )
        file = inside(cells[self.file])
        states = {name: self._state(name, cells[place]) for name, place in self.places.items()}
        return Row(
            file,
            self._split(file, cells),
            tuple(name for name, state in states.items() if state == 1),
            tuple(name for name, state in states.items() if state == -1),
            1.0 if self.weight is None else _weight(cells[self.weight]),
        )

    def _split(self, file: str, cells: list[str]) -> str:
        """The split of an image: that of the column, of the file, or of the hash of its name."""
        if self.split is None:
            return self.of_file or split_of(file)
        split = SPLIT_NAMES.get(cells[self.split].lower())
        if split is None:
            raise ValueError(f"has split = {cells[self.split]!r}: expected {', '.join(SPLITS)}")
        if self.of_file not in (None, split):
            raise ValueError(f"has split = {cells[self.split]!r} in a file of the split '{self.of_file}': correct it")
        return split

    def _state(self, name: str, cell: str) -> int:
        """What the cell of a class says: 1, 0, or -1 for unknown."""
        state = STATES.get(cell.lower().replace("\N{MINUS SIGN}", "-"))
        if state is None:
            remedy = "since each column beside file, split and weight is a class"
            if name.lower() in LIST_COLUMNS:
                remedy = "name the column 'labels' if it holds the names of the labels"
            elif cell.lower() in ("", "nan", "na", "none", "null"):
                remedy = "write 0 if the label is absent and -1 if nobody knows, since an empty cell can mean either"
            raise ValueError(f"column '{name}' holds {cell!r}: expected 0 or 1, or -1 for unknown; {remedy}")
        return state


def _weight(cell: str) -> float:
    """The weight of an image."""
    try:
        weight = float(cell)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(
            f"column 'weight' holds {cell!r}: expected a finite number, 0 or above, 1 for an ordinary image"
        )
    return weight


def require_known(where: str, kind: str, names: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse a name that is not among the classes.

    Args:
        where: How the error begins.
        kind: What the names are.
        names: The names.
        classes: The known ones.

    Raises:
        ValueError: A name is unknown; the error names the most similar one.
    """
    for name in names:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, 1)
            hint = f"did you mean '{close[0]}'?" if close else "add it to classes=, or take it out"
            raise ValueError(f"{where} the unknown {kind} '{name}': known are {', '.join(classes)}; {hint}")


def split_of(file: str) -> str:
    """Choose the split of an image by the hash of its file name.

    Args:
        file: The file name.

    Returns:
        "train", "val" or "test", in the proportions of `SHARES`.
    """
    place, end = portion(file), 0.0
    for split, share in SHARES.items():
        end += share
        if place < end:
            return split
    return SPLITS[-1]
