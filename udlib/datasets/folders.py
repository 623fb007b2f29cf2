"""What the readers of listed images share: safe file names, missing files, the held-out share, and UTF-8 text."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TextIO, get_args

import torch
from torch import Tensor

from udlib.datasets.base import Box, MultiLabelDataset, NoSplit
from udlib.datasets.image_files import find_files, rivals
from udlib.datasets.readable import absent, unusable

HELD_OUT = 0.1  # of the training images, where a data set publishes no images to select on
Missing = Literal["raise", "drop", "absent"]
Unlabelled = Literal["keep", "drop"]
Report = Callable[[str], object]  # receives each problem of a data set as one sentence


def refuse(problem: str) -> None:
    """Report a problem of a data set by raising ValueError; a list's `append` in its place collects problems."""
    raise ValueError(problem)


def portion(name: str) -> float:
    """Turn a name into a number that never changes, whatever the order of the names and the machine.

    Args:
        name: Any text.

    Returns:
        A number in [0, 1), from the name's hash.

    Example:
        >>> portion("42") == portion("42") != portion("43")
        True
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def held_out(name: str) -> bool:
    """Tell whether a training image belongs to the held-out `val`, a fixed tenth that its hash decides.

    Args:
        name: The image's id.

    Returns:
        True for images of `val`.
    """
    return portion(name) < HELD_OUT


def rows_of_split(split: str, ids: Sequence[str]) -> list[int]:
    """Select the rows of a training list that belong to a split.

    Args:
        split: "val", the held-out tenth; "train", the rest; or "trainval", all.
        ids: The image ids of the whole list.

    Returns:
        Rows of `ids`, rising.
    """
    if split == "trainval":
        return list(range(len(ids)))
    return [i for i, name in enumerate(ids) if held_out(name) == (split == "val")]


def inside(name: str) -> str:
    r"""Check that a file name from a list stays in its folder.

    Args:
        name: A relative file name, with slashes or backslashes.

    Returns:
        The name with slashes.

    Raises:
        ValueError: The name is empty, absolute, or leads out of the folder.

    Example:
        >>> inside("actor\\\\0001.jpg"), inside("./a/b.jpg")
        ('actor/0001.jpg', 'a/b.jpg')
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise ValueError(
            f"file name {name!r} leads out of its folder: write it relative to the folder of images, "
            "without '..', drive letters or a leading slash"
        )
    return str(path)


def require_split(data: str, split: str, known: Sequence[str]) -> None:
    """Refuse an unknown split.

    Args:
        data: The data set's name, for the error.
        split: The requested split.
        known: The splits that there are.

    Raises:
        NoSplit: `split` is not one of them.
    """
    if split not in known:
        raise NoSplit(f"{data} has no split '{split}': choose one of {', '.join(known)}")


def require_missing(missing: str) -> None:
    """Refuse an unknown value of `missing`.

    Args:
        missing: The value.

    Raises:
        ValueError: It is not one of `Missing`.
    """
    if missing not in get_args(Missing):
        raise ValueError(f"missing is {missing!r}: expected {', '.join(map(repr, get_args(Missing)))}")


def first_folder(root: Path, names: Sequence[str], holds: str) -> Path:
    """Find the first of these folders that exists below `root`.

    Args:
        root: The folder to look in.
        names: Names of folders, in order of preference.
        holds: What the folder holds, for the error.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: None of them exists.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    folders = " or ".join(f"'{name}'" for name in names)
    raise FileNotFoundError(f"'{root}' has no {folders}, which would hold {holds}: extract the images there")


@dataclass(frozen=True)
class Entries:
    """What a list says of its N images and C classes."""

    classes: Sequence[str]
    ids: Sequence[str]
    paths: Sequence[Path]
    targets: Tensor  # (N, C) in {0, 1}
    objects: Sequence[Sequence[Box]] | None = None
    difficult: Tensor | None = None  # bool (N, C)
    unknown: Tensor | None = None  # bool (N, C)
    weights: Tensor | None = None  # float32 (N,)


class Listed(MultiLabelDataset):
    """Images named by a list that lies beside them, as in COCO, NUS-WIDE and a folder with a CSV.

    Args:
        name: What to call the data set in errors.
        root: Its folder.
        split: Its split.
        entries: What the list says.
        unlabelled: "keep" or "drop" images without a single label.
        missing: "raise"; "drop" images whose file is missing or cannot be decoded, for which every image is decoded once
            (`readable.unreadable`); or "absent", drop only those whose file is missing.
        transform: A function of a PIL RGB image.

    Attributes:
        root: The folder.
        split: The split.
        skipped: `(id, reason)` of each image that is left out because its file is missing or cannot be decoded.

    Raises:
        ValueError: An option is unknown, or no image is left.
        FileNotFoundError: Images are missing, and are not to be dropped, or all are missing.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        split: str,
        entries: Entries,
        *,
        unlabelled: Unlabelled = "keep",
        missing: Missing = "raise",
        transform: Callable | None = None,
    ):
        if unlabelled not in ("keep", "drop"):
            raise ValueError(f"unlabelled is {unlabelled!r}: expected 'keep' or 'drop'")
        require_missing(missing)
        ids, paths = entries.ids, find_files(entries.paths)
        kept = entries.targets.bool().any(dim=1) | (unlabelled == "keep")
        if not kept.any():
            labelled = " with a label" if len(ids) else ""
            raise ValueError(f"{name} '{root}': split '{split}' has no image{labelled}: check its list")
        without_file = [i for i in absent(paths) if kept[i]]
        count = int(kept.sum())
        if without_file and (missing == "raise" or len(without_file) == count):
            remedy = (
                "restore them, take them off the list of images, or leave them out with --missing drop (in Python "
                "missing='drop')"
                if len(without_file) < count
                else "extract the images, or point root at the folder that holds them"
            )
            first = paths[without_file[0]]
            raise FileNotFoundError(
                f"{name} '{root}' lacks {len(without_file)} of the {count} images of split '{split}' "
                f"(first: '{first}'{rivals(first)}): {remedy}"
            )
        super().__init__(
            entries.classes,
            ids,
            paths,
            entries.objects,
            targets=entries.targets,
            difficult=entries.difficult,
            transform=transform,
        )
        self.root, self.split = root, split
        self.unknown, self.weights = entries.unknown, entries.weights
        rows = torch.nonzero(kept).flatten().tolist()
        problems = unusable([paths[i] for i in rows], decode=missing == "drop") if missing != "raise" else {}
        if len(problems) == len(rows):
            raise ValueError(f"{name} '{root}': no image of split '{split}' can be read: {problems[0]}")
        self.skipped = [(ids[rows[k]], reason) for k, reason in problems.items()]
        kept[[rows[k] for k in problems]] = False
        if not kept.all():
            vars(self).update(vars(self.subset(torch.nonzero(kept).flatten().tolist())))


@contextmanager
def utf8(path: Path, remedy: str = "save it as UTF-8") -> Iterator[TextIO]:
    """Open a UTF-8 text file for reading, past a byte order mark.

    Args:
        path: The file.
        remedy: What to do about a file that is not UTF-8, for the error.

    Yields:
        The open file.

    Raises:
        ValueError: The file is not UTF-8; raised when the text is read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not UTF-8 ({error}): {remedy}") from error


def first_repeated(names: Iterable[str]) -> str | None:
    """Find the first name that occurs a second time.

    Args:
        names: Any names.

    Returns:
        The name; None where all names differ.
    """
    earlier = set()
    for name in names:
        if name in earlier:
            return name
        earlier.add(name)
    return None
