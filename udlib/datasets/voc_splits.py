"""The splits of a folder in VOC layout: those that it lists, and those that follow from its lists.

A training needs train and val. Many folders list something else: trainval and test, as VOC2007 does for its challenge, or
one list alone, as CVAT exports it. Then the hash of each id decides, as it does in the other layouts.
"""

from pathlib import Path
from typing import NamedTuple

from udlib.datasets.base import NoSplit
from udlib.datasets.csv_columns import SPLIT_NAMES, split_of
from udlib.datasets.folders import held_out
from udlib.datasets.voc_lists import image_sets, read_split
from udlib.datasets.voc_writer import read_version

USUAL = ("train", "val", "trainval", "test")


class Rule(NamedTuple):
    """How the ids of a split follow from a list."""

    listing: str  # the name of the list
    kept: str = "all"  # "all", "rest" and "tenth" by `held_out`, "share" by `split_of`, or "others"
    without: str = ""  # for "others": the list whose ids are left out


def splits_of(root: Path) -> dict[str, Rule]:
    """Find the splits of a folder.

    Args:
        root: A VOC folder.

    Returns:
        The rule of each split by its name; train, val, trainval and test first.
    """
    names = image_sets(root)[0]
    rules = {name: Rule(name) for name in names}
    if read_version(root) is not None:  # a set that the course makes has just the splits that were asked for
        return {name: rules[name] for name in USUAL if name in rules}
    for name in names:
        usual = SPLIT_NAMES.get(name.lower(), name.lower())
        if usual in USUAL:
            rules.setdefault(usual, Rule(name))
    others = [name for name in names if rules.get("test") != Rule(name)]
    base = next((rules[name].listing for name in ("train", "trainval") if name in rules), None)
    if {"train", "trainval"} <= rules.keys() and "val" not in rules:
        rules["val"] = Rule(rules["trainval"].listing, "others", rules["train"].listing)
    elif {"val", "trainval"} <= rules.keys() and "train" not in rules:
        rules["train"] = Rule(rules["trainval"].listing, "others", rules["val"].listing)
    elif "val" not in rules and (base is not None or len(others) == 1):
        base = base or others[0]
        if base in ("train", "trainval") or "test" in rules or base.lower() in SPLIT_NAMES:
            rules |= {"train": Rule(base, "rest"), "val": Rule(base, "tenth")}
        else:
            rules |= {split: Rule(base, "share") for split in ("train", "val", "test")}
    usual = [name for name in USUAL if name in rules]
    return {name: rules[name] for name in usual + [name for name in names if name not in usual]}


def ids_of_split(root: Path, split: str) -> list[str]:
    """Read the image ids of a split.

    Args:
        root: A VOC folder.
        split: The split's name.

    Returns:
        The ids, in the order of the list.

    Raises:
        NoSplit: The folder has no such split.
        ValueError: The list is unusable, or no image is left.
    """
    rules = splits_of(root)
    own = (root / "ImageSets" / "Main" / f"{split}.txt").is_file()
    if own and (split not in rules or rules[split].listing != split):
        return read_split(root, split)  # which names the line that makes it look like the file of a class
    if split not in rules:
        names = image_sets(root)[0]
        raise NoSplit(f"VOC root '{root}' has no split '{split}': found {', '.join(names) or 'none'}")
    rule = rules[split]
    ids = read_split(root, rule.listing)
    if rule.kept == "share":
        ids = [name for name in ids if split_of(name) == split]
    elif rule.kept in ("rest", "tenth"):
        ids = [name for name in ids if held_out(name) == (rule.kept == "tenth")]
    elif rule.kept == "others":
        left_out = set(read_split(root, rule.without))
        ids = [name for name in ids if name not in left_out]
    if not ids:
        raise NoSplit(
            f"VOC root '{root}' has no list of split '{split}', and none of the images of {rule.listing}.txt falls to it: "
            f"write ImageSets/Main/{split}.txt"
        )
    return ids


def note_on_split(root: Path, split: str) -> tuple[str, ...]:
    """Say how a split is made where no list of its own decides.

    Args:
        root: A VOC folder.
        split: The split's name.

    Returns:
        A sentence, or nothing.
    """
    rule = splits_of(root).get(split, Rule(split))
    return {
        "share": (
            f"'{root}' lists {rule.listing}.txt alone: the hash of each id divides it into 70 % train, 15 % val, 15 % test",
        ),
        "rest": (f"'{root}' has no list of val: the hash of each id holds out a tenth of {rule.listing}.txt",),
        "tenth": (f"'{root}' has no list of val: the hash of each id holds out a tenth of {rule.listing}.txt",),
        "others": (
            f"'{root}' has no list of '{split}': it is what {rule.listing}.txt lists and {rule.without}.txt does not",
        ),
    }.get(rule.kept, ())
