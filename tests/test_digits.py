import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits

from udlib.datasets.annotator import DIFFICULT_BELOW, annotate, label_posterior
from udlib.datasets.digits import CLASSES, SPLITS, digits, glyphs, record, visibility
from udlib.datasets.voc import read_truth

COUNTS = {"train": 60, "val": 20, "test": 20}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "set"
    digits("train", root=folder, counts=COUNTS)
    return folder


def same(a, b):
    return a.id == b.id and a.objects == b.objects and np.array_equal(a.image, b.image)


def test_a_picture_depends_on_its_number_and_split_alone():
    forwards = [record(i, "train") for i in range(12)]
    backwards = [record(i, "train") for i in reversed(range(12))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards))
    assert not np.array_equal(forwards[0].image, record(0, "val").image)
    assert len({scene.image.tobytes() for scene in forwards}) == 12


def test_no_glyph_serves_two_splits_and_none_is_lost():
    glyph_sets = [{(k, g.tobytes()) for k in range(10) for g in glyphs(split)[k]} for split in SPLITS]
    assert not (glyph_sets[0] & glyph_sets[1] or glyph_sets[0] & glyph_sets[2] or glyph_sets[1] & glyph_sets[2])
    everything = {(k, image.tobytes()) for k, image in zip(*_scans())}
    assert set.union(*glyph_sets) == everything
    assert sum(len(glyphs(split)[k]) for split in SPLITS for k in range(10)) == 1797


def _scans():
    bunch = load_digits()
    return bunch.target, np.pad(bunch.images / 16, ((0, 0), (1, 1), (1, 1))).astype(np.float32)


def test_the_folder_holds_what_was_drawn(root):
    data = digits("val", root=root, counts=COUNTS)
    assert data.classes == CLASSES and len(data) == 20 and data.check() == []
    for i in range(len(data)):
        drawn = record(i, "val")
        marked = [item for item in drawn.objects if item.marked]
        assert [(b.name, (b.xmin, b.ymin, b.xmax, b.ymax)) for b in data.boxes(i)] == [(m.name, m.box) for m in marked]
        for box, item in zip(data.boxes(i), marked):
            assert (box.truncated, box.occluded, box.difficult) == (item.truncated, item.occluded, item.difficult)
            assert box.difficult == (item.visibility < DIFFICULT_BELOW)
        present = {CLASSES.index(item.name) for item in marked}
        assert set(data.targets[i].nonzero().flatten().tolist()) == present
        error = np.abs(np.asarray(data.image(i)).astype(int) - drawn.image)
        assert error.max() <= 12 and error.mean() < 2


def test_the_posterior_is_how_often_the_label_appears_under_many_annotators(root):
    truth, rounds = read_truth(root), 4000
    rng = np.random.default_rng(1)
    data = digits("train", root=root, counts=COUNTS)
    for i in range(5):
        mine = truth["object_image"] == i
        index, visibilities = truth["object_class"][mine], truth["object_visibility"][mine]
        marks = annotate(np.broadcast_to(visibilities, (rounds, len(visibilities))), rng)
        labels = np.stack([marks[:, index == k].any(1) for k in range(10)], axis=1)
        posterior = data.posterior[i].numpy().astype(float)
        for hits, chance in zip(labels.sum(0), posterior):
            assert binomtest(int(hits), rounds, chance).pvalue > 1e-6
        assert np.allclose(posterior, label_posterior(index, visibilities, 10), atol=1e-6)


def test_labels_do_not_depend_on_the_size_and_boxes_scale_with_it():
    for i in range(8):
        small, large = record(i, "train"), record(i, "train", size=256)
        assert large.image.shape == (256, 256, 3)
        assert [(o.name, o.marked, o.visibility) for o in small.objects] == [
            (o.name, o.marked, o.visibility) for o in large.objects
        ]
        for a, b in zip(small.objects, large.objects):
            assert np.abs(np.array(a.box) * 4 - b.box).max() <= 6


def test_pictures_are_grey_and_hold_one_to_five_glyphs_of_very_different_frequency():
    scenes = [record(i, "train") for i in range(300)]
    assert all((scene.image[..., :1] == scene.image).all() for scene in scenes)
    counts = [len(scene.objects) for scene in scenes]
    assert min(counts) >= 0 and max(counts) == 5
    drawn = np.bincount([CLASSES.index(item.name) for scene in scenes for item in scene.objects], minlength=10)
    assert drawn.min() > 0 and drawn.max() > 3 * drawn.min()
    flags = np.array([(o.truncated, o.occluded, o.difficult, o.marked) for s in scenes for o in s.objects]).mean(0)
    assert np.all(flags[:3] > 0.03) and np.all(flags[:3] < 0.5) and 0.6 < flags[3] < 0.97


def test_ink_stands_inside_its_box():
    clear = [
        (scene.image, item)
        for scene in (record(i, "test") for i in range(300))
        for item in scene.objects
        if item.visibility > 0.95 and len(scene.objects) == 1
    ]
    assert len(clear) > 3
    for image, item in clear:
        xmin, ymin, xmax, ymax = item.box
        inside = image[ymin:ymax, xmin:xmax, 0].astype(float)
        outside = np.delete(image[..., 0].astype(float), np.s_[ymin:ymax], axis=0)
        assert np.percentile(inside, 90) > outside.max()


def test_visibility_is_a_product_of_what_each_cause_leaves():
    assert visibility([40.0], [0.9], 1.0, 1.0).tolist() == [1.0]
    assert np.isclose(visibility([10.0], [0.225], 0.5, 0.5), 0.5**4).all()


def test_a_split_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no split 'trainval': choose one of train, val, test"):
        digits("trainval")


def test_the_default_folder_stands_below_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    data = digits("test", size=32, counts={"test": 3}, transform=lambda image: torch.zeros(1))
    assert data.root == tmp_path / "digits-v1-32" and data[0][0].shape == (1,) and data.image_size(0) == (32, 32)
