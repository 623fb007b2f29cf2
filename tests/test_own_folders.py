"""A folder of one's own that is called like a data set of the course is never taken for it, nor it for the folder."""

from pathlib import Path

import pytest
from commands import udlib_command
from trees import csv_tree

from udlib.cli.options import chosen
from udlib.datasets import open_dataset
from udlib.datasets.layouts import source
from udlib.datasets.roots import place
from udlib.workshop import open_splits

NAMES = ("scenes", "digits", "photos", "voc2007", "coco2014", "nuswide")


@pytest.mark.parametrize("name", NAMES)
def test_a_bare_name_that_is_a_folder_here_too_is_refused_by_commands_and_a_path_is_the_folder(
    tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "elsewhere"))
    csv_tree(tmp_path / name, 12)
    with pytest.raises(ValueError, match=f"'{name}' is a data set of the course, and a folder .* write './{name}'"):
        chosen(name, "fail")
    for path in (f"./{name}", f"{name}/", Path(name), tmp_path / name, str(tmp_path / name)):
        data = open_dataset(path, "train")
        assert len(data) == 6 and data.paths[0].resolve() == tmp_path / name / "images" / "0000.jpg"
        assert source(path).layout == "csv"


def test_a_command_says_how_to_name_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "elsewhere"))
    csv_tree(tmp_path / "voc2007", 12)
    code, _, err = udlib_command("data", "check", "voc2007")
    assert code == 2 and err.startswith("udlib: 'voc2007' is a data set of the course") and "./voc2007" in err
    code, _, err = udlib_command("train", "voc2007", "--out", "model")
    assert code == 2 and "./voc2007" in err and not (tmp_path / "model").exists()
    assert udlib_command("data", "check", "./voc2007")[0] == 0


def test_the_folder_where_the_course_keeps_its_set_is_that_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="data set 'coco2014' is not at"):
        open_splits("coco2014", 16)
    monkeypatch.setenv("UDLIB_ROOTS", "")
    csv_tree(tmp_path / "own", 12)
    place("coco2014", tmp_path / "own")
    assert len(open_dataset("coco2014", "train")) == 6
