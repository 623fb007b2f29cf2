"""The attention explorer as plain Python: it shows what the functions of `udlib.attention` return for that picture."""

import html

import pytest
import torch
from lessons import descriptions, drawn
from PIL import Image

from udlib.attention import class_attention, energy_inside, uncertainty_attention
from udlib.backbones import backbone
from udlib.course.explorers import AttentionExplorer
from udlib.datasets.base import Box, MultiLabelDataset, to_memory
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.losses import softmax_kl
from udlib.training.localisation import box_mask

CLASSES = ("boat", "fish", "tree")
OBJECTS = [[Box("boat", 2, 3, 20, 18)], [Box("fish", 0, 0, 9, 9, difficult=True), Box("tree", 12, 4, 30, 31)], []]
ROWS = [2, 1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures of noise on disk: one with an easy object, one with a difficult one too, one with nothing."""
    folder, generator = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(0)
    paths = [folder / f"{k}.png" for k in range(3)]
    for path in paths:
        Image.fromarray(torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8).numpy()).save(path)
    return MultiLabelDataset(CLASSES, [path.stem for path in paths], paths, OBJECTS)


def network(seed, **options):
    torch.manual_seed(seed)
    return DualBranchNet(backbone("small_narrow"), 3, embedding=8, **options)


@pytest.fixture(scope="module")
def models():
    return {"teacher": network(0), "max": network(1, pooling="max"), "baseline": network(2, calibration=False)}


@pytest.fixture
def explorer(models, pictures):
    return AttentionExplorer(models, pictures, ROWS, size=32)


def seen(model, pictures, row):
    with torch.no_grad():
        return model.eval()(normalise(to_memory(pictures.subset([row]), 32)))


def words(explorer):
    return html.unescape(explorer.readout.value)


def test_the_sliders_offer_the_given_pictures_networks_and_maps_and_nothing_between(explorer):
    assert {name: list(slider.options) for name, slider in explorer.sliders.items()} == {
        "picture": ROWS,
        "network": ["teacher", "max", "baseline"],
        "map": list(AttentionExplorer.MAPS),
    }
    assert explorer.value == (2, "teacher", "uncertainty")
    with pytest.raises(ValueError, match="picture = 0 was not loaded: choose one of 2, 1"):
        explorer.move(picture=0)


@pytest.mark.parametrize("name", ["teacher", "max"])
@pytest.mark.parametrize("row", ROWS)
def test_the_map_is_that_of_this_picture_and_this_network(explorer, models, pictures, name, row):
    own_map, what = explorer.look(row, name, "uncertainty")
    prediction = seen(models[name], pictures, row)
    expected = uncertainty_attention(models[name].head, prediction.features, models[name].pooling)[0]
    torch.testing.assert_close(own_map.clone(), expected, rtol=1e-3, atol=1e-6)
    assert what == "uncertainty attention"
    p = torch.sigmoid(prediction.logits[0])
    for kind, class_index in (("most probable class", p.argmax()), ("least certain class", (p - 0.5).abs().argmin())):
        own_map, what = explorer.look(row, name, kind)
        expected = class_attention(
            models[name].head, prediction.features, int(class_index), models[name].pooling, relu=False
        )[0]
        torch.testing.assert_close(own_map.clone(), expected, rtol=1e-3, atol=1e-5)
        assert what == f"{CLASSES[class_index]}, p = {p[class_index]:.2f}"


def test_moving_changes_the_picture_and_the_readings(explorer):
    shown = set()
    for row in ROWS:
        for name in ("teacher", "max"):
            for kind in AttentionExplorer.MAPS[:2]:
                explorer.move(picture=row, network=name, map=kind)
                assert "Error" not in explorer.readout.value
                shown.add((drawn(explorer), explorer.readout.value))
    assert len({picture for picture, _ in shown}) == 8
    # On picture 2, which has no objects, the readings of both maps are those of the network.
    assert len({readings for _, readings in shown}) == 6


def test_the_readings_are_the_divergence_and_the_shares_on_objects(explorer, models, pictures):
    explorer.move(picture=1, network="teacher")
    prediction = seen(models["teacher"], pictures, 1)
    divergence = softmax_kl(prediction.calibration_logits, prediction.logits)
    assert f"<b>{divergence:.3f} nats</b>" in words(explorer)
    heat = uncertainty_attention(models["teacher"].head, prediction.features)
    for group, box in (("difficult", OBJECTS[1][0]), ("easy", OBJECTS[1][1])):
        mask = box_mask([box], (32, 32), 32)[None]
        plus, minus = (energy_inside(sign * heat, mask) for sign in (1, -1))
        values = ["–" if part.isnan() else f"{100 * part.item():.0f} %" for part in (plus, minus, mask.double().mean())]
        assert f"on {group} objects<br><b>+ {values[0]}, − {values[1]}, picture {values[2]}</b>" in words(explorer)


def test_a_picture_without_objects_says_so(explorer):
    assert words(explorer).count("<b>none here</b>") == 2


def test_a_network_without_the_branch_has_no_uncertainty_map_but_class_maps(explorer):
    explorer.move(network="baseline")
    assert explorer.look(2, "baseline", "uncertainty") == (None, "no calibration branch")
    assert "Error" not in words(explorer) and "KL of the heads<br><b>–</b>" in words(explorer)
    without = drawn(explorer)
    explorer.move(map="most probable class")
    assert explorer.look(2, "baseline", "most probable class")[0] is not None and drawn(explorer) != without


def test_a_description_in_words_stands_beside_the_picture(explorer):
    (alt,) = descriptions(explorer.picture.value)
    assert alt.startswith("picture 2, teacher, uncertainty attention: KL of the heads ")


def test_a_frame_is_drawn_when_it_is_looked_at_and_kept(models, pictures, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        AttentionExplorer,
        "frame",
        lambda self, *value, draw=AttentionExplorer.frame: (drawn.append(value), draw(self, *value))[1],
    )
    explorer = AttentionExplorer({"teacher": models["teacher"]}, pictures, ROWS, size=32)
    assert drawn == [(2, "teacher", "uncertainty")]
    for row in (1, 2, 1):
        explorer.move(picture=row)
    assert len(drawn) == 2
    AttentionExplorer({"teacher": models["teacher"]}, pictures, ROWS, size=32, warm=True)
    assert len(set(drawn)) == 6


@pytest.mark.parametrize("networks, rows", [({}, ROWS), (None, [])])
def test_without_networks_or_pictures_it_says_what_is_missing(models, pictures, networks, rows):
    with pytest.raises(ValueError, match="give at least one of each"):
        AttentionExplorer(models if networks is None else networks, pictures, rows, size=32)


def test_a_network_gets_the_colours_and_the_side_that_it_expects(pictures):
    symmetric, usual = network(3), network(4)
    symmetric.backbone.mean = symmetric.backbone.std = (0.5, 0.5, 0.5)
    explorer = AttentionExplorer(
        {"symmetric": symmetric, "usual": usual}, pictures, ROWS, 32, crop={"symmetric": 16, "usual": 0}
    )
    pixels = to_memory(pictures.subset(ROWS), 32).float() / 255
    small = torch.nn.functional.interpolate(pixels, (16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = symmetric.eval()(2 * small - 1)
    torch.testing.assert_close(explorer.predictions["symmetric"].logits.clone(), expected.logits, rtol=1e-4, atol=1e-5)
    assert explorer.predictions["symmetric"].features.shape[-2:] == (2, 2)
    whole = seen(usual, pictures, ROWS[0])
    torch.testing.assert_close(explorer.predictions["usual"].logits[:1].clone(), whole.logits, rtol=1e-4, atol=1e-5)
    assert "cells of the map<br><b>2 × 2</b>" in words(explorer)


def test_the_side_of_each_network_is_wanted(models, pictures):
    with pytest.raises(ValueError, match="crop has no side for 'max': give one for each of teacher, max, baseline"):
        AttentionExplorer(models, pictures, ROWS, size=32, crop={"teacher": 16})
