"""Pixels: every picture that the package sees, a file or a PIL image, becomes RGB here."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor

from udlib.datasets.orientation import orientation_of, turned, turned_size

REMEDY = "restore the file, or leave it out"
HEIF = "pillow_heif"  # the module of the package that reads HEIC
NEEDS_HEIF = 'the package pillow-heif reads it (`pip install "udlib[heic]"`), or save it as JPEG'
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def load_rgb(path: Path, upright: bool = True, remedy: str = REMEDY) -> Image.Image:
    """Decode one image file to RGB; grey, palette and CMYK files too.

    Args:
        path: The image file. HEIC is read where the package pillow-heif is installed.
        upright: Whether to turn the image as its EXIF orientation says, as `read_rgb` does. Pillow always turns a TIFF.
        remedy: The end of the error about a file that cannot be decoded: what to do.

    Returns:
        A PIL image in RGB, with 8 bits per channel.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file cannot be decoded to its end.
    """
    with opened(path, remedy) as image:
        return read_rgb(image, upright)


def read_rgb(image: Image.Image, upright: bool = True) -> Image.Image:
    """Convert a picture to RGB, and turn it upright as its EXIF orientation says.

    This is the one rule for every picture: of a data set, of a file, and in memory. Viewers and labelling tools show
    pictures so. What is turned forgets its orientation, so a second call changes nothing.

    Args:
        image: A PIL image of any mode that Pillow decodes. Its orientation is that of its EXIF data, which Pillow keeps
            when it converts, resizes or crops.
        upright: Whether to turn it; otherwise its pixels stay as they are stored.

    Returns:
        The picture in RGB, with 8 bits per channel.

    Raises:
        ValueError: The pixels are 32-bit numbers, whose scale is unknown.
    """
    rgb = as_rgb(image)
    # Only now, since Pillow turns a TIFF while it decodes it.
    return turned(rgb, orientation_of(image)) if upright else rgb


@contextmanager
def opened(path: Path, remedy: str = REMEDY) -> Iterator[Image.Image]:
    """Open an image file; what goes wrong with it inside becomes one sentence.

    Args:
        path: The image file.
        remedy: The end of that sentence: what to do.

    Yields:
        The image, whose pixels are not decoded yet.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file cannot be decoded.
    """
    try:
        with _open(path) as image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"image '{path}' is missing: {remedy}") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, UnidentifiedImageError) and is_heic(path) and not reads_heic():
            raise ValueError(f"image '{path}' is in HEIC format, which Pillow cannot read: {NEEDS_HEIF}") from error
        raise ValueError(f"image '{path}' cannot be decoded ({error}): {remedy}") from error


def _open(path: Path) -> Image.Image:
    """Open an image file, with pillow-heif where it is needed and installed."""
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        if not (is_heic(path) and reads_heic()):
            raise
        return Image.open(path)


def is_heic(path: Path) -> bool:
    """Tell a HEIC file by its first bytes.

    Args:
        path: A file.

    Returns:
        Whether it is HEIC or HEIF, as phones save photographs.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError:
        return False
    return start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS and b"avif" not in start


def reads_heic() -> bool:
    """Tell whether HEIC files can be read; where the package pillow-heif is installed, Pillow is told of it.

    Returns:
        Whether the package is installed.
    """
    try:
        importlib.import_module(HEIF).register_heif_opener()
    except ImportError:
        return False
    return True


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        size: Width and height in pixels, as the picture is stored.
        orientation: 1 to 8, as EXIF numbers it.
        always_upright: Whether Pillow turns the picture upright itself when it decodes it, as it does with a TIFF.
    """

    size: tuple[int, int]
    orientation: int
    always_upright: bool


def header(path: Path) -> Header:
    """Read the size and the EXIF orientation of an image file.

    Args:
        path: The image file.

    Returns:
        Its stored size, its orientation, and whether Pillow turns it.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with _open(path) as image:
        if isinstance(image, TiffImageFile):
            # Pillow states the size of the upright picture, already before it decodes it.
            return Header((int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])), orientation_of(image), True)
        return Header(image.size, orientation_of(image), False)


def upright_size(path: Path, upright: bool = True) -> tuple[int, int]:
    """Read width and height of a picture from its file's header.

    Args:
        path: The image file.
        upright: As in `load_rgb`.

    Returns:
        Width and height in pixels, as `load_rgb` gives the picture.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    stored, orientation, always = header(path)
    return turned_size(stored, orientation) if upright or always else stored


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB with 8 bits per channel.

    Pillow would cut 16-bit grey values off at 255; here they are scaled to 8 bits.

    Args:
        image: An image of any mode that Pillow decodes.

    Returns:
        The image in RGB.

    Raises:
        ValueError: The pixels are 32-bit numbers, whose scale is unknown.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are numbers of 32 bits (mode {image.mode}), and the file does not say which of them is white: "
            "save it with 8 or 16 bits a channel"
        )
    return image.convert("RGB")


def to_square(image: Image.Image, size: int) -> Tensor:
    """Stretch an RGB image to a square (bilinear).

    Args:
        image: An RGB image of any size.
        size: Side of the square in pixels.

    Returns:
        uint8 (3, size, size).
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
