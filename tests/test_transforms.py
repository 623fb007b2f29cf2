import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from udlib.datasets import transforms
from udlib.datasets.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BatchAugment,
    MultiScaleCrop,
    eval_transform,
    normalise,
    train_transform,
)

IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n=6, height=12, width=12, seed=0):
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=seeded(seed))


def literal_move(image, down, right, mirror):
    """One image, pixel by pixel: mirrored, then moved, the edge repeated."""
    channels, height, width = image.shape
    pixels, out = image.numpy(), np.empty_like(image.numpy())
    for row in range(height):
        for column in range(width):
            x = width - 1 - column if mirror else column
            out[:, row, column] = pixels[:, min(max(row - down, 0), height - 1), min(max(x - right, 0), width - 1)]
    return torch.from_numpy(out)


@given(st.integers(0, 4), st.booleans(), st.integers(0, 99), st.sampled_from([(7, 7), (5, 9)]))
@settings(max_examples=15, deadline=None)
def test_flip_and_shift_equal_a_literal_loop_over_pixels(shift, flip, seed, size):
    images = noise(5, *size)
    out = BatchAugment(flip=flip, shift=shift, **IDENTITY)(images, seeded(seed))
    for before, after in zip(images, out):
        places = range(-shift, shift + 1)
        candidates = [literal_move(before, d, r, m) for d in places for r in places for m in {False, flip}]
        assert any(torch.allclose(after, candidate / 255) for candidate in candidates)


def test_a_flip_mirrors_exactly_and_about_half_of_the_images():
    images = noise(20_000, 2, 5)
    out = BatchAugment(flip=True, **IDENTITY)(images, seeded())
    plain, mirrored = normalise(images, **IDENTITY), normalise(images.flip(-1), **IDENTITY)
    same, turned = (out == plain).all((1, 2, 3)), (out == mirrored).all((1, 2, 3))
    assert (same | turned).all() and not (same & turned).any()
    assert abs(turned.float().mean() - 0.5) < 4 * math.sqrt(0.25 / 20_000)


def test_every_shift_is_equally_likely_and_independent_in_both_directions():
    row, column = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    image = torch.stack([row, column, row * 0]).to(torch.uint8)
    out = BatchAugment(flip=False, shift=1, **IDENTITY)(image.expand(9000, 3, 9, 9), seeded())
    moved = (4 - out[:, :2, 4, 4] * 255).round().long() + 1
    counts = torch.bincount(moved[:, 0] * 3 + moved[:, 1], minlength=9)
    assert len(counts) == 9 and (counts - 1000).abs().max() < 4 * math.sqrt(9000 * (1 / 9) * (8 / 9))


def erased(images, generator, chance=1.0):
    ones = torch.ones(images)
    return BatchAugment(flip=False, erase=chance, **IDENTITY)(ones, generator)[:, 0] == 0


def test_each_image_of_a_batch_gets_its_own_rectangle():
    masks = erased((64, 3, 32, 32), seeded())
    distinct = {mask.numpy().tobytes() for mask in masks}
    assert len(distinct) > 60


@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
def test_an_erased_region_is_one_rectangle_of_2_to_40_per_cent_with_an_aspect_in_range(size):
    height, width = size
    areas = []
    for mask in erased((800, 3, *size), seeded()):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tall, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert mask.sum() == tall * wide
        assert (tall - 1) / (wide + 1) < 1 / 0.3 and (tall + 1) / (wide - 1) > 0.3
        areas.append(tall * wide / (height * width))
    areas = np.array(areas)
    # Uniform on [.02, .4]: mean .21, standard deviation .38 / √12; sides are rounded to pixels.
    assert abs(areas.mean() - 0.21) < 4 * 0.11 / math.sqrt(800) + 0.002
    assert 0.015 < areas.min() < 0.04 and 0.38 < areas.max() < 0.42
    assert abs(areas.std() - 0.38 / math.sqrt(12)) < 0.01


def test_rectangles_reach_every_edge_and_corner():
    masks = erased((3000, 3, 16, 16), seeded())
    share = masks.float().mean(0)
    assert share.min() > 0.005 and torch.allclose(share, share.flip(0), atol=0.04)
    assert torch.allclose(share, share.T, atol=0.04)


def test_a_cpu_fills_the_rectangles_that_a_gpu_masks():
    images, augment = torch.rand(200, 3, 20, 31, generator=seeded()) + 0.1, BatchAugment(erase=1.0)
    boxes = augment._rectangles(20, 31, *torch.rand(4, 200, generator=seeded(1)))
    erased = torch.rand(200, generator=seeded(2)) < 0.5
    filled, masked = images.clone(), images.clone()
    transforms._fill(filled, erased, *boxes)
    transforms._mask(masked, erased, *boxes)
    assert torch.equal(filled, masked) and torch.equal((filled == 0).flatten(1).any(1), erased)


def test_erasing_happens_with_the_given_chance_and_fills_with_the_mean_colour():
    hit = erased((2000, 3, 8, 8), seeded(), chance=0.3).any((1, 2)).float().mean()
    assert abs(hit - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)
    grey = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).expand(4, 3, 8, 8)
    assert BatchAugment(erase=1.0)(grey, seeded()).abs().max() < 1e-6
    assert not erased((50, 3, 8, 8), seeded(), chance=0.0).any()


def test_the_generator_decides_and_switching_erasing_on_changes_nothing_else():
    images = noise(20)
    augment = BatchAugment(shift=2, erase=0.5)
    first = augment(images, seeded(1))
    assert torch.equal(first, augment(images, seeded(1))) and not torch.equal(first, augment(images, seeded(2)))
    plain = BatchAugment(shift=2)(images, seeded(1))
    assert ((first == plain) | (first == 0)).all() and not torch.equal(first, plain)


def test_uint8_and_float_images_give_the_same_normalised_batch():
    images = noise(4)
    before = images.clone()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (images / 255 - mean) / std
    assert torch.allclose(normalise(images), expected, atol=1e-5)
    assert torch.allclose(normalise(images / 255), expected, atol=1e-5)
    as_float = images / 255
    BatchAugment(shift=2, erase=1.0)(as_float, seeded()), BatchAugment(flip=False, erase=1.0)(images, seeded())
    assert torch.equal(images, before) and torch.equal(as_float, before / 255)
    assert BatchAugment(shift=1, erase=1.0)(images[:0], seeded()).shape == (0, 3, 12, 12)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: normalise(torch.zeros(3, 8, 8)), ValueError, r"\(3, 8, 8\)"),
        (lambda: normalise(torch.zeros(2, 1, 8, 8)), ValueError, r"expected \(N, 3, H, W\)"),
        (lambda: normalise(torch.zeros(2, 3, 8, 8, dtype=torch.int64)), TypeError, "int64"),
        (lambda: BatchAugment(shift=-1), ValueError, "shift is -1"),
        (lambda: BatchAugment(erase=1.5), ValueError, "erase is 1.5"),
        (lambda: MultiScaleCrop(8, scales=(1.5,)), ValueError, "1.5"),
        (lambda: MultiScaleCrop(8, scales=()), ValueError, "scales"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_multi_scale_crops_are_the_listed_sizes_at_five_places():
    crop = MultiScaleCrop(32, scales=(1.0, 0.75, 0.5), max_distort=1)
    image = torch.zeros(3, 100, 120)
    torch.manual_seed(0)
    drawn = [crop.make_params([image]) for _ in range(3000)]
    sizes = {(p["height"], p["width"]) for p in drawn}
    assert sizes == {(100, 100), (100, 75), (75, 100), (75, 75), (75, 50), (50, 75), (50, 50)}
    places = {(p["top"], p["left"]) for p in drawn if (p["height"], p["width"]) == (50, 75)}
    assert places == {(0, 0), (0, 45), (50, 0), (50, 45), (25, 22)}
    shares = np.unique([p["height"] * 1000 + p["width"] for p in drawn], return_counts=True)[1] / 3000
    assert np.abs(shares - 1 / 7).max() < 4 * math.sqrt(1 / 7 * 6 / 7 / 3000)


def test_a_multi_scale_crop_holds_the_pixels_of_its_place():
    ramp = torch.arange(64.0).view(1, 1, 64).expand(3, 64, 64)
    crop = MultiScaleCrop(32, scales=(0.5,))
    first_columns = {int(crop(ramp)[0, 0, 0]) for _ in range(60)}
    assert first_columns == {0, 32, 16}
    assert crop(tv_tensors.Image(ramp)).shape == (3, 32, 32)


def test_the_training_pipeline_draws_anew_for_each_image_and_ends_normalised():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8))
    torch.manual_seed(0)
    transform = train_transform(size=48, resize=64)
    out = torch.stack([transform(image) for _ in range(40)])
    assert out.shape == (40, 3, 48, 48) and out.dtype == torch.float32
    erased_share = (out == 0).all(1).float().mean((1, 2))
    assert 8 <= (erased_share > 0.01).sum() <= 32 and erased_share.max() < 0.45
    assert len({image.numpy().tobytes() for image in out}) == 40
    untouched = torch.stack([train_transform(size=48, resize=64, erase=False)(image) for _ in range(20)])
    assert not (untouched == 0).all(1).any()
    assert train_transform()(image).shape == (3, 448, 448)


def test_the_evaluation_pipeline_is_a_stretch_and_a_normalisation():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8))
    resized = np.array(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    expected = normalise(torch.from_numpy(resized)[None])[0]
    assert torch.allclose(eval_transform(32)(image), expected, atol=1e-5)


def test_images_may_be_on_another_device_than_the_generator():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device="meta")  # stands for any device that is not the CPU
    out = BatchAugment(shift=2, erase=0.5)(images, seeded())
    assert out.device.type == "meta" and out.shape == (4, 3, 8, 8) and out.dtype == torch.float32


def test_a_batch_of_crops_equals_cropping_and_resizing_each_image_alone():
    images = noise(64, 40, 40)
    augment = BatchAugment(flip=False, crop=24, **IDENTITY)
    out = augment(images, seeded(3))
    assert out.shape == (64, 3, 24, 24)
    sides = {int(scale * 40) for scale in augment.crops.scales}
    windows = [
        (top, left, height, width)
        for height in sides
        for width in sides
        for top in {0, 40 - height, (40 - height) // 2}
        for left in {0, 40 - width, (40 - width) // 2}
    ]
    same_by_image = [[] for _ in images]
    for window in windows:
        top, left, height, width = window
        cut = images[:, :, top : top + height, left : left + width] / 255
        alone = torch.nn.functional.interpolate(cut, (24, 24), mode="bilinear", antialias=True)
        equal = torch.isclose(alone, out, atol=1.1 / 255).flatten(1).all(1)  # bytes are rounded
        for image in equal.nonzero()[:, 0].tolist():
            same_by_image[image].append(window)
    drawn = []
    for same in same_by_image:
        assert len(same) == 1
        drawn += same
    pairs = {(height, width) for _, _, height, width in drawn}
    allowed = {(int(h * 40), int(w * 40)) for h, w in augment.crops.pairs}
    assert pairs <= allowed and len(pairs) > 8, "sides at most two steps of the list apart, many of them drawn"
    assert len(set(drawn)) > 20


class OnGPU(torch.Tensor):
    """Images that lie on a CPU and say that they are on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


@pytest.mark.parametrize("dtype, step", [(torch.uint8, 1.1 / 255), (torch.float32, 1e-5)])
def test_crops_of_bytes_on_a_cpu_are_those_of_floats_that_a_gpu_resizes(dtype, step):
    images = noise(64, 50, 40) if dtype == torch.uint8 else noise(64, 50, 40) / 255
    augment, calls = BatchAugment(crop=24), []
    usual = augment._resized
    augment._resized = lambda *parts: calls.append((parts, usual(*parts))) or calls[-1][1]
    augment(images, seeded(3))
    ((moved, plan), on_cpu) = calls[0]
    assert moved.dtype == on_cpu.dtype == dtype
    on_gpu = usual(moved.as_subclass(OnGPU), plan).as_subclass(torch.Tensor)
    assert on_gpu.dtype == torch.float32
    unit = 255 if dtype == torch.uint8 else 1
    torch.testing.assert_close(on_cpu.float() / unit, on_gpu, atol=step, rtol=0)


@pytest.mark.parametrize("options", [{"erase": 0.5}, {"shift": 3, "erase": 0.5}, {"crop": 16, "erase": 0.5}])
def test_portions_of_a_batch_give_what_the_whole_batch_gives(options, monkeypatch):
    images, augment = noise(40, 20, 20), BatchAugment(**options)  # enough portions for three threads
    whole = augment(images, seeded(4))
    monkeypatch.setattr(transforms, "IN_CACHE", 3 * 3 * 20 * 20)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(augment(images, seeded(4)), whole) and torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cached", [3 * 3 * 20 * 20, 2**20], ids=["in portions", "whole"])
@pytest.mark.parametrize(
    "options", [{}, {"erase": 0.5}, {"shift": 3, "erase": 0.5}, {"crop": 16, "erase": 0.5}, {"flip": False, "crop": 29}]
)
def test_the_order_in_memory_changes_no_bit(options, cached, monkeypatch):
    monkeypatch.setattr(transforms, "IN_CACHE", cached)
    images, augment = noise(10, 20, 20), BatchAugment(**options)
    by_pixel = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(by_pixel, seeded(4)), augment(images, seeded(4))) and torch.equal(by_pixel, images)
    assert torch.equal(normalise(by_pixel), normalise(images)) and torch.equal(
        normalise(by_pixel / 255), normalise(images / 255)
    )
    assert normalise(by_pixel).is_contiguous(memory_format=torch.channels_last)


def test_large_batches_start_where_memory_of_torch_starts():
    out = transforms._empty(3, 3, 17, 19)
    assert out.shape == (3, 3, 17, 19) and out.dtype == torch.float32
    assert out.data_ptr() % 64 == 0 and out.is_contiguous(memory_format=torch.channels_last)


def test_flips_alone_mirror_just_the_images_that_are_drawn():
    images = noise(200, 6, 5)
    out = BatchAugment(**IDENTITY)(images, seeded(2))
    mirrored = torch.tensor([torch.allclose(a, b.flip(2) / 255) for a, b in zip(out, images)])
    kept = torch.tensor([torch.allclose(a, b / 255) for a, b in zip(out, images)])
    assert torch.equal(mirrored, ~kept) and 70 < mirrored.sum() < 130
    assert torch.equal(images, noise(200, 6, 5)), "the images themselves stay as they were"


def test_crops_draw_after_everything_else_and_are_checked():
    images = noise(8, 20, 20)
    plain, cropped = seeded(1), seeded(1)
    BatchAugment(flip=True, erase=0.5, **IDENTITY)(images, plain)
    BatchAugment(flip=True, erase=0.5, crop=16, **IDENTITY)(images, cropped)
    torch.rand(2, 8, generator=plain)
    assert torch.equal(plain.get_state(), cropped.get_state())
    with pytest.raises(ValueError, match="crop is -1: expected the side"):
        BatchAugment(crop=-1)


def test_normalise_resizes_what_has_another_size_only():
    images = noise(3, 16, 16)
    assert torch.equal(normalise(images, size=16), normalise(images))
    small = torch.nn.functional.interpolate(images.float(), (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(normalise(images, size=8), normalise(small / 255))


@pytest.mark.parametrize("options", [{}, {"crop": 8, "erase": 0.5, "shift": 2}])
def test_processes_augment_their_shares_as_one_does_the_whole(options):
    images, augment = noise(6, 12, 12), BatchAugment(**options)
    whole = augment(images, seeded(5))
    for rank in range(3):
        assert torch.equal(augment(images[rank::3], seeded(5), (rank, 3)), whole[rank::3])
