import dataclasses
import hashlib

import pytest
from trees import CLASSES, coco_tree, csv_tree, nus_tree, voc_tree

from udlib.datasets import open_dataset
from udlib.datasets.coco import COCO
from udlib.datasets.custom import Custom, read_csv
from udlib.datasets.folders import absent, first_repeated, held_out, inside, portion, rows_of_split, utf8
from udlib.datasets.layouts import layout_of, source
from udlib.datasets.nuswide import NUSWIDE
from udlib.datasets.roots import place
from udlib.datasets.voc import VOC

MAKERS = {"voc": (voc_tree, VOC), "coco": (coco_tree, COCO), "nuswide": (nus_tree, NUSWIDE), "csv": (csv_tree, Custom)}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    return {layout: make(root / layout, 40) for layout, (make, _) in MAKERS.items()}


@pytest.mark.parametrize("layout", MAKERS)
def test_a_folder_is_opened_by_what_it_holds(trees, layout):
    data = open_dataset(trees[layout], "test")
    assert type(data) is MAKERS[layout][1] and data.classes == CLASSES and len(data) == 10
    assert open_dataset(str(trees[layout]), "train", 64).classes == CLASSES
    assert source(trees[layout]).layout == layout


def test_the_four_trees_show_the_same_images(trees):
    first, *others = (open_dataset(root, "test") for root in trees.values())
    assert all(data.targets.tolist() == first.targets.tolist() for data in others)


def test_options_go_to_the_reader_and_paths_may_lie_anywhere_on_the_way(trees):
    assert len(open_dataset(trees["nuswide"], "trainval", unlabelled="drop")) < 30
    assert len(open_dataset(trees["voc"] / "VOCdevkit" / "VOC2007", "trainval")) == 30
    assert len(open_dataset(trees["voc"] / "VOCdevkit", "trainval", year=2007)) == 30
    assert len(open_dataset(trees["csv"] / "labels.csv", "trainval")) == 30
    with pytest.raises(TypeError, match="unlabelled"):
        open_dataset(trees["voc"], "test", unlabelled="drop")


def test_a_name_lies_below_the_data_root_or_where_root_says(trees, tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match="'voc2007' is not at '.*voc2007': `udlib data download voc2007` fetches"
    ):
        open_dataset("voc2007", "test")
    with pytest.raises(FileNotFoundError, match="'coco2014' is not at '.*': name the folder that holds it with root"):
        open_dataset("coco2014", "test")
    (tmp_path / "coco2014").symlink_to(trees["coco"])
    assert len(open_dataset("coco2014", "test")) == len(open_dataset("nuswide", "test", root=trees["nuswide"])) == 10
    assert len(open_dataset("voc2007", "test", root=trees["voc"])) == 10
    assert len(open_dataset("voc2007", "test", root=trees["voc"] / "VOCdevkit" / "VOC2007")) == 10
    with pytest.raises(ValueError, match="VOC2007, year is 2012"):
        open_dataset("voc2012", "test", root=trees["voc"])
    with pytest.raises(ValueError, match="not VOC2012"):
        open_dataset("voc2012", "test", root=trees["voc"] / "VOCdevkit" / "VOC2007")
    (tmp_path / "mine").symlink_to(trees["voc"] / "VOCdevkit" / "VOC2007")
    assert len(open_dataset("voc2007", "test", root=tmp_path / "mine")) == 10
    with pytest.raises(ValueError, match="root is for the data sets voc2007"):
        open_dataset(trees["csv"], "test", root=tmp_path)


def test_what_is_no_data_set_is_told_what_each_layout_needs(tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'imagenet': choose scenes, digits, photos, voc2007"):
        open_dataset("imagenet", "test")
    with pytest.raises(
        FileNotFoundError, match="it holds nothing.: voc needs ImageSets.*coco needs.*nuswide.*csv needs"
    ):
        open_dataset(tmp_path, "test")
    for k in range(10):
        (tmp_path / f"{k}.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"it holds 0.txt, .*, 7.txt and 2 more\)"):
        layout_of(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a CSV"):
        layout_of(tmp_path / "nowhere")


def test_the_splits_of_a_voc_folder_are_those_it_lists(trees):
    assert source(trees["voc"]).splits() == ["train", "val", "trainval", "test"]
    assert source(trees["coco"]).splits() == ["train", "val", "test"]


@pytest.mark.parametrize(
    "name, kept", [("a.jpg", "a.jpg"), ("b\\a.jpg", "b/a.jpg"), ("./b//a.jpg", "b/a.jpg"), ("..a/b..jpg", "..a/b..jpg")]
)
def test_a_name_inside_its_folder_is_kept(name, kept):
    assert inside(name) == kept


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a.jpg",
        "b/../../a.jpg",
        "b\\..\\a.jpg",
        "/a.jpg",
        "\\a.jpg",
        "C:\\a.jpg",
        "c:a.jpg",
        "\\\\server\\a.jpg",
        "a\0.jpg",
    ],
)
def test_a_name_that_leads_out_is_refused(name):
    with pytest.raises(ValueError, match="leads out of its folder"):
        inside(name)


def test_portions_spread_evenly():
    places = sorted(portion(str(i)) for i in range(2000))
    assert 0 <= places[0] and places[-1] < 1
    assert max(abs(place - i / 2000) for i, place in enumerate(places)) < 0.04


def test_a_data_set_lies_where_it_was_placed_for_every_command(trees, monkeypatch):
    monkeypatch.setenv("UDLIB_ROOTS", "")
    with pytest.raises(ValueError, match="unknown data set 'my_images'"):
        open_dataset("my_images", "train")
    place("my_images", trees["csv"])
    place("coco2014", trees["coco"])
    assert open_dataset("my_images", "test").ids == open_dataset(trees["csv"], "test").ids
    assert source("coco2014").root == trees["coco"].resolve() and source("my_images").layout == "csv"
    assert source("coco2014", trees["voc"]).root == trees["voc"], "a root that is given says more"


def test_the_folder_of_the_lists_is_the_voc_folder_below_or_the_root(trees):
    assert source(trees["voc"]).folder() == trees["voc"] / "VOCdevkit" / "VOC2007"
    for layout in ("coco", "nuswide", "csv"):
        assert source(trees[layout]).folder() == trees[layout]


def test_of_many_files_eight_are_named_and_the_rest_is_counted(tmp_path):
    for k in range(8):
        (tmp_path / f"{k}.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"it holds 0.txt, .*, 7.txt\)"):
        layout_of(tmp_path)
    (tmp_path / "8.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"7.txt and 1 more\)"):
        layout_of(tmp_path)


def test_a_file_that_is_given_is_a_table_of_labels(trees):
    assert layout_of(trees["csv"] / "labels.csv") == "csv"


def test_options_of_a_call_go_before_those_of_the_name(trees):
    found = source("voc2007", trees["voc"])
    assert found.options == {"year": 2007} and len(found.open("test")) == 10
    with pytest.raises(ValueError, match="year is 2012"):
        found.open("test", year=2012)


def test_what_describes_a_data_set_cannot_be_changed(trees):
    found = source(trees["csv"])
    listing = read_csv(trees["csv"] / "labels.csv")
    for record, name in ((found, "layout"), (listing, "rows"), (listing.rows[0], "file")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, None)
    assert source(trees["csv"]).options == {} and source(trees["coco"]).options is not source(trees["csv"]).options


def test_a_portion_is_the_first_six_bytes_of_the_hash():
    for name in ("a.jpg", "42", "ä"):
        expected = int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12
        assert portion(name) == expected and held_out(name) == (expected < 0.1)


def test_train_val_and_trainval_share_out_a_training_list():
    names = [str(k) for k in range(400)]
    val = [k for k, name in enumerate(names) if held_out(name)]
    assert rows_of_split("val", names) == val and 20 < len(val) < 60
    assert rows_of_split("train", names) == [k for k in range(400) if k not in val]
    assert rows_of_split("trainval", names) == list(range(400))


def test_missing_files_are_found_in_every_folder(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jpg").write_text("")
    paths = [tmp_path / "here" / "b.jpg", tmp_path / "gone" / "a.jpg", tmp_path / "here" / "a.jpg"]
    paths.append(tmp_path / "here" / "a.jpg" / "c.jpg")
    assert absent(paths) == [0, 1, 3] and absent([]) == []


def test_the_first_repeated_name_is_the_one_whose_second_place_comes_first():
    assert first_repeated(["a", "b", "b", "a"]) == "b" and first_repeated(["a", "b"]) is None


def test_a_text_that_is_not_utf_8_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("ä".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.txt' is not UTF-8 .*: save it as UTF-8$"), utf8(path) as file:
        file.read()
    path.write_bytes("\ufeffä".encode())
    with utf8(path) as file:
        assert file.read() == "ä"
