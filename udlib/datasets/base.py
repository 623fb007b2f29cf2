"""What every data set here has: images on disk, three label states, boxes, and a posterior where one is known."""

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from udlib.datasets.decoding import as_rgb, header, load_rgb, to_square, upright_size
from udlib.datasets.labels import Box, Policy, apply_policy, check_trainable, label_states, require_disjoint
from udlib.datasets.orientation import SIDEWAYS, turned_boxes
from udlib.progress import track

__all__ = [
    "Box",
    "MultiLabelDataset",
    "NoSplit",
    "Policy",
    "apply_policy",
    "as_rgb",
    "check_trainable",
    "checkout",
    "data_root",
    "label_fingerprint",
    "label_states",
    "load_rgb",
    "require_disjoint",
    "to_memory",
    "to_square",
]


# What to do about an image of a data set that cannot be read: what a command takes, and what a function takes.
DROP = "restore the file, or leave such images out with --missing drop (in Python missing='drop')"


class NoSplit(FileNotFoundError, ValueError):
    """A data set does not have the requested split; a caller may be able to do without it."""


def checkout() -> Path | None:
    """Find the project's own folder.

    Returns:
        The folder, for a package that was installed from it in editable mode; None for any other installation.
    """
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else None


def data_root() -> Path:
    """Find the folder that holds the data sets.

    Returns:
        `UDLIB_DATA` if it is set, else `data` in the checkout, else `~/.cache/udlib`.
    """
    if variable := os.environ.get("UDLIB_DATA"):
        return Path(variable).expanduser()
    if folder := checkout():
        return folder / "data"
    return Path.home() / ".cache" / "udlib"


class MultiLabelDataset(Dataset):
    """N images with C labels each, read from disk one by one.

    Item i is `(image, target float32 (C,), difficult bool (C,))`. The image is what `transform` returns for the PIL RGB
    image, or that image itself without a transform.

    Args:
        classes: The names of the C classes, in order.
        ids: A name for each of the N images.
        paths: The file of each image.
        objects: The annotated objects of each image, where they are known. Labels come from them by default.
        targets: (N, C) in {0, 1}, instead of the labels of `objects`.
        difficult: Bool (N, C), beside `targets`; by default no label is difficult.
        posterior: P(label = 1 | image), float32 (N, C), where it is known.
        transform: A function of a PIL RGB image.

    Attributes:
        targets: uint8 (N, C). A label is 1 also where all objects of the class are difficult.
        difficult: Bool (N, C), True where all objects of a present class are difficult.
        upright: Whether images are turned as their EXIF orientation says, and boxes with them. They are.
        boxed: Whether objects are given.
        boxes_may_turn: Whether boxes may refer to stored pictures, which their files then tell (`orientation.turned_boxes`).
        unknown: Bool (N, C), True where nobody knows the label; it is 0 in `targets` and takes no part in losses, metrics
            and calibration. None where all labels are known.
        weights: float32 (N,), the weight of each image's loss; None where all are 1.
        notes: What is worth knowing about how the labels and the splits were read.

    Raises:
        ValueError: The arrays do not have the shape (N, C), or the lists do not have the length N.
    """

    unknown: Tensor | None = None
    weights: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        classes: Sequence[str],
        ids: Sequence[str],
        paths: Sequence[Path],
        objects: Sequence[Sequence[Box]] | None = None,
        *,
        targets: Tensor | None = None,
        difficult: Tensor | None = None,
        posterior: Tensor | None = None,
        transform: Callable | None = None,
    ):
        self.classes, self.ids, self.paths, self.transform = tuple(classes), list(ids), list(paths), transform
        self.objects = [tuple(boxes) for boxes in objects] if objects is not None else [()] * len(self.ids)
        self.upright, self.boxed, self.boxes_may_turn = True, objects is not None, False
        if targets is None:
            targets, difficult = label_states(self.objects, self.classes)
        self.targets = targets.to(torch.uint8)
        self.difficult = torch.zeros_like(self.targets, dtype=torch.bool) if difficult is None else difficult
        self.posterior = posterior
        shape = (len(self.ids), len(self.classes))
        for name, array in (("targets", self.targets), ("difficult", self.difficult), ("posterior", posterior)):
            if array is not None and tuple(array.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(array.shape)}: expected {shape}, images × classes")
        if len(self.paths) != len(self.ids) or len(self.objects) != len(self.ids):
            counts = f"{len(self.ids)} ids, {len(self.paths)} paths and {len(self.objects)} lists of objects"
            raise ValueError(f"{counts}: expected equally many")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[object, Tensor, Tensor]:
        image = self.image(i)
        if self.transform is not None:
            image = self.transform(image)
        return image, self.targets[i].float(), self.difficult[i]

    def boxes(self, i: int) -> list[Box]:
        """Return the annotated objects of image i, in pixels of `image(i)`."""
        boxes = list(self.objects[i])
        if not (boxes and self.upright and self.boxes_may_turn):
            return boxes  # without a look at the file
        try:
            stored, orientation, _ = header(self.image_path(i))
        except OSError:
            return boxes  # `image(i)` says what is wrong
        size = self.annotated_size(i) if orientation in SIDEWAYS else None
        return boxes if size is None else turned_boxes(boxes, size, stored, orientation)

    def annotated_size(self, i: int) -> tuple[float, float] | None:
        """Return width and height of image i as its annotation states them; None where it states none."""
        return None

    def image_path(self, i: int) -> Path:
        """Return the file of image i."""
        return self.paths[i]

    def image(self, i: int) -> Image.Image:
        """Decode image i to RGB, turned by its EXIF orientation."""
        return load_rgb(self.image_path(i), self.upright, DROP)

    def image_size(self, i: int) -> tuple[int, int]:
        """Read width and height of `image(i)`, which `boxes(i)` refer to, from the file's header."""
        return upright_size(self.image_path(i), self.upright)

    def as_read_before(self) -> "MultiLabelDataset":
        """Return the same images as models read them that know no rule for EXIF orientation.

        Returns:
            A data set of the same kind whose images are turned unless there are boxes.
        """
        part = copy.copy(self)
        part.upright = not self.boxed
        return part

    def subset(self, indices: Iterable[int]) -> "MultiLabelDataset":
        """Return the same data set with only these images, in this order.

        Args:
            indices: Rows of images; negative ones count from the end.

        Returns:
            A data set of the same kind that shares the transform.
        """
        all_rows = range(len(self))
        rows = [all_rows[i] for i in indices]
        part = copy.copy(self)
        for name in ("ids", "paths", "objects"):
            setattr(part, name, [getattr(self, name)[i] for i in rows])
        index = torch.tensor(rows, dtype=torch.long)
        part.targets, part.difficult = self.targets[index], self.difficult[index]
        for name in ("posterior", "unknown", "weights"):
            setattr(part, name, None if getattr(self, name) is None else getattr(self, name)[index])
        return part

    def only(self, classes: Sequence[int]) -> "MultiLabelDataset":
        """Return the same images with the labels and objects of these classes alone, in this order.

        Args:
            classes: Numbers of classes.

        Returns:
            A data set of the same kind that shares the transform.

        Raises:
            ValueError: No class is given, one is unknown, or one is repeated.
        """
        columns = list(classes)
        if not columns or len({*columns}) < len(columns) or not {*columns} <= {*range(len(self.classes))}:
            raise ValueError(f"classes are {columns}: expected different numbers from 0 to {len(self.classes) - 1}")
        part = copy.copy(self)
        part.classes = tuple(self.classes[k] for k in columns)
        part.objects = [tuple(box for box in boxes if box.name in part.classes) for boxes in self.objects]
        part.targets, part.difficult = self.targets[:, columns], self.difficult[:, columns]
        for name in ("posterior", "unknown"):
            setattr(part, name, None if getattr(self, name) is None else getattr(self, name)[:, columns])
        return part


def label_fingerprint(*parts: MultiLabelDataset) -> str:
    """Identify labelled data by its classes, image ids, labels, and, where there are any, unknown labels and weights.

    Args:
        *parts: The splits, in order.

    Returns:
        Twelve hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update("\n".join([str(len(part)), *part.classes, *part.ids]).encode())
        digest.update(part.targets.numpy().tobytes() + part.difficult.numpy().tobytes())
        for array in (part.unknown, part.weights):
            digest.update(b"" if array is None else array.numpy().tobytes())
    return digest.hexdigest()[:12]


def to_memory(dataset: MultiLabelDataset, size: int, workers: int = 1) -> Tensor:
    """Decode every image once, stretched to a square.

    In memory the three colours of a pixel lie side by side (channels last), as in files and as networks work fastest.

    Args:
        dataset: N images.
        size: Side of the squares in pixels.
        workers: Threads that decode, since Pillow releases the interpreter lock. The result does not depend on it.

    Returns:
        uint8 (N, 3, size, size), in the order of `dataset.ids`.
    """
    pixels = torch.empty(len(dataset), size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)

    def decode(i: int) -> None:
        pixels[i] = to_square(dataset.image(i), size)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for _ in track(pool.map(decode, range(len(dataset))), total=len(dataset), description=f"decoding at {size} px"):
            pass
    return pixels
