"""Diagrams of the lessons: drawn by code, readable, and shown where the lesson and its solved copy look for them."""

import re
from functools import cache
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from lessons import ROOT, SOURCES, build, name_of

from notebooks.diagrams.catalogue import diagrams, drawn
from notebooks.diagrams.drawing import INK, PLAIN, Diagram, contrast

IMAGES = ROOT / "notebooks" / "images"
SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
LINK = re.compile(r"(!?)\[([^]]*)\]\((?!#|/|[a-z]+:)([^)#\s]+)[^)]*\)")
LARGEST, WIDEST = 60_000, 640  # bytes, and points: 853 pixels
diagram = pytest.mark.parametrize("name", diagrams())
lesson = pytest.mark.parametrize("source", SOURCES, ids=name_of)


@cache
def made(name):
    return drawn(diagrams()[name])


def markdown(source, solved):
    return "\n\n".join(cell.source for cell in build.build(source, solved).cells if cell.cell_type == "markdown")


def committed(name):
    return (IMAGES / f"{name}.svg").read_text(encoding="utf-8")


def version(text):
    return re.search(r"Matplotlib v(\S+)", text)[1]


@diagram
def test_a_committed_diagram_is_what_its_code_draws(name):
    before, now = committed(name), made(name).svg(name).decode()
    words = [
        re.findall("<!-- (.*) -->|<(?:title|desc) (.*)>", re.sub("Matplotlib v.*", "", text)) for text in (before, now)
    ]
    assert words[0] == words[1]
    if version(before) != version(now):
        pytest.skip(f"{name} was drawn by matplotlib {version(before)}: only its words were compared")
    assert NUMBER.sub("", before) == NUMBER.sub("", now)
    numbers = [np.array(NUMBER.findall(text), float) for text in (before, now)]
    assert np.allclose(*numbers, rtol=0, atol=1.01)  # another processor may round another way


def test_a_diagram_drawn_twice_has_the_same_bytes_whatever_the_settings_of_matplotlib():
    name = "what_kd_hands_on"  # it has all kinds of shapes
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "none", "mathtext.fontset": "stix"}):
        again = drawn(diagrams()[name]).svg(name)
    assert again == made(name).svg(name)


@diagram
def test_the_text_of_a_diagram_is_large_dark_and_in_its_place(name):
    assert made(name).faults() == []


@diagram
def test_a_diagram_is_small_has_a_white_ground_and_words_for_those_who_cannot_see_it(name):
    text = committed(name)
    assert len(text.encode()) <= LARGEST
    tree = ElementTree.fromstring(text)
    assert float(tree.get("width").removesuffix("pt")) <= WIDEST
    named = [tree.find(f"{SVG}{kind}") for kind in ("title", "desc")]
    assert tree.get("role") == "img" and tree.get("aria-labelledby").split() == [part.get("id") for part in named]
    assert len(named[0].text.split()) >= 5 and len(named[1].text.split()) >= 40
    ground = tree.find(f".//{SVG}path[@style]")
    places = np.array(NUMBER.findall(ground.get("d")), float).reshape(-1, 2)
    size = [float(side) for side in tree.get("viewBox").split()[2:]]
    assert (
        ground.get("style") == "fill: #ffffff" and places.min(0).tolist() == [0, 0] and places.max(0).tolist() == size
    )


def test_letters_are_outlines_so_that_no_font_is_needed():
    assert not any("<text" in committed(name) for name in diagrams())


def test_every_diagram_is_shown_by_one_lesson_and_no_other_svg_lies_there():
    shown = [
        path for source in SOURCES for _, _, path in LINK.findall(markdown(source, False)) if path.endswith(".svg")
    ]
    assert sorted(shown) == sorted(f"images/{name}.svg" for name in diagrams())
    assert {path.stem for path in IMAGES.glob("*.svg")} == set(diagrams())


@pytest.mark.parametrize("source", SOURCES[2:], ids=name_of)
def test_each_lesson_from_02_on_shows_a_diagram_above_its_first_mention_in_a_full_sentence(source):
    own = set(diagrams(source.stem))
    pictures = {path: words for kind, words, path in LINK.findall(markdown(source, False)) if kind}
    assert own and {f"images/{name}.svg" for name in own} <= set(pictures)
    for words in pictures.values():
        assert words.endswith(".") and len(words.split()) >= 10 and "$" not in words, words


@lesson
@pytest.mark.parametrize("solved", [False, True], ids=["learner", "solved"])
def test_every_relative_link_and_picture_of_a_lesson_leads_to_a_file(source, solved):
    folder = ROOT / "notebooks" / ("solutions" if solved else "")
    paths = [path for _, _, path in LINK.findall(markdown(source, solved))]
    assert [path for path in paths if not (folder / path).exists()] == []


def test_only_relative_links_change_for_the_solved_notebook():
    text = "[a](b.md#c) ![d](images/e.svg) [f](https://g.h) [i](#j) $x[1](2)$"
    assert build.links_from_below(text).startswith("[a](../b.md#c) ![d](../images/e.svg) [f](https://g.h) [i](#j)")
    for source in SOURCES:
        asked, solved = (re.findall(r"\]\(([^)\s]+)", markdown(source, kind)) for kind in (False, True))
        changed = [(a, b) for a, b in zip(asked, solved, strict=True) if a != b]
        assert all(b == f"../{a}" for a, b in changed) and len(changed) == len(LINK.findall(markdown(source, False)))


def flawed(words, **look):
    sketch = Diagram(200, 100, "A sketch", "Nothing")
    sketch.box(10, 10, 60, 30, words, **look)
    return sketch


@pytest.mark.parametrize(
    "sketch, fault",
    [
        (flawed("far too long for its box"), "leaves its box"),
        (flawed("small", size=8), "has 8 points"),
        (flawed("pale", color=(0.7, 0.7, 0.7)), "too pale"),
    ],
)
def test_text_that_is_too_long_too_small_or_too_pale_is_a_fault(sketch, fault):
    assert any(fault in words for words in sketch.faults())


def test_text_on_text_and_text_beyond_the_canvas_are_faults():
    sketch = flawed("one")
    assert sketch.faults() == []
    sketch.text(42, 25, "two")
    sketch.text(195, 80, "three")
    assert sketch.faults() == ["'three' leaves its canvas", "'two' covers 'one'"]


def test_contrast_is_that_of_wcag():
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast((1, 0, 0), (1, 1, 1)) == pytest.approx(4.0, abs=0.01)  # red on white, a known value
    assert contrast(INK, PLAIN.tint) > 10
