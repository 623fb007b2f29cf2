"""Every option of every quiz, opened in a real Chromium: in JupyterLab and in a page without JavaScript."""

import nbformat
import pytest
from quizzes import NAMES
from test_browser import (  # the fixtures lab, page, served and server are used by name
    CHROMIUM,
    FLAGS,
    KERNEL,
    START,
    lab,  # noqa: F401
    open_notebook,
    page,  # noqa: F401
    playwright,
    run_all,
    served,  # noqa: F401
    server,  # noqa: F401
)

from udlib.course.quizzes import as_html, load, quiz

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="NO CHROMIUM: no quiz was opened in a browser"),
]
CANARY = '<p class="canary" onclick="alert(1)">A handler that JupyterLab removes where it does not trust the notebook</p>'
CELLS = [nbformat.v4.new_code_cell(f'from udlib.course.quizzes import quiz\n\nquiz("{name}")') for name in NAMES]


def answers_of(name):
    return [answer for question in load(name) for answer in question["answers"]]


# Clicks every option once; for each: whether its feedback was visible before, whether it is afterwards, and its words.
CLICK_ALL = """quiz => [...quiz.querySelectorAll('details')].map(option => {
    const feedback = option.querySelector('p'), before = feedback.checkVisibility();
    option.querySelector('summary').click();
    return [before, feedback.checkVisibility(), feedback.innerText];
})"""


def check_every_option(shown, name):
    """Each option is opened once: nothing of its feedback is visible before, all of it afterwards."""
    answers = answers_of(name)
    playwright.expect(shown.locator("details")).to_have_count(len(answers), timeout=START * 1000)
    assert shown.evaluate(CLICK_ALL) == [[False, True, answer["feedback"]] for answer in answers]
    for answer in answers:
        assert answer["feedback"].startswith("Right. " if answer.get("correct") else "Wrong. ")


def quizzes_in(page):  # noqa: F811
    return page.locator(".jp-OutputArea-output .udlib-quiz")


def test_each_option_opens_in_jupyterlab_after_the_cell_was_run(lab, page, served):  # noqa: F811
    notebook = served / "quizzes_run.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=CELLS, metadata=KERNEL), notebook)
    run_all(page, lab, notebook)
    for number, name in enumerate(NAMES):
        check_every_option(quizzes_in(page).nth(number), name)


def test_each_option_opens_in_jupyterlab_where_the_notebook_is_not_trusted(lab, page, served):  # noqa: F811
    cells = [nbformat.v4.new_code_cell(cell.source) for cell in [*CELLS, nbformat.v4.new_code_cell("canary")]]
    for cell, html in zip(cells, [*map(as_html, NAMES), CANARY]):
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": html})]
    notebook = served / "quizzes_as_shipped.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), notebook)
    open_notebook(page, lab, notebook)
    canary = page.locator(".jp-OutputArea-output .canary")
    canary.wait_for(timeout=START * 1000)
    assert canary.get_attribute("onclick") is None, "the notebook is trusted"
    for number, name in enumerate(NAMES):
        check_every_option(quizzes_in(page).nth(number), name)
    assert [address for address in page.asked if not address.startswith((lab, "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_each_option_opens_in_a_page_without_javascript_and_by_keyboard_too(tmp_path, width):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS, timeout=START * 1000)
        page = browser.new_context(java_script_enabled=False, viewport={"width": width, "height": 900}).new_page()  # noqa: F811
        for name in NAMES:
            file = tmp_path / "quiz.html"
            file.write_text(f'<!doctype html><meta charset="utf-8"><main>{as_html(name)}</main>', encoding="utf-8")
            page.goto(file.as_uri())
            first = page.locator("summary").first
            for visible in (True, False):
                first.press("Enter")
                assert page.locator("details p").first.is_visible() is visible
            check_every_option(page.locator(".udlib-quiz"), name)
            assert page.get_by_role("list", name=quiz(name).title).count() == 1
            wide = page.locator(".udlib-quiz *").evaluate_all(
                "tags => Math.max(...tags.map(t => t.getBoundingClientRect().right))"
            )
            assert wide <= width, "an option is wider than the page"
        browser.close()
