"""`photos`: what its table says, and where its pixels come from."""

import gzip
import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import udlib_command
from photographs import PHOTOGRAPHS, needs_photographs
from PIL import Image
from trees import CLASSES, csv_tree

from udlib.cli.tables import _place
from udlib.course.data import dataset
from udlib.datasets import open_dataset
from udlib.datasets.photos import (
    TOLERANCE,
    photo_folder,
    photos,
    photos_available,
    prepare_photos,
    require_photos,
)
from udlib.datasets.photos_forms import Form
from udlib.datasets.photos_table import TABLE, make_table, read_table, signature
from udlib.datasets.pixels import images_of
from udlib.datasets.roots import place


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No test finds the photographs unless it asks for them."""
    for name in ("UDLIB_PHOTOS", "UDLIB_ROOTS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")


# The table


def test_the_table_has_the_counts_of_the_rule():
    classes, table = read_table()
    labels = {(photo.id, box.name) for photo in table for box in photo.boxes}
    easy = {(photo.id, box.name) for photo in table for box in photo.boxes if not box.difficult}
    counts = Counter(name for _, name in labels)
    assert len(table) == len({photo.id for photo in table}) == 2693 and len(classes) == 29
    assert Counter(photo.split for photo in table) == {"train": 1316, "val": 269, "test": 1108}
    assert len(labels) == 4692 and round(len(labels) / len(table), 2) == 1.74
    assert sum(not photo.boxes for photo in table) == 511
    assert len(labels - easy) == 1014 and len({image for image, _ in labels - easy}) == 760
    assert classes[0] == "chair" and classes[-1] == "couch" and "person" not in classes
    assert [counts[name] for name in classes] == sorted(counts.values(), reverse=True)
    assert (counts["chair"], counts["couch"]) == (367, 90)
    assert classes.index("truck") + 1 == classes.index("sports ball"), "equal counts go by the category's id"
    assert sum(min(photo.width, photo.height) < 288 for photo in table) == 39


def test_splits_follow_the_hash_of_the_id_and_boxes_lie_in_their_images():
    _, table = read_table()
    assert [photo.id for photo in table] == sorted(photo.id for photo in table)
    for photo in table:
        digit = int(hashlib.sha1(b"s%d" % photo.id).hexdigest(), 16) % 10
        assert photo.split == ("train", "val", "test")[(digit > 4) + (digit > 5)]
        for box in photo.boxes:
            assert 0 <= box.xmin < box.xmax <= photo.width and 0 <= box.ymin < box.ymax <= photo.height
    assert {photo.split for photo in table if photo.id in (84492, 426203)} == {"test"}


def test_the_table_is_small_and_names_its_source():
    assert TABLE.stat().st_size <= 250_000
    content = json.loads(gzip.decompress(TABLE.read_bytes()))
    assert "COCO Consortium" in content["attribution"] and "CC BY 4.0" in content["attribution"]


@needs_photographs
def test_the_table_is_made_again_from_the_annotations_and_the_photographs():
    root = PHOTOGRAPHS
    annotations = root / "annotations" / "instances_val2017.json"
    if not annotations.is_file():
        pytest.skip(f"needs '{annotations}'")
    again = make_table(annotations, photo_folder(root))
    assert gzip.decompress(again) == gzip.decompress(TABLE.read_bytes()), "compressors differ, the content does not"


def test_a_signature_is_which_cells_are_lighter_than_the_median():
    cells = np.random.default_rng(0).permutation(64).reshape(8, 8) * 4
    picture = Image.fromarray(np.kron(cells, np.ones((30, 50))).astype(np.uint8))
    expected = "".join(str(int(cell > np.median(cells))) for cell in cells.ravel())
    assert f"{signature(picture):064b}" == expected and expected.count("1") == 32
    assert signature(picture.convert("RGB")) == signature(picture)


# The data set


def test_it_opens_without_the_photographs_and_says_how_to_get_them(monkeypatch, tmp_path):
    remedy = r"`udlib data photos --coco ROOT` makes .*UDLIB_PHOTOS"
    for variable, reason in (
        ("", "is not at"),
        ("none", r"hidden \(UDLIB_PHOTOS=none\)"),
        (str(tmp_path), "is not at"),
    ):
        monkeypatch.setenv("UDLIB_PHOTOS", variable)
        part = open_dataset("photos", "val")
        assert len(part) == 269 and part.targets.shape == part.difficult.shape == (269, 29) and not photos_available()
        assert part.ids[0] == "139" and part.image_size(0) == (433, 288) and part.boxes(0)[0].name == "chair"
        assert part.subset([5, 0]).image_size(1) == (433, 288) and part.only([0]).classes == ("chair",)
        for read in (lambda d: d.image(0), lambda d: d[0], lambda d: images_of(d, 16), lambda d: d.image_path(0)):
            with pytest.raises(FileNotFoundError, match=f"(?s){reason}.*{remedy}"):
                read(part)
        with pytest.raises(FileNotFoundError, match=remedy):
            require_photos()
        code, out, err = udlib_command("data", "photos")
        assert code == 2 and out == "" and "`udlib data photos --coco ROOT`" in err
    with pytest.raises(ValueError, match="photos has no split 'testing': choose one of train, val, test"):
        photos("testing")


def test_labels_are_those_of_the_boxes_and_difficult_where_all_boxes_are():
    part = photos("train")
    for i in range(len(part)):
        for k, name in enumerate(part.classes):
            states = [box.difficult for box in part.boxes(i) if box.name == name]
            assert bool(part.targets[i, k]) == bool(states) and bool(part.difficult[i, k]) == (
                bool(states) and all(states)
            )


def test_where_the_photographs_are_looked_for(tmp_path, monkeypatch):
    data, roots, variable, argument = (tmp_path / name for name in ("data", "roots", "variable", "argument"))
    assert photo_folder() == data / "photos"
    roots.mkdir()
    place("photos", roots)
    assert photo_folder() == roots
    monkeypatch.setenv("UDLIB_PHOTOS", str(variable))
    assert photo_folder() == variable
    (argument / "val2017").mkdir(parents=True)
    assert photo_folder(argument) == argument / "val2017" == open_dataset("photos", "val", root=argument).root
    assert photo_folder("none") is None and photos("val", root="none").root is None
    monkeypatch.setenv("UDLIB_PHOTOS", "none")
    assert photo_folder() is None and photo_folder(argument) == argument / "val2017"


def test_photos_is_the_data_set_and_a_path_to_photos_is_a_folder(tmp_path, monkeypatch):
    csv_tree(tmp_path / "photos", 40)
    monkeypatch.chdir(tmp_path)
    for path in ("./photos", Path("photos"), tmp_path / "photos", str(tmp_path / "photos")):
        assert open_dataset(path, "train").classes == CLASSES
    assert len(open_dataset("photos", "train").classes) == 29 == len(dataset("photos", "test", 64).classes)
    assert _place("photos", None) == "photos"
    with pytest.raises(ValueError, match="has the name of a data set that udlib knows"):
        _place("./photos", None)
    code, out, _ = udlib_command("data", "describe", "./photos")
    assert code == 0 and out.startswith("6 classes, csv layout")


def test_the_command_describes_the_table_without_a_photograph(monkeypatch):
    monkeypatch.setenv("UDLIB_PHOTOS", "none")
    code, out, err = udlib_command("data", "describe", "photos")
    assert code == 0 and err == "" and out.startswith("29 classes, photos layout")
    assert "1,316" in out and "1,108" in out and "145–640, median 288" in out
    code, out, _ = udlib_command("data", "check", "photos")
    assert code == 1 and "hidden" in out and out.endswith("1 problem found\n")


def test_options_that_contradict_each_other_are_refused(tmp_path):
    for words, message in (
        ((tmp_path, "--coco", tmp_path), "--out"),
        (("--out", tmp_path), "give --coco ROOT too"),
        ((tmp_path / "no", "--check"), "are not at"),
    ):
        code, out, err = udlib_command("data", "photos", *words)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1


def test_photographs_that_were_made_smaller_are_neither_cocos_nor_written_to(tmp_path):
    """Their `form.json` says what the files are; the folder would look complete, or get files of two forms."""
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "form.json").write_bytes(Form(224, ".webp").manifest())
    for photo in read_table()[1]:
        (tmp_path / "val2017" / f"{photo.id:012d}.webp").touch()
    with pytest.raises(ValueError, match="made smaller .* not COCO's own: extract val2017.zip"):
        prepare_photos(tmp_path, tmp_path / "out")
    coco = tmp_path / "coco"
    coco.mkdir()
    for photo in read_table()[1]:
        (coco / photo.file).touch()
    with pytest.raises(ValueError, match="made smaller .* name another folder with --out"):
        prepare_photos(coco, tmp_path)
    assert list((tmp_path / "val2017").glob("*.jpg")) == []


# The photographs themselves


@pytest.mark.slow
@needs_photographs
def test_the_command_on_a_copy_of_the_prepared_folder_gives_the_same_bytes(tmp_path):
    folder = photo_folder(PHOTOGRAPHS)
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "val2017").symlink_to(folder, target_is_directory=True)
    assert udlib_command("data", "photos", "--coco", tmp_path / "coco", "--out", tmp_path / "out")[0] == 0
    again = tmp_path / "out" / "val2017"
    names = [path.name for path in again.iterdir()]
    assert len(names) == 2693
    assert all((again / name).read_bytes() == (folder / name).read_bytes() for name in names)


def reencoded(picture):
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=60)
    return Image.open(content)


@needs_photographs
def test_photographs_are_told_from_each_other_and_not_from_themselves():
    part = photos("val", root=PHOTOGRAPHS).subset(range(0, 269, 4))
    table = {str(photo.id): photo for photo in read_table()[1]}
    pictures = [part.image(i) for i in range(len(part))]
    for name, picture in zip(part.ids, pictures):
        worst = reencoded(picture.resize((640, 480)).resize(picture.size, Image.Resampling.BOX))
        assert (signature(worst) ^ table[name].signature).bit_count() <= TOLERANCE
    distances = [
        (signature(picture) ^ table[other].signature).bit_count()
        for name, picture in zip(part.ids, pictures)
        for other in part.ids
        if other != name
    ]
    assert np.mean(np.array(distances) > TOLERANCE) > 0.99


@needs_photographs
def test_pixels_are_those_of_the_files(monkeypatch):
    monkeypatch.setenv("UDLIB_PHOTOS", str(PHOTOGRAPHS))
    part = open_dataset("photos", "val").subset([0, 100])
    assert photos_available() and part.image_size(1) == part.image(1).size
    path = photo_folder() / f"{int(part.ids[1]):012d}.jpg"
    expected = np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
    assert torch.equal(images_of(part, 32)[1], torch.from_numpy(expected.copy()).permute(2, 0, 1))
