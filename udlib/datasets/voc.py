"""Reader for any folder in the layout of PASCAL VOC: VOC2007, VOC2012, or the embedded `scenes` and `digits`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from udlib.datasets.base import Box, MultiLabelDataset, NoSplit, label_states
from udlib.datasets.folders import Missing, first_repeated, require_missing
from udlib.datasets.labels import has_area
from udlib.datasets.readable import absent, unusable
from udlib.datasets.tables import Table, cached
from udlib.datasets.voc_annotations import REMEDY, annotation_path, image_paths, read_boxes, read_size, unknown_class
from udlib.datasets.voc_lists import (
    VOC_CLASSES,
    check_complete,
    disagreements,
    find_classes,
    find_root,
    read_split,
)
from udlib.datasets.voc_splits import Rule, ids_of_split, note_on_split, splits_of
from udlib.progress import track

__all__ = ["VOC", "VOC_CLASSES", "read_posterior", "read_truth"]


class VOC(MultiLabelDataset):
    """One split of a VOC-layout folder, with VOC's three label states, its boxes, and the posterior if it is known.

    All annotations of the split are read once, here. VOC counts pixels from 1 and includes the last one; `Box` counts
    from 0 and excludes it, so its sides are xmin - 1 and xmax.

    Args:
        root: Folder that holds `ImageSets/Main/{split}.txt`, `Annotations/*.xml` and images in `JPEGImages`, or a folder
            above it, with `VOCdevkit/VOC2007` or `VOC2007` in it.
        split: The name of a split: of a list, or train, val or test where `voc_splits` makes it of other lists.
        classes: The names of the classes, in order; by default those of `voc_lists.find_classes`.
        transform: A function of a PIL RGB image.
        on_error: "raise", or "skip" images whose annotation or JPEG is missing or broken. To find them, every image is
            decoded once.
        year: Selects one of several folders below `root`.
        missing: "raise"; "drop", which is on_error="skip"; or "absent", which skips images whose JPEG is missing or whose
            annotation is missing or broken, without decoding any.

    Attributes:
        root: The folder that holds ImageSets/Main.
        split: The split.
        skipped: `(id, reason)` of each image that was skipped.

    Raises:
        FileNotFoundError: A folder or a file is missing.
        ValueError: A file is unusable, an option is unknown, or an annotation names a class that is not in the list.
            The last is an error with "skip", too, since it means that the list of classes is wrong.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: Sequence[str] | None = None,
        transform: Callable | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        year: int | str | None = None,
        missing: Missing = "raise",
    ):
        require_missing(missing)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}: expected 'raise' or 'skip'")
        self.root, self.split = find_root(Path(root).expanduser(), year), split
        self.skipped: list[tuple[str, str]] = []
        ids = ids_of_split(self.root, split)
        if on_error == "raise" and len(absent([annotation_path(self.root, name) for name in ids])) == len(ids):
            raise NoSplit(f"VOC root '{self.root}' has no annotation of any image of split '{split}': {REMEDY}")
        classes = tuple(classes) if classes is not None else find_classes(self.root)
        if repeated := first_repeated(classes):
            raise ValueError(f"classes hold {repeated!r} more than once: each class needs its own name")
        if on_error == missing == "raise":
            check_complete(self.root, split, ids)
            objects = cached(
                f"voc {self.root.resolve()} {split}", len(ids), lambda: self._files(ids), lambda: self._table(ids)
            ).objects
        else:
            ids, objects = self._readable(ids, decode=missing != "absent")
        for name, boxes in zip(ids, objects):
            for box in boxes:
                if box.name not in classes:
                    raise ValueError(unknown_class(annotation_path(self.root, name), box.name, classes))
        targets, difficult = label_states(objects, classes)
        self.notes = note_on_split(self.root, split)
        if empty := [name for name, boxes in zip(ids, objects) if not all(map(has_area, boxes))]:
            self.notes += (
                f"split '{split}' has objects without a box in {len(empty)} images (first: {empty[0]}): their labels count",
            )
        super().__init__(
            classes,
            ids,
            image_paths(self.root, ids),
            [tuple(filter(has_area, boxes)) for boxes in objects],
            targets=targets,
            difficult=difficult,
            posterior=read_posterior(self.root, ids, classes),
            transform=transform,
        )
        self.boxes_may_turn = self.posterior is None  # embedded pictures are stored upright

    def annotated_size(self, i: int) -> tuple[int, int] | None:
        """Return width and height of image i as its annotation states them; None where it states none."""
        return read_size(self.root, self.ids[i])

    def _files(self, ids: list[str]) -> list[Path]:
        """The files that the table of labels is made from."""
        # The images too: where an annotation holds no size, that of the image clips the boxes.
        return [*(annotation_path(self.root, name) for name in ids), *image_paths(self.root, ids)]

    def _table(self, ids: list[str]) -> Table:
        """The annotations of these images, parsed."""
        objects = [tuple(read_boxes(self.root, name)) for name in ids]
        names = sorted({box.name for boxes in objects for box in boxes})
        return Table(tuple(names), ids, [f"{name}.jpg" for name in ids], objects)

    def _readable(self, ids: list[str], decode: bool) -> tuple[list[str], list[tuple[Box, ...]]]:
        """The images that can be read, and their objects; the others go to `skipped`."""
        paths = image_paths(self.root, ids)
        problems = unusable(paths, decode)
        kept: list[str] = []
        objects: list[tuple[Box, ...]] = []
        for i, name in enumerate(track(ids, description="reading annotations")):
            try:
                if i in problems:
                    raise ValueError(problems[i])
                objects.append(tuple(read_boxes(self.root, name)))
                kept.append(name)
            except (FileNotFoundError, ValueError) as error:
                self.skipped.append((name, str(error)))
        if not kept:
            raise ValueError(
                f"VOC root '{self.root}': none of the {len(ids)} images of split '{self.split}' is readable "
                f"(first: {self.skipped[0][1]}): {REMEDY}"
            )
        return kept, objects

    def check(self) -> list[str]:
        """Compare the labels with the `{class}_{split}.txt` files.

        Returns:
            A sentence for each difference.

        Raises:
            ValueError: A line of a file holds no state.
        """
        states = torch.where(self.targets == 0, -1, 1).masked_fill(self.difficult, 0).tolist()
        listing = splits_of(self.root).get(self.split, Rule(self.split)).listing
        left_out = {name for name, _ in self.skipped} | ({*read_split(self.root, listing)} - {*self.ids})
        return [
            difference
            for k, name in enumerate(self.classes)
            for difference in disagreements(
                self.root, listing, name, dict(zip(self.ids, (row[k] for row in states))), left_out
            )
        ]


def read_truth(root: Path) -> dict[str, np.ndarray]:
    """Read what an embedded data set records beyond its annotations.

    Args:
        root: The folder of an embedded data set.

    Returns:
        The arrays that `voc_writer.write_voc` lists, by name.

    Raises:
        FileNotFoundError: The folder has no `truth.npz`.
        ValueError: The file is damaged, or holds Python objects, which are never unpickled.
    """
    path = root / "truth.npz"
    try:
        with np.load(path, allow_pickle=False) as truth:
            return {name: truth[name] for name in truth}
    except FileNotFoundError:
        raise FileNotFoundError(f"'{root}' has no 'truth.npz': only embedded data sets know the truth") from None
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for a damaged file
        remedy = f"delete the folder '{root}' and let it be made again"
        raise ValueError(f"'{path}' is not readable ({error!r}): {remedy}") from error


def read_posterior(root: Path, ids: Sequence[str], classes: Sequence[str]) -> Tensor | None:
    """Read P(label = 1 | scene) of an embedded data set.

    Args:
        root: A VOC folder.
        ids: The ids of N images.
        classes: The names of C classes.

    Returns:
        float32 (N, C); None where the folder has no `truth.npz`.

    Raises:
        ValueError: The file is damaged, or does not list an image or a class.
    """
    path = root / "truth.npz"
    if not path.is_file():
        return None
    truth = read_truth(root)
    rows = {name: i for i, name in enumerate(truth["ids"].tolist())}
    columns = {name: k for k, name in enumerate(truth["classes"].tolist())}
    if absent := [name for name in ids if name not in rows] + [name for name in classes if name not in columns]:
        raise ValueError(f"'{path}' does not list {absent[0]!r}: it belongs to other data; make the folder again")
    posterior = truth["posterior"][np.ix_([rows[name] for name in ids], [columns[name] for name in classes])]
    return torch.from_numpy(posterior.astype(np.float32))
