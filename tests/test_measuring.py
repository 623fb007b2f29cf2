"""What is measured of a network when its training ends: under shift, after calibration, and its maps beside its teacher's."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from striped_images import striped_images
from torch.nn import functional as F

from udlib.attention import uncertainty_attention
from udlib.backbones import backbone
from udlib.course import measuring
from udlib.course.data import RecipeData
from udlib.course.measuring import map_agreement, measured, variants
from udlib.datasets.shifts import shifted
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.methods import recipe
from udlib.posthoc import fit_label_temperature, fit_temperature
from udlib.training.evaluation import Split, measure

SHIFTED = [f"{shift}-{strength}" for shift in ("blur", "noise", "low-light") for strength in (1, 2, 3)]


def network(seed=0, calibration=True, name="small_narrow"):
    torch.manual_seed(seed)
    return DualBranchNet(backbone(name), 3, embedding=8, calibration=calibration).eval()


class FakePhotos:
    """Striped images in the place of a data set that is measured under shift."""

    def __init__(self, chosen):
        self.recipe = chosen
        self.parts = {
            "train": striped_images(24, size=20, seed=2),
            "val": striped_images(40, size=20, seed=1),
            "test": striped_images(30, size=20),
        }

    def arrays(self, split):
        return self.parts[split]

    def labels(self, split):
        targets = self.parts[split].targets
        return Split(("a", "b", "c"), targets, torch.zeros_like(targets, dtype=torch.bool), None)

    def fingerprint(self):
        return "striped"

    def under_shift(self, split, shift, strength):
        part = self.parts[split]
        return replace(part, images=shifted(part.images, shift, strength))

    def split(self, name):
        return SimpleNamespace(objects=[[]] * len(self.parts[name].targets))


@pytest.fixture
def photos(monkeypatch):
    monkeypatch.setattr(measuring, "UNDER_SHIFT", ("striped",))
    monkeypatch.setattr(measuring, "_KNOWN_MAPS", {})
    return FakePhotos(recipe(data="striped", size=20, crop=16, network="small_narrow", embedding=8, precision="fp32"))


@torch.no_grad()
def logits_of(net, images, size=16):
    """In half precision, as results are stored."""
    return net(normalise(images, size=size)).logits.half().float()


def test_every_shift_is_measured_as_by_hand_and_after_calibration_on_validation(photos):
    net = network()
    logits, metrics = measured(photos, net, {})
    test = photos.arrays("test")
    assert set(metrics) == {"val", "test", *SHIFTED} | {
        f"{name}/{kind}" for name in ("test", *SHIFTED) for kind in ("temperature", "label-temperature")
    }
    val_logits = logits_of(net, photos.arrays("val").images)
    torch.testing.assert_close(logits["val_logits"], val_logits, atol=2e-3, rtol=2e-3)
    calibrators = {
        "temperature": fit_temperature(logits["val_logits"], photos.arrays("val").targets),
        "label-temperature": fit_label_temperature(logits["val_logits"], photos.arrays("val").targets),
    }
    for name in ("test", "blur-2", "noise-3", "low-light-1"):
        shift, strength = name.rsplit("-", 1) if name != "test" else ("", 0)
        images = test.images if name == "test" else shifted(test.images, shift, int(strength))
        values = logits_of(net, images)
        expected = measure(values, photos.labels("test"))
        for number in ("mAP", "ECE", "NLL"):
            assert metrics[name][number] == pytest.approx(expected[number], abs=2e-3), (name, number)
        for kind, calibrator in calibrators.items():
            p = calibrator(values.double())
            y = test.targets.double()
            nll = -(y * p.log() + (1 - y) * (1 - p).log()).mean().item()
            brier = ((p - y) ** 2).mean().item()
            assert metrics[f"{name}/{kind}"]["NLL"] == pytest.approx(nll, abs=2e-3)
            assert metrics[f"{name}/{kind}"]["Brier"] == pytest.approx(brier, abs=2e-3)
            assert metrics[f"{name}/{kind}"]["mAP"] == pytest.approx(metrics[name]["mAP"], abs=0.02) or "label" in kind
    assert set(metrics["blur-1"]) <= set(measuring.OF_A_VARIANT) and metrics["noise-3"] != metrics["noise-1"]


def test_softmax_logits_have_no_calibrator(photos):
    photos.recipe = photos.recipe.but(loss="softmax", lam=0.0)
    net = network(calibration=False)
    logits = {f"{split}_logits": logits_of(net, photos.arrays(split).images) for split in ("val", "test")}
    options = {"precision": "fp32", "prepare": photos.recipe.training.prepare_for(net)}
    numbers = dict(variants(photos, net, logits, options))
    assert set(numbers) == set(SHIFTED) and all(set(each) == {"mAP"} for each in numbers.values())


def test_other_data_are_not_measured_under_shift(photos):
    photos.recipe = photos.recipe.but(data="other")
    assert set(measured(photos, network(), {})[1]) == {"val", "test"}


@torch.no_grad()
def maps_of(net, images, size):
    return uncertainty_attention(
        net.head, net.backbone(normalise(images, net.backbone.mean, net.backbone.std, size)), "avg"
    )


@pytest.mark.parametrize("split", ["test", "train"])
@pytest.mark.parametrize("teacher_size, teacher_name", [(0, "small"), (32, "small"), (64, "efficientnet_lite0")])
def test_maps_agree_as_by_hand(photos, teacher_size, teacher_name, split):
    photos.recipe = recipe(
        "distillation", data="striped", size=20, crop=16, network="small_narrow", precision="fp32",
        teacher_size=teacher_size,
    )  # fmt: skip
    student, teacher = network(), network(1, name=teacher_name)
    images = photos.arrays(split).images
    ours, theirs = maps_of(student, images, 16), maps_of(teacher, images, teacher_size or 16)
    theirs = F.interpolate(theirs[:, None], ours.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    a, b = ours.flatten(1).double().numpy(), theirs.flatten(1).double().numpy()
    numbers = map_agreement(photos, student, teacher, split)
    assert map_agreement(photos, student, teacher, split) == numbers and len(measuring._KNOWN_MAPS) == 1
    assert numbers["map_distance"] == pytest.approx(np.linalg.norm(b - a, axis=1).mean(), rel=1e-3)
    assert numbers["map_norm"] == pytest.approx(np.linalg.norm(a, axis=1).mean(), rel=1e-3)
    assert numbers["teacher_map_norm"] == pytest.approx(np.linalg.norm(b, axis=1).mean(), rel=1e-3)
    correlations = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)]
    assert numbers["map_correlation"] == pytest.approx(np.nanmean(correlations), abs=1e-3)


def test_a_network_agrees_with_itself_and_without_a_branch_there_is_no_map(photos):
    net = network()
    numbers = map_agreement(photos, net, net)
    assert numbers["map_correlation"] == pytest.approx(1) and numbers["map_distance"] == 0
    assert map_agreement(photos, net, None) == map_agreement(photos, network(calibration=False), net) == {}
    assert map_agreement(photos, net, network(calibration=False)) == {}
    metrics = measured(photos, net, {"teacher": net})[1]
    assert "map_norm" in metrics["test"] and metrics["train"] == map_agreement(photos, net, net, "train")
    assert "train" not in measured(photos, net, {})[1]


def test_images_under_shift_are_those_of_the_split_and_made_once():
    data = RecipeData(recipe(limit=6))
    images = data.under_shift("test", "blur", 2).images
    assert torch.equal(images, shifted(data.arrays("test").images, "blur", 2))
    assert data.under_shift("test", "blur", 2).images is images
    assert torch.equal(data.under_shift("test", "blur", 2).targets, data.arrays("test").targets)
