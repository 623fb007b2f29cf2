"""The detector's pooling against a literal loop, its parts, and what `predict` and `fit` do with boxes."""

import dataclasses
import math

import pytest
import torch
from striped_images import QUICK, net, striped_images
from torch import nn

from udlib.backbones import backbone
from udlib.datasets.proposals import Proposals, Regions, grid_proposals
from udlib.datasets.transforms import BatchAugment, normalise
from udlib.heads import DualBranchNet
from udlib.methods.detection.losses import detection_logits
from udlib.methods.detection.network import Detector, RegionHead, pool_regions
from udlib.training import evaluate, fit, predict
from udlib.training.batches import ArrayData, Batch, load


def detector(seed=0, classes=3, **options):
    torch.manual_seed(seed)
    return Detector(backbone("small_narrow"), classes, **{"hidden": 16, "pool": 2} | options)


def ragged(images, seed=0, most=6):
    """One to `most` random boxes for each image, with random scores."""
    draw = torch.Generator().manual_seed(seed)
    boxes, scores = [], []
    for k in range(images):
        corners = torch.rand(1 + k % most, 2, 2, generator=draw).sort(1).values
        boxes.append(torch.cat([corners[:, 0], (corners[:, 1] + 0.01).clamp(max=1)], 1))
        scores.append(torch.rand(len(corners), generator=draw) + 0.5)
    return Proposals.of_images(boxes, scores)


def with_boxes(data, proposals=None):
    return dataclasses.replace(data, proposals=proposals or ragged(len(data.targets)))


def pooled_by_hand(features, regions, size):
    """RoI max-pooling cell by cell."""
    D, h, w = features.shape[1:]
    out = torch.zeros(len(regions.boxes), D, size, size)
    for m, (box, score, image) in enumerate(
        zip(regions.boxes.tolist(), regions.scores.tolist(), regions.image.tolist())
    ):
        edges = []
        for low, high, cells in ((box[0], box[2], w), (box[1], box[3], h)):
            first = math.floor(min(low * cells, cells - 1) + 0.5)
            last = math.floor(high * cells - 1 + 0.5) if high * cells >= 0.5 else 0
            edges.append((first, max(last - first + 1, 1)))
        for row in range(size):
            for column in range(size):
                cells = [
                    (y, x)
                    for y in range(h)
                    for x in range(w)
                    if all(
                        first + math.floor(part * count / size) <= at < first + math.ceil((part + 1) * count / size)
                        for at, part, (first, count) in ((x, column, edges[0]), (y, row, edges[1]))
                    )
                ]
                if cells:
                    out[m, :, row, column] = score * torch.stack([features[image, :, y, x] for y, x in cells]).amax(0)
    return out


@pytest.mark.parametrize("size", [1, 2, 3])
def test_regions_are_pooled_as_a_loop_over_cells_does_it(size):
    features = torch.randn(4, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    edge = Proposals.of_images([torch.tensor([[0.97, 0.97, 1, 1], [0, 0, 0.01, 0.01], [0, 0, 1, 1]])] * 4)
    for found in (ragged(4), edge):
        regions = found.of(torch.tensor([3, 0, 1, 2]))
        torch.testing.assert_close(pool_regions(features, regions, size), pooled_by_hand(features, regions, size))


def test_half_of_a_map_is_half_of_its_cells():
    features = torch.arange(64.0).view(1, 1, 8, 8)
    regions = Regions(
        torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), torch.ones(2), torch.zeros(2, dtype=torch.int64)
    )
    assert pool_regions(features, regions, 1).flatten().tolist() == [27, 63]
    assert pool_regions(features, regions, 2)[0].flatten().tolist() == [9, 11, 25, 27]


def test_a_score_weighs_its_region_and_only_that():
    features = torch.randn(1, 3, 8, 8)
    regions = grid_proposals(1, [2]).of(torch.tensor([0]))
    weighed = regions._replace(scores=torch.linspace(0, 2, 9))
    torch.testing.assert_close(
        pool_regions(features, weighed, 2), pool_regions(features, regions, 2) * weighed.scores.view(-1, 1, 1, 1)
    )


def test_the_network_is_its_parts_one_after_the_other():
    model, images, regions = detector().eval(), torch.randn(3, 3, 32, 32), ragged(3).of(torch.arange(3))
    said = model(images, regions)
    first, last = model.regions.layers[0], model.regions.layers[3]
    hidden = torch.relu(last(torch.relu(first(pool_regions(model.backbone(images), regions, 2).flatten(1)))))
    torch.testing.assert_close(said.region_features, hidden)
    torch.testing.assert_close(said.class_scores, model.classes(hidden))
    torch.testing.assert_close(said.region_scores, model.detection(hidden))
    torch.testing.assert_close(said.logits, detection_logits(said.class_scores, said.region_scores, regions.image, 3))
    assert said.calibration_logits is None and not any(
        isinstance(part, nn.Dropout) and part.p for part in model.modules()
    )


def test_dropout_is_that_of_training_alone():
    head, regions, features = RegionHead(4, 8, 2, dropout=0.5), ragged(2).of(torch.arange(2)), torch.randn(2, 4, 8, 8)
    assert (head(features, regions) == 0).float().mean() > (head.eval()(features, regions) == 0).float().mean()
    assert torch.equal(head(features, regions), head(features, regions))


def test_in_bf16_the_scores_are_float32_and_close():
    model, images, regions = detector().eval(), torch.randn(3, 3, 32, 32), ragged(3).of(torch.arange(3))
    with torch.autocast("cpu", torch.bfloat16):
        said = model(images, regions)
    assert {part.dtype for part in said if part is not None} == {torch.float32}
    torch.testing.assert_close(said.logits, model(images, regions).logits, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": 1}, "num_classes is 1: a detector's softmax over classes needs at least 2"),
        ({"hidden": 0}, "hidden is 0"),
        ({"pool": 0}, "pool is 0: expected at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0: expected a chance"),
    ],
)
def test_wrong_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        detector(**options)


def test_predictions_do_not_depend_on_who_else_is_in_the_batch_though_images_have_different_numbers_of_boxes():
    model, data = detector(), with_boxes(striped_images(21))
    alone = torch.cat(
        [
            predict(
                model, with_boxes(ArrayData(data.images[[i]], data.targets[[i]]), one(data, i)), precision="fp32"
            ).logits
            for i in range(21)
        ]
    )
    for size in (4, 21, 256):
        torch.testing.assert_close(predict(model, data, batch_size=size, precision="fp32").logits, alone)
    assert 0 <= evaluate(model, data)["mAP"] <= 1


def one(data, row):
    regions = data.proposals.of(torch.tensor([row]))
    return Proposals.of_images([regions.boxes], [regions.scores])


def test_a_detector_without_boxes_says_what_it_needs_and_a_classifier_does_not_look_at_any():
    with pytest.raises(ValueError, match="a detector needs the regions of its images: give the data proposals"):
        predict(detector(), striped_images(4))
    model, data = net(), striped_images(4)
    assert torch.equal(predict(model, data).logits, predict(model, with_boxes(data)).logits)


def test_proposals_of_other_images_are_refused():
    with pytest.raises(ValueError, match="proposals belong to 3 images, but there are 4 images"):
        ArrayData(striped_images(4).images, striped_images(4).targets, proposals=grid_proposals(3))


def test_boxes_follow_their_images_when_these_are_mirrored():
    data, seen = with_boxes(striped_images(64)), []

    def watch(model, batch):
        for i, row in enumerate(batch.index):
            plain = normalise(data.images[row][None])[0]
            mirrored = not torch.equal(batch.images[i], plain)
            expected = data.proposals.of(row[None]).mirrored(torch.tensor([mirrored]))
            torch.testing.assert_close(batch.regions.boxes[batch.regions.image == i], expected.boxes)
            torch.testing.assert_close(batch.images[i], plain.flip(2) if mirrored else plain)
            seen.append(mirrored)
        return {"total": model(batch.images, batch.regions).logits.sum()}

    draw = torch.Generator().manual_seed(0)
    data = dataclasses.replace(data, images=torch.randint(256, data.images.shape, generator=draw, dtype=torch.uint8))
    fit(detector(), data, watch, dataclasses.replace(QUICK, epochs=1, shift=0))
    assert 0.3 < sum(seen) / len(seen) < 0.7


@pytest.mark.parametrize("share", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("flip", [True, False])
def test_an_augmentation_says_which_images_it_mirrored(share, flip):
    augment, images = BatchAugment(flip=flip), torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8)
    found = augment(images, torch.Generator().manual_seed(3), share)
    expected = normalise(images)
    torch.testing.assert_close(found, torch.where(augment.mirrored.view(-1, 1, 1, 1), expected.flip(3), expected))
    assert bool(augment.mirrored.any()) == flip


def test_an_augmentation_that_does_not_say_what_it_mirrored_is_refused():
    with pytest.raises(ValueError, match="augment has no `mirrored`"):
        fit(detector(), with_boxes(striped_images(8)), None, QUICK, augment=lambda images, *_: normalise(images))


def test_images_that_their_data_set_has_moved_are_refused_in_training_and_welcome_in_evaluation():
    data = striped_images(4)
    moved = with_boxes(ArrayData(list(normalise(data.images)), data.targets))
    with pytest.raises(ValueError, match="images are torch.float32, .* their boxes cannot follow: give uint8 images"):
        fit(detector(), moved, None, QUICK)
    batch = next(load(moved, [torch.arange(4)], normalise, torch.device("cpu"), 0))
    assert isinstance(batch, Batch) and len(batch.regions.boxes) == len(moved.proposals.boxes)
    assert isinstance(net(), DualBranchNet) and predict(detector(), moved).logits.shape == (4, 3)
