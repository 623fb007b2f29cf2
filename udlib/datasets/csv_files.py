"""Where the CSV of labels is, or the CSVs: one for all splits, or one for each."""

from dataclasses import dataclass
from pathlib import Path

from udlib.datasets.csv_columns import SPLIT_NAMES, lines_of


@dataclass(frozen=True)
class CsvFile:
    """One CSV of labels.

    Args:
        path: The file.
        split: The split of all its images; None where it lists those of several.
    """

    path: Path
    split: str | None = None


def find_csvs(root: Path) -> list[CsvFile]:
    """Find the CSVs of labels.

    Args:
        root: A CSV; or a folder with `labels.csv`, with just one CSV, with a CSV for each split (`train.csv`, `val.csv`
            or `valid.csv`, `test.csv`), or with a folder for each split that holds its CSV. A CSV that is named after a
            split stands for those beside it, too, unless it has a column `split`.

    Returns:
        One file for all splits, or a file for each split, train first.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The folder holds several, and their names do not say which is which.
    """
    if root.is_file():
        beside = [] if _has_splits(root) else _by_split(_csvs(root.parent))
        if len(beside) > 1 and root in [file.path for file in beside]:
            return beside
        split = SPLIT_NAMES.get(root.stem.lower())
        return [CsvFile(root, None if split == "train" else split)]
    if not root.is_dir():
        raise FileNotFoundError(f"'{root}' is neither a CSV nor a folder that holds one: check the path")
    files = _csvs(root)
    if (root / "labels.csv") in files:
        return [CsvFile(root / "labels.csv")]
    if len(files) == 1:
        return [CsvFile(files[0])]
    if not files:
        if files := csvs_in_folders(root):
            return files
        raise FileNotFoundError(
            f"folder '{root}' holds no CSV: put 'labels.csv' there, with the columns file and labels"
        )
    if by_split := _by_split(files):
        return by_split
    names = ", ".join(path.name for path in files)
    raise ValueError(
        f"folder '{root}' holds {names}: name the one with the labels 'labels.csv', or give its path; or name those of "
        "the splits 'train.csv', 'val.csv' and 'test.csv'"
    )


def unread(root: Path, files: list[CsvFile]) -> list[str]:
    """Name the CSVs beside those of the labels, which are not read.

    Args:
        root: The folder or the file that was given.
        files: The CSVs of the labels.

    Returns:
        Their names; none where one CSV was given by its path.
    """
    if not root.is_dir():
        return []
    return [path.name for path in _csvs(root) if path not in [file.path for file in files]]


def _csvs(folder: Path) -> list[Path]:
    """The CSVs in a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv" and path.is_file())


def _by_split(paths: list[Path]) -> list[CsvFile]:
    """Those among several CSVs that are named after a split; none where the training images have no file."""
    named: dict[str, Path] = {}
    for path in paths:
        split = SPLIT_NAMES.get(path.stem.lower())
        if split in named:
            raise ValueError(f"'{named[split]}' and '{path}' are both of the split '{split}': keep one of them")
        if split is not None:
            named[split] = path
    return [CsvFile(named[split], split) for split in ("train", "val", "test") if split in named and "train" in named]


def csvs_in_folders(root: Path) -> list[CsvFile]:
    """Find the CSVs of a folder that has a folder for each split, as Roboflow exports them.

    Args:
        root: The folder.

    Returns:
        The one CSV of each folder of a split, train first; none where train has none.
    """
    folders = {SPLIT_NAMES.get(path.name.lower()): path for path in sorted(root.iterdir()) if path.is_dir()}
    files = {split: _csvs(folders[split]) for split in ("train", "val", "test") if split in folders}
    found = [CsvFile(paths[0], split) for split, paths in files.items() if len(paths) == 1]
    return found if found and found[0].split == "train" else []


def _has_splits(path: Path) -> bool:
    """Whether a CSV has a column `split`."""
    try:
        return "split" in [name.lower() for name in lines_of(path)[0][1]]
    except ValueError:
        return False  # its reader says what is wrong with it
