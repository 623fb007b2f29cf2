import pytest
import torch
from striped_images import striped_images
from torch.utils.data import Dataset

from udlib.training.batches import ArrayData, as_data, load, require_positives

CPU = torch.device("cpu")


class Items(Dataset):
    """Images decoded one by one; item i is what `wrap` makes of it."""

    def __init__(self, images, targets, wrap=lambda image: image):
        self.images, self.targets, self.wrap = images, targets, wrap
        self.difficult = torch.zeros_like(targets, dtype=torch.bool)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.wrap(self.images[row])


def test_batches_hold_the_rows_asked_for_with_their_labels():
    data = striped_images(10)
    mask = torch.rand(10, 3) < 0.5
    data = ArrayData(data.images, data.targets, ignore=mask)
    indices = [torch.tensor([3, 1]), torch.tensor([9])]
    first, second = load(data, indices, lambda images: images.float() / 2, CPU, workers=0)
    assert torch.equal(first.images, data.images[[3, 1]].float() / 2)
    assert first.targets.dtype == torch.float32 and torch.equal(first.targets, data.targets[[3, 1]].float())
    assert torch.equal(first.ignore, mask[[3, 1]]) and torch.equal(first.index, indices[0])
    assert torch.equal(second.images, data.images[[9]].float() / 2)
    assert first.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wrap", [lambda image: image, lambda image: (image, "label")])
def test_a_dataset_gives_the_same_batches_as_its_images_in_memory(wrap):
    data = striped_images(10)
    indices = [torch.tensor([3, 1]), torch.tensor([9, 0])]

    def prepare(images):
        return images.float()

    decoded = as_data(Items(data.images, data.targets, wrap))
    for one, other in zip(load(data, indices, prepare, CPU, 0), load(decoded, indices, prepare, CPU, 0)):
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


def test_worker_processes_keep_the_order():
    data = striped_images(12)
    dataset = as_data(Items(data.images, data.targets))
    indices = list(torch.arange(12).flip(0).split(2))
    batches = list(load(dataset, indices, lambda images: images.float(), CPU, workers=2))
    assert torch.equal(torch.cat([batch.images for batch in batches]), data.images.flip(0).float())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_batch_that_is_kept_is_not_written_over_by_the_next(layout):
    data = striped_images(20)
    data = ArrayData(data.images.contiguous(memory_format=layout), data.targets)
    rows = list(torch.randperm(20, generator=torch.Generator().manual_seed(0)).split(5))
    for prepare in (lambda images: images, lambda images: images[:, :, :8], lambda images: images.float()):
        kept = list(load(data, rows, prepare, torch.device("cpu"), 0))
        assert all(torch.equal(batch.images, prepare(data.images[some])) for batch, some in zip(kept, rows))


def test_float_images_are_taken_as_they_come():
    data = striped_images(4)
    dataset = as_data(Items(data.images.float() - 7, data.targets))
    (batch,) = load(dataset, [torch.arange(4)], lambda images: images * 0, CPU, workers=0)
    assert torch.equal(batch.images, data.images.float() - 7)


def test_an_item_that_is_no_tensor_names_its_row():
    dataset = as_data(Items(["a picture"] * 2, torch.ones(2, 1)))
    with pytest.raises(TypeError, match="image 1 is a str: give the data set a transform"):
        list(load(dataset, [torch.tensor([1])], lambda images: images, CPU, workers=0))


def test_a_dataset_brings_its_targets_and_its_difficult_labels():
    data = striped_images(4)
    dataset = Items(data.images, data.targets)
    dataset.difficult[2, 1] = True
    found = as_data(dataset)
    assert torch.equal(found.targets, data.targets) and torch.equal(found.difficult, dataset.difficult)
    assert found.ignore is None and as_data(found) is found


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": torch.zeros(4, 3, 8, 8)}, r"images are torch.float32 \(4, 3, 8, 8\): expected torch.uint8"),
        ({"images": torch.zeros(4, 8, 8, dtype=torch.uint8)}, r"images are torch.uint8 \(4, 8, 8\): expected"),
        ({"targets": torch.ones(3, 2)}, r"4 images, targets \(3, 2\): expected targets \(N, C\) with one row"),
        ({"targets": torch.ones(4)}, r"4 images, targets \(4,\): expected"),
        ({"targets": torch.tensor([[0, 1]] * 3 + [[2, 1]])}, r"targets hold 2 at \[3, 0\]: expected only 0 and 1"),
        ({"targets": torch.full((4, 2), float("nan"))}, r"targets hold nan at \[0, 0\]"),
        ({"ignore": torch.zeros(4, 2)}, r"ignore is torch.float32 \(4, 2\): expected torch.bool \(4, 2\)"),
        ({"difficult": torch.zeros(4, 3, dtype=torch.bool)}, r"difficult is torch.bool \(4, 3\): expected"),
    ],
)
def test_data_that_cannot_be_meant_are_refused_at_once(change, message):
    fitting = {"images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "targets": torch.ones(4, 2)}
    with pytest.raises(ValueError, match=message):
        ArrayData(**{**fitting, **change})


def test_a_training_set_needs_a_positive_label_that_counts():
    data = striped_images(4)
    nothing = torch.zeros_like(data.targets)
    with pytest.raises(ValueError, match="none of the 4 training images has a positive label that counts"):
        require_positives(ArrayData(data.images, nothing))
    with pytest.raises(ValueError, match="none of the 4"):
        require_positives(ArrayData(data.images, data.targets, ignore=data.targets.bool()))
    nothing[2, 0] = 1
    require_positives(ArrayData(data.images, nothing))
