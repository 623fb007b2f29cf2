"""Downloads, from a small server on this machine: whole, in halves, damaged, and with archives that mean harm."""

import dataclasses
import hashlib
import io
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from trees import voc_tree

from udlib.datasets import sources
from udlib.datasets.sources import Archive, archives, download, extract, fetch, is_complete
from udlib.datasets.voc import VOC


class Server(ThreadingHTTPServer):
    """Serves `files` by name; notes each Range asked for; breaks off after `cut` bytes of a body, once."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requested, self.cut, self.ranges, self.lengths = {}, [], None, True, True


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(self.path[1:])
        requested = self.headers.get("Range")
        self.server.requested.append(requested)
        if content is None:
            return self.send_error(404)
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and self.server.ranges else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body, self.server.cut = content[start:][: self.server.cut], None
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")
    monkeypatch.setenv("no_proxy", "*")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def packed(folder, keep):
    """A tar of the files below `folder` that `keep` accepts, as published: paths start with VOCdevkit."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_dir() or keep(name):
                tar.add(path, str(name), recursive=False)
    return file.getvalue()


@pytest.fixture
def voc2007(server, tmp_path):
    """The two archives of a small VOC2007, 20 images, on the server."""
    tree = voc_tree(tmp_path / "publisher", 20)
    test = {f"{i:06d}" for i in range(15, 20)}
    keep = {
        "test": lambda name: name.stem in test or name.stem.endswith("test"),
        "trainval": lambda name: name.stem not in test and not name.stem.endswith("test"),
    }
    parts = []
    for split, belongs in keep.items():
        name = f"VOC{split}.tar"
        server.files[name] = packed(tree, belongs)
        parts.append(archive(server, name, split))
    return parts


def archive(server, name, split="trainval"):
    digest = hashlib.md5(server.files[name]).hexdigest()
    return Archive(f"http://127.0.0.1:{server.server_port}/{name}", name, digest, 2007, split)


def test_the_archives_are_torchvisions():
    trainval, test = archives("voc2007")
    assert trainval.filename == "VOCtrainval_06-Nov-2007.tar" and trainval.md5 == "c52e279531787c972589f7e41ab4ae64"
    assert test.filename == "VOCtest_06-Nov-2007.tar" and test.md5 == "b6e924de25625d8de591ea690078ad9f"
    (only,) = archives("voc2012")
    assert only.filename == "VOCtrainval_11-May-2012.tar" and only.year == 2012 and only.url.startswith("https://")
    with pytest.raises(ValueError, match="'coco2014' cannot be downloaded: choose voc2007 or voc2012"):
        archives("coco2014")


def test_both_archives_land_in_one_vocdevkit_and_a_second_call_fetches_nothing(server, voc2007, tmp_path):
    root = tmp_path / "data" / "voc2007"
    steps = list(download(root, voc2007))
    assert [step for step in steps if "extracted" in step] and len(server.requested) == 2
    assert len(VOC(root, "trainval")) == 15 and len(VOC(root, "test", year=2007)) == 5
    assert VOC(root, "trainval").check() == VOC(root, "test").check() == []
    assert sorted(path.name for path in root.iterdir()) == ["VOCdevkit", "VOCtest.tar", "VOCtrainval.tar"]
    assert all("all extracted already" in step or "checksum" in step for step in download(root, voc2007))
    for part in voc2007:
        (root / part.filename).unlink()
    assert list(download(root, voc2007)) == [
        "test of VOC2007: complete already",
        "trainval of VOC2007: complete already",
    ]
    assert len(server.requested) == 2


def test_half_a_download_goes_on_where_it_stopped(server, voc2007, tmp_path):
    part, whole = voc2007[1], server.files["VOCtrainval.tar"]
    server.cut = len(whole) // 2
    with pytest.raises(OSError, match=f"stopped after {len(whole) // 2:,} of {len(whole):,} bytes: run this again"):
        fetch(part, tmp_path)
    assert not (tmp_path / "VOCtrainval.tar").exists()
    assert fetch(part, tmp_path).read_bytes() == whole
    assert server.requested == [None, f"bytes={len(whole) // 2}-"] and not list(tmp_path.glob("*.part"))


def test_a_server_without_ranges_sends_all_again(server, voc2007, tmp_path):
    server.cut, server.ranges = 1000, False
    with pytest.raises(OSError, match="stopped after 1,000 of"):
        fetch(voc2007[1], tmp_path)
    assert fetch(voc2007[1], tmp_path).read_bytes() == server.files["VOCtrainval.tar"]


def test_a_part_that_is_whole_already_is_only_checked(server, voc2007, tmp_path):
    (tmp_path / "VOCtrainval.tar.part").write_bytes(server.files["VOCtrainval.tar"])
    assert fetch(voc2007[1], tmp_path).read_bytes() == server.files["VOCtrainval.tar"]
    (tmp_path / "VOCtest.tar.part").write_bytes(server.files["VOCtest.tar"] + b"more")
    with pytest.raises(ValueError, match="the download is deleted"):
        fetch(voc2007[0], tmp_path)
    assert fetch(voc2007[0], tmp_path).exists()


def test_a_wrong_checksum_names_both_and_is_not_kept(server, voc2007, tmp_path):
    part, whole = voc2007[1], server.files["VOCtrainval.tar"]
    server.files["VOCtrainval.tar"] = whole[:-1] + b"!"
    with pytest.raises(ValueError, match=f"has the MD5 .*, expected {part.md5}: the download is deleted"):
        list(download(tmp_path / "new", [part]))
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "VOCtrainval.tar").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"has the MD5 .*, expected {part.md5}: it is half a download"):
        list(download(tmp_path, [part]))


def test_an_absent_file_or_server_is_named(server, tmp_path):
    server.files["a.tar"] = b"a"
    part = archive(server, "a.tar")
    del server.files["a.tar"]
    with pytest.raises(OSError, match="cannot download 'http://.*/a.tar' .404 Not Found.: run this again .*browser"):
        fetch(part, tmp_path)
    gone = Archive("file:///nowhere/a.tar", "a.tar", "", 2007, "test")
    with pytest.raises(OSError, match="download of 'file:///nowhere/a.tar' stopped"):
        fetch(gone, tmp_path)


def test_a_full_disk_is_told_before_anything_is_written(server, voc2007, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="needs 0.0 GB and the disk of .* has 0.0 GB left: free some space"):
        fetch(voc2007[1], tmp_path)
    (tmp_path / "a.tar").write_bytes(server.files["VOCtest.tar"])
    with pytest.raises(OSError, match="free some space"):
        extract(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.part"))


def test_an_interrupted_extraction_is_completed(server, voc2007, tmp_path, monkeypatch):
    root, part = tmp_path / "root", voc2007[1]
    written, one = [], tarfile.TarFile.extract

    def interrupted(tar, member, *args, **kwargs):
        if len(written) == 20:
            raise KeyboardInterrupt
        written.append(member.name)
        return one(tar, member, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(download(root, [part]))
    assert not is_complete(root, part)
    last = root / written[-1]
    last.write_bytes(last.read_bytes()[:-1])  # cut off in the middle
    steps = list(download(root, [part]))
    assert len(server.requested) == 1 and len(VOC(root, "trainval")) == 15 and last.stat().st_size
    with tarfile.open(root / part.filename) as tar:
        files = sum(member.isfile() for member in tar)
    assert f"{files - 19} files extracted" in steps[-1]


def test_an_archive_that_lacks_its_split_is_refused(server, voc2007, tmp_path):
    wrong = Archive(voc2007[0].url, voc2007[0].filename, voc2007[0].md5, 2007, "trainval")
    with pytest.raises(ValueError, match="does not bring a complete split 'trainval' of VOC2007"):
        list(download(tmp_path, [wrong]))


def member(name, kind=tarfile.REGTYPE, target="", content=b"harm"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content) if kind == tarfile.REGTYPE else 0
    return info, io.BytesIO(content)


HARM = {
    "climbs": member("VOCdevkit/../../escaped.txt"),
    "climbs by backslash": member("VOCdevkit\\..\\..\\escaped.txt"),
    "absolute": member("/tmp/escaped.txt"),
    "drive": member("C:\\escaped.txt"),
    "link outside": member("VOCdevkit/link", tarfile.SYMTYPE, "../../escaped.txt"),
    "absolute link": member("VOCdevkit/link", tarfile.SYMTYPE, "/etc/passwd"),
    "link inside": member("VOCdevkit/link", tarfile.SYMTYPE, "good.txt"),
    "hard link": member("VOCdevkit/link", tarfile.LNKTYPE, "../escaped.txt"),
    "device": member("VOCdevkit/device", tarfile.CHRTYPE),
    "pipe": member("VOCdevkit/pipe", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", HARM)
def test_an_unsafe_archive_is_refused_by_name_before_anything_is_written(tmp_path, kind):
    path, root = tmp_path / "bad.tar", tmp_path / "root" / "deep"
    root.mkdir(parents=True)
    info, content = HARM[kind]
    with tarfile.open(path, "w") as tar:
        tar.addfile(*member("VOCdevkit/good.txt"))
        content.seek(0)
        tar.addfile(info, content)
    with pytest.raises(ValueError, match="which is unsafe to extract .*: nothing is extracted") as caught:
        extract(path, root)
    assert repr(info.name)[1:-1].replace("\\\\", "\\") in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == [path, tmp_path / "root", root]


def test_a_link_that_stands_there_already_is_not_followed_out_of_the_root(tmp_path):
    path, root = tmp_path / "a.tar", tmp_path / "root"
    root.mkdir()
    (root / "VOCdevkit").symlink_to(tmp_path)
    with tarfile.open(path, "w") as tar:
        tar.addfile(*member("VOCdevkit/escaped.txt"))
    with pytest.raises(ValueError, match="unsafe to extract"):
        extract(path, root)
    assert not (tmp_path / "escaped.txt").exists()


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>Not found</html>" * 50)
    with pytest.raises(ValueError, match="a.tar' is not a readable tar archive"):
        extract(tmp_path / "a.tar", tmp_path / "root")


def test_a_python_without_the_filter_does_not_extract(tmp_path, monkeypatch):
    monkeypatch.delattr(sources.tarfile, "data_filter")
    with pytest.raises(RuntimeError, match="3.11.4"):
        extract(tmp_path / "a.tar", tmp_path)


def test_a_disk_with_just_enough_room_is_enough(server, voc2007, tmp_path, monkeypatch):
    content = server.files["VOCtrainval.tar"]
    usage = type("Usage", (), {"free": len(content)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert fetch(voc2007[1], tmp_path).read_bytes() == content
    usage.free = len(content) - 1
    (tmp_path / "VOCtrainval.tar").unlink()
    with pytest.raises(OSError, match="free some space"):
        fetch(voc2007[1], tmp_path)


def test_only_what_is_still_to_come_needs_room(server, voc2007, tmp_path, monkeypatch):
    content = server.files["VOCtrainval.tar"]
    (tmp_path / "VOCtrainval.tar.part").write_bytes(content[:-10])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert fetch(voc2007[1], tmp_path).read_bytes() == content
    monkeypatch.undo()
    extract(tmp_path / "VOCtrainval.tar", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    assert extract(tmp_path / "VOCtrainval.tar", tmp_path) == 0


def test_an_archive_cannot_be_changed():
    (only,) = archives("voc2012")
    with pytest.raises(dataclasses.FrozenInstanceError):
        only.md5 = ""
    assert [(one.year, one.split) for one in archives("voc2007")] == [(2007, "trainval"), (2007, "test")]
    assert only.split == "trainval"


def test_a_folder_in_the_way_of_a_file_is_not_taken_for_it(tmp_path):
    path, root = tmp_path / "a.tar", tmp_path / "root"
    with tarfile.open(path, "w") as tar:
        tar.addfile(*member("VOCdevkit/a/b.txt"))
    (root / "VOCdevkit").mkdir(parents=True)
    (root / "VOCdevkit" / "a").write_text("a file, and no folder")
    with pytest.raises(OSError):
        extract(path, root)


def test_a_server_that_does_not_say_how_much_comes_is_read_to_its_end(server, voc2007, tmp_path):
    server.lengths = False
    assert fetch(voc2007[1], tmp_path).read_bytes() == server.files["VOCtrainval.tar"]


def test_where_it_is_not_known_how_much_comes_no_room_is_asked_for(server, voc2007, tmp_path, monkeypatch):
    server.lengths = False
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    assert fetch(voc2007[1], tmp_path).exists()
