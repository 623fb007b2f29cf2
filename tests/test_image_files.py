"""Image files are found under the endings that tools give them, in every layout, and never by a guess among several."""

from pathlib import Path

import pytest
from commands import udlib_command
from PIL import Image
from test_datasets_voc import annotation, make_tree, object_xml
from trees import coco_tree, csv_tree, nus_tree, voc_tree

from udlib.datasets import VOC, open_dataset
from udlib.datasets.image_files import find_files, rivals

MAKERS = {"voc": voc_tree, "coco": coco_tree, "nuswide": nus_tree, "csv": csv_tree}


def rename(root, ending):
    """Give every image below a folder another ending."""
    for path in root.rglob("*.jpg"):
        path.rename(path.with_suffix(ending))


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("layout", MAKERS)
def test_every_layout_finds_its_images_under_any_ending(tmp_path, layout, ending):
    root = MAKERS[layout](tmp_path / "tree", 24)
    before = open_dataset(root, "train")
    rename(root, ending)
    data = open_dataset(root, "train")
    assert data.ids == before.ids and data.targets.equal(before.targets)
    assert {path.suffix for path in data.paths} == {ending} and data.image(0).size == (24, 16)
    code, out, _ = udlib_command("data", "check", root)
    assert code == 0 and ("24 images are found under another name" in out) == (layout != "voc")


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_a_file_of_just_the_listed_name_always_counts(tmp_path):
    folder = touch(tmp_path, "a.jpg", "a.png", "a.JPG")
    assert find_files([folder / "a.jpg", folder / "a.png"]) == [folder / "a.jpg", folder / "a.png"]


def test_of_several_none_is_taken_and_all_are_named(tmp_path):
    folder = touch(tmp_path, "a.jpeg", "a.png", "a.txt", "b.png")
    assert find_files([folder / "a.jpg"]) == [folder / "a.jpg"]
    assert rivals(folder / "a.jpg") == "; 'a.jpeg' and 'a.png' are there: keep one of them"
    assert rivals(folder / "b.jpg") == "" == rivals(folder / "nowhere" / "b.jpg")


def test_names_with_dots_and_names_without_an_ending_are_found(tmp_path):
    folder = touch(tmp_path, "2024.05.01.png", "x.jpg", "sub.v2.jpeg", "notes.txt")
    listed = [folder / "2024.05.01", folder / "x", folder / "sub.v2.jpg", folder / "notes", folder / "x.jpg.jpg"]
    found = ["2024.05.01.png", "x.jpg", "sub.v2.jpeg", "notes", "x.jpg.jpg"]
    assert find_files(listed) == [folder / name for name in found]
    assert find_files([Path("no/such/folder/a.jpg")]) == [Path("no/such/folder/a.jpg")]


def test_in_voc_layout_the_annotation_decides_between_several_files_and_names_another_one(tmp_path):
    def named(file):
        return annotation(object_xml("dog")).replace("<annotation>", f"<annotation><filename>{file}</filename>")

    root = make_tree(tmp_path, {"a": named("a.png"), "b": named("folder\\photo.JPG"), "c": named("gone.jpg")})
    images = root / "JPEGImages"
    for name in ("a", "b", "c"):
        (images / f"{name}.jpg").unlink()
    for name in ("a.png", "a.jpeg", "photo.JPG", "c.jpeg", "c.png"):
        Image.new("RGB", (20, 10)).save(images / name)
    with pytest.raises(FileNotFoundError, match=r"first: c.jpg; 'c.jpeg' and 'c.png' are there: keep one of them"):
        VOC(root, "train")
    (images / "c.png").unlink()
    assert [path.name for path in VOC(root, "train").paths] == ["a.png", "photo.JPG", "c.jpeg"]


def test_an_annotation_without_a_size_takes_it_from_an_image_of_any_ending(tmp_path):
    root = make_tree(tmp_path, {"a": annotation(object_xml("dog", (3, 3, 99, 99)), size="")})
    rename(root, ".png")
    [box] = VOC(root, "train").boxes(0)
    assert (box.xmax, box.ymax) == (20, 10)
