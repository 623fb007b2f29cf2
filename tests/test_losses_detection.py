"""Losses of weakly-supervised detection against literal loops over images, regions and classes."""

import math

import pytest
import torch

from udlib.losses import ova_loss
from udlib.methods.detection.losses import (
    detection_logits,
    log_region_scores,
    prediction_transfer_loss,
    region_feature_loss,
    region_probabilities,
    segment_logsumexp,
)

IMAGE = torch.tensor([0, 0, 0, 1, 2, 2])  # three images with 3, 1 and 2 regions
CLASSES = 4


def scores(seed, size=3.0):
    draw = torch.Generator().manual_seed(seed)
    return size * torch.randn(len(IMAGE), CLASSES, generator=draw, dtype=torch.float64)


def loop(c, d, sharpen):
    """p (B, C) of the definition, region by region, and what each region adds."""
    p, added = torch.zeros(3, CLASSES, dtype=torch.float64), torch.zeros_like(c)
    for r, b in enumerate(IMAGE.tolist()):
        for k in range(CLASSES):
            over_classes = math.exp(sharpen * c[r, k]) / sum(math.exp(sharpen * c[r, j]) for j in range(CLASSES))
            mine = [s for s, other in enumerate(IMAGE.tolist()) if other == b]
            over_regions = math.exp(sharpen * d[r, k]) / sum(math.exp(sharpen * d[s, k]) for s in mine)
            added[r, k] = over_classes * over_regions
            p[b, k] += added[r, k]
    return p, added


@pytest.mark.parametrize("sharpen", [1.0, 2.0])
def test_the_probability_of_an_image_is_the_sum_over_its_regions_however_many_it_has(sharpen):
    c, d = scores(0), scores(1)
    p, added = loop(c, d, sharpen)
    torch.testing.assert_close(torch.sigmoid(detection_logits(c, d, IMAGE, 3, sharpen)), p)
    torch.testing.assert_close(region_probabilities(c, d, IMAGE, 3, sharpen), added)
    torch.testing.assert_close(region_probabilities(c.float(), d.float(), IMAGE, 3, sharpen), added.float())


def test_the_order_of_the_regions_does_not_matter_nor_that_images_stand_together():
    c, d, order = scores(0), scores(1), torch.tensor([4, 0, 3, 2, 5, 1])
    torch.testing.assert_close(detection_logits(c[order], d[order], IMAGE[order], 3), detection_logits(c, d, IMAGE, 3))


def test_bce_of_the_logits_is_the_bce_of_p_written_out():
    c, d = scores(0), scores(1)
    p, _ = loop(c, d, 1.0)
    y = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    expected = (
        -sum(math.log(p[b, k]) if y[b, k] else math.log(1 - p[b, k]) for b in range(3) for k in range(CLASSES)) / 3
    )
    assert ova_loss(detection_logits(c, d, IMAGE, 3), y).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 30.0, 1e4])
def test_logits_and_gradients_are_finite_for_scores_of_any_size(dtype, size):
    c, d = (scores(seed, size).to(dtype).requires_grad_() for seed in (0, 1))
    z = detection_logits(c, d, IMAGE, 3)
    assert z.dtype == torch.float32 and z.isfinite().all() and z.max() < 17
    ova_loss(z, torch.ones(3, CLASSES)).backward()
    assert c.grad.isfinite().all() and d.grad.isfinite().all()


def test_a_label_that_is_nearly_excluded_still_has_a_gradient():
    c = torch.tensor([[30.0, 0.0, 0.0, 0.0]], requires_grad=True)
    ova_loss(detection_logits(c, torch.zeros(1, 4), torch.tensor([0]), 1), torch.tensor([[1, 1, 0, 0]])).backward()
    assert c.grad[0, 1] < -0.5, "p_1 is about e^-30, which a clamp at 1e-6 would have cut off"


def test_the_gradient_is_that_of_finite_differences():
    c, d = scores(0).requires_grad_(), scores(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, d: detection_logits(c, d, IMAGE, 3, 2.0), (c, d))


def test_sums_of_segments_are_those_of_torch():
    values, found = scores(2), segment_logsumexp(scores(2), IMAGE, 3)
    for b in range(3):
        torch.testing.assert_close(found[b], values[IMAGE == b].logsumexp(0))


def test_features_are_compared_region_by_region_and_each_image_weighs_the_same():
    teacher, student = scores(0), scores(1).requires_grad_()
    expected = 0.0
    for b in range(3):
        mine = [r for r, other in enumerate(IMAGE.tolist()) if other == b]
        expected += sum(((teacher[r] - student[r]) ** 2).sum().item() for r in mine) / len(mine) / (2 * 3)
    found = region_feature_loss(teacher, student, IMAGE, 3)
    assert found.item() == pytest.approx(expected)
    # with as many regions in each image: 1/(2BR) of the sum over all of them
    even = torch.tensor([0, 0, 1, 1, 2, 2])
    assert region_feature_loss(teacher, student, even, 3).item() == pytest.approx(
        (teacher - student).square().sum().item() / (2 * 3 * 2)
    )
    teacher.requires_grad_()
    region_feature_loss(teacher, student, IMAGE, 3).backward()
    assert teacher.grad is None and student.grad.any()


@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_of_stage_2_is_both_sums_written_out(masked):
    draw = torch.Generator().manual_seed(0)
    z, t = (2 * torch.randn(5, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    a = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    y = (torch.rand(5, 3, generator=draw) < 0.4).double()
    ignore = torch.rand(5, 3, generator=draw) < 0.3 if masked else None
    labels = predictions = 0.0
    for n in range(5):
        for k in range(3):
            if masked and ignore[n, k]:
                continue
            f, g, q = (1 / (1 + math.exp(-v)) for v in (z[n, k], a[k] * z[n, k], t[n, k]))
            labels -= (y[n, k] * math.log(f) + (1 - y[n, k]) * math.log(1 - f)) / 5
            predictions -= (q * math.log(g) + (1 - q) * math.log(1 - g)) / 5
    found = prediction_transfer_loss(z, a * z, y, t, ignore)
    assert found["labels"].item() == pytest.approx(float(labels))
    assert found["predictions"].item() == pytest.approx(float(predictions))
    assert found["total"].item() == pytest.approx(float(labels + predictions))


def test_no_gradient_reaches_the_teachers_predictions():
    z, t = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    prediction_transfer_loss(z, 0.2 * z, torch.ones(2, 3), t)["total"].backward()
    assert t.grad is None and z.grad.any()


@pytest.mark.parametrize(
    "image, images, message",
    [
        (IMAGE, 4, "image 3 of the batch has no region: give each at least one"),
        (torch.tensor([0, 0, 0, 2, 2, 2]), 3, "image 1 of the batch has no region"),
        (IMAGE, 2, "segment holds 2: expected 0 to 1"),
        (IMAGE[:5], 3, r"values have shape \(6, 4\) and segment \(5,\)"),
    ],
)
def test_an_image_without_regions_is_refused(image, images, message):
    with pytest.raises(ValueError, match=message):
        detection_logits(scores(0), scores(1), image, images)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: log_region_scores(scores(0), scores(1)[:, :3], IMAGE, 3),
            r"class_scores have shape \(6, 4\) and region_scores \(6, 3\)",
        ),
        (
            lambda: log_region_scores(scores(0)[:, :1], scores(1)[:, :1], IMAGE, 3),
            "there is 1 class: a softmax over classes needs at least 2",
        ),
        (lambda: log_region_scores(scores(0), scores(1), IMAGE, 3, 0.0), "sharpen is 0.0: expected a number above 0"),
        (lambda: log_region_scores(scores(0), scores(1), IMAGE, 3, math.nan), "sharpen is nan"),
        (
            lambda: region_feature_loss(scores(0), scores(1)[:, :2], IMAGE, 3),
            r"teacher has shape \(6, 4\), student \(6, 2\)",
        ),
        (lambda: region_feature_loss(scores(0), scores(1), IMAGE[:2], 3), r"image \(2,\)"),
        (
            lambda: prediction_transfer_loss(
                torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4)
            ),
            r"teacher_logits have shape \(2, 4\) and logits \(2, 3\)",
        ),
        (
            lambda: prediction_transfer_loss(
                torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(2, 3), torch.zeros(2, 3)
            ),
            r"scaled_logits have shape \(1, 3\)",
        ),
        (
            lambda: prediction_transfer_loss(
                torch.zeros(2, 3), torch.zeros(2, 3), torch.full((2, 3), 2), torch.zeros(2, 3)
            ),
            r"targets hold 2 at \[0, 0\]",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
