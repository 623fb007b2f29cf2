"""The table of `photos`: which images, with which labels, boxes and split; it ships, and the photographs do not.

`python -m udlib.datasets.photos_table FOLDER` writes it again from a folder that holds COCO's annotations and images.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from udlib.datasets.base import load_rgb
from udlib.datasets.labels import Box

VERSION = 1
TABLE = Path(__file__).with_name(f"photos-v{VERSION}.json.gz")
ATTRIBUTION = (
    "Annotations: Microsoft COCO (val2017), COCO Consortium, CC BY 4.0, https://cocodataset.org; here, boxes are scaled "
    "and rounded, and 29 of 80 classes are kept. The photographs belong to their photographers and are not part of this."
)
PERSON = "person"
FEWEST = 90  # images that a class needs
SMALL = 32**2  # px² in the original: COCO calls objects below this area small
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Photo:
    """What the table holds of one image.

    Args:
        id: COCO's number of the image.
        width: Of the version with a short side of 288 px, in pixels.
        height: Of the same.
        split: "train", "val" or "test".
        signature: 64 bits, as `signature` returns them.
        boxes: The objects of the data set's classes.
    """

    id: int
    width: int
    height: int
    split: str
    signature: int
    boxes: tuple[Box, ...]

    @property
    def file(self) -> str:
        """The image's file name in COCO."""
        return file_name(self.id)


def file_name(image_id: int) -> str:
    """Return COCO's file name of an image.

    Args:
        image_id: COCO's number.

    Returns:
        Twelve digits and `.jpg`.

    Example:
        >>> file_name(139)
        '000000000139.jpg'
    """
    return f"{image_id:012d}.jpg"


@cache
def read_table() -> tuple[tuple[str, ...], tuple[Photo, ...]]:
    """Read the table that ships.

    Returns:
        The classes, most frequent first, and the images by rising id.
    """
    content = json.loads(gzip.decompress(TABLE.read_bytes()))
    classes = tuple(content["classes"])
    photos = tuple(
        Photo(
            image_id,
            width,
            height,
            SPLITS[split],
            int(bits, 16),
            tuple(
                Box(classes[k], left, top, right, bottom, difficult=bool(small))
                for k, left, top, right, bottom, small in boxes
            ),
        )
        for image_id, width, height, split, bits, boxes in content["images"]
    )
    return classes, photos


def split_of(image_id: int) -> str:
    """Tell an image's split from the hash of its id.

    Args:
        image_id: COCO's number.

    Returns:
        "train" for half of all images, "val" for a tenth, "test" for the rest.

    Example:
        >>> split_of(139), split_of(785), split_of(872)
        ('val', 'train', 'val')
    """
    tenth = int(hashlib.sha1(f"s{image_id}".encode()).hexdigest(), 16) % 10
    return "train" if tenth < 5 else "val" if tenth == 5 else "test"


def signature(image: Image.Image) -> int:
    """Describe a picture by 64 bits: which cells of an 8 × 8 grid are lighter than their median.

    Args:
        image: A picture of any size.

    Returns:
        The bits, the top left cell first. They say which picture it is, and are far too few to show it.
    """
    cells = np.asarray(image.convert("L").convert("F").resize((8, 8), Image.Resampling.BOX))
    bits = np.packbits(cells.ravel() > np.median(cells))
    return int.from_bytes(bits.tobytes(), "big")


def make_table(annotations: Path, images: Path) -> bytes:
    """Make the table from annotations in COCO's format.

    Args:
        annotations: An `instances_*.json` of pictures with a short side of 288 px, whose entries also hold
            `original_box_area`, in px² of the original.
        images: The folder of these pictures.

    Returns:
        The content of `photos-v1.json.gz`.

    Raises:
        FileNotFoundError: An image is missing.
    """
    content = json.loads(Path(annotations).read_bytes())
    names = {category["id"]: category["name"] for category in content["categories"]}
    objects: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
    for item in sorted(content["annotations"], key=lambda item: item["id"]):
        objects[item["image_id"]].append(item)
    counts = Counter(category for items in objects.values() for category in {item["category_id"] for item in items})
    frequent = [number for number, count in counts.items() if count >= FEWEST and names[number] != PERSON]
    categories = sorted(frequent, key=lambda number: (-counts[number], number))
    rows = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        width, height = image["width"], image["height"]
        boxes = [
            [categories.index(item["category_id"]), *_corners(item["bbox"], width, height), int(_is_small(item))]
            for item in objects[image["id"]]
            if item["category_id"] in categories
        ]
        bits = f"{signature(load_rgb(Path(images) / file_name(image['id']))):016x}"
        rows.append([image["id"], width, height, SPLITS.index(split_of(image["id"])), bits, boxes])
    table = {
        "attribution": ATTRIBUTION,
        "columns": "id, width, height, split (0 train, 1 val, 2 test), signature, boxes; of each box: class, left, "
        "top, right, bottom, difficult",
        "classes": [names[number] for number in categories],
        "images": rows,
    }
    return gzip.compress(json.dumps(table, separators=(",", ":")).encode(), mtime=0)


def _is_small(item: dict) -> bool:
    """Whether the box of an annotation is small in the original."""
    return item["original_box_area"] < SMALL


def _corners(bbox: list[float], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in whole pixels, inside the image and at least one pixel wide and high."""
    left, top = min(round(bbox[0]), width - 1), min(round(bbox[1]), height - 1)
    right, bottom = min(round(bbox[0] + bbox[2]), width), min(round(bbox[1] + bbox[3]), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    TABLE.write_bytes(make_table(folder / "annotations" / "instances_val2017.json", folder / "val2017"))
