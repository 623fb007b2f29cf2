import urllib.error

import pytest
import torch
from torchvision import models

from udlib.backbones import NAMES, ResidualBlock, backbone
from udlib.normalisation import IMAGENET_MEAN, IMAGENET_STD


@pytest.mark.parametrize(
    "name, channels, stride",
    [
        ("small_narrow", 64, 8),
        ("small", 128, 8),
        ("small_wide", 256, 8),
        ("resnet18", 512, 32),
        ("resnet101", 2048, 32),
        ("vgg19_bn", 512, 32),
        ("mobilenet_v2", 1280, 32),
        ("efficientnet_lite0", 1280, 32),
        ("efficientnet_lite1", 1280, 32),
        ("efficientnet_lite2", 1280, 32),
    ],
)
def test_images_become_maps_of_the_stated_channels_and_stride(name, channels, stride):
    net = backbone(name).eval()
    assert (net.out_channels, net.stride) == (channels, stride)
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 96, 64)).shape == (2, channels, 96 // stride, 64 // stride)


def test_every_name_is_covered_by_the_table_above():
    torchvisions = {"resnet18", "resnet101", "vgg19_bn", "mobilenet_v2"}
    lite = {f"efficientnet_lite{number}" for number in range(3)}
    assert set(NAMES) == {"small_narrow", "small", "small_wide"} | torchvisions | lite


def frozen_names(net, k):
    """Names of the parameters and buffers in the frozen layers."""
    inside = {id(tensor) for layer in net.frozen_layers(k) for tensor in layer.state_dict(keep_vars=True).values()}
    return [name for name, tensor in net.state_dict(keep_vars=True).items() if id(tensor) in inside]


@pytest.mark.parametrize(
    "name, ends",  # for each number of frozen stages, the last layer that is frozen, counted from 0
    [
        ("small", [3, 4, 5]),
        ("resnet18", [4, 5, 6, 7]),
        ("resnet101", [4, 5, 6, 7]),
        ("vgg19_bn", [6, 13, 26, 39, 52]),
        ("mobilenet_v2", [1, 3, 6, 10, 13, 16, 17]),
        ("efficientnet_lite0", [2, 3, 4, 5, 6, 7, 8]),
        ("efficientnet_lite2", [2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_the_stem_and_the_first_stages_are_frozen_up_to_their_last_layer(name, ends):
    with torch.device("meta"):
        net = backbone(name)
    assert net.stages == len(ends) and net.frozen_layers(0) == []
    for k, end in enumerate(ends, start=1):
        assert list(map(id, net.frozen_layers(k))) == list(map(id, list(net)[: end + 1]))
        assert frozen_names(net, k) == [key for key in net.state_dict() if int(key.split(".")[0]) <= end]


@pytest.mark.parametrize(
    "name, first_side", [("vgg19_bn", 32), ("resnet18", 16), ("mobilenet_v2", 32), ("efficientnet_lite0", 32)]
)
@torch.no_grad()
def test_stages_follow_on_one_another_from_the_image_to_the_last_resolution(name, first_side):
    net, image = backbone(name).eval(), torch.zeros(1, 3, 64, 64)
    first, last = (torch.nn.Sequential(*net.frozen_layers(k))(image).shape[-1] for k in (1, net.stages))
    assert (first, last) == (first_side, 64 // 32)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
def test_the_last_convolution_behind_the_stages_is_never_frozen(name):
    with torch.device("meta"):
        net = backbone(name)
    free = set(net.state_dict()) - set(frozen_names(net, net.stages))
    assert {key.split(".")[0] for key in free} == ({"18"} if name == "mobilenet_v2" else {"9", "10"})


@pytest.mark.parametrize("k", [-1, 5])
def test_more_stages_than_there_are_cannot_be_frozen(k):
    with torch.device("meta"):
        net = backbone("resnet18")
    with pytest.raises(ValueError, match=f"freeze is {k}: this network has 4 stages, choose 0 to 4"):
        net.frozen_layers(k)


@pytest.mark.parametrize("name", NAMES)
def test_each_backbone_states_its_normalisation_and_whether_it_convolves_channels_apart(name):
    with torch.device("meta"):
        net = backbone(name)
    lite = name.startswith("efficientnet")
    mean, std = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if lite else (IMAGENET_MEAN, IMAGENET_STD)
    assert (net.mean, net.std) == (mean, std)
    assert net.depthwise == (lite or name == "mobilenet_v2")


def test_torchvisions_own_transforms_have_that_normalisation():
    for weights in (
        models.ResNet18_Weights,
        models.ResNet101_Weights,
        models.VGG19_BN_Weights,
        models.MobileNet_V2_Weights,
    ):
        transform = weights.IMAGENET1K_V1.transforms()
        assert (tuple(transform.mean), tuple(transform.std)) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("name", ["small", "resnet18", "vgg19_bn", "mobilenet_v2"])
def test_the_names_of_stored_weights_are_the_numbers_of_layers_in_a_row(name):
    """Models that were stored before have these names: every layer of torchvision's network counts, pooling too."""
    with torch.device("meta"):
        ours = list(backbone(name).state_dict())
        if name == "small":
            block = "branch.0.weight branch.1 branch.3.weight branch.4 shortcut.0.weight shortcut.1".split()
            parts = ["0.weight", "1", *(f"{number}.{part}" for number in (3, 4, 5) for part in block)]
            batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            expected = [n for p in parts for n in ([p] if p.endswith("weight") else [f"{p}.{x}" for x in batch_norm])]
        else:
            network = models.get_model(name, weights=None)
            whole = network if name == "resnet18" else network.features
            places = {part: str(number) for number, (part, _) in enumerate(whole.named_children())}
            split = [key.partition(".") for key in whole.state_dict() if not key.startswith("fc.")]
            expected = [f"{places[part]}.{rest}" for part, _, rest in split]
    assert ours == expected


@pytest.mark.parametrize("name, width", [("small_narrow", 16), ("small", 32), ("small_wide", 64)])
def test_a_small_net_has_as_many_parameters_as_its_layers_on_paper(name, width):
    w = width

    def block(a, b):  # two 3x3 convolutions and a 1x1 shortcut, each with a scale and a shift per channel
        return 9 * a * b + 9 * b * b + a * b + 3 * 2 * b

    stem, first, second, third = 5 * 5 * 3 * w + 2 * w, block(w, w), block(w, 2 * w), block(2 * w, 4 * w)
    assert sum(parameter.numel() for parameter in backbone(name).parameters()) == stem + first + second + third


def test_small_has_about_0_3_million_parameters():
    assert 0.28e6 < sum(parameter.numel() for parameter in backbone("small").parameters()) < 0.32e6


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_torchvision_backbone_is_torchvisions_network_without_pooling_and_classifier(name):
    torch.manual_seed(0)
    net = backbone(name).eval()
    torch.manual_seed(0)
    reference = models.get_model(name, weights=None).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = net(images)
        if name == "resnet18":
            expected, found = reference(images), reference.fc(features.mean((2, 3)))
        else:
            expected, found = reference.features(images), features
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("stride, out_channels", [(1, 5), (2, 5), (1, 7)])
def test_a_residual_block_adds_its_branch_to_its_input_then_rectifies(stride, out_channels):
    block = ResidualBlock(5, out_channels, stride).eval()
    images = torch.randn(2, 5, 8, 8)
    with torch.no_grad():
        carried = images if (stride, out_channels) == (1, 5) else block.shortcut(images)
        torch.testing.assert_close(block(images), (carried + block.branch(images)).clamp(min=0))
        block.branch[-1].weight.zero_()  # a branch that adds nothing leaves the input
        torch.testing.assert_close(block(images), carried.clamp(min=0))


def test_the_seed_decides_the_random_start():
    torch.manual_seed(3)
    first = backbone("small_narrow").state_dict()
    torch.manual_seed(3)
    second = backbone("small_narrow").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_small_net_gives_the_same_in_both_memory_formats():
    torch.manual_seed(0)
    net = backbone("small_narrow").eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = net(images)
        last = net.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown backbone 'resnet19': choose one of small_narrow, .*mobilenet_v2"):
        backbone("resnet19")


def test_unknown_weights_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown weights 'IMAGENET22K' for 'resnet18': choose one of IMAGENET1K_V1"):
        backbone("resnet18", weights="IMAGENET22K")
    with pytest.raises(ValueError, match="unknown weights .* for 'resnet18'"):
        backbone("resnet18", weights=models.MobileNet_V2_Weights.IMAGENET1K_V1)


def test_a_small_net_has_no_pretrained_weights():
    with pytest.raises(ValueError, match="weights are 'IMAGENET1K_V1', but 'small' has no pretrained weights"):
        backbone("small", weights="IMAGENET1K_V1")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch.hub folder, and no network."""

    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_neither_cached_nor_downloadable_are_an_error_that_names_the_file_and_the_address(hub):
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    file = weights.url.rsplit("/", 1)[-1]
    with pytest.raises(RuntimeError) as error:
        backbone("resnet18", weights="IMAGENET1K_V1")
    message = str(error.value)
    assert str(hub / file) in message and weights.url in message and "it is not there" in message


def test_cached_weights_are_loaded_by_name_or_by_member(hub):
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    torch.manual_seed(5)
    state = models.resnet18(weights=None).state_dict()
    torch.save(state, hub / weights.url.rsplit("/", 1)[-1])
    for chosen in ("IMAGENET1K_V1", weights):
        net = backbone("resnet18", weights=chosen)
        assert torch.equal(net[0].weight, state["conv1.weight"])
        assert torch.equal(net[7][1].bn2.bias, state["layer4.1.bn2.bias"])


def test_a_broken_file_in_the_cache_is_named(hub):
    file = hub / models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    file.write_bytes(b"half a down")
    with pytest.raises(RuntimeError, match=f"{file.name}': the file is there but cannot be read .* delete it"):
        backbone("resnet18", weights="IMAGENET1K_V1")
