"""`check`: a whole tree in each layout has nothing wrong, and every single damage is found and named."""

import json
import shutil

import pytest
from trees import coco_tree, csv_tree, nus_tree, voc_tree

from udlib.datasets import picture_checks
from udlib.datasets.checks import check
from udlib.datasets.layouts import source
from udlib.datasets.picture_checks import Picture

MAKERS = {"voc": voc_tree, "coco": coco_tree, "nuswide": nus_tree, "csv": csv_tree}
IMAGES = {"voc": "VOCdevkit/VOC2007/JPEGImages", "coco": "train2014", "nuswide": "Flickr/zebra", "csv": "images"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return {layout: make(root / layout, 24) for layout, make in MAKERS.items()}


@pytest.fixture
def tree(whole, tmp_path):
    """A copy of a tree, to be damaged."""
    return lambda layout: shutil.copytree(whole[layout], tmp_path / layout)


def check_tree(root):
    findings = list(check(source(root)))
    return [finding.text for finding in findings if finding.wrong], [each.text for each in findings if not each.wrong]


@pytest.mark.parametrize("layout", MAKERS)
def test_nothing_is_wrong_with_a_whole_tree(whole, layout):
    assert check_tree(whole[layout])[0] == []


@pytest.mark.parametrize("layout", MAKERS)
def test_every_missing_and_broken_image_is_named(tree, layout):
    root = tree(layout)
    first, second, third, *_ = sorted((root / IMAGES[layout]).iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:300])
    third.write_bytes(b"")
    wrong, _ = check_tree(root)
    assert len(wrong) == 3 and wrong[0] == f"image '{first}' is missing"
    assert all(f"image '{path}' cannot be decoded" in sentence for path, sentence in zip((second, third), wrong[1:]))


def test_images_of_two_splits_with_one_id_are_compared_by_the_files_that_are_read(tree):
    root = tree("coco")
    train, test = (root / "annotations" / f"instances_{part}2014.json" for part in ("train", "val"))
    number = json.loads(train.read_text())["images"][0]["id"]
    listed = json.loads(test.read_text())
    old = listed["images"][0]["id"]
    listed["images"][0]["id"] = number
    for each in listed["annotations"]:
        each["image_id"] = number if each["image_id"] == old else each["image_id"]
    test.write_text(json.dumps(listed))
    first = sorted((root / IMAGES["coco"]).iterdir())[0]
    assert check_tree(root)[0] == []
    first.rename(first.with_suffix(".JPG"))  # the list has another ending than the file
    wrong, notes = check_tree(root)
    assert wrong == [] and any("found under another name" in note for note in notes)


@pytest.mark.parametrize("layout", MAKERS)
def test_one_picture_in_two_splits_under_two_names_is_worth_knowing(tree, layout):
    root = tree(layout)
    test = {"coco": "val2014"}.get(layout, IMAGES[layout])
    first, last = sorted((root / IMAGES[layout]).iterdir())[0], sorted((root / test).iterdir())[-1]
    shutil.copy(first, last)
    wrong, notes = check_tree(root)
    assert wrong == [] and [
        sentence for sentence in notes if "same file" in sentence and str(first) in sentence and str(last) in sentence
    ]


def test_every_broken_annotation_of_voc_is_named_and_class_files_are_compared(tree):
    folder = tree("voc") / "VOCdevkit" / "VOC2007"
    texts = {
        "000001": "<annotation>",
        "000002": "",
        "000003": None,
        "000004": "<annotation><object><name>lion</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>",
    }
    for name, text in texts.items():
        path = folder / "Annotations" / f"{name}.xml"
        path.unlink() if text is None else path.write_text(text)
    lists = folder / "ImageSets" / "Main"
    (lists / "cat_test.txt").write_text(
        (lists / "cat_test.txt").read_text().replace("000018 -1", "000018  0", 1).replace("000018  1", "000018 -1", 1)
    )
    (lists / "dog_val.txt").write_text("000012 maybe\n")
    wrong, notes = check_tree(folder)
    for name in ("000001", "000002", "000003", "000004"):
        assert sum(f"{name}.xml'" in sentence for sentence in wrong) == 1
    assert (
        sum("'lion'" in sentence for sentence in wrong) == 1
        and sum("dog_val.txt' line 1" in sentence for sentence in notes) == 1
    )
    assert sum(sentence.startswith("000018: cat_test.txt says") for sentence in notes) == 1 and len(wrong) == 4


def test_splits_that_share_images_are_named(tree):
    folder = tree("voc") / "VOCdevkit" / "VOC2007"
    for path in (folder / "ImageSets" / "Main").glob("*_*.txt"):
        path.unlink()
    lists = folder / "ImageSets" / "Main"
    (lists / "test.txt").write_text((lists / "test.txt").read_text() + "000000\n")
    (lists / "odd.txt").write_text("000001\n000001\n")
    wrong, notes = check_tree(folder)
    assert sum("share 1 image, '000000' first" in sentence for sentence in wrong) == 2  # train and trainval with test
    assert len(wrong) == 2 and sum("lists '000001' more than once" in sentence for sentence in notes) == 1


def test_every_bad_entry_of_coco_is_named(tree):
    root = tree("coco")
    path = root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 99
    content["annotations"][1]["image_id"] = -1
    content["annotations"][2]["bbox"] = [0, 0, 0, 5]
    content["images"].append(content["images"][0])
    content["categories"][0]["name"] = "owl"
    path.write_text(json.dumps(content))
    wrong, notes = check_tree(root)
    for sentence in (
        "category_id 99",
        "image -1, which 'images' does not list",
        "repeats the image id 100",
        "list different categories",
    ):
        assert sum(sentence in text for text in wrong) == 1
    assert len(wrong) == 4 and "boxes without area in 1 images (first: 100)" in notes[0]
    path.unlink()
    wrong, _ = check_tree(root)
    assert len(wrong) == 1 and "no 'annotations/instances_train2014.json'" in wrong[0]


def test_images_of_coco_in_both_parts_are_named(tree):
    root = tree("coco")
    train, val = (root / "annotations" / f"instances_{part}2014.json" for part in ("train", "val"))
    content = json.loads(val.read_text())
    shared = json.loads(train.read_text())["images"][0]
    shutil.copy(root / "train2014" / shared["file_name"], root / "val2014")
    content["images"].append(shared)
    val.write_text(json.dumps(content))
    assert "'trainval' and 'test' share 1 image, '100' first" in check_tree(root)[0][0]


def test_every_bad_list_of_nuswide_is_named(tree):
    root = tree("nuswide")
    labels = root / "Groundtruth" / "TrainTestLabels"
    (labels / "Labels_cat_Test.txt").write_text("1\n")
    (labels / "Labels_dog_Test.txt").write_text("2\n" * 6)
    (labels / "Labels_cat_Train.txt").unlink()
    wrong, _ = check_tree(root)
    assert len(wrong) == 3 and "has no 'Groundtruth/TrainTestLabels/Labels_cat_Train.txt'" in wrong[0]
    assert "has 1 lines" in wrong[1] and "entry 1 holds '2'" in wrong[2]
    (root / "ConceptsList" / "Concepts81.txt").write_text("")
    assert "is empty" in check_tree(root)[0][0]


def test_every_bad_line_of_a_csv_is_named(tree):
    root = tree("csv")
    lines = (root / "labels.csv").read_text().splitlines()
    lines[3], lines[5] = lines[3].replace(",train,", ",holdout,"), lines[5].replace(",0", ",-2")
    lines[7] = "../" + lines[7]
    (root / "labels.csv").write_text("\n".join(lines + [lines[1]]))
    wrong, _ = check_tree(root)
    assert [sentence.split(" line ")[1].split(":")[0] for sentence in wrong] == ["4", "6", "8", "26"]
    (root / "labels.csv").write_text("\n".join(line for line in lines[:3]))
    wrong, notes = check_tree(root)
    assert sum("no image of split" in sentence for sentence in wrong) == 1
    assert any("no image of split 'test': a model can be trained" in sentence for sentence in notes)
    (root / "labels.csv").write_text("file,split,cat,dog\n0000.jpg,train,1,0\n0001.jpg,val,1,1\n0002.jpg,test,0,1\n")
    never = ["split 'train' has no image with dog", "split 'test' has no image with cat"]
    always = ["split 'train' has no image without cat", "split 'test' has no image without dog"]
    assert check_tree(root) == (
        [],
        [never[0], always[0], "split 'val' has no image without cat, dog", never[1], always[1]],
    )


def test_after_an_interruption_the_rest_is_not_decoded(whole, monkeypatch):
    decoded = []
    monkeypatch.setattr(picture_checks.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(picture_checks, "examine", lambda path: decoded.append(path) or Picture(str(path)))

    class Interrupted:
        def __init__(self, results, **_):
            self.results = results

        def __iter__(self):
            yield next(iter(self.results))
            raise KeyboardInterrupt

    monkeypatch.setattr(
        picture_checks, "track", lambda rows, **options: Interrupted(rows) if "total" in options else rows
    )
    with pytest.raises(KeyboardInterrupt):
        list(check(source(whole["csv"])))
    assert len(decoded) <= 24
