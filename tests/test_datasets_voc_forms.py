"""VOC layout as labelling tools write it: ids, flags, shapes without boxes, and lists that are not train, val and test."""

import shutil

import pytest
from test_datasets_voc import annotation, make_tree, object_xml
from trees import voc_tree

from udlib.datasets.base import Box, NoSplit
from udlib.datasets.folders import held_out
from udlib.datasets.training_splits import notes_on, training_splits
from udlib.datasets.voc import VOC
from udlib.datasets.voc_splits import splits_of

POLYGON = "<object><name>dog</name><polygon><x1>1</x1><y1>2</y1></polygon></object>"


@pytest.mark.parametrize("name", ["cam1/im0", "my photo 1", "a.b/c d", "photo -1", "x.y", "ä"])
def test_an_id_may_have_folders_spaces_and_dots(tmp_path, name):
    for path in (tmp_path / "Annotations" / name, tmp_path / "JPEGImages" / name):
        path.parent.mkdir(parents=True, exist_ok=True)
    root = make_tree(tmp_path, {name: annotation(object_xml("zebra")), "b": annotation(object_xml("dog"))})
    data = VOC(root, "train")
    assert data.ids == [name, "b"] and data.classes == ("dog", "zebra") and data.targets.tolist() == [[0, 1], [1, 0]]
    assert data.image(0).size == (20, 10) and data.check() == []


@pytest.mark.parametrize("line", ["a.jpg", "a.JPG", "JPEGImages/a.jpg", "./a", "a.png"])
def test_a_line_of_a_list_may_name_the_file(tmp_path, line):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog"))})
    (root / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n")
    assert VOC(root, "train").ids == ["a"]


@pytest.mark.parametrize("line", ["../a", "/data/a", "C:\\a"])
def test_a_line_of_a_list_never_leads_out_of_the_folder(tmp_path, line):
    root = make_tree(tmp_path, {"a": annotation()})
    (root / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match="entry 1: file name .* leads out of its folder"):
        VOC(root, "train")


@pytest.mark.parametrize("tag", ["truncated", "occluded", "difficult"])
@pytest.mark.parametrize(
    "text, expected",
    [("1", True), ("0", False), ("True", True), ("false", False), ("yes", True), ("", False), ("Unspecified", False)],
)
def test_flags_in_words(tmp_path, tag, text, expected):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", **{tag: text}))})
    data = VOC(root, "train")
    assert getattr(data.boxes(0)[0], tag) is expected and data.difficult.any() == (expected and tag == "difficult")


def test_an_odd_word_is_no_error_except_where_labels_depend_on_it(tmp_path):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", truncated="Left", occluded="??"))})
    assert VOC(root, "train").boxes(0) == [Box("dog", 0, 0, 10, 8)]
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", difficult="perhaps"))})
    with pytest.raises(ValueError, match="a.xml' has difficult = 'perhaps': expected a number"):
        VOC(root, "train")


@pytest.mark.parametrize(
    "shape",
    [
        POLYGON,
        "<object><name>dog</name></object>",
        object_xml("dog", (0, 0, 0, 0)),
        object_xml("dog", (21, 1, 30, 8)),
        object_xml("dog", (-9, 1, 0, 8)),
        object_xml("dog", (1, 11, 5, 14)),
        object_xml("dog", (1, -5, 5, 0)),
    ],
)
def test_an_object_without_a_box_gives_its_label_and_a_note(tmp_path, shape):
    root = make_tree(tmp_path, {"a": annotation(shape, object_xml("cat")), "b": annotation(shape), "c": annotation()})
    data = VOC(root, "train", classes=("cat", "dog"))
    assert data.targets.tolist() == [[1, 1], [0, 1], [0, 0]] and data.boxes(0) == [Box("cat", 0, 0, 10, 8)]
    assert "split 'train' has objects without a box in 2 images (first: a): their labels count" in data.notes


def lists(root, **ids):
    folder = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    shutil.rmtree(folder)
    folder.mkdir()
    for name, rows in ids.items():
        (folder / f"{name}.txt").write_text("".join(f"{i:06d}\n" for i in rows))
    return folder.parents[1]


def named(rows):
    return [f"{i:06d}" for i in rows]


def test_val_is_a_tenth_of_what_is_listed_for_training_where_nothing_else_makes_it(tmp_path):
    root = voc_tree(tmp_path, 80)
    for name in ("trainval", "train"):
        folder = lists(root, **{name: range(60), "test": range(60, 80)})
        data = {split: VOC(folder, split) for split in ("train", "val", "test")}
        assert data["val"].ids == [i for i in named(range(60)) if held_out(i)] and len(data["test"]) == 20
        assert data["train"].ids == [i for i in named(range(60)) if not held_out(i)]
        assert data["val"].notes == (
            f"'{folder}' has no list of val: the hash of each id holds out a tenth of {name}.txt",
        )
    assert list(splits_of(folder)) == ["train", "val", "test"]


def test_what_trainval_lists_beyond_one_of_its_halves_is_the_other(tmp_path):
    root = voc_tree(tmp_path, 40)
    folder = lists(root, trainval=range(30), train=range(20))
    assert VOC(folder, "train").ids == named(range(20)) and VOC(folder, "val").ids == named(range(20, 30))
    folder = lists(root, trainval=range(30), val=range(20))
    assert VOC(folder, "train").ids == named(range(20, 30)) and VOC(folder, "val").ids == named(range(20))


def test_one_list_of_everything_is_divided_and_said_as_cvat_exports_it(tmp_path):
    folder = lists(voc_tree(tmp_path, 80), default=range(80))
    splits = training_splits(lambda split: VOC(folder, split))
    assert sorted(sum((part.ids for part in splits.values()), [])) == named(range(80)) and len(splits["train"]) > 40
    assert (
        f"'{folder}' lists default.txt alone: the hash of each id divides it into 70 % train, 15 % val, 15 % test"
        in notes_on(splits)
    )
    assert len(VOC(folder, "default")) == 80


def test_lists_that_are_called_otherwise(tmp_path):
    folder = lists(voc_tree(tmp_path, 40), Train=range(20), Validation=range(20, 30), Test=range(30, 40))
    assert VOC(folder, "train").ids == named(range(20)) and VOC(folder, "val").ids == named(range(20, 30))
    assert VOC(folder, "test").ids == named(range(30, 40)) and VOC(folder, "Test").ids == named(range(30, 40))
    folder = lists(tmp_path, odd=range(9), even=range(9, 20))
    with pytest.raises(NoSplit, match="no split 'train': found even, odd"):
        VOC(folder, "train")
