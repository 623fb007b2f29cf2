"""Images that are missing or cannot be decoded: refused with a remedy that can be typed, or left out and counted."""

import json
import shutil

import pytest
from commands import udlib_command
from trees import coco_tree, csv_tree, nus_tree, voc_tree

import udlib.workshop
from udlib.datasets import find_dataset, open_dataset
from udlib.datasets import readable as module
from udlib.datasets.layouts import source
from udlib.datasets.readable import unreadable, unusable
from udlib.models import load
from udlib.workshop import settings, train_model

MAKERS = {"voc": voc_tree, "coco": coco_tree, "nuswide": nus_tree, "csv": csv_tree}
QUICK = ("--network", "small_narrow", "--epochs", "1", "--size", "24", "--batch", "16")


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return {layout: make(root / layout, 40) for layout, make in MAKERS.items()}


@pytest.fixture
def damaged(whole, tmp_path):
    """A copy of a tree whose test split lacks its first image, and whose second one is half a file; their ids."""

    def damage(layout):
        root = shutil.copytree(whole[layout], tmp_path / layout)
        part = open_dataset(root, "test")
        part.image_path(0).unlink()
        part.image_path(1).write_bytes(part.image_path(1).read_bytes()[:300])
        return root, part.ids

    return damage


@pytest.mark.parametrize("layout", MAKERS)
def test_every_layout_drops_missing_and_broken_images_and_says_which(damaged, layout):
    root, ids = damaged(layout)
    with pytest.raises(FileNotFoundError, match=r"--missing drop \(in Python missing='drop'\)"):
        open_dataset(root, "test")
    data = open_dataset(root, "test", missing="drop")
    assert data.ids == ids[2:] and [name for name, _ in data.skipped] == ids[:2]
    assert "is missing" in data.skipped[0][1] and "cannot be decoded" in data.skipped[1][1]
    assert len(data.targets) == len(data.objects) == len(ids) - 2 and data.image(0).size == (24, 16)
    quick = open_dataset(root, "test", missing="absent")
    assert quick.ids == ids[1:] and len(quick.skipped) == 1
    with pytest.raises(ValueError, match=r"cannot be decoded .*--missing drop \(in Python missing='drop'\)"):
        quick.image(0)
    assert find_dataset(root, missing="drop").open("test").ids == ids[2:]
    with pytest.raises(ValueError, match="missing is 'skip': expected 'raise', 'drop', 'absent'"):
        open_dataset(root, "test", missing="skip")


def test_a_split_of_which_nothing_can_be_read_is_refused(whole, tmp_path):
    for layout in MAKERS:
        root = shutil.copytree(whole[layout], tmp_path / layout)
        part = open_dataset(root, "test")
        for i in range(len(part)):
            part.image_path(i).write_bytes(b"no picture")
        with pytest.raises(ValueError, match="cannot be decoded"):
            open_dataset(root, "test", missing="drop")
        code, out, _ = udlib_command("data", "check", root, "--missing", "drop")
        assert code == 1 and f"WRONG split 'test': {len(part)} of {len(part)} images are left out" in out


def test_files_are_decoded_once_as_long_as_they_do_not_change(damaged, monkeypatch):
    root, _ = damaged("csv")
    paths = sorted((root / "images").iterdir())
    decoded, real = [], module.load_rgb
    monkeypatch.setattr(module, "SMALLEST", 10)
    monkeypatch.setattr(module, "load_rgb", lambda path: decoded.append(path) or real(path))
    first = unreadable(paths)
    assert [paths[i].name for i in first] == ["0031.jpg"] and len(decoded) == len(paths)
    assert unreadable(paths) == first and len(decoded) == len(paths)
    shutil.copy(paths[0], paths[list(first)[0]])
    assert unreadable(paths) == {} and len(decoded) == 2 * len(paths)


def test_a_damaged_answer_is_not_believed(damaged, monkeypatch, tmp_path):
    root, _ = damaged("csv")
    paths = sorted((root / "images").iterdir())
    monkeypatch.setattr(module, "SMALLEST", 10)
    first = unreadable(paths)
    [kept] = (tmp_path / "data" / "cache").iterdir()
    for content in (b"", b"[1]", b'{"x": "y"}'):
        kept.write_bytes(content)
        assert unreadable(paths) == first
    assert json.loads(kept.read_bytes()) == {str(row): reason for row, reason in first.items()}


def test_what_is_missing_and_what_is_broken_come_in_the_order_of_the_list(damaged):
    root, ids = damaged("csv")
    paths = [root / "images" / name for name in ids]
    assert list(unusable(paths[::-1])) == [len(ids) - 2, len(ids) - 1]
    assert list(unusable(paths, decode=False)) == [0]


def test_check_train_and_evaluate_agree_on_what_is_left_out(damaged, tmp_path):
    root, ids = damaged("nuswide")
    out = tmp_path / "model"
    code, text, _ = udlib_command("data", "check", root)
    assert code == 1 and text.count("WRONG") == 2
    code, text, _ = udlib_command("data", "check", root, "--missing", "drop")
    assert code == 0 and f"note  split 'test': 2 of {len(ids)} images are left out" in text
    code, _, wrong = udlib_command("train", root, "--out", out, *QUICK)
    assert code == 2 and "--missing drop" in wrong and wrong.count("\n") == 1
    code, text, _ = udlib_command("train", root, "--out", out, *QUICK, "--missing", "drop")
    assert code == 0 and "test: 2 images are left out (first: image '" in text
    model = load(out)
    assert model.provenance["left_out"]["test"] == 2 and model.provenance["images"]["test"] == len(ids) - 2
    code, text, _ = udlib_command("evaluate", root, "--model", out, "--missing", "drop", "--csv", tmp_path / "a.csv")
    assert code == 0 and f"{len(ids) - 2} images of 'test'" in text and "test: 2 images are left out" in text
    rows = dict(line.split(",")[:2] for line in (tmp_path / "a.csv").read_text().splitlines())
    assert float(rows["NLL"]) == pytest.approx(model.metrics["test"]["uncalibrated"]["NLL"], abs=1e-12)
    assert udlib_command("evaluate", root, "--model", out)[0] == 2


def test_a_broken_image_of_test_stops_a_training_before_its_first_epoch(whole, tmp_path):
    root = shutil.copytree(whole["csv"], tmp_path / "csv")
    path = open_dataset(root, "test").image_path(1)
    path.write_bytes(path.read_bytes()[:200])
    code, out, err = udlib_command("train", root, "--out", tmp_path / "model", *QUICK)
    assert code == 2 and path.name in err and "--missing drop" in err and "epoch 1" not in out + err
    assert not (tmp_path / "model").exists()
    assert udlib_command("data", "check", root)[0] == 1


def test_a_training_in_python_takes_the_same_data_set(damaged, tmp_path):
    root, ids = damaged("csv")
    recipe = settings(network="small_narrow", epochs=1, size=24, batch_size=16)
    model = train_model(find_dataset(root, missing="drop"), tmp_path / "model", recipe)
    assert model.provenance["images"]["test"] == len(ids) - 2 and model.provenance["data"] == root.name


@pytest.mark.parametrize("command", ["train", "distill", "parallel", "detection"])
def test_every_training_hands_the_option_on(whole, tmp_path, monkeypatch, command):
    handed = []

    def stop(data, *_, **__):
        handed.append(data)
        raise SystemExit(7)  # far enough

    monkeypatch.setattr(udlib.workshop, "train_model", stop)
    monkeypatch.setattr(udlib.workshop, "partitioned", stop)
    words = ()
    if command == "distill":
        recipe = settings(network="small_narrow", epochs=1, size=24, batch_size=16)
        train_model(whole["csv"], tmp_path / "teacher", recipe)
        words = ("--teacher", tmp_path / "teacher")
    for missing, options in (("drop", {"missing": "drop"}), ("fail", None)):
        assert udlib_command(command, whole["csv"], *words, *QUICK, "--missing", missing)[0] == 7
        assert getattr(handed.pop(), "options", None) == options


@pytest.mark.parametrize(
    "words", ["train", "distill", "parallel", "detection", "evaluate", "data describe", "data check"]
)
def test_every_command_that_reads_a_data_set_has_the_option(words):
    assert "--missing" in udlib_command(*words.split(), "--help")[1]


@pytest.mark.parametrize("words", [("train",), ("data", "describe"), ("data", "check")])
def test_another_value_is_refused(whole, words):
    code, _, wrong = udlib_command(*words, whole["csv"], "--missing", "skip")
    assert code == 2 and wrong == "udlib: --missing is 'skip': expected drop or fail\n"


def test_describe_leaves_out_what_is_missing_unless_it_is_to_fail(damaged):
    for layout in MAKERS:
        root, ids = damaged(layout)
        code, _, err = udlib_command("data", "describe", root, "--no-sizes")
        assert code == 0 and "test: 1 listed image missing" in err
        assert udlib_command("data", "describe", root, "--no-sizes", "--missing", "fail")[0] == 2


def test_a_set_that_is_made_here_lacks_nothing_and_photos_is_read_whole():
    assert find_dataset("scenes", missing="drop") == "scenes"
    assert len(open_dataset("digits", "val", 32, missing="drop"))
    with pytest.raises(ValueError, match="'photos' is one fixed set"):
        source("photos", missing="drop")
