"""Reader for a folder of images with a CSV of labels, or with one for each split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from udlib.datasets.base import NoSplit
from udlib.datasets.csv_columns import SHARES, SPLITS, Columns, Row, lines_of, require_known
from udlib.datasets.csv_files import CsvFile, find_csvs, unread
from udlib.datasets.folders import Entries, Listed, Missing, Report, held_out, refuse
from udlib.datasets.label_lists import read_labels

__all__ = ["SHARES", "SPLITS", "Custom", "Listing", "Row", "image_folder", "read_csv", "read_csvs"]


class Custom(Listed):
    """One split of a folder of images with a CSV of labels.

    The CSV is UTF-8, with a comma, semicolon or tab between columns. Its first line names the columns:

    - `file` (or filename, file_name, image, path): the image, relative to the folder of images.
    - `split`, optional: train, val or test. Without it the hash of the file name divides the images into 70, 15 and
      15 %, so that images added later do not move the others. Pictures that belong together (one patient, one video)
      need a split column.
    - Either one column for each class, with 1 where it is present, 0 where it is not and -1 where nobody knows:
      `file,cat,dog` / `a.jpg,1,0`; True and False, 1.0 and 0.0 are read, too;
    - or a column `labels` with the names of the classes that are present, separated by ; or |: `file,labels` /
      `a.jpg,cat|dog`. An empty cell means an image without labels. Commas, spaces and lists written as text
      (`['cat', 'dog']`) are read where the whole column leaves no doubt about them (`label_lists`).
    - `weight`, optional: the weight of the image's loss in training; 1 is that of an ordinary image.

    An unknown label (-1) takes no part in losses, metrics and calibration. An empty cell in the column of a class is an
    error, since some people mean "absent" by it and others "unknown".

    There may also be a CSV for each split, `train.csv`, `val.csv` or `valid.csv`, and `test.csv`, or one in each of the
    folders `train`, `valid` and `test`. Where `val` is missing, a tenth of the training images is held out for it.

    Args:
        root: A CSV, or a folder with the CSV or CSVs, as `csv_files.find_csvs` finds them.
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
        root = Path(root).expanduser()
        names = ("train", "val") if split == "trainval" else (split,)
        listing = read_csvs(root, classes, images)
        rows = [row for row in listing.rows if row.split in names]
        if not rows:
            counts = ", ".join(f"{name} {sum(row.split == name for row in listing.rows)}" for name in SPLITS)
            raise NoSplit(
                f"'{listing.path}' has no image of split '{split}' (found: {counts}): choose train, val, test or "
                "trainval, mark rows so in the column 'split', or leave that column out"
            )
        column = {name: k for k, name in enumerate(listing.classes)}
        targets = torch.zeros(len(rows), len(column), dtype=torch.uint8)
        unknown = torch.zeros(len(rows), len(column), dtype=torch.bool)
        for i, row in enumerate(rows):
            targets[i, [column[name] for name in row.labels]] = 1
            unknown[i, [column[name] for name in row.unknown]] = True
        entries = Entries(
            listing.classes,
            [row.file for row in rows],
            [listing.folder / row.file for row in rows],
            targets,
            unknown=unknown if unknown.any() else None,
            weights=torch.tensor([row.weight for row in rows])
            if any(row.weight != 1 for row in listing.rows)
            else None,
        )
        super().__init__("folder", listing.folder, split, entries, missing=missing, transform=transform)
        self.notes = listing.notes


@dataclass(frozen=True)
class Listing:
    """What the CSVs of labels hold: all class names in order, a row for each image, and what is worth knowing."""

    classes: tuple[str, ...]
    rows: list[Row]
    notes: tuple[str, ...] = ()
    path: Path = Path()  # the CSV, or the folder of several
    folder: Path = Path()  # that the rows' file names are relative to


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
    """Read all rows of one CSV of labels.

    Args:
        path: The CSV.
        classes: The names of the classes, if others are to be refused.
        report: Receives each problem of a line; by default it is raised as ValueError.

    Returns:
        The class names and the rows that are usable.

    Raises:
        ValueError: The columns or the whole file are unusable, or by default, a line is.
    """
    return _Reading(classes, report).listing([CsvFile(path)], path, path.parent)


def read_csvs(
    root: Path,
    classes: Sequence[str] | None = None,
    images: str | Path | None = None,
    report: Report = refuse,
) -> Listing:
    """Read all rows of the CSV or the CSVs of a data set.

    Args:
        root: A CSV, or a folder with the CSV or CSVs, as `csv_files.find_csvs` finds them.
        classes: The names of the classes, if others are to be refused.
        images: The folder of images, as in `image_folder`.
        report: Receives each problem of a line; by default it is raised as ValueError.

    Returns:
        The class names and the rows that are usable.

    Raises:
        FileNotFoundError: There is no CSV, or no folder `images`.
        ValueError: The columns or a whole file are unusable, or by default, a line is.
    """
    files = find_csvs(root)
    in_folders = files[0].path.parent != files[-1].path.parent  # one in the folder of each split
    folder = image_folder(root / "any.csv" if in_folders else files[0].path, images)
    listing = _Reading(classes, report).listing(files, files[0].path if len(files) == 1 else root, folder)
    notes = list(listing.notes)
    if others := unread(root, files):
        notes.append(f"of '{root}' {', '.join(others)} {'is' if len(others) == 1 else 'are'} not read")
    return replace(listing, notes=tuple(notes))


class _Reading:
    """Reads the CSVs of one data set; problems of lines go to `report`."""

    def __init__(self, classes: Sequence[str] | None, report: Report):
        self.given, self.report = classes, report
        self.rows: list[Row] = []
        self.places: list[str] = []  # of each row, for errors
        self.cells: dict[int, str] = {}  # of the columns `labels`, by row
        self.classes: tuple[str, ...] | None = None
        self.notes: list[str] = []

    def listing(self, files: Sequence[CsvFile], path: Path, folder: Path) -> Listing:
        """All rows of these files, whose images lie in this folder."""
        place_of_file: dict[str, str] = {}
        by_hash = False
        for file in files:
            by_hash |= self._read(file, folder, place_of_file)
        if not self.rows:
            raise ValueError(f"'{path}' lists no image: expected a line for each below the column names")
        self._lists()
        names = self.classes or tuple(sorted({name for row in self.rows for name in row.labels}))
        names = tuple(self.given) if self.given is not None else names
        if not names:
            raise ValueError(f"'{path}' names no class at all: fill the column 'labels'")
        self._announce(path, by_hash, files)
        return Listing(names, self.rows, tuple(self.notes), path, folder)

    def _read(self, file: CsvFile, folder: Path, place_of_file: dict[str, str]) -> bool:
        """Add the rows of one file; says whether their splits are by hash."""
        path = file.path
        (_, header), *lines = lines_of(path)
        columns = Columns(path, header, self.given, file.split)
        if not columns.labelled:
            if file.split in ("val", "test") and self.rows:
                self.notes.append(f"'{path}' has no labels: nothing is measured on its images")
                return False
            raise ValueError(f"'{path}' has no labels: add a column 'labels', or one column of 0 and 1 for each class")
        self._same_classes(path, columns)
        prefix: str | None = None
        for number, cells in lines:
            place = f"'{path}' line {number}"
            try:
                row = columns.row(cells)
                prefix = _prefix(path, file.split, row.file, folder) if prefix is None else prefix
                row = replace(row, file=prefix + row.file)
                if (earlier := place_of_file.get(row.file)) is not None:
                    where = earlier.removeprefix(f"'{path}' ")
                    raise ValueError(f"lists '{row.file}' of {where} again: list each image once")
            except ValueError as error:
                self.report(f"{place}: {error}")
                continue
            place_of_file[row.file] = place
            if columns.labels is not None:
                self.cells[len(self.rows)] = cells[columns.labels]
            self.rows.append(row)
            self.places.append(place)
        return columns.split is None and file.split is None

    def _same_classes(self, path: Path, columns: Columns) -> None:
        """Refuse files of which one has other class columns than those before."""
        if self.classes is None:
            self.classes = columns.classes
        for name in sorted({*self.classes} ^ {*columns.classes}):
            raise ValueError(
                f"'{path}' and the CSV of another split differ in the column '{name}': give all of them the same columns"
            )

    def _lists(self) -> None:
        """Read the cells of the columns `labels`, all together."""

        def refuse_cell(index: int, problem: str) -> None:
            self.report(f"{self.places[numbers[index]]}: {problem}")

        numbers = list(self.cells)
        labels, notes = read_labels(list(self.cells.values()), self.given or (), refuse_cell)
        self.notes += notes
        for index, names in enumerate(labels):
            if self.given is not None:
                try:
                    require_known("has", "label", names, self.given)
                except ValueError as error:
                    refuse_cell(index, str(error))
                    names = ()
            self.rows[numbers[index]] = replace(self.rows[numbers[index]], labels=names)

    def _announce(self, path: Path, by_hash: bool, files: Sequence[CsvFile]) -> None:
        """Hold out images for val where no file has them, and say which splits are made by hash."""
        splits = [file.split for file in files]
        if by_hash:
            counts = ", ".join(f"{sum(row.split == name for row in self.rows)} {name}" for name in SPLITS)
            self.notes.append(
                f"'{path}' has no column 'split': the hash of each file name divides its images ({counts})"
            )
        elif splits[0] == "train" and "val" not in splits and not any(row.split == "val" for row in self.rows):
            self.rows = [
                replace(row, split="val") if row.split == "train" and held_out(row.file) else row for row in self.rows
            ]
            counts = ", ".join(f"{sum(row.split == name for row in self.rows)} {name}" for name in SPLITS)
            self.notes.append(f"'{path}' has no CSV for val: the hash of each file name holds out a tenth ({counts})")


def _prefix(path: Path, split: str | None, file: str, folder: Path) -> str:
    """What stands before the file names of a CSV: the folder of its split, where the first image lies in that."""
    if path.parent != folder and path.parent.parent == folder:
        return f"{path.parent.name}/"
    if split is not None and not (folder / file).exists():
        return next((f"{name}/" for name in (path.stem, split) if (folder / name / file).exists()), "")
    return ""
