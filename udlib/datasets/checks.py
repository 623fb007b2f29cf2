"""A check of a data set on disk: every list, every annotation and every image is read."""

from collections.abc import Callable, Iterator
from pathlib import Path

from udlib.datasets.base import Box, label_states
from udlib.datasets.coco import note_on_boxes, read_instances, with_crowds
from udlib.datasets.coco_files import coco_splits, images_of_split, require_coco_split
from udlib.datasets.custom import SPLITS, read_csvs
from udlib.datasets.folders import Report, first_folder
from udlib.datasets.layouts import Source
from udlib.datasets.names import doubtful
from udlib.datasets.nuswide import read_concepts, read_images, read_labels
from udlib.datasets.photos import require_photos, wrong_photos
from udlib.datasets.picture_checks import APART, Finding, Images, check_pictures, files_of
from udlib.datasets.readable import absent
from udlib.datasets.training_splits import UNMEASURED, notes_on, require_apart, training_splits
from udlib.datasets.voc_annotations import annotation_path, image_paths, read_boxes, unknown_class
from udlib.datasets.voc_lists import disagreements, find_classes, read_split
from udlib.datasets.voc_splits import USUAL, ids_of_split, splits_of
from udlib.datasets.xml_folders import ImageFinder, read_annotations, splits_of_folder
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
    found = files_of(images)
    files = {split: {name: found[path] for name, path in rows.items()} for split, rows in images.items()}
    for pair in APART:
        _attempt(
            problems.append, lambda pair=pair: require_apart({name: files[name] for name in pair if name in files})
        )
    yield from map(Finding, problems)
    yield from (Finding(text, wrong=False) for text in notes)
    wrong = bool(problems)
    for finding in check_pictures(images, found, drop=_drops(source)):
        wrong |= finding.wrong
        yield finding
    if not wrong:  # else a training would stop at what is said already
        yield from (finding for finding in _training(source) if finding.text not in notes)


def _training(source: Source) -> Iterator[Finding]:
    """Open the splits as a training does: what stops it, else what it prints."""
    try:
        splits = training_splits(source.open)
    except (OSError, ValueError) as error:
        yield Finding(str(error))
        return
    if "test" not in splits and source.layout != "csv":
        yield Finding(f"there is no split 'test': {UNMEASURED}", wrong=False)
    yield from (Finding(text, wrong=False) for text in notes_on(splits))


def _drops(source: Source) -> bool:
    """Whether images that cannot be read are left out."""
    return source.options.get("missing") == "drop"


def _voc(source: Source, report: Report, note: Report) -> Images:
    """Read the lists and the annotations of a VOC folder, and compare them."""
    root = source.folder()
    classes = tuple(source.options.get("classes") or find_classes(root))
    ids_by_split: dict[str, list[str]] = {}
    rules = splits_of(root)
    listed = list(rules)
    for split in ("train", "val"):
        own = split in listed and rules[split].listing == split
        if (path := root / "ImageSets" / "Main" / f"{split}.txt").is_file() and not own:
            report(f"split file '{path}' begins with two words: expected one image id per line")
    for split in listed:
        try:
            ids_by_split[split] = ids_of_split(root, split)
        except (OSError, ValueError) as error:
            (report if split in USUAL else note)(str(error))
    for split, ids in list(ids_by_split.items()):
        if len(absent([annotation_path(root, name) for name in ids])) == len(ids) and split not in ("train", "val"):
            note(f"split '{split}' has no annotation of any of its {len(ids)} images: nothing is measured on it")
            del ids_by_split[split]
    used = dict.fromkeys(name for split, ids in ids_by_split.items() if split in USUAL for name in ids)
    others = dict.fromkeys(name for ids in ids_by_split.values() for name in ids if name not in used)
    objects, broken = _voc_objects(root, list(used), classes, report, note if _drops(source) else report)
    more, more_broken = _voc_objects(root, list(others), classes, note, note)  # a training does not read them
    for split, ids in ids_by_split.items():
        states = _states({name: (objects | more)[name] for name in ids if name in objects or name in more}, classes)
        listing = rules[split].listing
        left_out = broken | more_broken | ({*read_split(root, listing)} - {*ids})
        for name in classes:
            try:
                differences = disagreements(root, listing, name, states[name], left_out)
            except (OSError, ValueError) as error:
                differences = [str(error)]
            for difference in differences:
                note(difference)  # the annotations count
    usual = [split for split in USUAL if split in ids_by_split]
    return {split: dict(zip(ids_by_split[split], image_paths(root, ids_by_split[split]))) for split in usual}


def _states(objects: dict[str, list[Box]], classes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """VOC's three states, 1, 0 (difficult) and -1, by class and image."""
    targets, difficult = label_states(list(objects.values()), classes)
    states = (targets.int() * 2 - 1).masked_fill(difficult, 0)
    return {name: dict(zip(objects, states[:, k].tolist())) for k, name in enumerate(classes)}


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
    """Read every JSON file of a COCO folder."""
    images: Images = {}
    keeps_all, crowd = source.options.get("unlabelled") != "drop", source.options.get("crowd", "positive")
    parts = coco_splits(source.root)
    tables = {}
    for path in dict.fromkeys(part.path for part in parts.values()):

        def read(path: Path = path) -> None:
            tables[path] = read_instances(path, report)
            for text in note_on_boxes(path, tables[path]):
                note(text)

        _attempt(report, read)
    if "train" not in parts:
        _attempt(report, lambda: require_coco_split(source.root, "train"))
    if len({frozenset(table.classes) for table in tables.values()}) > 1:
        report(f"{' and '.join(path.name for path in tables)} list different categories: take them from one release")
    for split, part in parts.items():
        if "trainval" in parts and part.kept != "all":
            continue  # a part of trainval
        if table := tables.get(part.path):
            folder = images_of_split(source.root, part, table.files)
            rows = zip(table.ids, table.files, table.objects)
            images[split] = {
                name: folder / file for name, file, boxes in rows if keeps_all or with_crowds(boxes, crowd)
            }
    return images


def _nuswide(source: Source, report: Report, note: Report) -> Images:
    """Read the lists and the labels of NUS-WIDE."""
    images = {}
    classes = read_concepts(source.root)
    for split, part in (("trainval", "Train"), ("test", "Test")):

        def read(split: str = split, part: str = part) -> None:
            files = read_images(source.root, part, report)
            labels = read_labels(source.root, part, classes, len(files), report)
            folder = first_folder(source.root, ("Flickr", "images"), "the images")
            images[split] = {
                str(Path(name).with_suffix("").as_posix()): folder / name
                for name, labelled in zip(files, labels.any(1).tolist())
                if labelled or source.options.get("unlabelled") != "drop"
            }

        _attempt(report, read)
    return images


def _csv(source: Source, report: Report, note: Report) -> Images:
    """Read a CSV of labels."""
    own = {name: source.options.get(name) for name in ("classes", "images")}
    listing = read_csvs(source.root, **own, report=report)
    counts = {name: sum(name in row.labels for row in listing.rows) for name in listing.classes}
    for text in (*listing.notes, *doubtful(counts)):
        note(text)
    images = {
        split: {row.file: listing.folder / row.file for row in listing.rows if row.split == split} for split in SPLITS
    }
    for split in SPLITS:
        if not images[split] and split == "test":
            note(f"'{listing.path}' has no image of split 'test': {UNMEASURED}")
        elif not images[split]:
            report(
                f"'{listing.path}' has no image of split '{split}': "
                "mark rows so in the column 'split', or leave that column out"
            )
    return images


def _xml(source: Source, report: Report, note: Report) -> Images:
    """Read every annotation of a folder without lists."""
    finder = ImageFinder(source.root)
    annotated = read_annotations(source.root, note if _drops(source) else report, finder)
    splits = splits_of_folder(source.root)[0]
    return {
        split: {
            path.relative_to(source.root).with_suffix("").as_posix(): finder.of(path)
            for path in paths
            if path in annotated
        }
        for split, paths in splits.items()
    }


def _photos(source: Source, report: Report, note: Report) -> Images:
    """Compare the photographs with their table; they are decoded here, so none is left to decode."""
    _attempt(report, lambda: require_photos(source.root))
    for problem in wrong_photos(source.root):
        report(problem)
    return {}


def _attempt(report: Report, read: Callable[[], object]) -> None:
    """Call `read`, and report the error that stops it as one more problem."""
    try:
        read()
    except (OSError, ValueError) as error:
        report(str(error))


_READERS = {"voc": _voc, "coco": _coco, "nuswide": _nuswide, "csv": _csv, "xml": _xml, "photos": _photos}
