"""No photograph is committed: cells tagged `photo` have no image in the output of any notebook."""

import json
import re
from pathlib import Path

import pytest

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
