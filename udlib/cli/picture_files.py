"""Which files `udlib predict` looks at: the images that are named, those in folders, and what is passed over there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HEIC = {".heic", ".heif", ".hif"}


@dataclass
class Selection:
    """The images to look at, and what was passed over in folders.

    Attributes:
        images: In the order of the names, and by name within a folder.
        heic: Photographs in HEIC format where no package is installed that reads it.
        others: Files that are no images.
        folders: Subfolders that were not looked into.
    """

    images: list[Path] = field(default_factory=list)
    heic: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def sentences(self) -> Iterator[str]:
        """What was passed over, a sentence for each kind."""
        from udlib.datasets.decoding import NEEDS_HEIF

        if self.heic:
            yield f"skipped {_counted(self.heic, 'photograph')} in HEIC format: {NEEDS_HEIF.replace(' it', ' them')}"
        if self.others:
            yield f"skipped {_counted(self.others, 'file')} in no image format that is known here"
        if self.folders:
            yield f"skipped {_counted(self.folders, 'subfolder')}: --recursive looks into them"


def select(named: Sequence[Path], recursive: bool) -> Selection:
    """Find the images that are named, and those in folders that are named.

    Args:
        named: Files and folders. A file that is named is taken whatever it is.
        recursive: Whether to look into subfolders; hidden ones are left alone.

    Returns:
        The images, and what was passed over.

    Raises:
        FileNotFoundError: A folder holds no image, with what it holds.
    """
    selection = Selection()
    for path in named:
        if not path.is_dir():
            selection.images.append(path)
            continue
        before = len(selection.images), len(selection.heic)
        _look_into(path, recursive, selection)
        if (len(selection.images), len(selection.heic)) == before:
            passed_over = "; ".join(selection.sentences())
            raise FileNotFoundError(
                f"folder '{path}' holds no images: name image files, or a folder that holds some"
                + (f" ({passed_over})" if passed_over else "")
            )
    return selection


def _look_into(folder: Path, recursive: bool, selection: Selection) -> None:
    """Sort the entries of a folder into images and what is passed over."""
    from udlib.datasets.decoding import is_heic, reads_heic

    endings = _endings()
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not recursive or path.name.startswith("."):
                selection.folders += [] if path.name.startswith(".") else [path]
            elif not path.is_symlink():  # a link upwards would never end
                _look_into(path, recursive, selection)
        elif path.suffix.lower() in endings - HEIC or (not path.suffix and _is_image(path)):
            selection.images.append(path)
        elif path.suffix.lower() in HEIC or is_heic(path):
            (selection.images if reads_heic() else selection.heic).append(path)
        elif not path.name.startswith("."):
            selection.others.append(path)


def _endings() -> set[str]:
    """The endings of files that Pillow can decode; it knows films only by name, and PDF only to write."""
    from PIL import Image

    formats = {ending: name for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    return {ending for ending, name in formats.items() if name != "MPEG"}


def _is_image(path: Path) -> bool:
    """Whether a file without an ending begins as an image does."""
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _counted(paths: Iterable[Path], noun: str) -> str:
    """The number of files and the first of them.

    >>> _counted([Path("a.txt"), Path("b.txt")], "file"), _counted([Path("c")], "subfolder")
    ("2 files ('a.txt' first)", "1 subfolder ('c')")
    """
    first, *rest = paths
    return f"{1 + len(rest):,} {noun}s ('{first}' first)" if rest else f"1 {noun} ('{first}')"
