"""`digits`: pictures composed from scikit-learn's scanned handwritten digits, so their pixels are real scans.

The labels of a picture are the digits in it. As in `scenes`, the visibility of each glyph is measured from the picture,
the simulated annotator marks it by its visibility alone, and the folder is in VOC layout.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from udlib.datasets.annotator import annotate, is_difficult
from udlib.datasets.base import data_root
from udlib.datasets.voc import VOC
from udlib.datasets.voc_writer import SceneObject, SceneRecord, ensure_voc

VERSION = 1
SPLITS = {"train": 2000, "val": 1000, "test": 4000}
GLYPH_SHARES = {"train": 0.5, "val": 0.2, "test": 0.3}  # of each digit's glyphs; no glyph is in two splits
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
REFERENCE_SIZE = 64  # lengths below are pixels of a 64 × 64 picture; visibility is measured at that size

COUNTS = np.array([0.20, 0.26, 0.26, 0.18, 0.10])  # probabilities of 1, 2, … 5 glyphs in a picture
FREQUENCY = np.array([7, 10, 8, 6, 5, 4, 3, 2.5, 1.5, 2])  # of the digits, long-tailed: about seven ones for one eight
COMPANY = ((0, 2, 4, 6, 8), (1, 3, 5, 7, 9), (1, 2, 3), (0, 7, 9))  # a picture favours one of these groups …
FAVOUR = 3.0  # … by this factor, so that labels co-occur a little
CHANCES = [w / w.sum() for w in (FREQUENCY * np.where(np.isin(np.arange(10), group), FAVOUR, 1.0) for group in COMPANY)]
SIDES = (9.0, 34.0)  # shortest and longest side of a glyph
EASY_SIDE, EASY_CONTRAST = 20.0, 0.45  # a glyph with at least these is not harder to see for its size or contrast
PATCH = np.pad(np.ones((4, 8), np.float32), 1)
INK = 0.35  # glyph coverage above which a pixel counts as ink


@cache
def glyphs(split: str) -> tuple[np.ndarray, ...]:
    """Return the glyphs of one split.

    Args:
        split: "train", "val" or "test".

    Returns:
        For each digit, float32 (n, 10, 10), from 0 (paper) to 1 (ink).
    """
    bunch = load_digits()
    # An empty cell on each side: otherwise strokes at the edge of the 8 × 8 scan would end in a hard line.
    images, digit = np.pad((bunch.images / 16).astype(np.float32), ((0, 0), (1, 1), (1, 1))), bunch.target
    shares = np.cumsum([0.0, *GLYPH_SHARES.values()])
    place = list(GLYPH_SHARES).index(split)
    parts = []
    for k in range(10):
        # scikit-learn's file is ordered by writer: slices without shuffling mostly separate the writers, too.
        rows = np.flatnonzero(digit == k)
        start, stop = np.round(shares[place : place + 2] * len(rows)).astype(int)
        parts.append(images[rows[start:stop]])
    return tuple(parts)


@dataclass(frozen=True)
class Layer:
    """One thing on the paper: a glyph, or a blank patch (`glyph` None) that hides what is below it.

    Lengths are pixels of a 64 × 64 picture. A patch is `side` wide and half as high.
    """

    digit: int
    glyph: np.ndarray | None
    side: float
    left: float
    top: float
    contrast: float


def _generator(split: str, index: int, stream: int) -> np.random.Generator:
    """Random numbers of one picture. Streams 0, 1 and 2 are for layout, annotator and paper; each is independent."""
    return np.random.default_rng([VERSION, list(SPLITS).index(split), index, stream])


def layout(split: str, rng: np.random.Generator) -> list[Layer]:
    """Draw the layers of a picture: one to five glyphs, some with a patch above them.

    Args:
        split: The split whose glyphs are used.
        rng: Where the random numbers come from.

    Returns:
        The layers, the lowest first.
    """
    chances = CHANCES[rng.integers(len(COMPANY))]
    layers = []
    for digit in rng.choice(10, size=1 + rng.choice(len(COUNTS), p=COUNTS), p=chances):
        scans = glyphs(split)[digit]
        side = float(np.exp(rng.uniform(*np.log(SIDES))))
        left, top = rng.uniform(-0.2 * side, 64 - 0.8 * side, 2)  # up to a fifth may be outside
        faint = rng.random() < 0.25
        contrast = float(rng.uniform(0.06, 0.3) if faint else rng.uniform(0.35, 0.6))
        layers.append(Layer(int(digit), scans[rng.integers(len(scans))], side, float(left), float(top), contrast))
        if rng.random() < 0.12:
            x, y = left + rng.uniform(-0.3, 0.3) * side, top + rng.uniform(0, 0.6) * side
            layers.append(Layer(-1, None, side, float(x), float(y), float(rng.uniform(0.0, 0.3))))
    return layers


def _paper(rng: np.random.Generator, size: int) -> np.ndarray:
    """Uneven paper, with a level, a slow slope and blotches: float32 (size, size)."""
    coarse = rng.normal(rng.uniform(0.12, 0.35), 0.035, (6, 6)) + rng.normal(0, 0.02) * np.arange(-2.5, 3)
    scaled = Image.fromarray(coarse.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(scaled)


def _coverage(layer: Layer, size: int) -> np.ndarray:
    """How much a layer hides of what is below it: float32 (size, size), from 0 to 1."""
    cells = PATCH if layer.glyph is None else layer.glyph
    scale = size / REFERENCE_SIZE
    cell = layer.side * scale / 8
    matrix = (1 / cell, 0, 1 - layer.left * scale / cell, 0, 1 / cell, 1 - layer.top * scale / cell)
    scaled = Image.fromarray(cells).transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def _visible_shares(layers: list[Layer], coverages: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """For each layer, the fraction of its ink inside the frame, and the fraction of that which nothing hides."""
    framed, uncovered = np.zeros(len(layers)), np.zeros(len(layers))
    free = np.ones_like(coverages[0])
    for k in reversed(range(len(layers))):
        inside = coverages[k].sum()
        if layers[k].glyph is not None:
            whole = layers[k].glyph.sum() * (layers[k].side / 8) ** 2 * (coverages[k].shape[0] / REFERENCE_SIZE) ** 2
            framed[k], uncovered[k] = min(1.0, inside / whole), (coverages[k] * free).sum() / max(inside, 1e-6)
        free = free * (1 - coverages[k])
    return framed, uncovered


def visibility(side: np.ndarray, contrast: np.ndarray, framed: np.ndarray, uncovered: np.ndarray) -> np.ndarray:
    """Compute how well glyphs can be seen: the product of what size, contrast, frame and covering layers leave.

    Args:
        side: Sides of N glyphs, in pixels of a 64 × 64 picture.
        contrast: Their contrasts.
        framed: Fractions of their ink inside the frame.
        uncovered: Fractions of that which no other layer hides.

    Returns:
        (N,), in [0, 1].
    """
    large = np.minimum(1.0, np.asarray(side) / EASY_SIDE)
    strong = np.minimum(1.0, np.asarray(contrast) / EASY_CONTRAST)
    return np.clip(large * strong * framed * uncovered, 0.0, 1.0)


def record(index: int, split: str, size: int = REFERENCE_SIZE) -> SceneRecord:
    """Draw one picture of a split.

    Args:
        index: The picture's number in the split.
        split: "train", "val" or "test".
        size: Side of the picture in pixels.

    Returns:
        The picture, grey, uint8 (size, size, 3), and all its glyphs, marked or not.
    """
    layers = layout(split, _generator(split, index, 0))
    noise = _generator(split, index, 2)
    coverages = [_coverage(layer, size) for layer in layers]
    measured = coverages if size == REFERENCE_SIZE else [_coverage(layer, REFERENCE_SIZE) for layer in layers]
    framed, uncovered = _visible_shares(layers, measured)
    visibilities = visibility([layer.side for layer in layers], [layer.contrast for layer in layers], framed, uncovered)
    marks = annotate(visibilities, _generator(split, index, 1))
    picture = _paper(noise, size)
    level = picture.mean()
    objects = []
    for k, (layer, coverage) in enumerate(zip(layers, coverages)):
        picture += coverage * (level + np.float32(layer.contrast) - picture)
        ink = coverage > INK
        if layer.glyph is None or not ink.any():
            continue
        ys, xs = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
        objects.append(
            SceneObject(
                CLASSES[layer.digit],
                box,
                truncated=bool(framed[k] < 0.95),
                occluded=bool(uncovered[k] < 0.9),
                difficult=bool(is_difficult(visibilities[k])),
                marked=bool(marks[k]),
                visibility=float(visibilities[k]),
            )
        )
    picture += np.float32(0.03) * noise.standard_normal(picture.shape, dtype=np.float32)
    grey = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return SceneRecord(f"{split}_{index:06d}", np.repeat(grey[..., None], 3, axis=2), tuple(objects))


def _records(split: str, count: int, size: int) -> Iterator[SceneRecord]:
    return (record(index, split, size) for index in range(count))


def digits(
    split: str,
    root: str | Path | None = None,
    size: int = REFERENCE_SIZE,
    counts: dict[str, int] | None = None,
    **options,
) -> VOC:
    """Open the `digits` data set; on first use it is made, which takes seconds.

    Args:
        split: "train" (2,000 pictures), "val" (1,000) or "test" (4,000).
        root: Where the VOC folder is made; by default `digits-v1-<size>` below the data root.
        size: Side of the square pictures, in pixels; labels and posteriors do not depend on it.
        counts: Other numbers of pictures by split; fewer pictures are the first ones of the same.
        **options: Arguments of `VOC`.

    Returns:
        The split.

    Raises:
        ValueError: The split is unknown, or `root` holds something else.
    """
    counts = counts or SPLITS
    if split not in counts:
        raise ValueError(f"digits has no split '{split}': choose one of {', '.join(counts)}")
    root = Path(root) if root is not None else data_root() / f"digits-v{VERSION}-{size}"
    records = {name: (count, partial(_records, name, count, size)) for name, count in counts.items()}
    ensure_voc(root, records, CLASSES, name="digits", version=VERSION, size=size)
    return VOC(root, split, **options)
