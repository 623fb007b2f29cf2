"""In which precision a network trains: measured once for a backbone and a machine, and kept by a checkpoint."""

import dataclasses
import json

import pytest
import torch
from striped_images import QUICK, both_branches, net, striped_images
from torch import nn

from udlib.backbones import Backbone, backbone
from udlib.heads import DualBranchNet
from udlib.training import Saving, Watch, fit, precision
from udlib.training.checkpoints import load_checkpoint
from udlib.training.precision import bf16_ratio, measured_ratios, training_precision

CPU = torch.device("cpu")
AUTO = dataclasses.replace(QUICK, precision="auto", epochs=2)


def depthwise(width=8):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, width, 3, stride=4, padding=1), nn.Conv2d(width, width, 3, padding=1, groups=width)
    return Backbone(*layers, out_channels=width, stride=4)


def network():
    return DualBranchNet(depthwise(), 3, embedding=8)


@pytest.fixture
def measurements(monkeypatch, tmp_path):
    """Seconds of a step that the tests choose, on a machine that multiplies in bfloat16, and what was measured."""
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    monkeypatch.setattr(precision, "resolve_precision", lambda name, _: "bf16" if name == "auto" else name)
    seconds, calls = {"bf16": 2.0, "fp32": 1.0}, []
    monkeypatch.setattr(precision, "_seconds", lambda _, name, side: calls.append(name) or seconds[name])
    return seconds, calls


def test_a_depthwise_network_is_measured_once_and_the_ratio_is_written_down(measurements, tmp_path):
    _, calls = measurements
    assert training_precision(network(), "auto", CPU) == "fp32" and sorted(calls) == ["bf16", "fp32"]
    stored = json.loads((tmp_path / "cache" / "precision.json").read_text())
    assert list(stored.values()) == [2.0] == list(measured_ratios().values())
    count = sum(part.numel() for part in depthwise().parameters())
    assert next(iter(stored)).endswith(f"a network of {count:,} parameters")
    assert training_precision(network(), "auto", CPU) == "fp32" and len(calls) == 2
    other = depthwise(40)
    other.name = "efficientnet_lite9"
    training_precision(DualBranchNet(other, 3), "auto", CPU)
    assert len(calls) == 4 and [*measured_ratios()][1].endswith(", efficientnet_lite9"), "it is measured on its own"


def test_a_measurement_is_of_the_side_and_the_frozen_layers_of_the_training(measurements):
    frozen = network()
    frozen.backbone[0].requires_grad_(False)
    for one, side in ((network(), 64), (network(), 224), (frozen, 64), (network(), 64)):
        training_precision(one, "auto", CPU, side)
    names = [name.split(", ", 3)[3] for name in measured_ratios()]
    whole = sum(part.numel() for part in depthwise().parameters())
    assert [name.split(",")[0] for name in names] == ["64 px", "224 px", "64 px"]
    assert names[2] == f"64 px, a network of {whole:,} parameters with 224 frozen parameters"


@pytest.mark.parametrize("crop, expected", [(0, 12), (8, 8)])
def test_a_training_measures_at_the_side_that_the_network_sees(measurements, monkeypatch, crop, expected):
    sides, counted = [], precision._seconds
    monkeypatch.setattr(precision, "_seconds", lambda *parts: sides.append(parts[2]) or counted(*parts))
    fit(network(), striped_images(size=12), both_branches, dataclasses.replace(AUTO, crop=crop), max_steps=1)
    assert sides == [expected] * 2


@pytest.mark.parametrize("seconds, expected", [(0.5, "bf16"), (0.99, "bf16"), (1.01, "fp32")])
def test_the_faster_precision_is_taken(measurements, seconds, expected):
    measurements[0]["bf16"] = seconds
    assert training_precision(network(), "auto", CPU) == expected
    assert list(measured_ratios().values()) == [seconds]


def test_what_needs_no_measurement_is_not_measured(measurements):
    _, calls = measurements
    assert [training_precision(network(), name, CPU) for name in ("bf16", "fp32")] == ["bf16", "fp32"]
    assert training_precision(net(), "auto", CPU) == "bf16", "no depthwise convolution"
    assert training_precision(network(), "auto", torch.device("cuda")) == "bf16"
    assert calls == [] and measured_ratios() == {}


def test_where_bf16_is_emulated_nothing_is_measured(measurements, monkeypatch):
    monkeypatch.setattr(precision, "resolve_precision", lambda name, _: "fp32")
    assert training_precision(network(), "auto", CPU) == "fp32" and measurements[1] == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b'{"machine": "fast"}', b"\xff"])
def test_a_damaged_file_is_measured_again(measurements, tmp_path, content):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "precision.json").write_bytes(content)
    assert measured_ratios() == {} and bf16_ratio(depthwise()) == 2.0
    assert list(measured_ratios().values()) == [2.0]


def test_a_folder_that_cannot_be_written_costs_a_measurement_each_time(measurements, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert bf16_ratio(depthwise()) == bf16_ratio(depthwise()) == 2.0
    assert len(measurements[1]) == 4


@pytest.mark.parametrize("freeze", [False, True])
def test_a_measurement_is_a_time_and_leaves_the_network_as_it_was(monkeypatch, freeze):
    net = nn.Sequential(depthwise(), nn.BatchNorm2d(8)).requires_grad_(not freeze)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert 0 < precision._seconds(net, "fp32", 16) < 60
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_checkpoint_keeps_the_precision_though_a_measurement_says_otherwise_meanwhile(measurements, tmp_path):
    seconds, calls = measurements

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), striped_images(), both_branches, AUTO, watch=Watch(on_epoch=stop), saving=Saving(tmp_path / "c"))
    assert load_checkpoint(tmp_path / "c")[1]["precision"] == "fp32"
    (tmp_path / "cache" / "precision.json").unlink()
    seconds["bf16"], counted = 0.1, len(calls)
    history = fit(network(), striped_images(), both_branches, AUTO, saving=Saving(tmp_path / "c"))
    assert history.precision == "fp32" and len(calls) == counted
    assert fit(network(), striped_images(), both_branches, AUTO).precision == "bf16"


def test_the_steps_compute_in_the_precision_that_was_measured(measurements):
    types = []

    def loss(model, batch):
        types.append(model.backbone(batch.images).dtype)
        return both_branches(model, batch)

    fit(network(), striped_images(), loss, AUTO, max_steps=1)
    measurements[0]["bf16"] = 0.5
    precision._file().unlink()
    fit(network(), striped_images(), loss, AUTO, max_steps=1)
    assert types == [torch.float32, torch.bfloat16]


def test_a_models_provenance_has_the_precision_of_its_training(measurements, monkeypatch, tmp_path):
    from tiny_voc import write_tiny_voc

    from udlib.workshop import settings, train_model

    data = write_tiny_voc(tmp_path / "tiny")
    recipe = settings(network="small_narrow", epochs=1, size=16, batch_size=16)
    monkeypatch.setattr(Backbone, "depthwise", True)
    assert train_model(data, tmp_path / "model", recipe).provenance["precision"] == "fp32"
    measurements[0]["bf16"] = 0.5
    precision._file().unlink()
    assert train_model(data, tmp_path / "other", recipe).provenance["precision"] == "bf16"


def test_lite_networks_are_depthwise_and_the_small_ones_are_not():
    assert backbone("efficientnet_lite0").depthwise and not backbone("small").depthwise
