"""Numbers in a model's folder belong to the labels and image files that they were measured on."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import udlib_command
from PIL import Image, ImageOps
from test_cli_models import interrupted
from tiny_voc import write_tiny_voc

import udlib
from udlib.course import data as course_data
from udlib.course import store
from udlib.course.reproduction import stored_runs
from udlib.course.stored_data import require_current
from udlib.datasets.voc import VOC
from udlib.methods import recipe as make_recipe
from udlib.workshop import measured, measurements
from udlib.workshop.measurements import identity_of

pytestmark = pytest.mark.usefixtures("terminal")

QUICK = ("--network", "small_narrow", "--epochs", "2", "--size", "24", "--batch", "16")
COUNTS = {"train": 16, "val": 12, "test": 12}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a data set, and a model that was trained on it."""
    folder = tmp_path_factory.mktemp("original")
    write_tiny_voc(folder / "data", COUNTS)
    assert train(folder)[0] == 0
    return folder


@pytest.fixture
def place(original, tmp_path):
    """A copy of both; files keep their times of change."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def train(folder):
    return udlib_command("train", folder / "data", "--out", folder / "model", *QUICK)


def relabel(folder, split):
    names = {"cat": "dog", "dog": "bike", "bike": "cat"}
    for path in (folder / "data" / "Annotations").glob(f"{split}_*.xml"):
        path.write_text(re.sub(r"<name>(\w+)</name>", lambda m: f"<name>{names[m[1]]}</name>", path.read_text()))


def repaint(folder, split):
    for path in (folder / "data" / "JPEGImages").glob(f"{split}_*"):
        with Image.open(path) as image:
            changed = ImageOps.invert(image.convert("RGB"))
        changed.save(path)


def metrics_are_those_of_the_data(folder, *splits):
    model = udlib.load(folder / "model")
    for split in splits:
        expected = measured(model, VOC(folder / "data", split), 16)
        for kind, numbers in model.metrics[split].items():
            assert numbers == pytest.approx(expected[kind], abs=1e-9, nan_ok=True), (split, kind)


@pytest.mark.parametrize(
    ("change", "reason"), [(relabel, "labels or names of images"), (repaint, "image files")], ids=["labels", "pixels"]
)
def test_a_test_split_that_changed_is_measured_again_by_the_command_of_the_training(place, change, reason):
    before = udlib.load(place / "model")
    change(place, "test")
    code, out, err = train(place)
    assert code == 0 and err == ""
    assert f"'test' is measured again: its {reason} have changed since the stored numbers were measured" in out
    after = udlib.load(place / "model")
    assert after.metrics["test"] != before.metrics["test"] and after.metrics["val"] == before.metrics["val"]
    metrics_are_those_of_the_data(place, "val", "test")
    assert after.metrics["test"]["calibrated"]["mAP"] == pytest.approx(_evaluated(place)["mAP"], abs=1e-12)
    assert "measured again" not in train(place)[1], "once is enough"


def _evaluated(place):
    assert udlib_command("evaluate", place / "data", "--model", place / "model", "--csv", place / "n.csv")[0] == 0
    rows = (line.split(",") for line in (place / "n.csv").read_text().splitlines()[1:])
    return {name: float(calibrated) for name, _, calibrated in rows}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_model_of_other_training_or_validation_images_is_refused(place, split):
    before = (place / "model" / "state.json").read_bytes()
    repaint(place, split)
    code, _, err = train(place)
    assert code == 2 and f"those of '{split}' have changed since; name another folder" in err and err.count("\n") == 1
    assert (place / "model" / "state.json").read_bytes() == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_model_of_other_training_or_validation_labels_is_refused(place, split):
    relabel(place, split)
    code, _, err = train(place)
    assert code == 2 and f"belongs to another training ({split}: saved" in err


def test_files_that_only_have_a_new_time_of_change_are_the_same_data(place):
    before = (place / "model" / "state.json").read_bytes()
    for path in (place / "data" / "JPEGImages").iterdir():
        os.utime(path, (1, 1))
    code, out, _ = train(place)
    assert code == 0 and "measured again" not in out and (place / "model" / "state.json").read_bytes() == before


def test_another_picture_of_the_same_length_and_time_is_noticed(place):
    path = VOC(place / "data", "test").image_path(0)
    content, status = bytearray(path.read_bytes()), path.stat()
    middle = len(content) // 2
    content[middle] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "'test' is measured again: its image files have changed" in train(place)[1]


def test_files_that_nobody_touched_are_not_read_again(place, monkeypatch):
    part = VOC(place / "data", "test")
    known = identity_of(part)
    monkeypatch.setattr(measurements, "ThreadPoolExecutor", lambda *_: pytest.fail("the files are read"))
    assert identity_of(part, known) == known


def test_the_identity_tells_apart_labels_pixels_and_the_order_of_images(place):
    part = VOC(place / "data", "test")
    turned = part.subset(range(len(part) - 1, -1, -1))
    one, other = identity_of(part), identity_of(turned)
    assert one["content"] != other["content"] and one["labels"] != other["labels"]
    path = part.image_path(3)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert identity_of(part)["content"] != one["content"] and identity_of(part)["labels"] == one["labels"]


def test_a_test_split_that_comes_later_is_measured_and_one_that_goes_is_dropped(place):
    lists = place / "data" / "ImageSets" / "Main"
    (lists / "test.txt").rename(place / "test.txt")
    code, out, _ = train(place)
    assert code == 0 and "the stored numbers of 'test' are dropped" in out
    assert set(udlib.load(place / "model").metrics) == {"val"}
    (place / "test.txt").rename(lists / "test.txt")
    code, out, _ = train(place)
    assert code == 0 and "'test' is measured again: no numbers of it are stored" in out
    metrics_are_those_of_the_data(place, "val", "test")


def test_a_folder_that_does_not_say_what_it_was_measured_on_is_measured_again(place):
    path = place / "model" / "state.json"
    state = json.loads(path.read_text())
    del state["provenance"]["splits"]
    state["metrics"]["test"]["calibrated"]["mAP"] = 0.123
    path.write_text(json.dumps(state))
    code, out, _ = train(place)
    assert code == 0 and "'test' is measured again: the stored numbers do not say on which data" in out
    metrics_are_those_of_the_data(place, "val", "test")


def test_distill_knows_its_data_too(place):
    options = ("--teacher", place / "model", "--network", "small_narrow", "--epochs", "1", "--batch", "16")
    words = ("distill", place / "data", "--out", place / "student", *options)
    assert udlib_command(*words)[0] == 0
    relabel(place, "test")
    code, out, _ = udlib_command(*words)
    assert code == 0 and "'test' is measured again: its labels" in out


def test_a_training_under_way_goes_on_with_the_images_that_it_began_with(place, monkeypatch):
    shutil.rmtree(place / "model")
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        assert train(place)[0] == 130
    repaint(place, "train")
    code, _, err = train(place)
    assert code == 2 and "belongs to another training (train image files: saved '" in err


# The course's store


RECIPE = make_recipe(
    data="mine", network="small_narrow", size=24, epochs=1, batch_size=8, embedding=8, optimizer="adam"
)


def look_again():
    """Forget what the course has opened in this process."""
    course_data._opened.cache_clear()
    course_data._images.cache_clear()


@pytest.fixture(scope="module")
def trained(original):
    """The folder with a stored run of `RECIPE` on its data set, which the recipe calls `mine`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UDLIB_DATA", str(original / "store"))
        patch.setenv("UDLIB_ROOTS", f"mine={original / 'data'}")
        run = store.train_and_store(RECIPE)
    assert set(run.provenance["splits"]) == {"train", "val", "test"}
    return original


@pytest.fixture
def stored(trained, place, monkeypatch):
    """The recipe of the stored run, on the copy of its data."""
    shutil.copytree(trained / "store", place / "store", dirs_exist_ok=True)
    monkeypatch.setenv("UDLIB_DATA", str(place / "store"))
    monkeypatch.setenv("UDLIB_ROOTS", f"mine={place / 'data'}")
    look_again()
    return RECIPE


def test_a_stored_run_is_loaded_while_its_data_are_the_same(stored):
    assert store.load_or_run(stored).metrics == store.load(stored).metrics


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("change", "what"), [(relabel, "labels or names of images"), (repaint, "image files")], ids=["labels", "pixels"]
)
def test_a_stored_run_on_data_that_changed_is_refused(stored, place, change, what, split):
    change(place, split)
    with pytest.raises(
        ValueError, match=f"measured on other data: the {what} of '{split}' in 'mine' have changed since"
    ):
        store.load_or_run(stored)
    with pytest.raises(ValueError, match="put them back as they were, or train anew under another name"):
        stored_runs({"a row": [stored]})


def test_a_stored_run_whose_data_are_elsewhere_can_still_be_read(stored, place):
    shutil.rmtree(place / "data")
    assert stored_runs({"a row": [stored]})["a row"][0].metrics == store.load(stored).metrics


def test_a_run_of_a_version_that_did_not_look_at_the_files_is_held_to_its_labels(stored, place):
    old = store.load(stored)
    older = replace(old, provenance={name: value for name, value in old.provenance.items() if name != "splits"})
    require_current([older])
    repaint(place, "test")
    require_current([older])
    relabel(place, "test")
    look_again()
    with pytest.raises(ValueError, match="the labels or names of images in 'mine' have changed since"):
        require_current([older])
