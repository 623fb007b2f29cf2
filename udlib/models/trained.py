"""A trained network with everything that is needed to use it on new images, and the probabilities that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from udlib.attention import uncertainty_attention
from udlib.datasets.base import MultiLabelDataset, to_square
from udlib.datasets.decoding import load_rgb, read_rgb
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.models.checks import require_consistent
from udlib.posthoc import Calibrator
from udlib.progress import track
from udlib.training import predict
from udlib.training.batches import ArrayData
from udlib.training.devices import make_accelerator

Picture = str | Path | Image.Image | Tensor
EXIF = "exif"  # the rule for orientation that there is


@dataclass(frozen=True)
class Confidences:
    """Calibrated probabilities of N images.

    Attributes:
        probabilities: float64 (N, C), P(label = 1 | image) as fractions.
        classes: C names.
        thresholds: C numbers; a label counts as present from its threshold on.
    """

    probabilities: Tensor
    classes: tuple[str, ...]
    thresholds: tuple[float, ...]

    def labels(self, threshold: float | None = None, top: int | None = None) -> list[list[tuple[str, float]]]:
        """List the labels of each image with their probabilities, the most probable first.

        Equal probabilities come in the order of `classes`.

        Args:
            threshold: least probability of a label, in [0, 1]; default: each class's own threshold, or none if `top` is
                given.
            top: at most so many labels for each image, at least 1.

        Returns:
            For each image a list of (name, probability).

        Raises:
            ValueError: a threshold outside [0, 1], top < 1.

        Example:
            >>> confidences = Confidences(torch.tensor([[0.2, 0.9, 0.6]]), ("cat", "dog", "sofa"), (0.5, 0.5, 0.5))
            >>> [name for name, _ in confidences.labels()[0]], [name for name, _ in confidences.labels(top=1)[0]]
            (['dog', 'sofa'], ['dog'])
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}: expected a probability in [0, 1]")
        if top is not None and top < 1:
            raise ValueError(f"top is {top}: expected at least 1")
        bounds = self.thresholds if threshold is None else (threshold,) * len(self.classes)
        if top is not None and threshold is None:
            bounds = (0.0,) * len(self.classes)
        labels = []
        for row in self.probabilities.tolist():
            order = sorted((k for k, bound in enumerate(bounds) if row[k] >= bound), key=lambda k: -row[k])
            labels.append([(self.classes[k], row[k]) for k in order[:top]])
        return labels


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with everything that is needed to use it on new images.

    `models.save_trained` writes it to a folder and `models.load` reads it back.

    Attributes:
        network: in evaluation mode.
        backbone: the network's name in `backbones.NAMES`, or "timm:NAME".
        classes: C names.
        size: an image is stretched to `size` × `size` pixels.
        mean: of each of the 3 colour channels, subtracted from an image; default: that of the network's backbone.
        std: of each of the 3 colour channels, by which an image is then divided; default: that of the backbone.
        read_as: what turns logits into probabilities: "sigmoid", or "softmax" for a network whose logits are only
            meaningful relative to one another.
        calibrator: fitted on validation; replaces the sigmoid.
        thresholds: one for each class, default 0.5.
        metrics: `metrics[split]` has "uncalibrated" and, with a calibrator, "calibrated".
        training: the settings that it was trained with.
        provenance: versions and hardware; "splits", the labels and image files that the numbers belong to; "thresholds", the
            images on which these were fitted.
        orientation: the rule for EXIF orientation: "exif", every picture is turned upright as it says, from a data set, from
            a file or in memory. None: no rule, as in folders that udlib wrote before it had one. Files are turned upright;
            PIL images, and images of data sets with boxes, are not.

    Raises:
        ValueError: when it is made, for parts that do not fit together, and for weights that are not finite.
    """

    network: DualBranchNet = field(repr=False)
    backbone: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    read_as: str = "sigmoid"
    calibrator: Calibrator | None = field(default=None, repr=False)
    thresholds: tuple[float, ...] | None = None
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict, repr=False)
    training: Mapping[str, Any] = field(default_factory=dict, repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    orientation: str | None = EXIF

    def __post_init__(self):
        for name in ("mean", "std"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self.network.backbone, name))
        if self.thresholds is None:
            object.__setattr__(self, "thresholds", (0.5,) * len(self.classes))
        require_consistent(self)
        # The memory layout of the training, so that a loaded network computes the same bits as the one that was saved.
        self.network.to(memory_format=torch.channels_last).eval()

    def prepare(self, image: Picture) -> Tensor:
        """Bring one image to the form that the network takes.

        Args:
            image: a path, a PIL image, or uint8 (3, H, W). Files and PIL images are turned upright as their EXIF orientation
                says (`orientation`), so a file gives the same pixels either way.

        Returns:
            uint8 (3, size, size).

        Raises:
            FileNotFoundError: a file that is missing; the message names it.
            ValueError: a file that cannot be decoded, with its name; a tensor of another type or shape.
            TypeError: something else than a path, an image or a tensor.
        """
        if isinstance(image, Tensor):
            if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
                raise ValueError(f"image is {image.dtype} {tuple(image.shape)}: expected torch.uint8 (3, H, W)")
            if image.shape[1:] == (self.size, self.size):
                return image
            image = Image.fromarray(np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy()))
        return to_square(self.read(image), self.size)

    def read(self, image: str | Path | Image.Image) -> Image.Image:
        """Read a picture as the model sees it, at its own size.

        Args:
            image: a path or a PIL image.

        Returns:
            The picture in RGB, turned upright by the model's rule (`orientation`).

        Raises:
            FileNotFoundError: a file that is missing; the message names it.
            ValueError: a file that cannot be decoded, with its name.
            TypeError: something else than a path or an image.
        """
        if isinstance(image, (str, Path)):
            if not Path(image).is_file():
                raise FileNotFoundError(f"image '{image}' does not exist, or is no file: name an image file")
            return load_rgb(Path(image))
        if isinstance(image, Image.Image):
            return read_rgb(image, upright=self.orientation is not None)
        raise TypeError(f"image is a {type(image).__name__}: expected a path, a PIL image or a uint8 tensor (3, H, W)")

    @property
    def batch_size(self) -> int:
        """Images at a time in its training; 32 where that is not known.

        On some processors the last bits of a logit depend on the size of the batch. So all numbers are measured in batches of
        this size, and a later measurement repeats those of the training to the last digit.
        """
        return int(self.training.get("batch_size", 32))

    def logits(self, images: Sequence[Picture] | Tensor | MultiLabelDataset, batch_size: int | None = None) -> Tensor:
        """Compute the network's logits for images, in single precision.

        Args:
            images: paths, PIL images or uint8 tensors (3, H, W), uint8 (N, 3, H, W), a single path or PIL image, or a data
                set, which decodes its images itself.
            batch_size: number of images that are in memory at once, at least 1; default: as in its training.

        Returns:
            float32 (N, C).

        Raises:
            FileNotFoundError: as `prepare`.
            ValueError: no images, batch_size < 1, and as `prepare`.
            TypeError: as `prepare`.
        """
        if isinstance(images, (str, Path, Image.Image)):
            images = [images]
        if not len(images):
            raise ValueError("there are no images: expected at least one")
        if batch_size is None:
            batch_size = self.batch_size
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected at least 1")
        if isinstance(images, MultiLabelDataset):
            picture = (images if self.orientation is not None else images.as_read_before()).image
        else:
            picture = images.__getitem__
        rows, parts = range(len(images)), []
        starts = rows[::batch_size]
        bar = track(total=len(images), description="predicting", silent=len(starts) < 3)
        with ThreadPoolExecutor() as pool, bar:  # pictures of a batch are decoded side by side
            for start in starts:
                batch = pool.map(lambda i: self.prepare(picture(i)), rows[start : start + batch_size])
                pixels = torch.stack(list(batch))
                parts.append(self._logits_of_batch(pixels))
                bar.update(len(pixels))
        return torch.cat(parts)

    def predict(self, images: Sequence[Picture] | Tensor, batch_size: int | None = None) -> Confidences:
        """Compute the calibrated probabilities of images.

        Args:
            images: as in `logits`.
            batch_size: as in `logits`.

        Returns:
            Probabilities (N, C) with the names of the classes and their thresholds.

        Raises:
            FileNotFoundError: as `prepare`.
            ValueError: no images, batch_size < 1, and as `prepare`.
            TypeError: as `prepare`.
        """
        logits = self.logits(images, batch_size).double()
        if self.calibrator is not None:
            probabilities = self.calibrator(logits)
        else:
            probabilities = torch.sigmoid(logits) if self.read_as == "sigmoid" else torch.softmax(logits, dim=1)
        return Confidences(probabilities, self.classes, self.thresholds)

    def uncertainty_map(self, image: Picture) -> Tensor:
        """Map of where the network's two branches disagree about an image.

        Args:
            image: as in `prepare`.

        Returns:
            (h, w), in nats, positive or negative.

        Raises:
            ValueError: a network without a calibration branch, and as `prepare`.
            FileNotFoundError: as `prepare`.

        Source: UD, Eq. 15–16.
        """
        self.require_branch()
        device = make_accelerator().device
        pixels = self.prepare(image)[None].to(device)
        with torch.inference_mode():
            features = self.network.to(device).backbone(self._normalised(pixels))
        return uncertainty_attention(self.network.head, features, self.network.pooling)[0].cpu()

    def require_branch(self) -> None:
        """Raise ValueError for a network without a calibration branch."""
        if self.network.head.calibration is None:
            raise ValueError(
                "the network has no calibration branch, and so no uncertainty map: train one with λ above 0"
            )

    def _logits_of_batch(self, pixels: Tensor) -> Tensor:
        """The logits of prepared images."""
        data = ArrayData(pixels, torch.zeros(len(pixels), len(self.classes)))  # labels that nobody reads
        return predict(
            self.network,
            data,
            batch_size=len(pixels),
            precision="fp32",
            calibration=False,
            prepare=self._normalised,
        ).logits

    def _normalised(self, images: Tensor) -> Tensor:
        """Float images from uint8 ones."""
        return normalise(images, self.mean, self.std)
