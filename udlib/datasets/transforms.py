"""Augmentation twice over: the paper's pipeline for images from disk, its ideas for batches in memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ERASED_AREA = (0.02, 0.4)  # of the image, as in Zhong et al. 2017, "Random erasing data augmentation"
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width
IN_CACHE = 2**20  # values that are augmented together on a CPU, 4 MB
PLACES = (
    (0.0, 0.0),
    (0.0, 1.0),
    (1.0, 0.0),
    (1.0, 1.0),
    (0.5, 0.5),
)  # of a crop: shares of the room down and to the right


class MultiScaleCrop(v2.Transform):
    """Crop at a random scale and one of five fixed places, then resize to `size` × `size`.

    Corner cropping with scale jitter, Wang et al. 2015, "Towards good practices for very deep two-stream ConvNets",
    section 3. Height and width are drawn from `scales` (fractions of the shorter side), at most `max_distort` steps
    apart in that list, all such pairs equally likely; the places are the four corners and the centre.
    """

    def __init__(self, size: int, scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66, 0.5), max_distort: int = 2):
        super().__init__()
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales are {tuple(scales)}: expected fractions of the shorter side, 0 < s ≤ 1")
        self.size, self.scales, self.max_distort = size, tuple(scales), max_distort
        steps = range(len(self.scales))
        self.pairs = [(self.scales[i], self.scales[j]) for i in steps for j in steps if abs(i - j) <= max_distort]

    def make_params(self, flat_inputs: list) -> dict[str, int]:
        image_height, image_width = v2.functional.get_size(flat_inputs[0])
        pair, place = (int(torch.randint(n, ())) for n in (len(self.pairs), 5))
        height, width = (max(1, int(scale * min(image_height, image_width))) for scale in self.pairs[pair])
        down, right = PLACES[place]
        top, left = int(down * (image_height - height)), int(right * (image_width - width))
        return {"top": top, "left": left, "height": height, "width": width}

    def transform(self, inpt, params: dict[str, int]):
        size = [self.size, self.size]
        return self._call_kernel(v2.functional.resized_crop, inpt, **params, size=size, antialias=True)


def _to_normalised(mean: Sequence[float], std: Sequence[float]) -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


def train_transform(
    size: int = 448,
    resize: int = 512,
    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66, 0.5),
    erase: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> v2.Compose:
    """The paper's training pipeline, PIL image → float32 (3, size, size), drawn anew for each image.

    Stretch to resize × resize, multi-scale crop, mirror with chance ½, normalise, and with `erase` (the CutOut of
    Table 1) random erasing with chance ½: 2–40 % of the area, set to 0 after normalisation, that is to the mean colour.
    """
    steps = [v2.Resize((resize, resize)), MultiScaleCrop(size, scales), v2.RandomHorizontalFlip()]
    steps += _to_normalised(mean, std)
    if erase:
        steps.append(v2.RandomErasing(p=0.5, scale=ERASED_AREA, ratio=ERASED_ASPECT))
    return v2.Compose(steps)


def eval_transform(
    size: int = 448, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> v2.Compose:
    """PIL image → float32 (3, size, size): stretched to a square and normalised, nothing random."""
    return v2.Compose([v2.Resize((size, size)), *_to_normalised(mean, std)])


def normalise(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """(N, 3, H, W), uint8 in 0–255 or float in [0, 1] → float32, (x − mean) / std for each channel.

    With `size`, images of another height or width are first resized to size × size (bilinear, antialiased). `out`, float32
    and of the images' shape, takes the result of images that have their size.
    """
    if images.ndim != 4 or images.shape[1] != len(mean):
        raise ValueError(f"images have shape {tuple(images.shape)}: expected (N, {len(mean)}, H, W)")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images have dtype {images.dtype}: expected uint8 in 0–255 or float in [0, 1]")
    mean, std = (torch.tensor(values, device=images.device) for values in (mean, std))
    unit = 255.0 if images.dtype == torch.uint8 else 1.0
    images = images.to(torch.float32, copy=True) if out is None else out.copy_(images)
    if size is not None and images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    factor, offset = 1 / (unit * std), mean / std
    if not images.is_contiguous(memory_format=torch.channels_last):
        return images.mul_(factor.view(1, -1, 1, 1)).sub_(offset.view(1, -1, 1, 1))
    # With the colours side by side, whole rows of pixels at once: a loop over three numbers is too short for a processor.
    rows = images.permute(0, 2, 3, 1).flatten(2)
    rows.mul_(factor.repeat(images.shape[3])).sub_(offset.repeat(images.shape[3]))
    return images


class BatchAugment:
    """Augment a batch that is in memory, each image with its own random numbers, with as few loops over images as pay.

    Called with images (N, 3, H, W), uint8 or float in [0, 1], and a `torch.Generator`; returns normalised float32 on
    their device. In this order: `flip` mirrors with chance ½; `shift` moves by up to so many pixels each way, edges
    repeated; `crop` is the side in pixels of crops as `MultiScaleCrop` draws them, resized bilinearly (0: whole images);
    then normalisation; `erase` is the chance that one rectangle becomes 0, the mean colour. Its area is
    uniform in 2–40 % of the image and its aspect log-uniform in 0.3–3.3, or the part of that range that fits.

    Numbers are drawn on the generator's device, so a CPU generator gives the same boxes on every device, and always the
    same number of them, so switching `erase` on leaves flips and shifts as they were. (`crop` draws more, after the others.)
    Of several processes, each passes `share`, its rank and their number, and holds each of a batch's images by turns: each
    image is augmented as one process would do it. `mirrored` bool (N,) then says which images of the last batch were mirrored.
    """

    def __init__(
        self,
        flip: bool = True,
        shift: int = 0,
        erase: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        crop: int = 0,
    ):
        if crop < 0:
            raise ValueError(f"crop is {crop}: expected the side of the crops in pixels, or 0")
        if shift < 0:
            raise ValueError(f"shift is {shift}: expected a number of pixels, 0 or more")
        if not 0 <= erase <= 1:
            raise ValueError(f"erase is {erase}: expected a chance between 0 and 1")
        self.flip, self.shift, self.erase, self.mean, self.std = flip, shift, erase, tuple(mean), tuple(std)
        self.crops = MultiScaleCrop(crop) if crop else None
        self.mirrored: Tensor | None = None

    def __call__(self, images: Tensor, generator: torch.Generator, share: tuple[int, int] = (0, 1)) -> Tensor:
        rank, processes = share

        def drawn(kinds: int) -> Tensor:
            whole = torch.rand(kinds, len(images) * processes, generator=generator, device=generator.device)
            return whole[:, rank::processes].to(images.device)

        uniform, crops = drawn(8), drawn(2) if self.crops else None
        self.mirrored = (uniform[0] < 0.5) & self.flip
        height, width = [self.crops.size] * 2 if self.crops else images.shape[-2:]
        together = max(IN_CACHE // (images.shape[1] * height * width), 1)
        if images.device.type != "cpu" or together >= len(images):
            return self._augmented(images, uniform, crops)
        # Large images in small portions, which stay in the processor's cache from the first of the steps to the last.
        out = torch.empty(len(images), images.shape[1], height, width, memory_format=torch.channels_last)

        def portion(start: int) -> None:
            rows = slice(start, start + together)
            part = images[rows].contiguous(memory_format=torch.channels_last)
            self._augmented(part, uniform[:, rows], None if crops is None else crops[:, rows], out[rows])

        _by_all_threads(portion, range(0, len(images), together))
        return out

    def _augmented(self, images: Tensor, uniform: Tensor, crops: Tensor | None, out: Tensor | None = None) -> Tensor:
        moved = self._move(images, *uniform[:3])
        if crops is not None:
            moved = self._cropped(moved, crops)
        out = normalise(moved, self.mean, self.std, out=out)
        if self.erase:
            fill = _fill if out.device.type == "cpu" else _mask
            fill(out, uniform[3] < self.erase, *self._rectangles(*moved.shape[-2:], *uniform[4:]))
        return out

    def _move(self, images: Tensor, mirror: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Flip and shift in one: each output pixel names the row and the column that it comes from."""
        if not self.flip and not self.shift:
            return images
        if not self.shift:
            mirrored = mirror < 0.5
            if images.device.type != "cpu":
                return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
            moved = images.clone() if mirrored.any() else images
            for k in mirrored.nonzero().flatten().tolist():
                moved[k] = images[k].flip(2)
            return moved
        n, channels, height, width = images.shape
        rows = torch.arange(height, device=images.device).expand(n, height)
        columns = torch.arange(width, device=images.device).expand(n, width)
        steps = 2 * self.shift + 1
        down, right = (((u * steps).long() - self.shift).view(-1, 1) for u in (down, right))
        rows, columns = (rows - down).clamp(0, height - 1), (columns - right).clamp(0, width - 1)
        if self.flip:
            columns = torch.where((mirror < 0.5).view(-1, 1), width - 1 - columns, columns)
        # Whole rows are copied by number: several times faster than one gather of pixels.
        first = torch.arange(n * channels, device=images.device).view(n, channels, 1) * height
        images = images.reshape(-1, width).index_select(0, (first + rows[:, None]).flatten())
        shape = (n, channels, height, width)
        return images.reshape(shape).gather(3, columns[:, None, None].expand(shape))

    def _cropped(self, images: Tensor, uniform: Tensor) -> Tensor:
        """(N, 3, crop, crop): each image's own window, resized; from uint8 images uint8 or, from a GPU, float in [0, 1]."""
        pairs = torch.tensor(self.crops.pairs, device=images.device)
        pair, place = ((u * n).long() for u, n in zip(uniform, (len(pairs), len(PLACES))))
        shares = torch.tensor(PLACES, device=images.device)[place]
        sides = torch.tensor(images.shape[-2:], device=images.device)
        length = (pairs[pair] * sides.min()).long().clamp(min=1)  # (N, 2): height and width of each window
        first = (shares * (sides - length)).floor()
        if images.device.type == "cpu":
            return self._resized(images, first.long(), length)
        return self._sampled(images, first, length)

    def _resized(self, images: Tensor, first: Tensor, length: Tensor) -> Tensor:
        """One window after the other: on a CPU several times as fast as `_sampled`, since bytes are resized as bytes."""
        found = []
        for image, (top, left), (height, width) in zip(images.split(1), first.tolist(), length.tolist()):
            window = image[..., top : top + height, left : left + width]
            found.append(
                F.interpolate(window, (self.crops.size, self.crops.size), mode="bilinear", align_corners=False)
            )
        return torch.cat(found) if len(found) > 1 else found[0]

    def _sampled(self, images: Tensor, first: Tensor, length: Tensor) -> Tensor:
        """All windows at once, float in [0, 1]: for a GPU, which wants few and large operations."""
        at = []
        for axis, side in enumerate(images.shape[-2:]):
            # The middle of each new pixel in old ones, kept inside the window; then in grid_sample's −1 … 1.
            count = length[:, axis, None]
            step = (torch.arange(self.crops.size, device=images.device) + 0.5) * count / self.crops.size - 0.5
            inside = torch.minimum(step.clamp(min=0), count - 1.0) + first[:, axis, None]
            at.append((2 * inside + 1) / side - 1)
        rows, columns = at
        shape = (len(images), self.crops.size, self.crops.size)
        grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        return F.grid_sample(images.float() / unit, grid, align_corners=False)

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


def _by_all_threads(work: Callable[[int], None], parts: Sequence[int]) -> None:
    """`work` on each part, side by side: as many at a time as PyTorch has threads, each of them by one thread alone.

    To share each small step of one part among the threads would make them wait for each other at every step.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what threads begin with that are started now
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)


def _fill(images: Tensor, chosen: Tensor, first: Tensor, length: Tensor) -> None:
    """Zeros in the rectangle of each chosen image, one after the other: a CPU writes there and nowhere else."""
    for k in chosen.nonzero().flatten().tolist():
        (top, left), (height, width) = first[k].long().tolist(), length[k].long().tolist()
        images[k, :, top : top + height, left : left + width] = 0


def _mask(images: Tensor, chosen: Tensor, first: Tensor, length: Tensor) -> None:
    """What `_fill` does, for all images at once, as a GPU wants it."""
    rows, columns = (
        (pixel >= start[:, None]) & (pixel < (start + count)[:, None])
        for pixel, start, count in zip(
            (torch.arange(side, device=images.device) for side in images.shape[-2:]), first.T, length.T
        )
    )
    images.mul_(~(rows[:, None, :, None] & columns[:, None, None, :] & chosen.view(-1, 1, 1, 1)))


class MultiScale(BatchAugment):
    """`BatchAugment`, and then the whole batch resized, bilinearly, to one of `scales` times its side.

    The same for all processes of a step. Boxes are fractions of a side, and stay as they are.
    """

    def __init__(self, scales=(0.75, 1.0, 1.25), **options):
        super().__init__(**options)
        self.scales = tuple(scales)

    def __call__(self, images: Tensor, generator: torch.Generator, share: tuple[int, int] = (0, 1)) -> Tensor:
        found = super().__call__(images, generator, share)
        scale = self.scales[int(torch.rand((), generator=generator) * len(self.scales))]
        side = [round(scale * length) for length in found.shape[-2:]]
        return found if scale == 1 else F.interpolate(found, side, mode="bilinear", antialias=True)
