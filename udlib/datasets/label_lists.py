"""The cells of a column `labels`: which labels each of them names, however they are separated.

Tools write several labels into one cell as `cat|dog`, `cat;dog`, `cat, dog`, `cat dog` or `['cat', 'dog']`. What separates
them is decided for the whole column, from all its cells. Where that leaves a doubt whether a cell holds one label or
several, the cell is refused, since a wrong guess makes a class of every combination.
"""

import json
import re
from collections.abc import Callable, Sequence

from udlib.datasets.names import clean

NOTHING = ("nan", "none", "null", "na", "n/a", "<na>", "#n/a", "[]", "{}", "()")
SEPARATORS = {",": "commas", " ": "spaces"}
OTHERS = "/+&"  # separate labels in some files, and belong to a name in others
REMEDY = "write | between the labels of an image, or give one column for each class"
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")

Refuse = Callable[[int, str], object]  # receives the row of a cell, and what is wrong with it


def read_labels(
    cells: Sequence[str], classes: Sequence[str], refuse: Refuse
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Read the labels of every cell of a column.

    Args:
        cells: The cells.
        classes: The names of the classes, if they are known; a cell that is one of them, or several of them separated
            in any of the ways above, is clear then.
        refuse: Receives each cell that cannot be read; it has no labels then.

    Returns:
        The labels of each cell, and what is worth knowing about the column.
    """
    notes: list[str] = []
    pieces: list[list[str] | None] = []  # None: a list written as text, which needs no separator
    labels: list[list[str]] = []
    empty: dict[str, int] = {}
    for row, cell in enumerate(cells):
        text, names, split = cell.strip(), [], None
        if text.lower() in NOTHING and text not in classes:
            empty[text] = empty.get(text, 0) + text[0].isalpha()
        elif text in classes:
            names = [text]
        elif text:
            try:
                listed = _list(text)
            except ValueError as error:
                refuse(row, str(error))
                listed = []
            split = None if listed is not None else re.split(r"[;|\n\t]", text)
            names = listed or []
        labels.append(_names(names))
        pieces.append(None if split is None else _names(split))
    for text, count in empty.items():
        if count:
            notes.append(f"column 'labels' holds {text!r} in {count} lines: they count as images without labels")
    marked = any(re.search(r"[;|\n\t]", cell) for cell, split in zip(cells, pieces) if split is not None)
    _separate(pieces, marked, classes, refuse, notes)
    for row, split in enumerate(pieces):
        labels[row] = split if split is not None else labels[row]
        nothing = [name for name in labels[row] if name.lower() in NOTHING and name not in classes]
        if nothing and len(labels[row]) > len(nothing):
            refuse(row, f"has the label {nothing[0]!r} beside '{labels[row][0]}': take one of them out")
        labels[row] = [name for name in labels[row] if name not in nothing]
    return [tuple(names) for names in labels], notes


def _names(texts: Sequence[str]) -> list[str]:
    """Different names, without empty ones."""
    return list(dict.fromkeys(name for name in map(clean, texts) if name))


def _list(text: str) -> list[str] | None:
    """The items of a list that is written as text; None where the text is not one."""
    bracketed = text[0] + text[-1] in ("[]", "{}", "()")
    inner = text[1:-1] if bracketed else text
    quoted = _QUOTED.search(inner) is not None
    if not bracketed and text[0] in "[{":
        raise ValueError(f"has labels = {text!r}, which begins like a list and does not end like one: {REMEDY}")
    if not (bracketed or (text[0] in "'\"" and text[-1] == text[0])) or (text[0] == "(" and not quoted):
        return None
    if text[0] == "{" and ":" in inner:
        raise ValueError(f"has labels = {text!r}, which is no list of names: {REMEDY}")
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if isinstance(items, list) and all(isinstance(item, str) for item in items):
        return items
    if quoted:
        if re.sub(r"\bNone\b|\bnan\b", "", _QUOTED.sub("", inner)).strip(", \t\n"):
            raise ValueError(f"has labels = {text!r}, in which some names have quotes and some have none: {REMEDY}")
        return [first or second for first, second in _QUOTED.findall(inner)]
    items = inner.split(",") if "," in inner or not re.fullmatch(r"[\d.\s]+", inner) else inner.split()
    return [item for item in items if item.strip().lower() not in NOTHING]


def _separate(
    pieces: list[list[str] | None], marked: bool, classes: Sequence[str], refuse: Refuse, notes: list[str]
) -> None:
    """Split the names that hold several labels, in place; `marked` says that ; or | separates labels already."""
    if classes:
        for row, split in enumerate(pieces):
            pieces[row] = None if split is None else _names([part for name in split for part in _known(name, classes)])
        return
    for sign in (*SEPARATORS, *OTHERS):
        names = {name for split in pieces for name in split or ()}
        joined = {name: _parts(name, sign) for name in names if len(_parts(name, sign)) > 1}
        if not joined:
            continue
        splits, doubtful = _decision(sign, names, joined, marked)
        if splits:
            pieces[:] = [
                None if split is None else _names([part for name in split for part in joined.get(name, [name])])
                for split in pieces
            ]
            classes_now = sorted({name for split in pieces for name in split or ()})
            notes.append(f"column 'labels' is separated by {SEPARATORS[sign]}: its labels are {', '.join(classes_now)}")
            marked = True
        for row, split in enumerate(pieces):
            if split and (name := next((name for name in split if name in doubtful), None)):
                refuse(row, f"has the label '{name}': it may be one label or {len(joined[name])}; {REMEDY}")
                pieces[row] = [name for name in split if name not in doubtful]


def _decision(sign: str, names: set[str], joined: dict[str, list[str]], marked: bool) -> tuple[bool, set[str]]:
    """Whether a sign separates labels in the whole column, and the names of which that remains in doubt."""
    alone = names - joined.keys()
    known = {name for name, parts in joined.items() if alone.issuperset(parts)}  # all its parts are labels themselves
    parts = {part for several in joined.values() for part in several}
    fewer = len(parts | alone) < len(names)
    if sign in OTHERS:
        return False, set(joined) if fewer and not marked else known
    if marked:
        return False, known if sign == "," else set()
    if len(known) == len(joined) and (sign == "," or len(known) > 1):
        return True, set()
    if sign == ",":
        return (True, set()) if fewer or known else (False, set(joined))
    if alone & parts and 2 * len(parts | alone) <= len(names):
        return True, set()
    return False, set(joined) if fewer else known


def _parts(name: str, sign: str) -> list[str]:
    """The parts of a name."""
    return _names(name.split() if sign == " " else name.split(sign))


def _known(name: str, classes: Sequence[str]) -> list[str]:
    """The classes that a name joins, or the name itself."""
    for sign in () if name in classes else (*SEPARATORS, *OTHERS):
        parts = _parts(name, sign)
        if len(parts) > 1 and set(parts) <= {*classes}:
            return parts
    return [name]
