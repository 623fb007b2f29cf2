"""Writer of embedded data sets in VOC layout, with the truth about every drawn object beside the annotations."""

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

STALE_AFTER = 24 * 3600  # seconds after which a partial folder is taken to be left by a killed process


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
    """Collects what the annotations do not say."""

    def __init__(self, classes: Sequence[str]):
        self.column = {name: k for k, name in enumerate(classes)}
        self.ids: list[str] = []
        self.posterior: list[np.ndarray] = []
        self.rows: list[tuple] = []

    def add(self, scene: SceneRecord) -> None:
        index = [self.column[item.name] for item in scene.objects]
        seen = [item.visibility for item in scene.objects]
        self.posterior.append(label_posterior(index, seen, len(self.column)).astype(np.float32))
        for k, item in zip(index, scene.objects):
            self.rows.append((len(self.ids), k, item.visibility, item.marked, *item.box))
        self.ids.append(scene.id)

    def arrays(self) -> dict[str, np.ndarray]:
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
    """One picture's annotation as VOC writes it: marked objects only, pixels counted from 1, both ends inclusive."""
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

    JPEGs have no chroma subsampling; then `ImageSets/Main/{split}.txt` and `{class}_{split}.txt` (1, 0 difficult, -1);
    `classes.txt`; `truth.npz`: ids, classes, posterior (N, C), and for every drawn object, marked or not, object_image,
    object_class, object_visibility, object_marked, object_box; `VERSION`: `version` and the number of images.
    Raises FileExistsError where `root` holds anything, ValueError for unusable or repeated ids and unknown classes.
    """
    root = Path(root)
    if _occupied(root):
        raise FileExistsError(f"'{root}' exists and is not empty: delete it first, or write to another folder")
    if odd := [name for name in (*classes, *splits) if not re.fullmatch(r"[^/\\\s]([^/\\\n]*[^/\\\s])?", name)]:
        raise ValueError(f"name {odd[0]!r} cannot be part of a file name: leave out slashes and outer spaces")
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
    images, annotations, sets = (folder / part for part in ("JPEGImages", "Annotations", "ImageSets/Main"))
    for part in (images, annotations, sets):
        part.mkdir(parents=True)
    truth, counts, used = _Truth(classes), {}, set()
    for split, records in splits.items():
        states: dict[str, dict[str, int]] = {}
        for scene in records:
            if scene.id in used or not re.fullmatch(r"[\w.-]+", scene.id):
                raise ValueError(f"scene id {scene.id!r} is repeated, or not made of letters, digits, '_', '-' and '.'")
            if unknown := {item.name for item in scene.objects} - truth.column.keys():
                raise ValueError(f"scene {scene.id!r} holds {min(unknown)!r}: known classes are {', '.join(classes)}")
            used.add(scene.id)
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
    for path in root.parent.glob(f".{root.name}-*.partial"):
        if time.time() - path.stat().st_mtime > STALE_AFTER:
            shutil.rmtree(path, ignore_errors=True)


def read_version(root: Path) -> dict | None:
    """Content of the VERSION file; None where there is none, or none of ours."""
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
    """Make an embedded data set, unless `root` holds just this one (same name, version, size and counts).

    `splits` maps a split to its number of scenes and a function that draws them. Raises ValueError where `root` holds
    something else: nothing is ever overwritten.
    """
    root = Path(root)
    wanted = {"generator": name, "version": version, "size": size}
    complete = {**wanted, "counts": {split: count for split, (count, _) in splits.items()}}
    if not _occupied(root):
        drawn = {split: _tracked(f"{name}: {split}", count, draw) for split, (count, draw) in splits.items()}
        try:
            write_voc(root, drawn, classes, wanted)
        except OSError:
            # Another process may have finished the same folder first; its content is then ours, byte for byte.
            if read_version(root) != complete:
                raise
    if (found := read_version(root)) != complete:
        raise ValueError(
            f"'{root}' holds {found or 'files without a VERSION'}, wanted is {complete}: "
            "delete that folder, or choose another root"
        )


def _tracked(description: str, count: int, draw: Callable[[], Iterable[SceneRecord]]) -> Iterator[SceneRecord]:
    yield from track(draw(), total=count, description=description)


def _occupied(root: Path) -> bool:
    return root.exists() and not (root.is_dir() and not any(root.iterdir()))
