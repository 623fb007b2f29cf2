"""Hostile input to the `udlib` command: one line that names the thing and the remedy, exit code 2, and nothing half done."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import udlib_command
from filelock import FileLock
from PIL import Image
from trees import csv_tree, nus_tree, voc_tree

from udlib.datasets.base import as_rgb, load_rgb
from udlib.datasets.checks import check
from udlib.datasets.layouts import source
from udlib.models import load
from udlib.workshop.folders import alone_in

QUICK = ("--network", "small_narrow", "--epochs", "1", "--size", "24", "--batch", "16")
VOC_LISTS = "VOCdevkit/VOC2007/ImageSets/Main"


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path):
    csv_tree(tmp_path / "my_images", 60)
    return tmp_path / "my_images"


@pytest.fixture
def voc(tmp_path):
    voc_tree(tmp_path / "voc", 40)
    return tmp_path / "voc"


def refused(*words):
    code, _, wrong = udlib_command(*words)
    assert code == 2 and len(wrong.strip().splitlines()) == 1, wrong
    return wrong


# Pictures


def test_sixteen_bits_of_grey_become_eight_and_numbers_without_a_white_are_refused(tmp_path):
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for ending in ("png", "tif"):
        Image.fromarray(ramp).save(tmp_path / f"deep.{ending}")
        assert np.array_equal(np.asarray(load_rgb(tmp_path / f"deep.{ending}"))[..., 0].ravel(), np.arange(256))
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float.tif' cannot be decoded .*32 bits \(mode F\)"):
        load_rgb(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="mode I"):
        as_rgb(Image.new("I", (2, 2)))


def test_a_prediction_is_of_the_upright_photograph(folder, tmp_path):
    assert udlib_command("train", folder, "--out", tmp_path / "m", *QUICK)[0] == 0
    model, path = load(tmp_path / "m"), next((folder / "images").glob("*.jpg"))
    sideways, upright = Image.Exif(), load_rgb(path)
    sideways[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=sideways)
    torch.testing.assert_close(model.logits([tmp_path / "turned.png"]), model.logits([upright]))


def test_a_name_that_is_broken_mathematics_or_no_text_is_a_name_like_any_other(folder, tmp_path):
    assert udlib_command("train", folder, "--out", tmp_path / "m", *QUICK)[0] == 0
    picture = next((folder / "images").glob("*.jpg")).read_bytes()
    for name in (b"a$x^$ b.jpg", b"b\xff.jpg"):
        (tmp_path / os.fsdecode(name)).write_bytes(picture)
        words = [
            sys.executable,
            "-m",
            "udlib",
            "predict",
            tmp_path / os.fsdecode(name),
            "--model",
            "m",
            "--map",
            "maps",
            "--csv",
            "all.csv",
        ]
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
        )
        assert done.returncode == 0 and b"%" in done.stdout, done.stderr
        assert b"a$x^$ b" in (tmp_path / "all.csv").read_bytes() or b"b\\udcff" in (tmp_path / "all.csv").read_bytes()
    assert len(list((tmp_path / "maps").iterdir())) == 2


# Folders and files of the outside


def test_a_second_training_in_the_same_folder_is_refused_while_the_first_is_at_work(folder, tmp_path):
    out = tmp_path / "m"
    with alone_in(out):
        assert "another training is running in" in refused("train", folder, "--out", out, *QUICK)
    out.mkdir()
    (out / ".lock").touch()  # left by a kill: nobody holds it
    assert udlib_command("train", folder, "--out", out, *QUICK)[0] == 0
    assert not (out / ".lock").exists()


def test_a_disk_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def none(*_):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", none)
    with alone_in(tmp_path / "m"):
        assert (tmp_path / "m").is_dir()
    assert not (tmp_path / "m").exists(), "an empty folder that it made does not stay"


@pytest.mark.parametrize("out", ["a file/m", "a file"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_trained(folder, tmp_path, out, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setattr("udlib.workshop.model_folders.train", None)
    assert "a file" in refused("train", folder, "--out", tmp_path / out, *QUICK)


def test_what_the_system_refuses_is_named_in_one_line(folder, tmp_path, monkeypatch):
    def forbidden(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr("udlib.datasets.csv_columns.utf8", forbidden)
    assert "labels.csv': Permission denied" in refused("train", folder, "--out", tmp_path / "m", *QUICK)
    monkeypatch.undo()
    assert "home" in refused("data", "check", "~nobody-of-this-name/x")


@pytest.mark.parametrize("words", [("predict", "x.jpg"), ("evaluate", "my_images"), ("data", "describe", "my_images")])
def test_a_csv_that_cannot_be_written_is_refused_before_the_work(words, tmp_path):
    model = () if words[0] == "data" else ("--model", tmp_path)
    assert "there is no folder" in refused(*words, *model, "--csv", tmp_path / "missing" / "x.csv")
    assert "it is a folder" in refused(*words, *model, "--csv", tmp_path)


# Lists


def test_lists_that_are_not_utf_8_are_named(voc, tmp_path):
    nus_tree(tmp_path / "nus", 40)
    for root, name in ((voc, f"{VOC_LISTS}/train.txt"), (tmp_path / "nus", "ImageList/TrainImagelist.txt")):
        path = root / name
        path.write_bytes(path.read_bytes() + b"\xe9\n")
        assert "is not UTF-8" in (said := refused("train", root, "--out", tmp_path / "m", *QUICK)) and path.name in said
        code, said, _ = udlib_command("data", "check", root)
        assert code == 1 and "is not UTF-8" in said and path.name in said


def test_a_check_of_voc_sees_what_a_training_would_refuse(voc):
    lists = voc / VOC_LISTS
    whole = (lists / "train.txt").read_text()
    (lists / "train.txt").write_text("\n".join(f"{name} 1" for name in whole.split()))
    assert "begins with two words" in _said(voc)
    (lists / "train.txt").write_text(whole)
    (lists / "val.txt").unlink()
    assert "has no list of 'val': it is what trainval.txt lists and train.txt does not" in _said(voc, wrong=False)
    page = next((voc / "VOCdevkit/VOC2007/Annotations").glob(f"{whole.split()[0]}.xml"))
    page.write_text("<html>404</html>")
    assert "begins with <html>, not with <annotation>" in _said(voc)


def test_a_class_that_is_listed_twice_is_named(voc):
    (voc / "VOCdevkit/VOC2007/classes.txt").write_text("ball\nboat\nball\n")
    assert "lists class 'ball' more than once" in _said(voc)


def test_a_label_that_is_spelled_much_like_another_is_noted(folder):
    listing = folder / "labels.csv"
    listing.write_text("file,labels\n" + "".join(f"{row}.jpg,{'baot' if row == 3 else 'boat'}\n" for row in range(8)))
    assert "label 'baot' is in 1 image, and 'boat' in 7" in _said(folder, wrong=False)


def _said(root, wrong=True):
    return "\n".join(found.text for found in check(source(root)) if found.wrong == wrong)


# Options


@pytest.mark.parametrize(
    "words, said",
    [
        (("train", "--keep", "foo"), "keep is 'foo': expected one of last, best"),
        (("train", "--difficult", "foo"), "policy is 'foo': expected one of positive"),
        (("train", "--lam", "inf"), "lam is inf: expected at least 0, and finite"),
        (("train", "--lam", "nan"), "lam is nan"),
        (("distill", "--beta", "inf"), "beta is inf: expected at least 0, and finite"),
        (("distill", "--temperature", "0"), "temperature is 0.0: expected a number above 0"),
        (("parallel", "--keep", "foo"), "keep is 'foo'"),
    ],
)
def test_settings_are_judged_before_any_image_is_opened(words, said, folder, tmp_path, monkeypatch):
    if words[0] == "distill":
        assert udlib_command("train", folder, "--out", tmp_path / "t", *QUICK)[0] == 0
        words = (*words, "--teacher", tmp_path / "t")
    monkeypatch.setattr("udlib.workshop.model_folders.open_splits", None)
    monkeypatch.setattr("udlib.workshop.model_folders.open_dataset", None)
    assert said in refused(words[0], folder, "--out", tmp_path / "m", *QUICK, *words[1:])
    assert not (tmp_path / "m").exists()


def test_a_seed_that_numpy_cannot_take_is_refused(folder, tmp_path):
    code, _, wrong = udlib_command("train", folder, "--out", tmp_path / "m", *QUICK, "--seed", str(2**32))
    assert code == 2 and "4294967295" in wrong
