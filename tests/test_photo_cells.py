"""Cells tagged `photo` show photographs where these are; no notebook is committed with one in its output."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from lessons import build, text_of

from udlib.course.photo_cells import show_photographs
from udlib.datasets.photos_table import read_table

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PICTURE = re.compile(r"<(img|svg|image|canvas|video|picture)\b|data:(image|video)/|\.toDataURL", re.IGNORECASE)


def pictures(notebook):
    """`(cell's number, what)` of each image in the output of a cell tagged `photo`."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        (number, kind)
        for number, cell in enumerate(cells)
        if "photo" in cell["metadata"].get("tags", [])
        for output in cell.get("outputs", [])
        for kind, content in output.get("data", {"text": output.get("text", "")}).items()
        if kind.startswith(("image/", "video/", "application/vnd.jupyter.widget")) or PICTURE.search(str(content))
    ]


def test_no_photograph_is_in_the_output_of_a_committed_notebook():
    notebooks = [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("solutions/*.ipynb")]
    assert len(notebooks) >= 24
    assert {str(path): images for path in notebooks if (images := pictures(path))} == {}


SHOWN = {"output_type": "display_data", "metadata": {}}


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (SHOWN | {"data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}}, "image/png"),
        (
            SHOWN | {"data": {"text/html": ["<p>\n", '<img src="data:image/jpeg;base64,/9j/" alt="a street">']}},
            "text/html",
        ),
        (SHOWN | {"data": {"text/html": '<svg viewBox="0 0 9 9"></svg>'}}, "text/html"),
        (SHOWN | {"data": {"text/html": '<div style="background:url(data:image/webp;base64,UklG)">'}}, "text/html"),
        (
            SHOWN | {"data": {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}},
            "application/vnd.jupyter.widget-view+json",
        ),
        (SHOWN | {"data": {"text/html": "<table><tr><td>image 139</td></tr></table>", "text/plain": "0.61"}}, None),
        ({"output_type": "stream", "name": "stdout", "text": ["the photographs are not here\n"]}, None),
    ],
)
def test_a_picture_in_such_an_output_does_not_go_unnoticed(output, kind, tmp_path):
    notebook = tmp_path / "lesson.ipynb"
    for tags, expected in (["photo", "hide"], [(1, kind)] if kind else []), ([], []):
        cells = [
            {"cell_type": "markdown", "metadata": {"tags": tags}, "source": "![](images/x.svg)"},
            {"cell_type": "code", "metadata": {"tags": tags}, "source": "show()", "outputs": [output]},
        ]
        notebook.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        assert pictures(notebook) == expected


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder with a file for every photograph, and `UDLIB_PHOTOS` that names it; none of the files is a picture."""
    folder = tmp_path / "val2017"
    folder.mkdir()
    for photo in read_table()[1]:
        (folder / photo.file).touch()
    monkeypatch.setenv("UDLIB_PHOTOS", str(tmp_path))
    return folder


def test_photographs_are_shown_where_they_are(photographs, capsys):
    assert show_photographs(lambda: 7) == 7 and capsys.readouterr().out == ""


@pytest.mark.parametrize("missing", ["hidden", "one"])
def test_without_photographs_one_sentence_says_how_to_get_them(photographs, missing, monkeypatch, capsys):
    if missing == "hidden":
        monkeypatch.setenv("UDLIB_PHOTOS", "none")
    else:
        min(photographs.iterdir()).unlink()
    assert show_photographs(lambda: pytest.fail("there is nothing to draw")) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert "they are not here: `udlib data photos --coco ROOT` makes the folder from COCO's val2017" in line
    assert str(photographs.parent) not in line, "a committed output names no folder of a machine"


# The second cell shows a picture where there are photographs, and then fails, so that a run tells which way it went.
LESSON = """# %%
from IPython.display import Image, display
from udlib.course.photo_cells import show_photographs

def draw():
    display(Image(data=b"\\x89PNG\\r\\n\\x1a\\n"))
    raise RuntimeError("this was drawn")

# %% tags=["photo"]
show_photographs(draw)
"""


@pytest.mark.slow
def test_a_lesson_is_written_and_checked_without_photographs_and_smoke_shows_them(
    photographs, tmp_path, monkeypatch, capfd
):
    folder = tmp_path / "notebooks"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "00_made_up.py").write_text(LESSON)
    monkeypatch.setattr(build, "HERE", folder)
    build.write("*")
    notebook = folder / "00_made_up.ipynb"
    (output,) = nbformat.read(notebook, as_version=4).cells[1].outputs
    assert pictures(notebook) == [] and "`udlib data photos --coco ROOT`" in text_of(output)
    assert build.as_shipped("*") == 0
    capfd.readouterr()
    assert build.in_smoke("*") == 1 and "this was drawn" in capfd.readouterr().out
