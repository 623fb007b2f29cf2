"""Label tables: the same result with and without, and never an old one."""

import dataclasses
import hashlib
import io
import os
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from trees import LeavesATrace, coco_tree, pictures, save, voc_tree, voc_xml

from udlib.datasets import tables, voc_annotations
from udlib.datasets.base import Box
from udlib.datasets.coco import COCO
from udlib.datasets.voc import VOC
from udlib.datasets.xml_folders import XMLFolder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A data root of its own, where even the smallest table is kept."""
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(tables, "SMALLEST", 0)
    return tmp_path / "data" / "cache"


@pytest.fixture
def parsed(monkeypatch):
    """Notes each annotation that is parsed."""
    names, parse = [], voc_annotations.parse_annotation
    monkeypatch.setattr(voc_annotations, "parse_annotation", lambda path: names.append(path.stem) or parse(path))
    return names


def content(data):
    return data.classes, data.ids, data.paths, data.objects, data.targets.tolist(), data.difficult.tolist()


def rewritten(path, old, new):
    """Change a file's text, and its time as an editor would a moment later."""
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_a_voc_folder_reads_the_same_from_its_table(cache, parsed, tmp_path, monkeypatch):
    root = voc_tree(tmp_path / "voc", 24)
    first = content(VOC(root, "trainval"))
    assert len(parsed) == 18 and len(list(cache.iterdir())) == 1
    assert content(VOC(root, "trainval")) == first and len(parsed) == 18
    monkeypatch.setattr(tables, "SMALLEST", 1000)
    assert content(VOC(root, "trainval")) == first and len(parsed) == 36


def xml_tree(root, count=24):
    """Images with an XML each in the folders of splits, and no lists."""
    for split, rows in {"train": range(12), "valid": range(12, 18), "test": range(18, count)}.items():
        for i in rows:
            save(pictures(count)[i], root / split / f"{i:03d}.jpg")
            (root / split / f"{i:03d}.xml").write_text(voc_xml(pictures(count)[i]))
    return root


def test_a_folder_of_xml_without_lists_is_parsed_once_for_all_its_splits(cache, parsed, tmp_path, monkeypatch):
    root = xml_tree(tmp_path / "xml")
    first = [content(XMLFolder(root, split)) for split in ("train", "val", "test")]
    assert len(parsed) == 24 and len(list(cache.iterdir())) == 1
    assert [content(XMLFolder(root, split)) for split in ("train", "val", "test")] == first and len(parsed) == 24
    monkeypatch.setattr(tables, "SMALLEST", 1000)
    assert [content(XMLFolder(root, split)) for split in ("train", "val", "test")] == first and len(parsed) == 24 * 4


def test_a_table_of_xml_without_lists_follows_a_changed_new_and_removed_annotation(cache, tmp_path):
    root = xml_tree(tmp_path / "xml")
    before = XMLFolder(root, "test")
    row = next(i for i in range(len(before)) if before.objects[i])
    old = before.objects[row][0].name
    rewritten(root / "test" / f"{before.ids[row].split('/')[1]}.xml", f"<name>{old}</name>", "<name>whale</name>")
    assert "whale" in XMLFolder(root, "train").classes and XMLFolder(root, "test").objects[row][0].name == "whale"
    (root / "test" / "018.xml").rename(root / "test" / "019b.xml")
    (root / "test" / "018.jpg").rename(root / "test" / "019b.jpg")
    assert XMLFolder(root, "test").ids == ["test/019", "test/019b", *[f"test/{i:03d}" for i in range(20, 24)]]


def test_coco_reads_the_same_from_its_table_whatever_the_options(cache, tmp_path, monkeypatch):
    root = coco_tree(tmp_path / "coco", 40)
    choices = [
        {"crowd": crowd, "unlabelled": kept} for crowd in ("positive", "difficult", "drop") for kept in ("keep", "drop")
    ]
    stored = [content(COCO(root, split, **choice)) for split in ("train", "val", "test") for choice in choices]
    assert len(list(cache.iterdir())) == 2  # one for each JSON
    monkeypatch.setattr("udlib.datasets.coco.read_instances", None)
    again = [content(COCO(root, split, **choice)) for split in ("train", "val", "test") for choice in choices]
    assert stored == again
    monkeypatch.undo()
    assert stored == [content(COCO(root, split, **choice)) for split in ("train", "val", "test") for choice in choices]


def test_a_changed_annotation_is_noticed_and_replaces_the_table(cache, parsed, tmp_path):
    root = voc_tree(tmp_path / "voc", 8)
    path = root / "VOCdevkit" / "VOC2007" / "Annotations" / "000000.xml"
    before = VOC(root, "train").targets[0].tolist()
    rewritten(path, "<name>cat<", "<name>dog<")  # the same size, another time
    after = VOC(root, "train")
    assert before == [1] * 6 and after.targets[0].tolist() == [1, 1, 0, 1, 1, 1]
    assert len(list(cache.iterdir())) == 1
    count = len(parsed)
    assert content(VOC(root, "train")) == content(after) and len(parsed) == count


def test_a_changed_json_is_noticed(cache, tmp_path):
    root = coco_tree(tmp_path / "coco", 12)
    assert COCO(root, "test").classes[2] == "cat"
    rewritten(root / "annotations" / "instances_val2014.json", '"cat"', '"cow"')
    assert COCO(root, "test").classes[2] == "cow"


def test_another_list_another_root_and_another_format_are_other_tables(cache, tmp_path, monkeypatch):
    root = voc_tree(tmp_path / "voc", 8)
    names = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "train.txt"
    ids = VOC(root, "train").ids
    names.write_text("".join(f"{name}\n" for name in ids[::-1]))
    data = VOC(root, "train")
    assert data.ids == ids[::-1] and len(data.boxes(3)) == 6
    other = voc_tree(tmp_path / "other", 8, seed=1)
    assert content(VOC(other, "train"))[3] != content(data)[3] and len(list(cache.iterdir())) == 2
    file = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "train.txt"
    assert tables.fingerprint([file]) != tables.fingerprint([file], version=tables.FORMAT + 1)


TABLE = tables.Table(
    ("cat", "ドッグ"),
    ["1", "b c"],
    ["x/1.jpg", "ü.jpg"],
    [(), (Box("ドッグ", 0.1, 1 / 3, 9, 10, True, False, True, True), Box("cat", 1, 2, 3, 4))],
)


def test_a_table_survives_its_file_exactly(tmp_path):
    path = tmp_path / "table.npz"
    for table in (TABLE, tables.Table((), [], [], []), tables.Table(("cat",), ["1"], ["1.jpg"], [()])):
        path.write_bytes(tables.packed(table, "key"))
        assert tables.load(path, "key") == table and tables.load(path, "other") is None
    assert tables.load(tmp_path / "nowhere.npz", "key") is None


def test_a_damaged_table_is_never_believed(tmp_path):
    path, whole = tmp_path / "table.npz", tables.packed(TABLE, "key")
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        assert tables.load(path, "key") is None
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert tables.load(path, "key") in (None, TABLE)  # some bytes of a zip mean nothing


@pytest.mark.parametrize("name", ["made_from", "classes", "ids", "files", "count", "label", "sides", "flags"])
def test_nothing_is_unpickled(tmp_path, name):
    path, trace = tmp_path / "table.npz", tmp_path / "trace"
    path.write_bytes(tables.packed(TABLE, "key"))
    with np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    assert name in arrays
    np.savez(path, **arrays | {name: np.array([LeavesATrace(trace)], dtype=object)})
    assert tables.load(path, "key") is None and not trace.exists()


def test_a_damaged_table_is_made_again(cache, parsed, tmp_path):
    root = voc_tree(tmp_path / "voc", 8)
    first = content(VOC(root, "train"))
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    assert content(VOC(root, "train")) == first and len(parsed) == 8
    assert content(VOC(root, "train")) == first and len(parsed) == 8


def test_a_full_disk_is_a_warning_and_leaves_no_file(cache, tmp_path, monkeypatch):
    root = voc_tree(tmp_path / "voc", 8)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(UserWarning, match="not kept for the next time .*No space left on device.*UDLIB_DATA"):
            data = VOC(root, "train")
    assert len(data) == 4 and list(cache.iterdir()) == []


def test_what_a_killed_build_left_is_removed_when_nobody_can_be_writing_it_any_more(cache, tmp_path):
    root = voc_tree(tmp_path / "voc", 8)
    cache.mkdir(parents=True)
    old, young = cache / ".0123456789abcdef.npz.old.tmp", cache / ".0123456789abcdef.npz.young.tmp"
    for file in (old, young):
        file.write_bytes(b"half a table")
    os.utime(old, (0, 0))
    VOC(root, "train")
    assert not old.exists() and young.exists()


def test_small_sets_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    VOC(voc_tree(tmp_path / "voc", 8), "train")
    COCO(coco_tree(tmp_path / "coco", 8), "test")
    assert not (tmp_path / "data").exists()


def test_two_that_build_one_table_at_once_both_get_it_right(cache, tmp_path):
    root = voc_tree(tmp_path / "voc", 16)
    results, failed = [], []

    def read():
        try:
            results.append(content(VOC(root, "train")))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == [] and len(results) == 4 and all(one == results[0] for one in results)
    assert len(list(cache.iterdir())) == 1 and content(VOC(root, "train")) == results[0]


def test_a_fingerprint_is_of_the_format_and_of_each_name_size_and_time(tmp_path):
    there, gone = tmp_path / "a.xml", tmp_path / "b.xml"
    there.write_text("four")
    state = (4, there.stat().st_mtime_ns)
    digest = hashlib.sha256(f"1 2\0{there}\0{state}\0{gone}\0None".encode()).hexdigest()
    assert tables.fingerprint([there, gone]) == digest, "format 1 is that of the tables on users' disks"
    assert tables.fingerprint([there, gone], version=2) != digest != tables.fingerprint([gone, there])


def test_a_table_cannot_be_changed(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE.ids = []


@pytest.mark.parametrize("spoil", ["ids", "files", "count"])
def test_a_table_whose_parts_do_not_fit_is_not_believed(tmp_path, spoil):
    path = tmp_path / "table.npz"
    with np.load(io.BytesIO(tables.packed(TABLE, "key"))) as whole:
        arrays = dict(whole)
    np.savez(path, **arrays)
    assert tables.load(path, "key") == TABLE and tables.load(path, "other") is None
    for longer in (True, False):
        part = arrays[spoil]
        np.savez(path, **arrays | {spoil: np.concatenate([part, part[-1:]]) if longer else part[:-1]})
        assert tables.load(path, "key") is None


def test_a_table_without_any_box_is_whole():
    empty = tables.Table(("cat",), ["1"], ["1.jpg"], [()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.npz"
        path.write_bytes(tables.packed(empty, "key"))
        assert tables.load(path, "key") == empty


def test_a_thousand_images_are_worth_a_table(monkeypatch, tmp_path):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    made = []

    def parse():
        made.append(1)
        return TABLE

    for size, count in ((999, 1), (999, 2), (1000, 3), (1000, 3)):
        assert tables.cached("toy", size, lambda: [], parse) == TABLE and len(made) == count
