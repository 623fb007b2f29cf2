"""`photos`: real photographs, those of COCO val2017 that show a person; the labels ship, the photographs do not.

The table (`photos_table.py`) decides labels, difficulty, boxes and splits. A folder gives pixels only, and each image is
compared with the table when it is decoded. `udlib data photos --coco ROOT` makes the folder from COCO's val2017.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from udlib.datasets.base import MultiLabelDataset, NoSplit, data_root
from udlib.datasets.photos_table import SPLITS, Photo, file_name, read_table, signature
from udlib.datasets.roots import placed
from udlib.progress import track

NAME = "photos"
VARIABLE = "UDLIB_PHOTOS"
HIDDEN = "none"  # value of the variable that hides the photographs
IMAGES = "val2017"  # COCO's name of the folder of images
TOLERANCE = 12  # of the signature's 64 bits, how many may differ
REMEDY = (
    "`udlib data photos --coco ROOT` makes the folder from COCO's val2017 (https://cocodataset.org, val2017.zip, 0.8 GB); "
    f"or set {VARIABLE} to a folder that holds the photographs"
)


class Photos(MultiLabelDataset):
    """One split of `photos`. Labels, boxes and sizes come from the table, pixels from a folder.

    Args:
        photos: The images, as in the table.
        classes: The names of the classes, in order.
        folder: Holds the JPEGs; None hides the photographs.
        transform: A function of a PIL RGB image.

    Attributes:
        root: The folder.
        skipped: Empty: no image is left out.
    """

    def __init__(
        self,
        photos: list[Photo],
        classes: tuple[str, ...],
        folder: Path | None,
        transform: Callable | None = None,
    ):
        super().__init__(
            classes,
            [str(photo.id) for photo in photos],
            [(folder or Path(IMAGES)) / photo.file for photo in photos],
            [photo.boxes for photo in photos],
            transform=transform,
        )
        self.root, self.skipped = folder, []
        self._photos = {str(photo.id): photo for photo in photos}

    def image_path(self, i: int) -> Path:
        """Return the file of image i; raises FileNotFoundError where it is not there."""
        path = self.paths[i]
        if self.root is None:
            raise FileNotFoundError(
                f"the photographs of '{NAME}' are hidden ({VARIABLE}={HIDDEN}): unset it, or {REMEDY}"
            )
        if not path.is_file():
            raise FileNotFoundError(f"image {self.ids[i]} of '{NAME}' is not at '{path}': {REMEDY}")
        return path

    def image(self, i: int) -> Image.Image:
        """Decode image i to RGB; raises ValueError where it is another picture than the table's."""
        self.image_path(i)
        image = super().image(i)
        require_same(self.paths[i], image, self._photos[self.ids[i]])
        return image

    def image_size(self, i: int) -> tuple[int, int]:
        """Return width and height of image i, which `boxes(i)` refer to; no file is needed."""
        photo = self._photos[self.ids[i]]
        return photo.width, photo.height


def photos(
    split: str, size: int | None = None, root: str | Path | None = None, transform: Callable | None = None
) -> Photos:
    """Open the `photos` data set: 2,693 photographs with 29 classes.

    Without the photographs it opens all the same, with labels, boxes and sizes; only decoding an image is an error.

    Args:
        split: "train" (1,316 images), "val" (269) or "test" (1,108).
        size: Ignored: photographs keep their size, a short side of 288 px.
        root: The folder of the photographs; by default that of `photo_folder`.
        transform: A function of a PIL RGB image.

    Returns:
        The split, by rising image id.

    Raises:
        ValueError: The split is unknown.
    """
    if split not in SPLITS:
        raise NoSplit(f"{NAME} has no split '{split}': choose one of {', '.join(SPLITS)}")
    classes, table = read_table()
    return Photos([photo for photo in table if photo.split == split], classes, photo_folder(root), transform)


def photo_folder(root: str | Path | None = None) -> Path | None:
    """Find the folder of the photographs.

    Args:
        root: The folder, if the caller knows it; else `UDLIB_PHOTOS` names it, or `UDLIB_ROOTS`, or it is `photos` below
            `data_root()`.

    Returns:
        The folder that should hold the JPEGs: `val2017` in that folder where there is one, else that folder itself. None
        where `UDLIB_PHOTOS` is "none".
    """
    if root is None:
        variable = os.environ.get(VARIABLE)
        if variable == HIDDEN:
            return None
        root = variable or placed(NAME) or data_root() / NAME
    folder = Path(root).expanduser()
    return folder / IMAGES if (folder / IMAGES).is_dir() else folder


def photos_available(root: str | Path | None = None) -> bool:
    """Tell whether the photographs are there.

    Args:
        root: As in `photo_folder`.

    Returns:
        Whether the folder holds a file for every image. No file is opened.
    """
    folder = photo_folder(root)
    return folder is not None and folder.is_dir() and not _missing(folder)


def require_photos(root: str | Path | None = None) -> Path:
    """Refuse to go on without the photographs.

    Args:
        root: As in `photo_folder`.

    Returns:
        The folder that holds the JPEGs.

    Raises:
        FileNotFoundError: It does not exist, lacks images, or is hidden. The message says how to get them.
    """
    folder = photo_folder(root)
    if folder is None:
        raise FileNotFoundError(f"the photographs of '{NAME}' are hidden ({VARIABLE}={HIDDEN}): unset it, or {REMEDY}")
    if not folder.is_dir():
        raise FileNotFoundError(f"the photographs of '{NAME}' are not at '{folder}': {REMEDY}")
    if missing := _missing(folder):
        total = len(read_table()[1])
        raise FileNotFoundError(
            f"'{folder}' lacks {len(missing)} of {total} photographs, '{missing[0]}' first: {REMEDY}"
        )
    return folder


def _missing(folder: Path) -> list[str]:
    """File names of the table that the folder lacks."""
    names = set(os.listdir(folder))
    return [photo.file for photo in read_table()[1] if photo.file not in names]


def require_same(path: Path, image: Image.Image, photo: Photo) -> None:
    """Refuse a picture that is not the table's.

    Args:
        path: Its file.
        image: The picture, in RGB.
        photo: What the table holds of it.

    Raises:
        ValueError: Its size differs, or more than `TOLERANCE` bits of its signature.
    """
    expected = (photo.width, photo.height)
    remedy = f"delete the file, then `udlib data photos --coco ROOT` makes it again from COCO's {file_name(photo.id)}"
    if image.size != expected:
        sizes = f"{image.width} × {image.height} pixels: expected {expected[0]} × {expected[1]}"
        raise ValueError(f"image {photo.id} of '{NAME}', '{path}', has {sizes}; {remedy}")
    distance = (signature(image) ^ photo.signature).bit_count()
    if distance > TOLERANCE:
        raise ValueError(
            f"'{path}' is not image {photo.id} of '{NAME}': {distance} of 64 cells differ in light and dark, at most "
            f"{TOLERANCE} may; {remedy}"
        )


def check_photos(root: str | Path | None = None) -> int:
    """Decode every photograph and compare it with the table.

    Args:
        root: As in `photo_folder`.

    Returns:
        The number of images.

    Raises:
        FileNotFoundError: The folder is missing or lacks images.
        ValueError: An image cannot be decoded, or is another picture; the message names the first such.
    """
    folder = require_photos(root)
    classes, table = read_table()
    dataset = Photos(list(table), classes, folder)
    for i in track(range(len(dataset)), description="checking photos"):
        dataset.image(i)
    return len(dataset)
