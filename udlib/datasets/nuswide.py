"""NUS-WIDE: Flickr pictures labelled with 81 concepts, in the list files in which it is published."""

from pathlib import Path
from typing import Callable

import numpy as np
import torch

from udlib.datasets.folders import (
    Listed,
    Missing,
    Report,
    Unlabelled,
    chosen_by,
    first_folder,
    first_repeated,
    inside,
    refuse,
    require_split,
)
from udlib.datasets.voc import read_lines

SPLITS = {"train": "Train", "val": "Train", "trainval": "Train", "test": "Test"}
REMEDY = "extract ConceptsList.zip, ImageList.zip and Groundtruth.zip there"


class NUSWIDE(Listed):
    """One split of NUS-WIDE (Chua et al. 2009), or of any folder that keeps to its layout.

    `root` holds `ConceptsList/Concepts81.txt`, one concept per line; `ImageList/TrainImagelist.txt` and
    `TestImagelist.txt`, one image per line, with backslashes; `Groundtruth/TrainTestLabels/Labels_<concept>_Train.txt`
    and `_Test.txt`, a 0 or 1 per image of the list; and the images below `Flickr` or `images`. Classes are the concepts
    in file order, `ids` the images' paths without ending. There are no boxes and no difficult labels.

    Splits: `test` is the test list; to select on there is `val`, a fixed tenth of the training list chosen by the hash
    of the image id; `train` is the rest, and `trainval` the whole training list.

    unlabelled: "keep" (default) or "drop" images without a single concept, about a fifth; both are in use. missing:
    "raise" (default), or "drop" images that are not on disk: many have gone from Flickr since, so say how many there
    were beside any result. `skipped` lists them.
    Raises FileNotFoundError for a missing file, ValueError for an unusable one and for an unknown split or option.
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
        rows = chosen_by(split, ids) if split != "test" else range(len(ids))
        super().__init__(
            "NUS-WIDE root",
            root,
            split,
            classes,
            [ids[i] for i in rows],
            [folder / files[i] for i in rows],
            targets=torch.from_numpy(labels)[list(rows)],
            unlabelled=unlabelled,
            missing=missing,
            transform=transform,
        )


def list_file(root: Path, name: str) -> Path:
    """One of the files of lists; FileNotFoundError where it is missing."""
    if not (root / name).is_file():
        raise FileNotFoundError(f"NUS-WIDE root '{root}' has no '{name}': {REMEDY}")
    return root / name


def read_concepts(root: Path) -> tuple[str, ...]:
    """Class names, in file order."""
    path = list_file(root, "ConceptsList/Concepts81.txt")
    concepts = read_lines(path)
    if not concepts:
        raise ValueError(f"'{path}' is empty: expected one concept per line")
    if repeated := first_repeated(concepts):
        raise ValueError(f"'{path}' lists {repeated!r} more than once: list each concept once")
    return tuple(concepts)


def read_images(root: Path, part: str, report: Report = refuse) -> list[str]:
    """Paths of the images of the "Train" or "Test" list, with slashes, below the folder of images."""
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
    """Labels of all concepts, uint8 (count, C), one file for each."""
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
