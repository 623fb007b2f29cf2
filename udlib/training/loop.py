"""Train, predict, evaluate: one loop for every method of the course, over `accelerate` (devices and processes).

A method brings a network and `loss_fn(model, batch) -> {"total": …, named terms …}`; everything else is here.
Randomness is a function of (seed, epoch) alone, so a run that was killed resumes as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from udlib.datasets.transforms import normalise
from udlib.metrics import mean_average_precision
from udlib.progress import track
from udlib.training.batches import ArrayData, Batch, as_data, load, require_positives
from udlib.training.checkpoints import (
    describe,
    load_checkpoint,
    part,
    require_same,
    restore_training,
    save_checkpoint,
    training_tensors,
)
from udlib.training.devices import autocast, compiled_or_not, keeps_devices, make_accelerator
from udlib.training.optimization import (
    TrainingConfig,
    generator,
    learning_rate,
    make_optimizer,
    mixed_seed,
    running_average,
)

# Options of `fit` that look at the network that is made: they are a student's, and never its teachers'.
WATCHING = ("validate", "validate_every", "select", "keep", "on_epoch")


@dataclass
class History:
    """One row per epoch: epoch, lr, seconds, images_per_second, each loss term, and the validation numbers.

    `best_epoch` has the highest selected validation number, and `best_weights` is the network's state then; None and
    empty without validation.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def column(self, name: str) -> list[float]:
        """One number through the epochs that have it, e.g. `history.column("total")`."""
        return [row[name] for row in self.rows if name in row]

    def improved(self, select: str) -> bool:
        """Whether the last epoch has the highest `select` so far, a NaN never; if so it becomes the best epoch."""
        last = self.rows[-1]
        if select not in last:
            raise ValueError(f"validate gave no '{select}' beside {', '.join(last)}: pass select= one of its numbers")
        record = self.rows[self.best_epoch - 1][select] if self.best_epoch else -math.inf
        if last[select] > record:
            self.best_epoch = last["epoch"]
        return last[select] > record


class Predictions(NamedTuple):
    """Both branches' logits for all N images in order, on the CPU in float32, beside the labels."""

    logits: Tensor  # (N, C)
    calibration_logits: Tensor | None  # (N, C), None without a calibration branch
    targets: Tensor  # (N, C)
    difficult: Tensor | None  # (N, C) bool


@keeps_devices
def fit(
    model: nn.Module,
    data: ArrayData | Dataset,
    loss_fn: Callable[[nn.Module, Batch], dict[str, Tensor]],
    config: TrainingConfig = TrainingConfig(),
    *,
    augment: Callable[[Tensor, torch.Generator, tuple[int, int]], Tensor] | None = None,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    validate_every: int = 1,
    select: str = "mAP",
    keep: str = "last",
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
    identity: Mapping[str, object] | None = None,
    on_epoch: Callable[[int, nn.Module, dict[str, float]], None] | None = None,
    max_steps: int | None = None,
) -> History:
    """Train `model` in place for `config.epochs` epochs, at most `max_steps` steps in all: on the GPU where there is one, and
    back to the device where it was.

    `loss_fn(model, batch)` returns named scalars; "total" is minimised. `augment(uint8 images, generator, share)` returns
    float images, `share` being this process's rank and their number; default: `config.augment`. Of data with proposals,
    `augment.mirrored` (N,) then says which images were mirrored, or is None. After every `validate_every` epochs and after
    the last, `validate(model)` gives numbers for the history; the weights with the highest `select` are remembered, and
    `keep="best"` ends with them rather than with the last. After each epoch `on_epoch(epoch, model, row)` may look on.

    `checkpoint` names a folder: written every `checkpoint_every` epochs and, if already there, resumed exactly (bit
    by bit on a CPU with as many threads). `identity` is what else makes this training what it is, a loss's weight
    say; a checkpoint of another identity, config, data or architecture is refused (ValueError).

    Python's, NumPy's and torch's global random states are seeded at each epoch. Raises ValueError for a training set
    without a positive, FloatingPointError for a loss or gradient that is not finite (with the rows of the batch),
    KeyboardInterrupt that says how to resume.
    """
    at_least_one = {"checkpoint_every": checkpoint_every, "validate_every": validate_every, "max_steps": max_steps}
    for name, value in at_least_one.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")
    if keep not in ("last", "best") or (keep == "best" and validate is None):
        raise ValueError(f"keep is '{keep}': expected 'last', or 'best' together with validate")
    data = as_data(data)
    require_positives(data)
    augment = augment or config.augment
    if data.proposals is not None and not hasattr(augment, "mirrored"):
        raise ValueError(
            "augment has no `mirrored`, which says what images of the last batch it mirrored: without it their "
            "boxes cannot follow; use a `BatchAugment`"
        )
    accelerator = make_accelerator()
    device, rank, processes = accelerator.device, accelerator.process_index, accelerator.num_processes
    batch_size = min(config.batch_size, len(data.targets))
    if batch_size % processes:
        raise ValueError(f"a batch of {batch_size} cannot be shared by {processes} processes: use a multiple of them")
    steps = len(data.targets) // batch_size  # an incomplete last batch is left out: each epoch, of other images
    total_steps = min(config.epochs * steps, max_steps or config.epochs * steps)

    model.to(device, memory_format=torch.channels_last if config.channels_last else torch.preserve_format)
    average = running_average(model, config, total_steps) if config.ema else None
    result = average.module if average else model  # what is validated, watched and kept
    network = accelerator.prepare_model(model)
    # Of a two-branch network the backbone alone: through the head, UD differentiates twice, which torch.compile does not.
    compiled = compiled_or_not(getattr(model, "backbone", model), config.compile)
    optimizer = make_optimizer(model, config)
    history, best = History(), {}
    described = describe(config, data, {**(identity or {}), "max_steps": max_steps})
    if checkpoint is not None and (found := load_checkpoint(checkpoint)) is not None:
        tensors, state = found
        require_same(state["identity"], described, checkpoint)
        restore_training(tensors, model, optimizer, checkpoint, average)
        history = History(state["rows"], state["best_epoch"])
        best = {name: value for name, value in tensors.items() if name.startswith("best/")}
    saved = len(history.rows)
    data = data.to(device)

    done = min(saved * steps, total_steps) * batch_size
    with track(total=total_steps * batch_size, description="training", silent=rank > 0, initial=done) as bar:
        try:
            for epoch in range(saved, math.ceil(total_steps / steps)):
                set_seed(mixed_seed(config.seed, epoch), device_specific=True)  # for dropout and a Dataset's transform
                order = torch.randperm(len(data.targets), generator=generator(config.seed, epoch))
                draws = generator(config.seed, epoch, 1)
                schedule = range(epoch * steps, min((epoch + 1) * steps, total_steps))
                rates = [learning_rate(step, total_steps, config) for step in schedule]
                indices = [rows[rank::processes] for rows in order.split(batch_size)[: len(rates)]]
                batches = load(
                    data,
                    indices,
                    lambda images: augment(images, draws, (rank, processes)),
                    device,
                    config.workers,
                    lambda: augment.mirrored,
                )

                started = time.perf_counter()
                with compiled:
                    losses = train_epoch(
                        network, optimizer, loss_fn, batches, rates, config, accelerator, epoch, bar, average
                    )
                seconds = time.perf_counter() - started
                if processes > 1:  # all go on with the first one's batch statistics, as they do in each step
                    for buffer in [*model.buffers(), *(average.buffers() if average else ())]:
                        buffer.copy_(broadcast(buffer))
                speed = len(rates) * batch_size / seconds
                row = {"epoch": epoch + 1, "lr": rates[-1], "seconds": seconds, "images_per_second": speed, **losses}
                history.rows.append(row)
                due = (epoch + 1) % validate_every == 0 or schedule.stop == total_steps
                if validate is not None and due:
                    row |= {name: float(value) for name, value in validate(result).items()}
                    if history.improved(select):
                        best = {f"best/{name}": value.cpu().clone() for name, value in result.state_dict().items()}
                bar.set(**{name: row[name] for name in ("epoch", "total", select) if name in row})
                if checkpoint is not None and ((epoch + 1) % checkpoint_every == 0 or schedule.stop == total_steps):
                    if rank == 0:
                        state = {"identity": described, "rows": history.rows, "best_epoch": history.best_epoch}
                        save_checkpoint(checkpoint, training_tensors(model, optimizer, average) | best, state)
                    accelerator.wait_for_everyone()
                    saved = epoch + 1
                if on_epoch is not None:
                    on_epoch(epoch + 1, result, row)
        except KeyboardInterrupt:
            kept = f"{saved} are in '{checkpoint}', and the same call resumes there"
            if checkpoint is None:
                kept = "none is saved, pass checkpoint= to be able to resume"
            raise KeyboardInterrupt(f"training stopped after {len(history.rows)} epochs: {kept}") from None
    history.best_weights = part(best, "best")
    if keep == "best":
        if not best:
            raise ValueError(f"validate never gave a finite '{select}', so no epoch is the best")
        model.load_state_dict(history.best_weights)
    elif average:
        model.load_state_dict(result.state_dict())
    return history


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[nn.Module, Batch], dict[str, Tensor]],
    batches: Iterable[Batch],
    rates: list[float],
    config: TrainingConfig,
    accelerator: Accelerator,
    epoch: int,
    bar: track,
    average: AveragedModel | None,
) -> dict[str, float]:
    """One step for each batch, at its learning rate, and of the running average; returns the mean of each loss term."""
    network.train()
    sums: dict[str, Tensor] = {}
    for step, (batch, rate) in enumerate(zip(batches, rates)):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(accelerator.device, config.precision):
            terms = loss_fn(network, batch)
        optimizer.zero_grad()
        accelerator.backward(terms["total"])
        norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip or math.inf)
        if not torch.isfinite(terms["total"].detach() + norm):
            values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {step + 1}: {values}, gradient norm {norm.item():.4g}; lower the learning "
                f"rate, or look at the images in rows {batch.index.tolist()} of the training set"
            )
        optimizer.step()
        if average is not None:
            average.update_parameters(network)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float() / len(rates)
        bar.update(len(batch.index) * accelerator.num_processes)
    return dict(zip(sums, accelerator.reduce(torch.stack(list(sums.values())), "mean").tolist()))


@keeps_devices
@torch.no_grad()
def predict(
    model: nn.Module,
    data: ArrayData | Dataset,
    *,
    batch_size: int = 256,
    precision: str = "auto",
    calibration: bool = True,
    prepare: Callable[[Tensor], Tensor] = normalise,
    workers: int = 0,
) -> Predictions:
    """Logits of both branches for every image, in order, exact with any number of processes; `model` in eval mode.

    `calibration=False` leaves the calibration branch out. `prepare` makes float images of uint8 ones.
    """
    data = as_data(data)
    accelerator = make_accelerator()
    device, rank, processes = accelerator.device, accelerator.process_index, accelerator.num_processes
    count = len(data.targets)
    # Every process takes an equal slice of each batch; the last batch wraps around, and its surplus is cut off below.
    share = math.ceil(batch_size / processes)
    padded = torch.arange(math.ceil(count / processes) * processes) % count
    indices = [rows.chunk(processes)[rank] for rows in padded.split(share * processes)]
    gathered = []
    modes = {module: module.training for module in model.modules()}  # parts of a network may differ
    model.to(device).eval()
    try:
        for batch in load(data, indices, prepare, device, workers):
            with autocast(device, precision):
                seen = (batch.images, batch.regions) if getattr(model, "sees_regions", False) else (batch.images,)
                prediction = model(*seen, calibration=calibration)
            branches = [logits for logits in prediction[:2] if logits is not None]
            # Gathered batch by batch: after the loop, the batches of the processes would stand one after the other.
            gathered.append(accelerator.gather(torch.stack(branches).transpose(0, 1).float().contiguous()).cpu())
    finally:
        for module, training in modes.items():
            module.training = training
    logits = torch.cat(gathered)[:count].unbind(1)
    return Predictions(logits[0], logits[1] if len(logits) > 1 else None, data.targets.cpu(), data.difficult)


def evaluate(model: nn.Module, data: ArrayData | Dataset, scores: str = "sigmoid", **options) -> dict[str, float]:
    """mAP with difficult labels ignored (VOC's protocol), and NLL, the mean log loss of a label in nats, with all.

    `options` are those of `predict`. Fractions: mAP 0.8 is 80 %. `scores="softmax"` is for logits without a level: images
    are ranked by softmax, and there is no NLL.
    """
    found = predict(model, data, calibration=False, **options)
    if scores == "softmax":
        return {"mAP": float(mean_average_precision(found.logits.softmax(1), found.targets, found.difficult))}
    nll = nn.functional.binary_cross_entropy_with_logits(found.logits, found.targets.float()).item()
    return {"mAP": float(mean_average_precision(found.logits, found.targets, found.difficult)), "NLL": nll}
