import numpy as np
import pytest
import torch
from PIL import Image

from udlib.datasets.base import (
    Box,
    MultiLabelDataset,
    apply_policy,
    check_trainable,
    data_root,
    label_states,
    to_memory,
)
from udlib.datasets.voc import VOC, VOC_CLASSES

RAMP = (np.arange(200)[:, None] * [1, 0.5, 0.2]).astype(np.uint8).reshape(10, 20, 3)


def object_xml(name, box=(1, 1, 10, 8), **flags):
    sides = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    marks = "".join(f"<{tag}>{value}</{tag}>" for tag, value in flags.items())
    return f"<object><name>{name}</name>{marks}<bndbox>{sides}</bndbox></object>"


def annotation(*objects, size="<size><width>20</width><height>10</height><depth>3</depth></size>"):
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def make_tree(root, annotations, split="train", ending="\n"):
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, xml in annotations.items():
        (root / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
        Image.fromarray(RAMP).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    (root / "ImageSets" / "Main" / f"{split}.txt").write_bytes("".join(name + ending for name in annotations).encode())
    return root


@pytest.fixture
def tree(tmp_path):
    """Four images: a dog easy and difficult; a cat only difficult; nothing at all; a person that hides a dog."""
    return make_tree(
        tmp_path / "VOC2007",
        {
            "000001": annotation(object_xml("dog", difficult=0), object_xml("dog", difficult=1)),
            "000002": annotation(object_xml("cat", difficult=1, truncated=1)),
            "000003": annotation(),
            "000004": annotation(object_xml("person", (5, 3, 20, 10), occluded=1), object_xml("dog", (1, 1, 1, 1))),
        },
    )


def refused(call, *parts, error=ValueError):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert str(part) in str(caught.value), f"{part!r} is not in: {caught.value}"


def test_the_three_label_states_follow_from_the_objects(tree):
    data = VOC(tree, "train")
    dog, cat, person = (VOC_CLASSES.index(name) for name in ("dog", "cat", "person"))
    expected = torch.zeros(4, 20, dtype=torch.uint8)
    expected[0, dog] = expected[1, cat] = expected[3, person] = expected[3, dog] = 1
    assert data.classes == VOC_CLASSES and data.ids == ["000001", "000002", "000003", "000004"]
    assert torch.equal(data.targets, expected) and data.targets.dtype == torch.uint8
    assert data.difficult.nonzero().tolist() == [[1, cat]]
    assert data.posterior is None and data.skipped == []


def test_an_item_is_image_target_difficult(tree):
    data = VOC(tree, "train", transform=lambda image: image.size)
    image, target, difficult = data[1]
    assert image == (20, 10) and target.dtype == torch.float32 and difficult.dtype == torch.bool
    assert target.shape == difficult.shape == (20,) and target.sum() == difficult.sum() == 1
    assert data.image(0).mode == "RGB" and data.image_size(0) == (20, 10)
    assert data.image_path(2) == tree / "JPEGImages" / "000003.jpg"


def test_boxes_count_from_zero_and_end_exclusive_and_absent_flags_are_false(tree):
    data = VOC(tree, "train")
    assert data.boxes(3) == [Box("person", 4, 2, 20, 10, occluded=True), Box("dog", 0, 0, 1, 1)]
    assert data.boxes(1) == [Box("cat", 0, 0, 10, 8, truncated=True, difficult=True)]
    assert data.boxes(2) == []


@pytest.mark.parametrize("above", ["", "VOCdevkit"])
def test_root_may_be_a_folder_above(tmp_path, tree, above):
    parent = tmp_path / "data"
    target = parent / above / "VOC2007"
    target.parent.mkdir(parents=True)
    tree.rename(target)
    assert len(VOC(parent, "train")) == len(VOC(parent, "train", year=2007)) == 4
    make_tree(parent / above / "VOC2012", {"a": annotation()})
    assert len(VOC(parent, "train", year="2012")) == 1
    refused(lambda: VOC(parent, "train"), "VOC2007, VOC2012", "year=")
    refused(lambda: VOC(parent, "train", year=2010), "VOC2007, VOC2012", "2010")
    refused(lambda: VOC(target, "train", year=2012), "VOC2012", "leave out year")


def test_missing_and_half_extracted_roots_are_named(tmp_path, tree):
    refused(lambda: VOC(tmp_path / "nowhere", "train"), "nowhere", "VOCdevkit", error=FileNotFoundError)
    (tmp_path / "empty").mkdir()
    refused(lambda: VOC(tmp_path / "empty", "train"), "ImageSets/Main", "VOCdevkit", error=FileNotFoundError)
    refused(lambda: VOC(tree, "test"), "no split 'test'", "found train", error=FileNotFoundError)
    (tree / "JPEGImages" / "000002.jpg").unlink()
    (tree / "JPEGImages" / "000003.jpg").unlink()
    refused(lambda: VOC(tree, "train"), "lacks 2 of 4", "JPEGImages", "000002.jpg", error=FileNotFoundError)
    (tree / "Annotations" / "000004.xml").unlink()
    refused(lambda: VOC(tree, "train"), "lacks 1 of 4", "Annotations", "000004.xml", error=FileNotFoundError)
    (tree / "Annotations").rename(tree / "elsewhere")
    refused(lambda: VOC(tree, "train"), "no 'Annotations'", "extract", error=FileNotFoundError)


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation><object><name>&y;</name></object></annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    "xml, message",
    [
        ("<annotation><object>", "not valid XML"),
        ("", "not valid XML"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not valid XML"),
        (BOMB, "entities"),
        (OUTSIDE, "entities"),
        (annotation("<object><bndbox/></object>"), "without a name"),
        (annotation("<object><name>dog</name><bndbox/></object>"), "bndbox/xmin = None"),
        (annotation(object_xml("dog", ("one", 1, 2, 2))), "bndbox/xmin = 'one'"),
        (annotation(object_xml("dog", ("nan", 1, 2, 2))), "bndbox/xmin = 'nan'"),
        (annotation(object_xml("dog", difficult="maybe")), "difficult = 'maybe'"),
        (annotation(object_xml("dog", (9, 1, 3, 8))), "xmin 9, ymin 1, xmax 3, ymax 8"),
        (annotation(object_xml("dog", (30, 1, 21, 8))), "image of 20 × 10"),
    ],
)
def test_a_bad_annotation_names_its_file_and_can_be_skipped(tree, xml, message):
    path = tree / "Annotations" / "000002.xml"
    path.write_text(xml, encoding="utf-8")
    refused(lambda: VOC(tree, "train"), path, message)
    data = VOC(tree, "train", on_error="skip")
    assert data.ids == ["000001", "000003", "000004"] and len(data.targets) == 3
    [(name, reason)] = data.skipped
    assert name == "000002" and message in reason


def test_a_box_over_the_edge_is_clipped_to_the_image(tmp_path):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", (-3, 0, 25, 10.5)))})
    assert VOC(root, "train").boxes(0) == [Box("dog", 0, 0, 20, 10)]


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_the_image_itself_tells_its_size_where_the_annotation_does_not(tmp_path, size):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", (3, 3, 99, 99)), size=size)})
    assert VOC(root, "train").boxes(0) == [Box("dog", 2, 2, 20, 10)]
    (root / "JPEGImages" / "a.jpg").write_bytes(b"no picture")
    refused(lambda: VOC(root, "train"), root / "JPEGImages" / "a.jpg")


def test_a_truncated_jpeg_names_its_file_and_can_be_skipped(tree):
    path = tree / "JPEGImages" / "000001.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    data = VOC(tree, "train")
    refused(lambda: data[0], path, "truncated", "--missing drop (in Python missing='drop')")
    refused(lambda: to_memory(data, 8), path)
    (tree / "JPEGImages" / "000003.jpg").write_bytes(b"")
    (tree / "JPEGImages" / "000004.jpg").unlink()
    data = VOC(tree, "train", on_error="skip")
    assert data.ids == ["000002"] and [name for name, _ in data.skipped] == ["000001", "000003", "000004"]
    (tree / "JPEGImages" / "000002.jpg").unlink()
    refused(lambda: VOC(tree, "train", on_error="skip"), "none of the 4 images")


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "RGBA"])
def test_every_kind_of_image_becomes_rgb(tree, mode):
    path = tree / "JPEGImages" / "000001.jpg"
    source = Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode)
    source.save(path, "JPEG" if mode in ("L", "CMYK") else "PNG")  # a PNG that is called .jpg occurs in the wild
    image = VOC(tree, "train").image(0)
    assert image.mode == "RGB" and image.getpixel((5, 5)) == (255, 255, 255)


def test_an_unknown_class_is_an_error_with_the_nearest_name(tree):
    call = lambda: VOC(tree, "train", classes=["dog", "cat", "persn"], on_error="skip")  # noqa: E731
    refused(call, "000004.xml", "'person'", "dog, cat, persn", "did you mean 'persn'?")
    refused(lambda: VOC(tree, "train", classes=["dog"]), "pass classes=")
    refused(lambda: VOC(tree, "train", classes=["dog", "cat", "dog"]), "'dog' more than once")


def test_where_the_class_names_come_from(tmp_path):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog"))})
    make_tree(root, {"b": annotation(object_xml("zebra"))}, split="val")
    assert VOC(root, "train").classes == VOC(root, "val").classes == ("dog", "zebra")
    (root / "Annotations" / "b.xml").write_text("<broken")
    assert VOC(root, "train").classes == VOC_CLASSES
    for stem in ("zebra_train", "dog_train", "zebra_val", "big_cat_val", "dog_small_train"):
        (root / "ImageSets" / "Main" / f"{stem}.txt").write_text("a -1\n")
    (root / "ImageSets" / "Main" / "small_train.txt").write_text("a\n")
    assert VOC(root, "train").classes == ("big_cat", "dog", "zebra")
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfzebra\r\ndog\r\n")
    assert VOC(root, "train").classes == ("zebra", "dog")
    assert VOC(root, "train", classes=["dog"]).classes == ("dog",)


def test_voc2012_has_a_class_called_train_and_parts_with_names_and_fractional_boxes(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    person = object_xml("person", (1.5, 2, 9.25, 8)).replace("<bndbox>", part + "<bndbox>")
    root = make_tree(tmp_path, {"a": annotation(person)}, split="val")
    for stem in ("train", "trainval", "train_train", "train_trainval", "train_val", "person_val"):
        state = " 1" if stem == "person_val" else " -1" if "_" in stem else ""
        (root / "ImageSets" / "Main" / f"{stem}.txt").write_text(f"a{state}\n")
    data = VOC(root, "val")
    assert data.classes == ("person", "train") and data.check() == []
    assert data.boxes(0) == [Box("person", 0.5, 1, 9.25, 8)]


def test_windows_line_ends_and_blank_lines_do_no_harm(tmp_path):
    root = make_tree(tmp_path, {"a": annotation(), "b": annotation()}, ending="  \r\n\r\n")
    assert VOC(root, "train").ids == ["a", "b"]


@pytest.mark.parametrize(
    "content, message",
    [("", "is empty"), ("\n \n", "is empty"), ("a\nb\na\n", "'a' more than once"), ("a -1\n", "'a -1'")],
)
def test_a_bad_split_file_is_refused(tmp_path, content, message):
    root = make_tree(tmp_path, {"a": annotation(), "b": annotation()})
    (root / "ImageSets" / "Main" / "train.txt").write_text(content)
    refused(lambda: VOC(root, "train"), root / "ImageSets" / "Main" / "train.txt", message)


def test_check_reports_where_class_files_and_annotations_disagree(tree):
    main = tree / "ImageSets" / "Main"
    (main / "dog_train.txt").write_text("000001  1\n000002 -1\n000003 -1\n000004  1\n")
    (main / "cat_train.txt").write_text("000001 -1\r\n000002  0\r\n000003 -1\r\n000004 -1\r\n")
    (main / "person_train.txt").write_text("000001 -1\n000002 -1\n000003 -1\n000004 1\n")
    assert VOC(tree, "train").check() == []
    (main / "cat_train.txt").write_text("000001 -1\n000002  1\n000004 -1\n000009 1\n")
    assert VOC(tree, "train").check() == [
        "000009: listed in cat_train.txt but not in train.txt",
        "000002: cat_train.txt says 1, its annotation says 0",
        "000003: missing from cat_train.txt",
    ]
    (main / "cat_train.txt").write_text("000001 5\n")
    refused(VOC(tree, "train").check, "cat_train.txt' line 1", "'000001 5'")


def literal_policy(targets, difficult, policy):
    out, ignore = targets.clone(), torch.zeros_like(difficult)
    for i in range(len(targets)):
        for k in range(targets.shape[1]):
            if difficult[i, k] and policy == "ignore":
                ignore[i, k] = True
            if difficult[i, k] and policy == "negative":
                out[i, k] = 0
    return out, ignore


@pytest.mark.parametrize("policy", ["positive", "ignore", "negative"])
def test_a_policy_equals_a_literal_loop_and_leaves_its_inputs_alone(policy):
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(30, 7, generator=generator) < 0.4).to(torch.uint8)
    difficult = (torch.rand(30, 7, generator=generator) < 0.4) & (targets == 1)
    before = targets.clone()
    out, ignore = apply_policy(targets, difficult, policy)
    expected, masked = literal_policy(targets, difficult, policy)
    assert torch.equal(out, expected) and torch.equal(ignore, masked) and out.dtype == torch.uint8
    out.fill_(9)
    assert torch.equal(targets, before)


def test_a_policy_refuses_what_cannot_be():
    ones, none = torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)
    refused(lambda: apply_policy(ones, none, "drop"), "'drop'", "'ignore'")
    refused(lambda: apply_policy(ones, none[:, :1], "ignore"), "(1, 2)", "(1, 1)")
    refused(lambda: apply_policy(ones * 0, ~none, "ignore"), "[0, 0]")
    refused(lambda: apply_policy(ones, ones, "ignore"), "torch.float32", error=TypeError)


def test_training_needs_at_least_one_positive_label():
    assert check_trainable(torch.tensor([[0, 1], [0, 0]]), ["cat", "dog"]) == ["cat"]
    refused(lambda: check_trainable(torch.zeros(3, 2), ["cat", "dog"]), "3 images × 2 classes (cat, dog)")
    refused(lambda: check_trainable(torch.zeros(3, 2), ["cat"]), "(3, 2)", "(N, 1)")
    refused(lambda: check_trainable(torch.full((1, 1), 2.0), ["cat"]), "2.0", "0 and 1")


def test_a_subset_keeps_rows_together(tree):
    data = VOC(tree, "train")
    part = data.subset([3, -3])
    assert part.ids == ["000004", "000002"] and len(part) == 2 and part.classes == data.classes
    assert torch.equal(part.targets, data.targets[[3, 1]]) and torch.equal(part.difficult, data.difficult[[3, 1]])
    assert part.boxes(0) == data.boxes(3) and part.image_path(1) == data.image_path(1) and len(data) == 4
    assert len(data.subset([])) == 0


def test_some_classes_keep_their_columns_and_objects_in_the_order_that_was_asked(tree):
    data = VOC(tree, "train")
    second, first = data.only([2, 0]), data.only([0])
    assert second.classes == (data.classes[2], data.classes[0]) and second.ids == data.ids and len(data.classes) > 2
    assert torch.equal(second.targets, data.targets[:, [2, 0]]) and torch.equal(
        second.difficult, data.difficult[:, [2, 0]]
    )
    for i in range(len(data)):
        assert first.boxes(i) == [box for box in data.boxes(i) if box.name == data.classes[0]]
    assert torch.equal(label_states(first.objects, first.classes)[0], first.targets)
    for wrong in ([], [0, 0], [-1], [len(data.classes)]):
        with pytest.raises(ValueError, match=r"classes are \[.*\]: expected different numbers from 0 to"):
            data.only(wrong)


def test_to_memory_holds_the_same_pixels_for_any_number_of_workers(tree):
    data = VOC(tree, "train")
    pixels = to_memory(data, 8)
    assert pixels.shape == (4, 3, 8, 8) and pixels.dtype == torch.uint8
    for i in range(4):
        resized = np.array(data.image(i).resize((8, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(pixels[i].numpy(), resized.transpose(2, 0, 1))
    assert torch.equal(pixels, to_memory(data, 8, workers=3))


def test_a_data_set_without_boxes_takes_targets_and_checks_their_shape(tmp_path):
    targets = torch.tensor([[1, 0]])
    data = MultiLabelDataset(["a", "b"], ["x"], [tmp_path / "x.jpg"], targets=targets)
    assert data.targets.tolist() == [[1, 0]] and not data.difficult.any() and data.boxes(0) == []
    refused(lambda: MultiLabelDataset(["a"], ["x"], [tmp_path], targets=targets), "targets has shape (1, 2)", "(1, 1)")
    refused(lambda: MultiLabelDataset(["a"], ["x"], [], [[]]), "1 ids, 0 paths")
    refused(lambda: data.image(0), "x.jpg", error=FileNotFoundError)


def test_the_data_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("UDLIB_DATA")
    assert data_root().parts[-2:] in {(data_root().parent.name, "data"), (".cache", "udlib")}
