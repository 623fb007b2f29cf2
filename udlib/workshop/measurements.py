"""Which images and labels the numbers in a model's folder belong to, and the numbers measured anew where those changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from udlib.datasets.base import MultiLabelDataset, label_fingerprint
from udlib.models import TrainedModel
from udlib.progress import track
from udlib.workshop.splits import aligned, numbers_of

SPLITS = "splits"  # of a model's provenance: what each split was that it was trained, calibrated or measured on
PARTS = {"labels": "labels or names of images", "content": "image files"}
NOTHING: Mapping[str, Any] = MappingProxyType({})


def identity_of(dataset: MultiLabelDataset, known: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """What stands for the labels and the pixels of a split.

    Args:
        dataset: the split.
        known: an earlier identity of the split. Where no file has another length or time of change since, its `content` is
            taken over, and the files are not read.

    Returns:
        "labels": of classes, ids and labels; "files": of the lengths and times of change of all image files; "content": of
        their bytes.

    Raises:
        FileNotFoundError: an image is missing.
    """
    paths = [dataset.image_path(i) for i in range(len(dataset))]
    files = hashlib.sha256()
    for i, path in enumerate(paths):
        try:
            status = path.stat()
        except FileNotFoundError:
            dataset.image(i)  # raises an error that names the image and what to do
            raise
        times = f"{status.st_mtime_ns}\n{status.st_ctime_ns}"  # the first can be set to anything, the second cannot
        files.update(f"{dataset.ids[i]}\n{status.st_size}\n{times}\n".encode(errors="surrogateescape"))
    stamp = files.hexdigest()[:16]
    if known.get("files") == stamp and "content" in known:
        content = known["content"]
    else:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            hashes = pool.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), paths)
            read = track(hashes, total=len(paths), description="reading the image files", silent=len(paths) < 1000)
            content = hashlib.sha256(b"".join(read)).hexdigest()[:16]
    return {"labels": label_fingerprint(dataset), "files": stamp, "content": content}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What of a split changed, in words; empty where labels and pixels are the same."""
    return " and ".join(words for part, words in PARTS.items() if before[part] != now[part])


def require_same_pixels(model: TrainedModel, splits: Mapping[str, Mapping[str, str]], where: object) -> None:
    """Refuse a model whose training or validation images are other ones now.

    Args:
        model: from a folder; one that an older version wrote does not know its images, and passes.
        splits: `identity_of` "train" and "val" as they are now.
        where: the model's folder, for the error.

    Raises:
        ValueError: naming the split.
    """
    before = model.provenance.get(SPLITS, NOTHING)
    for split in ("train", "val"):
        if split in before and before[split]["content"] != splits[split]["content"]:
            raise ValueError(
                f"'{where}' holds a model that was trained with other image files: those of '{split}' have changed since; "
                "name another folder to train on them as they are now, or delete this one"
            )


def up_to_date(model: TrainedModel, splits: Mapping[str, MultiLabelDataset], where: object) -> TrainedModel:
    """A trained model with numbers that belong to the data as they are now.

    The splits on which nothing changed keep their numbers. The others are measured again, and a line says why.

    Args:
        model: from a folder.
        splits: those of its data, by name.
        where: the model's folder, for errors.

    Returns:
        The model itself where nothing changed.

    Raises:
        ValueError: as `require_same_pixels`.
    """
    before = model.provenance.get(SPLITS, NOTHING)
    now = {name: identity_of(part, before.get(name, NOTHING)) for name, part in splits.items()}
    require_same_pixels(model, now, where)
    stale = {}
    for name in splits.keys() - {"train"}:
        if name not in before or name not in model.metrics:
            stale[name] = "the stored numbers do not say on which data they were measured"
            if name not in model.metrics:
                stale[name] = "no numbers of it are stored"
        elif changed := differences(before[name], now[name]):
            stale[name] = f"its {changed} have changed since the stored numbers were measured"
    for name in [name for name in splits if name in stale]:
        print(f"'{name}' is measured again: {stale[name]}", flush=True)
    for name in model.metrics.keys() - splits.keys():
        print(f"the stored numbers of '{name}' are dropped: the data set has no such split any more", flush=True)
    if not stale and model.metrics.keys() <= splits.keys():
        return model
    return measured_on(model, {name: splits[name] for name in splits if name in stale}, now)


def measured_on(
    model: TrainedModel, parts: Mapping[str, MultiLabelDataset], now: Mapping[str, Mapping[str, str]]
) -> TrainedModel:
    """Measure a model on some splits.

    Args:
        model: the numbers that it has of other splits stay.
        parts: the splits to measure on, by name.
        now: `identity_of` every split; numbers of splits that are not among them are dropped.

    Returns:
        The model with its numbers, and with the identities.
    """
    metrics = {name: numbers for name, numbers in model.metrics.items() if name in now}
    metrics |= {
        name: numbers_of(model, model.logits(part), aligned(part, model.classes)) for name, part in parts.items()
    }
    ordered = {name: metrics[name] for name in now if name in metrics}
    return replace(model, metrics=ordered, provenance={**model.provenance, SPLITS: dict(now)})
