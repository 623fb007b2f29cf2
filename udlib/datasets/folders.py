"""What the readers of listed images share: names that stay in their folder, files that are missing, held-out shares."""

import hashlib
import os
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Callable, Iterable, Iterator, Literal, Sequence, TextIO

import torch
from torch import Tensor

from udlib.datasets.base import Box, MultiLabelDataset, NoSplit

HELD_OUT = 0.1  # of the training images, where a data set has none of its own to select on
Missing = Literal["raise", "drop"]
Unlabelled = Literal["keep", "drop"]
Report = Callable[[str], None]


def refuse(problem: str) -> None:
    """The strict way to report a problem of a data set: raise ValueError. A list's `append` collects them instead."""
    raise ValueError(problem)


def portion(name: str) -> float:
    """A number in [0, 1) that follows from the name alone: the same in any order, on any machine, for ever.

    >>> portion("42") == portion("42") != portion("43")
    True
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def held_out(name: str) -> bool:
    """Whether the training image of this id belongs to the held-out `val`: a fixed tenth, chosen by hash."""
    return portion(name) < HELD_OUT


def chosen_by(split: str, ids: Sequence[str]) -> list[int]:
    """Rows of a training list that belong to `train` (the rest), `val` (the held-out tenth), or `trainval` (all)."""
    if split == "trainval":
        return list(range(len(ids)))
    return [i for i, name in enumerate(ids) if held_out(name) == (split == "val")]


def inside(name: str) -> str:
    """A file name from a list, with slashes, relative to its folder; raises ValueError where it leads out of it.

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
    """Refuse an unknown split by name (NoSplit)."""
    if split not in known:
        raise NoSplit(f"{data} has no split '{split}': choose one of {', '.join(known)}")


def first_folder(root: Path, names: Sequence[str], holds: str) -> Path:
    """The first of these folders that exists below `root`; FileNotFoundError where none does."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"'{name}'" for name in names)
    raise FileNotFoundError(f"'{root}' has no {wanted}, which would hold {holds}: extract the images there")


def absent(paths: Sequence[Path]) -> list[int]:
    """Rows of the files that do not exist; each folder is listed once, which is quicker than asking for each file."""
    rows = defaultdict(list)
    for i, path in enumerate(paths):
        rows[path.parent].append(i)
    lacking = []
    for folder, members in rows.items():
        try:
            present = set(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            present = set()
        lacking += [i for i in members if paths[i].name not in present]
    return sorted(lacking)


class Listed(MultiLabelDataset):
    """Images that a list beside them names: what COCO, NUS-WIDE and a folder with a CSV have in common.

    Attributes beside those of `MultiLabelDataset`: `root`, `split`, and `skipped`, `(id, reason)` of each image that
    is left out because its file is missing.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        split: str,
        classes: Sequence[str],
        ids: Sequence[str],
        paths: Sequence[Path],
        objects: Sequence[Sequence[Box]] | None = None,
        *,
        targets: Tensor,
        difficult: Tensor | None = None,
        unlabelled: Unlabelled = "keep",
        missing: Missing = "raise",
        transform: Callable | None = None,
    ):
        """`name` of the data set, for errors. Raises ValueError where no image is left, FileNotFoundError for missing
        ones unless they are dropped."""
        if unlabelled not in ("keep", "drop"):
            raise ValueError(f"unlabelled is {unlabelled!r}: expected 'keep' or 'drop'")
        if missing not in ("raise", "drop"):
            raise ValueError(f"missing is {missing!r}: expected 'raise' or 'drop'")
        wanted = targets.bool().any(dim=1) | (unlabelled == "keep")
        if not wanted.any():
            labelled = " with a label" if len(ids) else ""
            raise ValueError(f"{name} '{root}': split '{split}' has no image{labelled}: check its list")
        lacking = [i for i in absent(paths) if wanted[i]]
        count = int(wanted.sum())
        if lacking and (missing == "raise" or len(lacking) == count):
            remedy = (
                "restore them, take them off the list of images, or, in Python, leave them out with missing='drop'"
                if len(lacking) < count
                else "extract the images, or point root at the folder that holds them"
            )
            raise FileNotFoundError(
                f"{name} '{root}' lacks {len(lacking)} of the {count} images of split '{split}' "
                f"(first: '{paths[lacking[0]]}'): {remedy}"
            )
        super().__init__(classes, ids, paths, objects, targets=targets, difficult=difficult, transform=transform)
        self.root, self.split = root, split
        self.skipped = [(ids[i], f"image '{paths[i]}' is missing") for i in lacking]
        if lacking:
            wanted[lacking] = False
        if not wanted.all():
            vars(self).update(vars(self.subset(torch.nonzero(wanted).flatten().tolist())))


@contextmanager
def utf8(path: Path, remedy: str = "save it as UTF-8") -> Iterator[TextIO]:
    """A text file to read from, past a byte order mark; ValueError that names it where it is not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not UTF-8 ({error}): {remedy}") from error


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs a second time; None where all differ."""
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
