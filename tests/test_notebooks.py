"""Committed notebooks, without running them: what their sources give, executed in order, with outputs to ship."""

import base64
import copy
import io
import re

import nbformat
import numpy as np
import pytest
from lessons import (
    LONGEST_CELL,
    NOTEBOOKS,
    ROOT,
    SOURCES,
    build,
    cells_of,
    check_cells,
    code_of,
    complaints,
    descriptions,
    exercises,
    must_show,
    name_of,
)
from nbconvert import HTMLExporter
from PIL import Image

from udlib.figures.style import figure_html

RESULTS_MB, NOTEBOOKS_MB = 60, 18
lesson = pytest.mark.parametrize("source", SOURCES, ids=name_of)


def test_there_are_lessons_and_each_has_its_notebooks_and_none_is_left_over():
    assert SOURCES, "notebooks/src holds no lessons"
    expected = {path for _, path, _ in NOTEBOOKS}
    folder = ROOT / "notebooks"
    assert {*folder.glob("*.ipynb"), *folder.glob("solutions/*.ipynb")} == expected


def test_lessons_are_numbered_without_gaps():
    assert [source.stem[:2] for source in SOURCES] == [f"{k:02d}" for k in range(12)]


@pytest.mark.parametrize("source, path, solved", NOTEBOOKS, ids=name_of)
def test_a_committed_notebook_is_what_its_source_gives_and_ready_to_be_read(source, path, solved):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert complaints(notebook, source, solved) == []


@pytest.mark.parametrize("source, path, solved", NOTEBOOKS, ids=name_of)
def test_a_committed_notebook_says_how_long_it_ran_and_stores_no_widgets(source, path, solved):
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata["udlib"]["seconds"] > 0
    assert "widgets" not in metadata


def test_the_pictures_of_committed_notebooks_have_a_palette_and_none_is_stored_twice():
    outputs = [output for _, path, _ in NOTEBOOKS for output in build.pictures(nbformat.read(path, 4))]
    stored = [png for output in outputs for png in build.pngs(output)]
    assert len(stored) == len(set(stored)) > 100
    for content in map(base64.b64decode, stored):
        assert Image.open(io.BytesIO(content)).mode == "P"


@lesson
def test_an_exercise_has_one_stub_one_solution_a_planted_mistake_and_one_check(source):
    numbers = exercises(source)
    assert numbers == [f"{source.stem[:2]}.{k}" for k in range(1, len(numbers) + 1)] and numbers
    for number in numbers:
        assert len(cells_of(source, "exercise", number)) == len(cells_of(source, "solution", number)) == 1, number
        assert "..." in cells_of(source, "exercise", number)[0].source, number
        mistakes = cells_of(source, "mistake", number)
        assert mistakes and all(cell.metadata.get("says") for cell in mistakes), number
        assert len(check_cells(source, number)) == 1, number


@lesson
def test_the_solved_notebook_holds_every_cell_of_the_learners_but_the_stubs(source):
    """So that who has run the solved one has run all."""
    stubs = {cell.source for number in exercises(source) for cell in cells_of(source, "exercise", number)}
    asked = [
        build.links_from_below(cell.source) if cell.cell_type == "markdown" else cell.source
        for cell in build.build(source, solved=False).cells
    ]
    solved = [cell.source for cell in build.build(source, solved=True).cells]
    later = iter(solved)
    assert stubs <= set(asked) and all(cell in later for cell in asked if cell not in stubs)


@lesson
def test_every_check_solution_and_mistake_belongs_to_an_exercise(source):
    text = source.read_text(encoding="utf-8")
    named = re.findall(r'^check\("([\d.]+)"', text, re.M) + re.findall(r'(?:solution|mistake)="([\d.]+)"', text)
    assert set(named) <= set(exercises(source))


@lesson
def test_a_lesson_has_one_title_and_a_heading_for_every_part_of_its_anatomy(source):
    text = "\n".join(cell.source for cell in build.build(source, solved=False).cells if cell.cell_type == "markdown")
    assert len(re.findall(r"^# ", text, re.M)) == 1 and text.startswith("# ")
    for part in ("Aim", "Prerequisites", "Time"):
        assert f"**{part}" in text, part
    for heading in ("exercise", "Summary", "Further reading"):
        assert re.search(rf"^##.*{heading}", text, re.M | re.I) or f"**{heading}" in text, heading


def megabytes(folder, pattern):
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file()) / 1e6


def test_results_and_notebooks_stay_within_their_budget():
    assert megabytes(ROOT / "data" / "results", "*") <= RESULTS_MB
    assert megabytes(ROOT / "notebooks", "*.ipynb") <= NOTEBOOKS_MB


# The rules above, held against a small lesson that breaks each of them in turn.
SMALL = '''# %% [markdown]
"""
# A small lesson
"""

# %% tags=["setup"]
from udlib.course.exercises import check

# %%
print("seven")

# %%
show(figure, "a picture of seven things")

# %% exercise="00.1"
def answer():
    return ...

# %% solution="00.1"
def answer():
    return 7

# %%
check("00.1", answer)
'''


# How notebooks are stored


def png(colours, side=32):
    """A picture with so many colours, as a PNG in RGB."""
    values = np.resize(np.arange(colours), side * side).reshape(side, side)
    pixels = np.stack([values % 256, values // 256 * 60, 255 - values % 256], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def pixels_of(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)


def test_a_picture_of_few_colours_keeps_every_pixel_and_one_of_many_nearly():
    for colours, gap in [(2, 0), (256, 0), (900, 20)]:
        content = png(colours)
        stored = build.palette_png(content)
        assert abs(pixels_of(stored) - pixels_of(content)).max() <= gap
        assert len(Image.open(io.BytesIO(stored)).getcolors()) <= 256
        assert build.palette_png(content) == stored == build.palette_png(stored), "equal pixels give equal bytes"


def figure(content, words):
    """The output of `show` in a notebook that was just executed, with an explorer's widget beside it."""
    return nbformat.v4.new_output(
        "display_data", {"text/html": figure_html(content, words), "text/plain": words, build.WIDGET: {"model_id": "1"}}
    )


def test_a_picture_that_both_notebooks_show_is_stored_once_and_described_in_both(small, tmp_path):
    executed = {}
    for name, solved, own in [("asked", False, png(3)), ("solved", True, png(4))]:
        executed[tmp_path / f"{name}.ipynb"] = notebook = played(small, solved)
        code_of(notebook)[0].outputs = [figure(own, "its own")]
        code_of(notebook)[2].outputs = [figure(png(300), "a picture of seven things")]
    build.store(executed)
    asked, solved = (nbformat.read(path, as_version=4) for path in executed)
    assert (len(build.pictures(asked)), len(build.pictures(solved))) == (2, 1)
    (kept,) = build.pictures(solved)
    (stored,) = map(base64.b64decode, build.pngs(kept))
    assert (pixels_of(stored) == pixels_of(png(4))).all() and Image.open(io.BytesIO(stored)).mode == "P"
    assert kept.data["text/html"].startswith('<figure style="margin:0"><img alt="its own" src="data:image/png;base64,')
    show = next(cell for cell in code_of(solved) if cell.source.startswith("show("))
    assert show.execution_count and [dict(output.data) for output in show.outputs] == [
        {"text/plain": "a picture of seven things"}
    ]


def test_no_widget_is_stored_where_a_picture_stands_for_it(small, tmp_path):
    """Without its kernel, JupyterLab would show "model not found" in place of the picture."""
    notebook, path = played(small), tmp_path / "asked.ipynb"
    code_of(notebook)[0].outputs = [figure(png(3), "the frame of the start")]
    build.store({path: notebook})
    (output,) = code_of(nbformat.read(path, as_version=4))[0].outputs
    assert set(output.data) == {"text/html", "text/plain"} and descriptions(output.data["text/html"]) == [
        "the frame of the start"
    ]


def test_an_exported_lesson_describes_every_image():
    """nbconvert puts words of its own where a picture has none: "No description has been provided"."""
    source, exporter = SOURCES[0], HTMLExporter()
    page, _ = exporter.from_filename(str(next(iter(build.targets(source)))))
    alts = descriptions(page)
    assert len(alts) >= 4 and all(len(alt.split()) >= 3 and "No description" not in alt for alt in alts), alts


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "00_small.py"
    path.write_text(SMALL)
    return path


def played(source, solved=False):
    """The notebook of the small lesson with the outputs that a kernel would have left."""
    notebook = build.build(source, solved)
    said = "correct." if solved else "not attempted yet. Replace the ... above"
    outputs = {
        "print": nbformat.v4.new_output("stream", name="stdout", text="seven\n"),
        "show": nbformat.v4.new_output(
            "display_data",
            {"text/html": '<figure><img alt="a picture of seven things"></figure>', "text/plain": "seven"},
        ),
        "check": nbformat.v4.new_output("stream", name="stdout", text=f"Exercise 00.1: {said}\n"),
    }
    for count, cell in enumerate(code_of(notebook), 1):
        cell.execution_count = count
        cell.outputs = [output for call, output in outputs.items() if cell.source.startswith(f"{call}(")]
    return notebook


@pytest.mark.parametrize("solved", [False, True])
def test_nothing_is_wrong_with_the_small_lesson(small, solved):
    assert complaints(played(small, solved), small, solved) == []


def forget_outputs(notebook):
    for cell in code_of(notebook):
        cell.outputs = []


def lose(kind):
    return lambda notebook: next(c for c in code_of(notebook) if c.source.startswith(f"{kind}("))["outputs"].clear()


def say(kind, text, stream="stdout"):
    def change(notebook):
        cell = next(c for c in code_of(notebook) if c.source.startswith(f"{kind}("))
        cell.outputs.append(nbformat.v4.new_output("stream", name=stream, text=text))

    return change


def fail(notebook):
    code_of(notebook)[1].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[]))


def edit(notebook):
    code_of(notebook)[1].source = 'print("eight")'


def lengthen(notebook):
    code_of(notebook)[1].source += "\n" * LONGEST_CELL + "x = 1"


def shuffle(notebook):
    code_of(notebook)[1].execution_count = 9


def blind(notebook):
    code_of(notebook)[2].outputs[0].data["text/html"] = "<figure><img></figure>"


def store_apart(notebook):
    code_of(notebook)[2].outputs[0].data["image/png"] = "iVBO"


def untag(notebook):
    code_of(notebook)[-1].metadata.pop("tags")


def drop(notebook):
    del notebook.cells[-1]


def solve(notebook):
    code_of(notebook)[-1].outputs[0].text = "Exercise 00.1: not yet, it is not 7\n"


BREAKAGES = {
    "stripped": (forget_outputs, "lost its output"),
    "print lost": (lose("print"), "lost its output"),
    "figure lost": (lose("show"), "lost its output"),
    "check lost": (lose("check"), "no text to compare with"),
    "path": (say("print", f"{ROOT}/data\n"), "folder of the machine"),
    "home": (say("print", "see /home/somebody/x\n"), "folder of the machine"),
    "warning": (say("print", "UserWarning: hm", "stderr"), "an error or a warning"),
    "error": (fail, "an error or a warning"),
    "edited by hand": (edit, "not what its source gives"),
    "tag lost": (untag, "not what its source gives"),
    "cell lost": (drop, "not what its source gives"),
    "long": (lengthen, "lines, more than"),
    "out of order": (shuffle, "not executed in order"),
    "no alt text": (blind, "a picture without words"),
    "a picture outside HTML": (store_apart, "a picture without words"),
    "wrong answer": (solve, "is answered 'not yet"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_copy_of_the_small_lesson_is_noticed(small, name):
    change, complaint = BREAKAGES[name]
    notebook = copy.deepcopy(played(small))
    change(notebook)
    assert any(complaint in found for found in complaints(notebook, small, solved=False)), complaint


@lesson
def test_a_committed_notebook_without_its_outputs_is_noticed(source):
    notebook = nbformat.read(next(iter(build.targets(source))), as_version=4)
    forget_outputs(notebook)
    assert sum("lost its output" in found for found in complaints(notebook, source, solved=False)) >= 3


@pytest.mark.parametrize(
    "code, shows",
    [
        ("x = 1", False),
        ("print(1)", True),
        ("explorer", True),
        ("frame['a']", True),
        ("values.append(1)", False),
        ("%matplotlib inline\nx = 1", False),
        ("if x:\n    print(1)", False),
        ("show(f, 'a')\ny = 2", True),
        ("assert x", False),
    ],
)
def test_which_cells_must_show_something(code, shows):
    assert must_show(code) is shows
