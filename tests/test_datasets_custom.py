import pytest
from trees import CLASSES, csv_tree, parts, pictures, save

from udlib.datasets.custom import Custom, read_csv


@pytest.fixture
def folder(tmp_path):
    """Three pictures a.jpg, b.jpg and c.jpg, and a way to write their labels.csv."""
    for name in "abc":
        save(pictures(1)[0], tmp_path / f"{name}.jpg")
    return tmp_path


def write(folder, text):
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("form", ["columns", "labels"])
def test_both_forms_say_what_the_pictures_show(tmp_path, form):
    shown = pictures(20)
    root = csv_tree(tmp_path, 20, form=form)
    for split, rows in parts(20).items():
        data = Custom(root, split)
        assert data.classes == CLASSES and data.ids == [f"{i:04d}.jpg" for i in rows]
        assert [row.nonzero().flatten().tolist() for row in data.targets] == [list(shown[i].labels) for i in rows]
        assert not data.difficult.any() and data.image_size(0) == (24, 16)
    assert len(Custom(root, "trainval")) == len(Custom(root / "labels.csv", "trainval")) == 15


def test_without_a_split_column_the_name_of_the_file_decides(tmp_path):
    root = csv_tree(tmp_path, 60, split=False)
    ids = {split: Custom(root, split).ids for split in ("train", "val", "test")}
    assert sorted(sum(ids.values(), [])) == [f"{i:04d}.jpg" for i in range(60)]
    assert len(ids["train"]) > 30 and ids["val"] and ids["test"]
    lines = (root / "labels.csv").read_text().splitlines()
    write(root, "\n".join([lines[0], *reversed(lines[1:40])]))
    assert set(Custom(root, "val").ids) < set(ids["val"])


WINDOWS = b"\xef\xbb\xbffile;split;cat;dog\r\na.jpg;test;1;0\r\n\r\n.\\b.jpg;test;0;0\r\n"


@pytest.mark.parametrize(
    "text",
    [
        WINDOWS,
        "FileName\tSplit\tcat\tdog\na.jpg\ttest\t1\t0\nb.jpg\ttest\t0\t0\n",
        'path,split,cat,dog\n"a.jpg", test , 1 ,0\nb.jpg,test,0,0',
        "dog,cat,split,image\n0,1,test,a.jpg\n0,0,test,b.jpg\n",
    ],
)
def test_marks_line_ends_and_separators_of_every_spreadsheet(folder, text):
    write(folder, text)
    data = Custom(folder, "test", classes=["cat", "dog"])
    assert data.ids == ["a.jpg", "b.jpg"] and data.targets.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    "text",
    [
        "file,split,labels\na.jpg,test,dog; cat\nb.jpg,test,\nc.jpg,train,bird|cat|cat\n",
        'file;split;labels\na.jpg;test;dog|cat\nb.jpg;test;\nc.jpg;train;"bird;cat"\n',
    ],
)
def test_labels_are_parted_by_semicolons_or_bars_and_classes_come_from_all_splits(folder, text):
    write(folder, text)
    data = Custom(folder, "test")
    assert data.classes == ("bird", "cat", "dog") and data.targets.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert Custom(folder, "train").targets.tolist() == [[1, 1, 0]]
    assert Custom(folder, "test", classes=["dog", "cat", "bird"]).targets.tolist() == [[1, 1, 0], [0, 0, 0]]


WRONG = [
    ("", "is empty"),
    ("\n \n", "is empty"),
    ("file,cat\n", "lists no image"),
    ("name,cat\na.jpg,1\n", "has the columns name, cat: expected just one named file or filename"),
    ("file,path,cat\na.jpg,b,1\n", "expected just one named"),
    ("file:cat\na.jpg:1\n", "parted by commas, semicolons or tabs"),
    ("file\na.jpg\n", "has no labels: add a column"),
    ("file,split\na.jpg,train\n", "has no labels: add a column"),
    ("file,cat,cat\na.jpg,1,0\n", "has the column 'cat' more than once"),
    ("file,cat,\na.jpg,1,0\n", "column 3 has no name"),
    ("file,labels,notes\na.jpg,cat,sharp\n", "'labels' and the unknown column 'notes'"),
    ("file,labels\na.jpg,\n", "names no class at all"),
    ("file,cat\na.jpg,1\nb.jpg,2\n", "line 3: column 'cat' holds '2': expected 0 or 1"),
    ("file,cat\na.jpg,-2\n", "line 2: column 'cat' holds '-2'"),
    ("file,cat\na.jpg,\n", "line 2: column 'cat' holds ''"),
    (
        "file,cat\na.jpg,yes\n",
        "'yes': expected 0 or 1, or -1 for unknown; since each column beside file, split and weight is a class",
    ),
    ("file,cat\na.jpg,1,0\n", "line 2: has 3 cells where the first line names 2"),
    ("file;split;labels\na.jpg;test;cat;dog\n", "has 4 cells .*put quotes"),
    ("file,cat\na.jpg,1\nb.jpg,1\n./a.jpg,0\n", "line 4: lists 'a.jpg' of line 2 again"),
    ("file,cat\n../a.jpg,1\n", r"line 2: file name '../a.jpg' leads out of its folder"),
    ("file,cat\n/etc/passwd,1\n", "leads out of its folder"),
    ("file,cat\n,1\n", "line 2: file name '' leads out"),
    ("file,split,cat\na.jpg,holdout,1\n", "line 2: has split = 'holdout': expected train, val, test"),
    ('file,cat\n"a.jpg,1\nb.jpg,0\n', "is no CSV"),
    ("file,cat\nä.jpg,1\n".encode("latin-1"), "is not UTF-8 .*save it as 'CSV UTF-8'"),
    ("file,cat\na.jpg,1\n".encode("utf-16"), "is not UTF-8"),
]


@pytest.mark.parametrize("text, message", WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_bad_csv_is_refused_with_its_line(folder, text, message):
    path = write(folder, text)
    with pytest.raises(ValueError, match=message) as caught:
        Custom(folder, "train")
    assert str(path) in str(caught.value)


def test_a_line_is_counted_as_an_editor_does(folder):
    path = write(folder, 'file,cat\n\n\n"a.jpg",1\n\nb.jpg,7\n')
    with pytest.raises(ValueError, match="line 6: column 'cat' holds '7'"):
        read_csv(path)


def test_named_classes_must_be_the_columns(folder):
    write(folder, "file,split,cat,dgo\na.jpg,test,1,0\n")
    with pytest.raises(ValueError, match="unknown column 'dgo': known are cat, dog; did you mean 'dog'"):
        Custom(folder, "test", classes=["cat", "dog"])
    with pytest.raises(ValueError, match="has no column 'dog': found cat, dgo"):
        Custom(folder, "test", classes=["cat", "dgo", "dog"])
    write(folder, "file,split,labels\na.jpg,test,cat|dgo\n")
    with pytest.raises(ValueError, match="line 2: has the unknown label 'dgo'.*did you mean 'dog'"):
        Custom(folder, "test", classes=["cat", "dog"])
    with pytest.raises(ValueError, match="classes hold 'cat' more than once"):
        Custom(folder, "test", classes=["cat", "cat", "dgo"])


def test_an_empty_split_says_what_there_is(folder):
    write(folder, "file,split,cat\na.jpg,train,1\nb.jpg,test,0\n")
    with pytest.raises(ValueError, match=r"no image of split 'val' \(found: train 1, val 0, test 1\)"):
        Custom(folder, "val")
    assert Custom(folder, "trainval").ids == ["a.jpg"]


def test_missing_images_are_counted_or_dropped(folder):
    write(folder, "file,split,cat\na.jpg,test,1\nx.jpg,test,0\nsub/y.jpg,test,0\n")
    with pytest.raises(FileNotFoundError, match=r"lacks 2 of the 3 images of split 'test' \(first: '.*x.jpg'\)"):
        Custom(folder, "test")
    data = Custom(folder, "test", missing="drop")
    assert data.ids == ["a.jpg"] and [name for name, _ in data.skipped] == ["x.jpg", "sub/y.jpg"]


def test_where_the_csv_and_the_images_are(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    path = other / "table.csv"
    path.write_text("file,split,cat\na.jpg,test,1\n")
    assert Custom(path, "test", images=folder).paths == [folder / "a.jpg"]
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        Custom(path, "test", images=other / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither a CSV nor a folder"):
        Custom(other / "nowhere", "test")
    with pytest.raises(FileNotFoundError, match="holds no CSV"):
        Custom(folder, "test")
    (other / "more.csv").write_text("")
    with pytest.raises(ValueError, match="holds more.csv, table.csv: name the one"):
        Custom(other, "test")
