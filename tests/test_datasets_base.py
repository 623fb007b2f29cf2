"""What every data set has: pixels, labels, fingerprints, parts, and the splits that must not share images."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_datasets_voc import RAMP, annotation, make_tree, object_xml, refused

from udlib.datasets import base
from udlib.datasets.base import (
    Box,
    MultiLabelDataset,
    label_fingerprint,
    load_rgb,
    require_disjoint,
    to_memory,
    to_square,
)
from udlib.datasets.voc import VOC


@pytest.fixture
def tree(tmp_path):
    """Four images with a dog each, the second of them difficult, and beside it a cat or a person."""
    dog, other = object_xml("dog"), object_xml("cat", difficult=1)
    return make_tree(
        tmp_path / "VOC2007",
        {
            "000001": annotation(dog),
            "000002": annotation(object_xml("dog", difficult=1), other),
            "000003": annotation(dog),
            "000004": annotation(dog, object_xml("person")),
        },
    )


def test_sixteen_bits_of_grey_become_eight_and_32_bits_are_refused(tmp_path):
    for value, expected in ((0, 0), (257, 1), (65535, 255), (128 * 257, 128), (128, 0), (129, 1)):
        Image.fromarray(np.full((2, 2), value, np.uint16)).save(tmp_path / "a.png")
        assert load_rgb(tmp_path / "a.png").getpixel((0, 0)) == (expected,) * 3
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    refused(lambda: load_rgb(tmp_path / "a.tiff"), "32 bits (mode F)")
    Image.fromarray(np.zeros((2, 2), np.int32)).save(tmp_path / "b.tiff")
    refused(lambda: load_rgb(tmp_path / "b.tiff"), "32 bits (mode I)")


def test_boxes_are_frozen_and_say_nothing_that_was_not_said():
    box = Box("dog", 0, 0, 1, 1)
    assert not (box.truncated or box.occluded or box.difficult or box.crowd)
    with pytest.raises(dataclasses.FrozenInstanceError):
        box.xmin = 3


def test_parts_that_do_not_fit_are_named(tmp_path):
    one = torch.ones(1, 1)
    paths = [tmp_path / "x.jpg"]
    refused(
        lambda: MultiLabelDataset(["a"], ["x"], paths, targets=one, difficult=torch.zeros(1, 2).bool()), "difficult"
    )
    refused(lambda: MultiLabelDataset(["a"], ["x"], paths, targets=one, posterior=torch.zeros(2, 1)), "posterior has")
    refused(lambda: MultiLabelDataset(["a"], ["x"], paths, [[], []], targets=one), "1 ids, 1 paths and 2 lists")
    refused(lambda: MultiLabelDataset(["a"], ["x"], paths * 2, targets=one), "1 ids, 2 paths")


def test_a_part_has_the_posterior_of_its_rows_and_columns(tmp_path):
    posterior = torch.arange(6.0).view(3, 2)
    paths = [tmp_path / f"{k}.jpg" for k in range(3)]
    data = MultiLabelDataset(["a", "b"], list("xyz"), paths, targets=torch.ones(3, 2), posterior=posterior)
    assert torch.equal(data.subset([2, 0]).posterior, posterior[[2, 0]])
    assert torch.equal(data.only([1]).posterior, posterior[:, [1]])
    assert data.subset(range(2)).targets.dtype == torch.uint8


def test_labels_have_a_fingerprint_of_twelve_digits_that_any_change_changes(tmp_path):
    def labels(classes=("a", "b"), ids="xy", targets=((1, 0), (1, 1)), difficult=((0, 0), (0, 1))):
        paths = [tmp_path / f"{k}.jpg" for k in ids]
        parts = torch.tensor(targets), torch.tensor(difficult).bool()
        return MultiLabelDataset(classes, list(ids), paths, targets=parts[0], difficult=parts[1])

    usual = label_fingerprint(labels())
    assert len(usual) == 12 and int(usual, 16) >= 0 and usual == label_fingerprint(labels())
    others = [labels(classes=("a", "c")), labels(ids="xz"), labels(targets=((1, 1), (1, 1)))]
    others.append(labels(difficult=((0, 0), (0, 0))))
    assert len({usual, *map(label_fingerprint, others), label_fingerprint(labels(), labels())}) == 6
    digest = hashlib.sha256(b"2\na\nb\nx\ny" + bytes([1, 0, 1, 1]) + bytes([0, 0, 0, 1]))
    assert usual == digest.hexdigest()[:12]


def test_splits_that_share_images_are_refused():
    require_disjoint({"train": ["a"], "val": ["b"], "test": ["c"]})
    with pytest.raises(ValueError, match="'train' and 'test' share 2 images, 'a' first"):
        require_disjoint({"train": ["b", "a"], "val": ["c"], "test": ["a", "b"]})
    with pytest.raises(ValueError, match="share 1 image, 'a' first"):
        require_disjoint({"val": ["c"], "train": ["b", "a"], "test": ["a"]})


def test_an_image_of_the_right_size_is_not_resampled():
    image = Image.fromarray(RAMP[:10, :10])
    assert np.array_equal(to_square(image, 10).numpy(), RAMP[:10, :10].transpose(2, 0, 1))


def test_decoding_takes_any_number_of_workers(tree):
    data = VOC(tree, "train")
    assert torch.equal(to_memory(data, 8, workers=0), to_memory(data, 8))
    assert to_memory(data, 8).is_contiguous(memory_format=torch.channels_last)


def test_the_checkout_is_the_folder_of_the_project_and_an_installed_package_has_none(monkeypatch, tmp_path):
    assert base.checkout() == Path(__file__).resolve().parents[1]
    monkeypatch.setattr(base, "__file__", str(tmp_path / "site-packages" / "udlib" / "datasets" / "base.py"))
    assert base.checkout() is None
    monkeypatch.delenv("UDLIB_DATA", raising=False)
    assert base.data_root() == Path.home() / ".cache" / "udlib"
    monkeypatch.undo()
    monkeypatch.delenv("UDLIB_DATA", raising=False)
    assert base.data_root() == Path(__file__).resolve().parents[1] / "data"


def test_the_data_root_of_the_environment_may_lie_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("UDLIB_DATA", "~/sets")
    assert base.data_root() == Path.home() / "sets"
