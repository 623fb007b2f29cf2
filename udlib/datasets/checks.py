"""A check of a data set on disk: every list, every annotation and every image is read."""

from collections import Counter
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from udlib.datasets.base import Box, label_states, require_disjoint
from udlib.datasets.coco import annotation_file, has_area, image_folder, read_instances
from udlib.datasets.custom import SPLITS, Listing, find_csv, read_csv
from udlib.datasets.custom import image_folder as csv_image_folder
from udlib.datasets.folders import Report, first_folder
from udlib.datasets.layouts import Source
from udlib.datasets.nuswide import read_concepts, read_images, read_labels
from udlib.datasets.photos import require_photos, wrong_photos
from udlib.datasets.picture_checks import APART, Finding, Images, check_pictures
from udlib.datasets.voc_annotations import annotation_path, image_paths, read_boxes, unknown_class
from udlib.datasets.voc_lists import disagreements, find_classes, read_split
from udlib.progress import track


def check(source: Source) -> Iterator[Finding]:
    """Read every list and every annotation, compare the splits, then decode every image.

    In VOC layout the `{class}_{split}.txt` files are compared with the annotations. A progress bar is shown. Where the data
    set is read with missing="drop", images that are missing or broken are only worth knowing.

    Args:
        source: The data set.

    Yields:
        What is wrong or worth knowing.
    """
    problems: list[str] = []
    notes: list[str] = []
    images: Images = {}
    _attempt(problems.append, lambda: images.update(_READERS[source.layout](source, problems.append, notes.append)))
    yield from map(Finding, problems)
    for pair in APART:
        try:
            require_disjoint({split: list(images[split]) for split in pair if split in images})
        except ValueError as error:
            yield Finding(str(error))
    yield from (Finding(text, wrong=False) for text in notes)
    yield from check_pictures(images, drop=_drops(source))


def _drops(source: Source) -> bool:
    """Whether images that cannot be read are left out."""
    return source.options.get("missing") == "drop"


def _voc(source: Source, report: Report, note: Report) -> Images:
    """Read the lists and the annotations of a VOC folder, and compare them."""
    root = source.folder()
    classes = find_classes(root)
    ids_by_split: dict[str, list[str]] = {}
    listed = source.splits()
    for split in ("train", "val"):
        if (path := root / "ImageSets" / "Main" / f"{split}.txt").is_file() and split not in listed:
            report(f"split file '{path}' begins with two words: expected one image id per line")
        elif split not in listed:
            note(f"'{root}' has no split '{split}', which a training needs: found {', '.join(listed) or 'none'}")
    for split in listed:
        try:
            ids_by_split[split] = read_split(root, split)
        except (OSError, ValueError) as error:
            report(str(error))
    names = dict.fromkeys(name for ids in ids_by_split.values() for name in ids)
    objects, broken = _voc_objects(root, list(names), classes, report, note if _drops(source) else report)
    for split, ids in ids_by_split.items():
        whole = [name for name in ids if name in objects]
        targets, difficult = label_states([objects[name] for name in whole], classes)
        states = (targets.int() * 2 - 1).masked_fill(difficult, 0)
        for k, name in enumerate(classes):
            column = dict(zip(whole, states[:, k].tolist()))
            try:
                differences = disagreements(root, split, name, column, broken)
            except (OSError, ValueError) as error:
                differences = [str(error)]
            for difference in differences:
                report(difference)
    return {split: dict(zip(ids, image_paths(root, ids))) for split, ids in ids_by_split.items()}


def _voc_objects(
    root: Path, names: list[str], classes: tuple[str, ...], report: Report, report_broken: Report
) -> tuple[dict[str, list[Box]], set[str]]:
    """The objects of each image by its id, and the ids of the images with a broken annotation."""
    objects, broken = {}, set()
    for name in track(names, description="reading annotations"):
        try:
            boxes = read_boxes(root, name)
        except (OSError, ValueError) as error:
            report_broken(str(error))
            broken.add(name)
            continue
        if unknown := next((box.name for box in boxes if box.name not in classes), None):
            report(unknown_class(annotation_path(root, name), unknown, classes))
            broken.add(name)
        else:
            objects[name] = boxes
    return objects, broken


def _coco(source: Source, report: Report, note: Report) -> Images:
    """Read both JSON files of a COCO folder."""
    images, classes = {}, {}
    for split, part in (("trainval", "train"), ("test", "val")):

        def read(split: str = split, part: str = part) -> None:
            path = annotation_file(source.root, part)
            table = read_instances(path, report)
            classes[path.name] = table.classes
            if empty := [name for name, boxes in zip(table.ids, table.objects) if not all(map(has_area, boxes))]:
                note(f"'{path}' has boxes without area in {len(empty)} images (first: {empty[0]}): their labels count")
            folder = image_folder(source.root, part)
            images[split] = {name: folder / file for name, file in zip(table.ids, table.files)}

        _attempt(report, read)
    if len(set(classes.values())) > 1:
        report(f"{' and '.join(classes)} list different categories: take both from one release")
    return images


def _nuswide(source: Source, report: Report, note: Report) -> Images:
    """Read the lists and the labels of NUS-WIDE."""
    images = {}
    classes = read_concepts(source.root)
    for split, part in (("trainval", "Train"), ("test", "Test")):

        def read(split: str = split, part: str = part) -> None:
            files = read_images(source.root, part, report)
            read_labels(source.root, part, classes, len(files), report)
            folder = first_folder(source.root, ("Flickr", "images"), "the images")
            images[split] = {str(Path(name).with_suffix("").as_posix()): folder / name for name in files}

        _attempt(report, read)
    return images


def _csv(source: Source, report: Report, note: Report) -> Images:
    """Read a CSV of labels."""
    path = find_csv(source.root)
    listing = read_csv(path, report=report)
    folder = csv_image_folder(path)
    for split in SPLITS:
        rows = [row for row in listing.rows if row.split == split]
        absent_here = set(listing.classes).difference(*(row.labels for row in rows)) if rows else set()
        if not rows and split == "test":
            note(
                f"'{path}' has no image of split 'test': "
                "a model can be trained, and not be measured on images new to it"
            )
        elif not rows:
            report(
                f"'{path}' has no image of split '{split}': "
                "mark rows so in the column 'split', or leave that column out"
            )
        elif absent_here:
            note(f"split '{split}' has no image with {', '.join(sorted(absent_here))}")
    _note_misspellings(listing, note)
    return {split: {row.file: folder / row.file for row in listing.rows if row.split == split} for split in SPLITS}


def _photos(source: Source, report: Report, note: Report) -> Images:
    """Compare the photographs with their table; they are decoded here, so none is left to decode."""
    _attempt(report, lambda: require_photos(source.root))
    for problem in wrong_photos(source.root):
        report(problem)
    return {}


def _note_misspellings(listing: Listing, note: Report) -> None:
    """Note labels of at most two images that are spelled much like a label of more images."""
    counts = Counter(label for row in listing.rows for label in row.labels)
    for name, count in counts.items():
        others = [other for other in counts if counts[other] > count]
        if count <= 2 and (similar := get_close_matches(name, others, 1, 0.75)):
            images = f"{count} image{'s' if count > 1 else ''}"
            note(
                f"label '{name}' is in {images}, and '{similar[0]}' in {counts[similar[0]]}: is it a slip of "
                "the pen? As it stands it is a class of its own"
            )


def _attempt(report: Report, read: Callable[[], object]) -> None:
    """Call `read`, and report the error that stops it as one more problem."""
    try:
        read()
    except (OSError, ValueError) as error:
        report(str(error))


_READERS = {"voc": _voc, "coco": _coco, "nuswide": _nuswide, "csv": _csv, "photos": _photos}
