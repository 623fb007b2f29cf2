"""Small data sets as tools and people write them: each layout with a random choice of the forms that occur in the wild."""

import io
import json

import numpy as np
from PIL import Image

NAMES = ("cat", "Cat", "dog", "traffic light", "owl", "lung, left", "caf\u00e9", "cafe\u0301", "1", "none", "a/b")
ENDINGS = (".jpg", ".png")
SPLIT_WORDS = {"train": ("train", "Train", "training"), "val": ("val", "valid", "Validation"), "test": ("test", "Test")}


def picture(draw, ending):
    """The bytes of a tiny image; seldom broken."""
    if draw.random() < 0.01:
        return b"no picture"
    file = io.BytesIO()
    pixels = np.frombuffer(draw.randbytes(8 * 8 * 3), np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(file, {".jpg": "JPEG", ".png": "PNG"}[ending])
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


class Choices:
    """What one data set consists of: its classes, the labels of each image, and its splits."""

    def __init__(self, draw):
        self.draw = draw
        self.classes = draw.sample(NAMES if draw.random() < 0.4 else ("cat", "dog", "owl"), draw.randint(1, 3))
        self.count = draw.randint(2, 24)
        chance = draw.choice((0.1, 0.4, 0.4, 0.9))
        self.labels = [[name for name in self.classes if draw.random() < chance] for _ in range(self.count)]
        cuts = sorted(draw.randint(0, self.count) for _ in range(2)) if draw.random() < 0.3 else [self.count // 2] * 2
        cuts = cuts if cuts[0] < cuts[1] else [self.count // 2, 3 * self.count // 4]
        self.splits = ["train" if i < cuts[0] else "val" if i < cuts[1] else "test" for i in range(self.count)]
        pattern = draw.choice(("{}", "{}", "im {}", "cam1/{}", "photo {}"))
        self.names = [pattern.format(i) for i in range(self.count)]
        self.ending = draw.choice(ENDINGS)
        self.missing = draw.randrange(self.count) if draw.random() < 0.05 else None

    def sometimes(self, chance=0.1):
        return self.draw.random() < chance

    def save(self, i, path):
        if i != self.missing:
            write(path, picture(self.draw, self.ending))


def csv_set(root, draw):
    """One CSV or one for each split, with columns of classes or of lists, and with or without splits and weights."""
    these = Choices(draw)
    for i, name in enumerate(these.names):
        these.save(i, root / "images" / f"{name}{these.ending}")
    with_splits, with_weights, files = these.sometimes(0.7), these.sometimes(0.3), these.sometimes(0.4)
    separator = draw.choice(("|", ";", ",", " ", "list", "json", "/"))
    marks = draw.choice((("1", "0"), ("True", "False"), ("1.0", "0.0"), ("yes", "no")))
    lists, odd = these.sometimes(0.5), draw.choice(("-1", "-1", "nan", "", "1"))

    def cells(i):
        names = these.labels[i]
        if lists:
            joined = {"list": str(names), "json": json.dumps(names)}.get(separator, separator.join(names))
            return [joined or draw.choice(("", "nan", "None"))]
        return [odd if these.sometimes(0.1) else marks[name not in names] for name in these.classes]

    def line(i):
        own = [these.splits[i]] if with_splits else []
        values = [f"{these.names[i]}{these.ending}", *own, *cells(i), *([draw.choice("012")] if with_weights else [])]
        return ",".join('"' + value.replace('"', '""') + '"' for value in values)

    columns = ["file", *(["split"] if with_splits else []), *(["labels"] if lists else these.classes)]
    head = ",".join(f'"{name}"' for name in columns + ["weight"] * with_weights)
    if not files:
        write(
            root / draw.choice(("labels.csv", "train.csv", "x.csv")), "\n".join([head, *map(line, range(these.count))])
        )
        return
    for split in ("train", "val", "test"):
        rows = [line(i) for i in range(these.count) if these.splits[i] == split]
        if not these.sometimes(0.1):
            write(root / f"{draw.choice(SPLIT_WORDS[split])}.csv", "\n".join([head, *rows]))


def xml(draw, names):
    """An annotation with odd flags and shapes."""
    flags = (
        "",
        "<difficult>0</difficult>",
        "<difficult/>",
        "<difficult>1</difficult>",
        "<truncated>Unspecified</truncated>",
    )
    boxes = (
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>",
        "<bndbox><xmin>0</xmin><ymin>0</ymin><xmax>0</xmax><ymax>0</ymax></bndbox>",
        "<polygon><x1>1</x1></polygon>",
    )
    objects = "".join(f"<object><name>{name}</name>{draw.choice(flags)}{draw.choice(boxes)}</object>" for name in names)
    size = draw.choice(("", "<size><width>8</width><height>8</height></size>"))
    return f"<annotation>{size}{objects}</annotation>" if draw.random() > 0.01 else "<annotation>"


def voc_set(root, draw):
    """VOC layout with lists of any kind."""
    these = Choices(draw)
    these.ending = ".jpg"
    unlabelled = these.sometimes(0.1)
    for i, name in enumerate(these.names):
        these.save(i, root / "JPEGImages" / f"{name}.jpg")
        if not (unlabelled and these.splits[i] == "test"):
            write(root / "Annotations" / f"{name}.xml", xml(draw, these.labels[i]))
    (root / "Annotations").mkdir(exist_ok=True)
    kind = draw.choice(("three", "three", "words", "trainval", "default", "train", "endings", "class"))
    lists = {split: [n for n, s in zip(these.names, these.splits) if s == split] for split in ("train", "val", "test")}
    if kind == "words":
        lists = {draw.choice(SPLIT_WORDS[split]): names for split, names in lists.items()}
    elif kind == "trainval":
        lists = {"trainval": lists["train"] + lists["val"], "test": lists["test"]}
    elif kind in ("default", "train"):
        lists = {kind: these.names}
    elif kind == "endings":
        lists = {split: [f"{name}.jpg" for name in names] for split, names in lists.items()}
    for split, names in lists.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in names))
    if kind == "class":
        states = "".join(f"{name} {draw.choice(('1', '-1', '-1'))}\n" for name in lists["train"])
        write(root / "ImageSets" / "Main" / f"{these.classes[0]}_train.txt", states)


def xml_set(root, draw):
    """Images with an XML each and no lists."""
    these = Choices(draw)
    images, annotations = draw.choice(((".", "."), ("images", "Annotations"), ("JPEGImages", "Annotations")))
    in_folders = these.sometimes(0.4)
    words = {split: draw.choice(names) for split, names in SPLIT_WORDS.items()}
    for i, name in enumerate(these.names):
        folders = (words[these.splits[i]],) * 2 if in_folders else (images, annotations)
        name = name.replace("/", "_")
        these.save(i, root / folders[0] / f"{name}{these.ending}")
        write(root / folders[1] / f"{name}.xml", xml(draw, these.labels[i]))


def coco_set(root, draw):
    """COCO's format under the names of every tool."""
    these = Choices(draw)
    kind = draw.choice(("2014", "2017", "cvat", "roboflow", "plain"))
    parts = {"2014": ("train", "val"), "2017": ("train", "val"), "cvat": ("default",)}.get(
        kind, ("train", "val", "test")
    )
    part_of = [
        parts[0 if len(parts) == 1 else len(parts) - 1 if s == "test" else parts.index(s) * (len(parts) > 2)]
        for s in these.splits
    ]
    words = {part: draw.choice(SPLIT_WORDS.get(part, (part,))) for part in parts}
    for part in parts:
        rows = [i for i in range(these.count) if part_of[i] == part]
        classes = these.classes if not these.sometimes(0.1) else these.classes[:-1]
        folder, path = {
            "cvat": ("images", "annotations/instances_default.json"),
            "roboflow": (words[part], f"{words[part]}/_annotations.coco.json"),
            "plain": ("images", f"annotations/{part}.json"),
        }.get(kind, (f"{part}{kind}", f"annotations/instances_{part}{kind}.json"))
        first = 0 if these.sometimes(0.3) else 100 * parts.index(part)
        images, annotations = [], []
        for row, i in enumerate(rows, first):
            file = f"{these.names[i]}{these.ending}"
            these.save(i, root / folder / file)
            images.append({"id": row, "file_name": file, "width": 8, "height": 8})
            for name in these.labels[i]:
                box = draw.choice(({"bbox": [1, 1, 4, 4]}, {"bbox": []}, {}, {"bbox": [0, 0, 0, 0]}))
                if name in classes:
                    annotations.append(
                        {"id": len(annotations), "image_id": row, "category_id": classes.index(name), **box}
                    )
        categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
        (root / folder).mkdir(parents=True, exist_ok=True)
        write(root / path, json.dumps({"images": images, "annotations": annotations, "categories": categories}))


MAKERS = {"csv": csv_set, "voc": voc_set, "xml": xml_set, "coco": coco_set}
