"""Checkpoints that survive a kill at any moment: safetensors for tensors, JSON for the rest.

A checkpoint is a folder with `state.json` and the tensors file that it names, with its SHA-256. The tensors are
written first, under a name that no other content has; then `state.json` is replaced; then older tensors go. Until
that one replacement the old pair is whole, and after it the new one. Nothing is ever pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from udlib.files import atomic_write, remove_leftovers
from udlib.training.batches import ArrayData

FORMAT = 1
TRAINING = "training format"  # of the identity of a training under way; those of udlib 0.1 have none


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: Mapping) -> None:
    """Replace the checkpoint in a folder, as one atomic step.

    Args:
        folder: made if it is absent.
        tensors: by name.
        state: what JSON can hold.

    Raises:
        OSError: for a full disk and the like, naming the file; the old checkpoint is then as it was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # contiguous: safetensors stores no strides, and a convolution's weights may be channels-last
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = folder / f"tensors-{digest[:16]}.safetensors"
    atomic_write(file, content)
    record = {"format": FORMAT, "tensors": file.name, "sha256": digest, **state}
    atomic_write(folder / "state.json", json.dumps(record, indent=1).encode())
    remove_stale(folder)


def remove_stale(folder: Path) -> None:
    """Remove what the checkpoint in `folder` has no use for: other tensors, and what killed writers left."""
    named = json.loads((folder / "state.json").read_bytes())["tensors"]
    for file in folder.glob("tensors-*.safetensors"):
        if file.name != named:
            file.unlink(missing_ok=True)
    remove_leftovers(folder, age=0)


def load_checkpoint(folder: Path, remedy: str | None = None) -> tuple[dict[str, Tensor], dict] | None:
    """Load the checkpoint in a folder; nothing is ever unpickled.

    Args:
        folder: where it may be.
        remedy: what a reader should do about a damaged one; default: delete the folder.

    Returns:
        Its tensors and its state, or None where there is none.

    Raises:
        ValueError: for a checkpoint that is damaged or of another format, naming the file and the remedy.
    """
    path = Path(folder) / "state.json"
    if not path.exists():
        return None
    again = remedy or f"delete the folder '{folder}' to start again"
    try:
        state = json.loads(path.read_bytes())
        version = state["format"]
        file, digest = path.parent / state["tensors"], state["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"checkpoint '{path}' is damaged ({error!r}): {again}") from error
    if version != FORMAT:
        raise ValueError(f"checkpoint '{path}' has format {version}: expected {FORMAT}; {again}")
    if not file.exists():
        raise ValueError(f"checkpoint '{path}' names '{file.name}', which is missing: {again}")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"checkpoint file '{file}' is damaged, it differs from what was saved: {again}")
    try:
        return safetensors.torch.load(content), state
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"checkpoint file '{file}' is not a safetensors file ({error}); pickled files are never opened: convert it, or "
            f"{again}"
        ) from error


def require_same(saved: Mapping, current: Mapping, folder: Path, defaults: Mapping = MappingProxyType({})) -> None:
    """Refuse a checkpoint of another training.

    Args:
        saved: the identity in the checkpoint.
        current: that of the training that would resume.
        folder: of the checkpoint, for the message.
        defaults: what a field is where the checkpoint lacks it, since a version wrote it that did not have the field.

    Raises:
        ValueError: naming each field that differs, and both values.
    """
    # JSON has no tuples: compare what would be stored.
    current, defaults = json.loads(json.dumps(current)), json.loads(json.dumps(dict(defaults)))
    saved = {name: value for name, value in defaults.items() if name in current} | dict(saved)
    differing = sorted(key for key in {*saved, *current} if saved.get(key) != current.get(key))
    if differing:
        changes = "; ".join(f"{key}: saved {saved.get(key)!r}, now {current.get(key)!r}" for key in differing)
        raise ValueError(
            f"checkpoint '{folder}' belongs to another training ({changes}): "
            "use the same settings, another folder, or delete this one"
        )


def require_resumable(saved: Mapping, current: Mapping, folder: Path, defaults: Mapping = MappingProxyType({})) -> None:
    """Refuse a checkpoint of another training, or one that udlib 0.1 left half done: ValueError."""
    _require_later_than_0_1(saved, folder)
    require_same(saved, current, folder, defaults)


def refuse_old_trainings(folder: Path) -> None:
    """Refuse a folder in which udlib 0.1, whose checkpoints lay elsewhere in it, left a training half done: ValueError."""
    for path in sorted(folder.rglob("state.json")):
        try:
            identity = json.loads(path.read_bytes())["identity"]
        except (ValueError, KeyError, TypeError):
            continue  # no checkpoint of a training, or a damaged one, of which `load_checkpoint` says so
        _require_later_than_0_1(identity, path.parent)


def _require_later_than_0_1(identity: Mapping, folder: Path) -> None:
    if TRAINING not in identity:
        raise ValueError(
            f"checkpoint '{folder}' is an unfinished training of udlib 0.1, and later versions cannot continue it: "
            "delete that folder, and the same command starts the training again"
        )


def describe(config, data: ArrayData, identity: Mapping[str, object]) -> dict[str, object]:
    """All that must be equal for a checkpoint to be resumed, by name."""
    labels = data.targets.to(torch.uint8).cpu().numpy().tobytes()
    ignored = b"".join(b"" if part is None else part.cpu().numpy().tobytes() for part in (data.ignore, data.weights))
    return {
        TRAINING: 2,
        **{f"config.{name}": value for name, value in asdict(config).items()},
        **identity,
        "training set": f"{tuple(data.targets.shape)} labels, {hashlib.sha256(labels + ignored).hexdigest()[:12]}",
    }


def training_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> dict[str, Tensor]:
    """Name all that a training under way must keep.

    Returns:
        Parameters and buffers as `model/<name>`, those of a running average as `average/<name>`, and the optimiser's
        memory as `optimizer/<key>/<parameter>`.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{key}/{name}"] = value
    return tensors


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], folder: Path, assign: bool = False) -> None:
    """Put a network's state back.

    Args:
        model: of the architecture that the weights are of.
        weights: by name.
        folder: where they come from, for the message.
        assign: make these very tensors the network's own, for one on the meta device, which has none.

    Raises:
        ValueError: naming the first tensor that the network does not have, or lacks.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    saved = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted({*expected, *saved}):
        if expected.get(name) != saved.get(name):
            raise ValueError(
                f"checkpoint '{folder}' belongs to another architecture ({name}: saved {saved.get(name)}, "
                f"now {expected.get(name)}): use the same network or another folder"
            )
    model.load_state_dict(weights, assign=assign)


def restore_training(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    average: nn.Module | None = None,
) -> None:
    """Put `training_tensors` back; ValueError as `load_weights`."""
    load_weights(model, part(tensors, "model"), folder)
    if average is not None:
        load_weights(average, part(tensors, "average"), folder)
    parameters = dict(model.named_parameters())
    for name, value in part(tensors, "optimizer").items():
        key, _, owner = name.partition("/")
        parameter = parameters[owner]
        value = value.to(parameter.device)
        if value.shape == parameter.shape:
            # Fused optimisers walk through memory in order, so their state must have the parameter's strides.
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][key] = value


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal digits that stand for these tensors, bit by bit."""
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return hashlib.sha256(content).hexdigest()[:12]


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix/`, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
