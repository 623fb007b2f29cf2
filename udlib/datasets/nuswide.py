"""NUS-WIDE: Flickr pictures labelled with 81 concepts, read from the list files in which it is published."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from udlib.datasets.folders import (
    Entries,
    Listed,
    Missing,
    Report,
    Unlabelled,
    first_folder,
    first_repeated,
    inside,
    refuse,
    require_split,
    rows_of_split,
)
from udlib.datasets.voc_lists import read_lines

SPLITS = {"train": "Train", "val": "Train", "trainval": "Train", "test": "Test"}
REMEDY = "extract ConceptsList.zip, ImageList.zip and Groundtruth.zip there"


class NUSWIDE(Listed):
    """One split of NUS-WIDE, or of any folder in its layout.

    `test` is the published test list. `val`, for selection, is a fixed tenth of the training list that the hash of the
    image id decides; `train` is the rest, and `trainval` is the whole training list. There are no boxes and no
    difficult labels.

    Args:
        root: Folder that holds `ConceptsList/Concepts81.txt`, one concept per line; `ImageList/TrainImagelist.txt` and
            `TestImagelist.txt`, one image per line, with backslashes;
            `Groundtruth/TrainTestLabels/Labels_<concept>_Train.txt` and `_Test.txt`, a 0 or 1 for each image of the
            list; and the images below `Flickr` or `images`.
        split: "train", "val", "trainval" or "test".
        unlabelled: "keep" or "drop" images without a single concept, about a fifth. Papers do either.
        missing: "raise"; "drop" images whose file is missing or cannot be decoded; or "absent", only those whose file is
            missing, without decoding any. `skipped` then lists them. Many images have been deleted from Flickr since, so
            state beside any result how many there were.
        transform: A function of a PIL RGB image.

    Attributes:
        classes: The concepts, in file order.
        ids: The images' paths without ending.

    Raises:
        FileNotFoundError: A file or a folder is missing.
        ValueError: A file is unusable, or a split or an option is unknown.

    Source:
        Chua et al. 2009, "NUS-WIDE: A real-world web image database from National University of Singapore".
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        unlabelled: Unlabelled = "keep",
        missing: Missing = "raise",
        transform: Callable | None = None,
    ):
        root = Path(root).expanduser()
        require_split("NUS-WIDE", split, list(SPLITS))
        classes = read_concepts(root)
        files = read_images(root, SPLITS[split])
        labels = read_labels(root, SPLITS[split], classes, len(files))
        folder = first_folder(root, ("Flickr", "images"), "the images")
        ids = [str(Path(name).with_suffix("").as_posix()) for name in files]
        rows = rows_of_split(split, ids) if split != "test" else list(range(len(ids)))
        entries = Entries(
            classes, [ids[i] for i in rows], [folder / files[i] for i in rows], torch.from_numpy(labels)[rows]
        )
        super().__init__(
            "NUS-WIDE root", root, split, entries, unlabelled=unlabelled, missing=missing, transform=transform
        )


def list_file(root: Path, name: str) -> Path:
    """Find one of the list files.

    Args:
        root: The data set's folder.
        name: The file's path below it.

    Returns:
        The file.

    Raises:
        FileNotFoundError: It is missing.
    """
    if not (root / name).is_file():
        raise FileNotFoundError(f"NUS-WIDE root '{root}' has no '{name}': {REMEDY}")
    return root / name


def read_concepts(root: Path) -> tuple[str, ...]:
    """Read the class names.

    Args:
        root: The data set's folder.

    Returns:
        The names, in file order.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is empty, or a name is repeated.
    """
    path = list_file(root, "ConceptsList/Concepts81.txt")
    concepts = read_lines(path)
    if not concepts:
        raise ValueError(f"'{path}' is empty: expected one concept per line")
    if repeated := first_repeated(concepts):
        raise ValueError(f"'{path}' lists {repeated!r} more than once: list each concept once")
    return tuple(concepts)


def read_images(root: Path, part: str, report: Report = refuse) -> list[str]:
    """Read a list of images.

    Args:
        root: The data set's folder.
        part: "Train" or "Test".
        report: Receives each problem of a line; by default it is raised as ValueError.

    Returns:
        Paths below the folder of images, with slashes.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file names no image, or by default, it has any problem.
    """
    path = list_file(root, f"ImageList/{part}Imagelist.txt")
    files: dict[str, None] = {}
    for number, line in enumerate(read_lines(path), 1):
        try:
            name = inside(line)
        except ValueError as error:
            report(f"'{path}' entry {number}: {error}")
            continue
        if name in files:
            report(f"'{path}' entry {number} lists '{name}' again: list each image once")
        files[name] = None
    if not files:
        raise ValueError(f"'{path}' is empty: expected one image per line")
    return list(files)


def read_labels(root: Path, part: str, classes: tuple[str, ...], count: int, report: Report = refuse) -> np.ndarray:
    """Read the labels of all concepts, one file for each.

    Args:
        root: The data set's folder.
        part: "Train" or "Test".
        classes: The C concepts.
        count: Number of images N in the list.
        report: Receives each problem of a file; by default it is raised as ValueError.

    Returns:
        uint8 (N, C) in {0, 1}; a concept with an unusable file has zeros.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: By default, a file has any problem.
    """
    labels = np.zeros((count, len(classes)), dtype=np.uint8)
    for k, name in enumerate(classes):
        path = list_file(root, f"Groundtruth/TrainTestLabels/Labels_{name}_{part}.txt")
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split()
        if len(lines) != count:
            report(f"'{path}' has {len(lines)} lines, its list of images {count}: expected a 0 or 1 for each image")
        elif stray := set(lines) - {b"0", b"1"}:
            first = min(map(lines.index, stray))
            report(f"'{path}' entry {first + 1} holds {lines[first].decode(errors='replace')!r}: expected 0 or 1")
        else:
            labels[:, k] = np.frombuffer(b"".join(lines), dtype=np.uint8) - ord("0")
    return labels
