"""`scenes`: procedural pictures with a known truth, written to disk in VOC layout.

A scene is laid out in picture units (0 to 1), so the same scene can be drawn at any size. Every object has a
visibility, measured from the picture; a simulated annotator (`annotator.py`) marks it with a probability that depends
on the visibility alone. So P(y_i = 1 | scene) is known exactly; `truth.npz` beside the annotations holds it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from udlib.datasets.annotator import annotate, is_difficult
from udlib.datasets.base import data_root
from udlib.datasets.drawing import CLASSES, KINDS, Look, Sketch
from udlib.datasets.voc import VOC
from udlib.datasets.voc_writer import SceneObject, SceneRecord, ensure_voc

VERSION = 1
SPLITS = {"train": 2000, "val": 1000, "test": 4000}
REFERENCE_SIZE = 64  # visibility, and with it every label, is measured at this size whatever the size of the picture


@dataclass(frozen=True)
class Context:
    """A place in which scenes happen."""

    chance: float  # that a scene happens here
    upper: tuple[tuple[float, float, float], tuple[float, float, float]]  # colours at its top and at its bottom
    lower: tuple[tuple[float, float, float], tuple[float, float, float]]
    horizon: float  # the line between both parts, in picture units from the top
    objects: dict[str, float]  # how often each class occurs, relative to the others


CONTEXTS: dict[str, Context] = {
    "street": Context(
        0.28,
        ((0.55, 0.70, 0.88), (0.86, 0.88, 0.88)),
        ((0.55, 0.54, 0.54), (0.36, 0.36, 0.38)),
        0.46,
        {"car": 10, "tree": 6, "bird": 2, "lamp": 3, "umbrella": 1.5, "clock": 0.7, "ball": 0.7, "flower": 0.7},
    ),
    "shore": Context(
        0.18,
        ((0.45, 0.70, 0.92), (0.88, 0.92, 0.92)),
        ((0.28, 0.55, 0.70), (0.88, 0.79, 0.58)),
        0.40,
        {"boat": 6, "bird": 4, "fish": 3, "umbrella": 3, "ball": 2.5, "chair": 1.5, "bottle": 0.5},
    ),
    "garden": Context(
        0.22,
        ((0.62, 0.78, 0.90), (0.90, 0.92, 0.84)),
        ((0.48, 0.66, 0.30), (0.30, 0.50, 0.20)),
        0.42,
        {"tree": 7, "flower": 6, "bird": 4, "apple": 2.5, "ball": 2, "chair": 2, "orange": 0.8, "umbrella": 0.5},
    ),
    "kitchen": Context(
        0.16,
        ((0.90, 0.86, 0.76), (0.84, 0.78, 0.66)),
        ((0.62, 0.46, 0.32), (0.50, 0.36, 0.24)),
        0.52,
        {
            "cup": 6,
            "bottle": 5,
            "apple": 4,
            "orange": 3,
            "clock": 2,
            "fish": 1.5,
            "chair": 1.5,
            "lamp": 0.7,
            "book": 0.5,
        },
    ),
    "room": Context(
        0.16,
        ((0.72, 0.76, 0.74), (0.82, 0.82, 0.76)),
        ((0.56, 0.42, 0.34), (0.44, 0.32, 0.26)),
        0.56,
        {
            "chair": 8,
            "lamp": 5,
            "book": 5,
            "cup": 2.5,
            "clock": 2,
            "ball": 1,
            "flower": 1,
            "bottle": 0.7,
            "orange": 0.5,
        },
    ),
}
AIRBORNE = {"bird": 0.7, "clock": 0.8}  # probability that an object is above the horizon rather than below it
COUNTS = np.array([0.02, 0.14, 0.22, 0.23, 0.19, 0.13, 0.07])  # probabilities of 0, 1, 2, … objects in a scene


@dataclass(frozen=True)
class Item:
    """One object of a layout."""

    name: str  # its class
    x: float  # centre and size, in picture units
    y: float
    size: float
    contrast: float  # opacity, in (0, 1]
    look: Look


@dataclass(frozen=True)
class Layout:
    """A scene before it is drawn."""

    context: str
    brightness: float
    cast: tuple[float, float, float]  # factor of each colour channel
    items: tuple[Item, ...]  # from the farthest to the nearest


def _generator(split: str, index: int, stream: int) -> np.random.Generator:
    """Random numbers of one scene: streams 0, 1 and 2, all independent, for layout, annotator and pixel noise."""
    return np.random.default_rng([VERSION, list(SPLITS).index(split), index, stream])


@cache
def _cumulative(weights: tuple[float, ...]) -> np.ndarray:
    """Cumulative probabilities of these weights; the last is 1."""
    shares = np.asarray(weights, float)
    total = (shares / shares.sum()).cumsum()
    return total / total[-1]


def _pick(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    """Draw what `rng.choice(len(weights), p=…)` draws, without its checks, which take longer than the draw."""
    return int(_cumulative(weights).searchsorted(rng.random(), side="right"))


def layout(rng: np.random.Generator) -> Layout:
    """Draw the layout of a scene: a context, then objects that belong there.

    Their classes are long-tailed, and their sizes and contrasts vary.

    Args:
        rng: Where the random numbers come from.

    Returns:
        The layout.
    """
    context_name = list(CONTEXTS)[_pick(rng, tuple(context.chance for context in CONTEXTS.values()))]
    context = CONTEXTS[context_name]
    names, weights = tuple(context.objects), tuple(context.objects.values())
    items = []
    for _ in range(_pick(rng, tuple(COUNTS))):
        name = names[_pick(rng, weights)]
        kind = KINDS[name]
        look = Look(
            kind.colour(rng.standard_normal(4)),
            float(rng.random()),
            bool(rng.random() < 0.5),
            float(rng.uniform(-1, 1)) * kind.tilt,
        )
        size = float(np.clip(kind.size * np.exp(rng.normal(-0.12, 0.42)), 0.08, 0.75))
        contrast = float(rng.uniform(0.1, 0.6) if rng.random() < 0.3 else rng.uniform(0.8, 1.0))
        if rng.random() < AIRBORNE.get(name, 0.0):
            y = rng.uniform(0.08, context.horizon)
        else:
            y = rng.uniform(context.horizon, 1.02) - 0.35 * size
        items.append(Item(name, float(rng.uniform(0.03, 0.97)), float(y), size, contrast, look))
    items.sort(key=lambda item: item.y + item.size / 2)
    red, green, blue = (float(c) for c in 1 + 0.06 * rng.standard_normal(3))
    return Layout(context_name, float(rng.uniform(0.78, 1.1)), (red, green, blue), tuple(items))


def _background(scene: Layout, rng: np.random.Generator, size: int) -> np.ndarray:
    """A gradient above the horizon, one below it, and what belongs to the context: (size, size, 3) in [0, 1]."""
    context = CONTEXTS[scene.context]
    v = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None, None]
    h = np.float32(context.horizon)
    (u0, u1), (l0, l1) = np.asarray(context.upper, np.float32), np.asarray(context.lower, np.float32)
    upper, lower = u0 + (u1 - u0) * v / h, l0 + (l1 - l0) * (v - h) / (1 - h)
    below = np.clip((v - h) * size + 0.5, 0, 1)
    column = upper + (lower - upper) * below
    picture = np.repeat(column, size, axis=1)
    tone = np.float32(rng.uniform(0.75, 0.95))
    if scene.context in ("street", "garden"):  # houses or hedges along the horizon
        edges = np.sort(rng.random(6))
        for left, right in zip(edges[::2], edges[1::2]):
            top = h - np.float32(rng.uniform(0.08, 0.26 if scene.context == "street" else 0.12))
            rows, columns = slice(int(top * size), int(h * size)), slice(int(left * size), int(right * size) + 1)
            picture[rows, columns] = (
                (np.array([0.74, 0.66, 0.58] if scene.context == "street" else [0.36, 0.50, 0.28], np.float32))
                * tone
                * np.float32(rng.uniform(0.85, 1.1))
            )
    elif scene.context == "shore":  # the line between water and sand
        line = int((h + 0.22) * size)
        picture[line:] = np.float32([0.90, 0.82, 0.62]) * (1.02 - 0.12 * v[line:])
        picture[line : line + max(1, size // 48)] = 0.95
    else:  # a window or a picture on the wall
        x, y, s = rng.uniform(0.1, 0.65), rng.uniform(0.06, 0.14), rng.uniform(0.18, 0.26)
        rows, columns = slice(int(y * size), int((y + s) * size)), slice(int(x * size), int((x + s) * size))
        picture[rows, columns] = np.float32([0.66, 0.80, 0.90]) * tone
    return picture


def _place(item: Item, size: int, picture: np.ndarray | None, owner: np.ndarray, number: int):
    """Draw one item; return the area of its whole silhouette, and its box within the frame, or None."""
    pixels = item.size * size
    left, top = item.x * size - pixels / 2, item.y * size - pixels / 2
    x0, y0 = int(np.floor(left)), int(np.floor(top))
    sketch = Sketch(pixels, item.look, (left - x0, top - y0))
    x0, y0 = x0 - sketch.margin, y0 - sketch.margin
    KINDS[item.name].paint(sketch)
    solid = sketch.rgba[..., 3] > 0.5
    count = solid.shape[0]
    rows, columns = slice(max(0, y0), max(0, min(size, y0 + count))), slice(max(0, x0), max(0, min(size, x0 + count)))
    inside = (slice(rows.start - y0, rows.stop - y0), slice(columns.start - x0, columns.stop - x0))
    if picture is not None:
        layer = sketch.rgba[inside] * np.float32(item.contrast)
        picture[rows, columns] *= 1 - layer[..., 3:]
        picture[rows, columns] += layer[..., :3]
    in_frame = solid[inside]
    owner[rows, columns][in_frame] = number
    if not in_frame.any():
        return int(solid.sum()), None
    ys, xs = np.flatnonzero(in_frame.any(1)), np.flatnonzero(in_frame.any(0))
    box = (columns.start + xs[0], rows.start + ys[0], columns.start + xs[-1] + 1, rows.start + ys[-1] + 1)
    return int(solid.sum()), tuple(int(v) for v in box)


def _draw(scene: Layout, size: int, picture: np.ndarray | None):
    """Draw all items, far to near; return their boxes, and their fractions in the frame and not occluded."""
    owner = np.full((size, size), -1, np.int16)
    boxes, areas, framed = [], [], []
    for number, item in enumerate(scene.items):
        area, box = _place(item, size, picture, owner, number)
        boxes.append(box)
        areas.append(max(area, 1))
        framed.append((owner == number).sum())
    left = np.array([(owner == number).sum() for number in range(len(scene.items))], float)
    framed = np.asarray(framed, float)
    return boxes, framed / np.maximum(areas, 1), left / np.maximum(framed, 1)


def visibility(size: np.ndarray, contrast: np.ndarray, framed: np.ndarray, unoccluded: np.ndarray) -> np.ndarray:
    """Compute how well objects can be seen: the product of what size, contrast, frame and occluders leave.

    Size does not matter for objects of a third of the picture's side or more.

    Args:
        size: (N,), in picture units.
        contrast: (N,), opacity in (0, 1].
        framed: (N,), fractions inside the frame.
        unoccluded: (N,), fractions of that which nothing hides.

    Returns:
        (N,), in [0, 1].
    """
    return np.minimum(1.0, np.asarray(size) / 0.33) ** 0.75 * contrast * framed * unoccluded


def record(index: int, split: str, size: int = REFERENCE_SIZE) -> SceneRecord:
    """Draw one scene of a split.

    Args:
        index: The scene's number in the split.
        split: "train", "val" or "test".
        size: Side of the picture in pixels.

    Returns:
        The picture, uint8 (size, size, 3), and all its objects, marked or not.
    """
    scene = layout(_generator(split, index, 0))
    noise = _generator(split, index, 2)
    picture = _background(scene, noise, size)
    boxes, framed, unoccluded = _draw(scene, size, picture)
    if size != REFERENCE_SIZE:
        _, framed, unoccluded = _draw(scene, REFERENCE_SIZE, None)
    items = scene.items
    visibilities = visibility(
        np.array([i.size for i in items]), np.array([i.contrast for i in items]), framed, unoccluded
    )
    marks = annotate(visibilities, _generator(split, index, 1))
    objects = tuple(
        SceneObject(
            item.name,
            box,
            truncated=bool(framed[k] < 0.95),
            occluded=bool(unoccluded[k] < 0.95),
            difficult=bool(is_difficult(visibilities[k])),
            marked=bool(marks[k]),
            visibility=float(visibilities[k]),
        )
        for k, (item, box) in enumerate(zip(items, boxes))
        if box is not None
    )
    picture *= np.float32(scene.brightness) * np.asarray(scene.cast, np.float32)
    picture += np.float32(0.025) * noise.standard_normal(picture.shape, dtype=np.float32)
    image = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return SceneRecord(f"{split}_{index:06d}", image, objects)


def _records(split: str, count: int, size: int, workers: int) -> Iterator[SceneRecord]:
    make = partial(record, split=split, size=size)
    with ThreadPoolExecutor(workers) as pool:  # at 448 px NumPy releases the interpreter lock most of the time
        for start in range(
            0, count, 64
        ):  # in portions, so that pictures do not fill the memory before they are written
            yield from pool.map(make, range(start, min(start + 64, count)))


def scenes(
    split: str,
    size: int = REFERENCE_SIZE,
    root: str | Path | None = None,
    counts: dict[str, int] | None = None,
    workers: int = 1,
    **options,
) -> VOC:
    """Open the `scenes` data set; on first use it is made, which takes seconds.

    Args:
        split: "train" (2,000 scenes), "val" (1,000) or "test" (4,000).
        size: Side of the square pictures, in pixels; boxes scale with it, labels and posteriors do not depend on it.
        root: Where the VOC folder is made; by default `scenes-v1-<size>` below the data root.
        counts: Other numbers of scenes by split; fewer scenes are the first ones of the same.
        workers: Threads that draw; the pixels do not depend on it.
        **options: Arguments of `VOC`.

    Returns:
        The split.

    Raises:
        ValueError: The split is unknown, or `root` holds something else.
    """
    counts = counts or SPLITS
    if split not in counts:
        raise ValueError(f"scenes has no split '{split}': choose one of {', '.join(counts)}")
    root = Path(root) if root is not None else data_root() / f"scenes-v{VERSION}-{size}"
    ensure_voc(
        root,
        {name: (count, partial(_records, name, count, size, workers)) for name, count in counts.items()},
        CLASSES,
        name="scenes",
        version=VERSION,
        size=size,
    )
    return VOC(root, split, **options)
