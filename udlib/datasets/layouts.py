"""Data sets on disk, by name or by path: which layout a folder has, and which reader opens it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from udlib.datasets.base import MultiLabelDataset, data_root
from udlib.datasets.coco import COCO
from udlib.datasets.coco_files import coco_splits
from udlib.datasets.csv_files import csvs_in_folders
from udlib.datasets.custom import Custom
from udlib.datasets.nuswide import NUSWIDE
from udlib.datasets.photos import HIDDEN, photo_folder, photos
from udlib.datasets.photos import NAME as PHOTOS
from udlib.datasets.roots import placed
from udlib.datasets.voc import VOC
from udlib.datasets.voc_lists import find_root
from udlib.datasets.voc_splits import splits_of
from udlib.datasets.xml_folders import XMLFolder, annotation_files

READERS: dict[str, Callable[..., MultiLabelDataset]] = {
    "voc": VOC,
    "coco": COCO,
    "nuswide": NUSWIDE,
    "csv": Custom,
    "xml": XMLFolder,
    "photos": lambda root, split, **options: photos(split, root=root, **options),
}
EMBEDDED = ("scenes", "digits")
NAMED = {"voc2007": "voc", "voc2012": "voc", "coco2014": "coco", "nuswide": "nuswide"}
SPLITS = ("train", "val", "test")
NEEDS = {
    "voc": "ImageSets/Main/<split>.txt, Annotations and JPEGImages (or a VOCdevkit that holds such a folder)",
    "coco": "annotations/instances_train2014.json and instances_val2014.json, with the images in train2014 and val2014 (or "
    "2017; or annotations/instances_default.json; or train/_annotations.coco.json, valid/… and test/…)",
    "nuswide": "ConceptsList/Concepts81.txt, ImageList and Groundtruth/TrainTestLabels, with the images in Flickr or "
    "images",
    "csv": "labels.csv, or train.csv, val.csv and test.csv (columns file and labels, or file and one column per class), "
    "with the images beside it or in images",
    "xml": "an XML annotation beside each image, or in Annotations, or in the folders train, valid and test",
}
_MARKS = {
    "voc": ("ImageSets/Main", "*/ImageSets/Main", "VOCdevkit/*/ImageSets/Main"),
    "coco": ("annotations/instances_*.json",),
    "nuswide": ("ConceptsList/Concepts81.txt",),
    "csv": ("*.csv", "*.CSV"),
}


@dataclass(frozen=True)
class Source:
    """A data set on disk.

    Args:
        layout: "voc", "coco", "nuswide", "csv", "xml" or "photos".
        root: Its folder, or its CSV.
        options: Arguments of its reader.
    """

    layout: str
    root: Path
    options: dict = field(default_factory=dict)

    def open(self, split: str, **options) -> MultiLabelDataset:
        """Open one split.

        Args:
            split: The split's name.
            **options: More arguments of the reader.

        Returns:
            The split, as the reader of this layout returns it.
        """
        return READERS[self.layout](self.root, split, **{**self.options, **options})

    def folder(self) -> Path:
        """Find the folder of the lists.

        Returns:
            `root`, or in VOC layout the folder that holds ImageSets/Main.
        """
        return find_root(self.root, self.options.get("year")) if self.layout == "voc" else self.root

    def splits(self) -> list[str]:
        """List the splits.

        Returns:
            In VOC layout those that the folder lists or that follow from its lists, train, val, trainval and test first;
            else train, val and test.
        """
        if self.layout != "voc":
            return list(SPLITS)
        return list(splits_of(self.folder()))


def require_no_own_folder(data: str | Path) -> None:
    """Refuse a name of the course's sets where the working directory holds a folder of that name, which might be meant.

    Commands call it. In Python a text that is such a name is always the course's set, and a `Path` is always a folder.

    Args:
        data: What names the data set; nothing else is refused than such a name.

    Raises:
        ValueError: There is such a folder, and it is not the one where the course keeps this set.
    """
    own = Path(data)
    if data not in (*EMBEDDED, PHOTOS, *NAMED) or placed(str(data)) is not None:
        return
    if own.is_dir() and own.resolve() != (data_root() / own).resolve():
        raise ValueError(
            f"'{data}' is a data set of the course, and a folder here has the same name: write './{data}' for the folder, "
            "or rename it if you mean the course's"
        )


def source(data: str | Path, root: str | Path | None = None, **options) -> Source:
    """Find a data set on disk.

    Args:
        data: A name or a path. A name is "photos", one of `NAMED`, or one for which `roots.place` stored a folder. A
            `Path` is always a path, and so is a text with a slash, as "./photos".
        root: The folder of a data set that is given by name; by default the stored one, else the folder of that name
            below the data root.
        **options: Arguments that its reader will get, such as `missing="drop"`.

    Returns:
        The data set, with the layout that its content shows.

    Raises:
        FileNotFoundError: Nothing is there, or nothing that any layout needs.
        ValueError: `root` is given beside a path, or images of "photos" are to be left out.
    """
    place = _place(data, root)
    if place.layout == "photos" and options.pop("missing", "raise") == "drop":
        raise ValueError(
            f"'{PHOTOS}' is one fixed set, from which no image is left out: use missing='raise' (--missing fail)"
        )
    return replace(place, options={**place.options, **options})


def _place(data: str | Path, root: str | Path | None) -> Source:
    """The layout and the folder of a data set."""
    name = data if isinstance(data, str) else ""  # Path("photos") is a folder, as "./photos" is
    if name == PHOTOS:
        return Source("photos", photo_folder(root) or Path(HIDDEN))
    if root is None and name and (folder := placed(name)) is not None:
        return Source(layout_of(folder), folder)
    if name not in NAMED:
        if root is not None:
            raise ValueError(
                f"root is for the data sets {', '.join(NAMED)}: '{data}' is a path already, leave root out"
            )
        path = Path(data).expanduser()
        return Source(layout_of(path), path)
    path = Path(root).expanduser() if root is not None else data_root() / name
    if not path.is_dir():
        fetch = f"`udlib data download {name}` fetches it, or " if NAMED[name] == "voc" else ""
        raise FileNotFoundError(f"data set '{name}' is not at '{path}': {fetch}name the folder that holds it with root")
    if NAMED[name] != "voc" or not _names_its_year(path):
        return Source(NAMED[name], path)
    return Source("voc", path, {"year": int(name.removeprefix("voc"))})


def _names_its_year(path: Path) -> bool:
    """Whether the folders' names tell VOC's year; people rename an extracted VOC2007."""
    return not (path / "ImageSets" / "Main").is_dir() or re.fullmatch(r"VOC\d{4}", path.name) is not None


def layout_of(path: Path) -> str:
    """Tell the layout of a folder.

    Args:
        path: A folder, or a CSV.

    Returns:
        "voc", "coco", "nuswide", "csv" or "xml".

    Raises:
        FileNotFoundError: There is nothing, or no known layout; the error says what each layout needs.
    """
    if path.is_file():
        return "csv"
    if not path.is_dir():
        raise FileNotFoundError(f"'{path}' is neither a folder nor a CSV: check the path")
    for layout, marks in _MARKS.items():
        if any(next(path.glob(mark), None) for mark in marks):
            return layout
    for layout, files in (("csv", csvs_in_folders), ("coco", coco_splits), ("xml", annotation_files)):
        if files(path):  # in folders of any spelling, or with names that other files may have, too
            return layout
    names = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    needs = "; ".join(f"{layout} needs {needed}" for layout, needed in NEEDS.items())
    raise FileNotFoundError(f"'{path}' is in no layout that udlib knows (it holds {shown or 'nothing'}): {needs}")
