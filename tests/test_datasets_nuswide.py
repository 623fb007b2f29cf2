import pytest
from trees import CLASSES, nus_tree, parts, pictures

from udlib.datasets.folders import held_out
from udlib.datasets.nuswide import NUSWIDE, read_images, read_labels


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return nus_tree(tmp_path_factory.mktemp("nus"), 40)


@pytest.fixture
def tree(tmp_path):
    return nus_tree(tmp_path, 12)


def test_labels_equal_what_the_pictures_show(whole):
    data, shown = NUSWIDE(whole, "test"), pictures(40)
    assert data.classes == CLASSES and not data.difficult.any() and data.objects == [()] * 10
    assert data.ids[:2] == ["zebra/0030_7030", "actor/0031_7031"] and data.image_size(0) == (24, 16)
    for row, i in enumerate(parts(40)["test"]):
        assert data.targets[row].nonzero().flatten().tolist() == list(shown[i].labels)


def test_val_is_held_out_of_the_training_list(whole):
    ids = {split: NUSWIDE(whole, split).ids for split in ("train", "val", "trainval")}
    assert len(ids["trainval"]) == 30 and ids["val"] == [name for name in ids["trainval"] if held_out(name)]
    assert sorted(ids["train"] + ids["val"]) == sorted(ids["trainval"]) and ids["val"]
    with pytest.raises(ValueError, match="NUS-WIDE has no split 'all'"):
        NUSWIDE(whole, "all")


def test_images_without_concepts_are_kept_or_dropped(whole):
    kept, dropped = NUSWIDE(whole, "trainval"), NUSWIDE(whole, "trainval", unlabelled="drop")
    assert "actor/0001_7001" in kept.ids and "actor/0001_7001" not in dropped.ids
    assert dropped.ids == [name for name, row in zip(kept.ids, kept.targets) if row.any()]


def test_images_gone_from_flickr_are_counted_or_dropped(tree):
    (tree / "Flickr" / "actor" / "0009_7009.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 1 of the 3 images of split 'test' \(first: '.*0009_7009.jpg'\)"
    ):
        NUSWIDE(tree, "test")
    data = NUSWIDE(tree, "test", missing="drop")
    assert data.ids == ["zebra/0010_7010", "actor/0011_7011"] and data.skipped[0][0] == "actor/0009_7009"
    (tree / "Flickr").rename(tree / "images")
    assert NUSWIDE(tree, "test", missing="drop").paths[0] == tree / "images" / "zebra" / "0010_7010.jpg"
    (tree / "images").rename(tree / "elsewhere")
    with pytest.raises(FileNotFoundError, match="no 'Flickr' or 'images'"):
        NUSWIDE(tree, "test")


@pytest.mark.parametrize(
    "name",
    ["ConceptsList/Concepts81.txt", "ImageList/TestImagelist.txt", "Groundtruth/TrainTestLabels/Labels_cat_Test.txt"],
)
def test_a_missing_list_is_named(tree, name):
    (tree / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no '{name}': extract"):
        NUSWIDE(tree, "test")


WRONG = [
    ("ConceptsList/Concepts81.txt", "", "is empty: expected one concept"),
    ("ConceptsList/Concepts81.txt", "cat\ndog\ncat\n", "lists 'cat' more than once"),
    ("ImageList/TestImagelist.txt", "\n", "is empty: expected one image"),
    ("ImageList/TestImagelist.txt", "a\\1.jpg\na/2.jpg\na\\1.jpg\n", "entry 3 lists 'a/1.jpg' again"),
    ("ImageList/TestImagelist.txt", "..\\..\\secret.jpg\na\\2.jpg\na\\3.jpg\n", "entry 1: file name .* leads out"),
    ("Groundtruth/TrainTestLabels/Labels_cat_Test.txt", "1\n0\n", "has 2 lines, its list of images 3"),
    ("Groundtruth/TrainTestLabels/Labels_cat_Test.txt", "1\n-1\n0\n", "entry 2 holds '-1': expected 0 or 1"),
    ("Groundtruth/TrainTestLabels/Labels_cat_Test.txt", "1 0\n0\n1\n", "has 4 lines"),
]


@pytest.mark.parametrize("name, content, message", WRONG, ids=[message[:30] for *_, message in WRONG])
def test_a_bad_list_is_refused_by_name(tree, name, content, message):
    (tree / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        NUSWIDE(tree, "test")
    assert str(tree / name) in str(caught.value)


def test_what_is_wrong_is_left_out_when_problems_are_collected(tree):
    (tree / "ImageList" / "TestImagelist.txt").write_text("a\\1.jpg\n..\\2.jpg\na\\3.jpg\na\\1.jpg\n")
    problems = []
    assert read_images(tree, "Test", problems.append) == ["a/1.jpg", "a/3.jpg"]
    assert [said[said.index("entry") :][:7] for said in problems] == ["entry 2", "entry 4"]
    folder = tree / "Groundtruth" / "TrainTestLabels"
    (folder / "Labels_cat_Test.txt").write_text("1\n0\n")
    (folder / "Labels_dog_Test.txt").write_text("0\n2\n3\n")
    (folder / "Labels_ball_Test.txt").write_bytes(b"\xef\xbb\xbf1\r\n0\r\n1\r\n")
    found = read_labels(tree, "Test", ("cat", "dog", "ball"), 3, problems.append)
    assert found.dtype == "uint8"
    assert found.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]] and "entry 2 holds '2'" in problems[-1]


def test_the_splits_come_from_their_own_lists(tree):
    assert len(NUSWIDE(tree, "test")) == 3 and len(NUSWIDE(tree, "trainval")) == 9
    assert not {*NUSWIDE(tree, "test").ids} & {*NUSWIDE(tree, "trainval").ids}
