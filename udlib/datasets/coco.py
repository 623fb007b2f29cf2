"""COCO 2014 as a multi-label data set: an image has the labels of the objects that `instances_*.json` lists for it."""

import json
import math
from pathlib import Path
from typing import Callable, Iterator, Literal

from udlib.datasets.base import Box, label_states
from udlib.datasets.folders import (
    Listed,
    Missing,
    Report,
    Unlabelled,
    chosen_by,
    first_folder,
    inside,
    refuse,
    require_split,
)
from udlib.datasets.tables import Table, cached

SPLITS = {"train": "train", "val": "train", "trainval": "train", "test": "val"}
REMEDY = "extract annotations_trainval2014.zip again, or point root at the folder that holds 'annotations'"


class COCO(Listed):
    """One split of COCO 2014 (Lin et al. 2014), or of any folder that keeps to its layout.

    `root` holds `annotations/instances_train2014.json` and `instances_val2014.json`, and the images in `train2014` and
    `val2014`, or in these folders below `images`, or all in `images`. Classes are the JSON's categories by rising id,
    80 in COCO; `ids` are its image ids; boxes are clipped to the image.

    Splits: COCO publishes no labels of its test images, so `test` is val2014, and to select on there is `val`, a fixed
    tenth of train2014 chosen by the hash of the image id; `train` is the rest, and `trainval` all of train2014.

    crowd: an annotation with `iscrowd` is one box around a group. "positive" (default) counts its label as any other,
    which is what pycocotools returns unless told otherwise and so what multi-label papers count; "difficult" keeps the
    label, but as a difficult one where all objects of the class are crowds; "drop" leaves these annotations out.

    unlabelled: "keep" (default) or "drop" images without a single label, 702 of train2014 and 367 of val2014; both
    are in use. missing: "raise" (default), or "drop" images that are not on disk, which `skipped` then lists.

    A box without area, of which COCO itself is not free, gives its label but no box; `empty_boxes` holds the image's id.
    Raises FileNotFoundError for a missing file, ValueError for an unusable one and for an unknown split or option.
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
        require_split("COCO", split, list(SPLITS))
        if crowd not in ("positive", "difficult", "drop"):
            raise ValueError(f"crowd is {crowd!r}: expected 'positive', 'difficult' or 'drop'")
        part = SPLITS[split]
        json_file, folder = annotation_file(root, part), image_folder(root, part)
        kilobytes = json_file.stat().st_size // 1000
        table = cached(f"coco {json_file.resolve()}", kilobytes, lambda: [json_file], lambda: read_instances(json_file))
        rows = chosen_by(split, table.ids) if part == "train" else range(len(table.ids))
        objects = [_with_crowds(table.objects[i], crowd) for i in rows]
        targets, difficult = label_states(objects, table.classes)
        ids = [table.ids[i] for i in rows]
        self.empty_boxes = [name for name, boxes in zip(ids, objects) if not all(map(has_area, boxes))]
        super().__init__(
            "COCO root",
            root,
            split,
            table.classes,
            ids,
            [folder / table.files[i] for i in rows],
            [tuple(filter(has_area, boxes)) for boxes in objects],
            targets=targets,
            difficult=difficult,
            unlabelled=unlabelled,
            missing=missing,
            transform=transform,
        )


def has_area(box: Box) -> bool:
    """Whether a box holds any pixel."""
    return box.xmin < box.xmax and box.ymin < box.ymax


def _with_crowds(boxes: tuple[Box, ...], crowd: str) -> tuple[Box, ...]:
    if crowd == "positive" or not any(box.crowd for box in boxes):
        return boxes
    if crowd == "drop":
        return tuple(box for box in boxes if not box.crowd)
    return tuple(
        Box(box.name, box.xmin, box.ymin, box.xmax, box.ymax, difficult=box.crowd, crowd=box.crowd) for box in boxes
    )


def annotation_file(root: Path, part: str) -> Path:
    """The JSON of "train" or "val"; FileNotFoundError where it is missing."""
    if not root.is_dir():
        raise FileNotFoundError(f"COCO root '{root}' is not a folder: {REMEDY}")
    path = root / "annotations" / f"instances_{part}2014.json"
    if not path.is_file():
        found = sorted(found.name for found in path.parent.glob("*.json"))
        raise FileNotFoundError(
            f"COCO root '{root}' has no 'annotations/{path.name}' (found: "
            f"{', '.join(found) or 'no JSON there'}): {REMEDY}"
        )
    return path


def image_folder(root: Path, part: str) -> Path:
    """The folder of the images of "train" or "val"."""
    return first_folder(root, (f"{part}2014", f"images/{part}2014", "images"), "its images")


def read_instances(path: Path, report: Report = refuse) -> Table:
    """All images, categories and boxes of one `instances_*.json`, in the order of its list of images.

    `report` is given each problem: by default the first is raised as ValueError; with a list's `append` what is wrong
    is left out and all problems are collected. A file that is no instances JSON at all is a ValueError in any case.
    """
    content = _content(path)
    names: dict[int, str] = {}
    for item, number in _entries(content, "categories", path, {"id": int, "name": str}, report):
        if item["id"] in names or item["name"] in names.values():
            report(
                f"'{path}' categories[{number}] repeats the id {item['id']} or the name {item['name']!r}: "
                "each category needs its own"
            )
        else:
            names[item["id"]] = item["name"]
    names = dict(sorted(names.items()))
    images: dict[int, tuple[str, float, float]] = {}
    files: dict[str, int] = {}
    wanted = {"id": int, "file_name": str, "width": (int, float), "height": (int, float)}
    for item, number in _entries(content, "images", path, wanted, report):
        try:
            file = inside(item["file_name"])
        except ValueError as error:
            report(f"'{path}' images[{number}]: {error}")
            continue
        if not (0 < item["width"] < math.inf and 0 < item["height"] < math.inf):
            report(f"'{path}' images[{number}] is {item['width']} × {item['height']}: expected its size in pixels")
        elif item["id"] in images:
            report(f"'{path}' images[{number}] repeats the image id {item['id']}: list each image once")
        elif file in files:
            report(
                f"'{path}' images[{number}] names the file '{file}' of image {files[file]} again: list each image once"
            )
        else:
            images[item["id"]], files[file] = (file, item["width"], item["height"]), item["id"]
    objects: dict[int, list[Box]] = {image: [] for image in images}
    for item, number in _entries(
        content, "annotations", path, {"image_id": int, "category_id": int, "bbox": list}, report
    ):
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
                f"{where} of image {item['image_id']} has the bbox {item['bbox']!r}: expected four finite numbers, "
                "x, y, width ≥ 0 and height ≥ 0"
            )
        else:
            objects[item["image_id"]].append(box)
    return Table(
        tuple(names.values()),
        [str(image) for image in images],
        [file for file, _, _ in images.values()],
        [tuple(boxes) for boxes in objects.values()],
    )


def _content(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not valid JSON ({error}), perhaps half a download: {REMEDY}") from error
    lists = ("images", "annotations", "categories")
    lacking = [name for name in lists if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if lacking:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(
            f"'{path}' has no list of {' or '.join(lacking)} (found: {found}): an instances JSON has "
            "images, annotations and categories; captions and keypoints are other files"
        )
    return content


def _entries(content: dict, name: str, path: Path, fields: dict, report: Report) -> Iterator[tuple[dict, int]]:
    """The usable entries of one list and their numbers, from 0."""
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
