"""Transforms of single images: the paper's pipelines for images from disk, and the normalisation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from udlib.normalisation import IMAGENET_MEAN, IMAGENET_STD

CROP_SCALES = (1.0, 0.875, 0.75, 0.66, 0.5)  # of the shorter side, as in the released code of UD
ERASED_AREA = (0.02, 0.4)  # of the image, as in Zhong et al. 2017, "Random erasing data augmentation"
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width
# Places of a crop: fractions of the free room above it and to its left. The four corners, then the centre.
PLACES = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


class MultiScaleCrop(v2.Transform):
    """Crop at a random scale and one of five fixed places, then resize to `size` × `size`.

    Height and width are drawn from `scales`, at most `max_distort` steps apart in that list; all such pairs are equally
    likely. The places are the four corners and the centre.

    Args:
        size: Side of the result in pixels.
        scales: Fractions of the image's shorter side, 0 < s ≤ 1.
        max_distort: How many steps of `scales` height and width may be apart.

    Raises:
        ValueError: `scales` is empty or holds a number outside (0, 1].

    Source:
        Wang et al. 2015, "Towards good practices for very deep two-stream ConvNets", section 3: corner cropping with
        scale jitter.
    """

    def __init__(self, size: int, scales: Sequence[float] = CROP_SCALES, max_distort: int = 2):
        super().__init__()
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales are {tuple(scales)}: expected fractions of the shorter side, 0 < s ≤ 1")
        self.size, self.scales, self.max_distort = size, tuple(scales), max_distort
        steps = range(len(self.scales))
        self.pairs = [(self.scales[i], self.scales[j]) for i in steps for j in steps if abs(i - j) <= max_distort]

    def make_params(self, flat_inputs: list) -> dict[str, int]:
        """Draw the window of one image; torchvision calls this."""
        image_height, image_width = v2.functional.get_size(flat_inputs[0])
        pair, place = (int(torch.randint(n, ())) for n in (len(self.pairs), 5))
        height, width = (max(1, int(scale * min(image_height, image_width))) for scale in self.pairs[pair])
        down, right = PLACES[place]
        top, left = int(down * (image_height - height)), int(right * (image_width - width))
        return {"top": top, "left": left, "height": height, "width": width}

    def transform(self, inpt, params: dict[str, int]):
        """Crop and resize one image; torchvision calls this."""
        size = [self.size, self.size]
        return self._call_kernel(v2.functional.resized_crop, inpt, **params, size=size, antialias=True)


def _to_normalised(mean: Sequence[float], std: Sequence[float]) -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


def train_transform(
    size: int = 448,
    resize: int = 512,
    scales: Sequence[float] = CROP_SCALES,
    erase: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> v2.Compose:
    """Return the paper's training pipeline, which draws new random numbers for each image.

    The steps: stretch to resize × resize; multi-scale crop; mirror with probability ½; normalise; and with `erase`,
    random erasing with probability ½ (the CutOut of Table 1).

    Args:
        size: Side of the result in pixels.
        resize: Side in pixels to which images are stretched before the crop.
        scales: Scales of `MultiScaleCrop`.
        erase: Whether to set 2–40 % of the area to 0 after normalisation, which is the mean colour.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.

    Returns:
        A transform from a PIL image to float32 (3, size, size).
    """
    steps = [v2.Resize((resize, resize)), MultiScaleCrop(size, scales), v2.RandomHorizontalFlip()]
    steps += _to_normalised(mean, std)
    if erase:
        steps.append(v2.RandomErasing(p=0.5, scale=ERASED_AREA, ratio=ERASED_ASPECT))
    return v2.Compose(steps)


def eval_transform(
    size: int = 448, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> v2.Compose:
    """Return the pipeline for evaluation: stretch to a square and normalise, with nothing random.

    Args:
        size: Side of the result in pixels.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.

    Returns:
        A transform from a PIL image to float32 (3, size, size).
    """
    return v2.Compose([v2.Resize((size, size)), *_to_normalised(mean, std)])


def normalise(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Compute (x − mean) / std for each channel.

    Args:
        images: (N, 3, H, W), uint8 in 0–255 or float in [0, 1].
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.
        size: Resize images of another height or width to size × size first (bilinear, antialiased).
        out: Float32 of the images' shape, to write the result into; only for images that are not resized.

    Returns:
        Float32 (N, 3, H, W), or (N, 3, size, size).

    Raises:
        ValueError: The images do not have the shape (N, channels, H, W).
        TypeError: The images are neither uint8 nor float.
    """
    if images.ndim != 4 or images.shape[1] != len(mean):
        raise ValueError(f"images have shape {tuple(images.shape)}: expected (N, {len(mean)}, H, W)")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images have dtype {images.dtype}: expected uint8 in 0–255 or float in [0, 1]")
    means, stds = (torch.tensor(values, device=images.device) for values in (mean, std))
    unit = 255.0 if images.dtype == torch.uint8 else 1.0
    images = images.to(torch.float32, copy=True) if out is None else out.copy_(images)
    if size is not None and images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    factor, offset = 1 / (unit * stds), means / stds
    if not images.is_contiguous(memory_format=torch.channels_last):
        return images.mul_(factor.view(1, -1, 1, 1)).sub_(offset.view(1, -1, 1, 1))
    # With the colours side by side, compute whole rows of pixels at once: loops over three numbers are slow.
    rows = images.permute(0, 2, 3, 1).flatten(2)
    rows.mul_(factor.repeat(images.shape[3])).sub_(offset.repeat(images.shape[3]))
    return images
