"""The reader's own results: one folder for each run, and one for each trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from udlib.training.checkpoints import load_checkpoint, save_checkpoint

Stored = tuple[Mapping[str, Any], Mapping[str, Tensor]]  # a state (recipe, metrics, …), and tensors by name


@dataclass(frozen=True)
class OwnResults:
    """Runs below one folder and networks below another, each in a folder named by its recipe's key.

    A run's folder holds `state.json` and a safetensors file. It is written as one step, and checked on reading.
    """

    runs: Path
    networks: Path

    def keys(self) -> set[str]:
        """The keys of all runs."""
        return {path.parent.name for path in self.runs.glob("*/state.json")}

    def find(self, key: str, logits: bool = True) -> Stored | None:
        """A run's state and logits, or None; ValueError for a damaged one."""
        checkpoint = load_checkpoint(self.runs / key)
        return None if checkpoint is None else (checkpoint[1], checkpoint[0] if logits else {})

    def has_network(self, key: str) -> bool:
        """Whether the trained network of a recipe is here."""
        return (self.networks / key / "state.json").exists()

    def network(self, key: str) -> tuple[Mapping[str, Tensor], Mapping[str, Any]] | None:
        """The weights of a trained network and its state, or None; ValueError for damaged ones."""
        return load_checkpoint(self.networks / key)

    def save(self, key: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a run; returns its folder."""
        save_checkpoint(self.runs / key, tensors, state)
        return self.runs / key

    def save_network(self, key: str, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a network; returns its folder."""
        save_checkpoint(self.networks / key, weights, state)
        return self.networks / key
