"""What would stop a training is found before it: `data check` exits with 0 exactly where a training would begin."""

import json
import shutil

import pytest
import torch
from trees import CLASSES, coco_tree, csv_tree, nus_tree, voc_tree

from udlib.datasets import open_dataset
from udlib.datasets.base import NoSplit
from udlib.datasets.checks import check
from udlib.datasets.layouts import source
from udlib.datasets.training_splits import notes_on, require_apart, training_splits
from udlib.workshop import open_splits

MAKERS = {"voc": voc_tree, "coco": coco_tree, "nuswide": nus_tree, "csv": csv_tree}


def verdict(root):
    """What `data check` says, and what stops a training (None where it begins); both must agree."""
    findings = list(check(source(root)))
    wrong = [finding.text for finding in findings if finding.wrong]
    try:
        splits, stop = open_splits(root, 16), None
    except (OSError, ValueError) as error:
        splits, stop = None, str(error)
    assert (stop is None) == (wrong == []), (wrong, stop)
    if splits is not None:
        notes = [finding.text for finding in findings if not finding.wrong]
        assert set(notes_on(splits)) <= set(notes), "a training prints nothing that the check does not"
    return findings, stop


@pytest.mark.parametrize("layout", MAKERS)
def test_a_whole_tree_is_trained_on(tmp_path, layout):
    assert verdict(MAKERS[layout](tmp_path, 40))[1] is None


@pytest.mark.parametrize("layout", MAKERS)
def test_a_set_that_is_too_small_for_its_val_is_refused_by_both(tmp_path, layout):
    verdict(MAKERS[layout](tmp_path, 4))


def categories(root, part, change):
    path = root / "annotations" / f"instances_{part}2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_category_that_one_json_lists_alone_is_refused_before_training(tmp_path):
    root = coco_tree(tmp_path, 60)
    categories(root, "val", lambda content: content["categories"].append({"id": 90, "name": "owl"}))
    assert "'test' has the class 'owl', and 'train' does not have it" in verdict(root)[1]
    categories(root, "train", lambda content: content["categories"].append({"id": 91, "name": "lion"}))
    categories(root, "val", lambda content: content["categories"].pop())
    assert "'train' has the class 'lion', and 'test' does not have it" in verdict(root)[1]


def test_categories_in_another_order_are_the_same_and_every_split_has_the_order_of_train(tmp_path):
    root = coco_tree(tmp_path, 60)
    expected = open_splits(root, 16)["test"].targets

    def renumber(content):
        for item in content["categories"]:
            item["id"] = 1000 - item["id"]
        for item in content["annotations"]:
            item["category_id"] = 1000 - item["category_id"]

    categories(root, "val", renumber)
    assert open_dataset(root, "test").classes == CLASSES[::-1]
    test = open_splits(root, 16)["test"]
    assert test.classes == CLASSES and torch.equal(test.targets, expected) and verdict(root)[1] is None


def test_splits_without_a_positive_label_are_refused_and_those_that_show_a_class_never_or_always_are_noted(tmp_path):
    head = "file,split,cat,dog\n"
    root = csv_tree(tmp_path, 12)

    def labelled(train, val, test):
        rows = [*(("train", row) for row in train), *(("val", row) for row in val), *(("test", row) for row in test)]
        lines = [f"{i:04d}.jpg,{split},{row}" for i, (split, row) in enumerate(rows)]
        (root / "labels.csv").write_text(head + "\n".join(lines) + "\n")
        return verdict(root)

    assert labelled(["1,0", "0,1"], ["1,0", "0,1"], ["1,0", "0,1"])[1] is None
    assert "no positive label among 2 images" in labelled(["0,0", "0,0"], ["1,0", "0,1"], ["1,0"])[1]
    assert "'val' has 2 images and no positive label" in labelled(["1,0", "0,1"], ["0,0", "0,0"], ["1,0"])[1]
    assert "'test' has 1 images and no positive label" in labelled(["1,0", "0,1"], ["1,0", "0,1"], ["0,0"])[1]
    assert "no image of split 'val'" in labelled(["1,0", "0,1"], [], ["1,0"])[1]
    notes = [finding.text for finding in labelled(["1,0", "1,0"], ["1,1", "0,1"], ["1,-1", "-1,1"])[0]]
    for note in (
        "split 'train' has no image with dog",
        "split 'train' has no image without cat",
        "split 'val' has no image without dog",
        "split 'test' has no image without cat, dog",
        "split 'test' has 2 unknown labels: they take no part in losses, metrics and calibration",
    ):
        assert note in notes


def test_weights_that_are_all_zero_are_refused(tmp_path):
    root = csv_tree(tmp_path, 12)
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([lines[0] + ",weight", *(line + ",0" for line in lines[1:])]))
    assert "the weights of all 6 training images are 0" in verdict(root)[1]


def test_without_a_test_split_a_training_begins_and_both_say_so(tmp_path):
    root = voc_tree(tmp_path, 40)
    (root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "test.txt").unlink()
    findings, stop = verdict(root)
    assert stop is None and any("there is no split 'test'" in finding.text for finding in findings)


def test_a_list_of_test_images_without_annotations_is_no_test_split(tmp_path):
    root = voc_tree(tmp_path, 40)
    folder = root / "VOCdevkit" / "VOC2007"
    for path in (folder / "ImageSets" / "Main").glob("*_test.txt"):
        path.unlink()
    for name in (folder / "ImageSets" / "Main" / "test.txt").read_text().split():
        (folder / "Annotations" / f"{name}.xml").unlink()
    findings, stop = verdict(root)
    assert stop is None and any(
        "split 'test' has no annotation of any of its 10 images" in each.text for each in findings
    )
    with pytest.raises(NoSplit, match="has no annotation of any image of split 'test'"):
        open_dataset(root, "test")


def test_class_files_that_contradict_the_annotations_are_noted_by_both(tmp_path):
    root = voc_tree(tmp_path, 40)
    path = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "cat_val.txt"
    path.write_text(path.read_text().replace(" -1", "  1", 1))
    findings, stop = verdict(root)
    notes = [finding.text for finding in findings if not finding.wrong]
    assert stop is None and sum("cat_val.txt says 1, its annotation says -1" in note for note in notes) == 2
    assert any(note.startswith("split 'val': files of classes in ImageSets/Main contradict") for note in notes)


def test_the_same_id_in_two_splits_is_the_same_image_only_if_the_files_are(tmp_path):
    root = coco_tree(tmp_path, 60)

    def renumber(content):
        for item in content["images"]:
            item["id"] -= 44 + 100
        for item in content["annotations"]:
            item["image_id"] -= 44 + 100

    categories(root, "val", renumber)
    categories(root, "train", lambda content: None)
    train = json.loads((root / "annotations" / "instances_train2014.json").read_text())
    for item in train["images"]:
        item["id"] -= 99
    for item in train["annotations"]:
        item["image_id"] -= 99
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(train))
    parts = training_splits(source(root).open)
    assert {*parts["train"].ids} & {*parts["test"].ids}, "each JSON counts its images from 1"
    name = next(iter({*parts["train"].ids} & {*parts["test"].ids}))
    files = {split: part.paths[part.ids.index(name)] for split, part in parts.items() if name in part.ids}
    shutil.copy(files["train"], files["test"])
    with pytest.raises(ValueError, match=f"'train' and 'test' share 1 image, '{name}' first"):
        require_apart({split: dict(zip(part.ids, part.paths)) for split, part in parts.items()})
