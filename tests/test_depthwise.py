"""Depthwise convolutions on small maps: the same results and gradients as PyTorch's own, only faster."""

import copy
import pickle

import pytest
import torch
from torch import nn

from udlib.backbones import backbone
from udlib.backbones.depthwise import DepthwiseConv2d, quicken, weight_gradient


@pytest.fixture
def avx2(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def layer(side=5, channels=6, kind=DepthwiseConv2d):
    torch.manual_seed(0)
    return kind(channels, channels, side, padding=side // 2, groups=channels, bias=False)


def gradients(one, maps):
    maps = maps.clone().requires_grad_()
    result = one(maps)
    (result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum().backward()
    return result.detach(), maps.grad, one.weight.grad


@pytest.mark.parametrize("side, height, width", [(3, 1, 2), (3, 2, 2), (5, 4, 4), (5, 2, 3), (5, 1, 4), (7, 6, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_results_and_gradients_are_those_of_the_usual_layer(side, height, width, layout):
    maps = torch.randn(3, 6, height, width, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)
    usual, own = (gradients(layer(side, kind=kind), maps) for kind in (nn.Conv2d, DepthwiseConv2d))
    for expected, found in zip(usual, own):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_by_the_weights_is_the_sum_written_out():
    maps, gradient = torch.randn(2, 3, 2, 3).double(), torch.randn(2, 3, 2, 3).double()
    expected = torch.zeros(3, 1, 5, 5).double()
    for n, c, y, x, i, j in torch.cartesian_prod(*map(torch.arange, (2, 3, 2, 3, 5, 5))).tolist():
        row, column = y + i - 2, x + j - 2
        if 0 <= row < 2 and 0 <= column < 3:
            expected[c, 0, i, j] += gradient[n, c, y, x] * maps[n, c, row, column]
    torch.testing.assert_close(weight_gradient(maps, gradient, 5), expected)


def test_it_can_be_differentiated_twice():
    one, usual = layer(), layer(kind=nn.Conv2d)
    maps = torch.randn(2, 6, 4, 4)
    seconds = []
    for each in (one, usual):
        given = maps.clone().requires_grad_()
        (first,) = torch.autograd.grad(each(given).pow(3).sum(), given, create_graph=True)
        seconds.append(torch.autograd.grad(first.pow(2).sum(), (given, each.weight)))
    for found, expected in zip(*seconds):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["a large map", "no gradient", "frozen", "autocast"])
def test_elsewhere_it_is_the_usual_layer(monkeypatch, case):
    monkeypatch.setattr("udlib.backbones.depthwise.weight_gradient", lambda *_: pytest.fail("not here"))
    one, maps = layer().requires_grad_(case != "frozen"), torch.randn(2, 6, 5 if case == "a large map" else 4, 4)
    with torch.set_grad_enabled(case != "no gradient"), torch.autocast("cpu", enabled=case == "autocast"):
        result = one(maps.requires_grad_(case != "no gradient"))
    if case != "no gradient":
        result.float().sum().backward()
    assert result.shape == maps.shape


def test_of_efficientnet_the_depthwise_layers_of_stride_one_change_and_nothing_else(avx2):
    net = backbone("efficientnet_lite0")
    changed = [each for each in net.modules() if isinstance(each, DepthwiseConv2d)]
    others = [each for each in net.modules() if type(each) is nn.Conv2d and each.groups > 1]
    assert len(changed) == 12 and all(each.stride != (1, 1) for each in others)
    assert net.depthwise
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert list(again.state_dict()) == list(net.state_dict())
    plain = copy.deepcopy(net)
    for each in plain.modules():
        if isinstance(each, DepthwiseConv2d):
            each.__class__ = nn.Conv2d
    images = torch.randn(2, 3, 96, 96)
    for one in (net, plain):
        one.train()(images).square().mean().backward()
    for found, expected in zip(net.parameters(), plain.parameters()):
        assert (found.grad - expected.grad).norm() < 1e-3 * expected.grad.norm() + 1e-6  # of a shift before a norm: 0


def test_with_avx512_nothing_changes(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    net = nn.Sequential(layer(kind=nn.Conv2d))
    quicken(net)
    assert type(net[0]) is nn.Conv2d


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 4, padding=2, groups=4),
        nn.Conv2d(4, 4, 5, padding=2, groups=2),
        nn.Conv2d(4, 8, 5, padding=2, groups=4),
        nn.Conv2d(4, 4, 5, padding=1, groups=4),
        nn.Conv2d(4, 4, 5, padding=2, groups=4, stride=2),
        nn.Conv2d(4, 4, 5, padding=4, groups=4, dilation=2),
        nn.Conv2d(4, 4, 5, padding=2, groups=4, padding_mode="reflect"),
        nn.Conv2d(1, 1, 5, padding=2),
    ],
)
def test_other_convolutions_stay(avx2, other):
    quicken(net := nn.Sequential(other))
    assert type(net[0]) is nn.Conv2d
