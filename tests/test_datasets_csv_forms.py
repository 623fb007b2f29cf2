"""CSVs as people write them: marks of a class in every form, unknown labels, weights, and a CSV for each split."""

import shutil

import pytest
import torch
from trees import CLASSES, csv_tree, parts, pictures, save

from udlib.datasets.custom import Custom
from udlib.datasets.layouts import source


@pytest.fixture
def folder(tmp_path):
    """Pictures a.jpg to f.jpg, and a way to write a CSV beside them."""
    for name in "abcdef":
        save(pictures(1)[0], tmp_path / f"{name}.jpg")
    return tmp_path


def write(folder, text, name="labels.csv"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "yes, no", [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("TRUE", "false"), (" 1 ", " 0 "), ("true", "0")]
)
def test_the_marks_of_a_class_in_every_form_that_means_one_thing(folder, yes, no):
    write(folder, f"file,split,cat,dog\na.jpg,test,{yes},{no}\nb.jpg,test,{no},{yes}\n")
    data = Custom(folder, "test")
    assert data.targets.tolist() == [[1, 0], [0, 1]] and data.unknown is None and data.weights is None


@pytest.mark.parametrize("cell", ["", "nan", "0.5", "2", "yes", "x", "1,5"])
def test_any_other_mark_is_refused_with_what_to_write(folder, cell):
    write(folder, f'file,split,cat,dog\na.jpg,test,"{cell}",1\n')
    with pytest.raises(
        ValueError, match="line 2: column 'cat' holds .*: expected 0 or 1, or -1 for unknown; "
    ) as caught:
        Custom(folder, "test")
    if cell in ("", "nan"):
        assert "write 0 if the label is absent and -1 if nobody knows" in str(caught.value)


def test_a_column_of_names_that_is_not_called_labels_is_told_so(folder):
    write(folder, "file,split,label\na.jpg,test,cat\n")
    with pytest.raises(ValueError, match="column 'label' holds 'cat': .*name the column 'labels'"):
        Custom(folder, "test")


def test_minus_one_is_an_unknown_label_which_is_no_positive(folder):
    write(
        folder, "file,split,cat,dog\na.jpg,test,-1,1\nb.jpg,test,0,-1.0\nc.jpg,test,1,\N{MINUS SIGN}1\nd.jpg,val,1,1\n"
    )
    data = Custom(folder, "test")
    assert data.targets.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert data.unknown.tolist() == [[True, False], [False, True], [False, True]]
    part = data.subset([2, 0])
    assert part.unknown.tolist() == [[False, True], [True, False]] and part.only([1]).unknown.tolist() == [
        [True],
        [False],
    ]
    assert Custom(folder, "val").unknown is None


def test_a_column_of_weights_is_no_class(folder):
    write(folder, "file,split,labels,weight\na.jpg,train,cat,2\nb.jpg,train,dog,0.5\nc.jpg,val,cat|dog,1\n")
    data = Custom(folder, "train")
    assert data.classes == ("cat", "dog") and data.weights.tolist() == [2, 0.5]
    assert data.subset([1]).weights.tolist() == [0.5] and torch.equal(Custom(folder, "val").weights, torch.ones(1))
    for cell in ("-1", "nan", "inf", "", "heavy"):
        write(folder, f"file,split,labels,weight\na.jpg,train,cat,{cell}\n")
        with pytest.raises(ValueError, match="line 2: column 'weight' holds .*finite number, 0 or above"):
            Custom(folder, "train")


@pytest.mark.parametrize(
    "word, split", [("valid", "val"), ("Validation", "val"), ("TRAIN", "train"), ("testing", "test")]
)
def test_what_tools_call_the_splits_is_understood(folder, word, split):
    write(folder, f"file,split,cat\na.jpg,{word},1\n")
    assert Custom(folder, split).ids == ["a.jpg"]


def test_a_split_by_hash_is_announced(tmp_path):
    data = Custom(csv_tree(tmp_path, 40, split=False), "train")
    (note,) = data.notes
    assert (
        "has no column 'split': the hash of each file name divides its images" in note and f"{len(data)} train" in note
    )
    assert Custom(csv_tree(tmp_path, 40), "train").notes == ()


def per_split(root, count=40, valid="val", labels="columns"):
    """A tree whose labels.csv is taken apart into a CSV for each split."""
    csv_tree(root, count, form=labels)
    head, *lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").unlink()
    for split in ("train", "val", "test"):
        own = [line.replace(f",{split},", ",", 1) for line in lines if f",{split}," in line]
        name = {"val": valid}.get(split, split)
        (root / f"{name}.csv").write_text("\n".join([head.replace("split,", ""), *own]) + "\n")
    return root


@pytest.mark.parametrize("valid", ["val", "valid", "Validation"])
@pytest.mark.parametrize("labels", ["columns", "labels"])
def test_a_csv_for_each_split_is_that_split(tmp_path, valid, labels):
    root = per_split(tmp_path, valid=valid, labels=labels)
    whole = Custom(csv_tree(tmp_path / "whole", 40), "test")
    for opened in (root, root / "train.csv", root / "test.csv"):
        assert source(opened).layout == "csv"
        for split, rows in parts(40).items():
            data = Custom(opened, split)
            assert data.ids == [f"{i:04d}.jpg" for i in rows] and data.classes == CLASSES and data.notes == ()
        assert torch.equal(Custom(opened, "test").targets, whole.targets)


def test_a_csv_for_each_split_in_its_own_folder_as_roboflow_exports_it(folder):
    for split, names in {"train": "abc", "valid": "d", "test": "ef"}.items():
        lines = "".join(f"{name}.jpg, {i % 2}, {1 - i % 2}\n" for i, name in enumerate(names))
        write(folder, f"filename, cat, dog\n{lines}", f"{split}/_classes.csv")
        for name in names:
            shutil.move(folder / f"{name}.jpg", folder / split / f"{name}.jpg")
    assert source(folder).layout == "csv"
    data = Custom(folder, "train")
    assert data.ids == ["train/a.jpg", "train/b.jpg", "train/c.jpg"] and data.targets.tolist() == [
        [0, 1],
        [1, 0],
        [0, 1],
    ]
    assert Custom(folder, "val").paths == [folder / "valid" / "d.jpg"] and len(Custom(folder, "test")) == 2


def test_images_in_folders_that_are_called_like_the_csvs(folder):
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        write(folder, f"file,labels\n{name}.jpg,cat\n", f"{split}.csv")
        (folder / split).mkdir()
        shutil.move(folder / f"{name}.jpg", folder / split / f"{name}.jpg")
    assert [Custom(folder, split).ids for split in ("train", "val", "test")] == [
        ["train/a.jpg"],
        ["val/b.jpg"],
        ["test/c.jpg"],
    ]


def test_without_a_csv_for_val_a_tenth_of_train_is_held_out_and_said(tmp_path):
    root = per_split(tmp_path, 120)
    (root / "val.csv").unlink()
    train, val = Custom(root, "train"), Custom(root, "val")
    assert len(train) + len(val) == 60 and 1 <= len(val) <= 15 and len(Custom(root, "test")) == 30
    assert any("the hash of each file name holds out a tenth" in note for note in val.notes)


def test_a_test_csv_without_labels_is_no_test_split_and_said(tmp_path):
    root = per_split(tmp_path)
    (root / "test.csv").write_text("file\n0030.jpg\n")
    data = Custom(root, "train")
    assert any("test.csv' has no labels: nothing is measured on its images" in note for note in data.notes)
    with pytest.raises(FileNotFoundError, match="no image of split 'test'"):
        Custom(root, "test")


def test_csvs_that_contradict_each_other_are_refused(tmp_path):
    root = per_split(tmp_path)
    whole = (root / "val.csv").read_text()
    (root / "val.csv").write_text(whole + "0000.jpg,1,1,1,1,1,1\n")
    with pytest.raises(ValueError, match=r"val.csv' line 12: lists '0000.jpg' of '.*train.csv' line 2 again"):
        Custom(root, "train")
    (root / "val.csv").write_text(whole.replace("cat", "lion", 1))
    with pytest.raises(ValueError, match="val.csv' and the CSV of another split differ in the column 'cat'"):
        Custom(root, "train")
    (root / "val.csv").write_text(whole)
    shutil.copy(root / "val.csv", root / "valid.csv")
    with pytest.raises(ValueError, match="are both of the split 'val': keep one"):
        Custom(root, "train")


def test_a_csv_with_a_column_of_splits_stands_alone_and_others_are_named(folder):
    path = write(folder, "file,split,cat\na.jpg,train,1\nb.jpg,test,0\n", "train.csv")
    write(folder, "file,split,cat\nc.jpg,test,1\n", "test.csv")
    assert Custom(path, "test").ids == ["b.jpg"]
    with pytest.raises(ValueError, match="train.csv' line 3: has split = 'test' in a file of the split 'train'"):
        Custom(folder, "test")
    write(folder, "file,split,cat\na.jpg,train,1\n")
    assert Custom(folder, "train").notes == (f"of '{folder}' test.csv, train.csv are not read",)


def test_a_csv_that_is_named_after_test_is_the_test_split(folder):
    path = write(folder, "file,cat\na.jpg,1\nb.jpg,0\n", "test.csv")
    assert Custom(path, "test").ids == ["a.jpg", "b.jpg"]
