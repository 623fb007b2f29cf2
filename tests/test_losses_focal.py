"""Facts about the focal loss, against torchvision's, a loop, and a derivative worked out by hand."""

import math

import pytest
import torch
from test_losses import batch, mask
from torchvision.ops import sigmoid_focal_loss

from udlib import losses

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


def literal_focal(z, y, gamma):
    """One image: −Σ (1 − p_t)^γ log p_t."""
    total = 0.0
    for z_i, y_i in zip(z, y):
        p = 1 / (1 + math.exp(-z_i))
        p_t = p if y_i else 1 - p
        total -= (1 - p_t) ** gamma * math.log(p_t)
    return total


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("ignore", [None, mask()])
def test_the_focal_loss_is_its_loop_over_the_kept_labels(gamma, ignore):
    logits, targets = batch()
    left_out = torch.zeros_like(targets, dtype=torch.bool) if ignore is None else ignore
    expected = [literal_focal(z[~m].tolist(), y[~m].tolist(), gamma) for z, y, m in zip(logits, targets, left_out)]
    per_image = losses.focal_loss(logits, targets, gamma, ignore, "none")
    torch.testing.assert_close(per_image, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(losses.focal_loss(logits, targets, gamma, ignore), per_image.mean())


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
def test_value_and_gradient_are_torchvisions(gamma):
    logits, targets = batch()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = losses.focal_loss(ours, targets, gamma)
    reference = sigmoid_focal_loss(theirs, targets.double(), alpha=-1, gamma=gamma).sum(1).mean()
    loss.backward(), reference.backward()
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_gradient_flows_through_the_focusing_weight():
    z = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    losses.focal_loss(z, torch.ones(1, 1)).backward()
    p = 1 / (1 + math.exp(-0.7))
    # d/dz of −(1 − p)² log p, with dp/dz = p (1 − p)
    assert z.grad.item() == pytest.approx(2 * (1 - p) * math.log(p) * p * (1 - p) - (1 - p) ** 3)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_its_gradient_matches_finite_differences(gamma):
    logits, targets = batch()
    assert torch.autograd.gradcheck(lambda z: losses.focal_loss(z, targets, gamma, mask()), logits.requires_grad_())


def test_without_focus_it_equals_ova_to_the_last_bit():
    for dtype, spread in [(torch.float32, 3.0), (torch.float64, 3.0), (torch.float32, 1e4)]:
        logits, targets = batch(dtype=dtype, spread=spread)
        one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        focal, ova = losses.focal_loss(one, targets, 0.0, mask()), losses.ova_loss(other, targets, mask())
        focal.backward(), ova.backward()
        assert torch.equal(focal, ova) and torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype, size", [(torch.float32, 1e4), (torch.float16, 6e4), (torch.bfloat16, 1e4)])
def test_extreme_logits_give_a_finite_loss_and_gradient(gamma, dtype, size):
    logits = torch.tensor([[1, -1, 1, -1]], dtype=dtype) * size
    for targets in ([1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]):
        z = logits.clone().requires_grad_()
        with torch.autograd.set_detect_anomaly(True):
            loss = losses.focal_loss(z, torch.tensor([targets]), gamma)
            loss.backward()
        assert loss.dtype == torch.float32 and loss.isfinite() and z.grad.isfinite().all()
        wrong = sum((value > 0) != bool(y) for value, y in zip(logits[0].tolist(), targets))
        assert loss.item() == pytest.approx(wrong * abs(logits[0, 0].item())), (
            "wrong by far: focus 1, and −log p_t = |z|"
        )


def test_ignored_labels_may_hold_anything_and_get_no_gradient():
    logits, targets = batch()
    z = logits.masked_fill(mask(), math.nan).requires_grad_()
    loss = losses.focal_loss(z, targets, ignore=mask())
    loss.backward()
    assert torch.equal(loss, losses.focal_loss(logits, targets, ignore=mask()))
    assert (z.grad[mask()] == 0).all() and (z.grad[~mask()] != 0).all()


def test_its_usual_gamma_is_two():
    assert torch.equal(losses.focal_loss(*batch()), losses.focal_loss(*batch(), gamma=2.0))


@pytest.mark.parametrize("gamma", [-0.5, math.inf, math.nan])
def test_a_gamma_that_is_negative_or_not_finite_is_refused(gamma):
    with pytest.raises(ValueError, match=f"gamma is {gamma}: expected at least 0, and finite"):
        losses.focal_loss(*batch(), gamma=gamma)


def test_bad_input_is_refused_as_by_its_siblings():
    logits, targets = batch()
    with pytest.raises(ValueError, match="reduction is sum: expected 'mean' or 'none'"):
        losses.focal_loss(logits, targets, reduction="sum")
    with pytest.raises(ValueError, match="targets hold 2"):
        losses.focal_loss(logits, targets + 1)
    with pytest.raises(TypeError, match="logits"):
        losses.focal_loss(targets, targets)
