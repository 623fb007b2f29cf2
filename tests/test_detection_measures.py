"""CorLoc and average precision at IoU 0.5 against literal loops written from PASCAL VOC's definition."""

import math

import pytest
import torch
from PIL import Image
from test_detectors import detector

from udlib.datasets.base import Box, MultiLabelDataset
from udlib.datasets.proposals import Proposals, proposals
from udlib.datasets.transforms import normalise
from udlib.methods.detection.evaluation import (
    Detections,
    Objects,
    best_boxes,
    correct_localisation,
    detect,
    detection,
    detection_average_precision,
    matched,
    object_areas,
    objects_of,
)
from udlib.methods.detection.losses import region_probabilities
from udlib.training.batches import ArrayData

CLASSES = 3


def iou(a, b):
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0) for k in (0, 1))
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(area) - width * height)


def boxes(count, draw, near=None):
    if near is None:
        corner, side = torch.rand(count, 2, generator=draw) * 0.5, 0.2 + 0.3 * torch.rand(count, 2, generator=draw)
        return torch.cat([corner, corner + side], 1)
    return near[torch.randint(len(near), (count,), generator=draw)] + 0.08 * torch.randn(count, 4, generator=draw)


def world(seed, images=8, ties=False):
    """Random objects, a fifth of them difficult, and detections near to them or anywhere."""
    draw = torch.Generator().manual_seed(seed)
    truth = Objects(
        torch.arange(images).repeat_interleave(3),
        torch.randint(CLASSES, (3 * images,), generator=draw),
        boxes(3 * images, draw),
        torch.rand(3 * images, generator=draw) < 0.2,
    )
    found = []
    for i in range(images):
        close = boxes(20, draw, truth.boxes[truth.image == i])
        close[:, 2:] = torch.maximum(close[:, 2:], close[:, :2] + 0.02)
        found.append(torch.cat([close, boxes(4, draw)]))
    count = 24 * images
    scores = torch.rand(count, generator=draw)
    return Detections(
        torch.arange(images).repeat_interleave(24),
        torch.randint(CLASSES, (count,), generator=draw),
        torch.cat(found),
        (scores * 4).round() / 4 if ties else scores,
    ), truth


def voc(found, truth, k):
    """AP of class k as VOC's development kit computes it, without its pixels."""
    objects = [m for m in range(len(truth.image)) if truth.classes[m] == k]
    wanted = sum(not truth.difficult[m] for m in objects)
    if wanted == 0:
        return math.nan
    mine = [d for d in range(len(found.image)) if found.classes[d] == k]
    mine.sort(key=lambda d: -found.scores[d].item())
    taken, tp, fp, curve = set(), 0, 0, []
    for d in mine:
        best, at = 0.0, None
        for m in objects:
            if (
                truth.image[m] == found.image[d]
                and (overlap := iou(found.boxes[d].tolist(), truth.boxes[m].tolist())) > best
            ):
                best, at = overlap, m
        if best >= 0.5:
            if truth.difficult[at]:
                continue
            if at in taken:
                fp += 1
            else:
                taken.add(at)
                tp += 1
        else:
            fp += 1
        curve.append((tp / wanted, tp / (tp + fp)))
    area, last = 0.0, 0.0
    for n, (recall, _) in enumerate(curve):
        area += (recall - last) * max(precision for _, precision in curve[n:])
        last = recall
    return area


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_voc(seed, ties):
    found, truth = world(seed, ties=ties)
    result = detection_average_precision(found, truth, CLASSES + 1)
    for k in range(CLASSES):
        assert result[k].item() == pytest.approx(voc(found, truth, k), nan_ok=True), k
    assert result[CLASSES].isnan() and 0 < result.nanmean() < 1


def test_matches_are_those_of_a_loop():
    found, truth = world(5)
    overlap, at = matched(found, truth)
    for d in range(len(found.image)):
        same = [
            m
            for m in range(len(truth.image))
            if truth.image[m] == found.image[d] and truth.classes[m] == found.classes[d]
        ]
        best = max((iou(found.boxes[d].tolist(), truth.boxes[m].tolist()) for m in same), default=0.0)
        assert overlap[d].item() == pytest.approx(best, abs=1e-5)
        assert at[d] == -1 if not same else at[d] in same


@pytest.mark.parametrize("seed", range(3))
def test_corloc_asks_the_best_box_of_each_label(seed):
    found, truth = world(seed)
    result = correct_localisation(found, truth, CLASSES + 1)
    for k in range(CLASSES):
        hits = []
        for i in sorted(
            {int(truth.image[m]) for m in range(len(truth.image)) if truth.classes[m] == k and not truth.difficult[m]}
        ):
            mine = [d for d in range(len(found.image)) if found.image[d] == i and found.classes[d] == k]
            best = max(mine, key=lambda d: found.scores[d].item(), default=None)
            hits.append(
                best is not None
                and any(
                    iou(found.boxes[best].tolist(), truth.boxes[m].tolist()) >= 0.5
                    for m in range(len(truth.image))
                    if truth.image[m] == i and truth.classes[m] == k
                )
            )
        assert result[k].item() == pytest.approx(sum(hits) / len(hits))
    assert result[CLASSES].isnan()


def by_hand(*objects):
    """(class, box, difficult) of one image."""
    k, b, hard = zip(*objects)
    return Objects(torch.zeros(len(k), dtype=torch.int64), torch.tensor(k), torch.tensor(b), torch.tensor(hard))


HERE, THERE = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 1.0, 1.0)


def said(*detections):
    """(class, box, score) of one image."""
    k, b, s = zip(*detections)
    return Detections(torch.zeros(len(k), dtype=torch.int64), torch.tensor(k), torch.tensor(b), torch.tensor(s))


@pytest.mark.parametrize(
    "detections, ap",
    [
        ([(0, HERE, 0.9), (0, THERE, 0.8)], 1.0),
        ([(0, HERE, 0.9), (0, HERE, 0.8), (0, THERE, 0.7)], 0.5 + 0.5 * 2 / 3),  # found twice: the second is wrong
        ([(0, (0.0, 0.5, 0.4, 0.9), 0.9), (0, HERE, 0.8)], 0.5 * 0.5),  # never found: recall ends at a half
        ([(1, HERE, 0.9)], 0.0),
    ],
)
def test_average_precision_by_hand(detections, ap):
    truth = by_hand((0, HERE, False), (0, THERE, False))
    assert detection_average_precision(said(*detections), truth, 2)[0].item() == pytest.approx(ap)


def test_a_difficult_object_need_not_be_found_and_costs_nothing_where_it_is():
    truth = by_hand((0, HERE, False), (0, THERE, True))
    for detections in ([(0, HERE, 0.5)], [(0, THERE, 0.9), (0, HERE, 0.5)]):
        assert detection_average_precision(said(*detections), truth, 1)[0] == 1
    assert detection_average_precision(said((0, THERE, 0.9)), by_hand((0, THERE, True)), 1)[0].isnan()
    assert correct_localisation(said((0, THERE, 0.9), (0, HERE, 0.5)), truth, 1)[0] == 1
    assert correct_localisation(said((0, THERE, 0.9)), by_hand((0, THERE, True)), 1)[0].isnan()


def test_an_iou_of_exactly_one_half_is_a_match():
    truth = by_hand((0, (0.0, 0.0, 0.5, 1.0), False))
    assert correct_localisation(said((0, (0.0, 0.0, 1.0, 1.0), 0.5)), truth, 1)[0] == 1
    assert correct_localisation(said((0, (0.0, 0.0, 0.24, 1.0), 0.5)), truth, 1)[0] == 0


def test_the_boxes_to_draw_are_the_best_of_the_classes_asked_for_in_pixels():
    found = said((0, HERE, 0.2), (0, THERE, 0.9), (2, HERE, 0.5))
    other = found._replace(image=torch.ones(3, dtype=torch.int64), scores=found.scores + 1)
    both = Detections(*(torch.cat(parts) for parts in zip(found, other)))
    drawn = best_boxes(both, 0, [2, 0, 1], ["cup", "boat", "tree"], (40, 20))
    assert [(box.name, box.xmin, box.ymin, box.xmax, box.ymax) for box in drawn] == [
        ("tree", 0, 0, pytest.approx(16), pytest.approx(8)),
        ("cup", 20, 10, 40, 20),
    ]
    assert best_boxes(both, 2, [0], ["cup"], (40, 20)) == []


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder, draw, names = tmp_path_factory.mktemp("images"), torch.Generator().manual_seed(0), ("cup", "boat", "tree")
    pixels = torch.randint(256, (6, 3, 16, 16), generator=draw, dtype=torch.uint8)
    paths = [folder / f"{k}.png" for k in range(6)]
    for path, image in zip(paths, pixels):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    objects = [
        [Box(names[(k + j) % 3], 2 * j, k, 2 * j + 6, k + 5, difficult=j == 2, crowd=j == 3) for j in range(k % 5)]
        for k in range(6)
    ]
    return MultiLabelDataset(names, [str(k) for k in range(6)], paths, objects), pixels


def test_objects_are_those_of_the_annotations(scene):
    dataset, _ = scene
    truth = objects_of(dataset)
    assert truth.image.tolist() == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4] and truth.classes[:3].tolist() == [1, 2, 0]
    torch.testing.assert_close(truth.boxes[1], torch.tensor([0, 2, 6, 7]) / 16)
    assert truth.difficult.tolist() == [False] * 5 + [True] + [False] * 2 + [True] * 2
    torch.testing.assert_close(object_areas(dataset), torch.full((3,), 30 / 256, dtype=torch.float64))
    assert object_areas(dataset.subset([0, 1]))[[0, 2]].isnan().all()


def test_detections_are_the_shares_of_the_probability_without_the_weaker_of_overlapping_boxes(scene):
    dataset, pixels = scene
    draw = torch.Generator().manual_seed(1)
    # Scores of their own keep boxes apart that cover the same cells.
    own = Proposals.of_images(
        [boxes(3 + k, draw) for k in range(6)], [1 + torch.rand(3 + k, generator=draw) for k in range(6)]
    )
    data, model = ArrayData(pixels, dataset.targets, difficult=dataset.difficult, proposals=own), detector()
    model.regions.train()
    found = detect(model, data, batch_size=4, precision="fp32")
    assert model.regions.training
    model.eval()
    regions = own.of(torch.arange(6))
    with torch.no_grad():
        answer = model(normalise(pixels), regions)
    shares = region_probabilities(answer.class_scores, answer.region_scores, regions.image, 6)
    for i in range(6):
        for k in range(3):
            left = sorted(
                ((shares[m, k].item(), regions.boxes[m].tolist()) for m in range(len(shares)) if regions.image[m] == i),
                reverse=True,
            )
            kept = []
            for score, box in left:
                if all(iou(box, other) <= 0.4 for _, other in kept):
                    kept.append((score, box))
            mine = (found.image == i) & (found.classes == k)
            assert found.scores[mine].tolist() == pytest.approx([score for score, _ in kept], rel=1e-4)
            torch.testing.assert_close(found.boxes[mine], torch.tensor([box for _, box in kept]))


def test_both_numbers_are_means_over_the_classes_that_have_objects(scene):
    dataset, pixels = scene
    data, model = ArrayData(pixels, dataset.targets, proposals=proposals(dataset, "boxes")), detector()
    numbers, found, truth = detection(model, data, dataset), detect(model, data), objects_of(dataset)
    assert numbers == {
        "CorLoc": pytest.approx(correct_localisation(found, truth, 3).nanmean().item()),
        "detection_mAP": pytest.approx(detection_average_precision(found, truth, 3).nanmean().item()),
    }
    with pytest.raises(ValueError, match="a detector needs the regions"):
        detection(model, ArrayData(pixels, dataset.targets), dataset)
