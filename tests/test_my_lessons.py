"""The learner's own copies: cleared, never overwritten, beside a newer lesson, with links that resolve."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from udlib.course.my_lessons import copy_lessons

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TARGET = re.compile(r"\]\(([^)\s]+)\)")


def write_lesson(path, *sources, outputs=("42",)):
    cells = [
        nbformat.v4.new_code_cell(
            source, outputs=[nbformat.v4.new_output("stream", text=text) for text in outputs], execution_count=1
        )
        if not source.startswith("#")
        else nbformat.v4.new_markdown_cell(source)
        for source in sources
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture
def folder(tmp_path):
    write_lesson(
        tmp_path / "00_a.ipynb", "# see [b](01_b.ipynb#end), [c](images/c.svg), [d](https://x.org), [e](#e)", "6 * 7"
    )
    write_lesson(tmp_path / "01_b.ipynb", "1 + 1")
    return tmp_path


def test_a_copy_has_no_outputs_and_links_that_lead_to_copies_or_one_folder_up(folder):
    made, renewed = copy_lessons(folder)
    assert [path.relative_to(folder).as_posix() for path in made] == ["my/00_a.ipynb", "my/01_b.ipynb"] and not renewed
    copy = nbformat.read(made[0], as_version=4)
    nbformat.validate(copy)
    words, code = copy.cells
    assert words.source == "# see [b](01_b.ipynb#end), [c](../images/c.svg), [d](https://x.org), [e](#e)"
    assert code.source == "6 * 7" and code.outputs == [] and code.execution_count is None
    shipped = nbformat.read(folder / "00_a.ipynb", as_version=4)
    assert shipped.cells[1].outputs and "udlib" not in shipped.metadata


def test_what_a_learner_wrote_is_never_overwritten_and_a_changed_lesson_lies_beside_it(folder):
    copy_lessons(folder)
    mine = folder / "my" / "00_a.ipynb"
    work = mine.read_text().replace("6 * 7", "my answer")
    mine.write_text(work)
    write_lesson(folder / "00_a.ipynb", *_sources(folder / "00_a.ipynb"), outputs=("43",))  # executed again
    assert copy_lessons(folder) == ([], [])
    write_lesson(folder / "00_a.ipynb", "# changed", "6 * 8")
    assert copy_lessons(folder) == ([], [folder / "my" / "00_a-2.ipynb"])
    assert copy_lessons(folder) == ([], []) and mine.read_text() == work
    (folder / "my" / "00_a-2.ipynb").write_text("{damaged")
    assert copy_lessons(folder).renewed == [folder / "my" / "00_a-3.ipynb"]
    mine.unlink()
    shutil.rmtree(folder / "my")
    assert len(copy_lessons(folder).made) == 2


def _sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def test_every_link_and_image_of_every_lesson_resolves_from_its_copy(tmp_path):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for path in NOTEBOOKS.glob("[0-9]*.ipynb"):
        shutil.copy(path, notebooks)
    copies = copy_lessons(notebooks).made
    assert len(copies) == 12
    here = {path.name for path in copies}
    for path in copies:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for target in TARGET.findall("\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")):
            target = target.partition("#")[0]
            if not target or re.match(r"[a-z]+:", target):
                continue
            if target not in here:
                assert target.startswith("../"), (path.name, target)
                assert (NOTEBOOKS / target.removeprefix("../")).exists(), (path.name, target)
