"""A teacher sees the same region, flip and erased rectangle as its student, at its own size and normalisation."""

import dataclasses
from dataclasses import asdict

import pytest
import torch
from striped_images import QUICK, striped_images
from torch.nn import functional as F

from udlib.backbones import backbone
from udlib.datasets.transforms import BatchAugment, normalise
from udlib.heads import DualBranchNet
from udlib.methods import recipe
from udlib.methods.distillation import Distillation, Settings
from udlib.methods.teachers import images_for, renormalised, stored_where_few
from udlib.normalisation import IMAGENET_MEAN, IMAGENET_STD, SYMMETRIC_MEAN, SYMMETRIC_STD
from udlib.training import fit
from udlib.training.batches import Batch, View
from udlib.workshop import train

CROPS = dataclasses.replace(QUICK, epochs=2, batch_size=16, shift=0, crop=12, erase=0.5)
SMALL = {"network": "small_narrow", "embedding": 8, **asdict(CROPS)}
IDENTITY = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def noise(n=8, side=20, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=draw)


def network(name="small_narrow", seed=0):
    torch.manual_seed(seed)
    return DualBranchNet(backbone(name), 3, embedding=8).eval()


def images_of_each_step(student, monkeypatch, **options):
    """What a network sees in training, step by step."""
    seen, usual = [], DualBranchNet.forward

    def forward(self, images, calibration=True):
        if self.training:
            seen.append(images.detach().clone())
        return usual(self, images, calibration)

    with monkeypatch.context() as patch:
        patch.setattr(DualBranchNet, "forward", forward)
        train(student, striped_images(32, size=20), **options)
    return seen


def test_a_students_pixels_are_the_same_with_a_larger_teacher_a_small_one_or_none(monkeypatch):
    views = [
        images_of_each_step(recipe(**SMALL), monkeypatch),
        images_of_each_step(
            recipe("distillation", **SMALL, teacher_size=16), monkeypatch, teachers={"teacher": network(seed=1)}
        ),
        images_of_each_step(recipe("distillation", **SMALL), monkeypatch, teachers={"teacher": network(seed=1)}),
    ]
    assert len(views[0]) == 4 and all((image == 0).all(1).any() for image in views[0]), "something is erased"
    for other in views[1:]:
        assert len(other) == 4 and all(torch.equal(a, b) for a, b in zip(views[0], other))


def test_a_batch_made_again_at_its_own_size_is_the_same_bit_for_bit():
    for images in (noise(), noise(40, 60)):
        augment = BatchAugment(erase=0.7, crop=12)
        batch = augment(images, torch.Generator().manual_seed(3))
        assert torch.equal(augment.again(images, 12, IMAGENET_MEAN, IMAGENET_STD), batch)
        assert torch.equal(augment.again(images, 12, IMAGENET_MEAN, IMAGENET_STD), batch), "as often as one likes"


def test_at_twice_the_size_it_is_the_same_window_mirrored_and_erased_alike():
    images, augment = noise(60), BatchAugment(erase=0.5, crop=12)
    augment(images, torch.Generator().manual_seed(5))
    first, length = augment.plan.windows
    erased, corner, sides = augment.plan.rectangles
    mirrored = augment.mirrored
    assert 0 < mirrored.sum() < 60 and 0 < erased.sum() < 60
    large = augment.again(images, 24, *IDENTITY)
    assert large.shape == (60, 3, 24, 24)
    for k, image in enumerate(images):
        image = image.flip(2) if mirrored[k] else image
        (top, left), (height, width) = first[k].tolist(), length[k].tolist()
        window = image[None, :, top : top + height, left : left + width]
        expected = F.interpolate(window / 255, (24, 24), mode="bilinear", antialias=True)[0]
        if erased[k]:
            (y, x), (tall, wide) = corner[k].long().tolist(), sides[k].long().tolist()
            expected[:, 2 * y : 2 * (y + tall), 2 * x : 2 * (x + wide)] = 0
        torch.testing.assert_close(large[k], expected, atol=1.1 / 255, rtol=0)  # bytes are rounded


def test_what_was_not_cropped_cannot_be_made_again():
    augment = BatchAugment()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"there is no batch of crops to make again: train on crops \(crop=…\)"):
            augment.again(noise(), 24, *IDENTITY)
        augment(noise(), torch.Generator())


# The teacher's images


def batches_of(config, size=20):
    batches = []

    def loss(model, batch):
        batches.append((batch, batch.view.again, images_for(network("efficientnet_lite0"), batch, 0)))
        return {"total": model(batch.images).logits.square().mean()}

    fit(network().train(), striped_images(32, size=size), loss, config, max_steps=1)
    return batches[0]


@pytest.mark.parametrize("crop", [0, 12])
def test_a_teacher_of_another_normalisation_sees_the_same_pixels_as_it_would_normalise_them(crop):
    batch, _, images = batches_of(dataclasses.replace(CROPS, erase=0.0, crop=crop))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = batch.images * std + mean
    assert pixels.min() > -1e-6 and pixels.max() < 1 + 1e-6
    torch.testing.assert_close(images, (pixels - 0.5) / 0.5, atol=1e-5, rtol=0)
    if not crop:
        stored = striped_images(32, size=20).images[batch.index]
        moved = torch.where(batch.mirrored.view(-1, 1, 1, 1), stored.flip(3), stored)
        torch.testing.assert_close(images, normalise(moved, SYMMETRIC_MEAN, SYMMETRIC_STD), atol=1e-5, rtol=0)


def test_a_larger_teacher_of_another_normalisation_sees_what_its_own_augmentation_would_give():
    images, draw = noise(), torch.Generator().manual_seed(7)
    student = BatchAugment(erase=0.5, crop=12)
    pixels = student(images, draw)

    def again(size, mean, std):
        return student.again(images, size, mean, std)

    batch = Batch(pixels, torch.zeros(8, 3), None, torch.arange(8), view=View(student.mean, student.std, again))
    its_own = images_for(network("efficientnet_lite0"), batch, 24)
    torch.testing.assert_close(its_own, student.again(images, 24, SYMMETRIC_MEAN, SYMMETRIC_STD))
    assert images_for(network(), batch, 0) is pixels and images_for(network(), batch, 12) is pixels


def test_images_normalised_twice_are_those_normalised_once():
    images, one, other = noise(), (IMAGENET_MEAN, IMAGENET_STD), (SYMMETRIC_MEAN, SYMMETRIC_STD)
    torch.testing.assert_close(renormalised(normalise(images, *one), one, other), normalise(images, *other))


def test_answers_that_are_stored_beforehand_are_to_images_as_the_teacher_normalises_them():
    data, pixels = striped_images(8), []
    teacher = network("efficientnet_lite0")
    config = dataclasses.replace(QUICK, epochs=3, shift=0)

    def ask(batch):
        pixels.append(batch.images)
        from udlib.methods.teachers import TeacherAnswers

        return TeacherAnswers(torch.zeros(len(batch.index), 3), None, None)

    stored_where_few(ask, data, config, teacher)
    torch.testing.assert_close(pixels[0], normalise(data.images, SYMMETRIC_MEAN, SYMMETRIC_STD))
    torch.testing.assert_close(pixels[1], normalise(data.images.flip(3), SYMMETRIC_MEAN, SYMMETRIC_STD))


def test_images_that_nobody_can_make_again_are_refused_at_another_size_alone():
    batch = Batch(torch.zeros(2, 3, 12, 12), torch.zeros(2, 3), None, torch.arange(2))
    assert images_for(network(), batch, 12) is batch.images
    with pytest.raises(
        ValueError,
        match="the teacher sees 24 px and the batch has 12: only crops that the training loop makes from uint8 images",
    ):
        images_for(network(), batch, 24)


@pytest.mark.parametrize(
    "sizes, complaint",
    [
        ({"crop": 12, "teacher_size": 11}, "teacher_size is 11 and the student sees 12 px: expected at least as many"),
        ({"crop": 0, "teacher_size": 32}, r"no larger view of them exists: store larger .*--crop; in a recipe size=32"),
        ({"crop": 0, "teacher_size": 19}, "teacher_size is 19 and the student sees 20 px"),
    ],
)
def test_a_teacher_that_would_see_less_or_what_does_not_exist_is_refused_before_it_is_trained(sizes, complaint):
    student = recipe("distillation", **SMALL | {"size": 20} | sizes)
    with pytest.raises(ValueError, match=complaint):
        train(student, striped_images(32, size=20), on_teacher=lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match="teacher_size is -1: expected pixels, or 0 for the student's size"):
        Settings(teacher_size=-1)


def test_sizes_that_fit_pass_and_the_teacher_is_trained_on_crops_of_its_size():
    for sizes in ({}, {"teacher_size": 12}, {"teacher_size": 30}):
        student = recipe("distillation", **SMALL | {"size": 20}, **sizes)
        Distillation().check(student, striped_images(4, size=20))
        assert Distillation().needs(student)["teacher"].training.crop == sizes.get("teacher_size", 12)
    whole = recipe("distillation", **SMALL | {"crop": 0, "size": 20}, teacher_size=20)
    Distillation().check(whole, striped_images(4, size=20))
    assert Distillation().needs(whole)["teacher"].training.crop == 0
