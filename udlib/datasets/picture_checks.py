"""A check of the image files of a data set: each is decoded once, and what is odd about the pictures is counted."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from udlib.datasets.base import DROP
from udlib.datasets.decoding import opened, read_rgb
from udlib.datasets.image_files import find_files, rivals
from udlib.datasets.orientation import orientation_of
from udlib.datasets.readable import absent
from udlib.progress import track

Images = dict[str, dict[str, Path]]  # the file of each image, by split and id
# Pairs of splits that must not share an image.
APART = (("train", "val"), ("train", "test"), ("val", "test"), ("trainval", "test"))
DEEP = 16  # bits a channel


@dataclass(frozen=True)
class Finding:
    """One sentence about a data set.

    Args:
        text: The sentence.
        wrong: Whether it is a problem; otherwise it is only worth knowing.
    """

    text: str
    wrong: bool = True


@dataclass(frozen=True)
class Picture:
    """What one image file holds.

    Args:
        digest: Of its bytes; its path where it cannot be decoded.
        problem: Why it cannot be decoded.
        orientation: 1 to 8, as EXIF numbers it.
        transparent: Whether any pixel is.
        bits: How many bits its largest value takes, for a file of 16 bits a channel; else 0.
    """

    digest: str
    problem: str | None = None
    orientation: int = 1
    transparent: bool = False
    bits: int = 0


def files_of(images: Images) -> dict[Path, Path]:
    """Return the file that is read for each listed path: another one where the list has the wrong ending.

    Args:
        images: The listed path of each image, by split and id.
    """
    listed = [path for rows in images.values() for path in rows.values()]
    return dict(zip(listed, find_files(listed)))


def check_pictures(images: Images, found: Mapping[Path, Path], drop: bool = False) -> Iterator[Finding]:
    """Find missing and broken files, files that belong to two splits, and pictures that may not be read as one expects.

    Args:
        images: The listed path of each image, by split and id.
        found: What `files_of` returns for them.
        drop: Whether missing and broken files are left out, which is wrong only for a split of which nothing is left.

    Yields:
        What is wrong or worth knowing.
    """
    images = {split: {name: found[path] for name, path in rows.items()} for split, rows in images.items()}
    yield from (Finding(text, wrong=False) for text in _other_endings(found))
    paths = list(dict.fromkeys(found.values()))
    missing = set(absent(paths))
    yield from (Finding(f"image '{paths[i]}' is missing{rivals(paths[i])}", wrong=not drop) for i in sorted(missing))
    left_out = {paths[i] for i in missing}
    paths = [path for i, path in enumerate(paths) if i not in missing]
    splits: dict[Path, set[str]] = {}
    for split, rows in images.items():
        for path in rows.values():
            splits.setdefault(path, set()).add(split)
    first_of_digest: dict[str, Path] = {}
    pictures: list[Picture] = []
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        results = pool.map(examine, paths)
        for path, picture in zip(paths, track(results, total=len(paths), description="decoding images")):
            pictures.append(picture)
            if picture.problem:
                left_out.add(path)
                yield Finding(picture.problem, wrong=not drop)
            twin = first_of_digest.setdefault(picture.digest, path)
            if twin != path and any({a, b} <= splits[twin] ^ splits[path] for a, b in APART):
                yield Finding(
                    f"images '{twin}' and '{path}' are the same file and belong to different splits", wrong=False
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C do not decode the rest
    yield from (Finding(text, wrong=False) for text in oddities(paths, pictures))
    if drop:
        yield from _remainders(images, left_out)


def _other_endings(found: Mapping[Path, Path]) -> Iterator[str]:
    """A sentence about files that have another ending than the list says."""
    if others := [(listed, path) for listed, path in found.items() if listed != path]:
        listed, path = others[0]
        count = "1 image is" if len(others) == 1 else f"{len(others):,} images are"
        yield f"{count} found under another name than the list's (first: '{path.name}' for '{listed.name}')"


def _remainders(images: Images, left_out: set[Path]) -> Iterator[Finding]:
    """How many images each split goes without."""
    for split, rows in images.items():
        if count := sum(path in left_out for path in rows.values()):
            wrong = count == len(rows)
            yield Finding(f"split '{split}': {count:,} of {len(rows):,} images are left out", wrong)


def examine(path: Path) -> Picture:
    """Decode one image file and look for what its pixels alone do not tell.

    Args:
        path: The image file.

    Returns:
        What was found; a file that cannot be decoded is no error here.
    """
    try:
        with opened(path, DROP) as image:
            # Before decoding: Pillow then forgets how the file is packed, and that it turned a TIFF.
            deep, orientation = _is_deep(image), orientation_of(image)
            rgb = read_rgb(image)
            picture = Picture(
                hashlib.sha256(path.read_bytes()).hexdigest(),
                orientation=orientation,
                transparent=_is_transparent(image),
                bits=_bits(image, rgb) if deep else 0,
            )
        return picture
    except (OSError, ValueError) as error:
        return Picture(str(path), str(error))


def oddities(paths: Sequence[Path], pictures: Sequence[Picture]) -> Iterator[str]:
    """Say what is odd about pictures, one sentence for each kind.

    Args:
        paths: The image files.
        pictures: What each holds.

    Yields:
        Sentences, each with the number of files and the first of them.
    """
    for kind, rows in (
        ("orientation", [i for i, picture in enumerate(pictures) if picture.orientation != 1]),
        ("transparency", [i for i, picture in enumerate(pictures) if picture.transparent]),
        ("depth", [i for i, picture in enumerate(pictures) if 0 < picture.bits < DEEP - 1]),
    ):
        if not rows:
            continue
        count = f"{len(rows):,} image{'s' if len(rows) > 1 else ''} (first: '{paths[rows[0]]}')"
        has, are = ("have", "are") if len(rows) > 1 else ("has", "is")
        if kind == "orientation":
            yield (
                f"{count} {has} an EXIF orientation: the rule is 'exif', so training, evaluation and predictions turn "
                "pictures upright as it says, and boxes of an annotation that states the stored size are turned with them"
            )
        elif kind == "transparency":
            yield (
                f"{count} {has} transparent pixels: these are read in the colour that is stored below them, often black; "
                "save the pictures on the background that you want"
            )
        else:
            bits = max(pictures[i].bits for i in rows)
            yield (
                f"{count} {are} stored with {DEEP} bits a channel, and no value is above {2**bits - 1}, as cameras of "
                f"{bits} bits write them: 65535 counts as white, so they are read as nearly black; multiply the values by "
                f"{2 ** (DEEP - bits)} and save them again"
            )


def _is_deep(image: Image.Image) -> bool:
    """Whether a file that is not decoded yet has 16 bits a channel."""
    packed = [str(tile[3]) for tile in getattr(image, "tile", [])]
    return image.mode.startswith("I;16") or any(";16" in arguments for arguments in packed)


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel of a decoded picture is not opaque."""
    if not image.has_transparency_data:
        return False
    alpha = image if image.mode in ("LA", "La", "RGBA", "RGBa") else image.convert("RGBA")
    return alpha.getchannel("A" if "A" in alpha.getbands() else "a").getextrema()[0] < 255


def _bits(image: Image.Image, rgb: Image.Image) -> int:
    """How many bits the largest value of a picture of 16 bits a channel takes."""
    if image.mode.startswith("I;16"):
        return int(np.asarray(image).max()).bit_length()
    high = int(np.asarray(rgb).max())  # Pillow keeps the upper eight bits of a colour
    return high.bit_length() + 8 if high else 8
