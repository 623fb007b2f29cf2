"""A teacher's answers, kept on disk for all the students that see the same views of the same images.

With random crops every epoch shows other views, so the answers cannot be computed once for all epochs. But the views
follow from the seed, the epoch and the batches alone: the students of one seed see the same ones, whatever they learn by.
The first of them computes the answers of an epoch, and the others read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from udlib.files import atomic_write
from udlib.methods.base import Stage
from udlib.methods.teachers import Ask, TeacherAnswers
from udlib.training.batches import Batch
from udlib.training.checkpoints import fingerprint
from udlib.training.devices import make_accelerator, resolve_precision

# The settings of a training on which the views depend, beside the images themselves.
VIEWS = ("seed", "batch_size", "flip", "shift", "erase", "crop", "crop_scales")

DIGEST = "fingerprint"  # stands in a file beside the answers, so that a changed bit is noticed


def kept_answers(stage: Stage, folder: Path, identity: Mapping[str, Any]) -> Ask:
    """Make `ask(batch)` that reads an epoch's answers from a folder, or computes them and writes them there.

    Args:
        stage: a training on uint8 images in memory, which the loop augments.
        folder: of the answers of all teachers.
        identity: what stands for the teacher's weights.
    """
    config, device = stage.config, make_accelerator().device
    parts = {name: getattr(config, name) for name in VIEWS} | dict(identity)
    parts |= {"size": stage.ask_size, "precision": resolve_precision(config.precision, device)}
    images = stage.data.images
    assert stage.ask is not None and isinstance(images, Tensor)  # the caller made sure
    parts |= {"images": f"{tuple(images.shape)}, {fingerprint({'images': images})}"}
    text = json.dumps(parts, sort_keys=True, default=str)
    count = len(images)
    batch_size = min(config.batch_size, count)  # as in the loop
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    return _KeptAnswers(stage.ask, place, count, count // batch_size * batch_size, text)


class _KeptAnswers:
    """The answers of one epoch at a time."""

    def __init__(self, ask: Ask, folder: Path, count: int, expected: int, description: str):
        self.ask, self.folder, self.count, self.expected = ask, folder, count, expected
        self.description = description
        self.epoch: int | None = None
        self.tensors: dict[str, Tensor] = {}
        self.known = torch.zeros(count, dtype=torch.bool)

    def __call__(self, batch: Batch) -> TeacherAnswers:
        if batch.epoch != self.epoch:
            self._open(batch.epoch)
        rows = batch.index
        if not self.known[rows].all():
            self._put(rows, self.ask(batch))
        device = batch.images.device
        return TeacherAnswers(**{name: self._rows(name, rows, device) for name in TeacherAnswers._fields})

    def _rows(self, name: str, rows: Tensor, device: torch.device) -> Tensor | None:
        return self.tensors[name][rows].to(device) if name in self.tensors else None

    def _open(self, epoch: int) -> None:
        """Go on to another epoch, whose answers may be there already."""
        self.epoch, self.tensors = epoch, {}
        self.known = torch.zeros(self.count, dtype=torch.bool)
        file = self._file()
        if file.is_file():
            try:
                self.tensors = _read(file)
                self.known = self.tensors.pop("known")
            except (safetensors.SafetensorError, KeyError, ValueError):  # damaged: they are computed again
                self.tensors = {}

    def _put(self, rows: Tensor, answers: TeacherAnswers) -> None:
        """Add the answers to some images, and write the file when no image is left."""
        for name, values in answers._asdict().items():
            if values is not None:
                whole = self.tensors.setdefault(name, torch.zeros(self.count, *values.shape[1:]))
                whole[rows] = values.float().cpu()
        self.known[rows] = True
        if int(self.known.sum()) == self.expected:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / "of.json", self.description.encode())
            whole = self.tensors | {"known": self.known}
            atomic_write(self._file(), safetensors.torch.save(whole, {DIGEST: fingerprint(whole)}))

    def _file(self) -> Path:
        return self.folder / f"epoch-{self.epoch:03d}.safetensors"


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of one epoch; raises ValueError where they are not the ones that were written."""
    with safetensors.safe_open(file, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        digest = (stored.metadata() or {}).get(DIGEST)
    if digest != fingerprint(tensors):
        raise ValueError(f"'{file}' is damaged")
    return tensors
