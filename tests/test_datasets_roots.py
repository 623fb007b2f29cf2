"""Folders behind names: kept in the environment, checked when they are set, and unknown to recipes."""

import os
import shutil

import pytest
from trees import voc_tree

from udlib.course import store as experiments
from udlib.course.store import fingerprint, recipe
from udlib.datasets.roots import VARIABLE, place, placed
from udlib.datasets.scenes import scenes


@pytest.fixture(autouse=True)
def no_roots(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")  # so that what `place` writes is undone


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """A VOCdevkit with two years: 30 training, 10 validation and 20 test images in each, and trainval as VOC has it."""
    root = tmp_path_factory.mktemp("devkit") / "VOCdevkit"
    scenes("train", root=root / "VOC2007", counts={"train": 30, "val": 10, "test": 20})
    main = root / "VOC2007" / "ImageSets" / "Main"
    (main / "trainval.txt").write_text((main / "train.txt").read_text() + (main / "val.txt").read_text())
    shutil.copytree(root / "VOC2007", root / "VOC2012")
    (root / "VOC2012" / "ImageSets" / "Main" / "test.txt").unlink()
    return root


def test_a_name_has_the_folder_that_it_was_given_and_others_have_none(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    place("tree", tmp_path)
    assert place("second.tree", other) == other.resolve()
    assert (placed("tree"), placed("second.tree"), placed("voc2007")) == (tmp_path.resolve(), other.resolve(), None)
    assert os.environ[VARIABLE].split(os.pathsep) == [f"tree={tmp_path.resolve()}", f"second.tree={other.resolve()}"], (
        "children inherit it"
    )
    place("tree", other)
    assert placed("tree") == other.resolve()


@pytest.mark.parametrize("name", ["", "a b", "../tree", "a=b", ".hidden"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is not the name of a data set: expected letters"):
        place(name, tmp_path)


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="of data set 'tree' is not a folder: name the folder that holds the data"
    ):
        place("tree", tmp_path / "gone")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no ';' problem with ordinary names")
def test_a_root_that_cannot_stand_in_the_variable_is_refused(tmp_path):
    odd = tmp_path / f"a{os.pathsep}b"
    odd.mkdir()
    with pytest.raises(ValueError, match="which separates entries of UDLIB_ROOTS: rename or link the folder"):
        place("tree", odd)


@pytest.mark.parametrize("entry", ["tree", "tree=", "=folder"])
def test_a_malformed_variable_is_refused(monkeypatch, entry):
    monkeypatch.setenv(VARIABLE, entry)
    with pytest.raises(ValueError, match=f"UDLIB_ROOTS holds '{entry}': expected name=folder"):
        placed("tree")


def test_voc_by_its_name_is_that_year_of_a_devkit(devkit):
    place("voc2007", devkit)
    place("voc2012", devkit.parent)
    assert placed("voc2007").name == "VOC2007" and placed("voc2012").name == "VOC2012"
    place("voc2012", devkit / "VOC2007")
    assert placed("voc2012").name == "VOC2007", "a folder that is a VOC folder itself is taken as it is"


def test_voc_2007_trains_on_trainval_less_every_tenth_image_and_tests_on_test(devkit):
    place("voc2007", devkit)
    parts = {split: experiments.dataset("voc2007", split, 64).ids for split in ("train", "val", "test")}
    main = devkit / "VOC2007" / "ImageSets" / "Main"
    trainval = (main / "trainval.txt").read_text().split()
    assert (
        parts["val"] == trainval[::10]
        and len(parts["train"]) == 36
        and sorted(parts["train"] + parts["val"]) == sorted(trainval)
    )
    assert parts["test"] == (main / "test.txt").read_text().split()


def test_voc_2012_is_tested_on_its_validation_images_since_its_test_labels_are_secret(devkit):
    place("voc2012", devkit)
    parts = {split: experiments.dataset("voc2012", split, 64).ids for split in ("train", "val", "test")}
    main = devkit / "VOC2012" / "ImageSets" / "Main"
    assert (
        parts["test"] == (main / "val.txt").read_text().split() and len(parts["train"]) == 27 and len(parts["val"]) == 3
    )
    assert set(parts["train"] + parts["val"]) == set((main / "train.txt").read_text().split())


def test_recipes_and_keys_know_names_only_and_a_fingerprint_knows_the_labels(devkit):
    tree_recipe = recipe(data="tree")
    place("tree", devkit / "VOC2007")
    assert tree_recipe.key == recipe(data="tree").key and str(devkit) not in str(tree_recipe)
    first = fingerprint(tree_recipe)
    assert len(first) == 12 and fingerprint(tree_recipe.but(seed=1, size=32)) == first, "labels, not pixels or seeds"
    assert fingerprint(tree_recipe.but(limit=5)) != first


def test_another_folder_under_a_name_is_opened_and_not_the_one_before(devkit, tmp_path):
    tree_recipe = recipe(data="tree")
    place("tree", devkit / "VOC2007")
    first = fingerprint(tree_recipe)
    other = voc_tree(tmp_path / "other", 20, seed=3)
    place("tree", other / "VOCdevkit" / "VOC2007")
    assert fingerprint(tree_recipe) != first
    place("tree", devkit / "VOC2007")
    assert fingerprint(tree_recipe) == first
