"""Image files decoded to RGB."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def load_rgb(path: Path, upright: bool = False) -> Image.Image:
    """Decode one image file and convert it to RGB; grey, palette and CMYK files too.

    Args:
        path: The image file.
        upright: Whether to turn the image as its EXIF orientation says. By default it stays as it is stored, which is
            what boxes refer to.

    Returns:
        A PIL image in RGB, with 8 bits per channel.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file cannot be decoded to its end.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(ImageOps.exif_transpose(image) if upright else image)
    except FileNotFoundError:
        raise FileNotFoundError(f"image '{path}' is missing: restore the file or take it out of the split") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image '{path}' cannot be decoded ({error}): restore the file, or take it off the list of images; "
            "in Python on_error='skip' leaves it out in VOC layout, elsewhere deleting it and missing='drop'"
        ) from error


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
