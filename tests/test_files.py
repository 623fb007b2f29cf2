import pytest

from udlib.files import atomic_write


def test_atomic_write_replaces_a_file_whole(tmp_path):
    file = tmp_path / "numbers.json"
    atomic_write(file, b"old")
    atomic_write(file, b"new and longer")
    assert file.read_bytes() == b"new and longer" and list(tmp_path.iterdir()) == [file]


def test_atomic_write_to_a_missing_folder_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot write '.*nowhere/numbers.json'"):
        atomic_write(tmp_path / "nowhere" / "numbers.json", b"")
