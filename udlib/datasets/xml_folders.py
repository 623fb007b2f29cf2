"""Reader for images with an XML annotation each and no lists of splits, as LabelImg and Roboflow save them."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from udlib.datasets.base import Box, NoSplit, label_states
from udlib.datasets.csv_columns import SPLIT_NAMES, SPLITS, split_of
from udlib.datasets.folders import Entries, Listed, Missing, Report, held_out, refuse
from udlib.datasets.image_files import ENDINGS
from udlib.datasets.labels import has_area
from udlib.datasets.tables import Table, cached
from udlib.datasets.voc_annotations import boxes_in, parse_annotation, size_in

IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", ".")


class XMLFolder(Listed):
    """One split of images with an annotation in VOC's XML each, without lists.

    The annotations lie beside the images (LabelImg), in `Annotations` beside a folder of images, or in the folders `train`,
    `valid` and `test` (Roboflow). Without folders of splits the hash of each image's name divides them into 70, 15 and
    15 %; without one of val a tenth of train is held out. An image without an annotation is left out.

    The annotations of all splits are read together, since the classes are those of all of them. Of a large folder they are
    read once and kept (`tables.cached`) until a file changes.

    Args:
        root: The folder.
        split: "train", "val", "test", or "trainval", the first two together.
        missing: "raise"; "drop" images whose annotation is broken, or whose file is missing or cannot be decoded; or
            "absent", which does not decode the files. `skipped` then lists them.
        transform: A function of a PIL RGB image.

    Attributes:
        classes: The names in the annotations of all splits, sorted.
        objects: Boxes, clipped to the image; an object without a box gives its label alone.

    Raises:
        FileNotFoundError: There are no annotations, or images are missing.
        ValueError: An annotation is unusable.
    """

    def __init__(self, root: str | Path, split: str, *, missing: Missing = "raise", transform: Callable | None = None):
        root = Path(root).expanduser()
        images, files = ImageFinder(root), require_annotations(root)
        if missing == "raise":
            table = cached(
                f"xml {root.resolve()}",
                len(files),
                lambda: [*files, *map(images.of, files)],
                lambda: _table(files, read_annotations(root, images=images)),
            )
            annotated, broken = dict(zip(files, table.objects, strict=True)), {}
        else:
            problems: list[str] = []
            annotated = {path: tuple(boxes) for path, boxes in read_annotations(root, problems.append, images).items()}
            broken = dict(zip([path for path in files if path not in annotated], problems, strict=True))
        classes = sorted({box.name for boxes in annotated.values() for box in boxes})
        names = ("train", "val") if split == "trainval" else (split,)
        splits, self.notes = splits_of_folder(root)
        paths = [path for name in names for path in splits.get(name, [])]
        if not paths:
            counts = ", ".join(f"{name} {len(splits.get(name, []))}" for name in SPLITS)
            raise NoSplit(f"'{root}' has no annotation of split '{split}' (found: {counts}): choose one that has some")
        left_out = [(_id(root, path), broken[path]) for path in paths if path in broken]
        if len(left_out) == len(paths):
            raise ValueError(f"folder '{root}': no image of split '{split}' can be read: {left_out[0][1]}")
        paths = [path for path in paths if path not in broken]
        objects = [annotated[path] for path in paths]
        targets, difficult = label_states(objects, classes)
        entries = Entries(
            classes,
            [_id(root, path) for path in paths],
            [images.of(path) for path in paths],
            targets,
            [tuple(filter(has_area, boxes)) for boxes in objects],
            difficult,
        )
        if empty := [name for name, boxes in zip(entries.ids, objects) if not all(map(has_area, boxes))]:
            where = f"split '{split}' has objects without a box in {len(empty)} images (first: {empty[0]})"
            self.notes += (f"{where}: their labels count",)
        super().__init__("folder", root, split, entries, missing=missing, transform=transform)
        self.skipped = left_out + self.skipped
        self.boxes_may_turn, self._annotations = True, dict(zip(entries.ids, paths))

    def annotated_size(self, i: int) -> tuple[int, int] | None:
        """Return width and height of image i as its annotation states them; None where it states none."""
        return size_in(self._annotations[self.ids[i]])


def _id(root: Path, annotation: Path) -> str:
    """The id of an annotated image."""
    return annotation.relative_to(root).with_suffix("").as_posix()


def annotation_files(root: Path) -> list[Path]:
    """Find the annotations of a folder.

    Args:
        root: The folder.

    Returns:
        The XML files in `Annotations` and below, or in the folders of splits, or in the folder itself; sorted.
    """
    if (root / "Annotations").is_dir():
        return sorted((root / "Annotations").rglob("*.xml"))
    folders = [path for path in root.iterdir() if path.is_dir() and path.name.lower() in SPLIT_NAMES]
    return sorted(file for folder in folders for file in folder.glob("*.xml")) or sorted(root.glob("*.xml"))


def splits_of_folder(root: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Divide the annotations of a folder into splits.

    Args:
        root: The folder.

    Returns:
        The annotations of each split, and how they were divided, in a sentence where no folder says it.
    """
    files = annotation_files(root)
    splits: dict[str, list[Path]] = {}
    for path in files:
        named = SPLIT_NAMES.get(path.parent.name.lower()) if path.parent.parent == root else None
        splits.setdefault(named or "", []).append(path)
    if "train" not in splits:
        splits = {}
        for path in files:
            splits.setdefault(split_of(path.stem), []).append(path)
        counts = ", ".join(f"{len(splits.get(name, []))} {name}" for name in SPLITS)
        return splits, (f"'{root}' has no lists of splits: the hash of each name divides its images ({counts})",)
    if "val" in splits:
        return splits, ()
    whole = splits["train"]
    splits["train"], splits["val"] = (
        [path for path in whole if held_out(path.stem) == tenth] for tenth in (False, True)
    )
    return splits, (f"'{root}' has no folder of val: the hash of each name holds out a tenth of train",)


def require_annotations(root: Path) -> list[Path]:
    """Find the annotations of a folder that must have some.

    Args:
        root: The folder.

    Returns:
        What `annotation_files` finds.

    Raises:
        FileNotFoundError: There are no annotations.
    """
    files = annotation_files(root)
    if not files:
        raise FileNotFoundError(f"'{root}' holds no XML annotation: point root at the folder that holds them")
    return files


def read_annotations(root: Path, report: Report = refuse, images: "ImageFinder | None" = None) -> dict[Path, list[Box]]:
    """Read all annotations of a folder.

    Args:
        root: The folder.
        report: Receives each problem; by default the first is raised as ValueError.
        images: Finds the images; by default it is made here.

    Returns:
        The objects of each annotation that can be read.

    Raises:
        FileNotFoundError: There are no annotations.
    """
    images = images or ImageFinder(root)
    objects = {}
    for path in require_annotations(root):
        try:
            objects[path] = boxes_in(path, partial(images.of, path))
        except ValueError as error:
            report(str(error))
    return objects


def _table(files: Sequence[Path], annotated: dict[Path, list[Box]]) -> Table:
    """What is kept of the annotations of a folder."""
    names = sorted({box.name for boxes in annotated.values() for box in boxes})
    stems = [path.stem for path in files]
    return Table(tuple(names), stems, stems, [tuple(annotated[path]) for path in files])


class ImageFinder:
    """Finds the images of a folder's annotations. Each folder of images is listed once.

    Args:
        root: The data set's folder.
    """

    def __init__(self, root: Path):
        self.root = root
        self._names: dict[Path, frozenset[str]] = {}

    def of(self, annotation: Path) -> Path:
        """Find the image of an annotation.

        Args:
            annotation: The XML file.

        Returns:
            The file of the same name with the ending of an image, or the one that `<filename>` names: beside the annotation,
            or in a folder of images; where there is none, the path at which it was expected.
        """
        folders = self._folders(annotation)
        for folder in folders:
            for ending in ENDINGS:
                for name in (f"{annotation.stem}{ending}", f"{annotation.stem}{ending.upper()}"):
                    if name in self._listed(folder):
                        return folder / name
        try:
            text = parse_annotation(annotation).findtext("filename") or ""
        except ValueError:
            text = ""  # what is wrong with it is said where its objects are read
        expected = Path(text.replace("\\", "/")).name or f"{annotation.stem}.jpg"
        return next(
            (folder / expected for folder in folders if expected in self._listed(folder)), folders[0] / expected
        )

    def _folders(self, annotation: Path) -> list[Path]:
        """Where the image of an annotation may be."""
        below = Path()
        if self.root / "Annotations" in annotation.parents:
            below = annotation.relative_to(self.root / "Annotations").parent
        return [
            annotation.parent,
            *(self.root / name / below for name in IMAGE_FOLDERS),
            *(self.root / name for name in IMAGE_FOLDERS),
        ]

    def _listed(self, folder: Path) -> frozenset[str]:
        """The names of the files in a folder; none where it does not exist."""
        if folder not in self._names:
            names = frozenset[str]()
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    names = frozenset(entry.name for entry in entries if entry.is_file())
            self._names[folder] = names
        return self._names[folder]
