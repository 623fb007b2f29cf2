"""Reader for images with an XML annotation each and no lists of splits, as LabelImg and Roboflow save them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from udlib.datasets.base import Box, NoSplit, label_states
from udlib.datasets.csv_columns import SPLIT_NAMES, SPLITS, split_of
from udlib.datasets.folders import Entries, Listed, Missing, Report, held_out, refuse
from udlib.datasets.image_files import ENDINGS
from udlib.datasets.labels import has_area
from udlib.datasets.voc_annotations import boxes_in, parse_annotation, size_in

IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", ".")


class XMLFolder(Listed):
    """One split of images with an annotation in VOC's XML each, without lists.

    The annotations lie beside the images (LabelImg), in `Annotations` beside a folder of images, or in the folders `train`,
    `valid` and `test` (Roboflow). Without folders of splits the hash of each image's name divides them into 70, 15 and
    15 %; without one of val a tenth of train is held out. An image without an annotation is left out.

    Args:
        root: The folder.
        split: "train", "val", "test", or "trainval", the first two together.
        missing: "raise", or "drop" images whose file is missing; `skipped` then lists them.
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
        annotated = read_annotations(root)
        classes = sorted({box.name for boxes in annotated.values() for box in boxes})
        names = ("train", "val") if split == "trainval" else (split,)
        splits, self.notes = splits_of_folder(root)
        paths = [path for name in names for path in splits.get(name, [])]
        if not paths:
            counts = ", ".join(f"{name} {len(splits.get(name, []))}" for name in SPLITS)
            raise NoSplit(f"'{root}' has no annotation of split '{split}' (found: {counts}): choose one that has some")
        objects = [annotated[path] for path in paths]
        targets, difficult = label_states(objects, classes)
        entries = Entries(
            classes,
            [path.relative_to(root).with_suffix("").as_posix() for path in paths],
            [image_of(root, path) for path in paths],
            targets,
            [tuple(filter(has_area, boxes)) for boxes in objects],
            difficult,
        )
        if empty := [name for name, boxes in zip(entries.ids, objects) if not all(map(has_area, boxes))]:
            where = f"split '{split}' has objects without a box in {len(empty)} images (first: {empty[0]})"
            self.notes += (f"{where}: their labels count",)
        super().__init__("folder", root, split, entries, missing=missing, transform=transform)
        self.boxes_may_turn, self._annotations = True, dict(zip(entries.ids, paths))

    def annotated_size(self, i: int) -> tuple[int, int] | None:
        """Return width and height of image i as its annotation states them; None where it states none."""
        return size_in(self._annotations[self.ids[i]])


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


def read_annotations(root: Path, report: Report = refuse) -> dict[Path, list[Box]]:
    """Read all annotations of a folder.

    Args:
        root: The folder.
        report: Receives each problem; by default the first is raised as ValueError.

    Returns:
        The objects of each annotation that can be read.

    Raises:
        FileNotFoundError: There are no annotations.
    """
    files = annotation_files(root)
    if not files:
        raise FileNotFoundError(f"'{root}' holds no XML annotation: point root at the folder that holds them")
    objects = {}
    for path in files:
        try:
            objects[path] = boxes_in(path, partial(image_of, root, path))
        except ValueError as error:
            report(str(error))
    return objects


def image_of(root: Path, annotation: Path) -> Path:
    """Find the image of an annotation.

    Args:
        root: The data set's folder.
        annotation: The XML file.

    Returns:
        The file of the same name with the ending of an image, or the one that `<filename>` names: beside the annotation,
        or in a folder of images; where there is none, the path at which it was expected.
    """
    below = (
        annotation.relative_to(root / "Annotations").parent if root / "Annotations" in annotation.parents else Path()
    )
    folders = [
        annotation.parent,
        *(root / name / below for name in IMAGE_FOLDERS),
        *(root / name for name in IMAGE_FOLDERS),
    ]
    for folder in folders:
        for ending in ENDINGS:
            for path in (folder / f"{annotation.stem}{ending}", folder / f"{annotation.stem}{ending.upper()}"):
                if path.is_file():
                    return path
    named = Path((parse_annotation(annotation).findtext("filename") or "").replace("\\", "/")).name
    expected = named or f"{annotation.stem}.jpg"
    return next((folder / expected for folder in folders if (folder / expected).is_file()), folders[0] / expected)
