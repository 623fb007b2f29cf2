"""Which layout a folder is in, and how each is opened: data sets by name, or by what stands on disk."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from udlib.datasets.base import MultiLabelDataset, data_root
from udlib.datasets.coco import COCO
from udlib.datasets.custom import Custom
from udlib.datasets.nuswide import NUSWIDE
from udlib.datasets.roots import placed
from udlib.datasets.voc import VOC, find_root, image_sets

READERS: dict[str, Callable[..., MultiLabelDataset]] = {"voc": VOC, "coco": COCO, "nuswide": NUSWIDE, "csv": Custom}
NAMED = {"voc2007": "voc", "voc2012": "voc", "coco2014": "coco", "nuswide": "nuswide"}
SPLITS = ("train", "val", "test")
NEEDS = {
    "voc": "ImageSets/Main/<split>.txt, Annotations and JPEGImages (or a VOCdevkit that holds such a folder)",
    "coco": "annotations/instances_train2014.json and instances_val2014.json, with the images in train2014 and val2014",
    "nuswide": "ConceptsList/Concepts81.txt, ImageList and Groundtruth/TrainTestLabels, with the images in Flickr or images",
    "csv": "labels.csv (columns file and labels, or file and one column per class), with the images beside it or in images",
}
_MARKS = {
    "voc": ("ImageSets/Main", "*/ImageSets/Main", "VOCdevkit/*/ImageSets/Main"),
    "coco": ("annotations/instances_*2014.json",),
    "nuswide": ("ConceptsList/Concepts81.txt",),
    "csv": ("*.csv", "*.CSV"),
}


@dataclass(frozen=True)
class Source:
    """A data set on disk: its layout ("voc", "coco", "nuswide" or "csv"), its root, and what its reader is told."""

    layout: str
    root: Path
    options: dict = field(default_factory=dict)

    def open(self, split: str, **options) -> MultiLabelDataset:
        """One split, by the reader of this layout."""
        return READERS[self.layout](self.root, split, **{**self.options, **options})

    def folder(self) -> Path:
        """The folder of the lists: `root`, or in VOC layout the folder below it that holds ImageSets/Main."""
        return find_root(self.root, self.options.get("year")) if self.layout == "voc" else self.root

    def splits(self) -> list[str]:
        """The splits to look at: those that a VOC folder lists, train, val, trainval and test first; else train, val, test."""
        if self.layout != "voc":
            return list(SPLITS)
        found = image_sets(self.folder())[0]
        usual = [name for name in ("train", "val", "trainval", "test") if name in found]
        return usual + [name for name in found if name not in usual]


def source(data: str | Path, root: str | Path | None = None) -> Source:
    """The data set of this name, at `root`, or where `roots.placed` says, or (`NAMED`) below the data root; or the folder or
    CSV of this path.

    Raises FileNotFoundError where nothing is there, or nothing that any layout needs.
    """
    name = str(data)
    if root is None and (here := placed(name)) is not None:
        return Source(layout_of(here), here)
    if name not in NAMED:
        if root is not None:
            raise ValueError(
                f"root is for the data sets {', '.join(NAMED)}: '{name}' is a path already, leave root out"
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
    """Whether VOC's year can be read off the folders: an extracted VOC2007 may well have been given another name."""
    return not (path / "ImageSets" / "Main").is_dir() or re.fullmatch(r"VOC\d{4}", path.name) is not None


def layout_of(path: Path) -> str:
    """The layout of a folder, or "csv" for a file; FileNotFoundError that says what each layout needs."""
    if path.is_file():
        return "csv"
    if not path.is_dir():
        raise FileNotFoundError(f"'{path}' is neither a folder nor a CSV: check the path")
    for layout, marks in _MARKS.items():
        if any(next(path.glob(mark), None) for mark in marks):
            return layout
    found = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    needs = "; ".join(f"{layout} needs {needed}" for layout, needed in NEEDS.items())
    raise FileNotFoundError(f"'{path}' is in no layout that is known here (it holds {shown or 'nothing'}): {needs}")
