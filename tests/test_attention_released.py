"""The map with the released code's weights, a softmax over the channels that is held constant; maps compared."""

import copy

import numpy as np
import pytest
import torch
from test_attention import POOLINGS, a_pass, make, pool
from torch.nn import functional as F

from udlib.attention import map_correlation, uncertainty_attention, uncertainty_attention_of
from udlib.backbones import backbone
from udlib.heads import DualBranchHead, DualBranchNet


def literal_weights(head, features, pooling):
    """Softmax over the channels of Σ_hw ∂KL/∂Z_chw, one image at a time, with the heads in evaluation mode."""
    head = copy.deepcopy(head).eval()
    weights = []
    for z in features.detach():
        z = z[None].clone().requires_grad_()
        logits, calibration_logits = head(pool(z, pooling))
        p, q = calibration_logits.softmax(1), logits.softmax(1)
        (slope,) = torch.autograd.grad((p * (p / q).log()).sum(), z)
        weights.append(slope.sum((2, 3))[0].softmax(0))
    return torch.stack(weights)


@POOLINGS
def test_the_released_map_is_the_softmax_weighted_sum_of_the_channels(pooling):
    head, features = make()
    w = literal_weights(head, features, pooling)
    expected = torch.stack([sum(w[n, c] * features[n, c] for c in range(6)) for n in range(3)])
    found = uncertainty_attention(head, features, pooling, weighting="released")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(w.sum(1), torch.ones(3, dtype=torch.float64))
    assert not torch.allclose(found, features.mean(1), rtol=0.01), "the weights of this head differ visibly"


@POOLINGS
@pytest.mark.parametrize("create_graph", [False, True])
def test_its_gradient_is_w_at_each_cell_whatever_create_graph_says_and_the_heads_get_none(pooling, create_graph):
    head, features = make()
    w = literal_weights(head, features, pooling)
    features.requires_grad_()
    pull = torch.randn(3, 3, 5, dtype=torch.float64)
    (uncertainty_attention(head, features, pooling, create_graph, "released") * pull).sum().backward()
    torch.testing.assert_close(features.grad, w[:, :, None, None] * pull[:, None])
    assert all(parameter.grad is None for parameter in head.parameters())


def test_the_map_of_a_student_in_training_leaves_mode_statistics_and_the_trained_pass_alone():
    torch.manual_seed(0)
    net = DualBranchNet(backbone("small_narrow"), 5, "max").train()
    images = torch.rand(4, 3, 32, 32)
    alone = copy.deepcopy(net)
    alone(images).logits.square().sum().backward()

    prediction = net(images)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    student_map = uncertainty_attention(net.head, prediction.features, net.pooling, weighting="released")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(part.training for part in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())

    prediction.logits.square().sum().backward(retain_graph=True)
    for one, other in zip(net.parameters(), alone.parameters()):
        assert (one.grad is None) == (other.grad is None) and (one.grad is None or torch.equal(one.grad, other.grad))
    net.zero_grad()
    student_map.square().sum().backward()
    assert all(parameter.grad.any() for parameter in net.backbone.parameters()), "the map trains the backbone"
    assert all(parameter.grad is None for parameter in net.head.parameters())


def test_each_image_has_weights_of_its_own_and_the_order_of_a_batch_does_not_matter():
    head, features = make(images=4)
    whole = uncertainty_attention(head, features, weighting="released")
    for n in range(4):
        one = uncertainty_attention(head, features[n : n + 1], weighting="released")
        torch.testing.assert_close(one[0], whole[n])


def test_branches_that_agree_leave_the_mean_activation():
    head, features = make()
    with torch.no_grad():
        head.calibration[3].weight.zero_()
        head.classification.weight.zero_()
        head.calibration[3].bias.copy_(head.classification.bias)
    torch.testing.assert_close(uncertainty_attention(head, features, weighting="released"), features.mean(1))


@POOLINGS
def test_of_a_pass_in_evaluation_mode_both_functions_agree_and_w_is_constant(pooling):
    head, features = make()
    head.eval()
    features.requires_grad_()
    found = uncertainty_attention_of(a_pass(head, features, pooling), weighting="released")
    torch.testing.assert_close(found, uncertainty_attention(head, features, pooling, weighting="released"))
    found.sum().backward()
    torch.testing.assert_close(
        features.grad, literal_weights(head, features, pooling)[:, :, None, None].expand_as(features)
    )
    assert all(parameter.grad is None for parameter in head.parameters())


def test_of_a_pass_in_training_mode_w_is_the_softmax_of_the_slope_with_the_batchs_statistics():
    head, features = make()
    features.requires_grad_()
    prediction = a_pass(copy.deepcopy(head), features)
    found = uncertainty_attention_of(prediction, weighting="released")
    again = a_pass(head, features)
    divergence = F.kl_div(again.logits.log_softmax(1), again.calibration_logits.softmax(1), reduction="sum")
    (slope,) = torch.autograd.grad(divergence, features)
    w = slope.sum((2, 3)).softmax(1)
    torch.testing.assert_close(found, (w[:, :, None, None] * features).sum(1))
    assert not torch.allclose(found, uncertainty_attention(head, features, weighting="released"), rtol=1e-3)


def test_the_usual_weighting_is_the_gradient():
    head, features = make()
    usual = uncertainty_attention(head, features)
    assert torch.equal(usual, uncertainty_attention(head, features, weighting="gradient"))
    assert not torch.allclose(usual, uncertainty_attention(head, features, weighting="released"))
    prediction = a_pass(head.eval(), features.requires_grad_())
    torch.testing.assert_close(
        uncertainty_attention_of(prediction), uncertainty_attention_of(prediction, weighting="gradient")
    )


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_teacher_in_no_grad_or_inference_mode_gets_the_same_released_map(context):
    head, features = make()
    expected = uncertainty_attention(head, features, weighting="released")
    with context():
        found = uncertainty_attention(head, features.clone(), weighting="released")
    torch.testing.assert_close(found.clone(), expected)


def test_half_precision_features_are_weighed_in_single_precision():
    head, features = make(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = uncertainty_attention(head, features.bfloat16(), weighting="released")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, uncertainty_attention(head, features.bfloat16().float(), weighting="released"))


def test_an_unknown_weighting_is_refused():
    head, features = make()
    with pytest.raises(ValueError, match="weighting is 'softmax': expected 'gradient' or 'released'"):
        uncertainty_attention(head, features, weighting="softmax")
    with pytest.raises(ValueError, match="weighting is 'softmax': expected 'gradient' or 'released'"):
        uncertainty_attention_of(a_pass(head, features), weighting="softmax")
    without = DualBranchHead(6, 4, calibration=False).double()
    with pytest.raises(ValueError, match="no calibration branch"):
        uncertainty_attention(without, features, weighting="released")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_correlation_of_maps_is_numpys(dtype):
    torch.manual_seed(0)
    a, b = torch.randn(4, 3, 5, dtype=dtype), torch.randn(4, 3, 5, dtype=dtype)
    expected = [np.corrcoef(x.flatten(), y.flatten())[0, 1] for x, y in zip(a.double().numpy(), b.double().numpy())]
    found = map_correlation(a, b)
    assert found.dtype == torch.float64 and found.shape == (4,)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_correlation_knows_neither_size_nor_offset(size):
    torch.manual_seed(0)
    a, b = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    torch.testing.assert_close(map_correlation(a, size * b), map_correlation(a, b))
    torch.testing.assert_close(map_correlation(a, 3 * a + 1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(map_correlation(size * a, -size * a), -torch.ones(4, dtype=torch.float64))
    assert map_correlation(a, a).max() <= 1


def test_a_flat_map_correlates_with_nothing():
    ramp = torch.arange(49.0).view(1, 7, 7).expand(3, 7, 7)
    flat = torch.stack([torch.zeros(7, 7), torch.full((7, 7), 0.1), ramp[0]])
    noise = 0.1 * (1 + 1e-7 * torch.randn(1, 7, 7))  # differs from a flat map by rounding alone
    for found in (map_correlation(flat, ramp), map_correlation(ramp, flat)):
        assert found.isnan().tolist() == [True, True, False] and found[2] == pytest.approx(1)
    assert map_correlation(noise, ramp[:1]).isnan().all()
    assert map_correlation(torch.ones(2, 1, 1), torch.ones(2, 1, 1)).isnan().all()


def test_the_second_map_is_resized_bilinearly_to_the_first():
    torch.manual_seed(0)
    small, large = torch.randn(2, 2, 2), torch.randn(2, 4, 4)
    halved = large.view(2, 2, 2, 2, 2).mean((2, 4))  # halving bilinearly averages blocks of four
    torch.testing.assert_close(map_correlation(small, large), map_correlation(small, halved))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3, 3), (1, 3, 3)), ((2, 3, 3), (2, 1, 3, 3))])
def test_maps_of_other_images_are_refused(shapes):
    with pytest.raises(ValueError, match=r"expected \(N, h, w\) of the same images"):
        map_correlation(*map(torch.ones, shapes))
