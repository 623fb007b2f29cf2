"""Attention maps against full autograd and captum, without side effects; localisation against literal counts."""

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn
from torch.nn import functional as F

from udlib.attention import (
    class_attention,
    energy_inside,
    pointing_game,
    uncertainty_attention,
    uncertainty_attention_of,
)
from udlib.backbones import backbone
from udlib.heads import DualBranchHead, DualBranchNet, Prediction

POOLINGS = pytest.mark.parametrize("pooling", ["avg", "max"])


def make(seed=0, dtype=torch.float64, channels=6, classes=4, cells=(3, 5), images=3):
    """A head in training mode with running statistics of its own, and a feature map with ties, as after a ReLU."""
    torch.manual_seed(seed)
    head = DualBranchHead(channels, classes, embedding=8).to(dtype)
    head.calibration[1].running_mean.normal_()
    head.calibration[1].running_var.uniform_(0.5, 2)
    return head, torch.randn(images, channels, *cells, dtype=dtype).relu()


def pool(features, pooling):
    return features.mean((2, 3)) if pooling == "avg" else features.amax((2, 3))


def literal_map(head, features, pooling, create_graph=False):
    """Eq. 15 and 16 as printed: the gradient of one image's KL at every cell, summed; channels weighed and summed."""
    head.eval()
    maps = []
    for z in features:
        z = z[None]
        if not z.requires_grad:
            z.requires_grad_()
        logits, calibration_logits = head(pool(z, pooling))
        p, q = calibration_logits.softmax(1), logits.softmax(1)
        divergence = (p * (p / q).log()).sum()
        (gradient,) = torch.autograd.grad(divergence, z, create_graph=create_graph)
        maps.append((gradient.sum((2, 3), keepdim=True) * z).sum(1)[0])
    return torch.stack(maps)


@POOLINGS
def test_the_map_is_that_of_full_autograd_at_every_cell(pooling):
    head, features = make()
    torch.testing.assert_close(
        uncertainty_attention(head, features, pooling), literal_map(head, features, pooling).detach()
    )


@POOLINGS
@pytest.mark.parametrize("cells", [(1, 1), (8, 8)])
def test_the_identity_holds_for_any_map_size_and_for_a_real_network(pooling, cells):
    torch.manual_seed(1)
    net = DualBranchNet(backbone("small_narrow"), 5, pooling).eval()
    with torch.no_grad():
        features = net(torch.rand(4, 3, 64, 64)).features[:, :, : cells[0], : cells[1]]
    torch.testing.assert_close(
        uncertainty_attention(net.head, features, pooling),
        literal_map(net.head, features, pooling).detach(),
        rtol=1e-3,
        atol=1e-6,
    )


@POOLINGS
def test_with_create_graph_the_map_is_differentiable_through_the_weights_too(pooling):
    head, features = make(cells=(2, 2))
    target = torch.randn(3, 2, 2, dtype=torch.float64)
    found, expected = features.clone().requires_grad_(), features.clone().requires_grad_()
    (uncertainty_attention(head, found, pooling, create_graph=True) * target).sum().backward()
    head.zero_grad()
    (literal_map(head, expected, pooling, create_graph=True) * target).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_without_create_graph_the_weights_are_constants_and_the_head_gets_no_gradient():
    head, features = make()
    features.requires_grad_()
    found = uncertainty_attention(head, features)
    (gradient,) = torch.autograd.grad(found[0, 1, 2], features)
    cells = torch.zeros_like(gradient, dtype=torch.bool)
    cells[0, :, 1, 2] = True
    assert gradient[cells].abs().min() > 0 and not gradient[~cells].any(), "w_c where it stands, 0 elsewhere"
    assert all(parameter.grad is None for parameter in head.parameters())


def test_with_create_graph_a_loss_on_the_map_trains_the_head():
    head, features = make()
    uncertainty_attention(head, features, create_graph=True).square().sum().backward()
    assert head.classification.weight.grad.abs().sum() > 0 and head.calibration[0].weight.grad.abs().sum() > 0


def test_nothing_is_left_behind():
    head, features = make()
    head.calibration[2].eval()  # a mixed mode
    head.classification.weight.grad = torch.ones_like(head.classification.weight)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    modes = [part.training for part in head.modules()]
    uncertainty_attention(head, features)
    class_attention(head, features, 1)
    assert [part.training for part in head.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert torch.equal(head.classification.weight.grad, torch.ones_like(head.classification.weight))
    assert head.calibration[0].weight.grad is None and not features.requires_grad


def test_an_error_leaves_the_mode_alone_too():
    head, features = make()
    with pytest.raises(ValueError):
        class_attention(head, features, 99)
    assert all(part.training for part in head.modules())


@POOLINGS
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_teacher_in_no_grad_or_inference_mode_gets_the_same_map(pooling, context):
    head, features = make()
    expected = uncertainty_attention(head, features, pooling)
    with context():
        found = uncertainty_attention(head, features.clone(), pooling)
    torch.testing.assert_close(found.clone(), expected)
    with context():
        made_inside = features.clone()
    torch.testing.assert_close(uncertainty_attention(head, made_inside, pooling), expected)


def test_a_frozen_head_and_a_batch_of_one_work():
    head, features = make(images=1)
    assert torch.isfinite(uncertainty_attention(head.requires_grad_(False), features)).all()


def test_half_precision_features_are_weighed_in_single_precision():
    head, features = make(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = uncertainty_attention(head, features.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, uncertainty_attention(head, features.bfloat16().float()))


def test_branches_that_agree_leave_an_empty_map():
    head, features = make()
    with torch.no_grad():  # the calibration branch's last layer ignores its input, and the classifier says the same
        head.calibration[3].weight.zero_()
        head.classification.weight.zero_()
        head.calibration[3].bias.copy_(head.classification.bias)
    assert uncertainty_attention(head, features).abs().max() < 1e-12


@pytest.mark.parametrize(
    "change, says",
    [
        ({"pooling": "sum"}, "pooling is 'sum': expected 'avg' or 'max'"),
        ({"features": torch.zeros(3, 6)}, r"shape \(3, 6\): expected \(images, channels, height, width\)"),
        ({"head": DualBranchHead(6, 4, calibration=False)}, "no calibration branch"),
    ],
)
def test_bad_input_is_refused(change, says):
    head, features = make(dtype=torch.float32)
    with pytest.raises(ValueError, match=says):
        uncertainty_attention(**{"head": head, "features": features} | change)


class Whole(nn.Module):
    """Feature map → logits of one branch, for captum."""

    def __init__(self, head, pooling, branch):
        super().__init__()
        self.last, self.head, self.pooling, self.branch = nn.Identity(), head, pooling, branch

    def forward(self, features):
        return self.head(pool(self.last(features), self.pooling))[self.branch]


@POOLINGS
@pytest.mark.parametrize("branch", ["classification", "calibration"])
@pytest.mark.parametrize("relu", [True, False])
def test_a_class_map_is_captums_grad_cam(pooling, branch, relu):
    head, features = make(dtype=torch.float32)
    head.eval()
    whole = Whole(head, pooling, ["classification", "calibration"].index(branch))
    for classes in (2, torch.tensor([0, 3, 1])):
        expected = LayerGradCam(whole, whole.last).attribute(features, target=classes, relu_attributions=relu)
        torch.testing.assert_close(
            class_attention(head, features, classes, pooling, branch, relu), expected[:, 0].detach()
        )


def test_a_class_map_of_a_linear_branch_adds_up_to_its_logit():
    head, features = make()
    maps = class_attention(head, features, 1, relu=False)
    logits, _ = head.eval()(pool(features, "avg"))
    torch.testing.assert_close(maps.sum((1, 2)) + head.classification.bias[1], logits[:, 1])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"classes": 4}, "classes run from 4 to 4: expected 0 to 3"),
        ({"classes": -1}, "expected 0 to 3"),
        ({"branch": "softmax"}, "expected 'classification' or 'calibration'"),
    ],
)
def test_bad_classes_and_branches_are_refused(change, says):
    head, features = make()
    with pytest.raises(ValueError, match=says):
        class_attention(**{"head": head, "features": features, "classes": 0} | change)


def test_localisation_against_literal_counts():
    maps = torch.tensor([[[4.0, -2.0], [1.0, 3.0]], [[-1.0, -1.0], [-1.0, -1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    masks = torch.tensor([[[True, True], [False, False]]] * 2 + [[[True, False], [False, False]]])
    share = energy_inside(maps, masks)
    assert share[0] == 0.5 and share[1].isnan() and share[2] == 0.25
    assert pointing_game(maps, masks).tolist() == [True, True, True]
    assert pointing_game(-maps[:1], masks[:1]).tolist() == [True] and pointing_game(-maps[:1], ~masks[:1]).tolist() == [
        False
    ]


def test_a_small_map_is_judged_at_the_size_of_the_mask():
    peak = torch.zeros(1, 4, 4)
    peak[0, 0, 3] = 1
    corner = torch.zeros(1, 32, 32, dtype=torch.bool)
    corner[0, :8, 24:] = True
    assert pointing_game(peak, corner).all() and energy_inside(peak, corner) > 0.5
    assert not pointing_game(peak, corner.flip(2)).any()


@pytest.mark.parametrize(
    "maps, masks",
    [
        (torch.zeros(2, 3), torch.zeros(2, 3, 3, dtype=torch.bool)),
        (torch.zeros(2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool)),
        (torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)),
    ],
)
def test_maps_and_masks_of_other_shapes_are_refused(maps, masks):
    with pytest.raises(ValueError, match="of the same images"):
        energy_inside(maps, masks)


def a_pass(head, features, pooling="avg"):
    pooled = features.flatten(2).mean(2) if pooling == "avg" else features.flatten(2).amax(2)
    return Prediction(*head(pooled), features, pooled)


@pytest.fixture
def trained_pass():
    """A head in train mode in double precision, and features that want a gradient."""
    draw = torch.Generator().manual_seed(3)
    head = DualBranchHead(5, 4, embedding=6).double().train()
    for weights in head.parameters():
        weights.data = torch.randn(weights.shape, generator=draw, dtype=torch.float64)
    return head, torch.randn(6, 5, 2, 3, generator=draw, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_in_eval_mode_the_map_of_a_forward_pass_is_that_of_the_head(trained_pass, pooling):
    head, features = trained_pass
    head.eval()
    torch.testing.assert_close(
        uncertainty_attention_of(a_pass(head, features, pooling)),
        uncertainty_attention(head, features, pooling, create_graph=True),
    )


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_in_train_mode_it_is_full_autograd_with_the_batchs_statistics(trained_pass, pooling):
    head, features = trained_pass
    found = uncertainty_attention_of(a_pass(head, features, pooling))
    said = a_pass(head, features, pooling)
    divergence = F.kl_div(said.logits.log_softmax(1), said.calibration_logits.softmax(1), reduction="sum")
    (slope,) = torch.autograd.grad(divergence, features)
    torch.testing.assert_close(found, (slope.sum((2, 3), keepdim=True) * features).sum(1))
    assert not torch.allclose(found, uncertainty_attention(head, features), rtol=0.01), "eval mode has other statistics"


def test_the_gradient_of_a_loss_on_the_map_is_its_gradient_only_through_the_weights_too(trained_pass):
    head, features = trained_pass

    def distance(values, create_graph=True):
        return uncertainty_attention_of(a_pass(head, values), create_graph).square().sum()

    assert torch.autograd.gradcheck(distance, (features,))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(lambda values: distance(values, create_graph=False), (features,))


def test_a_forward_pass_without_a_calibration_branch_has_no_uncertainty_map(trained_pass):
    head, features = trained_pass
    with pytest.raises(ValueError, match="the head has no calibration branch"):
        uncertainty_attention_of(a_pass(head, features)._replace(calibration_logits=None))


def test_classes_from_the_first_to_the_last_are_known():
    head, features = make()
    for classes in (0, 3, torch.tensor([0, 1, 3])):
        assert class_attention(head, features, classes).shape == (3, 3, 5)
    for classes in (torch.tensor([0, 1, 4]), torch.tensor([-1, 1, 2])):
        with pytest.raises(ValueError, match="expected 0 to 3"):
            class_attention(head, features, classes)


def test_without_a_calibration_branch_its_class_maps_are_refused():
    head, features = DualBranchHead(6, 4, calibration=False).double(), make()[1]
    with pytest.raises(ValueError, match="no calibration branch: choose branch='classification'"):
        class_attention(head, features, 1, branch="calibration")
    assert class_attention(head, features, 1).shape == (3, 3, 5)


@pytest.mark.parametrize("features", [torch.zeros(0, 6, 3, 3), torch.zeros(2, 6, 0, 3), torch.zeros(2, 6, 3, 3, 3)])
def test_empty_features_and_those_of_five_dimensions_are_refused(features):
    with pytest.raises(ValueError, match=r"expected \(images, channels, height, width\)"):
        uncertainty_attention(make(dtype=torch.float32)[0], features)


def test_the_usual_pooling_is_the_average_and_the_usual_class_map_has_a_relu():
    head, features = make()
    torch.testing.assert_close(
        uncertainty_attention(head, features), uncertainty_attention(head, features, "avg", False)
    )
    usual = class_attention(head, features, 1)
    torch.testing.assert_close(usual, class_attention(head, features, 1, "avg", "classification", True))
    assert usual.min() == 0 and not uncertainty_attention(head, features).requires_grad


def test_the_map_of_a_forward_pass_can_be_differentiated_through_the_weights_unless_told_otherwise(trained_pass):
    head, features = trained_pass
    usual = uncertainty_attention_of(a_pass(head, features)).square().sum()
    (through,) = torch.autograd.grad(usual, head.classification.weight)
    assert through.abs().sum() > 0


def test_half_precision_maps_of_a_forward_pass_are_computed_in_single_precision(trained_pass):
    head, features = trained_pass
    head.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = uncertainty_attention_of(a_pass(head, features.float()))
    assert found.dtype == torch.float32


def test_a_forward_pass_can_be_asked_for_its_map_and_for_its_gradient_afterwards(trained_pass):
    head, features = trained_pass
    prediction = a_pass(head, features)
    uncertainty_attention_of(prediction, create_graph=False)
    prediction.logits.sum().backward()
    assert head.classification.weight.grad is not None


def test_resizing_keeps_a_linear_ramp_linear():
    """Bilinear, without aligned corners: the middle of a map of two cells is the mean of both."""
    share = energy_inside(torch.tensor([[[0.0, 4.0]]]), torch.tensor([[[True, True, False, False]]]))
    assert share.item() == pytest.approx((0 + 1) / (0 + 1 + 3 + 4))
