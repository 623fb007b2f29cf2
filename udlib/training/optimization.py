"""How to train: the settings, the learning rate of each step, the optimiser, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from udlib.datasets.pipelines import CROP_SCALES
from udlib.datasets.transforms import BatchAugment, normalise
from udlib.normalisation import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Frozen, and part of a checkpoint's identity: another value is another training."""

    epochs: int = 40  # data/README.md says how the course's regime (epochs to erase) was chosen
    batch_size: int = 50  # per step, over all processes; divides 2,000 images, so that no epoch leaves one out
    optimizer: str = "adam"  # "adam" trains small nets from scratch in few epochs; "adamw" and "sgd" (as UD) fine-tune
    lr: float = 3e-3  # the schedule's peak, for Adam from scratch; 1e-3 for SGD on pretrained weights
    head_lr: float | None = None  # the peak for all that is not the backbone; None: that of the backbone
    freeze: int = 0  # k: the backbone's stem and its first k stages are not trained; 0 trains all
    weight_decay: float = 0.0  # the small nets are meant to be able to overfit; the released code has 1e-4
    momentum: float = 0.9  # SGD only
    schedule: str = "one-cycle"  # warm-up, then cosine to 0; "cosine" starts at the peak; "step"; or "constant"
    warm_up: float = 0.25  # share of a one-cycle's steps with a rising rate
    lr_end: float = 0.0  # where "cosine" ends, as a share of lr; the released code's is 0.1
    ema: float = (
        0.0  # window of the running average of the weights, as a share of all steps; 0: the weights as they are
    )
    clip: float = 5.0  # largest norm of the gradient, the released code's; 0 does not clip
    precision: str = "auto"  # "auto" is "bf16" where the processor has it: 1.2 to 1.9 times faster; else "fp32"
    seed: int = 0
    channels_last: bool = True  # the layout that bf16 convolutions want on a GPU; no loss on a CPU
    flip: bool = True  # mirror images with chance 1/2
    shift: int = 0  # largest shift in pixels; 0 leaves images where they are
    erase: float = 0.0  # chance of random erasing (CutOut); it regularises strongly, so it is a choice
    crop: int = 0  # side of multi-scale crops out of larger images (448 of 512, say), as wholes are resized; 0: none
    crop_scales: tuple[float, ...] = CROP_SCALES  # sides of the crops, as shares of the shorter side
    compile: bool = False  # torch.compile for training steps: pays for large networks on a GPU; else it costs a minute
    workers: int = 0  # processes that decode a Dataset's images; images in memory need none

    def __post_init__(self):
        least = {
            "epochs": 1,
            "batch_size": 1,
            "weight_decay": 0,
            "momentum": 0,
            "clip": 0,
            "seed": 0,
            "workers": 0,
            "crop": 0,
            "freeze": 0,
        }
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least {bound}")
        if self.seed >= 2**32:
            raise ValueError(f"seed is {self.seed}: expected less than 2**32, the limit for seeds of NumPy")
        for name in ("lr", "head_lr"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}: expected a number above 0")
        object.__setattr__(self, "crop_scales", tuple(self.crop_scales))
        for name, what in {"warm_up": "the steps", "ema": "the steps", "lr_end": "lr"}.items():
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a share of {what} in [0, 1)")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is '{getattr(self, name)}': expected one of {', '.join(allowed)}")

    @property
    def augment(self) -> BatchAugment:
        """What happens to a batch of training images, for networks that expect ImageNet's mean and deviation."""
        return self.augment_for(None)

    def augment_for(self, network: nn.Module | None, kind: type[BatchAugment] = BatchAugment) -> BatchAugment:
        """What happens to a batch of training images of this network; `kind` may do more than `BatchAugment`."""
        mean, std = normalisation_of(network)
        names = ("flip", "shift", "erase", "crop", "crop_scales")
        return kind(mean=mean, std=std, **{name: getattr(self, name) for name in names})

    @property
    def prepare(self) -> Callable[[Tensor], Tensor]:
        """What happens to whole images, in evaluation, for networks that expect ImageNet's mean and deviation."""
        return self.prepare_for(None)

    def prepare_for(self, network: nn.Module | None) -> Callable[[Tensor], Tensor]:
        """What happens to whole images of this network: normalised, and resized to the side that training crops have."""
        mean, std = normalisation_of(network)
        return partial(normalise, mean=mean, std=std, size=self.crop or None)


def normalisation_of(network: nn.Module | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each colour that a network expects; those of ImageNet where it says nothing."""
    backbone = getattr(network, "backbone", network)
    return getattr(backbone, "mean", IMAGENET_MEAN), getattr(backbone, "std", IMAGENET_STD)


CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("one-cycle", "cosine", "step", "constant"),
    "precision": ("auto", "bf16", "fp32"),
}


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Compute the learning rate of one step: a function, not a state, so a resumed training has nothing to restore.

    "one-cycle" rises from lr/25 for the share `warm_up`, then falls to nearly 0, each on half a cosine (Smith and
    Topin, 2018; torch's OneCycleLR without momentum cycling). "cosine" falls from lr towards lr_end · lr. "step" divides
    lr by ten for the last third of the steps, the custom before cosine decay.
    """

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        return between(config.lr, config.lr_end * config.lr, step / total_steps)
    if config.schedule == "step":
        return config.lr * (0.1 if 3 * step >= 2 * total_steps else 1.0)
    peak = max(config.warm_up * total_steps - 1, 0)
    if step < peak:
        return between(config.lr / 25, config.lr, step / peak)
    return between(config.lr, config.lr / 25e4, (step - peak) / max(total_steps - 1 - peak, 1))


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Make the optimiser of all parameters that are trained; fused: one pass over them instead of a dozen.

    Each group of parameters has a `share`: its learning rate as a multiple of the backbone's.
    """
    backbone = getattr(model, "backbone", None)
    in_backbone = set() if backbone is None else {id(parameter) for parameter in backbone.parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained, "share": 1.0}]
    if config.head_lr is not None and config.head_lr != config.lr:
        if not in_backbone:
            raise ValueError(
                f"head_lr is {config.head_lr}, but a {type(model).__name__} has no backbone that could have "
                "another learning rate: leave head_lr out"
            )
        groups = [
            {"params": [parameter for parameter in trained if id(parameter) in in_backbone], "share": 1.0},
            {
                "params": [parameter for parameter in trained if id(parameter) not in in_backbone],
                "share": config.head_lr / config.lr,
            },
        ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay, fused=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, config.lr, weight_decay=config.weight_decay, fused=True)


@contextmanager
def frozen(model: nn.Module, stages: int) -> Iterator[list[nn.Module]]:
    """Take the gradient from a backbone's stem and first stages inside the `with` block, and give it back after it.

    Args:
        model: a network with a `backbone`, or a backbone.
        stages: how many of its stages; 0 freezes nothing.

    Yields:
        The layers, which belong into evaluation mode while the rest trains: else batch normalisation would go on learning.

    Raises:
        ValueError: more stages than there are, or a network without stages.
    """
    if stages == 0:
        yield []
        return
    backbone: Any = getattr(model, "backbone", model)
    if not hasattr(backbone, "frozen_layers"):
        raise ValueError(
            f"freeze is {stages}, but a {type(model).__name__} has no backbone with stages: set freeze to 0"
        )
    layers = backbone.frozen_layers(stages)
    parameters = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield layers
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def running_average(model: nn.Module, config: TrainingConfig, total_steps: int) -> AveragedModel:
    """Make the exponential moving average of a network: `.module` after each `.update_parameters(model)`.

    Its decay is 1 − 1 / (ema · total_steps), so that the window is the same part of a short training as of a long one:
    0.9997 over 80 COCO epochs in batches of 128 (Parallel Self-Distillation) is ema = 0.065.
    """
    decay = 1 - 1 / max(config.ema * total_steps, 1)
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def generator(*key: int) -> torch.Generator:
    """Make a generator of its own for each key, e.g. (seed, epoch)."""
    return torch.Generator().manual_seed(mixed_seed(*key))


def mixed_seed(*key: int) -> int:
    """Mix several numbers into one seed of 31 bits, which differs for (1, 2) and (2, 1)."""
    return int(np.random.SeedSequence(key).generate_state(1)[0]) >> 1
