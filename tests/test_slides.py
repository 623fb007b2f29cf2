"""The slides: a deck for each lesson, that says nothing which the lesson does not, and fits its slides in a real browser."""

import re
from pathlib import Path

import pytest

from notebooks.slides import deck, lesson
from udlib.course.doctor import find_chromium

NAMES = [path.stem for path in deck.decks()]
TALL, WIDE = 200, 400  # pixels: a picture that is smaller cannot be seen from the back of a room
PRINTED = """() => [...document.querySelectorAll('.pdf-page section[data-layout]')].map(slide => {
  const frame = slide.getBoundingClientRect();
  return [frame.height, slide.querySelector('h1, h2').getBoundingClientRect().left - frame.left,
          [...slide.querySelectorAll('img')].map(image => image.getBoundingClientRect().height)];
})"""
GOOD = """# 00 · Start here

Can you trust it?

```{revealjs-notes}
Time: 1 min
Ask: Do you?
Say this.
```

## The network

![What the network says of the scene](lesson:00/2)

A threshold of 0.5.

```{revealjs-notes}
Time: 0.5 min
Ask: Which bar is long?
About 70 % is seven in ten.

A second paragraph.
```
"""
# A change of the good deck, and the words with which it must be refused.
FAULTS = {
    "a deck is too short": ("", "", "has 2 slides: it needs 12 to 20"),
    "the title is another": ("# 00 · Start here", "# 00 · Begin", "its lesson's is '00 · Start here'"),
    "the time is too long": ("Time: 1 min", "Time: 10 min", "takes 10.5 minutes: its lesson has 10"),
    "a slide has no question": ("Ask: Which bar is long?\n", "", "needs one block {revealjs-notes}"),
    "a slide has no time": ("Time: 0.5 min\n", "", "needs one block {revealjs-notes}"),
    "a slide has no notes": (GOOD[GOOD.rindex("```{revealjs") :], "", "needs one block {revealjs-notes}"),
    "notes say nothing": ("Say this.\n", "", "do not say what the teacher says"),
    "a slide has many words": ("A threshold of 0.5.", "word " * 44, "has 46 words: at most 45"),
    "a figure does not exist": ("lesson:00/2", "lesson:00/6", "shows lesson:00/6, which does not exist"),
    "a lesson does not exist": ("lesson:00/2", "lesson:44/1", "shows lesson:44/1, which does not exist"),
    "a diagram does not exist": ("lesson:00/2", "images/none.svg", "shows images/none.svg, which does not exist"),
    "a picture is elsewhere": ("lesson:00/2", "../README.md", "shows ../README.md, which does not exist"),
    "a picture has no description": ("What the network says of the scene", "Bars", "in fewer than four words"),
    "a picture stands in a line": ("\n\nA threshold", "\nA threshold", "a picture stands alone"),
    "a number is wrong": ("threshold of 0.5", "threshold of 0.57", "says 0.57, which lesson 00 does not"),
    "a per cent is wrong": ("threshold of 0.5", "threshold of 61 %", "says 61 %, which lesson 00 does not"),
    "a number of the notes is wrong": ("About 70 %", "About 71 %", "says 71 %, which lesson 00 does not"),
    "code is too wide": ("A threshold", f"```python\n{'x' * 71}\n```\n\nA threshold", "one longer than 70 characters"),
    "code is too long": (
        "A threshold",
        "```python\n" + "x = 1\n" * 7 + "```\n\nA threshold",
        "more than 6 lines of code",
    ),
    "a table is too long": ("A threshold", "| a |\n" * 9 + "\nA threshold", "a table with more than 6 rows"),
    "an equation has a brace": ("A threshold", "$\\underbrace{x}$ A threshold", "an \\underbrace"),
}


def written(folder, text):
    path = Path(folder) / "00_start_here.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_each_lesson_has_a_deck_of_its_name():
    assert NAMES == [path.stem for path in lesson.lessons().values()]


@pytest.mark.parametrize("name", NAMES)
def test_a_deck_has_no_fault(name):
    assert deck.faults(deck.read(deck.DECKS / f"{name}.md")) == []


def test_a_deck_is_read_as_it_is_written(tmp_path):
    first, second = deck.read(written(tmp_path, GOOD)).slides
    assert (first.title, first.body, first.words) == ("00 · Start here", "Can you trust it?", 7)
    assert first.notes == deck.Notes(1.0, "Do you?", "Say this.")
    assert second.title == "The network" and second.words == 6
    assert second.pictures == [("What the network says of the scene", "lesson:00/2")]
    assert second.notes == deck.Notes(0.5, "Which bar is long?", "About 70 % is seven in ten.\n\nA second paragraph.")


def test_a_heading_within_code_begins_no_slide(tmp_path):
    text = GOOD.replace("A threshold", "```python\n## no slide\n```\n\nA threshold")
    assert [slide.title for slide in deck.read(written(tmp_path, text)).slides] == ["00 · Start here", "The network"]


def test_code_equations_and_descriptions_are_no_words_that_the_class_reads():
    slide = deck.read_slide(
        "## One two\n\n![a b c d](images/x.svg)\n\n```python\nx = 1\n```\n\n$$a + b$$\n\nand $c$ [three](x.md)\n"
    )
    assert slide.words == 4


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_deck_is_named(tmp_path, fault):
    before, after, words = FAULTS[fault]
    assert before in GOOD
    assert any(words in found for found in deck.faults(deck.read(written(tmp_path, GOOD.replace(before, after)))))


def test_the_good_deck_has_no_other_fault_than_its_length(tmp_path):
    assert deck.faults(deck.read(written(tmp_path, GOOD))) == ["00_start_here has 2 slides: it needs 12 to 20"]


def test_numbers_are_compared_with_their_sign_where_they_have_one():
    assert lesson.numbers("−1.27 [−1.31, +0.92], 12 % and 0.7 to 3.4%") >= {
        "-1.27",
        "1.27",
        "+0.92",
        "12 %",
        "0.7",
        "3.4",
    }
    assert lesson.unknown_numbers("-0.38 [-1.68, +0.92] and 0.38", "03") == []
    assert lesson.unknown_numbers("+0.38 [-1.68, −1.26] and 0.377", "03") == ["+0.38", "0.377"]
    assert lesson.unknown_numbers("95 %, 95% and 94 %", "03") == ["94 %"]


@pytest.mark.parametrize(("number", "minutes"), [("00", 10), ("01", 40), ("03", 150), ("04", 120), ("10", 100)])
def test_the_time_of_a_lesson_is_what_its_first_cell_says(number, minutes):
    assert lesson.minutes(number) == minutes


def test_the_figures_of_a_lesson_are_those_of_its_outputs_in_order():
    figures = lesson.figures("04")
    assert len(figures) == 13
    assert figures[0].alt.startswith("Reliability diagram of the baseline")
    assert figures[10].alt.startswith("Mean confidence and share right among confident answers on photographs")
    assert all(figure.png.startswith(b"\x89PNG") and min(figure.size) > 200 for figure in figures)


def test_an_output_that_is_a_png_alone_is_a_figure_too(monkeypatch):
    png = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}}
    page = {
        "output_type": "display_data",
        "data": {"text/html": ['<img alt="A &lt; B" src="data:image/png;base64,iVBORw0=">']},
    }
    monkeypatch.setattr(lesson, "cells", lambda number: [{"source": "", "outputs": [png, page]}, {"source": ""}])
    assert [(figure.png[:4], figure.alt) for figure in lesson.figures.__wrapped__("00")] == [
        (b"\x89PNG", ""),
        (b"\x89PNG", "A < B"),
    ]


def test_equations_become_mathml_with_a_prime_beside_its_letter_and_space_around_a_function():
    pytest.importorskip("latex2mathml", reason="latex2mathml is missing: install the extra `book`")
    from notebooks.slides.mathematics import mathml

    assert '<msub><mrow><mi>L</mi><mo lspace="0" rspace="0">′</mo></mrow><mi>b</mi></msub>' in mathml("L'_b")
    assert '<mrow><mi>z</mi><mo lspace="0" rspace="0">′</mo></mrow>' in mathml("z'")
    assert '<mo lspace="0.17em" rspace="0.17em">log</mo>' in mathml(r"y \log f")
    assert 'display="block"' in mathml("x^2", "block") and "<msup><mi>x</mi><mn>2</mn></msup>" in mathml("x^2")


@pytest.fixture(scope="module")
def packages():
    for module in ("sphinx", "sphinx_revealjs", "myst_parser", "latex2mathml"):
        pytest.importorskip(module, reason=f"{module} is missing: install the extra `book`")


@pytest.fixture(scope="module")
def built(packages, tmp_path_factory):
    """All decks as HTML, and the folder in which they are."""
    from notebooks.slides import build

    out = tmp_path_factory.mktemp("slides")
    return build.build(deck.decks(), out), out


@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("playwright", reason="Playwright is missing: install the extra `test`")
    if find_chromium() is None:
        pytest.skip("NO CHROMIUM: no slide was looked at; install one and run the tests again")
    from notebooks.slides import browser

    with browser.chromium() as opened:
        yield opened


def loaded_files(page):
    """The files that a page loads, and those that its style sheets load; an address of a network stays as it is."""
    text = page.read_text(encoding="utf-8")
    names = re.findall(r'<(?:script|img)[^>]*\bsrc="([^"?]+)|<link[^>]*\bhref="([^"?]+)', text)
    found = ["".join(pair) for pair in names]
    for name in found:
        if name.endswith(".css") and "//" not in name:
            sheet = re.sub(r"/\*.*?\*/", "", (page.parent / name).read_text(encoding="utf-8"), flags=re.S)
            inner = re.findall(r"url\(['\"]?([^'\")#?]+)", sheet)
            found += [
                part if "//" in part or part.startswith("data:") else str(Path(name).parent / part) for part in inner
            ]
    return found


@pytest.mark.slow
def test_a_deck_loads_only_files_that_were_built_with_it(built):
    decks, out = built
    for page in [out / "index.html", *(out / f"{one.name}.html" for one in decks)]:
        files = [name for name in loaded_files(page) if not name.startswith("data:")]
        assert files and [name for name in files if not (page.parent / name).is_file()] == []
        assert "cdn" not in page.read_text(encoding="utf-8").lower()


@pytest.mark.slow
def test_the_index_links_to_every_deck_with_its_slides_and_minutes(built):
    decks, out = built
    page = (out / "index.html").read_text(encoding="utf-8")
    for one in decks:
        minutes = sum(slide.notes.minutes for slide in one.slides)
        assert f'<a href="{one.name}.html">' in page and f"<td>{len(one.slides)}</td><td>{minutes:g}</td>" in page


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_in_the_browser_no_slide_overflows_and_every_picture_is_there(built, chromium, name):
    from notebooks.slides import browser

    _, out = built
    slides, asked = browser.measure(chromium, out / f"{name}.html")
    assert asked == []
    assert len(slides) == len(deck.read(deck.DECKS / f"{name}.md").slides)
    for slide in slides:
        assert (slide["width"], slide["height"]) == (1280, 720) and slide["notes"] == 1, slide["title"]
        assert slide["inner_width"] <= 1280 and slide["inner_height"] <= 720, slide["title"]
        assert slide["outside"] == slide["scrolls"] == slide["covers"] == [], slide["title"]
        for picture in slide["pictures"]:
            assert picture["loaded"] and picture["alt"], picture["source"]
            assert picture["height"] >= TALL and picture["width"] >= WIDE, picture


@pytest.mark.slow
@pytest.mark.browser
def test_a_slide_that_overflows_is_noticed(packages, chromium, tmp_path):
    from notebooks.slides import browser, build

    wide = "```python\n" + "x" * 200 + "\n```"
    tall = "\n\n".join(["Nothing fits here."] * 20)
    text = GOOD.replace("A threshold of 0.5.", tall)
    text += f"\n## Wide\n\n{wide}\n\n```{{revealjs-notes}}\nTime: 1 min\nAsk: Why?\nSay.\n```\n"
    build.build([written(tmp_path, text)], tmp_path / "out")
    slides, _ = browser.measure(chromium, tmp_path / "out" / "00_start_here.html")
    assert slides[0]["outside"] == slides[0]["scrolls"] == []
    assert slides[1]["inner_height"] > 720 and slides[1]["outside"]
    assert slides[2]["scrolls"] and slides[2]["inner_height"] == 720


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_a_printed_slide_has_its_margin_its_height_and_its_pictures(built, chromium, name):
    from notebooks.slides import browser

    _, out = built
    with browser.opened(chromium, out / f"{name}.html", "?print-pdf") as (page, _):
        page.wait_for_selector(".pdf-page")
        sizes = page.evaluate(PRINTED)
    assert len(sizes) == len(deck.read(deck.DECKS / f"{name}.md").slides)
    for height, margin, pictures in sizes:
        assert height == 720 and margin >= 50 and all(picture >= TALL for picture in pictures)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_a_pdf_has_one_page_for_each_slide(built, chromium, name):
    from notebooks.slides import browser

    _, out = built
    pdf = browser.print_pdf(chromium, out / f"{name}.html")
    assert browser.pdf_pages(pdf) == len(deck.read(deck.DECKS / f"{name}.md").slides)


@pytest.mark.slow
def test_a_deck_with_a_warning_of_sphinx_is_not_built(packages, tmp_path):
    from notebooks.slides import build

    with pytest.raises(RuntimeError, match="Sphinx warned about the slides"):
        build.build([written(tmp_path, GOOD.replace("A threshold", "{nothing}`x` A threshold"))], tmp_path / "out")
