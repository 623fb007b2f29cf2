"""Small data sets on disk in each layout that `udlib.datasets` reads: hundreds of tiny pictures in a second.

A picture of 24 × 16 pixels shows each of its classes as one bright square at a place of its own, so the labels can be
learned. Classes co-occur and have unequal frequencies, and some images have no label. All four trees show the same
images.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CLASSES = ("ball", "boat", "cat", "dog", "kite", "tree")
SIZE = (24, 16)  # width, height
CELL = 8  # side of a square, and of the grid of 3 × 2 places


class Picture(NamedTuple):
    """What one image shows: class numbers, and those among them that are difficult."""

    labels: tuple[int, ...]
    difficult: tuple[int, ...]
    pixels: np.ndarray


def pictures(count, seed=0):
    """`count` pictures; image 0 always shows all classes, image 1 none, so that every class occurs."""
    draw = np.random.default_rng(seed)
    chance = np.linspace(0.6, 0.15, len(CLASSES))
    images = []
    for i in range(count):
        present = draw.random(len(CLASSES)) < chance
        present = present | True if i == 0 else present & (i != 1)
        labels = tuple(np.flatnonzero(present).tolist())
        faint = tuple(k for k in labels if draw.random() < 0.1)
        pixels = draw.integers(0, 60, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        for k in labels:
            left, top = place(k)
            pixels[top : top + CELL, left : left + CELL, k % 3] = 110 if k in faint else 230
        images.append(Picture(labels, faint, pixels))
    return images


def place(k):
    """Left and top of the square of class k."""
    return CELL * (k % 3), CELL * (k // 3)


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.pixels).save(path, "JPEG", quality=90)
    return path


def parts(count):
    """Rows of train, val and test: a half, a quarter, a quarter."""
    return {"train": range(count // 2), "val": range(count // 2, 3 * count // 4), "test": range(3 * count // 4, count)}


def voc_tree(root, count=40, seed=0, year=2007):
    """`root`/VOCdevkit/VOC{year} with the splits train, val, trainval and test, and all class files."""
    folder = Path(root) / "VOCdevkit" / f"VOC{year}"
    lists = folder / "ImageSets" / "Main"
    for part in (folder / "Annotations", lists):
        part.mkdir(parents=True, exist_ok=True)
    shown = pictures(count, seed)
    for i, picture in enumerate(shown):
        save(picture, folder / "JPEGImages" / f"{i:06d}.jpg")
        (folder / "Annotations" / f"{i:06d}.xml").write_text(voc_xml(picture))
    splits = {name: list(rows) for name, rows in parts(count).items()}
    for split, rows in {**splits, "trainval": splits["train"] + splits["val"]}.items():
        (lists / f"{split}.txt").write_text("".join(f"{i:06d}\n" for i in rows))
        for k, name in enumerate(CLASSES):
            states = (0 if k in shown[i].difficult else 1 if k in shown[i].labels else -1 for i in rows)
            (lists / f"{name}_{split}.txt").write_text("".join(f"{i:06d} {s:2d}\n" for i, s in zip(rows, states)))
    return Path(root)


def voc_xml(picture):
    objects = ""
    for k in picture.labels:
        left, top = place(k)
        box = {"xmin": left + 1, "ymin": top + 1, "xmax": left + CELL, "ymax": top + CELL}
        sides = "".join(f"<{side}>{value}</{side}>" for side, value in box.items())
        objects += (
            f"<object><name>{CLASSES[k]}</name><difficult>{int(k in picture.difficult)}</difficult>"
            f"<bndbox>{sides}</bndbox></object>"
        )
    width, height = SIZE
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


def coco_tree(root, count=40, seed=0):
    """annotations/instances_{train,val}2014.json with train2014 and val2014; the last quarter is val2014.

    Category ids are 10, 20, … and not in the order of the list; difficult objects are marked as crowds.
    """
    root, shown = Path(root), pictures(count, seed)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    categories = [{"id": 10 * (k + 1), "name": name, "supercategory": "thing"} for k, name in enumerate(CLASSES)]
    splits = parts(count)
    for part, rows in {"train": [*splits["train"], *splits["val"]], "val": splits["test"]}.items():
        images, annotations = [], []
        for i in rows:
            name = f"COCO_{part}2014_{100 + i:012d}.jpg"
            save(shown[i], root / f"{part}2014" / name)
            images.append({"id": 100 + i, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            for k in shown[i].labels:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": 100 + i,
                        "category_id": 10 * (k + 1),
                        "bbox": [*map(float, place(k)), float(CELL), float(CELL)],
                        "area": float(CELL**2),
                        "iscrowd": int(k in shown[i].difficult),
                    }
                )
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories[::-1]}
        (root / "annotations" / f"instances_{part}2014.json").write_text(json.dumps(content))
    return root


def nus_tree(root, count=40, seed=0):
    """ConceptsList, ImageList (with backslashes), Groundtruth/TrainTestLabels, and the images below Flickr."""
    root, shown = Path(root), pictures(count, seed)
    labels = root / "Groundtruth" / "TrainTestLabels"
    for part in (root / "ConceptsList", root / "ImageList", labels):
        part.mkdir(parents=True, exist_ok=True)
    (root / "ConceptsList" / "Concepts81.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    names = [f"{'actor' if i % 2 else 'zebra'}/{i:04d}_{7000 + i}.jpg" for i in range(count)]
    for name, picture in zip(names, shown):
        save(picture, root / "Flickr" / name)
    splits = parts(count)
    listed = {"": range(count), "Train": [*splits["train"], *splits["val"]], "Test": splits["test"]}
    for part, rows in listed.items():
        lines = "".join(names[i].replace("/", "\\") + "\r\n" for i in rows)
        (root / "ImageList" / f"{part}Imagelist.txt").write_bytes(lines.encode())
        for k, name in enumerate(CLASSES):
            if part:
                (labels / f"Labels_{name}_{part}.txt").write_text(
                    "".join(f"{int(k in shown[i].labels)}\n" for i in rows)
                )
    return root


def csv_tree(root, count=40, seed=0, form="columns", split=True):
    """labels.csv with the images in images/; form "columns" (0 and 1 for each class) or "labels" (names and |)."""
    root, shown = Path(root), pictures(count, seed)
    names = [f"{i:04d}.jpg" for i in range(count)]
    for name, picture in zip(names, shown):
        save(picture, root / "images" / name)
    split_of = {i: name for name, rows in parts(count).items() for i in rows}
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", *(["split"] if split else []), *(CLASSES if form == "columns" else ["labels"])])
        for i, picture in enumerate(shown):
            marks = [int(k in picture.labels) for k in range(len(CLASSES))]
            listed = ["|".join(CLASSES[k] for k in picture.labels)]
            rows.writerow([names[i], *([split_of[i]] if split else []), *(marks if form == "columns" else listed)])
    return root


class LeavesATrace:
    """An object that writes a file when it is unpickled, as harmful code in a data set would do something worse."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
