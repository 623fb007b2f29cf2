"""Reader for any folder in the layout of PASCAL VOC: VOC2007, VOC2012, or the embedded `scenes` and `digits`."""

import difflib
import math
import os
from pathlib import Path
from typing import Callable, Literal, Sequence
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import torch
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import Image
from torch import Tensor

from udlib.datasets.base import Box, MultiLabelDataset, NoSplit, load_rgb
from udlib.datasets.folders import first_repeated, utf8
from udlib.datasets.tables import Table, cached
from udlib.progress import track

VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
    "sheep sofa train tvmonitor".split()
)
REMEDY = "extract the archive again, or point root at the folder that holds VOCdevkit"
RESTORE = "restore the file, or pass on_error='skip'"


class VOC(MultiLabelDataset):
    """One split of a VOC-layout folder, with VOC's three label states, its boxes, and the posterior where one is known.

    `root` holds `ImageSets/Main/{split}.txt`, `Annotations/*.xml` and `JPEGImages/*.jpg`, or it is a folder above, with
    `VOCdevkit/VOC2007` or `VOC2007` in it (`year` chooses among several). Classes are, in this order: `classes`; the
    lines of `root/classes.txt`; the names of the `{class}_{split}.txt` files in ImageSets/Main; VOC's 20, if they cover
    every name in Annotations; the sorted names found there. All annotations of the split are read once, here.

    Boxes: VOC counts pixels from 1, inclusive, `Box` from 0, exclusive; so xmin - 1, xmax. A box that hangs over the
    edge is clipped to the image; one that is inverted or wholly outside is an error.

    `on_error="skip"` leaves out images whose annotation or JPEG is missing or broken and lists them in `skipped` as
    (id, reason); to find them every image is decoded once. An unknown class name is an error all the same, since it
    means that the list of classes is wrong.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: Sequence[str] | None = None,
        transform: Callable | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        year: int | str | None = None,
    ):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}: expected 'raise' or 'skip'")
        self.root, self.split = find_root(Path(root).expanduser(), year), split
        self.skipped: list[tuple[str, str]] = []
        ids = read_split(self.root, split)
        classes = tuple(classes) if classes is not None else find_classes(self.root)
        if repeated := first_repeated(classes):
            raise ValueError(f"classes hold {repeated!r} more than once: each class needs its own name")
        if on_error == "raise":
            check_complete(self.root, split, ids)
            objects = cached(
                f"voc {self.root.resolve()} {split}", len(ids), lambda: self._files(ids), lambda: self._table(ids)
            ).objects
        else:
            ids, objects = self._readable(ids)
        for name, boxes in zip(ids, objects):
            for box in boxes:
                if box.name not in classes:
                    raise ValueError(unknown_class(annotation_path(self.root, name), box.name, classes))
        super().__init__(
            classes,
            ids,
            [image_path(self.root, name) for name in ids],
            objects,
            posterior=read_posterior(self.root, ids, classes),
            transform=transform,
        )

    def _files(self, ids: list[str]) -> list[Path]:
        # The images too: where an annotation tells no size, that of the image clips the boxes.
        return [path(self.root, name) for path in (annotation_path, image_path) for name in ids]

    def _table(self, ids: list[str]) -> Table:
        objects = [tuple(read_boxes(self.root, name)) for name in ids]
        names = sorted({box.name for boxes in objects for box in boxes})
        return Table(tuple(names), ids, [f"{name}.jpg" for name in ids], objects)

    def _readable(self, ids: list[str]) -> tuple[list[str], list[list[Box]]]:
        kept, objects = [], []
        for name in track(ids, description="checking images"):
            try:
                boxes = read_boxes(self.root, name)
                load_rgb(image_path(self.root, name))
            except (FileNotFoundError, ValueError) as error:
                self.skipped.append((name, str(error)))
            else:
                kept.append(name)
                objects.append(boxes)
        if not kept:
            raise ValueError(
                f"VOC root '{self.root}': none of the {len(ids)} images of split '{self.split}' is readable "
                f"(first: {self.skipped[0][1]}): {REMEDY}"
            )
        return kept, objects

    def check(self) -> list[str]:
        """Hold the labels against the `{class}_{split}.txt` files (1, 0, -1); returns the disagreements in words."""
        states = torch.where(self.targets == 0, -1, 1).masked_fill(self.difficult, 0).tolist()
        left_out = {name for name, _ in self.skipped}
        return [
            said
            for k, name in enumerate(self.classes)
            for said in disagreements(
                self.root, self.split, name, dict(zip(self.ids, (row[k] for row in states))), left_out
            )
        ]


def disagreements(root: Path, split: str, name: str, states: dict[str, int], left_out: set[str]) -> list[str]:
    """Where `{name}_{split}.txt` and the states (1, 0 difficult, -1) by image id differ, in words; nothing without it.

    Images in `left_out` are passed over. Raises ValueError for a line that holds no state.
    """
    path = root / "ImageSets" / "Main" / f"{name}_{split}.txt"
    if not path.is_file():
        return []
    listed = {}
    for number, line in enumerate(read_lines(path), 1):
        image, _, state = line.partition(" ")
        if state.strip() not in ("1", "0", "-1"):
            raise ValueError(f"'{path}' line {number} holds {line!r}: expected an image id and 1, 0 or -1")
        listed[image] = int(state)
    found = [
        f"{image}: listed in {path.name} but not in {split}.txt"
        for image in sorted(listed.keys() - states.keys() - left_out)
    ]
    for image, state in states.items():
        if image not in listed:
            found.append(f"{image}: missing from {path.name}")
        elif listed[image] != state:
            found.append(f"{image}: {path.name} says {listed[image]}, its annotation says {state}")
    return found


def annotation_path(root: Path, name: str) -> Path:
    """Where VOC keeps the annotation of an image."""
    return root / "Annotations" / f"{name}.xml"


def image_path(root: Path, name: str) -> Path:
    """Where VOC keeps the pixels of an image."""
    return root / "JPEGImages" / f"{name}.jpg"


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without blank ones; Windows line ends and a byte order mark do no harm."""
    with utf8(path) as file:
        return [line.strip() for line in file.read().splitlines() if line.strip()]


def find_root(root: Path, year: int | str | None = None) -> Path:
    """The folder that holds ImageSets/Main: `root`, or the VOC folder below it."""
    if not root.is_dir():
        raise FileNotFoundError(f"VOC root '{root}' is not a folder: {REMEDY}")
    if (root / "ImageSets" / "Main").is_dir():
        if year is not None and root.name != f"VOC{year}":
            raise ValueError(f"VOC root '{root}' is a VOC folder, but not VOC{year}: leave out year, or give VOCdevkit")
        found = root
    else:
        mains = [*root.glob("*/ImageSets/Main"), *root.glob("VOCdevkit/*/ImageSets/Main")]
        held = sorted(path.parents[1] for path in mains)
        chosen = [path for path in held if year is None or path.name == f"VOC{year}"]
        if not held:
            raise FileNotFoundError(f"VOC root '{root}' has no 'ImageSets/Main': {REMEDY}")
        if len(chosen) != 1:
            names = ", ".join(path.name for path in held)
            raise ValueError(
                f"VOC root '{root}' holds {names}, year is {year}: choose one with year=, or name its folder"
            )
        found = chosen[0]
    for folder in ("Annotations", "JPEGImages"):
        if not (found / folder).is_dir():
            raise FileNotFoundError(f"VOC root '{found}' has no '{folder}': {REMEDY}")
    return found


def image_sets(root: Path) -> tuple[list[str], list[str]]:
    """Names of the splits and of the classes that have files in ImageSets/Main: `train.txt`, `dog_train.txt`.

    The content tells them apart, since a class may be called "train" and a split "small_train": an id, or an id and a
    state, in each line.
    """
    splits, listings = [], []
    for path in sorted(path for path in (root / "ImageSets" / "Main").glob("*.txt") if path.is_file()):
        with utf8(path) as file:
            (listings if len(file.readline().split()) == 2 else splits).append(path.stem)
    owners = {stem: [split for split in splits if stem.endswith("_" + split)] for stem in listings}
    classes = {stem.removesuffix("_" + max(found, key=len)) for stem, found in owners.items() if found}
    return splits, sorted(classes)


def read_split(root: Path, split: str) -> list[str]:
    """Image ids of one split, in file order."""
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        splits, _ = image_sets(root)
        raise NoSplit(f"VOC root '{root}' has no split '{split}': found {', '.join(splits) or 'none'}")
    ids = read_lines(path)
    if not ids:
        raise ValueError(f"split file '{path}' is empty: expected one image id per line")
    for number, name in enumerate(ids, 1):
        if len(name.split()) > 1:
            raise ValueError(f"split file '{path}' entry {number} holds {name!r}: expected one image id per line")
    if repeated := first_repeated(ids):
        raise ValueError(f"split file '{path}' lists {repeated!r} more than once: list each image once")
    return ids


def find_classes(root: Path) -> tuple[str, ...]:
    """Class names of a folder: the same for each of its splits, so that columns agree between train and test."""
    listing = root / "classes.txt"
    if listing.is_file():
        names = read_lines(listing)
        if repeated := first_repeated(names):
            raise ValueError(f"'{listing}' lists class '{repeated}' more than once: list each once")
        return tuple(names)
    if listed := image_sets(root)[1]:
        return tuple(listed)
    elements = (element for path in (root / "Annotations").glob("*.xml") for element in _named_objects(path))
    names = {element.text.strip() for element in elements if element.text and element.text.strip()}
    return VOC_CLASSES if names <= set(VOC_CLASSES) else tuple(sorted(names))


def _named_objects(path: Path) -> list[Element]:
    # A broken file of another split must not stop this one; read_boxes names it when its own split is read.
    try:
        return parse_annotation(path).findall("object/name")
    except ValueError:
        return []


def check_complete(root: Path, split: str, ids: list[str]) -> None:
    """Refuse a half-extracted folder: every id needs its annotation and its image."""
    for folder, ending in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        present = set(os.listdir(root / folder))
        if absent := [name + ending for name in ids if name + ending not in present]:
            raise FileNotFoundError(
                f"VOC root '{root}' lacks {len(absent)} of {len(ids)} files of split '{split}' in '{folder}' "
                f"(first: {absent[0]}): {REMEDY}; or leave these images out with on_error='skip'"
            )


def parse_annotation(path: Path) -> Element:
    """Root element of one annotation. Entity declarations are refused, whatever they would expand to."""
    try:
        found = fromstring(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"annotation '{path}' is missing: {REMEDY}") from None
    except DefusedXmlException as error:
        raise ValueError(f"annotation '{path}' declares entities ({error}): refused, VOC needs none") from error
    except (ParseError, ValueError, LookupError) as error:
        raise ValueError(f"annotation '{path}' is not valid XML ({error}): {RESTORE}") from error
    if found.tag != "annotation":
        raise ValueError(f"annotation '{path}' begins with <{found.tag}>, not with <annotation>: {RESTORE}")
    return found


def read_boxes(root: Path, name: str) -> list[Box]:
    """Objects of one image; an annotation without objects is an image without labels."""
    path = annotation_path(root, name)
    annotation = parse_annotation(path)
    elements = annotation.findall("object")
    if not elements:
        return []
    # Some tools write 0 × 0, or no size at all: then the image itself knows.
    width, height = (int(_number(annotation, f"size/{side}", path, 0)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        width, height = _header_size(image_path(root, name))
    return [_read_box(element, path, width, height) for element in elements]


def _read_box(element: Element, path: Path, width: int, height: int) -> Box:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"annotation '{path}' has an object without a name: give it one, or take it out")
    xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
    left, top, right, bottom = max(xmin - 1, 0.0), max(ymin - 1, 0.0), min(xmax, width), min(ymax, height)
    if not (xmin <= xmax and ymin <= ymax and left < right and top < bottom):
        raise ValueError(
            f"annotation '{path}': box of {name!r} is xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g} "
            f"in an image of {width} × {height}: expected 1 ≤ xmin ≤ xmax ≤ {width} and 1 ≤ ymin ≤ ymax ≤ {height}"
        )
    flags = (_number(element, flag, path, 0) != 0 for flag in ("truncated", "occluded", "difficult"))
    return Box(name, left, top, float(right), float(bottom), *flags)


def _number(element: Element, tag: str, path: Path, default: float | None = None) -> float:
    text = element.findtext(tag)
    if text is None and default is not None:
        return default
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"annotation '{path}' has {tag} = {text!r}: expected a number")
    return value


def _header_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise ValueError(f"image '{path}' cannot be decoded ({error}): restore the file") from error


def unknown_class(path: Path, name: str, classes: Sequence[str]) -> str:
    """The sentence about a class name that nobody announced, with the nearest known one."""
    close = difflib.get_close_matches(name, classes, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "pass classes= with all names of this folder"
    return f"annotation '{path}' names the class {name!r}: known are {', '.join(classes)}; {hint}"


def read_truth(root: Path) -> dict[str, np.ndarray]:
    """What an embedded data set knows beyond its annotations: the arrays listed at `voc_writer.write_voc`."""
    path = root / "truth.npz"
    try:
        with np.load(path, allow_pickle=False) as truth:
            return {name: truth[name] for name in truth}
    except FileNotFoundError:
        raise FileNotFoundError(f"'{root}' has no 'truth.npz': only embedded data sets know the truth") from None
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for a damaged file
        remedy = f"delete the folder '{root}' and let it be made again"
        raise ValueError(f"'{path}' is not readable ({error!r}): {remedy}") from error


def read_posterior(root: Path, ids: Sequence[str], classes: Sequence[str]) -> Tensor | None:
    """P(label = 1 | scene), float32 (N, C), of an embedded data set; None where it is not known."""
    path = root / "truth.npz"
    if not path.is_file():
        return None
    truth = read_truth(root)
    rows = {name: i for i, name in enumerate(truth["ids"].tolist())}
    columns = {name: k for k, name in enumerate(truth["classes"].tolist())}
    if absent := [name for name in ids if name not in rows] + [name for name in classes if name not in columns]:
        raise ValueError(f"'{path}' does not list {absent[0]!r}: it belongs to other data; make the folder again")
    picked = truth["posterior"][np.ix_([rows[name] for name in ids], [columns[name] for name in classes])]
    return torch.from_numpy(picked.astype(np.float32))
