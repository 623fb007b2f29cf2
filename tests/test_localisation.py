"""Maps against boxes: masks by hand, and the averages of `localisation` against a literal loop over labels."""

import dataclasses

import pytest
import torch

from udlib.attention import class_attention, energy_inside, pointing_game, uncertainty_attention
from udlib.backbones import backbone
from udlib.datasets.base import Box, MultiLabelDataset
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.training import localisation as room
from udlib.training.batches import ArrayData
from udlib.training.localisation import box_mask, localisation

SIZE, NAMES = 16, ("cup", "boat", "tree")


def test_a_pixel_belongs_to_a_box_that_covers_its_centre():
    mask = box_mask([Box("cup", 10, 0, 30, 20)], (40, 20), 4)  # pixels of 10 by 5
    assert mask.int().tolist() == [[0, 1, 1, 0]] * 4
    assert not box_mask([Box("cup", 1, 1, 2, 2)], (40, 20), 4).any(), "a box between the centres covers none"
    assert box_mask([Box("cup", 0, 0, 5.1, 20), Box("cup", 34, 0, 40, 20)], (40, 20), 4).int()[0].tolist() == [
        1,
        0,
        0,
        1,
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six images of random pixels with one to three boxes each, some difficult, and a network with both heads."""
    from PIL import Image

    folder, draw = tmp_path_factory.mktemp("images"), torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
    paths = []
    for k, image in enumerate(images):
        paths.append(folder / f"{k}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    objects = [
        [Box(NAMES[(k + j) % 3], 2 * j, k, 2 * j + 6, k + 5, difficult=(k + j) % 4 == 0) for j in range(1 + k % 3)]
        for k in range(6)
    ]
    objects[0] = [
        Box("cup", 0, 0, 8, 8),
        Box("cup", 9, 9, 15, 15, difficult=True),
    ]  # one label of two boxes, which is easy
    found = MultiLabelDataset(NAMES, [str(k) for k in range(6)], paths, objects)
    torch.manual_seed(0)
    return (
        found,
        ArrayData(images, found.targets, difficult=found.difficult),
        DualBranchNet(backbone("small_narrow"), 3, embedding=8),
    )


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_averages_are_those_of_a_loop_over_labels(world, pooling):
    found, data, model = world
    model.pooling = pooling
    measured = localisation(model, data, found, batch_size=4, precision="fp32")
    model.eval()
    cases = {}
    with torch.no_grad():
        features = model.backbone(normalise(data.images))
    for i, k in data.targets.nonzero().tolist():
        mask = box_mask([box for box in found.boxes(i) if box.name == NAMES[k]], (SIZE, SIZE), SIZE)[None]
        maps = {
            "class": class_attention(model.head, features[[i]], k, pooling),
            "uncertainty": uncertainty_attention(model.head, features[[i]], pooling),
        }
        group = "difficult" if found.difficult[i, k] else "easy"
        cases.setdefault(f"area_{group}", []).append(mask.float().mean())
        for name, value in maps.items():
            cases.setdefault(f"{name}_pointing_{group}", []).append(pointing_game(value, mask)[0].float())
            cases.setdefault(f"{name}_energy_{group}", []).append(energy_inside(value, mask)[0])
    assert measured.keys() == cases.keys() and any("difficult" in name for name in cases)
    for name, values in cases.items():
        assert measured[name] == pytest.approx(torch.stack(values).nanmean().item(), abs=1e-5), name


def test_without_a_calibration_branch_there_is_no_uncertainty_and_modes_stay(world):
    found, data, model = world
    bare = DualBranchNet(backbone("small_narrow"), 3, calibration=False).train()
    bare.backbone[1].eval()
    measured = localisation(bare, data, found)
    assert not any("uncertainty" in name for name in measured) and "class_energy_easy" in measured
    assert bare.training and not bare.backbone[1].training


def test_a_label_whose_boxes_hold_no_pixel_is_left_out_and_so_is_a_group_without_cases(world):
    found, data, model = world
    small = dataclasses.replace  # boxes are frozen
    objects = [
        [small(box, xmax=box.xmin + 0.1, ymax=box.ymin + 0.1) if k else small(box, difficult=False) for box in boxes]
        for k, boxes in enumerate(found.objects)
    ]
    shrunk = MultiLabelDataset(NAMES, found.ids, [found.image_path(k) for k in range(6)], objects)
    measured = localisation(model, ArrayData(data.images, shrunk.targets, difficult=shrunk.difficult), shrunk)
    assert {name.rpartition("_")[2] for name in measured} == {"easy"}
    assert measured["area_easy"] == pytest.approx(room.box_mask(objects[0], (SIZE, SIZE), SIZE).double().mean().item())


def test_a_box_has_four_sides():
    mask = box_mask([Box("cup", 10, 5, 30, 15)], (40, 20), 4).int().tolist()
    assert mask == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    edge = box_mask([Box("cup", 5, 2.5, 15, 7.5)], (40, 20), 4).int().tolist()
    assert edge == [[1, 0, 0, 0], *[[0] * 4] * 3], "a centre on the left or upper side is inside, on the others outside"
