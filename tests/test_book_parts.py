"""The parts that make the book: its link check, its equations, and what it adds to a lesson."""

import nbformat
import pytest

from docs.book import conf
from docs.book.docstrings import as_rst
from docs.book.links import broken_links
from docs.book.staging import CELL, open_live, page
from notebooks.slides.mathematics import mathml

GOOD = '<h1 id="top-of-it">A</h1><a href="b.html#there">b</a><a href="https://example.org/x">far</a><img src="p.png" alt="a dot">'


@pytest.fixture
def book(tmp_path):
    """A book of two pages in which every link is right."""
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "b.html").write_text('<p id="there">here</p><a href="a.html">a</a><a href="#there">up</a>')
    (tmp_path / "p.png").write_bytes(b"dot")
    return tmp_path


def test_a_book_in_which_every_link_is_right_has_no_broken_links(book):
    assert broken_links(book) == []


@pytest.mark.parametrize(
    "broken, why",
    [
        ('<a href="c.html">c</a>', "there is no such file"),
        ('<a href="b.html#nowhere">b</a>', "there is no such place on that page"),
        ('<a href="#nowhere">b</a>', "there is no such place on that page"),
        ('<a href="../outside.html">o</a>', "this leads out of the book"),
        ('<a href="https:///x">x</a>', "this is not the form of an address"),
        ('<a href="file::function">x</a>', "this is not the form of an address"),
        ('<img src="q.png" alt="a dot">', "there is no such file"),
        ('<img src="p.png" alt=" ">', "an image has no description"),
        ('<img src="p.png">', "an image has no description"),
        ('<script src="https://cdn.example.org/x.js"></script>', "the page loads this from elsewhere"),
        ('<link rel="stylesheet" href="//cdn.example.org/x.css">', "the page loads this from elsewhere"),
    ],
)
def test_the_link_check_names_each_kind_of_fault(book, broken, why):
    (book / "a.html").write_text(GOOD + broken)
    problems = broken_links(book)
    assert problems and all(problem.startswith("a.html: ") for problem in problems)
    assert any(why in problem for problem in problems)


def test_pictures_inside_the_page_and_links_with_escaped_letters_are_right(book):
    (book / "a b.html").write_text('<img src="data:image/png;base64,AAAA" alt="a dot">')
    (book / "a.html").write_text('<a href="a%20b.html">ab</a>')
    assert broken_links(book) == []


def test_an_equation_becomes_mathml_without_an_error_and_puts_a_space_behind_log():
    inline, block = mathml(r"\log p_i", "inline"), mathml(r"\frac{a}{b}", "block")
    assert inline.startswith("<math") and 'rspace="0.17em">log</mo>' in inline and "merror" not in inline
    assert 'display="block"' in block and "<mfrac>" in block


def test_a_page_names_binder_and_colab_only_if_the_course_has_a_public_address():
    path = "notebooks/04_ece_analysis.ipynb"
    without, with_address = open_live(path, ""), open_live(path, "owner/name")
    assert "make lab" in without and "udlib lab" in without and "http" not in without
    assert f"https://mybinder.org/v2/gh/owner/name/{conf.branch}?urlpath=lab/tree/{path}" in with_address
    assert f"https://colab.research.google.com/github/owner/name/blob/{conf.branch}/{path}" in with_address
    assert "Nobody has tried these two yet" in with_address


def test_a_lessons_page_folds_collapsed_code_and_says_where_its_sliders_move():
    shown, hidden = nbformat.v4.new_code_cell("a = 1"), nbformat.v4.new_code_cell("explorer")
    hidden.metadata = {"jupyter": {"source_hidden": True}, "tags": ["report"]}
    caption = "<figcaption>threshold = 0.5. Run the notebook to move the slider.</figcaption>"
    hidden.outputs = [nbformat.v4.new_output("execute_result", {"text/html": caption}, execution_count=2)]
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 00 · Start"), shown, hidden])
    page(lesson, "notebooks/00_start.ipynb")
    assert "hide-input" in hidden.metadata["tags"] and "hide-input" not in shown.metadata.get("tags", [])
    assert "Open this lesson to move it" in hidden.outputs[0]["data"]["text/html"]
    assert "threshold = 0.5" in hidden.outputs[0]["data"]["text/html"]
    assert lesson.cells[0].source.startswith("# 00 · Start\n") and "#open-this-lesson-live" in lesson.cells[0].source
    assert lesson.cells[-1].source.startswith("## Open this lesson live")


def test_a_row_of_the_page_of_equations_links_to_its_cell():
    row = "| [lesson 04](04_ece_analysis.ipynb), In [14] |"
    assert CELL.sub(r"[\1, In [\3]](\2#in-\3)", row) == "| [lesson 04, In [14]](04_ece_analysis.ipynb#in-14) |"


def test_names_in_single_backticks_become_code_and_bars_stay_bars():
    assert as_rst("the set |C_p| of `targets`, see `udlib.models.load`") == (
        r"the set \|C_p\| of ``targets``, see :py:obj:`udlib.models.load`"
    )
    assert as_rst("a test, file::name") == r"a test, file\::name" and as_rst("as here::") == "as here::"
    assert as_rst("already ``code|bar`` here") == "already ``code|bar`` here"
    assert as_rst("    >>> a | b") == "    >>> a | b"
