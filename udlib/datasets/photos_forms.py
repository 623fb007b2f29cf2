"""In which form a folder holds the photographs: as the table says, or smaller and in another format.

A folder of smaller photographs has a file `form.json` beside them. The table still decides what they show.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from udlib.datasets.photos_table import Photo

SHORT_SIDE = 288  # of the table's photographs, in pixels
MANIFEST = "form.json"
SUFFIXES = (".jpg", ".webp")


@dataclass(frozen=True)
class Form:
    """How the photographs of a folder are stored.

    Args:
        short_side: No photograph has a longer short side, in pixels; smaller ones are as in the table.
        suffix: Of the files: ".jpg" or ".webp".

    Raises:
        ValueError: A side above the table's or below 16, or another suffix.
    """

    short_side: int = SHORT_SIDE
    suffix: str = ".jpg"

    def __post_init__(self) -> None:
        if not 16 <= self.short_side <= SHORT_SIDE:
            raise ValueError(f"short_side is {self.short_side}: expected 16 to {SHORT_SIDE} pixels")
        if self.suffix not in SUFFIXES:
            raise ValueError(f"suffix is '{self.suffix}': expected {' or '.join(SUFFIXES)}")

    def file(self, photo: Photo) -> str:
        """Return the name of a photograph's file."""
        return photo.file.removesuffix(".jpg") + self.suffix

    def reduced(self, photo: Photo) -> Photo:
        """Return what the table holds of a photograph, with its size and its boxes at this form's size.

        Example:
            >>> from udlib.datasets.labels import Box
            >>> photo = Photo(139, 433, 288, "val", 0, (Box("tv", 144, 72, 288, 216),))
            >>> small = Form(144).reduced(photo)
            >>> small.width, small.height, round(small.boxes[0].xmax, 2)
            (216, 144, 143.67)
        """
        short = min(photo.width, photo.height)
        if short <= self.short_side:
            return photo
        width, height = (round(side * self.short_side / short) for side in (photo.width, photo.height))
        x, y = width / photo.width, height / photo.height
        boxes = tuple(
            replace(box, xmin=box.xmin * x, ymin=box.ymin * y, xmax=box.xmax * x, ymax=box.ymax * y)
            for box in photo.boxes
        )
        return replace(photo, width=width, height=height, boxes=boxes)

    def manifest(self) -> bytes:
        """Return the content of the folder's `form.json`."""
        return json.dumps(asdict(self)).encode()


def form_of(folder: Path | None) -> Form:
    """Read in which form a folder holds the photographs.

    Args:
        folder: Holds them; None for none.

    Returns:
        What its `form.json` says; without such a file, the table's form.

    Raises:
        ValueError: The file cannot be understood.
    """
    path = None if folder is None else folder / MANIFEST
    if path is None or not path.is_file():
        return Form()
    try:
        return Form(**json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' does not say how the photographs beside it are stored ({error}): `udlib gpu-pack` writes that "
            "folder again"
        ) from error


def require_full_size(folder: Path, remedy: str) -> None:
    """Refuse a folder of photographs that were made smaller, as `udlib gpu-pack` does.

    Args:
        folder: Should hold COCO's own photographs, or those of the table.
        remedy: The end of the message: what to do.

    Raises:
        ValueError: The folder has a `form.json`.
    """
    if (folder / MANIFEST).is_file():
        raise ValueError(
            f"'{folder}' holds photographs that were made smaller (it has a '{MANIFEST}'), not COCO's own: {remedy}"
        )
