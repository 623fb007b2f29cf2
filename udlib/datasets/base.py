"""What every data set here has: images on disk, three label states, boxes, and a posterior where one is known."""

import copy
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Callable, Iterable, Literal, Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from udlib.progress import track

Policy = Literal["positive", "ignore", "negative"]


class NoSplit(FileNotFoundError, ValueError):
    """A data set does not have the split that was asked for, which a caller may be able to do without."""


@dataclass(frozen=True, slots=True)
class Box:
    """One annotated object: pixels from the top left corner, `xmax` and `ymax` exclusive, so width = xmax - xmin."""

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    truncated: bool = False
    occluded: bool = False
    difficult: bool = False
    crowd: bool = False  # COCO: one box around a group whose members are not told apart


def checkout() -> Path | None:
    """The project's own folder, for a package installed from it in editable mode; None for any other installation."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else None


def data_root() -> Path:
    """Folder that holds the data sets: `UDLIB_DATA`, else `data/` of the checkout, else `~/.cache/udlib`."""
    if chosen := os.environ.get("UDLIB_DATA"):
        return Path(chosen).expanduser()
    if found := checkout():
        return found / "data"
    return Path.home() / ".cache" / "udlib"


def load_rgb(path: Path, upright: bool = False) -> Image.Image:
    """Decode one image file and convert it to RGB (grey, palette and CMYK files too; 16 bits of grey become 8).

    As it is stored, which is what boxes refer to, or, with `upright`, turned as its EXIF orientation asks. Raises
    FileNotFoundError for a missing file and ValueError for one that cannot be decoded to its end; both name it.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(ImageOps.exif_transpose(image) if upright else image)
    except FileNotFoundError:
        raise FileNotFoundError(f"image '{path}' is missing: restore the file or take it out of the split") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image '{path}' cannot be decoded ({error}): restore the file, or take it off the list of images; "
            "in Python on_error='skip' leaves it out in VOC layout, elsewhere deleting it and missing='drop'"
        ) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB. Pillow cuts all above 255 off; here 16 bits of grey become 8, and other numbers are a ValueError."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are numbers of 32 bits (mode {image.mode}), of which nobody says what is white: save it with 8 "
            "or 16 bits a channel"
        )
    return image.convert("RGB")


def label_states(objects: Sequence[Sequence[Box]], classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Image-level labels from object-level ones: `targets` uint8 (N, C) and `difficult` bool (N, C).

    A class is present (1) when the image holds any object of it, and difficult when all these objects are difficult;
    VOC writes the three states as 1, 0 (difficult) and -1 (absent).

    >>> label_states([[Box("dog", 0, 0, 9, 9, difficult=True)]], ["cat", "dog"])
    (tensor([[0, 1]], dtype=torch.uint8), tensor([[False,  True]]))
    """
    column = {name: k for k, name in enumerate(classes)}
    present = np.zeros((len(objects), len(column)), dtype=bool)
    easy = np.zeros_like(present)
    for row, boxes in enumerate(objects):
        for box in boxes:
            k = column[box.name]
            present[row, k] = True
            easy[row, k] |= not box.difficult
    return torch.from_numpy(present.astype(np.uint8)), torch.from_numpy(present & ~easy)


def apply_policy(targets: Tensor, difficult: Tensor, policy: Policy) -> tuple[Tensor, Tensor]:
    """What a difficult label counts as: returns `(targets, ignore)`, both (N, C), the inputs untouched.

    `positive` keeps it as 1, `ignore` keeps it but masks it out (True in `ignore`), `negative` turns it into 0.
    The paper's released code trains with `positive`, and measures AP with `ignore` and F1 with `negative`.

    >>> apply_policy(torch.tensor([[1, 1, 0]]), torch.tensor([[False, True, False]]), "negative")
    (tensor([[1, 0, 0]]), tensor([[False, False, False]]))
    """
    if targets.shape != difficult.shape:
        shapes = f"targets {tuple(targets.shape)} and difficult {tuple(difficult.shape)}"
        raise ValueError(f"{shapes} differ: expected one shape (N, C)")
    if difficult.dtype != torch.bool:
        raise TypeError(f"difficult has dtype {difficult.dtype}: expected torch.bool")
    if (stray := difficult & (targets != 1)).any():
        where = stray.nonzero()[0].tolist()
        raise ValueError(f"difficult is True at {where}, targets are not 1 there: only present classes are difficult")
    nothing = torch.zeros_like(difficult)
    if policy == "positive":
        return targets.clone(), nothing
    if policy == "ignore":
        return targets.clone(), difficult.clone()
    if policy == "negative":
        return targets.masked_fill(difficult, 0), nothing
    raise ValueError(f"policy is {policy!r}: expected 'positive', 'ignore' or 'negative'")


def check_trainable(targets: Tensor, classes: Sequence[str]) -> list[str]:
    """Refuse a training set without a single positive label; return the names of the classes that have none."""
    if targets.ndim != 2 or targets.shape[1] != len(classes):
        expected = f"(N, {len(classes)}) for the classes {', '.join(classes)}"
        raise ValueError(f"targets have shape {tuple(targets.shape)}: expected {expected}")
    if ((targets != 0) & (targets != 1)).any():
        raise ValueError(f"targets hold {targets[(targets != 0) & (targets != 1)][0].item()}: expected only 0 and 1")
    counts = (targets != 0).sum(0).tolist()
    if not any(counts):
        raise ValueError(
            f"no positive label among {len(targets)} images × {len(classes)} classes ({', '.join(classes)}): "
            "there is nothing to learn; check the class names, the split, and the policy for difficult labels"
        )
    return [name for name, count in zip(classes, counts) if count == 0]


def require_disjoint(ids: Mapping[str, Sequence[str]]) -> None:
    """Refuse splits that share images: `ids` gives the image ids of each split by its name; raises ValueError.

    >>> require_disjoint({"val": ["a"], "test": ["b", "a"]})
    Traceback (most recent call last):
    ...
    ValueError: 'val' and 'test' share 1 image, 'a' first: what is chosen or fitted on one must be judged on other images
    """
    for (first, a), (second, b) in combinations(ids.items(), 2):
        if shared := sorted(set(a) & set(b)):
            images = "1 image" if len(shared) == 1 else f"{len(shared)} images"
            raise ValueError(
                f"'{first}' and '{second}' share {images}, '{shared[0]}' first: what is chosen or fitted on "
                "one must be judged on other images"
            )


class MultiLabelDataset(Dataset):
    """N images with C labels each, read from disk one by one.

    Attributes: `classes` (C names), `ids` (N), `paths` (N), `targets` uint8 (N, C), 1 also where all objects of the
    class are difficult, `difficult` bool (N, C), True just there, `posterior` float32 (N, C), P(label = 1 | image), or
    None; `upright`, whether images are turned as their EXIF orientation asks, which they are unless there are boxes, for
    these refer to images as they are stored. Item i is `(image, target float32 (C,), difficult bool (C,))`; the image is
    what `transform` makes of the PIL RGB image, or without a transform that image itself.
    """

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
        """Labels come from `objects`, or without boxes from `targets` and `difficult` (default: none is)."""
        self.classes, self.ids, self.paths, self.transform = tuple(classes), list(ids), list(paths), transform
        self.objects = [tuple(boxes) for boxes in objects] if objects is not None else [()] * len(self.ids)
        self.upright = objects is None
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
        """Annotated objects of image i, in pixels of the image as stored on disk."""
        return list(self.objects[i])

    def image_path(self, i: int) -> Path:
        return self.paths[i]

    def image(self, i: int) -> Image.Image:
        """Image i as stored on disk, converted to RGB."""
        return load_rgb(self.image_path(i), self.upright)

    def image_size(self, i: int) -> tuple[int, int]:
        """(width, height) of image i on disk, the frame of `boxes(i)`; only the file's header is read."""
        with Image.open(self.image_path(i)) as image:
            return image.size

    def subset(self, indices: Iterable[int]) -> "MultiLabelDataset":
        """The same data set with only these images, in this order."""
        rows = range(len(self))
        chosen = [rows[i] for i in indices]
        part = copy.copy(self)
        for name in ("ids", "paths", "objects"):
            setattr(part, name, [getattr(self, name)[i] for i in chosen])
        index = torch.tensor(chosen, dtype=torch.long)
        part.targets, part.difficult = self.targets[index], self.difficult[index]
        part.posterior = None if self.posterior is None else self.posterior[index]
        return part

    def only(self, classes: Sequence[int]) -> "MultiLabelDataset":
        """The same images with the labels and objects of these classes alone, by number, in this order.

        Raises ValueError for no class, an unknown one, or one named twice.
        """
        chosen = list(classes)
        if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*range(len(self.classes))}:
            raise ValueError(f"classes are {chosen}: expected different numbers from 0 to {len(self.classes) - 1}")
        part = copy.copy(self)
        part.classes = tuple(self.classes[k] for k in chosen)
        part.objects = [tuple(box for box in boxes if box.name in part.classes) for boxes in self.objects]
        part.targets, part.difficult = self.targets[:, chosen], self.difficult[:, chosen]
        part.posterior = None if self.posterior is None else self.posterior[:, chosen]
        return part


def label_fingerprint(*parts: MultiLabelDataset) -> str:
    """Twelve hexadecimal digits that stand for the classes, the image ids and the labels of these splits: which data it is."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update("\n".join([str(len(part)), *part.classes, *part.ids]).encode())
        digest.update(part.targets.numpy().tobytes() + part.difficult.numpy().tobytes())
    return digest.hexdigest()[:12]


def to_square(image: Image.Image, size: int) -> Tensor:
    """An RGB image stretched to a square, bilinearly: uint8 (3, size, size)."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_memory(dataset: MultiLabelDataset, size: int, workers: int = 1) -> Tensor:
    """Decode every image once, stretched to a square: uint8 (N, 3, size, size), in the order of `dataset.ids`.

    In memory the three colours of a pixel lie side by side (channels last), as files hold them and networks like them best.
    `workers` threads decode (Pillow releases the interpreter lock); the result does not depend on their number.
    """
    pixels = torch.empty(len(dataset), size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)

    def decode(i: int) -> None:
        pixels[i] = to_square(dataset.image(i), size)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for _ in track(pool.map(decode, range(len(dataset))), total=len(dataset), description=f"decoding at {size} px"):
            pass
    return pixels
