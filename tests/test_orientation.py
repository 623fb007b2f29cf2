"""One reading of every picture: its EXIF orientation is applied to pixels, sizes and boxes alike, everywhere."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_datasets_voc import annotation, make_tree, object_xml
from tiny_voc import write_tiny_voc
from trees import coco_tree, csv_tree

import udlib
from udlib.course.explorers.attention import AttentionExplorer
from udlib.datasets import COCO, VOC, Custom, open_dataset
from udlib.datasets.base import Box, MultiLabelDataset, load_rgb, to_memory
from udlib.datasets.decoding import header, read_rgb, upright_size
from udlib.datasets.orientation import TAG, orientation_of, turned_boxes
from udlib.datasets.picture_checks import examine, oddities
from udlib.datasets.pixels import images_of
from udlib.datasets.proposals import annotated
from udlib.datasets.xml_folders import XMLFolder, splits_of_folder
from udlib.figures import overlays
from udlib.heads import DualBranchNet
from udlib.models import TrainedModel, load, save_trained
from udlib.workshop import measured, settings, train_model

WIDTH, HEIGHT = 12, 8
BOX = (2, 1, 7, 4)  # xmin, ymin, xmax, ymax of a white box in the stored picture


def stored():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    return Image.fromarray(pixels)


def sideways(path, orientation=6):
    """Write the picture that a file shows again, with an EXIF orientation and without loss; its ending may lie."""
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    exif = Image.Exif()
    exif[TAG] = orientation
    pixels.save(path, "PNG", exif=exif)


def white_part(image):
    rows, columns = np.nonzero(np.asarray(image)[..., 0] > 127)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_its_size_and_its_box_turn_together_as_pillow_turns_it(tmp_path, orientation):
    path = tmp_path / "a.png"
    stored().save(path)
    sideways(path, orientation)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image)
        in_memory = read_rgb(image)
    picture = load_rgb(path)
    assert np.array_equal(picture, expected) and np.array_equal(picture, in_memory)
    assert upright_size(path) == picture.size
    if orientation >= 5:  # the stated size tells that the box was drawn in the stored picture
        [box] = turned_boxes([Box("cup", *BOX)], (WIDTH, HEIGHT), (WIDTH, HEIGHT), orientation)
        assert (box.xmin, box.ymin, box.xmax, box.ymax) == white_part(picture)
    assert np.array_equal(load_rgb(path, upright=False), stored())


@pytest.mark.parametrize("annotated_size", [(HEIGHT, WIDTH), (640, 480)])
def test_boxes_stay_where_the_annotation_states_the_upright_size_or_another_one(annotated_size):
    box = Box("cup", *BOX)
    assert turned_boxes([box], annotated_size, (WIDTH, HEIGHT), 6) == [box]


def test_a_picture_that_is_turned_is_not_turned_again(tmp_path):
    stored().save(tmp_path / "a.png")
    sideways(tmp_path / "a.png")
    once = load_rgb(tmp_path / "a.png")
    assert orientation_of(once) == 1 and np.array_equal(read_rgb(once), once)


def test_a_picture_keeps_its_orientation_when_pillow_converts_and_resizes_it(tmp_path):
    stored().save(tmp_path / "a.png")
    sideways(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert read_rgb(image.convert("L").resize((6, 4))).size == (4, 6)


@pytest.mark.parametrize("ending", ["tif", "webp", "jpg"])
def test_every_format_that_holds_an_orientation_is_turned_once(tmp_path, ending):
    path, exif = tmp_path / f"a.{ending}", Image.Exif()
    exif[TAG] = 6
    stored().resize((WIDTH * 8, HEIGHT * 8), Image.Resampling.NEAREST).save(path, exif=exif, quality=100)
    picture = load_rgb(path)
    assert picture.size == upright_size(path) == (HEIGHT * 8, WIDTH * 8)
    assert np.abs(np.array(white_part(picture)) - 8 * np.array((4, 2, 7, 7))).max() <= 1


@pytest.mark.parametrize(
    "damage", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"]
)
def test_damaged_exif_beside_whole_pixels_is_no_obstacle(tmp_path, damage):
    stored().save(tmp_path / "a.jpg", exif=damage, quality=100)
    assert load_rgb(tmp_path / "a.jpg").size == upright_size(tmp_path / "a.jpg") == (WIDTH, HEIGHT)


def test_an_orientation_that_is_no_orientation_turns_nothing(tmp_path):
    for number in (0, 9, 65535):
        stored().save(tmp_path / "a.png")
        sideways(tmp_path / "a.png", number)
        assert np.array_equal(load_rgb(tmp_path / "a.png"), stored())


def test_boxes_of_a_voc_folder_follow_the_picture_whichever_size_its_annotation_states(tmp_path):
    size = "<size><width>{}</width><height>{}</height></size>"
    upright = object_xml("cup", (HEIGHT - 4 + 1, 2 + 1, HEIGHT - 1, 7))  # VOC counts from 1 and includes the last pixel
    root = make_tree(
        tmp_path,
        {
            "as_stored": annotation(object_xml("cup", (3, 2, 7, 4)), size=size.format(WIDTH, HEIGHT)),
            "upright": annotation(upright, size=size.format(HEIGHT, WIDTH)),
            "unstated": annotation(upright, size=""),
        },
    )
    for name in ("as_stored", "upright", "unstated"):
        stored().save(root / "JPEGImages" / f"{name}.jpg", "PNG")
        sideways(root / "JPEGImages" / f"{name}.jpg")
    data = VOC(root, "train")
    for i in range(3):
        [box] = data.boxes(i)
        assert (box.xmin, box.ymin, box.xmax, box.ymax) == white_part(data.image(i)) == (4, 2, 7, 7)
        assert data.image_size(i) == data.image(i).size == (HEIGHT, WIDTH)
        assert annotated(data, i).tolist() == pytest.approx(np.array([[4 / 8, 2 / 12, 7 / 8, 7 / 12]]))
    assert data.subset([2, 0]).boxes(1) == data.boxes(0)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_follow_a_tiff_which_pillow_turns_itself(tmp_path, orientation, compression):
    path, exif = tmp_path / "photo.tif", Image.Exif()
    exif[TAG] = orientation
    stored().save(path, exif=exif, compression=compression)
    found = header(path)
    assert (found.size, found.orientation, found.always_upright) == ((WIDTH, HEIGHT), orientation, True)
    box = "<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>7</xmax><ymax>4</ymax></bndbox>"
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    (tmp_path / "photo.xml").write_text(f"<annotation>{size}<object><name>cup</name>{box}</object></annotation>")
    (split,) = splits_of_folder(tmp_path)[0]
    data = XMLFolder(tmp_path, split)
    picture = data.image(0)
    assert upright_size(path) == upright_size(path, upright=False) == picture.size == data.image_size(0)
    assert np.array_equal(picture, load_rgb(path, upright=False)), "Pillow turns it in any case"
    if orientation in (
        1,
        5,
        6,
        7,
        8,
    ):  # where width and height are exchanged, the stated size tells which picture is meant
        [turned] = data.boxes(0)
        assert (turned.xmin, turned.ymin, turned.xmax, turned.ymax) == white_part(picture)
    noted = any("has an EXIF orientation" in text for text in oddities([path], [examine(path)]))
    assert noted == (orientation != 1)


def test_boxes_of_a_coco_folder_follow_the_picture(tmp_path):
    data = COCO(coco_tree(tmp_path / "coco", 40), "test")
    row = next(i for i, boxes in enumerate(data.objects) if boxes)
    before, (width, height) = data.boxes(row), data.image_size(row)
    sideways(data.image_path(row), 8)
    assert data.image_size(row) == (height, width)
    for old, new in zip(before, data.boxes(row), strict=True):
        assert (new.xmin, new.ymin, new.xmax, new.ymax) == (old.ymin, width - old.xmax, old.ymax, width - old.xmin)


def test_training_images_and_shown_images_of_every_layout_are_upright(tmp_path):
    one = torch.ones(1, 1)
    path = tmp_path / "a.png"
    stored().save(path)
    sideways(path)
    parts = [
        MultiLabelDataset(["cup"], ["a"], [path], targets=one),
        MultiLabelDataset(["cup"], ["a"], [path], [[Box("cup", 4, 2, 7, 7)]]),
    ]
    custom = Custom(csv_tree(tmp_path / "csv", 20), "train")
    sideways(custom.image_path(0))
    for data in (*parts, custom.subset([0])):
        with Image.open(data.image_path(0)) as image:
            expected = ImageOps.exif_transpose(image).convert("RGB")
        square = torch.from_numpy(np.array(expected.resize((16, 16), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        assert data.upright and np.array_equal(data.image(0), expected)
        assert torch.equal(to_memory(data, 16)[0], square) and torch.equal(images_of(data, 16)[0], square)


def model(orientation="exif", size=16):
    torch.manual_seed(0)
    net = DualBranchNet(udlib.backbones.backbone("small_narrow"), 3)
    return TrainedModel(net, "small_narrow", ("bike", "cat", "dog"), size, orientation=orientation)


def test_a_file_and_the_same_file_opened_by_pillow_give_the_same_answer(tmp_path):
    """What a web service does with an upload is what `udlib predict` does with the file."""
    stored().save(tmp_path / "a.png")
    sideways(tmp_path / "a.png")
    trained = model()
    with Image.open(tmp_path / "a.png") as image:
        expected = trained.predict([load_rgb(tmp_path / "a.png")]).probabilities
        for same in (tmp_path / "a.png", str(tmp_path / "a.png"), image, image.convert("RGB")):
            assert torch.equal(trained.predict([same]).probabilities, expected)


def test_the_explorer_of_attention_shows_the_pixels_that_the_network_sees(tmp_path, monkeypatch):
    root = write_tiny_voc(tmp_path / "voc", {"train": 4, "val": 2})
    data = open_dataset(root, "train")
    for i in range(4):
        sideways(data.image_path(i))
    shown = []
    monkeypatch.setattr(overlays, "attention", lambda image, *_: shown.append(image))
    explorer = AttentionExplorer({"a network": model(size=32).network}, data, [2], size=32)
    explorer.frame(2, "a network", "uncertainty")
    assert np.array_equal(shown[0], load_rgb(data.image_path(2)))


def test_the_numbers_of_a_training_are_those_of_evaluate_for_pictures_held_sideways(tmp_path):
    root = write_tiny_voc(tmp_path / "voc", {"train": 24, "val": 16, "test": 16})
    for k, path in enumerate(sorted((root / "JPEGImages").iterdir())):
        sideways(path, 1 + k % 8)
    recipe = settings(network="small_narrow", epochs=1, batch_size=8, size=24)
    trained = train_model(root, tmp_path / "model", recipe)
    for split in ("val", "test"):
        again = measured(load(tmp_path / "model"), open_dataset(root, split))
        assert again == trained.metrics[split]


def test_the_rule_is_stored_and_a_folder_without_one_reads_pictures_as_before_and_says_so(tmp_path):
    folder = save_trained(tmp_path / "model", model())
    state = json.loads((folder / "state.json").read_text())
    assert state["transforms"]["orientation"] == "exif"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(folder).orientation == "exif"
    del state["transforms"]["orientation"]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.warns(UserWarning, match="states no rule for EXIF orientation"):
        old = load(folder)
    path, one = tmp_path / "a.png", torch.ones(1, 3)
    stored().save(path)
    sideways(path)
    as_stored, upright = load_rgb(path, upright=False), load_rgb(path)
    with Image.open(path) as image:
        assert np.array_equal(old.read(image), as_stored) and np.array_equal(old.read(path), upright)
    boxed = MultiLabelDataset(old.classes, ["a"], [path], [[Box("cat", 4, 2, 7, 7)]])
    free = MultiLabelDataset(old.classes, ["a"], [path], targets=one)
    new = model()
    assert torch.equal(old.logits(boxed), new.logits([stored()])) and torch.equal(old.logits(free), new.logits([path]))
    assert torch.equal(new.logits(boxed), new.logits([path]))
    with pytest.warns(UserWarning):
        assert load(save_trained(tmp_path / "again", old)).orientation is None


def test_a_rule_of_a_later_version_is_refused(tmp_path):
    folder = save_trained(tmp_path / "model", model())
    state = json.loads((folder / "state.json").read_text())
    state["transforms"]["orientation"] = "sideways"
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="orientation is 'sideways': expected 'exif'"):
        load(folder)


def test_the_command_writes_the_warning_in_one_line(tmp_path):
    folder = save_trained(tmp_path / "model", model(orientation=None))
    stored().save(tmp_path / "a.png")
    words = [sys.executable, "-m", "udlib", "predict", tmp_path / "a.png", "--model", folder]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith(f"udlib: model folder '{folder}' states no rule for EXIF orientation")
