import json
import os
import time

import numpy as np
import pytest
from forks import FORKS, PATIENCE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest
from trees import LeavesATrace

from udlib.datasets.annotator import DIFFICULT_BELOW, annotate, is_difficult, label_posterior, marking_probability
from udlib.datasets.base import Box
from udlib.datasets.voc import VOC, read_truth
from udlib.datasets.voc_writer import SceneObject, SceneRecord, ensure_voc, read_version, write_voc

CLASSES = ("car", "sea & <sky>")
VISIBILITY = st.floats(0, 1)


def thing(name, box, visibility=0.9, marked=True, difficult=False, truncated=False, occluded=False):
    return SceneObject(name, box, truncated, occluded, difficult, marked, visibility)


def scene(name, *objects, size=(10, 20)):
    image = np.zeros((*size, 3), np.uint8)
    image[:, :, 0] = np.linspace(0, 255, size[1])
    return SceneRecord(name, image, objects)


SPLITS = {
    "train": [
        scene("train_0", thing("car", (0, 0, 20, 10), truncated=True), thing("car", (3, 4, 5, 6), 0.2, marked=False)),
        scene("train_1", thing("sea & <sky>", (1, 2, 3, 4), 0.25, difficult=True, occluded=True)),
        scene("train_2", *(thing("car", (0, 0, 9, 9), difficult=flag) for flag in (True, False, True))),
    ],
    "val": [scene("val_0")],
}


def test_the_loader_reads_what_the_writer_wrote(tmp_path):
    write_voc(tmp_path / "set", SPLITS, CLASSES, {"generator": "toy"})
    train, val = VOC(tmp_path / "set", "train"), VOC(tmp_path / "set", "val")
    assert train.classes == CLASSES and train.ids == ["train_0", "train_1", "train_2"] and val.ids == ["val_0"]
    assert train.boxes(0) == [Box("car", 0, 0, 20, 10, truncated=True)]
    assert train.boxes(1) == [Box("sea & <sky>", 1, 2, 3, 4, occluded=True, difficult=True)]
    assert train.targets.tolist() == [[1, 0], [0, 1], [1, 0]] and train.difficult.nonzero().tolist() == [[1, 1]]
    assert val.targets.tolist() == [[0, 0]] and train.check() == val.check() == []
    pi = marking_probability([0.9, 0.2, 0.25])
    expected = np.array([[1 - (1 - pi[0]) * (1 - pi[1]), 0], [0, pi[2]], [1 - (1 - pi[0]) ** 3, 0]])
    assert np.allclose(train.posterior.numpy(), expected, atol=1e-7) and val.posterior.tolist() == [[0, 0]]
    difference = np.asarray(train.image(0)).astype(int) - SPLITS["train"][0].image
    assert np.abs(difference).max() <= 6


def test_class_files_hold_the_three_states(tmp_path):
    write_voc(tmp_path / "set", SPLITS, CLASSES, {})
    main = tmp_path / "set" / "ImageSets" / "Main"
    assert (main / "car_train.txt").read_text() == "train_0  1\ntrain_1 -1\ntrain_2  1\n"
    assert (main / "sea & <sky>_train.txt").read_text() == "train_0 -1\ntrain_1  0\ntrain_2 -1\n"
    assert (main / "val.txt").read_text() == "val_0\n"


def test_jpegs_keep_full_colour_resolution(tmp_path):
    write_voc(tmp_path / "set", SPLITS, CLASSES, {})
    with Image.open(tmp_path / "set" / "JPEGImages" / "val_0.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


def test_the_truth_lists_every_object_marked_or_not(tmp_path):
    write_voc(tmp_path / "set", SPLITS, CLASSES, {})
    truth = read_truth(tmp_path / "set")
    assert truth["ids"].tolist() == ["train_0", "train_1", "train_2", "val_0"]
    assert truth["classes"].tolist() == list(CLASSES)
    assert truth["object_image"].tolist() == [0, 0, 1, 2, 2, 2] and truth["object_class"].tolist() == [0, 0, 1, 0, 0, 0]
    assert truth["object_marked"].tolist() == [True, False, True, True, True, True]
    assert np.allclose(truth["object_visibility"], [0.9, 0.2, 0.25, 0.9, 0.9, 0.9])
    assert truth["object_box"][:3].tolist() == [[0, 0, 20, 10], [3, 4, 5, 6], [1, 2, 3, 4]]


@pytest.mark.parametrize("name", ["ids", "classes", "posterior", "object_box"])
def test_nothing_in_the_truth_is_unpickled(tmp_path, name):
    root, trace = tmp_path / "set", tmp_path / "trace"
    write_voc(root, SPLITS, CLASSES, {})
    truth = read_truth(root)
    np.savez_compressed(root / "truth.npz", **truth | {name: np.array([LeavesATrace(trace)], dtype=object)})
    for read in (read_truth, lambda root: VOC(root, "train")):
        with pytest.raises(ValueError, match="truth.npz' is not readable .*allow_pickle"):
            read(root)
    assert not trace.exists()


def test_a_posterior_follows_the_order_of_the_classes_and_a_foreign_one_is_refused(tmp_path):
    root = tmp_path / "set"
    write_voc(root, SPLITS, CLASSES, {})
    straight, swapped = VOC(root, "train"), VOC(root, "train", classes=CLASSES[::-1])
    assert swapped.posterior.tolist() == straight.posterior.flip(1).tolist()
    assert straight.subset([1]).posterior.tolist() == [straight.posterior[1].tolist()]
    with pytest.raises(ValueError, match="does not list 'dog'"):
        VOC(root, "train", classes=[*CLASSES, "dog"])
    (root / "truth.npz").write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="truth.npz' is not readable"):
        VOC(root, "train")
    (root / "truth.npz").unlink()
    assert VOC(root, "train").posterior is None
    with pytest.raises(FileNotFoundError, match="truth.npz"):
        read_truth(root)


@pytest.mark.parametrize(
    "records, message",
    [
        ([scene("a"), scene("a")], "'a' is repeated"),
        ([scene("../a")], "'../a'"),
        ([scene("a", thing("boat", (0, 0, 1, 1)))], "'boat'"),
        ([scene("a", thing("car", (0, 0, 1, 1), visibility=1.5))], "1.5"),
    ],
)
def test_an_unusable_record_is_refused_and_leaves_nothing(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        write_voc(tmp_path / "set", {"train": records}, CLASSES, {})
    assert list(tmp_path.iterdir()) == []


def test_a_class_name_that_cannot_be_a_file_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'a/b'"):
        write_voc(tmp_path / "set", SPLITS, ["a/b"], {})


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        write_voc(tmp_path / "set", SPLITS, CLASSES, {})
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_never_overwritten(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not empty"):
        write_voc(tmp_path / "set", SPLITS, CLASSES, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine.txt"]


def lazily(calls=None):
    def draw(split):
        if calls is not None:
            calls.append(split)
        return iter(SPLITS[split])

    return {split: (len(records), lambda split=split: draw(split)) for split, records in SPLITS.items()}


def test_a_data_set_is_made_once_and_found_again(tmp_path):
    calls = []
    for _ in range(2):
        ensure_voc(tmp_path / "set", lazily(calls), CLASSES, name="toy", version=1, size=20)
    assert calls == ["train", "val"]
    expected = {"generator": "toy", "version": 1, "size": 20, "counts": {"train": 3, "val": 1}}
    assert read_version(tmp_path / "set") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with pytest.raises(ValueError, match="'version': 1.*'version': 2.*delete that folder"):
        ensure_voc(tmp_path / "set", lazily(), CLASSES, name="toy", version=2, size=20)
    (tmp_path / "set" / "VERSION").write_text("half a fi")
    with pytest.raises(ValueError, match="files without a VERSION"):
        ensure_voc(tmp_path / "set", lazily(), CLASSES, name="toy", version=1, size=20)


def test_of_two_processes_that_make_the_same_folder_the_second_takes_the_first_ones(tmp_path):
    def overtaken():
        ensure_voc(tmp_path / "set", lazily(), CLASSES, name="toy", version=1, size=20)
        return iter(SPLITS["train"])

    splits = {**lazily(), "train": (3, overtaken)}
    ensure_voc(tmp_path / "set", splits, CLASSES, name="toy", version=1, size=20)
    assert [path.name for path in tmp_path.iterdir()] == ["set"] and len(VOC(tmp_path / "set", "train")) == 3


def generate_without_end(root, busy):
    """Writes a set of a billion images, and says so after the fiftieth."""

    def draw():
        for i in range(10**9):
            if i == 50:
                busy.send("busy")
            yield SceneRecord(f"a{i}", np.zeros((8, 8, 3), np.uint8), ())

    ensure_voc(root, {"train": (10**9, draw)}, ["car"], name="toy", version=1, size=8)


def test_a_killed_generation_leaves_no_folder_that_looks_finished(tmp_path):
    root = tmp_path / "set"
    here, there = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=generate_without_end, args=(root, there))
    process.start()
    try:
        assert here.poll(PATIENCE) and here.recv() == "busy"
    finally:
        process.kill()
        process.join()
    [partial] = tmp_path.iterdir()
    assert partial.name.endswith(".partial") and not (partial / "VERSION").exists()
    week_ago = time.time() - 7 * 24 * 3600
    os.utime(partial, (week_ago, week_ago))
    ensure_voc(root, lazily(), CLASSES, name="toy", version=1, size=20)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert json.loads((root / "VERSION").read_text())["counts"] == {"train": 3, "val": 1}


@given(st.tuples(VISIBILITY, VISIBILITY))
@settings(max_examples=50, deadline=None)
def test_the_chance_to_be_marked_rises_with_visibility(pair):
    low, high = marking_probability(sorted(pair))
    assert 0 <= low <= high <= 1


def test_the_annotator_finds_clear_objects_and_misses_half_of_the_difficult_ones():
    assert marking_probability(0.75) > 0.95 and marking_probability(0.0) < 0.15
    assert 0.3 < marking_probability(np.linspace(0.1, DIFFICULT_BELOW, 50)).mean() < 0.7
    assert is_difficult([0.0, DIFFICULT_BELOW, 1.0]).tolist() == [True, False, False]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_visibility_outside_0_and_1_is_refused(value):
    with pytest.raises(ValueError, match="expected numbers within 0 and 1"):
        marking_probability([0.5, value])


def test_the_posterior_is_how_often_an_annotator_marks_the_class():
    index, visibilities, rounds = np.array([0, 2, 2, 0, 3]), np.array([0.05, 0.15, 0.2, 0.25, 0.6]), 20_000
    rng = np.random.default_rng(0)
    hits = np.zeros(5)
    for _ in range(rounds):
        marked = annotate(visibilities, rng)
        hits[np.unique(index[marked])] += 1
    posterior = label_posterior(index, visibilities, 5)
    for count, chance in zip(hits, posterior):
        assert binomtest(int(count), rounds, chance).pvalue > 1e-6
    assert posterior[1] == posterior[4] == 0 and label_posterior([], [], 2).tolist() == [0, 0]


def test_chances_are_computed_in_double_precision():
    v = np.array([0.3, 0.7], dtype=np.float32)
    found = marking_probability(v)
    assert found.dtype == np.float64 and np.array_equal(found, marking_probability(v.astype(np.float64)))
