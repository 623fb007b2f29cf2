"""What a GPU has to do right. Each test runs on one where there is one, and everywhere on the pretended one."""

import dataclasses
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from pretended_gpu import pretended_gpu
from striped_images import QUICK, both_branches, net, striped_images

import udlib
from udlib.backbones import backbone
from udlib.heads import DualBranchNet
from udlib.methods import recipe
from udlib.methods.base import make_network
from udlib.models import TrainedModel, save_trained
from udlib.training import fit, predict
from udlib.workshop import train

CONFIG = dataclasses.replace(QUICK, epochs=2, batch_size=16, precision="fp32", shift=0)
SMALL = {"network": "small_narrow", "teacher": "small_narrow", "embedding": 8}
REAL = pytest.param("real", marks=[pytest.mark.gpu, pytest.mark.skipif("not torch.cuda.is_available()")])


@contextmanager
def a_real_gpu():
    """A GPU whose convolutions are exact, so that they may be compared with a processor's."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture(params=["pretended", REAL])
def gpu(request):
    """Makes the context in which there is a GPU."""
    return pretended_gpu if request.param == "pretended" else a_real_gpu


@contextmanager
def on_the_cpu():
    """A machine without a GPU, though there is one."""
    with mock.patch.object(Accelerator, "device", torch.device("cpu")):
        yield


def students(**changes):
    terms = {"alpha": 0.5, "beta": 0.5, **changes}
    return recipe("distillation", **SMALL, **terms, **dataclasses.asdict(CONFIG))


def logits_of(student, data):
    return predict(train(student, data).network, data, precision="fp32").logits


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.0, "beta": 0.0},
        {},
        {"over_classes": "sum"},
        {"normalize": "l2"},
        {"scale": "released", "weighting": "released", "temperature": 3.0},
        {"ramp": (0.25, 0.75)},
    ],
    ids=["KD", "UD", "summed", "unit maps", "released", "ramp"],
)
def test_every_variant_of_distillation_learns_on_a_gpu_what_it_learns_on_a_cpu(gpu, changes):
    data, student = striped_images(48, size=16), students(**changes)
    with on_the_cpu():
        expected = logits_of(student, data)
    with gpu():
        found = logits_of(student, data)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_crops_for_a_larger_teacher_are_those_of_a_cpu_to_a_grey_level(gpu):
    """A GPU resizes floats and a CPU bytes, so that the losses differ a little."""
    data, student = striped_images(48, size=16), students().but(crop=12, erase=0.5, teacher_size=16)
    torch.manual_seed(1)
    teacher, losses = make_network(3, 0.1, "small_narrow", embedding=8), []
    for context in (on_the_cpu, gpu):
        with context():
            losses.append(train(student, data, teachers={"teacher": teacher}).history.column("total"))
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.1) and losses[0] != losses[1]


def test_frozen_stages_stay_as_they_are_and_the_rest_learns(gpu):
    torch.manual_seed(0)
    network = make_network(3, 0.1, "efficientnet_lite0", embedding=8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with gpu():
        fit(network, striped_images(32, size=32), both_branches, dataclasses.replace(CONFIG, freeze=4), max_steps=2)
    same = [name for name, value in network.state_dict().items() if torch.equal(value, before[name])]
    frozen = [f"backbone.{part}." for names in network.backbone.parts[:5] for part in names]
    assert [name for name in before if name.startswith(tuple(frozen)) and name not in same] == []
    assert "backbone.8.0.conv_pw.weight" not in same and "head.classification.weight" not in same


def test_a_model_that_was_trained_on_a_gpu_answers_the_same_on_a_cpu(gpu, tmp_path):
    data, network = striped_images(32, size=16), net()
    with gpu():
        fit(network, data, both_branches, CONFIG)
        there = predict(network, data, precision="fp32").logits
    model = TrainedModel(network, "small_narrow", ("a", "b", "c"), 16)
    with on_the_cpu():
        here = predict(udlib.load(save_trained(tmp_path / "model", model)).network, data, precision="fp32").logits
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif("not torch.cuda.is_available()")
@pytest.mark.parametrize("name", ["small", "efficientnet_lite0"])
def test_in_bfloat16_a_network_says_nearly_what_it_says_in_single_precision(name):
    torch.manual_seed(0)
    network, data = DualBranchNet(backbone(name), 3), striped_images(32, size=64)
    exact, rough = (predict(network, data, precision=kind).logits for kind in ("fp32", "bf16"))
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().max() < 0.05 * exact.abs().max()
