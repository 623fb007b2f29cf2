"""What a training is watched by, where it is saved, and what it leaves behind: a row of numbers for each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn


def require_at_least_one(**counts: int | None) -> None:
    """Refuse a count below 1 (ValueError); None counts as no limit."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")


@dataclass(frozen=True)
class Watch:
    """What looks at the network while it trains. Watching changes no training step, only which epoch's weights are kept.

    `validate(network)` gives numbers for the history after every `every` epochs and after the last one. The weights
    with the highest `select` among them are remembered; `keep="best"` ends with those rather than with the last.
    `on_epoch(epoch, network, row)` is called after each epoch.
    """

    validate: Callable[[nn.Module], Mapping[str, float]] | None = None
    every: int = 1
    select: str = "mAP"
    keep: str = "last"
    on_epoch: Callable[[int, nn.Module, dict[str, float]], None] | None = None

    def __post_init__(self):
        require_at_least_one(validate_every=self.every)
        if self.keep not in ("last", "best"):
            raise ValueError(f"keep is '{self.keep}': expected 'last', or 'best' together with validate")


@dataclass(frozen=True)
class Saving:
    """Where a training keeps its checkpoint, and how often it writes it.

    `identity` is what else makes this training what it is: settings of the method, the data, the teachers. A checkpoint
    in `folder` of another identity, configuration, training set or architecture is refused. None as folder: no checkpoint.
    `defaults` says what a part of the identity is where an older checkpoint lacks it.
    """

    folder: str | Path | None = None
    every: int = 1
    identity: Mapping[str, object] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self):
        require_at_least_one(checkpoint_every=self.every)

    def below(self, name: str) -> Path | None:
        """The folder of a part of this training; "" is the training itself."""
        return None if self.folder is None else Path(self.folder) / name


@dataclass
class History:
    """One row per epoch: epoch, lr, seconds, images_per_second, each loss term, and the validation numbers.

    `best_epoch` has the highest selected validation number, and `best_weights` is the network's state then; None and
    empty without validation. `precision` is the one in which it trained.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    precision: str = ""

    def column(self, name: str) -> list[float]:
        """One number through the epochs that have it, e.g. `history.column("total")`."""
        return [row[name] for row in self.rows if name in row]

    def improved(self, select: str) -> bool:
        """Whether the last epoch has the highest `select` so far, a NaN never; if so it becomes the best epoch."""
        last = self.rows[-1]
        if select not in last:
            raise ValueError(f"an epoch has no '{select}', only {', '.join(last)}: pass one of these as select=")
        record = self.rows[self.best_epoch - 1][select] if self.best_epoch else -math.inf
        if last[select] > record:
            self.best_epoch = int(last["epoch"])
        return last[select] > record
