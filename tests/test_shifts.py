"""Images as they come when something has changed since training, against literal re-implementations."""

import math

import pytest
import torch

from udlib.datasets import shifts
from udlib.datasets.shifts import SHIFTS, STRENGTHS, shifted


def noise(n=6, side=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("strength, std", [(1, 0.05), (2, 0.1), (3, 0.2)])
def test_noise_has_the_stated_deviation_and_mean_0(strength, std):
    grey = torch.full((20, 3, 64, 64), 128, dtype=torch.uint8)
    difference = (shifted(grey, "noise", strength).double() - 128) / 255
    # Values beyond 0 and 1 are cut off: 2.5 deviations away at the last strength.
    assert difference.std().item() == pytest.approx(std, rel=0.03 if strength == 3 else 0.01)
    assert abs(difference.mean()) < 5 * std / math.sqrt(difference.numel()) + 1e-3
    assert difference.mean(0).std() < 1.2 * std / math.sqrt(20), "each image has noise of its own"


def test_the_noise_of_an_image_is_the_same_in_each_call_and_however_many_images_follow():
    images = noise(40)
    whole = shifted(images, "noise", 2)
    assert torch.equal(whole, shifted(images, "noise", 2))
    assert torch.equal(whole[:7], shifted(images[:7], "noise", 2))
    torch.rand(5)
    assert torch.equal(whole, shifted(images, "noise", 2)), "no global generator takes part"


@pytest.mark.parametrize("strength, share", [(1, 0.5), (2, 0.25), (3, 0.125)])
def test_low_light_leaves_a_half_a_quarter_or_an_eighth(strength, share):
    images = noise()
    assert torch.equal(shifted(images, "low-light", strength).double(), (images.double() * share).round())


@pytest.mark.parametrize("strength, sigma", [(1, 0.006), (2, 0.0125), (3, 0.025)])
def test_blur_is_a_gaussian_of_the_stated_share_of_the_side(strength, sigma):
    """A white half: the edge becomes the sum of the Gaussian's weights up to each pixel."""
    side = 200
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    images[..., side // 2 :] = 255
    radius = round(3 * sigma * side)
    weights = [math.exp(-(x**2) / (2 * (sigma * side) ** 2)) for x in range(-radius, radius + 1)]
    row = shifted(images, "blur", strength)[0, 0, side // 2].tolist()
    for column in range(side // 2 - radius, side // 2 + radius):
        inside = [w for x, w in zip(range(-radius, radius + 1), weights) if column + x >= side // 2]
        assert row[column] == pytest.approx(255 * sum(inside) / sum(weights), abs=0.6)
    assert row[: side // 2 - radius - 1] == [0] * (side // 2 - radius - 1)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_blur_keeps_a_constant_image(strength):
    grey = torch.full((2, 3, 40, 40), 77, dtype=torch.uint8)
    assert torch.equal(shifted(grey, "blur", strength), grey)


@pytest.mark.parametrize("shift", SHIFTS)
def test_images_come_in_their_order_from_several_portions_and_the_input_stays(shift, monkeypatch):
    images = noise(10)
    before = images.clone()
    alone = torch.cat([shifted(image[None], shift, 1) for image in images])
    monkeypatch.setattr(shifts, "TOGETHER", 3)
    result = shifted(images, shift, 1)
    assert torch.equal(images, before) and result.dtype == torch.uint8 and result.shape == images.shape
    if shift != "noise":  # whose values depend on the place in the portion
        assert torch.equal(result, alone)
    else:
        parts = [shifts._shifted(images[k : k + 3], shift, 0, k) for k in range(0, 10, 3)]
        assert torch.equal(result, torch.cat(parts)) and not torch.equal(parts[0], parts[1])


def test_the_layout_in_memory_stays():
    images = noise().contiguous(memory_format=torch.channels_last)
    for shift in SHIFTS:
        result = shifted(images, shift, 2)
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(result, shifted(images.contiguous(), shift, 2))


@pytest.mark.parametrize(
    "images, shift, strength, complaint",
    [
        (noise(), "fog", 1, "shift is 'fog': choose one of blur, noise, low-light"),
        (noise(), "blur", 0, "strength is 0: choose 1, 2 or 3"),
        (noise(), "blur", 4, "strength is 4"),
        (noise() / 255, "blur", 1, r"images are torch.float32 \(6, 3, 32, 32\): expected torch.uint8"),
        (noise()[0], "blur", 1, r"torch.uint8 \(3, 32, 32\)"),
    ],
)
def test_what_cannot_be_shifted_is_refused(images, shift, strength, complaint):
    with pytest.raises(ValueError, match=complaint):
        shifted(images, shift, strength)
