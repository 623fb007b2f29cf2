"""Names of classes: one spelling for what looks the same, and names that are spelled suspiciously alike."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

FEW = 2  # images: a label of so few is noted where it is spelled much like a more frequent one
RARE = 20  # and any label where it is spelled much like one that is so many times as frequent


def clean(name: str) -> str:
    r"""Write a name in the one way of those that look the same: composed letters, and single spaces inside.

    Args:
        name: A class name as a file holds it.

    Returns:
        The name in Unicode's form NFC, without spaces around it.

    Example:
        >>> clean("  fire\u00a0 truck")
        'fire truck'
    """
    return " ".join(unicodedata.normalize("NFC", name).split())


def variants(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Find names that differ only in case, spaces, hyphens, underscores, or in `1.0` for `1`.

    Args:
        names: The names of the classes.

    Returns:
        The groups of such names, in the order of `names`.

    Example:
        >>> variants(["owl", "cat", "Owl", "big_cat", "big cat"])
        [('owl', 'Owl'), ('big_cat', 'big cat')]
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        key = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold()) or name
        groups.setdefault(re.sub(r"^(\d+)\.0+$", r"\1", key), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def doubtful(counts: Mapping[str, int]) -> list[str]:
    """Say which classes may be one class in two spellings.

    Args:
        counts: The number of images with each class.

    Returns:
        A sentence for each group of `variants`, and for each rare label that is spelled much like a frequent one.
    """
    notes = []
    alike = variants(list(counts))
    for group in alike:
        shown = " and ".join(f"'{name}' ({_images(counts[name])})" for name in group)
        notes.append(
            f"{shown} differ only in case, spaces, hyphens or underscores, and each is a class of its own: "
            "write them the same way if they are one class"
        )
    noted = {name for group in alike for name in group}
    for name, count in counts.items():
        if not count or name in noted:
            continue
        least = count + 1 if count <= FEW else RARE * count
        others = {other.casefold(): other for other in counts if counts[other] >= least}
        if similar := get_close_matches(name.casefold(), list(others), 1, 0.75):
            other = others[similar[0]]
            notes.append(
                f"label '{name}' is in {_images(count)}, and '{other}' in {counts[other]}: is it a slip of "
                "the pen? As it stands it is a class of its own"
            )
    return notes


def _images(count: int) -> str:
    """A number of images in words."""
    return f"{count} image{'' if count == 1 else 's'}"
