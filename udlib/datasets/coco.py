"""COCO: an image has the labels of the objects that `instances_*.json` lists for it."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from udlib.datasets.base import Box, label_states
from udlib.datasets.coco_files import images_of_split, require_coco_split
from udlib.datasets.folders import (
    Entries,
    Listed,
    Missing,
    Report,
    Unlabelled,
    inside,
    refuse,
    require_split,
)
from udlib.datasets.labels import has_area
from udlib.datasets.names import clean
from udlib.datasets.tables import Table, cached

SPLITS = ("train", "val", "trainval", "test")
REMEDY = "extract annotations_trainval2014.zip again, or point root at the folder that holds 'annotations'"


class COCO(Listed):
    """One split of COCO 2014 or 2017, or of a folder in its format as CVAT, Roboflow and other tools write it.

    COCO publishes no labels of its test images. So `test` is val2014 (val2017); `val`, for selection, is a fixed tenth of
    train2014 that the hash of the image id decides; `train` is the rest, and `trainval` is all of train2014. In other
    folders a JSON for val or valid is val, and one for test is test; a JSON for all images is divided by the hash of the
    image id into 70, 15 and 15 %.

    Args:
        root: Folder that holds `annotations/instances_train2014.json` and `instances_val2014.json` (or 2017), and the
            images in `train2014` and `val2014`, or in these folders below `images`, or all in `images`; or
            `annotations/instances_default.json` with `images` (CVAT); or `train/_annotations.coco.json`, `valid/…` and
            `test/…` with the images beside them (Roboflow); or `train.json`, `val.json` and `test.json`.
        split: "train", "val", "trainval" or "test".
        crowd: What becomes of an annotation with `iscrowd`, one box around a group. "positive" counts its label as any
            other, as pycocotools does by default and therefore multi-label papers do; "difficult" makes the label
            difficult where all objects of the class are crowds; "drop" leaves these annotations out.
        unlabelled: "keep" or "drop" images without a single label, 702 of train2014 and 367 of val2014. Papers do
            either.
        missing: "raise"; "drop" images whose file is missing or cannot be decoded; or "absent", only those whose file is
            missing, without decoding any. `skipped` then lists them.
        transform: A function of a PIL RGB image.

    Attributes:
        classes: The JSON's categories by rising id, 80 in COCO.
        ids: The JSON's image ids.
        objects: Boxes, clipped to the image. A box without area, of which COCO has some, gives its label but no box.
        empty_boxes: Ids of the images with boxes without area.

    Raises:
        FileNotFoundError: A file or a folder is missing.
        ValueError: A file is unusable, or a split or an option is unknown.

    Source:
        Lin et al. 2014, "Microsoft COCO: Common objects in context".
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        crowd: Literal["positive", "difficult", "drop"] = "positive",
        unlabelled: Unlabelled = "keep",
        missing: Missing = "raise",
        transform: Callable | None = None,
    ):
        root = Path(root).expanduser()
        require_split("COCO", split, SPLITS)
        if crowd not in ("positive", "difficult", "drop"):
            raise ValueError(f"crowd is {crowd!r}: expected 'positive', 'difficult' or 'drop'")
        part = require_coco_split(root, split)
        json_file = part.path
        kilobytes = json_file.stat().st_size // 1000
        table = cached(f"coco {json_file.resolve()}", kilobytes, lambda: [json_file], lambda: read_instances(json_file))
        folder = images_of_split(root, part, table.files)
        rows = part.rows(split, table.ids)
        if table.ids and not rows:
            raise ValueError(
                f"'{json_file}' lists {len(table.ids)} images, and the hash of each id gives none of them to the split "
                f"'{split}': add images, or a JSON for '{split}'"
            )
        objects = [with_crowds(table.objects[i], crowd) for i in rows]
        targets, difficult = label_states(objects, table.classes)
        entries = Entries(
            table.classes,
            [table.ids[i] for i in rows],
            [folder / table.files[i] for i in rows],
            targets,
            [tuple(filter(has_area, boxes)) for boxes in objects],
            difficult,
        )
        self.empty_boxes = [name for name, boxes in zip(entries.ids, objects) if not all(map(has_area, boxes))]
        super().__init__("COCO root", root, split, entries, unlabelled=unlabelled, missing=missing, transform=transform)
        self.notes = part.note() + note_on_boxes(json_file, table)
        self.boxes_may_turn, self._sizes = True, dict(zip(table.ids, table.sizes))

    def annotated_size(self, i: int) -> tuple[float, float]:
        """Return width and height of image i as the JSON states them."""
        return self._sizes[self.ids[i]]


def note_on_boxes(path: Path, table: Table) -> tuple[str, ...]:
    """Say how many images have objects whose box has no area.

    Args:
        path: The JSON.
        table: What it holds.

    Returns:
        A sentence, or nothing.
    """
    empty = [name for name, boxes in zip(table.ids, table.objects) if not all(map(has_area, boxes))]
    if not empty:
        return ()
    return (f"'{path}' has boxes without area in {len(empty)} images (first: {empty[0]}): their labels count",)


def with_crowds(boxes: tuple[Box, ...], crowd: str) -> tuple[Box, ...]:
    """Count crowds as they are to be counted.

    Args:
        boxes: The boxes of one image.
        crowd: "positive", "difficult" or "drop", as in `COCO`.

    Returns:
        The boxes that count.
    """
    if crowd == "positive" or not any(box.crowd for box in boxes):
        return boxes
    if crowd == "drop":
        return tuple(box for box in boxes if not box.crowd)
    return tuple(
        Box(box.name, box.xmin, box.ymin, box.xmax, box.ymax, difficult=box.crowd, crowd=box.crowd) for box in boxes
    )


def read_instances(path: Path, report: Report = refuse) -> Table:
    """Read all images, categories and boxes of one `instances_*.json`.

    Args:
        path: The JSON.
        report: Receives each problem. By default the first is raised as ValueError; with a list's `append`, all
            problems are collected, and the wrong entries are left out.

    Returns:
        The table, in the order of the JSON's list of images.

    Raises:
        ValueError: The file is not an instances JSON at all, or by default, it has any problem.
    """
    content = _content(path)
    names = _categories(content, path, report)
    images = _images(content, path, report)
    objects: dict[int, list[Box]] = {image: [] for image in images}
    fields = {"image_id": int, "category_id": int}
    for item, number in _entries(content, "annotations", path, fields, report):
        where = f"'{path}' annotations[{number}] (id {item.get('id')})"
        if item["image_id"] not in images:
            report(f"{where} belongs to image {item['image_id']}, which 'images' does not list: {REMEDY}")
        elif item["category_id"] not in names:
            report(
                f"{where} has category_id {item['category_id']}: known are "
                f"{', '.join(map(str, names))}; add it to 'categories', or correct it"
            )
        elif (box := _box(item, names, *images[item["image_id"]][1:])) is None:
            report(
                f"{where} of image {item['image_id']} has bbox = {item['bbox']!r}: expected four finite numbers, "
                "x, y, width ≥ 0 and height ≥ 0"
            )
        else:
            objects[item["image_id"]].append(box)
    used = {item.get("category_id") for item in content["annotations"] if isinstance(item, dict)}
    for category in _groups(content["categories"]) - used:
        names.pop(category, None)
    return Table(
        tuple(names.values()),
        [str(image) for image in images],
        [file for file, _, _ in images.values()],
        [tuple(boxes) for boxes in objects.values()],
        [(width, height) for _, width, height in images.values()],
    )


def _categories(content: dict, path: Path, report: Report) -> dict[int, str]:
    """Names of the categories by id, rising."""
    names: dict[int, str] = {}
    for item, number in _entries(content, "categories", path, {"id": int, "name": str}, report):
        if item["id"] in names or clean(item["name"]) in names.values():
            report(
                f"'{path}' categories[{number}] repeats the id {item['id']} or the name {item['name']!r}: "
                "each category needs its own"
            )
        else:
            names[item["id"]] = clean(item["name"])
    return dict(sorted(names.items()))


def _groups(categories: list) -> set[int]:
    """The ids of categories that only name a group of others, as Roboflow writes one; they are never annotated."""
    items = [item for item in categories if isinstance(item, dict)]
    groups = {item.get("supercategory") for item in items}
    return {item.get("id") for item in items if item.get("supercategory") == "none" and item.get("name") in groups}


def _images(content: dict, path: Path, report: Report) -> dict[int, tuple[str, float, float]]:
    """File, width and height of each image by id."""
    images: dict[int, tuple[str, float, float]] = {}
    image_of_file: dict[str, int] = {}
    fields = {"id": int, "file_name": str, "width": (int, float), "height": (int, float)}
    for item, number in _entries(content, "images", path, fields, report):
        try:
            file = inside(item["file_name"])
        except ValueError as error:
            report(f"'{path}' images[{number}]: {error}")
            continue
        if not (0 < item["width"] < math.inf and 0 < item["height"] < math.inf):
            report(f"'{path}' images[{number}] is {item['width']} × {item['height']}: expected its size in pixels")
        elif item["id"] in images:
            report(f"'{path}' images[{number}] repeats the image id {item['id']}: list each image once")
        elif file in image_of_file:
            report(
                f"'{path}' images[{number}] names the file '{file}' of image {image_of_file[file]} again: "
                "list each image once"
            )
        else:
            images[item["id"]], image_of_file[file] = (file, item["width"], item["height"]), item["id"]
    return images


def _content(path: Path) -> dict:
    """The JSON's content, with its three lists."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not valid JSON ({error}), perhaps half a download: {REMEDY}") from error
    lists = ("images", "annotations", "categories")
    absent_lists = [name for name in lists if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if absent_lists:
        holds = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(
            f"'{path}' has no list of {' or '.join(absent_lists)} (found: {holds}): an instances JSON has "
            "images, annotations and categories; captions and keypoints are other files"
        )
    return content


def _entries(content: dict, name: str, path: Path, fields: dict, report: Report) -> Iterator[tuple[dict, int]]:
    """The usable entries of one list, with their numbers from 0; the others are reported."""
    for number, item in enumerate(content[name]):
        for field, kind in fields.items():
            value = item.get(field) if isinstance(item, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                report(
                    f"'{path}' {name}[{number}] has {field} = {value!r}: an instances JSON has one there, of type "
                    f"{getattr(kind, '__name__', 'number')}; captions and keypoints are other files"
                )
                break
        else:
            yield item, number


def _box(item: dict, names: dict[int, str], width: float, height: float) -> Box | None:
    """The box of one annotation, clipped to the image; None where its numbers are unusable.

    A polygon or a mask may come without a box: it has no area then.
    """
    if item.get("bbox") in (None, []):
        return Box(names[item["category_id"]], 0.0, 0.0, 0.0, 0.0, crowd=bool(item.get("iscrowd", 0)))
    try:
        left, top, wide, high = map(float, item["bbox"])
    except (TypeError, ValueError, OverflowError):
        return None
    if not all(map(math.isfinite, (left, top, wide, high))) or wide < 0 or high < 0:
        return None
    right, bottom = max(min(left + wide, width), 0.0), max(min(top + high, height), 0.0)
    return Box(
        names[item["category_id"]],
        min(max(left, 0.0), right),
        min(max(top, 0.0), bottom),
        right,
        bottom,
        crowd=bool(item.get("iscrowd", 0)),
    )
