"""Boxes where objects might be: grids by hand, annotated boxes, selective search through a stand-in for OpenCV."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from udlib.datasets import selective_search as search_module
from udlib.datasets.base import Box, MultiLabelDataset
from udlib.datasets.proposals import DIVISIONS, Proposals, annotated, grid, grid_proposals, proposals
from udlib.datasets.regions import in_fractions
from udlib.datasets.selective_search import search_proposals, selective_search

SIZE = (40, 20)  # width, height of the images on disk


@pytest.fixture
def images(tmp_path):
    """Three images: with two objects, with none, and with one that reaches over the edge."""
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for k, path in enumerate(paths):
        Image.fromarray(np.full((SIZE[1], SIZE[0], 3), (10 * k, 0, 255), np.uint8)).save(path)
    objects = [[Box("cup", 0, 0, 10, 10), Box("boat", 20, 5, 40, 20, difficult=True)], [], [Box("cup", -5, 10, 10, 30)]]
    return MultiLabelDataset(("cup", "boat"), ["a", "b", "c"], paths, objects)


def opencv(rectangles, searched_images=None):
    """A module that stands in for OpenCV's selective search and finds these x, y, width, height."""

    class Search:
        def setBaseImage(self, image):
            if searched_images is not None:
                searched_images.append(image)

        def switchToSelectiveSearchFast(self):
            self.fast = True

        def process(self):
            assert self.fast
            return np.array(rectangles, dtype=np.int32).reshape(-1, 4)

    segmentation = types.SimpleNamespace(createSelectiveSearchSegmentation=Search)
    return types.SimpleNamespace(ximgproc=types.SimpleNamespace(segmentation=segmentation))


def test_a_grid_of_two_scales_by_hand():
    regions = grid([1, 2]).tolist()
    assert regions[0] == [0, 0, 1, 1]
    assert regions[1:] == [[x, y, x + 0.5, y + 0.5] for y in (0, 0.25, 0.5) for x in (0, 0.25, 0.5)]
    assert len(grid()) == sum((2 * n - 1) ** 2 for n in DIVISIONS)


def test_a_mirrored_grid_is_the_same_grid():
    regions = grid_proposals(1).of(torch.tensor([0]))
    mirrored = regions.mirrored(torch.tensor([True])).boxes
    assert {tuple(box) for box in mirrored.mul(48).round().tolist()} == {
        tuple(box) for box in regions.boxes.mul(48).round().tolist()
    }


def test_a_grid_is_stored_once_for_any_number_of_images():
    regions = grid_proposals(5, [2])
    assert len(regions) == 5 and regions.boxes.shape == (9, 4) and regions.shared
    of = regions.of(torch.tensor([4, 0]))
    assert (
        torch.equal(of.boxes, regions.boxes.repeat(2, 1))
        and of.image.tolist() == [0] * 9 + [1] * 9
        and (of.scores == 1).all()
    )


def test_a_batch_has_the_boxes_of_its_rows_in_their_order():
    regions = Proposals.of_images(
        [torch.tensor([[0, 0, 0.1, k / 10]] * k) for k in (1, 2, 3)], [torch.full((k,), float(k)) for k in (1, 2, 3)]
    )
    of = regions.of(torch.tensor([2, 0, 2]))
    assert of.image.tolist() == [0, 0, 0, 1, 2, 2, 2] and of.scores.tolist() == [3, 3, 3, 1, 3, 3, 3]
    torch.testing.assert_close(of.boxes[:, 3], of.scores / 10)
    assert not regions.shared and len(regions) == 3


def test_boxes_of_mirrored_images_are_mirrored_and_those_of_others_stay():
    regions = Proposals.of_images([torch.tensor([[0.0, 0.1, 0.25, 0.5]])] * 2).of(torch.tensor([0, 1]))
    once = regions.mirrored(torch.tensor([False, True]))
    assert once.boxes.tolist() == [regions.boxes[0].tolist(), pytest.approx([0.75, 0.1, 1.0, 0.5])]
    torch.testing.assert_close(once.mirrored(torch.tensor([False, True])).boxes, regions.boxes)


def test_annotated_boxes_are_cut_at_the_edge_and_an_image_without_objects_is_one_box(images):
    regions = proposals(images, "boxes")
    assert regions.counts.tolist() == [2, 1, 1]
    torch.testing.assert_close(
        regions.boxes, torch.tensor([[0, 0, 0.25, 0.5], [0.5, 0.25, 1, 1], [0, 0, 1, 1], [0, 0.5, 0.25, 1]])
    )
    assert annotated(images, 1).shape == (0, 4)


@pytest.mark.parametrize(
    "box",
    [(40, 0, 50, 10), (-9, 0, 0, 10), (5, 5, 5, 9), (9, 5, 5, 9), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5)],
)
def test_a_box_without_area_inside_its_image_is_refused_with_the_image(box):
    with pytest.raises(ValueError, match=r"box \(.*\) of image 'holiday', of 40 x 20 pixels, has no area inside it"):
        in_fractions([(0, 0, 5, 5), box], SIZE, "holiday")


@pytest.mark.parametrize(
    "boxes, message",
    [
        ([torch.tensor([[0, 0, 1, 1.0]]), torch.zeros(0, 4)], "image 1 has no proposals: give each image at least one"),
        (
            [torch.tensor([[0, 0, 1, 1.0]]), torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0, 1.2, 1]])],
            r"box \(0.5, 0, 1.2, 1\) of image 1 is outside",
        ),
        ([torch.tensor([[-0.1, 0, 1, 1]])], "of image 0 is outside the image"),
        ([torch.tensor([[0.5, 0, 0.5, 1]])], r"box \(0.5, 0, 0.5, 1\) of image 0 is empty"),
        ([torch.tensor([[0, 0.9, 1, 0.1]])], "of image 0 is empty"),
        ([torch.tensor([[0, 0, float("nan"), 1]])], "of image 0 is outside"),
    ],
)
def test_images_without_boxes_and_boxes_that_are_none_are_refused(boxes, message):
    with pytest.raises(ValueError, match=message):
        Proposals.of_images(boxes)


@pytest.mark.parametrize("score", [-1.0, float("nan"), float("inf")])
def test_a_score_is_a_number_of_0_or_more(score):
    with pytest.raises(ValueError, match=f"a box of image 0 has score {score:g}"):
        Proposals.of_images([torch.tensor([[0, 0, 1, 1.0]])], [torch.tensor([score])])


def test_parts_that_do_not_go_together_are_refused():
    one = torch.ones(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="have shapes .*expected"):
        Proposals(torch.zeros(1, 3), torch.ones(1), one, one)
    with pytest.raises(ValueError, match="reach beyond the 1 boxes"):
        Proposals(torch.tensor([[0, 0, 1, 1.0]]), torch.ones(1), one, one)


def test_an_unknown_kind_and_boxes_of_nothing_are_refused(images):
    with pytest.raises(ValueError, match="proposals are 'edges': choose one of grid, selective-search, boxes"):
        proposals(images, "edges")
    with pytest.raises(ValueError, match="no image has an annotated object: use 'grid'"):
        proposals(images.subset([1]), "boxes")
    with pytest.raises(ValueError, match=r"divisions are \[2, 0\]"):
        grid([2, 0])


def test_selective_search_keeps_each_box_of_some_size_once_the_largest_first(monkeypatch):
    searched_images = []
    monkeypatch.setitem(
        sys.modules,
        "cv2",
        opencv(
            [(0, 0, 4, 4), (0, 0, 40, 20), (10, 5, 20, 10), (0, 0, 4, 4), (3, 3, 1, 9), (0, 0, 9, 1)], searched_images
        ),
    )
    image = np.zeros((20, 40, 3), np.uint8)
    image[..., 0] = 255
    regions = selective_search(image)
    torch.testing.assert_close(regions, torch.tensor([[0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], [0, 0, 0.1, 0.2]]))
    assert (searched_images[0][..., 2] == 255).all() and not searched_images[0][..., 0].any(), "OpenCV has blue first"


def test_of_too_many_boxes_some_are_taken_evenly_whatever_the_order_opencv_has_them_in(monkeypatch):
    boxes = [(0, 0, 4 + k % 20, 2 + k // 20) for k in range(300)]
    monkeypatch.setitem(sys.modules, "cv2", opencv(boxes))
    regions = selective_search(np.zeros((20, 40, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "cv2", opencv(boxes[::-1]))
    assert len(regions) == search_module.MOST and torch.equal(
        regions, selective_search(np.zeros((20, 40, 3), np.uint8))
    )
    area = (regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])
    assert (area.diff() < 1e-6).all() and area[0] == pytest.approx(23 * 16 / 800) and area[-1] == pytest.approx(8 / 800)


def test_where_nothing_is_found_the_whole_image_is_the_box(monkeypatch, images, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", opencv([]))
    assert search_proposals(images, tmp_path / "cache").boxes.tolist() == [[0, 0, 1, 1]] * 3


def test_boxes_that_were_searched_are_kept_for_each_image_until_it_changes(monkeypatch, images, tmp_path):
    searched_images, folder = [], tmp_path / "cache"
    monkeypatch.setitem(sys.modules, "cv2", opencv([(0, 0, 20, 20)], searched_images))
    first = proposals(images.subset([0, 1]), "selective-search", folder)
    assert len(searched_images) == 2 and len(list(folder.iterdir())) == 2
    again = proposals(images, "selective-search", folder)
    assert len(searched_images) == 3 and torch.equal(again.boxes[:2], first.boxes)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(images.image_path(1))
    search_proposals(images, folder)
    assert len(searched_images) == 4, "the changed image alone"


def test_a_search_that_was_stopped_goes_on_where_it_was(monkeypatch, images, tmp_path):
    plain, done = search_module.selective_search, []
    monkeypatch.setitem(sys.modules, "cv2", opencv([(0, 0, 20, 20)]))

    def stop(image):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(image)
        return plain(image)

    monkeypatch.setattr(search_module, "selective_search", stop)
    with pytest.raises(KeyboardInterrupt):
        search_proposals(images, tmp_path / "cache", workers=1)
    monkeypatch.setattr(search_module, "selective_search", lambda image: done.append(image) or plain(image))
    assert len(search_proposals(images, tmp_path / "cache")) == 3 and len(done) == 3


def test_a_damaged_file_of_boxes_is_named(monkeypatch, images, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", opencv([(0, 0, 20, 20)]))
    search_proposals(images, tmp_path / "cache")
    next((tmp_path / "cache").iterdir()).write_bytes(b"no boxes")
    with pytest.raises(ValueError, match="the proposals of image '.' in '.*' are damaged .*delete the file"):
        search_proposals(images, tmp_path / "cache")


@pytest.mark.parametrize("module", [None, types.SimpleNamespace()], ids=["no OpenCV", "OpenCV without contrib"])
def test_without_opencv_the_error_says_how_to_install_it_and_the_grid_still_works(
    monkeypatch, images, tmp_path, module
):
    monkeypatch.setitem(sys.modules, "cv2", module)
    with pytest.raises(
        RuntimeError,
        match=r"pip install 'udlib\[proposals\]' \(opencv-contrib-python-headless\), or choose the proposals 'grid'",
    ):
        proposals(images, "selective-search", tmp_path / "cache")
    assert len(proposals(images, "grid")) == 3


def test_a_missing_image_is_named(monkeypatch, images, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", opencv([(0, 0, 20, 20)]))
    images.image_path(2).unlink()
    with pytest.raises(FileNotFoundError, match="is missing: restore the file"):
        search_proposals(images, tmp_path / "cache")


def test_proposals_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid_proposals(1).counts = None
