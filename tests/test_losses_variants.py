"""Variants of the losses of a student: maps of unit L2 norm, and Eq. 13 summed over the classes."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_losses import batch, mask
from torch.autograd import gradcheck

from udlib import losses


def maps(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_distance(teacher, student, **options):
    return losses.attention_loss(teacher, student, normalize="l2", reduction="none", **options)


def test_unit_maps_are_compared_as_their_loop_says():
    teacher, student = maps(1, 3, 4, 5), maps(2, 3, 4, 5)
    paper, released = [], []
    for t, s in zip(teacher.flatten(1).tolist(), student.flatten(1).tolist()):
        size_t, size_s = math.sqrt(sum(x * x for x in t)), math.sqrt(sum(x * x for x in s))
        squares = sum((x / size_t - y / size_s) ** 2 for x, y in zip(t, s))
        paper.append(math.sqrt(squares)), released.append(squares / 20)
    torch.testing.assert_close(unit_distance(teacher, student), torch.tensor(paper, dtype=torch.float64))
    found = unit_distance(teacher, student, scale="released")
    torch.testing.assert_close(found, torch.tensor(released, dtype=torch.float64))


@pytest.mark.parametrize("scale", ["paper", "released"])
def test_their_gradient_matches_finite_differences(scale):
    student = maps(2, 2, 3, 2).requires_grad_()
    assert gradcheck(lambda m: losses.attention_loss(maps(1, 2, 5, 4), m, "l2", scale=scale), student)


def test_the_distance_of_unit_maps_is_0_for_multiples_root_2_for_orthogonal_ones_and_2_for_opposites():
    a, b = torch.tensor([[[3.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[0.0, 0.0], [-7.0, 0.0]]])
    assert unit_distance(a, 5 * a).item() == 0
    assert unit_distance(a, b).item() == pytest.approx(math.sqrt(2))
    assert unit_distance(a, -0.1 * a).item() == pytest.approx(2)
    many = unit_distance(maps(1, 500, 2, 2), maps(2, 500, 2, 2))
    assert 0 <= many.min() < 0.3 and 1.9 < many.max() <= 2


def test_the_teachers_map_is_resized_before_it_is_scaled():
    teacher = maps(1, 2, 4, 4)
    halved = teacher.view(2, 2, 2, 2, 2).mean((2, 4))  # halving bilinearly averages blocks of four
    torch.testing.assert_close(unit_distance(teacher, 3 * halved), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_map_of_zeros_stays_so_at_distance_1_and_gets_no_gradient(dtype):
    student = torch.zeros(2, 3, 3, dtype=dtype)
    student[1, 0, 0] = 2.0
    student.requires_grad_()
    teacher = torch.ones(2, 3, 3, dtype=dtype)
    with torch.autograd.set_detect_anomaly(True):
        distance = unit_distance(teacher, student)
        distance.sum().backward()
    assert distance[0].item() == pytest.approx(1) and distance[1].item() == pytest.approx(math.sqrt(2 - 2 / 3))
    assert not student.grad[0].any() and student.grad[1].any() and student.grad.isfinite().all()
    assert unit_distance(torch.zeros_like(teacher), torch.zeros_like(teacher)).tolist() == [0, 0]


@pytest.mark.parametrize("size", [1e-30, 1e-37, 1e30])
def test_tiny_and_huge_maps_are_scaled_without_loss(size):
    a, b = maps(1, 4, 3, 3).float(), maps(2, 4, 3, 3).float()
    student = (size * b).requires_grad_()
    found = unit_distance(size * a, student)
    torch.testing.assert_close(found, unit_distance(a, b))
    found.sum().backward()
    reference = b.clone().requires_grad_()
    unit_distance(a, reference).sum().backward()
    torch.testing.assert_close(student.grad * size, reference.grad)


def test_a_map_below_the_smallest_normal_number_counts_as_zeros():
    student = torch.full((1, 2, 2), 1e-40, requires_grad=True)
    distance = unit_distance(torch.ones(1, 2, 2), student)
    distance.sum().backward()
    assert distance.item() == pytest.approx(1) and not student.grad.any()


@pytest.mark.parametrize("normalize", ["L2", "l1", "", None, 2, "True"])
def test_an_unknown_normalisation_is_refused(normalize):
    with pytest.raises(ValueError, match=f"normalize is {normalize}: expected False, True or 'l2'"):
        losses.attention_loss(maps(1, 1, 2, 2), maps(2, 1, 2, 2), normalize=normalize)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_summed_over_classes_the_bernoulli_divergence_is_c_times_its_mean(temperature):
    (t, _), (s, _) = batch(1), batch(2)
    summed = losses.bernoulli_kl(t, s, temperature, over_classes="sum")
    torch.testing.assert_close(summed, t.shape[1] * losses.bernoulli_kl(t, s, temperature))
    assert torch.equal(losses.bernoulli_kl(t, s, over_classes="mean"), losses.bernoulli_kl(t, s))


def test_the_sum_runs_over_the_kept_classes_of_each_image():
    (t, _), (s, _), left_out = batch(1), batch(2), mask()
    summed = losses.bernoulli_kl(t, s, 1.0, left_out, "none", "sum")
    averaged = losses.bernoulli_kl(t, s, 1.0, left_out, "none")
    torch.testing.assert_close(summed, averaged * (~left_out).sum(1))
    assert summed[-1] == 0 and (~left_out).sum(1).unique().numel() > 2


def test_against_a_teacher_that_is_certain_the_summed_divergence_is_ova():
    logits, targets = batch()
    certain = torch.where(targets == 1, 1e4, -1e4).double()
    torch.testing.assert_close(
        losses.bernoulli_kl(certain, logits, over_classes="sum"), losses.ova_loss(logits, targets)
    )


def test_an_unknown_way_over_the_classes_is_refused():
    with pytest.raises(ValueError, match="over_classes is none: expected 'mean' or 'sum'"):
        losses.bernoulli_kl(batch(1)[0], batch(2)[0], over_classes="none")


def outputs(seed):
    return SimpleNamespace(logits=batch(seed)[0], calibration_logits=batch(seed + 100)[0])


@pytest.mark.parametrize("scale, half", [("paper", 1.0), ("released", 0.5)])
def test_uncertainty_distillation_hands_both_variants_on(scale, half):
    teacher, student, left_out = outputs(1), outputs(2), mask()
    teacher_map, student_map = maps(1, 6, 4, 4), maps(2, 6, 2, 2)
    terms = losses.uncertainty_distillation_loss(
        teacher, student, 0.3, 0.2, teacher_map, student_map, 2.0, left_out, "l2", scale, "sum"
    )
    summed = half * losses.bernoulli_kl(teacher.logits, student.logits, 2.0, left_out, over_classes="sum")
    calibration = losses.softmax_kl(teacher.calibration_logits, student.calibration_logits, 2.0, left_out)
    distance = losses.attention_loss(teacher_map, student_map, "l2", scale=scale)
    expected = {
        "total": half * (summed + 0.3 * calibration) + 0.2 * distance,
        "classification": summed,
        "calibration": calibration,
        "attention": distance,
    }
    torch.testing.assert_close(terms, expected)


def test_the_usual_way_over_the_classes_is_the_mean_as_printed():
    usual = losses.uncertainty_distillation_loss(outputs(1), outputs(2), beta=0)
    printed = losses.uncertainty_distillation_loss(outputs(1), outputs(2), beta=0, over_classes="mean")
    assert torch.equal(usual["total"], printed["total"])
