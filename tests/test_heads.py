import pytest
import torch
from torch import nn

from udlib.backbones import backbone
from udlib.heads import DualBranchHead, DualBranchNet, Prediction


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_the_head_is_one_linear_layer_beside_linear_batchnorm_relu_linear():
    head = DualBranchHead(6, 4, embedding=5)
    pooled = torch.randn(7, 6)
    logits, calibration_logits = head(pooled)

    weights = dict(head.named_parameters())
    torch.testing.assert_close(logits, pooled @ weights["classification.weight"].T + weights["classification.bias"])
    hidden = pooled @ weights["calibration.0.weight"].T + weights["calibration.0.bias"]
    spread = (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    normal = (hidden - hidden.mean(0)) / spread * weights["calibration.1.weight"] + weights["calibration.1.bias"]
    expected = normal.clamp(min=0) @ weights["calibration.3.weight"].T + weights["calibration.3.bias"]
    torch.testing.assert_close(calibration_logits, expected)


def test_both_branches_answer_in_training_and_in_evaluation_mode():
    head = DualBranchHead(6, 4, embedding=5)
    pooled = torch.randn(7, 6)
    for mode in (True, False):
        logits, calibration_logits = head.train(mode)(pooled)
        assert logits.shape == calibration_logits.shape == (7, 4)


def test_only_the_argument_leaves_the_calibration_branch_out():
    head = DualBranchHead(6, 4, embedding=5)
    for mode in (True, False):
        logits, calibration_logits = head.train(mode)(torch.randn(7, 6), calibration=False)
        assert logits.shape == (7, 4) and calibration_logits is None


def test_a_head_without_calibration_branch_is_the_classifier_alone():
    head = DualBranchHead(6, 4, calibration=False)
    assert [name for name, _ in head.named_parameters()] == ["classification.weight", "classification.bias"]
    assert head(torch.randn(1, 6))[1] is None


def test_one_seed_starts_the_classifier_alike_with_and_without_the_other_branch():
    torch.manual_seed(1)
    both = DualBranchHead(6, 4)
    torch.manual_seed(1)
    alone = DualBranchHead(6, 4, calibration=False)
    assert torch.equal(both.classification.weight, alone.classification.weight)
    assert torch.equal(both.classification.bias, alone.classification.bias)


def test_bias_false_gives_a_classifier_without_bias():
    assert DualBranchHead(6, 4, bias=False).classification.bias is None


def test_a_batch_of_one_image_trains_only_without_the_batch_normalisation():
    head = DualBranchHead(6, 4)
    with pytest.raises(ValueError, match="batch normalisation cannot train on a batch of 1 image: use batches of at"):
        head(torch.randn(1, 6))
    head(torch.randn(1, 6), calibration=False)
    assert head.eval()(torch.randn(1, 6))[1].shape == (1, 4)


@pytest.mark.parametrize("sizes", [(0, 4, 5), (6, 0, 5), (6, 4, 0)])
def test_sizes_below_one_are_refused_by_name(sizes):
    with pytest.raises(ValueError, match="(in_features|num_classes|embedding) is 0: expected at least 1"):
        DualBranchHead(*sizes)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_net_pools_the_map_and_hands_everything_on(pooling):
    net = DualBranchNet(backbone("small_narrow"), 5, pooling=pooling, embedding=8).eval()
    images = torch.randn(3, 3, 32, 40)
    found = net(images)
    assert isinstance(found, Prediction)
    torch.testing.assert_close(found.features, net.backbone(images))
    cells = found.features.reshape(3, 64, 4 * 5)
    expected = cells.sum(2) / 20 if pooling == "avg" else cells.max(2).values
    torch.testing.assert_close(found.pooled, expected)
    torch.testing.assert_close(found.logits, net.head(found.pooled)[0])
    torch.testing.assert_close(found.calibration_logits, net.head(found.pooled)[1])


def test_a_net_drops_its_branch_for_one_call_or_has_none():
    images = torch.randn(2, 3, 16, 16)
    net = DualBranchNet(backbone("small_narrow"), 5)
    assert net(images, calibration=False).calibration_logits is None
    assert net(images).calibration_logits is not None
    assert DualBranchNet(backbone("small_narrow"), 5, calibration=False)(images).calibration_logits is None


def test_every_parameter_gets_a_gradient_from_the_two_branches():
    net = DualBranchNet(backbone("small_narrow"), 5, embedding=8)
    found = net(torch.randn(4, 3, 16, 16))
    (found.logits.square().sum() + found.calibration_logits.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_logits_keep_float32_under_bfloat16_autocast():
    net = DualBranchNet(backbone("small_narrow"), 5).eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = net(torch.randn(4, 3, 16, 16))
    assert found.features.dtype == torch.bfloat16
    assert found.pooled.dtype == found.logits.dtype == found.calibration_logits.dtype == torch.float32
    torch.testing.assert_close(found.logits, net.head(found.pooled)[0])


def test_double_precision_stays_double():
    net = DualBranchNet(backbone("small_narrow"), 5).double().eval()
    found = net(torch.randn(2, 3, 16, 16, dtype=torch.float64))
    assert found.pooled.dtype == found.logits.dtype == torch.float64


def test_any_module_with_out_channels_is_a_backbone():
    conv = nn.Conv2d(3, 7, 3, stride=2)
    assert DualBranchNet(conv, 2)(torch.randn(2, 3, 9, 9)).features.shape == (2, 7, 4, 4)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling is 'sum': expected 'avg' or 'max'"):
        DualBranchNet(backbone("small_narrow"), 5, pooling="sum")


def test_the_usual_calibration_branch_is_512_wide_and_both_branches_have_biases():
    head, net = DualBranchHead(6, 4), DualBranchNet(backbone("small_narrow"), 4)
    for part in (head, net.head):
        assert part.calibration[0].out_features == part.calibration[-1].in_features == 512
        assert part.classification.bias is not None and part.calibration[-1].bias is not None
    assert net.pooling == "avg"
