"""Everything that can be wrong with a data set on disk, found file by file."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from udlib.datasets.base import label_states, load_rgb, require_disjoint
from udlib.datasets.coco import annotation_file, has_area, image_folder, read_instances
from udlib.datasets.custom import SPLITS, Listing, find_csv, read_csv
from udlib.datasets.custom import image_folder as csv_image_folder
from udlib.datasets.folders import Report, absent, first_folder
from udlib.datasets.layouts import Source
from udlib.datasets.nuswide import read_concepts, read_images, read_labels
from udlib.datasets.voc import (
    annotation_path,
    disagreements,
    find_classes,
    image_path,
    read_boxes,
    read_split,
    unknown_class,
)
from udlib.progress import track

Images = dict[str, dict[str, Path]]  # split -> id -> path
APART = (("train", "val"), ("train", "test"), ("val", "test"), ("trainval", "test"))


@dataclass(frozen=True)
class Finding:
    """One sentence about a data set; `wrong` is False for what is only worth knowing."""

    text: str
    wrong: bool = True


def check(found: Source) -> Iterator[Finding]:
    """Read every list and every annotation, compare the splits, then decode every image; yields what is wrong or odd.

    In VOC layout the `{class}_{split}.txt` files are held against the annotations. Progress is shown as it goes.
    """
    problems: list[str] = []
    notes: list[str] = []
    images: Images = {}
    _tried(problems.append, lambda: images.update(_READ[found.layout](found, problems.append, notes.append)))
    yield from map(Finding, problems)
    for pair in APART:
        try:
            require_disjoint({split: list(images[split]) for split in pair if split in images})
        except ValueError as error:
            yield Finding(str(error))
    yield from (Finding(text, wrong=False) for text in notes)
    yield from _pictures(images)


def _pictures(images: Images) -> Iterator[Finding]:
    """Missing and broken files, and pictures that two splits hold byte for byte under two names."""
    paths = list(dict.fromkeys(path for rows in images.values() for path in rows.values()))
    gone = absent(paths)
    yield from (Finding(f"image '{paths[i]}' is missing") for i in gone)
    lacking = set(gone)
    paths = [path for i, path in enumerate(paths) if i not in lacking]
    splits: dict[Path, set[str]] = {}
    for split, rows in images.items():
        for path in rows.values():
            splits.setdefault(path, set()).add(split)
    first: dict[str, Path] = {}
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        results = pool.map(_decoded, paths)
        for path, (digest, problem) in zip(paths, track(results, total=len(paths), description="decoding images")):
            if problem:
                yield Finding(problem)
            twin = first.setdefault(digest, path)
            if twin != path and any({a, b} <= splits[twin] ^ splits[path] for a, b in APART):
                yield Finding(
                    f"images '{twin}' and '{path}' are the same file and belong to different splits", wrong=False
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C the rest is not waited for


def _decoded(path: Path) -> tuple[str, str | None]:
    """A digest of the file, and what is wrong with it."""
    try:
        load_rgb(path)
        return hashlib.sha256(path.read_bytes()).hexdigest(), None
    except (OSError, ValueError) as error:
        return str(path), str(error)


def _voc(found: Source, report: Report, note: Report) -> Images:
    root = found.folder()
    classes = find_classes(root)
    splits: dict[str, list[str]] = {}
    listed = found.splits()
    for split in ("train", "val"):
        if (path := root / "ImageSets" / "Main" / f"{split}.txt").is_file() and split not in listed:
            report(f"split file '{path}' begins with two words: expected one image id per line")
        elif split not in listed:
            note(f"'{root}' has no split '{split}', which a training needs: found {', '.join(listed) or 'none'}")
    for split in listed:
        _tried(report, lambda: splits.__setitem__(split, read_split(root, split)))
    objects, broken = {}, set()
    for name in track(
        dict.fromkeys(name for ids in splits.values() for name in ids), description="reading annotations"
    ):
        try:
            boxes = read_boxes(root, name)
            if odd := next((box.name for box in boxes if box.name not in classes), None):
                raise ValueError(unknown_class(annotation_path(root, name), odd, classes))
            objects[name] = boxes
        except (OSError, ValueError) as error:
            report(str(error))
            broken.add(name)
    for split, ids in splits.items():
        whole = [name for name in ids if name in objects]
        targets, difficult = label_states([objects[name] for name in whole], classes)
        states = (targets.int() * 2 - 1).masked_fill(difficult, 0)
        for k, name in enumerate(classes):
            column = dict(zip(whole, states[:, k].tolist()))
            _tried(report, lambda: [report(said) for said in disagreements(root, split, name, column, broken)])
    return {split: {name: image_path(root, name) for name in ids} for split, ids in splits.items()}


def _coco(found: Source, report: Report, note: Report) -> Images:
    images, classes = {}, {}
    for split, part in (("trainval", "train"), ("test", "val")):

        def read(split=split, part=part) -> None:
            path = annotation_file(found.root, part)
            table = read_instances(path, report)
            classes[path.name] = table.classes
            if empty := [name for name, boxes in zip(table.ids, table.objects) if not all(map(has_area, boxes))]:
                note(f"'{path}' has boxes without area in {len(empty)} images (first: {empty[0]}): their labels count")
            folder = image_folder(found.root, part)
            images[split] = {name: folder / file for name, file in zip(table.ids, table.files)}

        _tried(report, read)
    if len(set(classes.values())) > 1:
        report(f"{' and '.join(classes)} list different categories: take both from one release")
    return images


def _nuswide(found: Source, report: Report, note: Report) -> Images:
    images = {}
    classes = read_concepts(found.root)
    for split, part in (("trainval", "Train"), ("test", "Test")):

        def read(split=split, part=part) -> None:
            files = read_images(found.root, part, report)
            read_labels(found.root, part, classes, len(files), report)
            folder = first_folder(found.root, ("Flickr", "images"), "the images")
            images[split] = {str(Path(name).with_suffix("").as_posix()): folder / name for name in files}

        _tried(report, read)
    return images


def _csv(found: Source, report: Report, note: Report) -> Images:
    path = find_csv(found.root)
    listing = read_csv(path, report=report)
    folder = csv_image_folder(path)
    for split in SPLITS:
        rows = [row for row in listing.rows if row.split == split]
        absent_here = set(listing.classes).difference(*(row.labels for row in rows)) if rows else set()
        if not rows and split == "test":
            note(
                f"'{path}' has no image of split 'test': a model can be trained, and not be measured on images new to it"
            )
        elif not rows:
            report(
                f"'{path}' has no image of split '{split}': mark rows so in the column 'split', or leave that column out"
            )
        elif absent_here:
            note(f"split '{split}' has no image with {', '.join(sorted(absent_here))}")
    _slips(listing, note)
    return {split: {row.file: folder / row.file for row in listing.rows if row.split == split} for split in SPLITS}


def _slips(listing: Listing, note: Report) -> None:
    """Note labels of at most two images that are spelled much like one of more images."""
    counts = Counter(label for row in listing.rows for label in row.labels)
    for name, count in counts.items():
        others = [other for other in counts if counts[other] > count]
        if count <= 2 and (like := get_close_matches(name, others, 1, 0.75)):
            note(
                f"label '{name}' is in {count} image{'s' if count > 1 else ''}, and '{like[0]}' in {counts[like[0]]}: is it a slip of "
                "the pen? As it stands it is a class of its own"
            )


def _tried(report: Report, read: Callable[[], object]) -> None:
    """Call it; what makes it stop is one more problem."""
    try:
        read()
    except (OSError, ValueError) as error:
        report(str(error))


_READ = {"voc": _voc, "coco": _coco, "nuswide": _nuswide, "csv": _csv}
