"""Decoding once: the same pixels as from memory, whoever makes the file, however often that is interrupted."""

import errno
import multiprocessing
import os
import signal
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from udlib.datasets import pixels
from udlib.datasets.base import MultiLabelDataset, to_memory
from udlib.datasets.pixels import decoded, fingerprint
from udlib.training.batches import ArrayData

SIZE = 16


def pictures(folder: Path, count: int = 9) -> MultiLabelDataset:
    """Noise in JPEG files of several shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    paths = [folder / f"{k}.jpg" for k in range(count)]
    for k, path in enumerate(paths):
        Image.fromarray(random.integers(0, 256, (20 + k, 16, 3), dtype=np.uint8)).save(path)
    return MultiLabelDataset(["a", "b"], [path.stem for path in paths], paths, targets=torch.ones(count, 2))


@pytest.fixture
def data(tmp_path):
    return pictures(tmp_path / "images")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def held(cache):
    """Names of what lies in the cache, but for the lock."""
    return sorted(path.suffix for path in cache.iterdir() if path.suffix != ".lock")


def test_the_file_holds_what_to_memory_gives_and_is_made_once(data, cache, monkeypatch):
    pixels_on_disk = decoded(data, SIZE, cache)
    assert (
        pixels_on_disk.dtype == torch.uint8
        and torch.equal(pixels_on_disk, to_memory(data, SIZE))
        and held(cache) == [".uint8"]
    )
    monkeypatch.setattr(pixels, "_build", None)
    assert torch.equal(decoded(data, SIZE, cache, workers=3), pixels_on_disk)
    for images in (pixels_on_disk, to_memory(data, SIZE)):
        assert images.is_contiguous(memory_format=torch.channels_last), "a pixel's three colours lie side by side"
    assert ArrayData(pixels_on_disk, data.targets).images is pixels_on_disk


def test_writing_into_the_tensor_leaves_the_file_alone(data, cache):
    decoded(data, SIZE, cache).zero_()
    assert torch.equal(decoded(data, SIZE, cache), to_memory(data, SIZE))


def test_a_changed_file_another_order_and_another_size_are_other_pixels(data, cache):
    before = decoded(data, SIZE, cache)
    Image.new("RGB", (20, 20), "red").save(data.image_path(3))
    after = decoded(data, SIZE, cache)
    assert torch.equal(after, to_memory(data, SIZE)) and not torch.equal(after, before)
    names = {
        fingerprint(data, SIZE),
        fingerprint(data, 2 * SIZE),
        fingerprint(data.subset([1, 0]), SIZE),
        fingerprint(data.subset([0, 1]), SIZE),
    }
    assert len(names) == 4


def test_it_lies_in_the_data_folder_unless_told_otherwise(data, tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "here"))
    decoded(data, SIZE)
    assert list((tmp_path / "here" / "cache" / "pixels").glob(f"{SIZE}px-*.uint8"))


def test_what_an_interrupted_call_has_written_is_not_decoded_again(data, cache, monkeypatch):
    monkeypatch.setattr(pixels, "TOGETHER", 2)
    right, whole = to_memory(data, SIZE), type(data).image
    monkeypatch.setattr(type(data), "image", lambda self, i: whole(self, i) if i < 5 else stop())
    with pytest.raises(KeyboardInterrupt):
        decoded(data, SIZE, cache)
    (partial,) = cache.glob("*.partial")
    assert partial.stat().st_size == 4 * 3 * SIZE**2
    partial.write_bytes(partial.read_bytes() + b"half an image")
    requested = []
    monkeypatch.setattr(type(data), "image", lambda self, i: requested.append(i) or whole(self, i))
    assert torch.equal(decoded(data, SIZE, cache), right) and sorted(requested) == [4, 5, 6, 7, 8]
    assert held(cache) == [".uint8"]


def stop():
    raise KeyboardInterrupt


def test_a_file_that_is_too_short_is_made_again(data, cache):
    right = decoded(data, SIZE, cache).clone()
    (path,) = cache.glob("*.uint8")
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(decoded(data, SIZE, cache), right)


def test_a_disk_without_room_is_refused_before_anything_is_decoded(data, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda folder: usage(10, 5, 9 * 3 * SIZE**2 - 1))
    monkeypatch.setattr(type(data), "image", None)
    with pytest.raises(OSError, match=r"9 images at 16 px need 0.0 GB more .* UDLIB_DATA"):
        decoded(data, SIZE, cache)
    assert held(cache) == []


def test_a_disk_that_fills_up_meanwhile_is_named_and_left_clean(data, cache, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixels.os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk is full: decoding 9 images at 16 px .* removed: free some room"):
        decoded(data, SIZE, cache)
    assert held(cache) == []
    monkeypatch.undo()
    assert torch.equal(decoded(data, SIZE, cache), to_memory(data, SIZE))


def test_a_missing_and_a_broken_image_are_named(data, cache):
    data.image_path(4).write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ValueError, match=r"4\.jpg' cannot be decoded"):
        decoded(data, SIZE, cache)
    data.image_path(2).unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.jpg' is missing"):
        decoded(data, SIZE, cache)


def make(folder, cache):
    decoded(slow(folder), SIZE, cache, workers=1)


def slow(folder):
    data = pictures_at(folder)
    whole = data.image
    data.image = lambda i: (time.sleep(0.05), whole(i))[1]
    return data


def pictures_at(folder):
    paths = sorted(folder.glob("*.jpg"))
    return MultiLabelDataset(["a", "b"], [path.stem for path in paths], paths, targets=torch.ones(len(paths), 2))


def test_two_processes_make_one_file_and_a_killed_one_leaves_a_lock_that_holds_nobody(
    data, tmp_path, cache, monkeypatch, capfd
):
    """Real processes: one is killed in the middle of its work, while the other one waits, and then does the rest."""
    start = multiprocessing.get_context("fork")
    first, second = (start.Process(target=make, args=(tmp_path / "images", cache)) for _ in range(2))
    monkeypatch.setattr(pixels, "TOGETHER", 1)
    first.start()
    waited = time.monotonic()
    while not list(cache.glob("*.partial")) and time.monotonic() - waited < 60:
        time.sleep(0.01)
    second.start()
    time.sleep(0.15)
    os.kill(first.pid, signal.SIGKILL)
    first.join(60)
    second.join(60)
    assert first.exitcode == -signal.SIGKILL and second.exitcode == 0 and held(cache) == [".uint8"]
    assert torch.equal(decoded(pictures_at(tmp_path / "images"), SIZE, cache), to_memory(data, SIZE))


def test_few_pixels_are_held_in_memory_and_many_in_the_file(data, tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    few = pixels.images_of(data, SIZE)
    assert torch.equal(few, to_memory(data, SIZE)) and not (tmp_path / "cache").exists()
    monkeypatch.setattr(pixels, "IN_MEMORY", 9 * 3 * SIZE**2 - 1)
    assert torch.equal(pixels.images_of(data, SIZE), few) and list((tmp_path / "cache" / "pixels").glob("*.uint8"))
