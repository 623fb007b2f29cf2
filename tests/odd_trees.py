"""Small data sets as tools and people write them: each layout with a random choice of the forms that occur in the wild.

Every maker writes a data set and returns options of its reader, such as a list of classes of one's own.
"""

import io
import json

import numpy as np
from PIL import Image

from udlib.datasets.orientation import TAG

NAMES = ("cat", "Cat", "dog", "traffic light", "owl", "lung, left", "caf\u00e9", "cafe\u0301", "1", "none", "a/b")
ENDINGS = (".jpg", ".png")
WIDTH, HEIGHT = 8, 6
SPLIT_WORDS = {"train": ("train", "Train", "training"), "val": ("val", "valid", "Validation"), "test": ("test", "Test")}


DAMAGE = ("truncated", "truncated", "empty", "text", "missing", "floats")  # a training stops, or goes without them
ODD = ("sideways", "transparent", "deep", "other ending")  # these are read


def picture(draw, ending, kind=""):
    """The bytes of a tiny image, which may be damaged or odd; None for one that is missing."""
    if kind in ("missing", "empty", "text"):
        return {"missing": None, "empty": b"", "text": b"a text under the name of a picture"}[kind]
    pixels = np.frombuffer(draw.randbytes(WIDTH * HEIGHT * 3), np.uint8).reshape(HEIGHT, WIDTH, 3)
    image, form, more = Image.fromarray(pixels), {".jpg": "JPEG", ".png": "PNG"}[ending], {}
    if kind == "sideways":
        exif = Image.Exif()
        exif[TAG] = draw.randint(2, 8)
        form, more = draw.choice((form, form, "TIFF")), {"exif": exif}
    elif kind == "transparent":
        image, form = image.convert("RGBA"), "PNG"
    elif kind == "deep":
        image, form = Image.fromarray(pixels[..., 0].astype(np.uint16) * draw.choice((1, 16, 257))), "PNG"
    elif kind == "floats":
        image, form = Image.fromarray(pixels[..., 0].astype(np.float32)), "TIFF"
    file = io.BytesIO()
    image.save(file, form, **more)
    content = file.getvalue()
    return content[: draw.randrange(1, len(content) - 8)] if kind == "truncated" else content


def cut(draw, text, chance=0.03):
    """A text file; seldom only its beginning, or in another encoding."""
    content = text.encode()
    if draw.random() < chance:
        return content[: draw.randrange(len(content))] if draw.random() < 0.7 else text.encode("utf-16")
    return content


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
        # Most sets are whole; of the others one to three images are damaged, or odd and good to read.
        kinds = draw.choice(((), (), (), ODD, ODD, DAMAGE, (*DAMAGE, *ODD)))
        some = draw.sample(range(self.count), min(self.count, draw.randint(1, 3))) if kinds else []
        self.kinds = {i: draw.choice(kinds) for i in some}

    def sometimes(self, chance=0.1):
        return self.draw.random() < chance

    def save(self, i, path):
        kind = self.kinds.get(i, "")
        content = picture(self.draw, self.ending, "" if kind == "other ending" else kind)
        if kind == "other ending":
            path = path.with_name(f"{path.name.removesuffix(self.ending)}{self.ending.upper()}")
        if content is not None:
            write(path, content)

    def own_list(self):
        """The classes in an order of one's own; seldom with one too many or too few."""
        names = self.draw.sample(self.classes, len(self.classes))
        if self.sometimes(0.15):
            return [*names, "whale"]
        return names[1:] if self.sometimes(0.1) and len(names) > 1 else names


def csv_set(root, draw):
    """One CSV or one for each split, with columns of classes or of lists, and with or without splits and weights."""
    these = Choices(draw)
    folder = draw.choice(("images", "images", ".", "pictures"))
    options = {"images": root / folder} if folder == "pictures" else {}
    if these.sometimes(0.2):
        options["classes"] = these.own_list()
    for i, name in enumerate(these.names):
        these.save(i, root / folder / f"{name}{these.ending}")
    (root / folder).mkdir(exist_ok=True)
    with_splits, with_weights, files = these.sometimes(0.7), these.sometimes(0.3), these.sometimes(0.4)
    separator = draw.choice(("|", ";", ",", " ", "list", "json", "/"))
    marks = draw.choice((("1", "0"), ("True", "False"), ("1.0", "0.0"), ("yes", "no")))
    lists, odd = these.sometimes(0.5), draw.choice(("-1", "-1", "-1", "-1.0", "nan", "", "1"))
    rate = draw.choice((0.1, 0.1, 0.5, 1.0))  # of odd cells: of some sets all labels are unknown
    weights = draw.choice((("0", "1", "2"), ("0.5", "1e-3", "1"), ("1",), ("0",), ("0", "1", "-1", "nan")))

    def cells(i):
        names = these.labels[i]
        if lists:
            joined = {"list": str(names), "json": json.dumps(names)}.get(separator, separator.join(names))
            return [joined or draw.choice(("", "nan", "None"))]
        return [odd if these.sometimes(rate) else marks[name not in names] for name in these.classes]

    def line(i):
        own = [these.splits[i]] if with_splits else []
        values = [f"{these.names[i]}{these.ending}", *own, *cells(i), *([draw.choice(weights)] if with_weights else [])]
        return ",".join('"' + value.replace('"', '""') + '"' for value in values)

    columns = ["file", *(["split"] if with_splits else []), *(["labels"] if lists else these.classes)]
    head = ",".join(f'"{name}"' for name in columns + ["weight"] * with_weights)
    if not files:
        write(
            root / draw.choice(("labels.csv", "train.csv", "x.csv")),
            cut(draw, "\n".join([head, *map(line, range(these.count))])),
        )
        return options
    for split in ("train", "val", "test"):
        rows = [line(i) for i in range(these.count) if these.splits[i] == split]
        if not these.sometimes(0.1):
            write(root / f"{draw.choice(SPLIT_WORDS[split])}.csv", cut(draw, "\n".join([head, *rows])))
    return options


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
    size = draw.choice(
        ("", "<size><width>8</width><height>6</height></size>", "<size><width>6</width><height>8</height></size>")
    )
    return cut(draw, f"<annotation>{size}{objects}</annotation>", 0.01)


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
    if these.sometimes(0.2):
        write(root / "classes.txt", "".join(f"{name}\n" for name in these.own_list()))
    return {"classes": these.own_list()} if these.sometimes(0.15) else {}


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
    return {}


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
            images.append({"id": row, "file_name": file, "width": WIDTH, "height": HEIGHT})
            for name in these.labels[i]:
                box = draw.choice(({"bbox": [1, 1, 4, 4]}, {"bbox": []}, {}, {"bbox": [0, 0, 0, 0]}))
                box |= {"iscrowd": 1} if these.sometimes() else {}
                if name in classes:
                    annotations.append(
                        {"id": len(annotations), "image_id": row, "category_id": classes.index(name), **box}
                    )
        categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
        (root / folder).mkdir(parents=True, exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        write(root / path, cut(draw, json.dumps(content)))
    options = {"crowd": draw.choice(("positive", "difficult", "drop"))} if these.sometimes(0.3) else {}
    return options | ({"unlabelled": "drop"} if these.sometimes(0.2) else {})


def nuswide_set(root, draw):
    """Lists with backslashes, and a file of labels for each concept."""
    these = Choices(draw)
    safe = {name: name.replace("/", "-") for name in these.classes}  # a concept is a part of file names
    folder = draw.choice(("Flickr", "images"))
    (root / folder).mkdir(parents=True)
    for i, name in enumerate(these.names):
        these.save(i, root / folder / f"{name}{these.ending}")
    write(root / "ConceptsList" / "Concepts81.txt", cut(draw, "".join(f"{name}\n" for name in safe.values())))
    for part in ("Train", "Test"):
        rows = [i for i in range(these.count) if (these.splits[i] == "test") == (part == "Test")]
        lines = "".join(f"{these.names[i]}{these.ending}\r\n".replace("/", "\\") for i in rows)
        write(root / "ImageList" / f"{part}Imagelist.txt", cut(draw, lines or "\n"))
        for name in these.classes:
            marks = "".join(f"{int(name in these.labels[i])}\n" for i in rows) or "\n"
            write(root / "Groundtruth" / "TrainTestLabels" / f"Labels_{safe[name]}_{part}.txt", cut(draw, marks))
    return {"unlabelled": "drop"} if these.sometimes(0.3) else {}


MAKERS = {"csv": csv_set, "voc": voc_set, "xml": xml_set, "coco": coco_set, "nuswide": nuswide_set}
