"""EXIF orientation: how a camera held sideways says which way up a picture is, and where boxes go when it is turned."""

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from udlib.datasets.labels import Box

TAG = 0x0112  # of EXIF
# Beside the tag itself, where Pillow keeps it in `Image.info`.
KEPT_IN = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # these exchange width and height


def orientation_of(image: Image.Image) -> int:
    """Read the EXIF orientation of a picture.

    Args:
        image: A PIL image. Pillow turns a TIFF itself when it decodes it, and its orientation is 1 from then on.

    Returns:
        1 to 8, as EXIF numbers them; 1 (upright as it is stored) where there is none, or no such number.
    """
    try:
        value = image.getexif().get(TAG, 1)
    except Exception:  # Pillow raises a dozen kinds for damaged EXIF, and the pixels beside it may be whole
        return 1
    return value if value in TURNS else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture upright, and forget its orientation, so that nobody turns it again.

    Args:
        image: A PIL image as it is stored. What it carries of EXIF and XMP is removed from it.
        orientation: 1 to 8.

    Returns:
        The upright image; for orientation 1 the same object.
    """
    for name in KEPT_IN:
        image.info.pop(name, None)
    return image if orientation == 1 else image.transpose(TURNS[orientation])


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Compute width and height after turning.

    Args:
        size: Width and height as they are stored.
        orientation: 1 to 8.

    Returns:
        Width and height of the upright picture.

    Example:
        >>> turned_size((640, 480), 6), turned_size((640, 480), 3)
        ((480, 640), (640, 480))
    """
    return (size[1], size[0]) if orientation in SIDEWAYS else size


def turned_boxes(
    boxes: Sequence[Box], annotated: tuple[float, float], stored: tuple[int, int], orientation: int
) -> list[Box]:
    """Bring boxes into the upright picture.

    Most tools label the upright picture, so boxes stay as they are. Some label the stored one. The size that an
    annotation states tells these: it is the stored size, and not the upright one. Then the boxes are turned with the
    pixels. Where both sizes are equal nothing tells them, and the boxes stay.

    Args:
        boxes: Boxes in the picture that the annotation describes, in pixels.
        annotated: Width and height that the annotation states.
        stored: Width and height of the stored picture.
        orientation: 1 to 8.

    Returns:
        The boxes in the upright picture.

    Example:
        >>> [box] = turned_boxes([Box("cup", 0, 0, 10, 5)], (40, 20), (40, 20), 6)
        >>> box.xmin, box.ymin, box.xmax, box.ymax
        (15, 0, 20, 10)
    """
    width, height = stored
    if orientation not in SIDEWAYS or tuple(annotated) != stored or width == height:
        return list(boxes)
    return [_sideways(box, width, height, orientation) for box in boxes]


def _sideways(box: Box, width: int, height: int, orientation: int) -> Box:
    """One box after a quarter turn, mirrored or not, of a stored picture of this size."""
    # x after the turn comes from y before it, and y from x; each may count from the other end.
    x = (box.ymin, box.ymax) if orientation in (5, 8) else (height - box.ymax, height - box.ymin)
    y = (box.xmin, box.xmax) if orientation in (5, 6) else (width - box.xmax, width - box.xmin)
    return replace(box, xmin=x[0], ymin=y[0], xmax=x[1], ymax=y[1])
