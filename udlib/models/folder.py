"""The folder of a trained model: write it, and read it back without ever unpickling anything."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from udlib.backbones import TIMM, backbone
from udlib.heads import DualBranchNet
from udlib.models.checks import REMEDY
from udlib.models.trained import TrainedModel
from udlib.posthoc import Calibrator, calibrator_from_dict
from udlib.training.checkpoints import load_checkpoint, load_weights, save_checkpoint

FORMAT = 1
# How an image is brought to its size; there is only this way, and a file of another one is refused.
STRETCHED = "stretched to a square, bilinearly"


def save_trained(folder: str | Path, model: TrainedModel) -> Path:
    """Write a model's folder; an interrupted write leaves what was there before.

    Args:
        folder: made if it does not exist.
        model: to write.

    Returns:
        The folder.

    Raises:
        ValueError: a network that is not what `model.backbone` and the classes say.
        OSError: a full disk or no permission.
    """
    folder, net = Path(folder).expanduser(), model.network
    branch = net.head.calibration
    architecture = {
        "backbone": model.backbone,
        "pooling": net.pooling,
        "calibration": branch is not None,
        "embedding": branch[0].out_features if branch else 1,
        "bias": net.head.classification.bias is not None,
    }
    weights = net.state_dict()
    # Load the weights as a reader will: a folder that nobody could load is not written.
    load_weights(_network(architecture, len(model.classes)), weights, folder, assign=True)
    save_checkpoint(
        folder,
        weights,
        {
            "model": FORMAT,
            "classes": list(model.classes),
            "network": architecture,
            "transforms": {
                "size": model.size,
                "resize": STRETCHED,
                "mean": list(model.mean),
                "std": list(model.std),
                **({} if model.orientation is None else {"orientation": model.orientation}),
            },
            "read_as": model.read_as,
            "calibrator": model.calibrator.to_dict() if model.calibrator else None,
            "thresholds": list(model.thresholds),
            "metrics": model.metrics,
            "training": model.training,
            "provenance": model.provenance,
        },
    )
    return folder


def load(path: str | Path) -> TrainedModel:
    """Load the trained model in a folder. Nothing is unpickled.

    Args:
        path: a folder that `save_trained`, `udlib train` or `udlib distill` wrote.

    Returns:
        The model in evaluation mode, on the CPU; it moves to the GPU with its first images. A folder without a rule for EXIF
        orientation reads pictures as the version that wrote it did, and a warning says so.

    Raises:
        FileNotFoundError: no model folder.
        ValueError: a folder that is damaged, written by a later version, or holds something else, with its name and
            what is wrong; weights that are not finite, are pickled, or belong to another architecture or number of
            classes.
    """
    folder = Path(path).expanduser()
    _require_folder(folder, path)
    weights, state = load_checkpoint(folder, REMEDY)
    try:
        version = _entry(state, "model", int, "a folder that `udlib train` wrote, not a checkpoint or a result")
        if version != FORMAT:
            remedy = "a later udlib wrote it, update yours" if version > FORMAT else "train it again"
            raise ValueError(f"format is {version}, expected {FORMAT}: {remedy}")
        transforms = _entry(state, "transforms", dict)
        if (resize := transforms.get("resize")) != STRETCHED:
            raise ValueError(f"transforms.resize is {resize!r}: expected {STRETCHED!r}")
        calibrator = _calibrator(state)
        classes = tuple(_entry(state, "classes", list))
        network = _network(_entry(state, "network", dict), len(classes))
        load_weights(network, weights, folder, assign=True)
        return TrainedModel(
            network,
            state["network"]["backbone"],
            classes,
            _entry(transforms, "size", int),
            tuple(_entry(transforms, "mean", list)),
            tuple(_entry(transforms, "std", list)),
            _entry(state, "read_as", str),
            calibrator,
            tuple(_entry(state, "thresholds", list)),
            **{name: _entry(state, name, dict) for name in ("metrics", "training", "provenance")},
            orientation=_orientation(transforms, path),
        )
    except ValueError as error:
        raise ValueError(f"model folder '{path}': {error}") from error


def _require_folder(folder: Path, path: str | Path) -> None:
    """Raise FileNotFoundError, with the path as the caller wrote it, where there is no model folder."""
    if (folder / "state.json").is_file():
        return
    if folder.is_file():
        problem = "is a file, and a pickled one is never opened"
    else:
        problem = "has no 'state.json'" if folder.is_dir() else "does not exist"
    raise FileNotFoundError(
        f"model folder '{path}' {problem}: give a folder that `udlib train` or `udlib distill` wrote"
    )


def _orientation(transforms: Mapping, path: str | Path) -> str | None:
    """The rule for EXIF orientation; None, with a warning, in a folder that an earlier version wrote."""
    if "orientation" in transforms:
        return _entry(transforms, "orientation", str)
    warnings.warn(
        f"model folder '{path}' states no rule for EXIF orientation, since an earlier udlib wrote it. It reads pictures as "
        "before: files are turned upright, PIL images and images of data sets with boxes are not. Train the model again, "
        "and all are",
        stacklevel=3,
    )
    return None


def _calibrator(state: Mapping) -> Calibrator | None:
    """The calibrator of a state, or None."""
    if state.get("calibrator") is None:
        return None
    _entry(_entry(state, "calibrator", dict), "kind", str)
    return calibrator_from_dict(state["calibrator"])


def _network(architecture: Mapping, classes: int) -> DualBranchNet:
    """The network that is described; without weights yet, and where that is possible without memory."""
    name, pooling = (_entry(architecture, key, str) for key in ("backbone", "pooling"))
    branch, bias = (_entry(architecture, key, bool) for key in ("calibration", "bias"))
    embedding = _entry(architecture, "embedding", int)
    # A network of timm may hold buffers that no file stores, such as the filter of a blurred pooling: it is made in full.
    device = "cpu" if name.startswith(TIMM) else "meta"
    with torch.device(device), torch.random.fork_rng(devices=[]):
        return DualBranchNet(backbone(name), classes, pooling, embedding, branch, bias)


def _entry(values: Mapping, name: str, kind: type, expected: str | None = None) -> Any:
    """An entry of a JSON object, of exactly this type (a bool is no int); ValueError where it is not."""
    value = values.get(name)
    if type(value) is not kind:
        raise ValueError(f"'{name}' is {value!r}: expected {expected or f'a {kind.__name__}'}; {REMEDY}")
    return value
