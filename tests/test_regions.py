"""Figures of regions and their explorer: evidence adds up, p is the detector's own, other boxes change the frame."""

import html
import io

import pytest
import torch
from lessons import drawn
from PIL import Image
from torchvision.ops import box_iou

from udlib.backbones import backbone
from udlib.course.explorers import ProposalExplorer
from udlib.datasets import open_dataset
from udlib.datasets.base import to_memory
from udlib.datasets.proposals import annotated, grid, grid_proposals
from udlib.datasets.transforms import normalise
from udlib.figures import plots
from udlib.figures.boxes import detections, evidence, region_scores, top_predictions
from udlib.methods.detection.network import Detector

ROWS = [0, 1, 2]


@pytest.fixture(scope="module")
def scenes():
    return open_dataset("scenes", "val", 64)


@pytest.fixture(scope="module")
def detector(scenes):
    torch.manual_seed(0)
    return Detector(backbone("small_narrow"), len(scenes.classes), hidden=16).eval()


def test_evidence_adds_up_to_the_weights_and_lies_in_the_boxes():
    boxes, weights = grid([1, 2, 3]), torch.rand(35, generator=torch.Generator().manual_seed(0))
    assert torch.isclose(evidence(boxes, weights, 24).sum(), weights.sum())
    corner = evidence(torch.tensor([[0.5, 0.0, 1.0, 0.25]]), torch.tensor([2.0]), 8)
    assert corner[:2, 4:].sum() == 2 and (corner[:2, 4:] == corner[0, 4]).all()
    by_loop = torch.zeros(8, 8)
    for box, weight in zip(boxes, weights):
        cells = [
            (i, j)
            for i in range(8)
            for j in range(8)
            if box[1] <= (i + 0.5) / 8 < box[3] and box[0] <= (j + 0.5) / 8 < box[2]
        ]
        for i, j in cells:
            by_loop[i, j] += weight / len(cells)
    assert torch.allclose(evidence(boxes, weights, 8), by_loop, atol=1e-6)


def test_a_box_between_two_centres_gives_its_weight_to_the_cell_in_its_middle():
    heat = evidence(torch.tensor([[0.26, 0.51, 0.34, 0.6]]), torch.tensor([3.0]), 4)
    assert heat[2, 1] == 3 and heat.sum() == 3
    assert evidence(torch.tensor([[0.99, 0.99, 1.0, 1.0]]), torch.tensor([1.0]), 2)[1, 1] == 1


def test_what_is_said_of_boxes_makes_the_detectors_own_p(scenes, detector):
    images = normalise(to_memory(scenes.subset(ROWS), 64))
    with torch.inference_mode():
        logits = detector(images, grid_proposals(3).of(torch.arange(3))).logits
    for image, own in zip(images, logits):
        scores = region_scores(detector, image, grid())
        assert torch.allclose(scores.classes.sum(1), torch.ones(84)) and torch.allclose(
            scores.regions.sum(0), torch.ones(16)
        )
        assert torch.allclose(scores.p, torch.sigmoid(own), atol=1e-4)
    assert torch.isclose(region_scores(detector, images[0], grid([1])).p.sum(), torch.tensor(1.0)), (
        "one box says one thing"
    )


def test_found_boxes_are_drawn_with_their_names_and_right_ones_can_be_told_without_colour(scenes):
    image = scenes.image(0)
    figure = detections(
        [image, image],
        [[((0.0, 0.0, 0.5, 0.5), "cup", True), ((0.5, 0.5, 1.0, 1.0), "", False)], []],
        ["a", "b"],
        columns=2,
    )
    first, second = figure.axes
    assert [patch.get_linestyle() for patch in first.patches] == ["-", "--"] and not second.patches
    assert [text.get_text() for text in first.texts] == ["cup"] and first.get_title() == "a"
    x, y, width, height = (*first.patches[1].get_xy(), first.patches[1].get_width(), first.patches[1].get_height())
    assert (x, y, width, height) == (31.5, 31.5, 32, 32)


def test_top_predictions_are_ranked_and_marked(scenes):
    probabilities = {"a": [0.1, 0.9, 0.3, 0.2], "b": [0.8, 0.1, 0.2, 0.7]}
    figure = top_predictions(
        [scenes.image(0)], [[]], [probabilities], ["cup", "fish", "boat", "tree"], torch.tensor([[0, 1, 0, 1]]), k=2
    )
    words = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert words == [[], ["✓ fish  0.90", "✗ boat  0.30"], ["✗ cup  0.80", "✓ tree  0.70"]]
    assert Image.open(io.BytesIO(plots.png(figure))).size[0] > 100


@pytest.fixture
def explorer(scenes, detector):
    kinds = {"grid": [grid()] * 3, "whole": [grid([1])] * 3}
    return ProposalExplorer(detector, scenes, ROWS, kinds)


def test_other_boxes_are_another_frame_for_the_same_detector(scenes, explorer):
    row, name = next((row, box.name) for row in ROWS for box in scenes.boxes(row))
    explorer.move(picture=row, **{"class": name})
    before = drawn(explorer)
    many = explorer.measure(row, "grid", name)
    explorer.move(proposals="whole")
    assert drawn(explorer) != before
    assert many["boxes"] == "84" and explorer.measure(row, "whole", name)["boxes"] == "1"
    truth = annotated(scenes, row)[torch.tensor([box.name == name for box in scenes.boxes(row)])]
    assert many["best IoU among all boxes"] == f"{box_iou(grid(), truth).max():.2f}"
    readout = html.unescape(explorer.readout.value)
    assert f"label '{name}'" in readout and "IoU of the best-scored box" in readout


def test_the_table_holds_the_largest_shares(scenes, explorer, detector):
    name = scenes.classes[0]
    table = explorer.frame(ROWS[0], "grid", name).table
    scores = region_scores(detector, normalise(to_memory(scenes.subset([ROWS[0]]), 64))[0], grid())
    best = scores.shares[:, 0].sort(descending=True).values[:5] / scores.p[0]
    assert [row[3] for row in table[1:]] == [f"{100 * share:.1f}" for share in best]


def test_a_class_that_is_not_there_has_no_iou(scenes, explorer):
    absent = next(name for k, name in enumerate(scenes.classes) if name not in {box.name for box in scenes.boxes(0)})
    assert explorer.measure(0, "grid", absent)["IoU of the best-scored box"] == "no object"
    assert [row[-1] for row in explorer.frame(0, "grid", absent).table[1:]] == ["–"] * 5


def test_proposals_for_another_number_of_pictures_are_refused(scenes, detector):
    with pytest.raises(ValueError, match="'few' have boxes for 1 pictures and rows names 3: give each"):
        ProposalExplorer(detector, scenes, ROWS, {"few": [grid()]})
