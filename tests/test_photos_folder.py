"""The folder of photographs: made from COCO's val2017, checked, and refused where an image is wrong."""

import io
import json
import shutil

import numpy as np
import pytest
from commands import udlib_command
from PIL import Image

from udlib.datasets import photos as photos_module
from udlib.datasets import photos_table
from udlib.datasets.photos import (
    check_photos,
    coco_folder,
    photo_folder,
    photos_available,
    prepare_photos,
    require_photos,
)
from udlib.datasets.photos_table import make_table, read_table
from udlib.datasets.pixels import images_of
from udlib.methods.supervised import make_network
from udlib.models import TrainedModel
from udlib.workshop import measured

SIZES = {7: (640, 426), 12: (500, 375), 30: (426, 640), 31: (400, 250), 45: (288, 300), 46: (300, 300)}
REDUCED = {7: (433, 288), 12: (384, 288), 30: (288, 433), 31: (400, 250), 45: (288, 300), 46: (288, 288)}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No test finds the photographs unless it asks for them."""
    for name in ("UDLIB_PHOTOS", "UDLIB_ROOTS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")


# A small COCO of drawn pictures


def drawing(image_id, size):
    """A picture of large blobs, a different one for each id."""
    coarse = np.random.default_rng(image_id).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(image, quality=93):
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """COCO's val2017 with six pictures, and a table made of them in place of the real one."""
    root, small = tmp_path / "coco", tmp_path / "small"
    (root / "val2017").mkdir(parents=True)
    small.mkdir()
    for image_id, size in SIZES.items():
        (root / "val2017" / f"{image_id:012d}.jpg").write_bytes(jpeg(drawing(image_id, size)))
        drawing(image_id, REDUCED[image_id]).save(small / f"{image_id:012d}.jpg", quality=88)
    (root / "val2017" / "000000000099.jpg").write_bytes(b"no person here, and never read")
    rows = [  # image, category, area in the original, box
        (7, 1, 9000, [0, 0, 90, 100]),
        (7, 3, 1024, [10.4, 20.6, 30, 30]),
        (7, 3, 1023, [100.2, 50, 31.2, 0]),
        (12, 3, 1023, [380.2, 287.8, 3.9, 0.1]),
        (30, 5, 5000, [1, 2, 3.3, 4.4]),
        (31, 5, 20, [1, 2, 3, 4]),
        (45, 9, 20, [1, 2, 3, 4]),
    ]
    annotations = tmp_path / "instances.json"
    annotations.write_text(
        json.dumps(
            {
                "images": [
                    {"id": image_id, "width": width, "height": height}
                    for image_id, (width, height) in reversed(REDUCED.items())
                ],
                "categories": [
                    {"id": k, "name": name} for k, name in ((1, "person"), (5, "cat"), (3, "dog"), (9, "owl"))
                ],
                "annotations": [
                    {"id": k, "image_id": image, "category_id": category, "original_box_area": area, "bbox": box}
                    for k, (image, category, area, box) in enumerate(rows)
                ],
            }
        )
    )
    monkeypatch.setattr(photos_table, "FEWEST", 2)
    monkeypatch.setattr(photos_table, "TABLE", tmp_path / "table.json.gz")
    photos_table.TABLE.write_bytes(make_table(annotations, small))
    monkeypatch.setattr(photos_table, "read_table", read_table.__wrapped__)
    monkeypatch.setattr(photos_module, "read_table", read_table.__wrapped__)
    return root


def test_a_table_has_the_frequent_classes_and_whole_boxes(coco):
    classes, table = photos_table.read_table()
    assert classes == ("dog", "cat"), "both in two images: the lower id first; the person and the owl in one are out"
    boxes = {photo.id: [(b.name, b.xmin, b.ymin, b.xmax, b.ymax, b.difficult) for b in photo.boxes] for photo in table}
    assert boxes == {
        7: [("dog", 10, 21, 40, 51, False), ("dog", 100, 50, 131, 51, True)],
        12: [("dog", 380, 287, 384, 288, True)],
        30: [("cat", 1, 2, 4, 6, False)],
        31: [("cat", 1, 2, 4, 6, True)],
        45: [],
        46: [],
    }
    assert {photo.id: (photo.width, photo.height) for photo in table} == REDUCED


def test_the_folder_is_made_by_the_rule_and_coco_stays_as_it_is(coco, tmp_path):
    before = contents(coco / "val2017")
    folder = prepare_photos(coco)
    assert folder == tmp_path / "data" / "photos" / "val2017" and photo_folder() == folder and photos_available()
    assert names_in(folder) == [f"{image_id:012d}.jpg" for image_id in SIZES]
    for image_id, size in SIZES.items():
        name = f"{image_id:012d}.jpg"
        if size == REDUCED[image_id]:
            assert (folder / name).read_bytes() == before[name]
        else:
            original = Image.open(coco / "val2017" / name)
            expected = jpeg(original.resize(REDUCED[image_id], Image.Resampling.LANCZOS), 88)
            assert (folder / name).read_bytes() == expected
    assert check_photos() == folder and contents(coco / "val2017") == before


@pytest.mark.parametrize("layout", ["val2017", "images/val2017", "."])
def test_a_folder_made_of_a_made_one_has_the_same_bytes(layout, coco, tmp_path):
    made = prepare_photos(coco, tmp_path / "made")
    shutil.copytree(made, tmp_path / "copy" / layout)
    code, out, err = udlib_command("data", "photos", "--coco", tmp_path / "copy", "--out", tmp_path / "again")
    assert code == 0 and err == "" and str(tmp_path / "again" / "val2017") in out
    assert contents(tmp_path / "again" / "val2017") == contents(made)


def test_a_grey_picture_is_a_photograph_like_any_other(coco, tmp_path):
    path = coco / "val2017" / "000000000012.jpg"
    path.write_bytes(jpeg(Image.open(path).convert("L")))
    assert Image.open(prepare_photos(coco) / path.name).mode == "RGB"


def test_a_stopped_command_goes_on_where_it_stopped(coco, tmp_path, monkeypatch):
    undisturbed = contents(prepare_photos(coco, tmp_path / "undisturbed"))
    written, write = [], photos_module.atomic_write

    def stop_at_the_third(path, content):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(photos_module, "atomic_write", stop_at_the_third)
    code, out, err = udlib_command("data", "photos", "--coco", coco)
    assert code == 130 and out == "" and "the same command goes on from here" in err
    folder = tmp_path / "data" / "photos" / "val2017"
    assert names_in(folder) == [path.name for path in written] and not photos_available()
    with pytest.raises(FileNotFoundError, match=r"lacks 4 of 6 photographs, '000000000030.jpg' first.*--coco ROOT"):
        require_photos()
    monkeypatch.setattr(
        photos_module, "atomic_write", lambda path, content: written.append(path) or write(path, content)
    )
    assert udlib_command("data", "photos", "--coco", coco)[0] == 0
    assert len(written) == len(set(written)) == 6 and contents(folder) == undisturbed


# Bad input


def test_a_coco_root_without_the_pictures_is_refused(coco, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' is not a folder: extract val2017.zip"):
        prepare_photos(tmp_path / "nowhere")
    (tmp_path / "other" / "train2017").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"has no 'val2017' \(it holds train2017\): extract val2017.zip"):
        prepare_photos(tmp_path / "other")
    for image_id in (12, 45):
        (coco / "val2017" / f"{image_id:012d}.jpg").unlink()
    missing = "lacks 2 of the 6 pictures, 000000000012.jpg, 000000000045.jpg: extract val2017.zip"
    code, out, err = udlib_command("data", "photos", "--coco", coco)
    assert code == 2 and out == "" and missing in err and err.count("\n") == 1
    assert not (tmp_path / "data" / "photos").exists(), "nothing is begun that cannot be ended"


def test_of_many_missing_pictures_ten_are_named(tmp_path):
    (tmp_path / "val2017").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 2693 of the 2693 pictures, 000000000139.jpg, .* and 2683 more: "
    ):
        coco_folder(tmp_path)


def test_a_wrong_picture_in_coco_is_refused(coco, tmp_path):
    path, remedy = coco / "val2017" / "000000000012.jpg", "extract COCO's val2017.zip again"
    path.write_bytes(jpeg(drawing(8, SIZES[12])))
    with pytest.raises(
        ValueError, match=rf"'{path}' is not image 12 .* cells \d+ differ in light and dark, .*{remedy}"
    ):
        prepare_photos(coco)
    path.write_bytes(jpeg(drawing(12, (500, 400))))
    with pytest.raises(ValueError, match=rf"it has 360 × 288, expected are 384 × 288: {remedy}"):
        prepare_photos(coco)
    path.write_bytes(jpeg(drawing(12, SIZES[12]))[:-3000])
    with pytest.raises(ValueError, match=rf"'{path}' cannot be decoded .*truncated.*: {remedy}"):
        prepare_photos(coco)
    assert names_in(tmp_path / "data" / "photos" / "val2017") == ["000000000007.jpg"]


def test_nothing_that_is_there_is_overwritten(coco, tmp_path):
    before = contents(coco / "val2017")
    with pytest.raises(ValueError, match=r"holds COCO's own pictures.*--out"):
        prepare_photos(coco, coco)
    assert contents(coco / "val2017") == before
    theirs = tmp_path / "theirs" / "val2017" / "000000000030.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(jpeg(drawing(30, SIZES[30])))
    kept = theirs.read_bytes()
    with pytest.raises(
        ValueError, match=rf"'{theirs}' is not image 30 .*426 × 640, expected are 288 × 433: delete the file"
    ):
        prepare_photos(coco, tmp_path / "theirs")
    assert theirs.read_bytes() == kept


def spoil_size(path):
    path.write_bytes(jpeg(drawing(12, (383, 288))))


def spoil_picture(path):
    path.write_bytes(jpeg(drawing(13, REDUCED[12])))


def spoil_end(path):
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (spoil_size, "it has 383 × 288, expected are 384 × 288"),
        (spoil_picture, "cells .* differ in light and dark"),
        (spoil_end, "cannot be decoded"),
    ],
)
def test_a_folder_with_a_wrong_image_is_refused_by_the_check_and_by_the_decoding(spoil, difference, coco):
    path = prepare_photos(coco) / "000000000012.jpg"
    spoil(path)
    message = (
        rf"(?s)000000000012.jpg'.*{difference}.*: delete the file, and `udlib data photos --coco ROOT` makes it again"
    )
    code, out, err = udlib_command("data", "photos", "--check")
    assert (code, out) == (2, "")
    model = TrainedModel(make_network(len(whole().classes), 0.1, "small_narrow"), "small_narrow", whole().classes, 32)
    refusals = (
        check_photos,
        lambda: images_of(whole(), 32),
        lambda: whole().image(1),
        lambda: measured(model, whole()),
    )
    for refusal in refusals:
        with pytest.raises(ValueError, match=message):
            refusal()
    code, out, err = udlib_command("data", "check", "photos")
    assert code == 1 and out.startswith("WRONG") and out.endswith("1 problem found\n") and "000000000012.jpg" in out
    path.unlink()
    path.symlink_to(path.parent / "nowhere.jpg")
    code, out, err = udlib_command("data", "photos", "--check")
    assert code == 2 and "lacks 1 of 6 photographs, '000000000012.jpg' first" in err, (
        "a link to nothing is no photograph"
    )
    path.unlink()
    assert udlib_command("data", "photos", "--coco", path.parents[3] / "coco", "--check")[0] == 0


def whole():
    """All images of the small table as one data set."""
    classes, table = photos_table.read_table()
    return photos_module.Photos(list(table), classes, photo_folder())


def test_another_quality_and_another_filter_are_the_same_photograph(coco):
    folder = prepare_photos(coco)
    for quality, resampling in (
        (60, Image.Resampling.BILINEAR),
        (95, Image.Resampling.BOX),
        (75, Image.Resampling.NEAREST),
    ):
        for image_id, size in REDUCED.items():
            image = Image.open(coco / "val2017" / f"{image_id:012d}.jpg").resize(size, resampling)
            (folder / f"{image_id:012d}.jpg").write_bytes(jpeg(image, quality))
        assert check_photos() == folder
