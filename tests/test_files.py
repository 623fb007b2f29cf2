import os
import time

import pytest

from udlib.files import ABANDONED, atomic_write, remove_leftovers


def test_atomic_write_replaces_a_file_whole(tmp_path):
    file = tmp_path / "numbers.json"
    atomic_write(file, b"old")
    atomic_write(file, b"new and longer")
    assert file.read_bytes() == b"new and longer" and list(tmp_path.iterdir()) == [file]


def test_atomic_write_to_a_missing_folder_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot write '.*nowhere/numbers.json'"):
        atomic_write(tmp_path / "nowhere" / "numbers.json", b"")


def test_what_a_killed_writer_left_goes_once_no_writer_can_be_at_work_on_it(tmp_path):
    old, young, other = (tmp_path / name for name in (".a.json.0123abcd.tmp", ".a.json.4567cdef.tmp", ".hidden"))
    for file in (old, young, other):
        file.write_bytes(b"half")
    then = time.time() - ABANDONED - 1
    os.utime(old, (then, then))
    os.utime(other, (then, then))
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {young, other}
    remove_leftovers(tmp_path, age=0)
    assert set(tmp_path.iterdir()) == {other}
    remove_leftovers(tmp_path / "nowhere")
