"""`photos`: real photographs, those of COCO val2017 that show a person; the labels ship, the photographs do not.

The table (`photos_table.py`) decides labels, difficulty, boxes and splits. A folder gives pixels only, and each image is
compared with the table when it is decoded. `udlib data photos --coco ROOT` makes the folder from COCO's val2017.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from udlib.datasets.base import MultiLabelDataset, NoSplit, data_root, load_rgb
from udlib.datasets.photos_forms import SHORT_SIDE, form_of, require_full_size
from udlib.datasets.photos_table import SPLITS, Photo, read_table, signature
from udlib.datasets.roots import placed
from udlib.files import atomic_write, remove_leftovers
from udlib.progress import track

NAME = "photos"
VARIABLE = "UDLIB_PHOTOS"
HIDDEN = "none"  # value of the variable that hides the photographs
IMAGES = "val2017"  # COCO's name of the folder of images
QUALITY = 88  # of the JPEGs that are made
# Of the signature's 64 bits, how many may differ. Measured on every second photograph: at most 4 do in a JPEG of quality
# 60, 75, 88 or 95 after resampling with a nearest, box, bilinear or bicubic filter, at most 3 in a WebP, and 0.1 on average.
# Of all pairs of different photographs 0.12 % differ in at most 6 bits, of those with equal sizes 0.11 %.
TOLERANCE = 6
REMEDY = (
    "`udlib data photos --coco ROOT` makes the folder from COCO's val2017 (https://cocodataset.org, val2017.zip, 0.8 GB); "
    f"or set {VARIABLE} to a folder that holds the photographs"
)


class Photos(MultiLabelDataset):
    """One split of `photos`. Labels, boxes and sizes come from the table, pixels from a folder.

    Args:
        photos: The images, as in the table; a folder that holds them smaller says so (`photos_forms`).
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
        form = form_of(folder)
        photos = [form.reduced(photo) for photo in photos]
        super().__init__(
            classes,
            [str(photo.id) for photo in photos],
            [(folder or Path(IMAGES)) / form.file(photo) for photo in photos],
            [photo.boxes for photo in photos],
            transform=transform,
        )
        self.root, self.skipped = folder, []
        self._photos = {str(photo.id): photo for photo in photos}

    def image_path(self, i: int) -> Path:
        """Return the file of image i; raises FileNotFoundError where it is not there."""
        path = self.paths[i]
        if self.root is None:
            raise FileNotFoundError(_hidden())
        if not path.is_file():
            raise FileNotFoundError(f"image {self.ids[i]} of '{NAME}' is not at '{path}': {REMEDY}")
        return path

    def image(self, i: int) -> Image.Image:
        """Decode image i to RGB; raises ValueError where it is broken, or another picture than the table's."""
        return _decoded(self.image_path(i), self.entry(i))

    def image_size(self, i: int) -> tuple[int, int]:
        """Return width and height of image i, which `boxes(i)` refer to; no file is needed."""
        photo = self.entry(i)
        return photo.width, photo.height

    def entry(self, i: int) -> Photo:
        """Return what the table holds of image i, at the size of the folder's photographs."""
        return self._photos[self.ids[i]]


def photos(
    split: str, size: int | None = None, root: str | Path | None = None, transform: Callable | None = None
) -> Photos:
    """Open the `photos` data set: 2,693 photographs with 29 classes.

    Without the photographs it opens all the same, with labels, boxes and sizes; only decoding an image is an error.

    Args:
        split: "train" (1,316 images), "val" (269) or "test" (1,108).
        size: Ignored: photographs keep the size of their folder, a short side of 288 px.
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
        root: The folder, or "none". By default `UDLIB_PHOTOS` or `UDLIB_ROOTS` names it, else it is `photos` below
            `data_root()`.

    Returns:
        The folder that should hold the JPEGs: `val2017` in that folder where there is one, else that folder itself; None
        for "none", which hides the photographs.
    """
    root = root or os.environ.get(VARIABLE) or placed(NAME) or data_root() / NAME
    if str(root) == HIDDEN:
        return None
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
        raise FileNotFoundError(_hidden())
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
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if entry.is_file()}  # a folder or a link to nothing is no photograph
    form = form_of(folder)
    return [form.file(photo) for photo in read_table()[1] if form.file(photo) not in names]


def _hidden() -> str:
    """What to say where the photographs are hidden."""
    return f"the photographs of '{NAME}' are hidden ({VARIABLE}={HIDDEN}): unset {VARIABLE}, or {REMEDY}"


def _decoded(path: Path, photo: Photo) -> Image.Image:
    """The picture in a file, which must be the table's."""
    remedy = f"delete the file, and `udlib data photos --coco ROOT` makes it again from COCO's {photo.file}"
    image = _readable(path, remedy)
    require_same(path, image, photo, remedy)
    return image


def _readable(path: Path, remedy: str) -> Image.Image:
    """The picture in a file, in RGB."""
    try:
        return load_rgb(path)
    except ValueError as error:
        raise ValueError(f"image '{path}' cannot be decoded ({error.__cause__}): {remedy}") from error


def require_same(path: Path, image: Image.Image, photo: Photo, remedy: str) -> None:
    """Refuse a picture that is not the table's.

    Args:
        path: Its file.
        image: The picture, in RGB.
        photo: What the table holds of it.
        remedy: The end of the message: what to do.

    Raises:
        ValueError: Its size differs, or more than `TOLERANCE` bits of its signature.
    """
    if image.size != (photo.width, photo.height):
        raise ValueError(
            f"'{path}' is not image {photo.id} of '{NAME}': at the size of this folder it has "
            f"{image.width} × {image.height}, expected are {photo.width} × {photo.height}: {remedy}"
        )
    distance = (signature(image) ^ photo.signature).bit_count()
    if distance > TOLERANCE:
        raise ValueError(
            f"'{path}' is not image {photo.id} of '{NAME}': of its 8 × 8 cells {distance} differ in light and dark, at "
            f"most {TOLERANCE} may: {remedy}"
        )


def wrong_photos(folder: Path) -> Iterator[str]:
    """Decode the photographs of a folder, and compare them with the table.

    Args:
        folder: Holds the JPEGs.

    Yields:
        What is wrong with an image. Images that are missing are passed over.
    """
    form = form_of(folder)
    for photo in track(read_table()[1], description="checking photos"):
        if (path := folder / form.file(photo)).is_file():
            try:
                _decoded(path, form.reduced(photo))
            except (OSError, ValueError) as error:
                yield str(error)


def check_photos(root: str | Path | None = None) -> Path:
    """Decode every photograph and compare it with the table.

    Args:
        root: As in `photo_folder`.

    Returns:
        The folder that holds the JPEGs.

    Raises:
        FileNotFoundError: The folder is missing or lacks images.
        ValueError: An image cannot be decoded, or is another picture; the message names the first such.
    """
    folder = require_photos(root)
    for problem in wrong_photos(folder):
        raise ValueError(problem)
    return folder


def prepare_photos(coco: str | Path, out: str | Path | None = None) -> Path:
    """Make the folder of photographs from COCO's val2017.

    A picture with a short side of more than 288 pixels is reduced to that; any other is copied byte for byte. What is
    there already stays, so the next call goes on where one was stopped.

    Args:
        coco: The folder that holds `val2017` or `images/val2017`, or COCO's pictures themselves.
        out: The new folder, which gets a `val2017`; by default `photos` below `data_root()`.

    Returns:
        The folder that holds the JPEGs.

    Raises:
        FileNotFoundError: COCO's pictures are missing, all or some.
        ValueError: A picture is broken or another one, the new folder is COCO's own, or one of the two holds photographs that
            were made smaller.
        OSError: The disk is full, or the folder cannot be written to.
    """
    originals = coco_folder(coco)
    folder = (Path(out).expanduser() if out is not None else data_root() / NAME) / IMAGES
    if folder.resolve() == originals.resolve():
        raise ValueError(
            f"'{folder}' holds COCO's own pictures, which stay as they are: name another folder with --out"
        )
    require_full_size(folder, "name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    for photo in track(read_table()[1], description="making photos"):
        path = folder / photo.file
        if path.exists():
            _decoded(path, photo)
        else:
            atomic_write(path, _reduced(originals / photo.file, photo))
    return folder


def coco_folder(root: str | Path) -> Path:
    """Find COCO's pictures of val2017.

    Args:
        root: The folder that holds `val2017` or `images/val2017`, or the pictures themselves.

    Returns:
        The folder that holds all pictures that `photos` needs.

    Raises:
        FileNotFoundError: There is no such folder, or it lacks some of them.
        ValueError: The folder holds photographs that were made smaller.
    """
    remedy = "extract val2017.zip (https://cocodataset.org) there, or name the folder that holds val2017"
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"COCO root '{root}' is not a folder: {remedy}")
    folder = next((path for path in (root / IMAGES, root / "images" / IMAGES) if path.is_dir()), root)
    require_full_size(folder, remedy)
    missing, table = _missing(folder), read_table()[1]
    if folder == root and len(missing) == len(table):
        names = sorted(path.name for path in root.iterdir())
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise FileNotFoundError(f"COCO root '{root}' has no '{IMAGES}' (it holds {shown or 'nothing'}): {remedy}")
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise FileNotFoundError(f"'{folder}' lacks {len(missing)} of the {len(table)} pictures, {shown}: {remedy}")
    return folder


def _reduced(original: Path, photo: Photo) -> bytes:
    """The JPEG of one photograph, made from COCO's."""
    remedy = "extract COCO's val2017.zip again"
    image = _readable(original, remedy)
    short = min(image.size)
    if short <= SHORT_SIDE:
        require_same(original, image, photo, remedy)
        return original.read_bytes()
    size = (round(image.width * SHORT_SIDE / short), round(image.height * SHORT_SIDE / short))
    image = image.resize(size, Image.Resampling.LANCZOS)
    require_same(original, image, photo, remedy)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY)
    return content.getvalue()
