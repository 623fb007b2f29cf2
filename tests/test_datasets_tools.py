"""Folders as CVAT, Roboflow and LabelImg write them, in COCO's format or with an XML beside each image."""

import json
import re
import shutil

import pytest
import torch
from trees import CLASSES, coco_tree, parts, pictures, save, voc_tree, voc_xml

from udlib.datasets import open_dataset
from udlib.datasets.base import NoSplit
from udlib.datasets.checks import check
from udlib.datasets.coco import COCO
from udlib.datasets.layouts import source
from udlib.datasets.training_splits import notes_on, training_splits
from udlib.datasets.xml_folders import XMLFolder


@pytest.fixture
def tree(tmp_path):
    return coco_tree(tmp_path / "coco", 80)


def same(data, rows, count=80):
    shown = pictures(count)
    assert data.classes == CLASSES
    assert [row.nonzero().flatten().tolist() for row in data.targets] == [list(shown[i].labels) for i in rows]
    assert all(data.image(i).size == (24, 16) for i in range(len(data)))


def test_coco_2017_is_read_as_coco_2014(tree, tmp_path):
    expected = {split: COCO(tree, split).targets for split in ("train", "val", "test")}
    for part in ("train", "val"):
        shutil.move(
            tree / "annotations" / f"instances_{part}2014.json", tree / "annotations" / f"instances_{part}2017.json"
        )
        shutil.move(tree / f"{part}2014", tree / f"{part}2017")
    assert source(tree).layout == "coco"
    for split, targets in expected.items():
        data = open_dataset(tree, split)
        assert torch.equal(data.targets, targets) and data.notes == () and data.image(0).size == (24, 16)


def one_json(tree, path, images):
    """All images and annotations in one JSON."""
    whole = {"images": [], "annotations": [], "categories": []}
    (tree / images).mkdir(parents=True, exist_ok=True)
    for part in ("train", "val"):
        content = json.loads((tree / "annotations" / f"instances_{part}2014.json").read_text())
        whole["images"] += content["images"]
        whole["annotations"] += content["annotations"]
        whole["categories"] = content["categories"]
        for file in (tree / f"{part}2014").iterdir():
            shutil.move(file, tree / images / file.name)
        (tree / f"{part}2014").rmdir()
    shutil.rmtree(tree / "annotations")
    (tree / path).parent.mkdir(exist_ok=True)
    (tree / path).write_text(json.dumps(whole))
    return tree


@pytest.mark.parametrize(
    "path, images",
    [
        ("annotations/instances_default.json", "images"),
        ("annotations/instances_default.json", "images/default"),
        ("_annotations.coco.json", "."),
        ("result.json", "images"),
    ],
)
def test_one_json_for_all_images_is_divided_by_hash_and_said(tree, path, images):
    one_json(tree, path, images)
    assert source(tree).layout == "coco"
    splits = training_splits(source(tree).open)
    assert sorted(int(name) - 100 for part in splits.values() for name in part.ids) == list(range(80))
    assert len(splits["train"]) > 40 and min(map(len, splits.values())) > 0
    assert any("holds all images: the hash of each id divides them into 70 %" in note for note in notes_on(splits))
    for part in splits.values():
        same(part, [int(name) - 100 for name in part.ids])


def roboflow(tree, names=("train", "valid", "test")):
    """The tree as Roboflow exports it: ids from 0 in each JSON, and a category that names the group of all others."""
    content = {
        part: json.loads((tree / "annotations" / f"instances_{part}2014.json").read_text()) for part in ("train", "val")
    }
    images = content["train"]["images"] + content["val"]["images"]
    annotations = content["train"]["annotations"] + content["val"]["annotations"]
    for name, rows in zip(names, parts(80).values()):
        (tree / name).mkdir()
        own = {item["id"]: row for row, item in enumerate(images[i] for i in rows)}
        for item in (images[i] for i in rows):
            (file,) = tree.glob(f"*2014/{item['file_name']}")
            shutil.copy(file, tree / name / item["file_name"])
        group = {"id": 0, "name": "things", "supercategory": "none"}
        categories = [group, *({**each, "supercategory": "things"} for each in content["train"]["categories"])]
        written = {
            "images": [{**images[i], "id": own[images[i]["id"]]} for i in rows],
            "annotations": [
                {**each, "image_id": own[each["image_id"]]} for each in annotations if each["image_id"] in own
            ],
            "categories": categories,
        }
        (tree / name / "_annotations.coco.json").write_text(json.dumps(written))
    for part in ("annotations", "train2014", "val2014"):
        shutil.rmtree(tree / part)
    return tree


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("train", "val", "test"), ("Train", "Validation", "Test")]
)
def test_a_json_in_each_folder_is_its_split_and_the_name_of_the_group_is_no_class(tree, names):
    splits = training_splits(source(roboflow(tree, names)).open)
    assert notes_on(splits) == []
    for split, rows in parts(80).items():
        same(splits[split], rows)


def test_without_a_json_for_val_a_tenth_is_held_out_and_without_one_for_test_nothing_is_measured(tree):
    roboflow(tree)
    shutil.rmtree(tree / "test")
    with pytest.raises(NoSplit):
        COCO(tree, "test")
    shutil.rmtree(tree / "valid")
    train, val = COCO(tree, "train"), COCO(tree, "val")
    assert len(train) + len(val) == 40 and 0 < len(val) < 12
    assert val.notes[0].startswith("there is no JSON for val beside ")


def test_annotations_without_a_box_give_their_labels(tree):
    for part in ("train", "val"):
        path = tree / "annotations" / f"instances_{part}2014.json"
        content = json.loads(path.read_text())
        for k, item in enumerate(content["annotations"]):
            item["segmentation"] = [[1, 1, 5, 1, 5, 5]]
            del item["bbox"]
            item |= [{}, {"bbox": []}, {"bbox": None}][k % 3]
        path.write_text(json.dumps(content))
    data = COCO(tree, "test")
    same(data, parts(80)["test"])
    assert not any(data.boxes(i) for i in range(len(data))) and "their labels count" in data.notes[0]


def xml_tree(root, place, count=40):
    """Pictures and XML files without lists; `place(i)` gives the folders of the image and of the annotation."""
    for i, picture in enumerate(pictures(count)):
        images, annotations = place(i)
        save(picture, root / images / f"im {i:03d}.jpg")
        (root / annotations).mkdir(parents=True, exist_ok=True)
        (root / annotations / f"im {i:03d}.xml").write_text(voc_xml(picture))
    return root


@pytest.mark.parametrize(
    "images, annotations",
    [(".", "."), ("JPEGImages", "Annotations"), ("images", "Annotations"), ("images/a", "Annotations/a")],
)
def test_images_with_an_xml_each_are_divided_by_hash_and_said(tmp_path, images, annotations):
    root = xml_tree(tmp_path, lambda i: (images, annotations))
    assert source(root).layout == "xml" and source(root).splits() == ["train", "val", "test"]
    splits = training_splits(source(root).open)
    assert sum(map(len, splits.values())) == 40
    assert any("has no lists of splits: the hash of each name divides its images" in note for note in notes_on(splits))
    for part in splits.values():
        same(part, [int(name[-3:]) for name in part.ids], 40)
    assert len(open_dataset(root, "trainval")) == len(splits["train"]) + len(splits["val"])


def test_folders_of_splits_with_an_xml_beside_each_image(tmp_path):
    names = {i: name for name, rows in zip(("train", "valid", "test"), parts(40).values()) for i in rows}
    root = xml_tree(tmp_path, lambda i: (names[i], names[i]))
    for split, rows in parts(40).items():
        data = open_dataset(root, split)
        assert type(data) is XMLFolder and data.notes == ()
        same(data, rows, 40)
    shutil.rmtree(root / "valid")
    assert 0 < len(open_dataset(root, "val")) < 8 and "holds out a tenth of train" in open_dataset(root, "val").notes[0]


def test_an_xml_whose_image_is_missing_is_named_or_its_image_dropped(tmp_path):
    root = xml_tree(tmp_path, lambda i: (".", "."))
    name = open_dataset(root, "train").ids[0]
    (root / f"{name}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks 1 of the .* images of split 'train' .first: '.*{name}.jpg'"):
        open_dataset(root, "train")
    assert open_dataset(root, "train", missing="drop").skipped[0][0] == name


def test_a_broken_annotation_and_a_missing_image_without_a_stated_size_are_named_or_dropped(tmp_path):
    root = xml_tree(tmp_path, lambda i: (".", "."))
    whole = open_dataset(root, "train")
    objects = [i for i in range(len(whole)) if whole.objects[i]]
    broken, missing = (root / whole.ids[i] for i in objects[:2])
    broken.with_suffix(".xml").write_text("<annotation><object>")
    with pytest.raises(ValueError, match="is not valid XML"):
        open_dataset(root, "train")
    text = missing.with_suffix(".xml").read_text()
    missing.with_suffix(".xml").write_text(re.sub("<size>.*</size>", "", text))
    missing.with_suffix(".jpg").unlink()
    kept = open_dataset(root, "train", missing="drop")
    assert {name for name, _ in kept.skipped} == {broken.name, missing.name} and len(kept) == len(whole) - 2
    assert kept.classes == whole.classes and "--missing drop" in dict(kept.skipped)[missing.name]
    assert [finding.text for finding in check(source(root, missing="drop")) if finding.wrong] == []
    assert [finding.wrong for finding in check(source(root)) if "states no size: " in finding.text] == [True]


def test_a_voc_folder_with_lists_is_no_folder_without(tmp_path):
    assert source(voc_tree(tmp_path, 12)).layout == "voc"
