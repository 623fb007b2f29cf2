"""A trained model in one folder: how it sees an image, its weights, and how its logits become calibrated probabilities.

The folder is written as a checkpoint is (`udlib.training.checkpoints`), as one atomic step: the weights as safetensors under
their SHA-256, and `state.json` with everything else. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from udlib.attention import uncertainty_attention
from udlib.backbones import backbone
from udlib.datasets.base import as_rgb, load_rgb, to_square
from udlib.datasets.folders import first_repeated
from udlib.datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, normalise
from udlib.heads import DualBranchNet
from udlib.posthoc import Calibrator, calibrator_from_dict
from udlib.progress import track
from udlib.training.batches import ArrayData
from udlib.training.checkpoints import load_checkpoint, load_weights, save_checkpoint
from udlib.training.devices import make_accelerator
from udlib.training.prediction import predict

FORMAT = 1
STRETCHED = "stretched to a square, bilinearly"  # how an image is brought to size, the one way there is
READ_AS = {"sigmoid": torch.sigmoid, "softmax": partial(torch.softmax, dim=1)}
AGAIN = "copy the folder again from where it is whole, or train the model again"

Picture = str | Path | Image.Image | Tensor


@dataclass(frozen=True)
class Confidences:
    """Calibrated probabilities of N images.

    `probabilities` float64 (N, C), P(label = 1 | image) as fractions; `classes`, C names; `thresholds`, C numbers, from
    which on a label counts as there.
    """

    probabilities: Tensor
    classes: tuple[str, ...]
    thresholds: tuple[float, ...]

    def labels(self, threshold: float | None = None, top: int | None = None) -> list[list[tuple[str, float]]]:
        """For each image its labels with their probabilities, the surest first; equal ones in the order of `classes`.

        Those that reach `threshold` (default: each class's own), at most `top` of them. With `top` alone, the `top`
        surest, however unsure. Raises ValueError for a threshold outside [0, 1] and for top < 1.

        >>> found = Confidences(torch.tensor([[0.2, 0.9, 0.6]]), ("cat", "dog", "sofa"), (0.5, 0.5, 0.5))
        >>> [name for name, _ in found.labels()[0]], [name for name, _ in found.labels(top=1)[0]]
        (['dog', 'sofa'], ['dog'])
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}: expected a probability in [0, 1]")
        if top is not None and top < 1:
            raise ValueError(f"top is {top}: expected at least 1")
        bounds = self.thresholds if threshold is None else (threshold,) * len(self.classes)
        if top is not None and threshold is None:
            bounds = (0.0,) * len(self.classes)
        found = []
        for row in self.probabilities.tolist():
            order = sorted((k for k, bound in enumerate(bounds) if row[k] >= bound), key=lambda k: -row[k])
            found.append([(self.classes[k], row[k]) for k in order[:top]])
        return found


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with all that is needed to use it on new images; `save_trained` and `load` carry it through a folder.

    `backbone` is the network's name in `backbones.NAMES`; an image is stretched to `size` × `size` pixels, and normalised
    by `mean` and `std`, of 3 channels each. `read_as` says what makes probabilities of logits: "sigmoid", or "softmax"
    for a network that leaves their level free. `calibrator`, fitted on validation, takes the sigmoid's place.
    `thresholds`, one a class, default 0.5. `metrics[split]` has "uncalibrated" and, with a calibrator, "calibrated".
    `training` holds the settings that it was trained with, `provenance` versions and hardware.

    Raises ValueError, when it is made, for parts that do not fit together, weights that are not finite among them.
    """

    network: DualBranchNet = field(repr=False)
    backbone: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    read_as: str = "sigmoid"
    calibrator: Calibrator | None = field(default=None, repr=False)
    thresholds: tuple[float, ...] | None = None
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict, repr=False)
    training: Mapping[str, Any] = field(default_factory=dict, repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.thresholds is None:
            object.__setattr__(self, "thresholds", (0.5,) * len(self.classes))
        _check(self)
        # The layout of the training, so that a loaded network computes the same bits as the one that was saved.
        self.network.to(memory_format=torch.channels_last).eval()

    def prepare(self, image: Picture) -> Tensor:
        """One image, a path, a PIL image or uint8 (3, H, W), as the network sees it: uint8 (3, size, size).

        A file is turned as its EXIF orientation asks. Raises FileNotFoundError and ValueError for a file that is missing or
        cannot be decoded, both naming it.
        """
        if isinstance(image, Tensor):
            if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
                raise ValueError(f"image is {image.dtype} {tuple(image.shape)}: expected torch.uint8 (3, H, W)")
            if image.shape[1:] == (self.size, self.size):
                return image
            image = Image.fromarray(np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy()))
        elif isinstance(image, (str, Path)):
            if not Path(image).is_file():
                raise FileNotFoundError(f"image '{image}' does not exist, or is no file: name an image file")
            image = load_rgb(Path(image), upright=True)
        elif not isinstance(image, Image.Image):
            raise TypeError(
                f"image is a {type(image).__name__}: expected a path, a PIL image or a uint8 tensor (3, H, W)"
            )
        return to_square(as_rgb(image), self.size)

    def logits(self, images: Sequence[Picture] | Tensor, batch_size: int = 32) -> Tensor:
        """The network's raw answers, float32 (N, C), computed in single precision; arguments as `predict`."""
        if isinstance(images, (str, Path, Image.Image)):
            images = [images]
        if not len(images):
            raise ValueError("there are no images: expected at least one")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected at least 1")
        parts, starts = [], range(0, len(images), batch_size)
        with (
            ThreadPoolExecutor() as pool,
            track(total=len(images), description="predicting", silent=len(starts) < 3) as bar,
        ):
            for start in starts:
                pixels = torch.stack(list(pool.map(self.prepare, images[start : start + batch_size])))
                unknown = torch.zeros(len(pixels), len(self.classes))
                parts.append(
                    predict(
                        self.network,
                        ArrayData(pixels, unknown),
                        batch_size=batch_size,
                        precision="fp32",
                        calibration=False,
                        prepare=self._normalised,
                    ).logits
                )
                bar.update(len(pixels))
        return torch.cat(parts)

    def predict(self, images: Sequence[Picture] | Tensor, batch_size: int = 32) -> Confidences:
        """Calibrated probabilities of images: paths, PIL images, or uint8 (3, H, W) each or (N, 3, H, W) together.

        Raises FileNotFoundError and ValueError as `prepare` does, ValueError where there are no images.
        """
        logits = self.logits(images, batch_size).double()
        return Confidences((self.calibrator or READ_AS[self.read_as])(logits), self.classes, self.thresholds)

    def uncertainty_map(self, image: Picture) -> Tensor:
        """Where the network's two branches disagree about an image, (h, w), in nats, of either sign: UD, Eq. 15–16.

        Raises ValueError for a network without a calibration branch, and as `prepare` does.
        """
        self.require_branch()
        device = make_accelerator().device
        pixels = self.prepare(image)[None].to(device)
        with torch.inference_mode():
            features = self.network.to(device).backbone(self._normalised(pixels))
        return uncertainty_attention(self.network.head, features, self.network.pooling)[0].cpu()

    def require_branch(self) -> None:
        """Refuse a network without a calibration branch (ValueError)."""
        if self.network.head.calibration is None:
            raise ValueError(
                "the network has no calibration branch, and so no uncertainty map: train one with λ above 0"
            )

    def _normalised(self, images: Tensor) -> Tensor:
        return normalise(images, self.mean, self.std)


def save_trained(folder: str | Path, model: TrainedModel) -> Path:
    """Write a model's folder; an interrupted write leaves what was there before. Returns the folder.

    Raises ValueError for a network that is not what `model.backbone` and the classes say, OSError for a full disk.
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
    load_weights(_network(architecture, len(model.classes)), weights, folder, assign=True)  # or nobody could load it
    save_checkpoint(
        folder,
        weights,
        {
            "model": FORMAT,
            "classes": list(model.classes),
            "network": architecture,
            "transforms": {"size": model.size, "resize": STRETCHED, "mean": list(model.mean), "std": list(model.std)},
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
    """The trained model in a folder, in eval mode on the CPU, which moves to the GPU with its first images.

    Raises FileNotFoundError where there is no model folder; ValueError, naming the folder and what is wrong, for one that
    is damaged, written by a later version, or holds something else; for weights that are not finite, are pickled, or
    belong to another architecture or number of classes. Nothing is unpickled.
    """
    folder = Path(path).expanduser()
    if not (folder / "state.json").is_file():
        found = (
            "is a file, and a pickled one is never opened"
            if folder.is_file()
            else "has no 'state.json'"
            if folder.is_dir()
            else "does not exist"
        )
        raise FileNotFoundError(
            f"model folder '{path}' {found}: give a folder that `udlib train` or `udlib distill` wrote"
        )
    weights, state = load_checkpoint(folder, AGAIN)
    try:
        version = _entry(state, "model", int, "a folder that `udlib train` wrote, not a checkpoint or a result")
        if version != FORMAT:
            remedy = "a later udlib wrote it, update yours" if version > FORMAT else "train it again"
            raise ValueError(f"format is {version}, expected {FORMAT}: {remedy}")
        transforms = _entry(state, "transforms", dict)
        if (resize := transforms.get("resize")) != STRETCHED:
            raise ValueError(f"transforms.resize is {resize!r}: expected {STRETCHED!r}")
        calibrator = None
        if state.get("calibrator") is not None:
            _entry(_entry(state, "calibrator", dict), "kind", str)
            calibrator = calibrator_from_dict(state["calibrator"])
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
        )
    except ValueError as error:
        raise ValueError(f"model folder '{path}': {error}") from error


def _network(architecture: Mapping, classes: int) -> DualBranchNet:
    """The network that is described, without memory or weights yet: on the meta device."""
    name, pooling = (_entry(architecture, key, str) for key in ("backbone", "pooling"))
    branch, bias = (_entry(architecture, key, bool) for key in ("calibration", "bias"))
    embedding = _entry(architecture, "embedding", int)
    with torch.device("meta"):
        return DualBranchNet(backbone(name), classes, pooling, embedding, branch, bias)


def _entry(values: Mapping, name: str, kind: type, wanted: str | None = None):
    """An entry of a JSON object, of this very type (a bool is no int); ValueError where it is not."""
    found = values.get(name)
    if type(found) is not kind:
        raise ValueError(f"'{name}' is {found!r}: expected {wanted or f'a {kind.__name__}'}; {AGAIN}")
    return found


def _check(model: TrainedModel) -> None:
    """Refuse a model whose parts do not fit together."""
    classes = len(model.classes)
    if odd := [name for name in model.classes if not (isinstance(name, str) and name.strip())]:
        raise ValueError(f"a class is called {odd[0]!r}: expected a name")
    if repeated := first_repeated(model.classes):
        raise ValueError(f"classes hold '{repeated}' more than once: each class needs its own name")
    if (known := model.network.head.classification.out_features) != classes:
        raise ValueError(
            f"the network answers for {known} classes, and {classes} are named: name all of its classes in order"
        )
    if model.size < 1:
        raise ValueError(f"size is {model.size}: expected pixels, at least 1")
    for name, values, count, low, high in (
        ("mean", model.mean, 3, 0, 1),
        ("std", model.std, 3, 1e-6, math.inf),
        ("thresholds", model.thresholds, classes, 0, 1),
    ):
        numbers = [value for value in values if isinstance(value, (int, float)) and low <= value <= high]
        if len(values) != count or len(numbers) != count:
            raise ValueError(f"{name} are {list(values)}: expected {count} numbers from {low:g} to {high:g}")
    if model.read_as not in READ_AS:
        raise ValueError(f"read_as is '{model.read_as}': expected {' or '.join(READ_AS)}")
    if model.calibrator is not None:
        if model.read_as != "sigmoid":
            raise ValueError("a calibrator maps logits that are read by a sigmoid: leave it out, or read them so")
        _check_calibrator(model.calibrator, classes)
    for name, values in model.network.state_dict().items():
        if values.dtype not in (torch.float32, torch.int64):
            raise ValueError(f"the weights '{name}' are {values.dtype}: expected torch.float32")
        if not values.isfinite().all():
            raise ValueError(
                f"the weights '{name}' are not finite: the training diverged; train with a lower learning rate"
            )


def _check_calibrator(calibrator: Calibrator, classes: int) -> None:
    trial = torch.linspace(-20, 20, 9, dtype=torch.float64)[:, None].expand(-1, classes)
    try:
        found = calibrator(trial)
        sound = found.shape == trial.shape and bool(((found >= 0) & (found <= 1)).all())
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"its {calibrator.kind} calibrator does not work ({error}): {AGAIN}") from error
    if not sound:
        raise ValueError(f"its {calibrator.kind} calibrator does not give {classes} probabilities an image: {AGAIN}")
