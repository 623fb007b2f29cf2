"""Batches: their memory, the device of their data, and boxes that follow mirrored images."""

import pytest
import torch
from pretended_gpu import GPU, pretended_gpu
from striped_images import striped_images

from udlib.training.batches import ArrayData, gathered, load


def test_rows_are_gathered_in_either_layout_and_a_shorter_last_batch_is_no_part_of_the_one_before():
    images = striped_images(7).images
    for layout in (torch.contiguous_format, torch.channels_last):
        rows = [torch.tensor([6, 0, 3]), torch.tensor([1, 2, 4]), torch.tensor([5])]
        found = [batch.clone() for batch in gathered(images.contiguous(memory_format=layout), rows)]
        assert all(torch.equal(batch, images[some]) for batch, some in zip(found, rows))


def test_images_that_are_gathered_are_written_over_the_last_ones():
    first, second = (batch.data_ptr() for batch in gathered(striped_images(4).images, list(torch.arange(4).split(2))))
    assert first == second


def test_data_on_a_cpu_stay_as_they_are():
    data = striped_images(4)
    assert data.to(torch.device("cpu")) is data


def test_data_move_to_a_gpu_that_has_room_for_twice_as_much():
    with pretended_gpu() as _:
        data = striped_images(4)
        assert data.to(GPU).images.device.type == data.to(GPU).targets.device.type == "cuda"
        assert data.to(GPU).ignore is None
        ignore = data.targets.bool()
        assert ArrayData(data.images, data.targets, ignore).to(GPU).ignore.device.type == "cuda"
    for free, place in (
        (2 * striped_images(4).images.nbytes, "cuda"),
        (2 * striped_images(4).images.nbytes - 1, "cpu"),
    ):
        with pretended_gpu(free):
            assert striped_images(4).to(GPU).images.device.type == place


def test_on_a_gpu_every_batch_has_memory_of_its_own():
    """What is computed there may still wait for its images when the next ones are gathered."""
    with pretended_gpu():
        images = striped_images(4).images.to(GPU)
        first, second = gathered(images, list(torch.arange(4).split(2)))
        assert torch.equal(first.cpu(), striped_images(4).images[:2]) and second is not first


@pytest.mark.parametrize("side", ["images", "targets", "proposals"])
def test_images_labels_and_boxes_are_equally_many(side):
    from udlib.datasets.proposals import grid_proposals

    data = striped_images(4)
    parts = {"images": data.images, "targets": data.targets, "proposals": grid_proposals(4)}
    assert ArrayData(**parts).proposals is parts["proposals"]
    parts[side] = grid_proposals(5) if side == "proposals" else parts[side][:3]
    with pytest.raises(ValueError, match="expected|give proposals for each"):
        ArrayData(**parts)


def test_boxes_follow_the_images_that_were_mirrored():
    from udlib.datasets.proposals import Proposals

    data = striped_images(2)
    boxes = Proposals.of_images([torch.tensor([[0.0, 0.0, 0.25, 1.0]])] * 2)
    data = ArrayData(data.images, data.targets, proposals=boxes)
    cpu, rows = torch.device("cpu"), [torch.tensor([1, 0])]
    float_images = lambda images: images.float()  # noqa: E731
    (batch,) = load(data, rows, float_images, cpu, 0, lambda: torch.tensor([True, False]))
    assert batch.regions.boxes.tolist() == [[0.75, 0, 1, 1], [0, 0, 0.25, 1]]
    for mirrored in (None, lambda: None):
        (batch,) = load(data, rows, float_images, cpu, 0, mirrored)
        assert batch.regions.boxes.tolist() == [[0, 0, 0.25, 1]] * 2
