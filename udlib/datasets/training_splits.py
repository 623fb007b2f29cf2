"""The splits that a training needs, opened and compared: what would stop it, or spoil its numbers, is said before it.

`udlib data check` and a training call the same functions, so that they say the same.
"""

from collections.abc import Callable, Mapping
from filecmp import cmp
from pathlib import Path

from udlib.datasets.base import MultiLabelDataset, NoSplit, check_trainable, require_disjoint
from udlib.datasets.names import doubtful
from udlib.datasets.voc import VOC

UNMEASURED = "a model can be trained, and not be measured on images new to it"


def training_splits(open_split: Callable[[str], MultiLabelDataset]) -> dict[str, MultiLabelDataset]:
    """Open train, val and, where the data set has one, test.

    Args:
        open_split: Opens a split by its name.

    Returns:
        The splits by name. All have the classes of train, in the same order.

    Raises:
        FileNotFoundError: A split or a file is missing.
        ValueError: A split cannot be read, splits share images or have different classes, or there is nothing to learn in
            train or nothing to be judged on in val or test.
    """
    splits = {split: open_split(split) for split in ("train", "val")}
    try:
        splits["test"] = open_split("test")
    except NoSplit:
        pass
    require_apart({split: dict(zip(part.ids, part.paths)) for split, part in splits.items()})
    classes = splits["train"].classes
    splits = {split: _with_classes(split, part, classes) for split, part in splits.items()}
    check_trainable(splits["train"].targets, classes)
    weights = splits["train"].weights
    if weights is not None and not weights.any():
        raise ValueError(f"the weights of all {len(weights)} training images are 0: give some of them a weight above 0")
    for split, part in splits.items():
        if split != "train" and not (part.targets.bool() & ~part.difficult).any():
            raise ValueError(
                f"'{split}' has {len(part)} images and no positive label that is not difficult: nothing can be "
                "judged on it; check the class names and the split"
            )
    return splits


def _with_classes(split: str, part: MultiLabelDataset, classes: tuple[str, ...]) -> MultiLabelDataset:
    """A split with its classes in this order; ValueError where it has others."""
    for where, other, names in (
        (split, "train", {*part.classes} - {*classes}),
        ("train", split, {*classes} - {*part.classes}),
    ):
        if names:
            raise ValueError(
                f"'{where}' has the class '{min(names)}', and '{other}' does not have it: list the same classes in the "
                "labels of both, also where an image of one of them never shows it"
            )
    return part if part.classes == classes else part.only([part.classes.index(name) for name in classes])


def require_apart(images: Mapping[str, Mapping[str, Path]]) -> None:
    """Refuse splits that share images.

    Args:
        images: The file of each image, by split and id.

    Raises:
        ValueError: An id of two splits stands for the same file, or for files with the same bytes. Tools that number the
            images of each split from 1 give the same id to different images.
    """
    names = list(images)
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            ids = [name for name in images[first] if name in images[second]]
            shared = [name for name in ids if _same_file(images[first][name], images[second][name])]
            require_disjoint({first: shared, second: shared})


def _same_file(first: Path, second: Path) -> bool:
    """Whether two files are one, or have the same bytes; also where one of them is missing."""
    try:
        return first == second or cmp(first, second, shallow=False)
    except OSError:
        return True


def notes_on(splits: Mapping[str, MultiLabelDataset]) -> list[str]:
    """Say what is worth knowing about labelled splits before they are used.

    Args:
        splits: The splits by name, with the same classes.

    Returns:
        Sentences: how labels and splits were read, VOC's class files that contradict annotations, classes that a split
        shows never or always, unknown labels, and names that may be one class in two spellings.
    """
    notes = list(dict.fromkeys(note for part in splits.values() for note in part.notes))
    counts: dict[str, int] = {}
    for split, part in splits.items():
        notes += _class_files(split, part)
        positive = part.targets.bool()
        known = positive | True if part.unknown is None else ~part.unknown
        for word, columns in (("with", ~positive.any(0)), ("without", ~(known & ~positive).any(0))):
            if names := [name for name, alone in zip(part.classes, columns.tolist()) if alone]:
                notes.append(f"split '{split}' has no image {word} {', '.join(names)}")
        if part.unknown is not None and part.unknown.any():
            count = int(part.unknown.sum())
            notes.append(
                f"split '{split}' has {count} unknown labels: they take no part in losses, metrics and calibration"
            )
        for name, count in zip(part.classes, positive.sum(0).tolist()):
            counts[name] = counts.get(name, 0) + count
    return notes + doubtful(counts)


def _class_files(split: str, part: MultiLabelDataset) -> list[str]:
    """Say where VOC's files of classes contradict the annotations, which decide."""
    if not isinstance(part, VOC):
        return []
    try:
        differences = part.check()
    except ValueError as error:
        differences = [str(error)]
    if not differences:
        return []
    count = f"{len(differences)} time{'s' if len(differences) > 1 else ''}"
    return [
        f"split '{split}': files of classes in ImageSets/Main contradict the annotations {count} (first: {differences[0]}); "
        "the annotations count"
    ]
