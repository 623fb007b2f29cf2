"""Which JSON of annotations and which folder of images belong to each split of a folder in COCO's format.

COCO's own names (2014 and 2017), and those of tools that export its format: CVAT, Roboflow, and plain `train.json`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from udlib.datasets.base import NoSplit
from udlib.datasets.csv_columns import SPLIT_NAMES, split_of
from udlib.datasets.folders import held_out

OFFICIAL = ("2014", "2017")  # COCO publishes no labels of its test images: what is called val tests there
NAME = re.compile(r"(?:instances_)?(train|training|val|valid|validation|test|testing)(\d{4})?\.json", re.IGNORECASE)
WHOLE = (
    "instances_default.json",
    "_annotations.coco.json",
    "annotations.json",
    "instances.json",
    "result.json",
    "coco.json",
)


@dataclass(frozen=True)
class CocoSplit:
    """Where a split comes from.

    Args:
        path: The JSON.
        folders: Where its images may be, relative to the data set's folder, in order of preference.
        kept: Which of its images belong to the split: "all"; "rest" or "tenth" by `held_out`; "share" by `split_of`.
    """

    path: Path
    folders: tuple[str, ...]
    kept: str = "all"

    def rows(self, split: str, ids: list[str]) -> list[int]:
        """Select the images of the split.

        Args:
            split: Its name.
            ids: The ids of all images of the JSON.

        Returns:
            Rows of `ids`, rising.
        """
        if self.kept == "share":
            return [i for i, name in enumerate(ids) if split_of(name) == split]
        if self.kept in ("rest", "tenth"):
            return [i for i, name in enumerate(ids) if held_out(name) == (self.kept == "tenth")]
        return list(range(len(ids)))

    def note(self) -> tuple[str, ...]:
        """Say how the split is made where the hash of each image decides, beyond COCO's own rule; a sentence or nothing."""
        if self.kept == "share":
            return (
                f"'{self.path}' holds all images: the hash of each id divides them into 70 % train, 15 % val, 15 % test",
            )
        if self.kept == "all" or (match := NAME.fullmatch(self.path.name)) and match[2] in OFFICIAL:
            return ()
        return (f"there is no JSON for val beside '{self.path}': the hash of each id holds out a tenth of its images",)


def coco_splits(root: Path) -> dict[str, CocoSplit]:
    """Find the splits of a folder in COCO's format.

    Args:
        root: The folder.

    Returns:
        Each split by its name; none where the folder holds no JSON of a known name.
    """
    jsons = _year(root) or _in_folders(root) or _plain(root)
    if not jsons:
        return {}
    if "" in jsons:
        path = jsons[""]
        folders = (*_beside(path, root), "images/default", "images", "data", ".")
        return {name: CocoSplit(path, folders, "share") for name in ("train", "val", "test")} | {
            "trainval": CocoSplit(path, folders)
        }
    splits = {name: CocoSplit(path, _folders(name, path, root)) for name, path in jsons.items()}
    official = any((match := NAME.fullmatch(path.name)) and match[2] in OFFICIAL for path in jsons.values())
    if official and "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    if "train" in splits and "val" not in splits:
        train = splits["train"]
        splits["trainval"] = train
        splits |= {
            name: CocoSplit(train.path, train.folders, kept) for name, kept in (("train", "rest"), ("val", "tenth"))
        }
    return splits


def require_coco_split(root: Path, split: str) -> CocoSplit:
    """Find one split.

    Args:
        root: The folder.
        split: The split's name.

    Returns:
        Where it comes from.

    Raises:
        FileNotFoundError: The folder is missing, or holds no JSON of it.
        NoSplit: Other JSONs are there, and none of this split.
    """
    remedy = "extract annotations_trainval2014.zip again, or point root at the folder that holds 'annotations'"
    if not root.is_dir():
        raise FileNotFoundError(f"COCO root '{root}' is not a folder: {remedy}")
    splits = coco_splits(root)
    if split in splits:
        return splits[split]
    if splits and not any(NAME.fullmatch(part.path.name) for part in splits.values()):
        raise NoSplit(f"COCO root '{root}' has no split '{split}': found {', '.join(splits)}")
    part = "val" if split == "test" else "train"
    year = next((match[2] for rule in splits.values() if (match := NAME.fullmatch(rule.path.name))), "2014") or ""
    names = sorted(other.name for other in (root / "annotations").glob("*.json"))
    raise (NoSplit if splits else FileNotFoundError)(
        f"COCO root '{root}' has no 'annotations/instances_{part}{year}.json' (found: "
        f"{', '.join(names) or 'no JSON there'}): {remedy}"
    )


def images_of_split(root: Path, part: CocoSplit, files: list[str]) -> Path:
    """Find the folder of a split's images.

    Args:
        root: The data set's folder.
        part: The split.
        files: The file names in its JSON.

    Returns:
        The first folder that holds the first file; else the first that there is.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    folders = [root / name for name in part.folders if (root / name).is_dir()]
    if not folders:
        names = " or ".join(f"'{name}'" for name in part.folders)
        raise FileNotFoundError(f"'{root}' has no {names}, which would hold its images: extract the images there")
    return next((folder for folder in folders if files and (folder / files[0]).is_file()), folders[0])


def _year(root: Path) -> dict[str, Path]:
    """The JSONs of one year with COCO's own names; of 2014 if there are several."""
    by_year: dict[str, dict[str, Path]] = {}
    for path in sorted((root / "annotations").glob("instances_*.json")):
        match = NAME.fullmatch(path.name)
        if match and match[2]:
            by_year.setdefault(match[2], {}).setdefault(SPLIT_NAMES[match[1].lower()], path)
    return by_year[min(by_year)] if by_year else {}


def _in_folders(root: Path) -> dict[str, Path]:
    """The JSONs in the folders train, valid and test, as Roboflow exports them."""
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split and (path := next(iter(sorted(folder.glob("*.coco.json"))), None)):
            found[split] = path
    return found if "train" in found else {}


def _plain(root: Path) -> dict[str, Path]:
    """JSONs that are named after splits without a year, or one for all; in `annotations` or in the folder itself."""
    for folder in (root / "annotations", root):
        paths = sorted(folder.glob("*.json"))
        named = {SPLIT_NAMES[match[1].lower()]: path for path in paths if (match := NAME.fullmatch(path.name))}
        if "train" in named:
            return named
        if whole := next((path for name in WHOLE for path in paths if path.name.lower() == name), None):
            return {"": whole}
    return {}


def _beside(path: Path, root: Path) -> tuple[str, ...]:
    """The JSON's own folder, if it is one of images."""
    return () if path.parent in (root, root / "annotations") else (path.parent.relative_to(root).as_posix(),)


def _folders(split: str, path: Path, root: Path) -> tuple[str, ...]:
    """Where the images of a split may be."""
    match = NAME.fullmatch(path.name)
    if match and match[2]:
        stem = f"{match[1]}{match[2]}"
        return (stem, f"images/{stem}", "images", match[1], f"images/{match[1]}")
    names = dict.fromkeys([*([match[1]] if match else []), split])
    below = [name for each in names for name in (f"images/{each}", each)]
    return (*_beside(path, root), *below, "images", "data", ".")
