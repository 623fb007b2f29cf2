from itertools import product
from pathlib import Path

import numpy as np
import pytest

from udlib.datasets import scenes as module
from udlib.datasets.annotator import marking_probability
from udlib.datasets.drawing import CLASSES, KINDS, Look, Sketch
from udlib.datasets.scenes import CONTEXTS, COUNTS, Item, Layout, layout, record, scenes, visibility
from udlib.datasets.voc import read_truth

REFERENCE = np.load(Path(__file__).parent / "reference" / "scenes_v1.npz")
SPLITS = ("train", "val", "test")
FEW = {"train": 24, "val": 8, "test": 8}


def test_version_1_is_frozen_pixels_to_one_grey_level_and_labels_exactly():
    images = [record(index, split).image for split in SPLITS for index in range(3)]
    assert np.abs(np.stack(images).astype(int) - REFERENCE["images"]).max() <= 1
    objects = [
        (SPLITS.index(split), index, CLASSES.index(o.name), o.marked, o.difficult, *o.box)
        for split in SPLITS
        for index in range(40)
        for o in record(index, split).objects
    ]
    np.testing.assert_array_equal(np.array(objects, np.int16), REFERENCE["objects"])


def test_same_files_for_any_number_of_workers(tmp_path):
    for workers in (1, 2):
        scenes("train", root=tmp_path / str(workers), counts=FEW, workers=workers)
    files = sorted(p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*") if p.is_file())
    assert len(files) > 80
    for name in files:
        if name.suffix == ".npz":  # a zip archive holds the time at which it was written
            one, two = (np.load(tmp_path / w / name) for w in "12")
            assert all((one[k] == two[k]).all() for k in one)
        else:
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_labels_and_visibility_do_not_depend_on_the_size_and_boxes_scale():
    for index in range(12):
        small, large = record(index, "val", 64), record(index, "val", 128)
        assert large.image.shape == (128, 128, 3)
        described = {(o.name, o.marked, o.difficult, o.visibility) for o in small.objects}
        assert described <= {(o.name, o.marked, o.difficult, o.visibility) for o in large.objects}
        if len(small.objects) == len(large.objects):
            for a, b in zip(small.objects, large.objects):
                assert np.abs(2 * np.array(a.box) - np.array(b.box)).max() <= 4


def test_posterior_is_the_marking_frequency_of_annotators_who_see_the_scene_again(tmp_path):
    data = scenes("train", root=tmp_path / "s", counts=FEW)
    truth, rng, times = read_truth(data.root), np.random.default_rng(0), 4000
    chance = marking_probability(truth["object_visibility"])
    counted = np.zeros((len(truth["ids"]), len(CLASSES)))
    for _ in range(times):
        marked = rng.random(len(chance)) < chance
        label = np.zeros_like(counted, dtype=bool)
        label[truth["object_image"][marked], truth["object_class"][marked]] = True
        counted += label
    posterior = truth["posterior"]
    error = np.sqrt(posterior * (1 - posterior) / times) + 1e-3
    assert (np.abs(counted / times - posterior) < 5 * error).all()
    rows = [list(truth["ids"]).index(name) for name in data.ids]
    np.testing.assert_array_equal(data.posterior.numpy(), posterior[rows].astype(np.float32))


def test_an_unmarked_object_is_in_the_truth_but_not_in_the_annotation(tmp_path):
    data = scenes("train", root=tmp_path / "s", counts=FEW)
    truth = read_truth(data.root)
    drawn = np.isin(truth["object_image"], [list(truth["ids"]).index(name) for name in data.ids])
    assert sum(len(data.boxes(i)) for i in range(len(data))) == truth["object_marked"][drawn].sum() < drawn.sum()
    assert data.check() == []


def test_visibility_is_the_product_of_size_contrast_frame_and_occluders():
    for size, contrast, framed, free in product((0.1, 0.33, 0.7), (0.2, 1.0), (0.5, 1.0), (0.0, 1.0)):
        expected = min(1, size / 0.33) ** 0.75 * contrast * framed * free
        assert visibility(size, contrast, framed, free) == pytest.approx(expected)


def make_scene(*items):
    plain = Look((0.8, 0.2, 0.2), 0.3, False, 0.0)
    return Layout("street", 1.0, (1.0, 1.0, 1.0), tuple(Item(name, x, y, s, c, plain) for name, x, y, s, c in items))


def test_a_nearer_thing_hides_a_farther_one_and_not_the_other_way_round():
    scene = make_scene(("apple", 0.5, 0.5, 0.2, 1.0), ("ball", 0.5, 0.5, 0.4, 1.0))
    _, framed, free = module._draw(scene, 64, None)
    assert framed[0] == framed[1] == 1 and free[1] == 1 and free[0] == 0


def test_a_thing_half_outside_is_half_framed_and_its_box_ends_at_the_edge():
    boxes, framed, _ = module._draw(make_scene(("orange", 0.0, 0.5, 0.4, 1.0)), 64, None)
    assert framed[0] == pytest.approx(0.5, abs=0.05)
    assert boxes[0][0] == 0 and boxes[0][2] == pytest.approx(0.2 * 0.86 * 64, abs=1.5)


def test_a_thing_outside_has_no_box():
    boxes, framed, _ = module._draw(make_scene(("orange", -0.5, 0.5, 0.2, 1.0)), 64, None)
    assert boxes == [None] and framed[0] == 0


def test_contrast_blends_a_thing_with_what_is_behind_it():
    def centre(contrast):
        picture = np.zeros((64, 64, 3), np.float32)
        module._draw(make_scene(("orange", 0.5, 0.5, 0.4, contrast)), 64, picture)
        return picture[38, 32]

    np.testing.assert_allclose(centre(0.25), 0.25 * centre(1.0), rtol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_fills_a_fair_part_of_its_square_and_little_of_the_margin(name):
    sketch = Sketch(40, Look((0.5, 0.5, 0.5), 0.3, False, 0.0))
    KINDS[name].paint(sketch)
    cover = sketch.rgba[..., 3]
    assert 0.15 < cover.mean() < 0.9 and cover.max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_is_cut_off_however_it_is_tilted(name):
    for tilt in (-KINDS[name].tilt, 0.0, KINDS[name].tilt):
        sketch = Sketch(200, Look((0.5, 0.5, 0.5), 0.3, False, tilt))
        KINDS[name].paint(sketch)
        cover = sketch.rgba[..., 3]
        edge = np.concatenate([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
        assert edge.max() < 0.5


def test_colours_are_premultiplied_by_the_coverage():
    sketch = Sketch(40, Look((1.0, 1.0, 1.0), 0.3, False, 0.0))
    KINDS["apple"].paint(sketch)
    cover = sketch.rgba[..., 3]
    assert (sketch.rgba[..., :3] <= cover[..., None] + 1e-5).all(), "colours are premultiplied"


def test_contexts_are_whole():
    assert sum(c.chance for c in CONTEXTS.values()) == pytest.approx(1)
    assert COUNTS.sum() == pytest.approx(1)
    assert {name for c in CONTEXTS.values() for name in c.objects} == set(CLASSES)


def test_layouts_run_from_far_to_near_and_hold_only_what_belongs_there():
    for seed in range(50):
        scene = layout(np.random.default_rng(seed))
        assert {i.name for i in scene.items} <= set(CONTEXTS[scene.context].objects)
        feet = [i.y + i.size / 2 for i in scene.items]
        assert feet == sorted(feet)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="no split 'trainval': choose one of train, val, test"):
        scenes("trainval")
