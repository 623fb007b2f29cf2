"""Networks of timm by name: the map before pooling, its normalisation, its groups of layers; what has no map is refused."""

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch

import udlib
from udlib.backbones import backbone, require_known, require_side
from udlib.heads import DualBranchNet
from udlib.models import TrainedModel, save_trained
from udlib.workshop.settings import settings


@pytest.mark.parametrize(
    "name, channels, stride, depthwise",
    [
        ("resnet18", 512, 32, False),
        ("convnext_atto", 320, 32, True),
        ("mobilenetv3_small_050", 288, 32, True),
        ("vgg11_bn", 512, 32, False),
        ("convmixer_768_32", 768, 7, True),
    ],
)
@torch.no_grad()
def test_images_become_maps_of_the_stated_channels_and_stride(name, channels, stride, depthwise):
    net = backbone(f"timm:{name}").eval()
    assert (net.out_channels, net.stride, net.depthwise) == (channels, stride, depthwise)
    assert net(torch.zeros(2, 3, 96, 128)).shape == (2, channels, 96 // stride, 128 // stride)


@torch.no_grad()
def test_the_map_is_what_timms_network_pools_and_classifies():
    net, reference = backbone("timm:resnet18").eval(), timm.create_model("resnet18", pretrained=False).eval()
    reference.load_state_dict(net[0].network.state_dict(), strict=False)  # all but its classifier
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(reference.fc(net(images).mean((2, 3))), reference(images))


@torch.no_grad()
def test_timms_resnet18_is_torchvisions():
    ours, theirs = backbone("timm:resnet18").eval(), backbone("resnet18").eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values())))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))
    assert (ours.mean, ours.std, ours.stages) == (theirs.mean, theirs.std, theirs.stages)
    for k in range(ours.stages + 1):
        first, second = ({p.shape for m in net.frozen_layers(k) for p in m.parameters()} for net in (ours, theirs))
        assert first == second


def test_a_network_that_takes_pixels_otherwise_says_so():
    assert backbone("timm:tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    assert backbone("timm:resnet18").std == (0.229, 0.224, 0.225)


def test_every_parameter_has_a_gradient():
    net = backbone("timm:mobilenetv3_small_050")  # whose last convolution stands behind its pooling
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_building_measures_and_leaves_the_network_as_a_new_one():
    torch.manual_seed(0)
    net = backbone("timm:resnet18")
    torch.manual_seed(0)
    new = timm.create_model("resnet18", pretrained=False, num_classes=0)
    assert net.training and all(module.training for module in net.modules())
    state = net[0].network.state_dict()
    assert state.keys() == new.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in new.state_dict().items())


@torch.no_grad()
def test_a_trained_model_comes_back_from_its_folder_with_buffers_that_no_file_holds(tmp_path):
    torch.manual_seed(0)
    model = TrainedModel(
        DualBranchNet(backbone("timm:resnetblur18"), 2, embedding=8), "timm:resnetblur18", ("a", "b"), 64
    )
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    before = torch.get_rng_state()
    back = udlib.load(save_trained(tmp_path / "model", model))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(back.logits(images), model.logits(images))


# Bad input


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_network_without_a_map_is_refused(name):
    with pytest.raises(
        ValueError, match=rf"'timm:{name}' returns no feature map \(B, D, h, w\): .* choose a convolutional"
    ):
        backbone(f"timm:{name}")


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    with pytest.raises(ValueError, match="has no network 'resnet118': did you mean timm:resnet18 or "):
        backbone("timm:resnet118")
    with pytest.raises(ValueError, match=r"has no network 'zzzzqqqq': timm.list_models\(\) lists its names"):
        require_known("timm:zzzzqqqq")
    with pytest.raises(ValueError, match="no weights 'mine' of 'resnet18': choose one of resnet18.a1_in1k, "):
        require_known("timm:resnet18.mine")
    require_known("timm:resnet18.a1_in1k")


def test_weights_that_cannot_be_downloaded_are_an_error_and_never_a_random_start(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError) as refusal:
        backbone("timm:resnet18", weights="pretrained")
    line = str(refusal.value)
    assert line.startswith("the weights of 'timm:resnet18' are not in the cache and cannot be downloaded (")
    assert "model.safetensors from https://huggingface.co/timm/resnet18.a1_in1k" in line and "--weights none" in line
    assert "\n" not in line and ". " not in line, "one sentence"


def test_weights_that_lie_on_the_disk_are_read_from_their_file(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("test_resnet", pretrained=False)  # with its classifier, as in a file of timm's
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(whole.state_dict(), file)
    ours = backbone("timm:test_resnet", weights=str(file))[0].network.state_dict()
    assert ours and all(torch.equal(whole.state_dict()[name], value) for name, value in ours.items())
    with pytest.raises(ValueError, match="'.*model.safetensors' does not hold the weights of 'timm:test_convnext'"):
        backbone("timm:test_convnext", weights=str(file))
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="does not hold the weights of 'timm:test_resnet'"):
        backbone("timm:test_resnet", weights=str(file))
    with pytest.raises(FileNotFoundError, match="there is no file of weights 'nowhere.safetensors': check the path"):
        backbone("timm:test_resnet", weights="nowhere.safetensors")
    with pytest.raises(ValueError, match="unknown weights 'model.pth' for 'timm:test_resnet'"):
        backbone("timm:test_resnet", weights="model.pth")


def test_a_network_that_takes_one_size_alone_says_which():
    require_side("timm:test_convnext", 48)
    with pytest.raises(ValueError, match="'timm:maxvit_pico_rw_256' cannot take images of 72 px: .*--size 256"):
        require_side("timm:maxvit_pico_rw_256", 72)


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(
        ValueError, match="unknown weights 'IMAGENET1K' for 'timm:resnet18': choose 'pretrained', or None for"
    ):
        backbone("timm:resnet18", weights="IMAGENET1K")
    with pytest.raises(ValueError, match="timm has no weights of 'darknet17': pass weights=None"):
        backbone("timm:darknet17", weights="pretrained")


# In a recipe


def test_a_recipe_takes_these_networks_at_224_pixels_with_weights_that_need_no_download():
    for network, weights in (("efficientnet_lite0", "IMAGENET1K"), ("timm:convnext_atto", None)):
        recipe = settings(network=network)
        assert (recipe.network, recipe.weights, recipe.size) == (network, weights, 224)
    assert settings(network="efficientnet_lite2", weights="none", size=96).weights is None
    assert settings(network="timm:convnext_atto", weights="pretrained").weights == "pretrained"
    with pytest.raises(ValueError, match="unknown network 'efficientnet_lite9': choose one of small_narrow, "):
        settings(network="efficientnet_lite9")
