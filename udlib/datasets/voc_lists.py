"""The lists of a folder in VOC layout: its root, its splits, its classes, and what `{class}_{split}.txt` says."""

from pathlib import Path

from udlib.datasets.base import NoSplit
from udlib.datasets.folders import first_repeated, inside, utf8
from udlib.datasets.image_files import ENDINGS, rivals
from udlib.datasets.names import clean
from udlib.datasets.readable import absent
from udlib.datasets.voc_annotations import REMEDY, annotation_path, image_paths, named_objects

VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
    "sheep sofa train tvmonitor".split()
)


STATES = ("1", "0", "-1")  # in the files of classes: present, difficult, absent


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file; Windows line ends and a byte order mark are allowed.

    Args:
        path: A UTF-8 file.

    Returns:
        The lines that are not blank, without spaces around them.

    Raises:
        ValueError: The file is not UTF-8.
    """
    with utf8(path) as file:
        return [line.strip() for line in file.read().splitlines() if line.strip()]


def find_root(root: Path, year: int | str | None = None) -> Path:
    """Find the folder that holds ImageSets/Main: `root`, or a VOC folder below it.

    Args:
        root: A VOC folder, VOCdevkit, or the folder that holds VOCdevkit.
        year: Selects VOC{year} among several folders.

    Returns:
        The VOC folder.

    Raises:
        FileNotFoundError: There is no such folder, or a part of it is missing.
        ValueError: There are several, or the only one is of another year.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"VOC root '{root}' is not a folder: {REMEDY}")
    if (root / "ImageSets" / "Main").is_dir():
        if year is not None and root.name != f"VOC{year}":
            raise ValueError(f"VOC root '{root}' is a VOC folder, but not VOC{year}: leave out year, or give VOCdevkit")
        folder = root
    else:
        mains = [*root.glob("*/ImageSets/Main"), *root.glob("VOCdevkit/*/ImageSets/Main")]
        folders = sorted(path.parents[1] for path in mains)
        matches = [path for path in folders if year is None or path.name == f"VOC{year}"]
        if not folders:
            raise FileNotFoundError(f"VOC root '{root}' has no 'ImageSets/Main': {REMEDY}")
        if len(matches) != 1:
            names = ", ".join(path.name for path in folders)
            raise ValueError(
                f"VOC root '{root}' holds {names}, year is {year}: choose one with year=, or name its folder"
            )
        folder = matches[0]
    for part in ("Annotations", "JPEGImages"):
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"VOC root '{folder}' has no '{part}': {REMEDY}")
    return folder


def image_sets(root: Path) -> tuple[list[str], list[str]]:
    """List the splits and the classes that have files in ImageSets/Main, such as `train.txt` and `dog_train.txt`.

    The content decides which is which, since a class may be called "train" and a split "small_train": each line of a
    split holds an id, and each line of a class holds an id and a state.

    Args:
        root: A VOC folder.

    Returns:
        The names of the splits and the names of the classes, each sorted.

    Raises:
        ValueError: A file is not UTF-8.
    """
    splits: list[str] = []
    class_files: list[str] = []
    for path in sorted(path for path in (root / "ImageSets" / "Main").glob("*.txt") if path.is_file()):
        with utf8(path) as file:
            line = file.readline().strip()
        words = line.split()
        states = len(words) == 2 or len(words) > 2 and words[-1] in STATES
        is_class = states and not _is_id(root, _as_id(root, line))
        (class_files if is_class else splits).append(path.stem)
    endings = {stem: [split for split in splits if stem.endswith("_" + split)] for stem in class_files}
    classes = {stem.removesuffix("_" + max(names, key=len)) for stem, names in endings.items() if names}
    return splits, sorted(classes)


def read_split(root: Path, split: str) -> list[str]:
    """Read the image ids of one split. An id may have folders, spaces and the ending of its image.

    Args:
        root: A VOC folder.
        split: The split's name.

    Returns:
        The ids, in file order.

    Raises:
        NoSplit: The folder has no such split.
        ValueError: The file is empty, repeats an id, or holds more than an id in a line.
    """
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        splits, _ = image_sets(root)
        raise NoSplit(f"VOC root '{root}' has no split '{split}': found {', '.join(splits) or 'none'}")
    ids = [_as_id(root, line) for line in read_lines(path)]
    if not ids:
        raise ValueError(f"split file '{path}' is empty: expected one image id per line")
    for number, name in enumerate(ids, 1):
        if len(name.split()) > 1 and not _is_id(root, name):
            raise ValueError(f"split file '{path}' entry {number} holds {name!r}: expected one image id per line")
        try:
            inside(name)
        except ValueError as error:
            raise ValueError(f"split file '{path}' entry {number}: {error}") from error
    if repeated := first_repeated(ids):
        raise ValueError(f"split file '{path}' lists {repeated!r} more than once: list each image once")
    return ids


def find_classes(root: Path) -> tuple[str, ...]:
    """Find the class names of a folder, the same for each of its splits, so that columns agree between them.

    Args:
        root: A VOC folder.

    Returns:
        The first of these that there is: the lines of `classes.txt`; the names of the `{class}_{split}.txt` files in
        ImageSets/Main; VOC's 20 classes, if they cover every name in Annotations; the sorted names found there.

    Raises:
        ValueError: `classes.txt` repeats a class, or a list is not UTF-8.
    """
    listing = root / "classes.txt"
    if listing.is_file():
        names = [clean(line) for line in read_lines(listing)]
        if repeated := first_repeated(names):
            raise ValueError(f"'{listing}' lists class '{repeated}' more than once: list each once")
        return tuple(names)
    if listed := image_sets(root)[1]:
        return tuple(listed)
    elements = (element for path in sorted((root / "Annotations").rglob("*.xml")) for element in named_objects(path))
    annotated = {clean(element.text or "") for element in elements} - {""}
    return VOC_CLASSES if annotated <= set(VOC_CLASSES) else tuple(sorted(annotated))


def check_complete(root: Path, split: str, ids: list[str]) -> None:
    """Refuse a half-extracted folder: every id needs its annotation and its image.

    Args:
        root: A VOC folder.
        split: The split's name, for the error.
        ids: The ids of its images.

    Raises:
        FileNotFoundError: Files are missing.
    """
    annotations = [annotation_path(root, name) for name in ids]
    for folder, paths in (("Annotations", annotations), ("JPEGImages", image_paths(root, ids))):
        if missing := [paths[i] for i in absent(paths)]:
            raise FileNotFoundError(
                f"VOC root '{root}' lacks {len(missing)} of {len(ids)} files of split '{split}' in '{folder}' "
                f"(first: {missing[0].relative_to(root / folder).as_posix()}{rivals(missing[0])}): {REMEDY}; or leave these "
                "images out with --missing drop (in Python missing='drop')"
            )


def _is_id(root: Path, name: str) -> bool:
    """Whether an annotation or an image has this id. No folder is listed: a large one has a list for each of many classes."""
    return annotation_path(root, name).is_file() or any(
        (root / "JPEGImages" / f"{name}{ending}").is_file() for ending in ENDINGS
    )


def _as_id(root: Path, line: str) -> str:
    """The id in a line of a list: some tools write it with the folder or the ending of the image."""
    name = line.replace("\\", "/").removeprefix("./").removeprefix("JPEGImages/")
    stem, dot, ending = name.rpartition(".")
    if dot and f".{ending.lower()}" in ENDINGS and not annotation_path(root, name).is_file():
        return stem
    return name


def disagreements(root: Path, split: str, name: str, states: dict[str, int], left_out: set[str]) -> list[str]:
    """Compare the states of one class with `{class}_{split}.txt`.

    Args:
        root: A VOC folder.
        split: The split's name.
        name: The class.
        states: 1, 0 (difficult) or -1 by image id, from the annotations.
        left_out: Images to ignore.

    Returns:
        A sentence for each difference; none where the file does not exist.

    Raises:
        ValueError: A line holds no state.
    """
    path = root / "ImageSets" / "Main" / f"{name}_{split}.txt"
    if not path.is_file():
        return []
    listed = {}
    for number, line in enumerate(read_lines(path), 1):
        image, _, state = line.rpartition(" ")
        if state not in STATES:
            raise ValueError(f"'{path}' line {number} holds {line!r}: expected an image id and 1, 0 or -1")
        listed[image.strip()] = int(state)
    differences = [
        f"{image}: listed in {path.name} but not in {split}.txt"
        for image in sorted(listed.keys() - states.keys() - left_out)
    ]
    for image, annotated in states.items():
        if image not in listed:
            differences.append(f"{image}: missing from {path.name}")
        elif listed[image] != annotated:
            differences.append(f"{image}: {path.name} says {listed[image]}, its annotation says {annotated}")
    return differences
