"""Sizes of trainings: what a profile changes, what full size is, and what a forecast adds up."""

import pytest
import torch

from udlib.backbones import NAMES, backbone
from udlib.course import profiles as sizes
from udlib.course.profiles import FULL, LITE_SPEED, PARAMETERS, SPEED, for_profile, seconds
from udlib.course.recipes import distilled, restarted, tricks
from udlib.course.store import recipe


def test_full_size_gives_a_recipe_of_the_course_the_papers_size_and_leaves_what_it_asks_about():
    for chosen in (tricks()["CutOut"][1], distilled("KD", temperature=5.0)[2], restarted()["UD"][0]):
        full = for_profile(chosen, "full")
        for name, (value, *_) in FULL.items():
            expected = chosen.flat()[name] if name in sizes.ASKED else 448 if name == "size" else value
            assert full.flat()[name] == expected, name
        assert (full.settings if not hasattr(full.settings, "teacher") else full.settings.temperature) == (
            chosen.settings if not hasattr(chosen.settings, "teacher") else 5.0
        )
        assert full.training.seed == chosen.training.seed
    assert for_profile(distilled(teacher="small", network="small_narrow")[0], "full").settings.teacher == "resnet18"


def test_a_recipe_of_full_size_is_not_enlarged_again():
    chosen = recipe(network="vgg19_bn", epochs=40, size=448, data="coco2014")
    assert for_profile(chosen, "full") is chosen is for_profile(chosen, "course")
    assert for_profile(chosen, "smoke").training.epochs == 2


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "huge")
    with pytest.raises(ValueError, match="UDLIB_PROFILE is 'huge': choose one of smoke, course, full"):
        sizes.profile()


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_has_a_speed_and_its_number_of_parameters(name):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in backbone(name).parameters())
    assert PARAMETERS[name] == pytest.approx(count / 1e6, rel=0.01) and (SPEED | LITE_SPEED)[name] > 0


def test_a_forecast_adds_up_images_epochs_the_teachers_passes_and_the_second_half():
    full = {"data": "voc2007", "size": 448, "epochs": 20}
    assert seconds(recipe()) == 2000 * 40 / 1000
    assert seconds(recipe(limit=500)) == 500 * 40 / 1000
    assert seconds(recipe(network="resnet18", **full)) == pytest.approx(5011 * 20 / 900)
    taught = recipe("distillation", network="resnet18", teacher="resnet101", **full)
    assert seconds(taught) == pytest.approx(5011 * 20 * (1 / 900 + 1 / 630))
    assert seconds(recipe("distillation", teacher="small_wide")) == 2000 * 40 / 1000, (
        "its answers are stored beforehand"
    )
    hard, ud = (recipe("self_distillation", network="resnet18", distil=distil, **full) for distil in (False, True))
    assert seconds(hard) == pytest.approx(5011 * 20 * 2 / 900) and seconds(ud) == pytest.approx(
        5011 * 20 * (2 + 1 / 3) / 900
    )


def test_the_forecast_of_a_pretrained_network_grows_with_its_pixels():
    photo = {"data": "photos", "size": 240, "crop": 128, "epochs": 10, "network": "efficientnet_lite0"}
    assert seconds(recipe(**photo)) == pytest.approx(1316 * 10 / LITE_SPEED["efficientnet_lite0"])
    assert seconds(recipe(**photo | {"crop": 256})) == pytest.approx(4 * seconds(recipe(**photo)))
    assert seconds(recipe(**photo | {"network": "timm:resnet10t"})) == seconds(recipe(**photo)), (
        "as for the smallest one"
    )


def test_results_on_photographs_are_not_made_smaller_in_smoke():
    assert sizes.for_profile(recipe(data="photos"), "smoke") == recipe(data="photos")
    assert sizes.for_profile(recipe(), "smoke").limit == 96


def test_the_basis_of_a_forecast_says_that_it_is_assumed_and_at_which_speed():
    assert "assumed, not measured" in sizes.ASSUMED and f"resnet101 {SPEED['resnet101']}" in sizes.ASSUMED
    for name, giga in (
        ("resnet18", 1.81),
        ("resnet101", 7.80),
        ("vgg19_bn", 19.63),
    ):  # multiply-adds of a pass at 224 px
        assert SPEED[name] == pytest.approx(40e12 / (3 * 2 * 4 * giga * 1e9), rel=0.06)
