"""The built book: every lesson with its stored outputs, every link, words for every picture, and a search without a network."""

import html
import json
import re
from pathlib import Path

import nbformat
import pytest

from docs.book.build import build
from docs.book.links import pages, read
from udlib.course.doctor import find_chromium

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OTHERS = [
    "index",
    "README",
    "CONTRIBUTING",
    "CHANGELOG",
    "data/README",
    "docs/glossary",
    "docs/results",
    "docs/serving",
    "notebooks/equations",
    "quizzes/index",
    "slides/index",
    "api/index",
    "api/command",
    "api/losses",
    "api/datasets",
]
CHROMIUM = find_chromium()
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
]

pytestmark = pytest.mark.slow
lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the book, and what its build complained about."""
    folder = tmp_path_factory.mktemp("built") / "book"
    return folder, build(folder)


@pytest.fixture
def book(built):
    return built[0]


def text_of(book, name):
    return (book / f"{name}.html").read_text(encoding="utf-8")


def words_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def outputs(path):
    """The data of all outputs of a lesson, as the notebook stores them."""
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]


def html_of(path):
    return "\n".join(output.get("data", {}).get("text/html", "") for output in outputs(path))


def test_the_build_has_no_warning_and_every_link_leads_somewhere(built):
    assert "\n".join(built[1]) == ""


@pytest.mark.parametrize("name", OTHERS)
def test_the_book_has_every_page_beside_the_lessons(book, name):
    assert "<h1>" in text_of(book, name)


@lesson
def test_a_lesson_shows_its_stored_pictures_with_their_descriptions(book, path):
    stored = [html.unescape(alt) for alt in re.findall(r'<img alt="([^"]*)"', html_of(path))]
    shown = [
        html.unescape(alt)
        for alt in re.findall(r'<img alt="([^"]*)" src="data:', text_of(book, f"notebooks/{path.stem}"))
    ]
    assert len(stored) >= 3 and shown == stored


@lesson
def test_a_lesson_shows_its_stored_words_and_none_of_its_tables_is_left_as_markdown(book, path):
    words = words_of(text_of(book, f"notebooks/{path.stem}"))
    streams = ["".join(output.text) for output in outputs(path) if output.output_type == "stream"]
    assert all(line.strip() in words for stream in streams for line in stream.splitlines())
    assert not re.search(r"^\|.*\|$", words, re.MULTILINE) and "|---" not in words and "|--:" not in words


@lesson
def test_a_lesson_shows_each_explorer_as_its_first_frame_and_says_where_it_moves(book, path):
    explorers = len(re.findall(r"Run the notebook to move the sliders?\.", html_of(path)))
    page = text_of(book, f"notebooks/{path.stem}")
    assert explorers >= 1 and page.count("Open this lesson to move it") == explorers
    assert "Run the notebook" not in page and 'id="open-this-lesson-live"' in page and "make lab" in words_of(page)


@lesson
def test_a_lesson_folds_collapsed_code_and_keeps_its_folded_answers(book, path):
    cells = nbformat.read(path, as_version=4).cells
    collapsed = [
        cell for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden") and cell.source.strip()
    ]
    folded = sum(cell.source.count("<details>") for cell in cells if cell.cell_type == "markdown")
    page = text_of(book, f"notebooks/{path.stem}")
    assert len(re.findall(r'<details class="admonition hide', page)) == len(collapsed)
    article = page[page.index("<article") : page.index("</article")]
    assert article.count("<details>") == folded == article.count("<summary>")


@lesson
def test_a_lesson_has_each_equation_as_mathml_and_none_with_an_error(book, path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    blocks = sum(len(re.findall(r"\$\$.+?\$\$", cell.source, re.DOTALL)) for cell in cells)
    page = text_of(book, f"notebooks/{path.stem}")
    assert len(re.findall(r'<math [^>]*display="block"', page)) >= blocks
    assert "merror" not in page and "MathJax" not in page


def test_the_page_of_equations_links_to_cells_that_have_the_number_it_names(book):
    links = re.findall(r'href="(\w+)\.html#in-(\d+)"', text_of(book, "notebooks/equations"))
    assert len(links) >= 18
    for name, number in links:
        assert f'id="in-{number}"' in text_of(book, f"notebooks/{name}")


def test_the_lessons_stand_in_order_and_each_leads_to_the_next(book):
    for path, following in zip(LESSONS, LESSONS[1:]):
        assert re.search(
            rf'class="right-next"\s+href="{following.stem}\.html"', text_of(book, f"notebooks/{path.stem}")
        )


def test_the_search_knows_every_lesson_and_finds_words_of_text_and_of_docstrings(book):
    index = json.loads(
        (book / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(").removesuffix(")")
    )
    names, terms = index["docnames"], index["terms"]
    assert {f"notebooks/{path.stem}" for path in LESSONS} <= set(names)

    def where(term):
        places = terms[term]
        return {names[place] for place in (places if isinstance(places, list) else [places])}

    assert "notebooks/04_ece_analysis" in where("overconfid")
    assert "api/losses" in where("logit")


def test_no_page_names_a_script_a_style_or_a_font_from_elsewhere(book):
    for path in pages(book):
        assert not [address for address in read(path).loads if re.match(r"(https?:)?//", address)], path
    styles = "".join(path.read_text(encoding="utf-8") for path in (book / "_static").rglob("*.css"))
    assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+(url\()?['\"]?https?:", styles)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="NO CHROMIUM: the book was opened in no browser")
def test_a_browser_without_a_network_shows_a_lesson_searches_and_needs_no_sideways_scrolling(book):
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: install the extra `test`")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 800})
        addresses = []
        page.on("request", lambda request: addresses.append(request.url))
        for name in ("index", "notebooks/03_pal_n_calibration", "docs/results", "api/losses"):
            page.goto((book / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        page.goto((book / "search.html").as_uri() + "?q=overconfidence")
        page.wait_for_selector("#search-results li a")
        browser.close()
    assert addresses and all(address.startswith(("file:", "data:")) for address in addresses)
