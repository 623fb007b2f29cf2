"""`udlib data`: what it prints, what it writes, and its exit codes."""

import csv
import re
from functools import partial

import pytest
from commands import udlib_command
from trees import CLASSES, coco_tree, csv_tree, nus_tree, voc_tree

import udlib.datasets
from udlib.datasets import sources
from udlib.datasets.voc import VOC


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `udlib data` in this process: `(exit code, stdout, stderr)`."""
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("UDLIB_PROGRESS", "0")
    monkeypatch.setenv("COLUMNS", "200")

    return partial(udlib_command, "data")


def cells(out, title):
    line = next(line for line in out.splitlines() if line.startswith(title))
    return re.split(r"\s{2,}", line.removeprefix(title).strip())


def test_describe_counts_a_voc_folder(command, tmp_path):
    root = voc_tree(tmp_path / "voc", 20)
    code, out, err = command("describe", root)
    assert code == 0 and err == "" and out.startswith(f"6 classes, voc layout, in '{root / 'VOCdevkit' / 'VOC2007'}'")
    assert cells(out, "images") == ["10", "5", "15", "5"] and cells(out, "without labels")[0] == "1"
    assert cells(out, "width, px") == ["24"] * 4 and cells(out, "commonest size") == ["24 × 16 (100%)"] * 4
    assert all(f"\n{name} " in out for name in CLASSES) and "(" in cells(out, "boat")[0]


def test_an_embedded_data_set_is_described_and_checked_by_its_name(command, tmp_path, monkeypatch):
    dataset = VOC(voc_tree(tmp_path / "voc", 80), "val")  # so many that every split shows every class
    monkeypatch.setattr(udlib.datasets, "open_dataset", lambda data, split, root: dataset)
    code, out, _ = command("describe", "scenes", "--split", "test")
    assert code == 0 and cells(out, "images") == ["20"]
    assert command("check", "digits")[:2] == (0, "nothing is wrong\n")


@pytest.mark.parametrize("make", [coco_tree, nus_tree, csv_tree])
def test_describe_reads_every_layout_and_writes_its_counts(command, tmp_path, make):
    root, file = make(tmp_path / "tree", 40), tmp_path / "counts.csv"
    code, out, _ = command("describe", root, "--split", "test", "--csv", file, "--no-sizes")
    assert code == 0 and cells(out, "images") == ["10"] and "width" not in out and f"written to '{file}'" in out
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["class"] for row in rows] == list(CLASSES) and {row["images"] for row in rows} == {"10"}
    assert [row["positives"] for row in rows] == [cells(out, name)[0] for name in CLASSES]


def test_describe_counts_the_splits_that_there_are_and_says_which_is_not(command, tmp_path):
    root = csv_tree(tmp_path / "csv", 20)
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join(line for line in lines if ",test," not in line))
    voc = voc_tree(tmp_path / "voc", 20) / "VOCdevkit" / "VOC2007"
    for name in (voc / "ImageSets" / "Main" / "test.txt").read_text().split():
        (voc / "Annotations" / f"{name}.xml").unlink()
    for data in (root, voc):
        code, out, err = command("describe", data, "--no-sizes")
        assert code == 0 and cells(out, "images")[:2] == ["10", "5"] and len(err.splitlines()) == 1
        assert err.startswith("split 'test' is not counted: ")
        assert command("describe", data, "--split", "test")[0] == 2, "who names it is told that it is not there"


def test_describe_says_what_is_missing_and_what_cannot_be_read(command, tmp_path):
    root = csv_tree(tmp_path / "tree", 20)
    (root / "images" / "0000.jpg").unlink()
    (root / "images" / "0001.jpg").write_bytes(b"")
    code, out, err = command("describe", root, "--split", "train")
    assert code == 0 and cells(out, "images") == ["9"]
    assert "train: 1 listed image missing (first: 0000.jpg)" in err
    assert "train: 1 picture cannot be read; `udlib data check` names them" in err


def test_describe_counts_unknown_labels_for_each_class_and_in_all(command, tmp_path):
    root, file = csv_tree(tmp_path / "tree", 20), tmp_path / "counts.csv"
    assert "unknown label" not in command("describe", root, "--no-sizes")[1]
    lines = [line.split(",") for line in (root / "labels.csv").read_text().splitlines()]
    first = 2  # the column of the first class
    for split, count in (("train", 3), ("val", 1)):
        for cells_of_line in [line for line in lines if line[1] == split][:count]:
            cells_of_line[first] = "-1"
            if split == "train":
                cells_of_line[first + 2] = "-1"
    (root / "labels.csv").write_text("\n".join(map(",".join, lines)))
    code, out, err = command("describe", root, "--no-sizes", "--csv", file)
    assert code == 0 and err == ""
    table = out.split("unknown labels of each class")[1]
    assert cells(table, CLASSES[0]) == ["3", "1", "0"] and cells(table, CLASSES[2]) == ["3", "0", "0"]
    assert cells(table, CLASSES[1]) == ["0", "0", "0"] and cells(table, "all classes") == ["6", "1", "0"]
    assert cells(out, "with an unknown one") == ["3", "1", "0"]
    with open(file, newline="") as rows:
        counts = {(row["split"], row["class"]): row["unknown"] for row in csv.DictReader(rows)}
    assert counts["train", CLASSES[0]] == "3" and counts["test", CLASSES[0]] == "0"


def test_describe_refuses_what_is_not_there_in_one_line(command, tmp_path):
    root = csv_tree(tmp_path / "tree", 20)
    for words, message in (
        ((root, "--split", "testing"), "no image of split 'testing'"),
        (("voc2007",), "udlib data download"),
        ((tmp_path / "nowhere",), "neither a folder nor a CSV"),
        ((tmp_path,), "in no layout"),
    ):
        code, out, err = command("describe", *words)
        assert code == 2 and out == "" and err.startswith("udlib: ") and message in err and err.count("\n") == 1


def test_check_exits_0_for_a_whole_tree_and_1_for_a_broken_one(command, tmp_path):
    root = voc_tree(tmp_path / "voc", 80)
    assert command("check", root)[:2] == (0, "nothing is wrong\n")
    path = root / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000002.jpg"
    path.write_bytes(path.read_bytes()[:200])
    code, out, _ = command("check", "voc2007", "--root", root)
    assert code == 1 and out.startswith(f"WRONG image '{path}' cannot be decoded") and out.endswith("1 problem found\n")


def test_ctrl_c_ends_each_command_with_130_and_a_sentence(command, tmp_path, monkeypatch):
    root = csv_tree(tmp_path / "tree", 12)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("udlib.datasets.picture_checks.examine", interrupted)
    assert command("check", root)[0::2] == (130, "\nstopped before the end: 0 problems so far\n")
    monkeypatch.setattr("udlib.datasets.base.MultiLabelDataset.image_size", interrupted)
    assert command("describe", root)[0] == 130
    monkeypatch.setattr(sources, "fetch", interrupted)
    code, out, err = command("download", "voc2007", "--root", tmp_path / "voc")
    assert code == 130 and out.startswith("VOCtrainval_06-Nov-2007.tar: from https://") and "goes on from here" in err


def test_download_leaves_a_complete_folder_alone_and_knows_its_names(command, tmp_path):
    root = voc_tree(tmp_path / "voc", 12)
    code, out, _ = command("download", "voc2007", "--root", root)
    assert code == 0 and "trainval of VOC2007: complete already\ntest of VOC2007: complete already\n" in out
    code, _, err = command("download", "coco2014")
    assert code == 2 and "choose voc2007 or voc2012" in err


def test_help_names_the_three_commands(command):
    code, out, _ = command("--help")
    assert code == 0 and all(name in out for name in ("describe", "check", "download"))
