"""The one loop that trains every network of the package, over `accelerate` (devices and processes).

A caller brings a network and `loss_fn(network, batch) -> {"total": …, named terms …}`; everything else is here.
Randomness is a function of (seed, epoch) alone, so a training that was killed resumes as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.utils import broadcast, broadcast_object_list, set_seed
from torch import Tensor, nn
from torch.utils.data import Dataset

from udlib.progress import track
from udlib.training.batches import ArrayData, Batch, View, as_data, load, require_positives
from udlib.training.checkpoints import (
    describe,
    load_checkpoint,
    part,
    require_resumable,
    restore_training,
    save_checkpoint,
    training_tensors,
)
from udlib.training.devices import autocast, compiled_or_not, keeps_devices, make_accelerator, moved
from udlib.training.history import History, Saving, Watch, require_at_least_one
from udlib.training.optimization import (
    TrainingConfig,
    frozen,
    generator,
    learning_rate,
    make_optimizer,
    mixed_seed,
    running_average,
)
from udlib.training.precision import training_precision


class Augment(Protocol):
    """What happens to a batch of training images: uint8 (B, 3, H, W) -> float32, normalised.

    `share` is this process's rank and the number of processes. An augmentation that mirrors images says in `mirrored`,
    bool (B,), which images of the last batch it mirrored, so that their boxes can follow.
    """

    def __call__(self, images: Tensor, generator: torch.Generator, share: tuple[int, int]) -> Tensor:
        """Augment one batch."""


@keeps_devices
def fit(
    model: nn.Module,
    data: ArrayData | Dataset,
    loss_fn: Callable[[Any, Batch], dict[str, Tensor]],
    config: TrainingConfig = TrainingConfig(),
    *,
    augment: Augment | None = None,
    watch: Watch = Watch(),
    saving: Saving = Saving(),
    max_steps: int | None = None,
) -> History:
    """Train `model` in place, on the GPU if there is one, and bring it back to the device where it was.

    Python's, NumPy's and torch's global random states are seeded at each epoch.

    Args:
        model: the network; it ends with the last epoch's weights, the best epoch's, or their running average.
        data: N images and their labels.
        loss_fn: `loss_fn(model, batch)` returns named scalars, of which "total" is minimised.
        config: epochs, optimiser, schedule, augmentation, precision, seed.
        augment: replaces `config.augment`. For data with proposals it must say what it `mirrored`.
        watch: validation, which epoch to keep, and a callback.
        saving: the checkpoint: written after every `saving.every` epochs and, if it is already there, resumed exactly
            (bit by bit on a CPU with as many threads).
        max_steps: the largest number of steps in all.

    Returns:
        A row per epoch, the best epoch and its weights.

    Raises:
        ValueError: for a training set without a positive label, and for a checkpoint of another training.
        FloatingPointError: for a loss or gradient that is not finite, with the rows of the batch.
        KeyboardInterrupt: after Ctrl-C, saying how to resume.
    """
    require_at_least_one(max_steps=max_steps)
    if watch.keep == "best" and watch.validate is None:
        raise ValueError("keep is 'best': expected 'last', or 'best' together with validate")
    data = as_data(data)
    require_positives(data)
    augment = augment or config.augment_for(model)
    if data.proposals is not None and not hasattr(augment, "mirrored"):
        raise ValueError(
            "augment has no `mirrored`, which says which images of the last batch it mirrored, so their boxes cannot be "
            "mirrored too: use a `BatchAugment`"
        )
    with frozen(model, config.freeze) as layers:
        training = _Training(model, data, loss_fn, config, augment, max_steps)
        training.frozen = layers
        training.resume(saving)
        training.run(watch, saving)
        return training.finish(watch)


class _Training:
    """A training under way: the network and its optimiser, the plan of its steps, and what has come of it so far."""

    def __init__(
        self,
        model: nn.Module,
        data: ArrayData,
        loss_fn: Callable[[Any, Batch], dict[str, Tensor]],
        config: TrainingConfig,
        augment: Augment,
        max_steps: int | None,
    ):
        self.accelerator = make_accelerator()
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        self.batch_size = min(config.batch_size, len(data.targets))
        if self.batch_size % self.processes:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be shared by {self.processes} processes: use a multiple of them"
            )
        self.steps = (
            len(data.targets) // self.batch_size
        )  # an incomplete last batch is left out: each epoch, other images
        self.total_steps = min(config.epochs * self.steps, max_steps or config.epochs * self.steps)
        self.epochs = math.ceil(self.total_steps / self.steps)

        self.model, self.data, self.loss_fn, self.config, self.augment = model, data, loss_fn, config, augment
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        moved(model, self.accelerator.device, layout)
        self.average = running_average(model, config, self.total_steps) if config.ema else None
        self.result = self.average.module if self.average else model  # what is validated, watched and kept
        self.network = self.accelerator.prepare_model(model)
        # Of a two-branch network the backbone alone: through the head, UD differentiates twice, which torch.compile cannot.
        self.compiled = compiled_or_not(getattr(model, "backbone", model), config.compile)
        self.optimizer = make_optimizer(model, config)
        self.max_steps, self.saved = max_steps, 0
        self.frozen: list[nn.Module] = []  # stay in evaluation mode
        self.precision = ""
        self.history = History()
        self.best: dict[str, Tensor] = {}

    def resume(self, saving: Saving) -> None:
        """Go on from the checkpoint, if there is one."""
        self.described = describe(self.config, self.data, {**saving.identity, "max_steps": self.max_steps})
        folder = saving.below("")
        checkpoint = None if folder is None else load_checkpoint(folder)
        if folder is not None and checkpoint is not None:
            tensors, state = checkpoint
            defaults = {f"config.{name}": value for name, value in asdict(TrainingConfig()).items()}
            require_resumable(state["identity"], self.described, folder, defaults | dict(saving.defaults))
            restore_training(tensors, self.model, self.optimizer, folder, self.average)
            self.history = History(state["rows"], state["best_epoch"])
            self.precision = state.get("precision", "")  # a resumed training computes as it began
            self.best = {name: value for name, value in tensors.items() if name.startswith("best/")}
        self.saved = len(self.history.rows)
        device = self.accelerator.device
        if not self.precision:
            # The first process's, for all: each would measure, and two of them might disagree.
            measured = self.measured_precision() if self.rank == 0 else ""
            self.precision = broadcast_object_list([measured])[0] if self.processes > 1 else measured
        self.history.precision = self.precision
        self.data = self.data.to(device)

    def measured_precision(self) -> str:
        """The precision that is faster on this machine, for images as the network will see them."""
        images = self.data.images
        first = images[0] if isinstance(images, Tensor) else cast(Any, images)[0]
        side = self.config.crop or (first[0] if isinstance(first, (tuple, list)) else first).shape[-1]
        return training_precision(self.model, self.config.precision, self.accelerator.device, side)

    def run(self, watch: Watch, saving: Saving) -> None:
        """Train the epochs that are left, with what is to be seen and saved after each."""
        with self.bar() as bar:
            try:
                for epoch in range(self.saved, self.epochs):
                    row = self.run_epoch(epoch, bar)
                    last = epoch + 1 == self.epochs
                    if watch.validate is not None and ((epoch + 1) % watch.every == 0 or last):
                        self.validated(watch.validate(self.result), watch.select, row)
                    bar.set(**{name: row[name] for name in ("epoch", "total", watch.select) if name in row})
                    if (folder := saving.below("")) is not None and ((epoch + 1) % saving.every == 0 or last):
                        self.save(folder)
                    if watch.on_epoch is not None:
                        watch.on_epoch(epoch + 1, self.result, row)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self.how_to_resume(saving)) from None

    def bar(self) -> track:
        """A progress bar over all images of all epochs, shown by the first process."""
        done = min(self.saved * self.steps, self.total_steps) * self.batch_size
        total = self.total_steps * self.batch_size
        return track(total=total, description="training", silent=self.rank > 0, initial=done)

    def run_epoch(self, epoch: int, bar: track) -> dict[str, float]:
        """Train one epoch, and add its row to the history."""
        schedule = range(epoch * self.steps, min((epoch + 1) * self.steps, self.total_steps))
        rates = [learning_rate(step, self.total_steps, self.config) for step in schedule]
        batches = self._batches(epoch, len(rates))
        started = time.perf_counter()
        with self.compiled:
            losses = self._steps(epoch, batches, rates, bar)
        seconds = time.perf_counter() - started
        if self.processes > 1:  # all go on with the first one's batch statistics, as they do in each step
            for buffer in [*self.model.buffers(), *(self.average.buffers() if self.average else ())]:
                buffer.copy_(broadcast(buffer))
        speed = len(rates) * self.batch_size / seconds
        row = {"epoch": epoch + 1, "lr": rates[-1], "seconds": seconds, "images_per_second": speed, **losses}
        self.history.rows.append(row)
        return row

    def _batches(self, epoch: int, steps: int) -> Iterator[Batch]:
        """The batches of an epoch, in an order and with an augmentation that follow from seed and epoch alone."""
        seed, augment, share = self.config.seed, self.augment, (self.rank, self.processes)
        set_seed(mixed_seed(seed, epoch), device_specific=True)  # for dropout and a Dataset's transform
        order = torch.randperm(len(self.data.targets), generator=generator(seed, epoch))
        draws = generator(seed, epoch, 1)
        # Every process takes its turn in each batch, so that together they see what one would see.
        indices = [rows[self.rank :: self.processes] for rows in order.split(self.batch_size)[:steps]]
        batches = load(
            self.data,
            indices,
            lambda images: augment(images, draws, share),
            self.accelerator.device,
            self.config.workers,
            lambda: getattr(augment, "mirrored", None),
            self._view,
        )
        for step, batch in enumerate(batches, epoch * self.steps):
            yield batch._replace(epoch=epoch, progress=step / self.total_steps)

    def _view(self, stored: Tensor) -> View | None:
        """How the augmentation made the last batch, if it is one that can make it again."""
        augment: Any = self.augment
        if not hasattr(augment, "again"):
            return None
        return View(augment.mean, augment.std, partial(augment.again, stored.to(self.accelerator.device)))

    def _steps(self, epoch: int, batches: Iterator[Batch], rates: list[float], bar: track) -> dict[str, float]:
        """One step for each batch, at its learning rate, and of the running average; returns the mean of each loss term."""
        self.network.train()
        for layer in self.frozen:
            layer.eval()
        sums: dict[str, Tensor] = {}
        for step, (batch, rate) in enumerate(zip(batches, rates)):
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["share"]
            with autocast(self.accelerator.device, self.precision):
                terms = self.loss_fn(self.network, batch)
            self.optimizer.zero_grad()
            self.accelerator.backward(terms["total"])
            # Without clipping, the norm is measured all the same: it tells whether the gradient is finite.
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip or math.inf)
            if not torch.isfinite(terms["total"].detach() + norm):
                raise FloatingPointError(_diverged(epoch, step, terms, norm, batch))
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.network)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() / len(rates)
            bar.update(len(batch.index) * self.processes)
        return dict(zip(sums, self.accelerator.reduce(torch.stack(list(sums.values())), "mean").tolist()))

    def validated(self, numbers: Mapping[str, float], select: str, row: dict[str, float]) -> None:
        """Add the validation numbers to the epoch's row, and remember its weights if it is the best so far."""
        row |= {name: float(value) for name, value in numbers.items()}
        if self.history.improved(select):
            self.best = {f"best/{name}": value.cpu().clone() for name, value in self.result.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write the checkpoint; the first of several processes writes, and all wait for it."""
        if self.rank == 0:
            state = {
                "identity": self.described,
                "rows": self.history.rows,
                "best_epoch": self.history.best_epoch,
                "precision": self.precision,
            }
            tensors = training_tensors(self.model, self.optimizer, self.average) | self.best
            save_checkpoint(folder, tensors, state)
        self.accelerator.wait_for_everyone()
        self.saved = len(self.history.rows)

    def how_to_resume(self, saving: Saving) -> str:
        """What Ctrl-C says: how far the training came, and how it goes on."""
        kept = f"{self.saved} are saved in '{saving.folder}', and the same call continues from there"
        if saving.folder is None:
            kept = "none is saved; pass saving=Saving(folder) to be able to resume"
        return f"training stopped after {len(self.history.rows)} epochs: {kept}"

    def finish(self, watch: Watch) -> History:
        """Give the network the weights that are to be kept."""
        self.history.best_weights = part(self.best, "best")
        if watch.keep == "best":
            if not self.best:
                raise ValueError(
                    f"'{watch.select}' was not finite after any epoch, so no epoch is the best: look at the validation data, "
                    "or pass keep='last'"
                )
            self.model.load_state_dict(self.history.best_weights)
        elif self.average:
            self.model.load_state_dict(self.result.state_dict())
        return self.history


def _diverged(epoch: int, step: int, terms: Mapping[str, Tensor], norm: Tensor, batch: Batch) -> str:
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
    return (
        f"epoch {epoch + 1}, step {step + 1}: {values}, gradient norm {norm.item():.4g}; lower the learning "
        f"rate, or look at the images in rows {batch.index.tolist()} of the training set"
    )
