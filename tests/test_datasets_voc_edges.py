"""Edges of the VOC reader: where lines are counted from, which boxes are boxes, which sizes are sizes."""

import pytest
from test_datasets_voc import annotation, make_tree, object_xml, refused

from udlib.datasets.base import Box
from udlib.datasets.voc import VOC, VOC_CLASSES


@pytest.fixture
def tree(tmp_path):
    """Four images with a dog each, the second of them difficult, and beside it a cat or a person."""
    dog, other = object_xml("dog"), object_xml("cat", difficult=1)
    return make_tree(
        tmp_path / "VOC2007",
        {
            "000001": annotation(dog),
            "000002": annotation(object_xml("dog", difficult=1), other),
            "000003": annotation(dog),
            "000004": annotation(dog, object_xml("person")),
        },
    )


@pytest.mark.parametrize("content, said", [("a b\n", "entry 1 holds 'a b'"), ("a\n\nb -1\n", "entry 2 holds 'b -1'")])
def test_a_bad_entry_of_a_split_is_counted_from_one(tmp_path, content, said):
    root = make_tree(tmp_path, {"a": annotation(), "b": annotation()})
    (root / "ImageSets" / "Main" / "train.txt").write_text(content)
    refused(lambda: VOC(root, "train"), said)


def test_a_bad_line_of_a_class_file_is_counted_from_one(tree):
    main = tree / "ImageSets" / "Main"
    (main / "dog_train.txt").write_text("000001  1\n000002 maybe\n")
    refused(VOC(tree, "train", classes=VOC_CLASSES).check, "dog_train.txt' line 2", "'000002 maybe'")


@pytest.mark.parametrize("box", [(1, 1, 20, 10), (20, 10, 20, 10), (0.5, 0.5, 1, 1)])
def test_boxes_of_one_pixel_and_of_the_whole_image_are_boxes(tmp_path, box):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", box))})
    left, top, right, bottom = box
    assert VOC(root, "train").boxes(0) == [Box("dog", max(left - 1, 0), max(top - 1, 0), right, bottom)]


@pytest.mark.parametrize("box", [(1, 9, 5, 3), (5, 1, 4.5, 8), (1, 5, 5, 4.5)])
def test_boxes_upside_down_are_refused(tmp_path, box):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", box))})
    refused(lambda: VOC(root, "train"), "expected 1 ≤ xmin ≤ xmax ≤ 20 and 1 ≤ ymin ≤ ymax ≤ 10")


@pytest.mark.parametrize("flag", ["truncated", "occluded", "difficult"])
def test_each_flag_is_its_own_and_any_number_but_zero_sets_it(tmp_path, flag):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", **{flag: 2}))})
    (box,) = VOC(root, "train").boxes(0)
    assert {name for name in ("truncated", "occluded", "difficult", "crowd") if getattr(box, name)} == {flag}


@pytest.mark.parametrize("size", ["<size><width>0</width><height>10</height></size>", "<size><width>20</width></size>"])
def test_half_a_size_is_no_size(tmp_path, size):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", (3, 3, 99, 99)), size=size)})
    assert VOC(root, "train").boxes(0) == [Box("dog", 2, 2, 20, 10)]


def test_an_unknown_way_with_errors_is_refused(tree):
    refused(lambda: VOC(tree, "train", on_error="ignore"), "on_error is 'ignore': expected 'raise' or 'skip'")


def test_a_file_that_is_no_annotation_is_told_so(tree):
    (tree / "Annotations" / "000001.xml").write_text("<html/>")
    refused(lambda: VOC(tree, "train"), "begins with <html>, not with <annotation>")


def test_repeated_names_in_the_list_of_classes_are_refused(tree):
    (tree / "classes.txt").write_text("dog\ncat\nperson\ndog\n")
    refused(lambda: VOC(tree, "train"), "lists class 'dog' more than once")
