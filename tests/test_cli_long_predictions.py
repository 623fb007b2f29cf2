"""`udlib predict` on many images: rows that are written as they come, and patterns that no shell has replaced."""

import csv
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.core
from commands import udlib_command
from tiny_voc import CLASSES, write_tiny_voc

import udlib
from udlib.cli import predictions
from udlib.cli.patterns import expanded
from udlib.models import TrainedModel, save_trained
from udlib.training.rows import RowWriter

pytestmark = pytest.mark.usefixtures("terminal")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with six images, a.jpg to f.jpg, in `holiday`, and an untrained model."""
    from udlib.methods.base import make_network

    folder = tmp_path_factory.mktemp("place")
    data = write_tiny_voc(folder / "data", {"test": 6})
    (folder / "holiday").mkdir()
    for name, path in zip("abcdef", sorted((data / "JPEGImages").iterdir())):
        shutil.copy(path, folder / "holiday" / f"{name}.jpg")
    save_trained(
        folder / "model", TrainedModel(make_network(3, 0.1, "small_narrow", embedding=8), "small_narrow", CLASSES, 24)
    )
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def predict(place, *words):
    return udlib_command("predict", *words, "--model", place / "model", "--top", "1")


def after(batches, act, monkeypatch):
    """Do something when so many batches have been predicted."""
    usual, count = predictions._predict, []

    def predicted(*arguments):
        count.append(1)
        if len(count) > batches:
            act()
        return usual(*arguments)

    monkeypatch.setattr(predictions, "_predict", predicted)


def interrupt():
    raise KeyboardInterrupt


# Rows as they come


def test_after_each_batch_its_rows_are_in_the_file(place, tmp_path, monkeypatch):
    lengths = []
    after(0, lambda: lengths.append(len(rows_of(tmp_path / "p.csv"))), monkeypatch)
    code, out, err = predict(place, place / "holiday", "--csv", tmp_path / "p.csv", "--batch", "2")
    assert code == 0 and err == "" and lengths == [0, 3, 5] and len(rows_of(tmp_path / "p.csv")) == 7
    whole = udlib.load(place / "model").predict(sorted((place / "holiday").iterdir())).probabilities
    for row, expected in zip(rows_of(tmp_path / "p.csv")[1:], whole.tolist()):
        assert [float(value) for value in row[1:]] == pytest.approx(expected, abs=1e-6)


def test_control_c_leaves_the_rows_of_all_batches_before_and_says_so(place, tmp_path, monkeypatch):
    after(2, interrupt, monkeypatch)
    code, out, err = predict(place, place / "holiday", "--csv", tmp_path / "p.csv", "--batch", "2")
    assert code == 130 and out.count("\n") == 4
    assert err == f"\nudlib: stopped after 4 of 6 images; '{tmp_path / 'p.csv'}' holds the rows of 4 images\n"
    head, *rows = rows_of(tmp_path / "p.csv")
    assert head == ["image", *CLASSES] and [Path(row[0]).name for row in rows] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert predict(place, place / "holiday", "--batch", "2")[::2] == (130, "\nudlib: stopped after 0 of 6 images\n")


def test_an_older_file_stays_until_the_first_row_comes(place, tmp_path, monkeypatch):
    (tmp_path / "p.csv").write_text("an older file that is longer than the new one\n" * 100)
    before = (tmp_path / "p.csv").read_text()
    with monkeypatch.context() as patch:
        after(0, interrupt, patch)
        assert predict(place, place / "holiday", "--csv", tmp_path / "p.csv")[0] == 130
        assert (tmp_path / "p.csv").read_text() == before
        assert predict(place, place / "holiday", "--csv", tmp_path / "new.csv")[0] == 130
        assert not (tmp_path / "new.csv").exists()
    assert predict(place, place / "holiday", "--csv", tmp_path / "p.csv")[0] == 0
    assert len(rows_of(tmp_path / "p.csv")) == 7


def test_without_a_readable_image_there_is_a_head(place, tmp_path):
    code, _, err = predict(place, tmp_path / "gone.jpg", "--csv", tmp_path / "p.csv")
    assert code == 1 and "does not exist" in err and rows_of(tmp_path / "p.csv") == [["image", *CLASSES]]


class FullDisk:
    """A file on a disk on which so many bytes are free."""

    def __init__(self, file, free):
        self.file, self.free = file, free

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        part = content[: max(self.free - self.file.tell(), 0)]
        if not part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(part)


@pytest.mark.parametrize("free", range(0, 40, 3))
def test_on_a_full_disk_the_file_ends_with_a_whole_row(tmp_path, free):
    rows = [["ä,b", 1.5], ["c", 2.25], ["d", 3]]
    whole = 'image,cat\n"ä,b",1.5\nc,2.25\nd,3\n'
    writer = RowWriter(tmp_path / "t.csv", ["image", "cat"])
    writer.file = FullDisk(writer.file, free)
    if free >= len(whole.encode()):
        with writer:
            writer.write(rows)
        assert (tmp_path / "t.csv").read_text(encoding="utf-8") == whole and writer.rows == 3
        return
    with pytest.raises(OSError, match=r"cannot write all of '.*t\.csv', which .*: No space left.*; make room"), writer:
        writer.write(rows)
    text = (tmp_path / "t.csv").read_text(encoding="utf-8") if (tmp_path / "t.csv").exists() else ""
    lines = whole.splitlines(keepends=True)
    assert text == "".join(lines[: max(writer.rows + 1, 0)] if writer.started else [])
    assert free < len("".join(lines[: writer.rows + 2]).encode()), "as many rows as fit"


def test_a_full_disk_is_one_line_and_exit_code_2(place, tmp_path, monkeypatch):
    usual = RowWriter.__init__

    def init(self, *arguments):
        usual(self, *arguments)
        self.file = FullDisk(self.file, 300)

    monkeypatch.setattr(RowWriter, "__init__", init)
    code, out, err = predict(place, place / "holiday", "--csv", tmp_path / "p.csv", "--batch", "2")
    count = len(rows_of(tmp_path / "p.csv")) - 1
    assert code == 2 and err.count("\n") == 1 and 0 < count < 6
    assert f"cannot write all of '{tmp_path / 'p.csv'}', which holds the first {count} rows: No space left" in err
    assert all(len(row) == 4 for row in rows_of(tmp_path / "p.csv"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_device_that_is_always_full_is_one_line_too(place):
    code, _, err = predict(place, place / "holiday", "--csv", "/dev/full")
    assert (
        code == 2 and "cannot write all of '/dev/full', which is empty: No space left" in err and err.count("\n") == 1
    )


def test_a_folder_that_cannot_be_written_in_is_said_before_anything_is_predicted(place, tmp_path, monkeypatch):
    code, out, err = predict(place, place / "holiday", "--csv", tmp_path / "none" / "p.csv")
    assert code == 2 and out == "" and "there is no folder" in err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_killed_process_leaves_whole_rows(place, tmp_path):
    source = (
        "import os, signal; from udlib.cli import main, predictions; usual, count = predictions._predict, []\n"
        "def predicted(*words):\n"
        "    count.append(1)\n"
        "    if len(count) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return usual(*words)\n"
        "predictions._predict = predicted\n"
        f"main(['predict', {str(place / 'holiday')!r}, '--model', {str(place / 'model')!r}, '--csv', 'p.csv', '--batch', '2'])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == -9 and [len(row) for row in rows_of(tmp_path / "p.csv")] == [4] * 5


# Patterns


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_a_pattern_that_no_shell_replaced_names_the_files_that_it_matches(place, system, monkeypatch):
    class System:
        def __getattr__(self, name):
            return system if name == "name" else getattr(os, name)

    monkeypatch.setattr(typer.core, "os", System(), raising=False)
    monkeypatch.chdir(place)
    code, out, err = predict(place, "holiday/[ac]*.jpg", "holiday/f.j?g")
    assert code == 0 and err == ""
    assert [Path(line.split(":")[0]).name for line in out.splitlines()] == ["a.jpg", "c.jpg", "f.jpg"]


def test_a_pattern_that_matches_nothing_is_one_line_and_exit_code_2(place):
    code, out, err = predict(place, place / "holiday" / "*.png")
    assert code == 2 and out == "" and f"nothing matches '{place / 'holiday' / '*.png'}': name image files" in err


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(place, tmp_path):
    odd = tmp_path / "img[1].jpg"
    shutil.copy(place / "holiday" / "a.jpg", odd)
    shutil.copy(odd, tmp_path / "img1.jpg")
    assert expanded([odd]) == [odd] and expanded([tmp_path / "img[12].jpg"]) == [tmp_path / "img1.jpg"]
    assert predict(place, odd)[1].startswith(f"{odd}: ")


def test_patterns_may_match_folders_and_go_down_into_them(place):
    assert expanded([place / "holi*"]) == [place / "holiday"]
    assert expanded([place / "**" / "b.jpg"]) == [place / "holiday" / "b.jpg"]
    assert predict(place, place / "holi*")[1].count("\n") == 6


def test_the_home_folder_is_replaced_where_no_shell_did(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("USERPROFILE", str(place))
    monkeypatch.chdir(place)
    assert expanded([Path("~/holiday/[ab].jpg")]) == [place / "holiday" / "a.jpg", place / "holiday" / "b.jpg"]
    assert expanded([Path("~/holiday")]) == [place / "holiday"] and expanded([Path("~nobody9/x")]) == [
        Path("~nobody9/x")
    ]
    Path("~odd.jpg").touch()
    assert expanded([Path("~odd.jpg")]) == [Path("~odd.jpg")]
    Path("~odd.jpg").unlink()


def test_names_without_a_pattern_stay_in_their_order(place):
    paths = [place / "holiday" / name for name in ("c.jpg", "a.jpg", "gone.jpg")]
    assert expanded(paths) == paths
