"""Augmentation of batches in memory: random flips, shifts, crops and erased rectangles, drawn for each image."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from udlib.datasets.pipelines import (
    CROP_SCALES,
    ERASED_AREA,
    ERASED_ASPECT,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PLACES,
    MultiScaleCrop,
    eval_transform,
    normalise,
    train_transform,
)
from udlib.datasets.threads import one_thread, run_in_portions

__all__ = [
    "BatchAugment",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MultiScale",
    "MultiScaleCrop",
    "eval_transform",
    "normalise",
    "train_transform",
]

IN_CACHE = 2**20  # values that are augmented together on a CPU, 4 MB


class _Plan(NamedTuple):
    """What to do with each of N images, worked out from the random numbers for the whole batch at once."""

    height: int  # of the result, in pixels
    width: int
    mirrored: Tensor  # (N,) bool
    shifts: Tensor | None  # (N, 2) pixels down and to the right
    windows: tuple[Tensor, Tensor] | None  # to crop: (N, 2) first row and column, (N, 2) height and width
    rectangles: tuple[Tensor, Tensor, Tensor] | None  # to erase: (N,) bool whether, and as in `windows`

    def of(self, rows: slice) -> "_Plan":
        """The part of the plan for these images."""
        return self._replace(
            mirrored=self.mirrored[rows],
            shifts=None if self.shifts is None else self.shifts[rows],
            windows=None if self.windows is None else tuple(values[rows] for values in self.windows),
            rectangles=None if self.rectangles is None else tuple(values[rows] for values in self.rectangles),
        )

    def at(self, side: int) -> "_Plan":
        """The same plan for results of another side, with the erased rectangles enlarged alike."""
        rectangles = self.rectangles
        if rectangles is not None:
            erased, first, length = rectangles
            scale = torch.tensor([side / self.height, side / self.width], device=first.device)
            last = ((first + length) * scale).round()
            rectangles = (erased, (first * scale).round(), last - (first * scale).round())
        return self._replace(height=side, width=side, rectangles=rectangles)


class BatchAugment:
    """Augment a batch in memory, each image with its own random numbers, with few loops over images.

    The steps, in this order: mirror, shift, crop and resize (bilinear), normalise, erase. An erased rectangle becomes
    0, the mean colour; its area is uniform in 2–40 % of the image and its aspect ratio log-uniform in 0.3–3.3, or in
    the part of that range that fits.

    Numbers are drawn on the generator's device, so a CPU generator gives the same boxes on every device. The same
    number of them is always drawn, so flips and shifts stay as they are when `erase` is switched on. (`crop` draws
    more, after the others.)

    Args:
        flip: Whether to mirror each image with probability ½.
        shift: Move each image by up to so many pixels in each direction, with its edges repeated.
        erase: Probability in [0, 1] that one rectangle of an image is erased.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.
        crop: Side in pixels of crops as `MultiScaleCrop` draws them; 0 keeps whole images.
        crop_scales: Fractions of the shorter side that crops are drawn from.

    Attributes:
        mirrored: Bool (N,), which images of the last batch were mirrored; None before the first.

    Raises:
        ValueError: `crop` or `shift` is negative, or `erase` is not within 0 and 1.
    """

    def __init__(
        self,
        flip: bool = True,
        shift: int = 0,
        erase: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        crop: int = 0,
        crop_scales: Sequence[float] = CROP_SCALES,
    ):
        if crop < 0:
            raise ValueError(f"crop is {crop}: expected the side of the crops in pixels, or 0")
        if shift < 0:
            raise ValueError(f"shift is {shift}: expected a number of pixels, 0 or more")
        if not 0 <= erase <= 1:
            raise ValueError(f"erase is {erase}: expected a chance between 0 and 1")
        self.flip, self.shift, self.erase, self.mean, self.std = flip, shift, erase, tuple(mean), tuple(std)
        self.crops = MultiScaleCrop(crop, crop_scales) if crop else None
        self.mirrored: Tensor | None = None
        self.plan: _Plan | None = None

    def __call__(self, images: Tensor, generator: torch.Generator, share: tuple[int, int] = (0, 1)) -> Tensor:
        """Augment one batch.

        Args:
            images: (N, 3, H, W), uint8 or float in [0, 1]. They are not changed.
            generator: Where the random numbers come from.
            share: Rank of this process and the number of processes, where several share each batch: process r holds the
                images r, r + n, r + 2n, … of it, and augments each as a single process would.

        Returns:
            Normalised float32 on the images' device: (N, 3, H, W), or (N, 3, crop, crop).
        """
        rank, processes = share

        def draw(kinds: int) -> Tensor:
            whole = torch.rand(kinds, len(images) * processes, generator=generator, device=generator.device)
            return whole[:, rank::processes].to(images.device)

        uniform, crops = draw(8), draw(2) if self.crops else None
        self.mirrored = (uniform[0] < 0.5) & self.flip
        self.plan = self._plan(uniform, crops, images.shape[-2:])
        return self._carried_out(images, self.plan)

    def again(self, images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Make the last batch once more at another size: the same windows, mirrored and erased alike.

        A teacher looks at larger pictures of what its student sees.

        Args:
            images: The images of the last batch, as they were given.
            size: Side in pixels of the result.
            mean: Mean of each channel, for values in [0, 1].
            std: Standard deviation of each channel.

        Returns:
            Normalised float32 (N, 3, size, size).

        Raises:
            ValueError: There was no batch, or it was not cropped.
        """
        if self.plan is None or self.plan.windows is None:
            raise ValueError("there is no batch of crops to make again: train on crops (crop=…)")
        twin = copy.copy(self)
        twin.mean, twin.std = tuple(mean), tuple(std)
        return twin._carried_out(images, self.plan.at(size))

    def _carried_out(self, images: Tensor, plan: _Plan) -> Tensor:
        """Do what the plan says, in portions that several threads share."""
        if images.device.type != "cpu":
            return self._augmented(images, plan)
        together = max(IN_CACHE // (images.shape[1] * plan.height * plan.width), 1)
        if together >= len(images):
            with one_thread():  # a batch this small is ready before a second thread has begun
                return self._augmented(images, plan)
        # Large images in small portions, which stay in the processor's cache from the first of the steps to the last.
        out = _empty(len(images), images.shape[1], plan.height, plan.width)

        def augment_portion(start: int) -> None:
            rows = slice(start, start + together)
            part = images[rows].contiguous(memory_format=torch.channels_last)
            self._augmented(part, plan.of(rows), out[rows])

        run_in_portions(augment_portion, range(0, len(images), together))
        return out

    def _plan(self, uniform: Tensor, crops: Tensor | None, sides: Sequence[int]) -> _Plan:
        """Work out what to do with each image of these sides from its random numbers, (8, N) and (2, N) in [0, 1).

        Done for the whole batch at once: threads that augment portions of it would otherwise spend their time on many
        small steps, for which Python lets only one thread run.
        """
        shifts = windows = rectangles = None
        if self.shift:
            shifts = ((uniform[1:3] * (2 * self.shift + 1)).long() - self.shift).T
        height, width = sides
        if self.crops:
            windows = self._windows(crops, sides)
            height = width = self.crops.size
        if self.erase:
            rectangles = (uniform[3] < self.erase, *self._rectangles(height, width, *uniform[4:]))
        return _Plan(height, width, self.mirrored, shifts, windows, rectangles)

    def _augmented(self, images: Tensor, plan: _Plan, out: Tensor | None = None) -> Tensor:
        """All steps in order; `out` takes the result."""
        moved = images if plan.shifts is None and not self.flip else self._moved(images, plan)
        if plan.windows is not None:
            moved = self._resized(moved, plan)
        out = normalise(moved, self.mean, self.std, out=out)
        if plan.rectangles is not None:
            (_fill if images.device.type == "cpu" else _mask)(out, *plan.rectangles)
        return out

    def _moved(self, images: Tensor, plan: _Plan) -> Tensor:
        """Flip and shift in one step: each output pixel names the row and the column that it comes from."""
        if plan.shifts is None:
            return _flipped(images, plan.mirrored)
        n, channels, height, width = images.shape
        rows = torch.arange(height, device=images.device).expand(n, height)
        columns = torch.arange(width, device=images.device).expand(n, width)
        down, right = plan.shifts.split(1, 1)
        rows, columns = (rows - down).clamp(0, height - 1), (columns - right).clamp(0, width - 1)
        columns = torch.where(plan.mirrored.view(-1, 1), width - 1 - columns, columns)
        # Whole rows are copied by number: several times faster than one gather of pixels.
        first = torch.arange(n * channels, device=images.device).view(n, channels, 1) * height
        images = images.reshape(-1, width).index_select(0, (first + rows[:, None]).flatten())
        shape = (n, channels, height, width)
        return images.reshape(shape).gather(3, columns[:, None, None].expand(shape))

    def _windows(self, uniform: Tensor, sides: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The window of each image, in pixels: (N, 2) its first row and column, and (N, 2) its height and width."""
        pairs = torch.tensor(self.crops.pairs, device=uniform.device)
        pair, place = ((u * n).long() for u, n in zip(uniform, (len(pairs), len(PLACES))))
        shares = torch.tensor(PLACES, device=uniform.device)[place]
        whole = torch.tensor(sides, device=uniform.device)
        length = (pairs[pair] * whole.min()).long().clamp(min=1)
        return (shares * (whole - length)).floor().long(), length

    def _resized(self, images: Tensor, plan: "_Plan") -> Tensor:
        """Crop one window after the other and resize it: bytes stay bytes on a CPU, where that is several times as fast."""
        if images.dtype == torch.uint8 and images.device.type != "cpu":
            images = images.float() / 255  # a GPU resizes floats alone
        side, crops = (plan.height, plan.width), []
        first, length = plan.windows
        for image, (top, left), (height, width) in zip(images.split(1), first.tolist(), length.tolist()):
            window = image[..., top : top + height, left : left + width]
            crops.append(F.interpolate(window, side, mode="bilinear", antialias=True))
        return torch.cat(crops) if len(crops) > 1 else crops[0]

    def _rectangles(
        self, height: int, width: int, area: Tensor, aspect: Tensor, down: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One rectangle for each image: (N, 2) its first row and column, and (N, 2) its height and width."""
        area = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area)
        # Height √(area·aspect) ≤ H and width √(area/aspect) ≤ W bound the aspect: no rejection, so no loop.
        lowest = (area / width**2).clamp(min=ERASED_ASPECT[0]).log()
        highest = (height**2 / area).clamp(max=ERASED_ASPECT[1]).log()
        half = (lowest + (highest - lowest) * aspect).mul(0.5).exp()  # √aspect
        lengths = torch.stack(
            [(area.sqrt() * half).round().clamp(1, height), (area.sqrt() / half).round().clamp(1, width)], 1
        )
        room = torch.tensor([height, width], device=area.device) - lengths + 1
        return (torch.stack([down, right], 1) * room).floor(), lengths


def _flipped(images: Tensor, mirrored: Tensor) -> Tensor:
    """Exchange left and right in the images that are marked in `mirrored`, bool (N,); the input stays as it is."""
    if images.device.type != "cpu":
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    mirrors = mirrored.tolist()
    if all(mirrors) or not any(mirrors):
        return images.flip(3) if any(mirrors) else images
    moved = images.clone()
    for k, mirror in enumerate(mirrors):
        if mirror:
            moved[k] = images[k].flip(2)
    return moved


def _empty(count: int, channels: int, height: int, width: int) -> Tensor:
    """Float32 (N, C, H, W) without values, channels last, in large pages of memory where the system has them.

    Linux fills new memory with zeros page by page when it is first written to. NumPy asks for pages of 2 MB and torch
    takes those of 4 kB; the small ones take longer than the whole augmentation of large images.
    """
    spare = 16  # values, 64 bytes: to start where torch's own memory starts, at a multiple of 64 bytes
    values = np.empty(count * channels * height * width + spare, np.float32)
    first = -values.ctypes.data % 64 // values.itemsize
    flat = torch.from_numpy(values)[first : first + len(values) - spare]
    return flat.view(count, height, width, channels).permute(0, 3, 1, 2)


def _fill(images: Tensor, erased: Tensor, first: Tensor, length: Tensor) -> None:
    """Write zeros into the rectangle of each erased image, one after the other, for a CPU."""
    corners, lengths = first.long().tolist(), length.long().tolist()
    for k, erase in enumerate(erased.tolist()):
        if erase:
            (top, left), (height, width) = corners[k], lengths[k]
            images[k, :, top : top + height, left : left + width] = 0


def _mask(images: Tensor, erased: Tensor, first: Tensor, length: Tensor) -> None:
    """Do what `_fill` does for all images at once, since a GPU wants few and large operations."""
    rows, columns = (
        (pixel >= start[:, None]) & (pixel < (start + count)[:, None])
        for pixel, start, count in zip(
            (torch.arange(side, device=images.device) for side in images.shape[-2:]), first.T, length.T
        )
    )
    images.mul_(~(rows[:, None, :, None] & columns[:, None, None, :] & erased.view(-1, 1, 1, 1)))


class MultiScale(BatchAugment):
    """`BatchAugment`, after which the whole batch is resized (bilinear) to one of `scales` times its side.

    All processes of a step draw the same scale. Boxes are fractions of a side, so they stay as they are.

    Args:
        scales: Factors of the side, all equally likely.
        **options: Arguments of `BatchAugment`.
    """

    def __init__(self, scales: Sequence[float] = (0.75, 1.0, 1.25), **options):
        super().__init__(**options)
        self.scales = tuple(scales)

    def __call__(self, images: Tensor, generator: torch.Generator, share: tuple[int, int] = (0, 1)) -> Tensor:
        """Augment and resize one batch; the arguments are those of `BatchAugment`."""
        augmented = super().__call__(images, generator, share)
        scale = self.scales[int(torch.rand((), generator=generator) * len(self.scales))]
        side = [round(scale * length) for length in augmented.shape[-2:]]
        return augmented if scale == 1 else F.interpolate(augmented, side, mode="bilinear", antialias=True)
