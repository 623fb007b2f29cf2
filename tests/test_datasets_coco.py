import json
import math
import re

import pytest
import torch
from PIL import Image
from trees import CLASSES, coco_tree, parts, pictures, save

from udlib.datasets.base import Box
from udlib.datasets.coco import COCO, has_area, read_instances
from udlib.datasets.folders import held_out

SQUARE = [2.0, 3.0, 8.0, 4.0]


def entry(number, image, category, bbox=SQUARE, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


def write(root, ids=(1, 2, 3), annotations=(), part="val", **more):
    """One JSON with the categories cat (id 2) and dog (7), listed in the other order, and its 20 × 10 images."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 20, "height": 10} for i in ids],
        "annotations": list(annotations),
        "categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}],
        **more,
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"{part}2014").mkdir(exist_ok=True)
    for i in ids:
        Image.new("RGB", (20, 10)).save(root / f"{part}2014" / f"{i}.jpg")
    path = root / "annotations" / f"instances_{part}2014.json"
    path.write_text(json.dumps(content))
    return path


def test_labels_and_boxes_equal_what_the_pictures_show(tmp_path):
    shown = pictures(40)
    data = COCO(coco_tree(tmp_path, 40), "test")
    rows = parts(40)["test"]
    assert data.classes == CLASSES and data.ids == [str(100 + i) for i in rows] and not data.difficult.any()
    for row, i in enumerate(rows):
        assert data.targets[row].nonzero().flatten().tolist() == list(shown[i].labels)
        assert len(data.boxes(row)) == len(shown[i].labels) and data.image_size(row) == (24, 16)
    image, target, _ = data[0]
    assert image.size == (24, 16) and target.dtype == torch.float32


def test_classes_go_by_category_id_and_boxes_end_exclusive_within_the_image(tmp_path):
    write(tmp_path, annotations=[entry(1, 3, 7), entry(2, 1, 2, [15.5, -1, 9, 4]), entry(3, 3, 7), entry(4, 3, 2)])
    data = COCO(tmp_path, "test")
    assert data.classes == ("cat", "dog") and data.targets.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert data.boxes(0) == [Box("cat", 15.5, 0, 20, 3)]
    assert data.boxes(2) == [Box("dog", 2, 3, 10, 7), Box("dog", 2, 3, 10, 7), Box("cat", 2, 3, 10, 7)]


def test_val_is_a_tenth_of_train2014_that_does_not_depend_on_the_order(tmp_path):
    images = list(range(1, 401))
    write(tmp_path, images[:3], part="val")
    path = write(tmp_path, images, part="train")
    ids = {split: COCO(tmp_path, split).ids for split in ("train", "val", "trainval", "test")}
    assert set(ids["train"]).isdisjoint(ids["val"]) and sorted(ids["train"] + ids["val"]) == sorted(ids["trainval"])
    assert ids["trainval"] == [str(i) for i in images] and ids["test"] == ["1", "2", "3"]
    assert 25 <= len(ids["val"]) <= 55 and ids["val"] == [i for i in ids["trainval"] if held_out(i)]
    content = json.loads(path.read_text())
    content["images"].reverse()
    path.write_text(json.dumps(content))
    assert set(COCO(tmp_path, "val").ids) == set(ids["val"])


def test_the_held_out_rule_is_frozen():
    assert [i for i in range(1, 60) if held_out(str(i))] == [9, 39, 49, 51, 55]


def test_crowds_count_as_labels_are_difficult_or_are_left_out(tmp_path):
    crowd = entry(1, 1, 2, iscrowd=1)
    write(tmp_path, annotations=[crowd, entry(2, 2, 2, iscrowd=1), entry(3, 2, 2)])
    data = COCO(tmp_path, "test")
    assert data.targets.tolist() == [[1, 0], [1, 0], [0, 0]] and not data.difficult.any()
    (box,) = data.boxes(0)
    assert box.crowd and not box.difficult
    data = COCO(tmp_path, "test", crowd="difficult")
    assert data.targets.tolist() == [[1, 0], [1, 0], [0, 0]] and data.difficult.nonzero().tolist() == [[0, 0]]
    assert [box.crowd for box in data.boxes(1)] == [box.difficult for box in data.boxes(1)] == [True, False]
    data = COCO(tmp_path, "test", crowd="drop")
    assert data.targets.tolist() == [[0, 0], [1, 0], [0, 0]] and data.boxes(0) == []
    with pytest.raises(ValueError, match="crowd is 'yes': expected 'positive', 'difficult' or 'drop'"):
        COCO(tmp_path, "test", crowd="yes")


def test_images_without_labels_are_kept_or_dropped(tmp_path):
    write(tmp_path, annotations=[entry(1, 3, 7), entry(2, 1, 2)])
    assert COCO(tmp_path, "test").ids == ["1", "2", "3"]
    data = COCO(tmp_path, "test", unlabelled="drop")
    assert data.ids == ["1", "3"] and data.targets.tolist() == [[1, 0], [0, 1]] and len(data.paths) == 2
    assert [len(boxes) for boxes in data.objects] == [1, 1]
    write(tmp_path)
    with pytest.raises(ValueError, match="split 'test' has no image with a label"):
        COCO(tmp_path, "test", unlabelled="drop")
    with pytest.raises(ValueError, match="unlabelled is 'no'"):
        COCO(tmp_path, "test", unlabelled="no")


@pytest.mark.parametrize("bbox", [[5, 5, 0, 3], [5, 5, 2, 0], [30, 2, 4, 4], [-9, 2, 4, 4]])
def test_a_box_without_area_gives_its_label_but_no_box(tmp_path, bbox):
    write(tmp_path, annotations=[entry(1, 2, 7, bbox), entry(2, 2, 2)])
    data = COCO(tmp_path, "test")
    assert data.targets.tolist() == [[0, 0], [1, 1], [0, 0]] and data.empty_boxes == ["2"]
    assert [box.name for box in data.boxes(1)] == ["cat"]


def test_images_may_lie_below_images(tmp_path):
    write(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "val2014").rename(tmp_path / "images" / "val2014")
    assert COCO(tmp_path, "test").image(0).size == (20, 10)
    for path in (tmp_path / "images" / "val2014").iterdir():
        path.rename(tmp_path / "images" / path.name)
    (tmp_path / "images" / "val2014").rmdir()
    assert COCO(tmp_path, "test").paths[0] == tmp_path / "images" / "1.jpg"
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="no 'val2014' or 'images/val2014' or 'images'"):
        COCO(tmp_path, "test")


def test_missing_images_are_counted_or_dropped(tmp_path):
    write(tmp_path, annotations=[entry(1, 1, 2)])
    (tmp_path / "val2014" / "1.jpg").unlink()
    (tmp_path / "val2014" / "3.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 2 of the 3 images of split 'test' \(first: '.*1.jpg'\).*'drop'"
    ):
        COCO(tmp_path, "test")
    data = COCO(tmp_path, "test", missing="drop")
    assert data.ids == ["2"] and [name for name, _ in data.skipped] == ["1", "3"]
    assert data.targets.shape == (1, 2) and data.image(0).size == (20, 10)
    (tmp_path / "val2014" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 3 of the 3 .*extract the images"):
        COCO(tmp_path, "test", missing="drop")
    with pytest.raises(ValueError, match="missing is 'skip'"):
        COCO(tmp_path, "test", missing="skip")


def test_missing_roots_and_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder"):
        COCO(tmp_path / "nowhere", "test")
    (tmp_path / "annotations").mkdir()
    with pytest.raises(FileNotFoundError, match="no 'annotations/instances_val2014.json' .found: no JSON there"):
        COCO(tmp_path, "test")
    (tmp_path / "annotations" / "captions_val2014.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="found: captions_val2014.json"):
        COCO(tmp_path, "test")
    with pytest.raises(ValueError, match="no split 'test2014': choose one of train, val, trainval, test"):
        COCO(tmp_path, "test2014")


def test_half_a_json_and_other_jsons_are_refused(tmp_path):
    path = write(tmp_path, annotations=[entry(1, 1, 2)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not valid JSON .*half a download"):
        COCO(tmp_path, "test")
    path.write_text(json.dumps({"images": [], "annotations": [{"caption": "a cat", "image_id": 1, "id": 1}]}))
    with pytest.raises(ValueError, match="no list of categories .found: images, annotations.*captions"):
        COCO(tmp_path, "test")
    path.write_text("[]")
    with pytest.raises(ValueError, match="found: a list"):
        COCO(tmp_path, "test")
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(ValueError, match="split 'test' has no image"):
        COCO(tmp_path, "test")


def image(**changes):
    return {"id": 9, "file_name": "9.jpg", "width": 20, "height": 10, **changes}


WRONG = [
    ({"annotations": [entry(5, 1, 90)]}, r"annotations\[0\] \(id 5\) has category_id 90: known are 2, 7"),
    (
        {"annotations": [entry(5, 77, 2)]},
        r"annotations\[0\] \(id 5\) belongs to image 77, which 'images' does not list",
    ),
    (
        {"annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]},
        r"annotations\[0\] has category_id = None.*captions",
    ),
    ({"annotations": ["cat"]}, r"annotations\[0\] has image_id = None"),
    ({"annotations": [entry(1, "1", 2)]}, r"has image_id = '1'.*of type int"),
    ({"annotations": [entry(1, 1, 2, [1, 2, float("nan"), 4])]}, r"bbox = \[1, 2, nan, 4\]: expected four finite"),
    ({"annotations": [entry(1, 1, 2, [1, 2, 3])]}, "expected four finite"),
    ({"annotations": [entry(1, 1, 2, [1, 2, -3, 4])]}, "expected four finite"),
    ({"annotations": [entry(1, 1, 2, [1, None, 3, 4])]}, "expected four finite"),
    ({"annotations": [entry(1, 1, 2, [10**400, 0, 3, 4])]}, "expected four finite"),
    ({"annotations": [entry(1, 1, 2, float("inf"))]}, "has bbox = inf"),
    ({"images": [image(), image(file_name="other.jpg")]}, r"images\[1\] repeats the image id 9"),
    ({"images": [image(), image(id=8)]}, r"images\[1\] names the file '9.jpg' of image 9 again"),
    ({"images": [image(file_name="../../etc/passwd")]}, r"images\[0\]: file name '../../etc/passwd' leads out"),
    ({"images": [image(file_name="/etc/passwd")]}, "leads out of its folder"),
    ({"images": [image(file_name="C:\\pictures\\9.jpg")]}, "leads out of its folder"),
    ({"images": [image(width=0)]}, r"images\[0\] is 0 × 10: expected its size in pixels"),
    ({"images": [image(height=None)]}, r"images\[0\] has height = None"),
    ({"categories": [{"id": 2, "name": "cat"}, {"id": 2, "name": "dog"}]}, r"categories\[1\] repeats the id 2"),
    ({"categories": [{"id": 2, "name": "cat"}, {"id": 3, "name": "cat"}]}, "or the name 'cat'"),
    ({"categories": [{"id": True, "name": "cat"}]}, "has id = True"),
]


@pytest.mark.parametrize("changes, message", WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_bad_entry_is_named_with_its_place(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        COCO(tmp_path, "test")
    assert str(path) in str(caught.value)


def test_all_problems_are_collected_on_request(tmp_path):
    path = write(
        tmp_path, annotations=[entry(1, 1, 90), entry(2, 1, 7), entry(3, 50, 7), entry(4, 2, 2, [0, 0, -1, 1])]
    )
    problems = []
    table = read_instances(path, problems.append)
    assert len(problems) == 3 and [re.search(r"id (\d)", message)[1] for message in problems] == ["1", "3", "4"]
    assert [len(boxes) for boxes in table.objects] == [1, 0, 0] and table.ids == ["1", "2", "3"]


def test_a_picture_that_is_no_picture_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "val2014" / "1.jpg").write_bytes(b"no picture")
    save(pictures(1)[0], tmp_path / "val2014" / "2.jpg")
    with pytest.raises(ValueError, match="1.jpg' cannot be decoded .*missing='drop'"):
        COCO(tmp_path, "test").image(0)


def test_an_image_with_a_bad_name_is_left_out_when_problems_are_collected(tmp_path):
    path = write(tmp_path, images=[image(), image(id=8, file_name="../8.jpg"), image(id=7, width=0)], annotations=[])
    problems = []
    table = read_instances(path, problems.append)
    assert len(problems) == 2 and "leads out" in problems[0] and "0 × 10" in problems[1]
    assert table.ids == ["9"] and table.files == ["9.jpg"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"categories": [{"id": 2, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}]}, 2),
        ({"images": [image(), image(file_name="other.jpg"), image(id=8)]}, 2),
        ({"annotations": [entry(1, 1, 2), "cat", {"id": 3}]}, 2),
    ],
)
def test_what_is_wrong_is_left_out_and_the_rest_stays(tmp_path, changes, said):
    problems = []
    table = read_instances(write(tmp_path, **({"annotations": []} | changes)), problems.append)
    assert len(problems) == said
    assert len(table.ids) == (1 if "images" in changes else 3) and "cat" in table.classes
    assert sum(map(len, table.objects)) == (1 if "annotations" in changes else 0)


@pytest.mark.parametrize("size", [{"width": -1}, {"height": 0}, {"width": math.inf}, {"height": math.nan}])
def test_an_image_has_a_width_and_a_height(tmp_path, size):
    write(tmp_path, images=[image(**size)], annotations=[])
    with pytest.raises(ValueError, match="expected its size in pixels"):
        COCO(tmp_path, "test")


def test_boxes_end_at_the_edges_of_the_image_and_may_start_there(tmp_path):
    boxes = [
        [-9, 2, 4, 4],
        [2, -9, 4, 4],
        [-5, -5, 10, 10],
        [15, 5, 10, 10],
        [0, 0, 20, 10],
        [25, 3, 4, 4],
        [3, 12, 2, 2],
        [4, 4, 0, 3],
    ]
    path = write(tmp_path, images=[image()], annotations=[entry(k, 9, 2, box) for k, box in enumerate(boxes)])
    found = [(box.xmin, box.ymin, box.xmax, box.ymax) for box in read_instances(path).objects[0]]
    assert found == [
        (0, 2, 0, 6),
        (2, 0, 6, 0),
        (0, 0, 5, 5),
        (15, 5, 20, 10),
        (0, 0, 20, 10),
        (20, 3, 20, 7),
        (3, 10, 5, 10),
        (4, 4, 4, 7),
    ]
    assert [has_area(box) for box in read_instances(path).objects[0]] == [False] * 2 + [True] * 3 + [False] * 3


@pytest.mark.parametrize("mark, crowd", [({}, False), ({"iscrowd": 0}, False), ({"iscrowd": 1}, True)])
def test_only_what_is_marked_so_is_a_crowd(tmp_path, mark, crowd):
    item = {"id": 1, "image_id": 1, "category_id": 2, "bbox": SQUARE} | mark
    (box,) = read_instances(write(tmp_path, annotations=[item])).objects[0]
    assert box.crowd is crowd and not box.difficult
