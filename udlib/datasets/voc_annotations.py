"""The annotations of a folder in VOC layout: one XML file per image, read as boxes."""

import difflib
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from udlib.datasets.base import DROP, Box
from udlib.datasets.decoding import upright_size
from udlib.datasets.image_files import find_files
from udlib.datasets.names import clean
from udlib.datasets.readable import absent

REMEDY = "extract the archive again, or point root at the folder that holds VOCdevkit"
RESTORE = DROP
YES, NO = ("true", "yes", "y", "t"), ("", "false", "no", "n", "f", "none", "unspecified")  # words for flags


def annotation_path(root: Path, name: str) -> Path:
    """Return where VOC keeps the annotation of an image.

    Args:
        root: A VOC folder.
        name: The image's id.

    Returns:
        The XML file.
    """
    return root / "Annotations" / f"{name}.xml"


def image_path(root: Path, name: str) -> Path:
    """Return where a VOC folder keeps the pixels of an image.

    Args:
        root: A VOC folder.
        name: The image's id.

    Returns:
        The image file, as `image_paths` finds it.
    """
    path = root / "JPEGImages" / f"{name}.jpg"
    return path if path.is_file() else image_paths(root, [name])[0]  # which lists the folder


def image_paths(root: Path, names: Sequence[str]) -> list[Path]:
    """Find where a VOC folder keeps the pixels of images.

    Args:
        root: A VOC folder.
        names: The images' ids.

    Returns:
        For each id the file in JPEGImages that is called so, with .jpg or else with any other ending of an image; where
        there is none or several, the file that the annotation names; and the path with .jpg where that is missing too.
    """
    folder = root / "JPEGImages"
    paths = find_files([folder / f"{name}.jpg" for name in names])
    for i in absent(paths):
        try:
            named = parse_annotation(annotation_path(root, names[i])).findtext("filename") or ""
        except (OSError, ValueError):
            continue
        file = folder / named.strip().replace("\\", "/").rpartition("/")[2]
        paths[i] = file if file.is_file() else paths[i]
    return paths


def parse_annotation(path: Path) -> Element:
    """Parse one annotation. Entity declarations are refused, since their expansion can fill the memory.

    Args:
        path: The XML file.

    Returns:
        Its root element.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is not XML, declares entities, or is not an annotation.
    """
    from defusedxml import DefusedXmlException  # here, since data sets without XML can do without the package
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"annotation '{path}' is missing: {REMEDY}") from None
    except DefusedXmlException as error:
        raise ValueError(f"annotation '{path}' declares entities ({error}): refused, VOC needs none") from error
    except (ParseError, ValueError, LookupError) as error:
        raise ValueError(f"annotation '{path}' is not valid XML ({error}): {RESTORE}") from error
    if root.tag != "annotation":
        raise ValueError(f"annotation '{path}' begins with <{root.tag}>, not with <annotation>: {RESTORE}")
    return root


def named_objects(path: Path) -> list[Element]:
    """Find the names of an annotation's objects.

    Args:
        path: The XML file.

    Returns:
        The elements that hold the names; none for a broken file. A broken file of another split must not stop this
        one, and `read_boxes` names it when its own split is read.
    """
    try:
        return parse_annotation(path).findall("object/name")
    except ValueError:
        return []


def read_boxes(root: Path, name: str) -> list[Box]:
    """Read the objects of one image.

    VOC counts pixels from 1 and includes the last one, `Box` counts from 0 and excludes it; so xmin - 1, xmax. A box
    that reaches over the edge is clipped to the image. An object without a box, as a polygon has none, and one whose box
    is outside the image still give their label: their box has no area.

    Args:
        root: A VOC folder.
        name: The image's id.

    Returns:
        The boxes; none for an annotation without objects, which is an image without labels.

    Raises:
        FileNotFoundError: The annotation is missing.
        ValueError: The annotation is unusable, or a box is inverted.
    """
    return boxes_in(annotation_path(root, name), partial(image_path, root, name))


def boxes_in(path: Path, image: Callable[[], Path]) -> list[Box]:
    """Read the objects of one annotation, as `read_boxes` does.

    Args:
        path: The XML file.
        image: Finds the file of the image; it is asked only where the annotation states no size.

    Returns:
        The boxes, some of which may have no area.

    Raises:
        FileNotFoundError: The annotation is missing.
        ValueError: The annotation is unusable, or a box is inverted.
    """
    annotation = parse_annotation(path)
    elements = annotation.findall("object")
    if not elements:
        return []
    width, height = _size(annotation, path) or _header_size(image())
    return [_read_box(element, path, width, height) for element in elements]


def read_size(root: Path, name: str) -> tuple[int, int] | None:
    """Read the size of one image as its annotation states it.

    Args:
        root: A VOC folder.
        name: The image's id.

    Returns:
        Width and height in pixels; None where it states none.

    Raises:
        FileNotFoundError: The annotation is missing.
        ValueError: The annotation is unusable.
    """
    return size_in(annotation_path(root, name))


def size_in(path: Path) -> tuple[int, int] | None:
    """Read the size that one annotation states, as `read_size` does.

    Args:
        path: The XML file.

    Returns:
        Width and height in pixels; None where it states none.

    Raises:
        FileNotFoundError: The annotation is missing.
        ValueError: The annotation is unusable.
    """
    return _size(parse_annotation(path), path)


def _size(annotation: Element, path: Path) -> tuple[int, int] | None:
    """Width and height that an annotation states; None for 0 × 0 or no size at all, as some tools write."""
    width, height = (int(_number(annotation, f"size/{side}", path, 0)) for side in ("width", "height"))
    return (width, height) if width > 0 and height > 0 else None


def _read_box(element: Element, path: Path, width: int, height: int) -> Box:
    """One object in an image of this size."""
    name = clean(element.findtext("name") or "")
    if not name:
        raise ValueError(f"annotation '{path}' has an object without a name: give it one, or take it out")
    flags = [_flag(element, flag, path) for flag in ("truncated", "occluded", "difficult")]
    if element.find("bndbox") is None:
        return Box(name, 0.0, 0.0, 0.0, 0.0, *flags)
    xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
    if not (xmin <= xmax and ymin <= ymax):
        raise ValueError(
            f"annotation '{path}': box of {name!r} is xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g} "
            f"in an image of {width} × {height}: expected 1 ≤ xmin ≤ xmax ≤ {width} and 1 ≤ ymin ≤ ymax ≤ {height}"
        )
    right, bottom = max(min(xmax, float(width)), 0.0), max(min(ymax, float(height)), 0.0)
    return Box(name, min(max(xmin - 1, 0.0), right), min(max(ymin - 1, 0.0), bottom), right, bottom, *flags)


def _flag(element: Element, tag: str, path: Path) -> bool:
    """Whether a flag is set. Only `difficult` matters to labels, so that an odd word in another one is no error."""
    text = (element.findtext(tag) or "").strip().lower()
    if text in YES or text in NO:
        return text in YES
    if tag != "difficult":
        try:
            return float(text) != 0
        except ValueError:
            return False
    return _number(element, tag, path) != 0


def _number(element: Element, tag: str, path: Path, default: float | None = None) -> float:
    """The finite number at this tag; `default` where the tag is absent."""
    text = element.findtext(tag)
    if text is None and default is not None:
        return default
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"annotation '{path}' has {tag} = {text!r}: expected a number")
    return value


def _header_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright image."""
    try:
        return upright_size(path)
    except FileNotFoundError:
        raise ValueError(f"image '{path}' is missing, and its annotation states no size: {DROP}") from None
    except OSError as error:
        raise ValueError(f"image '{path}' cannot be decoded ({error}): {DROP}") from error


def unknown_class(path: Path, name: str, classes: Sequence[str]) -> str:
    """Write the error about a class name that is not in the list of classes.

    Args:
        path: The annotation that names it.
        name: The unknown name.
        classes: The known names.

    Returns:
        A sentence, with the most similar known name where there is one.
    """
    close = difflib.get_close_matches(name, classes, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "pass classes= with all names of this folder"
    return f"annotation '{path}' names the class {name!r}: known are {', '.join(classes)}; {hint}"
