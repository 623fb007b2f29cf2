"""Writer of the embedded data sets: VOC layout, with the truth about every drawn object beside the annotations."""

import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from udlib.datasets.annotator import label_posterior
from udlib.progress import track

STALE_AFTER = 24 * 3600  # seconds; a partial folder that is older was left by a killed process


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One drawn object: its box (xmin, ymin, xmax, ymax) as in `Box`, and whether the annotator marked it."""

    name: str
    box: tuple[float, float, float, float]
    truncated: bool
    occluded: bool
    difficult: bool
    marked: bool
    visibility: float


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """One picture, uint8 (H, W, 3), and everything that was drawn on it."""

    id: str
    image: np.ndarray
    objects: tuple[SceneObject, ...]


class _Truth:
    """The truth about all pictures, collected while they are written: what the annotations do not say."""

    def __init__(self, classes: Sequence[str]):
        self.column = {name: k for k, name in enumerate(classes)}
        self.ids: list[str] = []
        self.posterior: list[np.ndarray] = []
        self.rows: list[tuple] = []

    def add(self, scene: SceneRecord) -> None:
        """Add the objects and the posterior of one picture."""
        index = [self.column[item.name] for item in scene.objects]
        visibility = [item.visibility for item in scene.objects]
        self.posterior.append(label_posterior(index, visibility, len(self.column)).astype(np.float32))
        for k, item in zip(index, scene.objects):
            self.rows.append((len(self.ids), k, item.visibility, item.marked, *item.box))
        self.ids.append(scene.id)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `truth.npz`, by name."""
        rows = np.array(self.rows, dtype=np.float64).reshape(-1, 8)
        return {
            "ids": np.array(self.ids),
            "classes": np.array(list(self.column)),
            "posterior": np.array(self.posterior).reshape(-1, len(self.column)),
            "object_image": rows[:, 0].astype(np.int32),
            "object_class": rows[:, 1].astype(np.int32),
            "object_visibility": rows[:, 2].astype(np.float32),
            "object_marked": rows[:, 3].astype(bool),
            "object_box": rows[:, 4:].astype(np.float32),
        }


def annotation_xml(scene: SceneRecord) -> str:
    """Write one picture's annotation as VOC does: marked objects only, pixels counted from 1, both ends inclusive.

    Args:
        scene: The picture and its objects.

    Returns:
        The XML.
    """
    height, width = scene.image.shape[:2]
    objects = "".join(
        f"<object><name>{escape(item.name)}</name><pose>Unspecified</pose><truncated>{item.truncated:d}</truncated>"
        f"<occluded>{item.occluded:d}</occluded><difficult>{item.difficult:d}</difficult><bndbox>"
        f"<xmin>{math.floor(item.box[0]) + 1}</xmin><ymin>{math.floor(item.box[1]) + 1}</ymin>"
        f"<xmax>{math.ceil(item.box[2])}</xmax><ymax>{math.ceil(item.box[3])}</ymax></bndbox></object>\n"
        for item in scene.objects
        if item.marked
    )
    return (
        f"<annotation><filename>{scene.id}.jpg</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size><segmented>0</segmented>\n{objects}</annotation>\n"
    )


def write_voc(
    root: str | Path,
    splits: Mapping[str, Iterable[SceneRecord]],
    classes: Sequence[str],
    version: Mapping[str, object],
    quality: int = 95,
) -> None:
    """Write a whole VOC folder, or nothing: it is built beside `root` and takes its name when it is complete.

    It holds JPEGs without chroma subsampling; annotations; `ImageSets/Main/{split}.txt` and `{class}_{split}.txt` (1, 0
    difficult, -1); `classes.txt`; `truth.npz` with the arrays ids, classes, posterior (N, C), and for every drawn
    object, marked or not, object_image, object_class, object_visibility, object_marked and object_box; and `VERSION`.

    Args:
        root: The folder to write.
        splits: The pictures of each split, by its name.
        classes: The names of the classes, in order.
        version: What `VERSION` holds, beside the number of images of each split.
        quality: Quality of the JPEGs.

    Raises:
        FileExistsError: `root` holds anything.
        ValueError: An id is unusable or repeated, or a class is unknown.
    """
    root = Path(root)
    if _occupied(root):
        raise FileExistsError(f"'{root}' exists and is not empty: delete it first, or write to another folder")
    if unusable := [name for name in (*classes, *splits) if not re.fullmatch(r"[^/\\\s]([^/\\\n]*[^/\\\s])?", name)]:
        raise ValueError(f"name {unusable[0]!r} cannot be part of a file name: leave out slashes and outer spaces")
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}-", suffix=".partial", dir=root.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes it private
        counts = _write_content(partial, splits, classes, quality)
        (partial / "VERSION").write_text(json.dumps({**version, "counts": counts}, indent=1) + "\n", encoding="utf-8")
        if root.exists():
            root.rmdir()  # empty; Windows renames onto no folder at all
        os.rename(partial, root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_content(folder: Path, splits: Mapping, classes: Sequence[str], quality: int) -> dict[str, int]:
    """Write everything but `VERSION`; return the number of images of each split."""
    images, annotations, sets = (folder / part for part in ("JPEGImages", "Annotations", "ImageSets/Main"))
    for part in (images, annotations, sets):
        part.mkdir(parents=True)
    truth, counts, ids = _Truth(classes), {}, set()
    for split, records in splits.items():
        states: dict[str, dict[str, int]] = {}
        for scene in records:
            if scene.id in ids or not re.fullmatch(r"[\w.-]+", scene.id):
                raise ValueError(f"scene id {scene.id!r} is repeated, or not made of letters, digits, '_', '-' and '.'")
            if unknown := {item.name for item in scene.objects} - truth.column.keys():
                raise ValueError(f"scene {scene.id!r} holds {min(unknown)!r}: known classes are {', '.join(classes)}")
            ids.add(scene.id)
            Image.fromarray(scene.image).save(f"{images}/{scene.id}.jpg", "JPEG", quality=quality, subsampling=0)
            with open(f"{annotations}/{scene.id}.xml", "wb") as file:
                file.write(annotation_xml(scene).encode())
            truth.add(scene)
            state = states[scene.id] = {}
            for item in scene.objects:
                if item.marked and state.get(item.name) != 1:
                    state[item.name] = 0 if item.difficult else 1
        counts[split] = len(states)
        _write_lines(sets / f"{split}.txt", states)
        for name in classes:
            lines = (f"{scene_id} {state.get(name, -1):2d}" for scene_id, state in states.items())
            _write_lines(sets / f"{name}_{split}.txt", lines)
    _write_lines(folder / "classes.txt", classes)
    np.savez_compressed(folder / "truth.npz", **truth.arrays())
    return counts


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _remove_stale(root: Path) -> None:
    """Delete the partial folders that killed processes left."""
    for path in root.parent.glob(f".{root.name}-*.partial"):
        if time.time() - path.stat().st_mtime > STALE_AFTER:
            shutil.rmtree(path, ignore_errors=True)


def read_version(root: Path) -> dict | None:
    """Read the VERSION file of an embedded data set.

    Args:
        root: Its folder.

    Returns:
        The content; None where there is no such file, or it was not written here.
    """
    try:
        version = json.loads((Path(root) / "VERSION").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return version if isinstance(version, dict) else None


def ensure_voc(
    root: str | Path,
    splits: Mapping[str, tuple[int, Callable[[], Iterable[SceneRecord]]]],
    classes: Sequence[str],
    *,
    name: str,
    version: int,
    size: int,
) -> None:
    """Make an embedded data set, unless `root` already holds the same one (name, version, size and counts).

    Args:
        root: Its folder.
        splits: For each split, its number of scenes and a function that draws them.
        classes: The names of the classes, in order.
        name: The data set's name.
        version: Its version.
        size: Side of the pictures in pixels.

    Raises:
        ValueError: `root` holds something else. Nothing is ever overwritten.
    """
    root = Path(root)
    generator = {"generator": name, "version": version, "size": size}
    complete = {**generator, "counts": {split: count for split, (count, _) in splits.items()}}
    if not _occupied(root):
        scenes = {split: _tracked(f"{name}: {split}", count, draw) for split, (count, draw) in splits.items()}
        try:
            write_voc(root, scenes, classes, generator)
        except OSError:
            # Another process may have finished the same folder first; its content is then ours, byte for byte.
            if read_version(root) != complete:
                raise
    if (present := read_version(root)) != complete:
        raise ValueError(
            f"'{root}' holds {present or 'files without a VERSION'}, expected {complete}: "
            "delete that folder, or choose another root"
        )


def _tracked(description: str, count: int, draw: Callable[[], Iterable[SceneRecord]]) -> Iterator[SceneRecord]:
    """The scenes that `draw` draws, with a progress bar."""
    yield from track(draw(), total=count, description=description)


def _occupied(root: Path) -> bool:
    """Whether `root` is anything but an empty folder."""
    return root.exists() and not (root.is_dir() and not any(root.iterdir()))
