"""Nothing that is read from disk is ever unpickled, for a pickle may run a program: each reader gets one that would."""

import hashlib
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from udlib.backbones import pretrained_state
from udlib.datasets import pixels, selective_search, tables
from udlib.datasets.base import MultiLabelDataset, load_rgb
from udlib.datasets.coco import read_instances
from udlib.datasets.custom import read_csv
from udlib.datasets.nuswide import read_labels
from udlib.datasets.voc import read_posterior, read_truth
from udlib.datasets.voc_annotations import parse_annotation
from udlib.methods.parallel.clustering import stored_partition
from udlib.models import load
from udlib.training.checkpoints import load_checkpoint


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def pickled(bomb):
    return pickle.dumps(bomb)


def saved_by_torch(bomb):
    buffer = io.BytesIO()
    torch.save({"weight": bomb}, buffer)
    return buffer.getvalue()


def array(bomb):
    buffer = io.BytesIO()
    np.save(buffer, np.array([bomb], dtype=object))
    return buffer.getvalue()


def arrays(bomb):
    """A .npz in which every name that some reader asks for holds the bomb."""
    buffer = io.BytesIO()
    names = "ids classes posterior visibility made_from files count label sides flags boxes".split()
    np.savez(buffer, **{name: np.array([bomb], dtype=object) for name in names})
    return buffer.getvalue()


def checkpoint(folder, content):
    """A checkpoint folder with this content instead of its tensors, and a SHA-256 that agrees."""
    (folder / "tensors-0.safetensors").write_bytes(content)
    record = {"format": 1, "tensors": "tensors-0.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "state.json").write_text(json.dumps(record | {"model": 1}))
    return folder


def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def picture(folder):
    path = folder / "picture.png"
    Image.new("RGB", (40, 20)).save(path)
    return MultiLabelDataset(("cat",), ["a"], [path], targets=torch.ones(1, 1))


def search(folder, content):
    dataset = picture(folder)
    put(folder / f"{selective_search._cache_name(dataset, 0)}.safetensors", content)
    return selective_search.search_proposals(dataset, folder)


def pretrained(folder, content, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    weights = "IMAGENET1K_V1"
    url = models.get_model_weights("resnet18")[weights].url
    put(folder / "checkpoints" / Path(url).name, content)
    return pretrained_state("resnet18", weights)


def labels(folder, content):
    put(folder / "Groundtruth" / "TrainTestLabels" / "Labels_cat_Test.txt", content)
    return read_labels(folder, "Test", ("cat",), 1)


READERS = {
    "truth": lambda f, content: read_truth(put(f / "truth.npz", content).parent),
    "posterior": lambda f, content: read_posterior(put(f / "truth.npz", content).parent, ["a"], ["b"]),
    "annotation": lambda f, content: parse_annotation(put(f / "a.xml", content)),
    "image": lambda f, content: load_rgb(put(f / "a.jpg", content)),
    "coco": lambda f, content: read_instances(put(f / "instances_val2014.json", content)),
    "csv": lambda f, content: read_csv(put(f / "labels.csv", content)),
    "nuswide": labels,
    "proposals": search,
    "checkpoint": lambda f, content: load_checkpoint(checkpoint(f, content)),
    "state": lambda f, content: load_checkpoint(put(f / "state.json", content).parent),
    "model folder": lambda f, content: load(checkpoint(f, content)),
    "partition": lambda f, content: stored_partition(put(f / "CGP.json", content), "CGP", torch.eye(3)),
}
refused = pytest.mark.parametrize("pickle_of", [pickled, saved_by_torch, array, arrays], ids=lambda f: f.__name__)


@refused
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_a_pickle_and_does_not_run_it(tmp_path, reader, pickle_of):
    marker = tmp_path / "was run"
    if reader in ("truth", "posterior") and pickle_of is saved_by_torch:
        pytest.skip("a zip of other things than arrays, see below")
    with pytest.raises(ValueError):
        READERS[reader](tmp_path, pickle_of(Bomb(marker)))
    assert not marker.exists()


def test_of_a_zip_without_arrays_only_the_bytes_are_read(tmp_path):
    marker = tmp_path / "was run"
    put(tmp_path / "truth.npz", saved_by_torch(Bomb(marker)))
    assert {type(value) for value in read_truth(tmp_path).values()} == {bytes}
    with pytest.raises(KeyError):
        read_posterior(tmp_path, ["a"], ["b"])
    assert not marker.exists()


@refused
def test_pretrained_weights_are_refused_and_not_run(tmp_path, monkeypatch, pickle_of):
    marker = tmp_path / "was run"
    with pytest.raises(RuntimeError, match="the file is there but cannot be read"):
        pretrained(tmp_path, pickle_of(Bomb(marker)), monkeypatch)
    assert not marker.exists()


@refused
def test_a_cached_table_is_not_believed_and_not_run(tmp_path, pickle_of):
    marker = tmp_path / "was run"
    assert tables.load(put(tmp_path / "table.npz", pickle_of(Bomb(marker))), "key") is None
    assert not marker.exists()


@refused
def test_cached_pixels_are_only_bytes(tmp_path, pickle_of):
    """What is as long as the pixels is taken for pixels, whatever it is, and anything else is made again."""
    marker, dataset = tmp_path / "was run", picture(tmp_path)
    content = pickle_of(Bomb(marker))
    side = 4
    file = put(tmp_path / f"{pixels.fingerprint(dataset, side)}.uint8", content)
    assert torch.equal(pixels.decoded(dataset, side, tmp_path), torch.zeros(1, 3, side, side, dtype=torch.uint8))
    file.write_bytes(content[: 3 * side * side])
    assert bytes(pixels.decoded(dataset, side, tmp_path).permute(0, 2, 3, 1).flatten().tolist()) == content[:48]
    assert not marker.exists()


def test_the_pickles_would_be_run_by_a_careless_reader(tmp_path):
    """Without this, the tests above could pass because their pickles do nothing."""
    for number, (pickle_of, careless) in enumerate(
        {
            pickled: pickle.loads,
            saved_by_torch: lambda content: torch.load(io.BytesIO(content), weights_only=False),
            array: lambda content: np.load(io.BytesIO(content), allow_pickle=True),
            arrays: lambda content: np.load(io.BytesIO(content), allow_pickle=True)["ids"],
        }.items()
    ):
        marker = tmp_path / str(number)
        careless(pickle_of(Bomb(marker)))
        assert marker.is_dir()
