"""A real JupyterLab in a real Chromium: lesson 00 opens, runs to its end and shows its figures, and sliders move.

Lesson 03's λ explorer is opened too, with the cells that it builds upon. `make test-more` runs the other lessons.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest
from lessons import ROOT, SOURCES, build, code_of, cut, descriptions, name_of

from udlib.course.doctor import find_chromium
from udlib.course.recipes import sweep
from udlib.course.store import load

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: install the extra `test`")
CHROMIUM = find_chromium()
LESSON = ROOT / "notebooks" / f"{SOURCES[0].stem}.ipynb"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
EXPLORER = """from matplotlib.figure import Figure
from udlib.course.explorers import Explorer, Frame
def frame(lam, seed):
    figure = Figure(figsize=(2, 1))
    figure.subplots().axhline(lam)
    return Frame(figure, f"λ = {lam}, seed {seed}", {"mAP": f"λ = {lam}, seed {seed}"})
Explorer({"λ": [0.0, 0.3, 3.0], "seed": [3, 7]}, frame, start={"seed": 7})"""
START, RUN, REACT = 180, 900, 60  # seconds granted, for a machine that is busy with other things
# Every cell stays in the page, wherever it is scrolled to, and nothing asks for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="NO CHROMIUM: no lesson was opened in a browser; install one, on "
        "Debian and Ubuntu with `sudo apt-get install chromium`, and run the tests again",
    ),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder that JupyterLab serves, with copies of all lessons in it."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    folder.mkdir()
    for source in SOURCES:
        shutil.copy(ROOT / "notebooks" / f"{source.stem}.ipynb", folder)
    return folder


@pytest.fixture(scope="module")
def server(served):
    """The address of a JupyterLab that serves copies of the notebooks."""
    tmp_path = served.parent
    for name, content in SETTINGS.items():
        path = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    port = free_port()
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
    }
    own = {name: str(tmp_path / folder) for name, folder in folders.items()}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--ServerApp.disable_check_xsrf=True",
        f"--ServerApp.root_dir={tmp_path}",
    ]
    log = tmp_path / "server.log"
    with open(log, "wb") as file:
        server = subprocess.Popen(
            command, env=os.environ | own | build.HIDDEN, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture
def lab(server):
    """The same address; the kernels of a test end with it."""
    yield server
    with urllib.request.urlopen(f"{server}/api/sessions", timeout=REACT) as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{server}/api/sessions/{session['id']}", method="DELETE")
        urllib.request.urlopen(request, timeout=REACT).close()


def wait_for(address, server, log):
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        assert server.poll() is None, f"JupyterLab ended at once:\n{log.read_text()[-3000:]}"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"JupyterLab did not answer within {START} s:\n{log.read_text()[-3000:]}")


@pytest.fixture
def page(tmp_path):
    """A page in Chromium; the addresses it asks for stand in `page.asked`, its last view in `page.png`."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS, timeout=START * 1000)
        page = browser.new_page(viewport={"width": 1400, "height": 1800})
        page.set_default_timeout(REACT * 1000)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        try:
            yield page
        finally:
            page.screenshot(path=tmp_path / "page.png", timeout=REACT * 1000)
            browser.close()


def choose(page, menu, command):
    """Click an entry of JupyterLab's menu bar."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{menu}$")).click()
    page.locator(f'.lm-Menu-item[data-command="{command}"]').click()


def prompts(page):
    """What stands before each code cell: [ ]:, [*]: or [7]:."""
    return page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").all_inner_texts()


def outputs(page, kind):
    return page.locator(f'.jp-Notebook .jp-OutputArea-output[data-mime-type="{kind}"]')


def open_notebook(page, lab, notebook):
    """Open a served notebook as it is; returns its number of code cells."""
    cells = len(code_of(nbformat.read(notebook, as_version=4)))
    # `reset`: the tabs of the test before do not come back
    page.goto(f"{lab}/lab/tree/notebooks/{notebook.name}?reset", timeout=START * 1000)
    page.locator(".jp-Notebook .jp-CodeCell").nth(cells - 1).wait_for(state="attached", timeout=START * 1000)
    return cells


def run_all(page, lab, notebook):
    """Open a served notebook, forget its outputs, run it, and see every cell end well."""
    cells = open_notebook(page, lab, notebook)
    page.locator(".jp-NotebookPanel-toolbar .jp-KernelName", has_text="Python 3").wait_for(timeout=START * 1000)

    choose(page, "View", "notebook:show-all-cell-code")  # a collapsed cell shows no prompt
    choose(page, "Edit", "editmenu:clear-all")
    page.wait_for_function("""() => [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')]
        .every(prompt => !/\\d/.test(prompt.textContent))""")
    choose(page, "Run", "runmenu:run-all")
    page.wait_for_function(
        """cells => {
        const prompts = document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt');
        const found = [...prompts].map(prompt => prompt.textContent);
        const failed = document.querySelector('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]');
        return failed || (found.length === cells && found.every(text => /\\[\\d+\\]/.test(text)));
    }""",
        arg=cells,
        timeout=RUN * 1000,
    )
    assert outputs(page, "application/vnd.jupyter.stderr").all_inner_texts() == []  # JupyterLab's kind for errors too
    assert prompts(page) == [f"[{k}]:" for k in range(1, cells + 1)]


def move(page, explorer, slider, key="ArrowRight", times=1):
    """Press a key on a slider's handle; after each press the readings must be others."""
    readout = explorer.get_by_role("status")
    explorer.locator(".noUi-handle").nth(slider).focus()
    for _ in range(times):
        before = readout.text_content()
        page.keyboard.press(key)
        playwright.expect(readout).not_to_have_text(before, timeout=REACT * 1000)
    return readout.text_content()


def only_explorer(page):
    return page.locator(".jp-OutputArea-output", has=page.locator(".noUi-handle")).first


def alts_of(images):
    return images.evaluate_all("images => images.map(image => image.getAttribute('alt') ?? '')")


def spoken_sliders(explorer):
    """What a screen reader says of each slider: its line in the accessibility tree, which has its name, and its value.

    The value is the attribute, because the tree that Chromium hands to tests leaves it out.
    """
    sliders = explorer.get_by_role("slider").all()
    return [(slider.aria_snapshot(), slider.get_attribute("aria-valuetext")) for slider in sliders]


def test_lesson_00_opens_and_runs_and_its_slider_moves(lab, page):
    run_all(page, lab, LESSON)
    figures = page.locator(".jp-Notebook figure img")
    assert figures.count() >= 1
    for figure in figures.all():
        figure.scroll_into_view_if_needed()
        assert figure.is_visible() and figure.evaluate("image => image.naturalWidth") > 0

    explorer = only_explorer(page)
    picture = explorer.locator("img")
    assert picture.evaluate("image => image.naturalWidth") > 0
    first = picture.get_attribute("src")
    move(page, explorer, 0, times=4)  # neighbouring settings may give the same picture, never the same reading
    playwright.expect(picture).not_to_have_attribute("src", first, timeout=REACT * 1000)
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0

    elsewhere = [address for address in page.asked if not address.startswith((lab, "data:", "blob:"))]
    assert elsewhere == [], "a lesson needs no network"


def test_the_lambda_explorer_of_lesson_03_moves_by_keyboard(lab, page, served):
    """The cell of the explorer, and the cells it builds upon, as a notebook of their own."""
    notebook, lesson = served / "explorer.ipynb", cut("03", "LambdaExplorer(")
    lesson.cells.append(nbformat.v4.new_code_cell("explorer"))
    nbformat.write(lesson, notebook)
    run_all(page, lab, notebook)
    explorer = only_explorer(page)
    picture, table = explorer.locator("img"), explorer.locator("table").last
    start, start_table = picture.get_attribute("src"), table.text_content()
    lam = explorer.locator(".widget-readout").nth(0)
    assert lam.text_content() == "0.0"
    move(page, explorer, 0)
    playwright.expect(lam).to_have_text("0.03")
    move(page, explorer, 1)
    playwright.expect(explorer.locator(".widget-readout").nth(1)).to_have_text("1")
    playwright.expect(picture).not_to_have_attribute("src", start, timeout=REACT * 1000)
    playwright.expect(table).not_to_have_text(start_table, timeout=REACT * 1000)
    width, natural = picture.evaluate("image => [image.clientWidth, image.naturalWidth]")
    assert 0 < width <= natural, "a stretched picture is blurred"
    shown = load(sweep()[0.03][1]).metrics["test"]
    readings = explorer.get_by_role("status").text_content()
    assert f"mAP{100 * shown['mAP']:.1f} %" in readings and f"ECE, pooled{100 * shown['ECE_pooled']:.1f} [" in readings


def test_a_screen_reader_hears_names_values_and_readings_of_each_slider_of_an_explorer(lab, page, served):
    notebook = served / "spoken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(EXPLORER)], metadata=KERNEL), notebook)
    run_all(page, lab, notebook)
    explorer = only_explorer(page)
    picture = explorer.get_by_role("img")
    playwright.expect(explorer.get_by_role("slider").first).to_have_accessible_name("λ")
    lam, seed = '- slider "λ"', '- slider "seed"'
    assert spoken_sliders(explorer) == [(lam, "0.0"), (seed, "7")]
    for slider, key, spoken, alt in [
        (0, "ArrowRight", [(lam, "0.3"), (seed, "7")], "λ = 0.3, seed 7"),
        (0, "End", [(lam, "3.0"), (seed, "7")], "λ = 3.0, seed 7"),
        (1, "ArrowLeft", [(lam, "3.0"), (seed, "3")], "λ = 3.0, seed 3"),
    ]:
        readings = move(page, explorer, slider, key)
        playwright.expect(picture).to_have_accessible_name(alt)
        assert readings == f"mAP{alt}" and spoken_sliders(explorer) == spoken
    tree = explorer.aria_snapshot()
    assert tree.index("- status:") < tree.index('- table "readings":') < tree.index('- cell "mAP λ = 3.0, seed 3"')


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_every_image_of_a_lesson_as_shipped_has_its_description_in_the_page(lab, page, source):
    """JupyterLab does not trust a notebook that was not run here: what it shows went through its sanitizer."""
    notebook = ROOT / "notebooks" / f"{source.stem}.ipynb"
    open_notebook(page, lab, notebook)
    stored = build.pictures(nbformat.read(notebook, as_version=4))
    figures, images = page.locator(".jp-Notebook figure img"), page.locator(".jp-Notebook img")
    playwright.expect(figures).to_have_count(len(stored), timeout=START * 1000)
    assert alts_of(figures) == [alt for output in stored for alt in descriptions(output.data["text/html"])]
    assert [alt for alt in alts_of(images) if len(alt.split()) < 3] == []
    for caption in page.locator(".jp-Notebook figcaption").all():
        assert caption.is_visible() and caption.inner_text().strip()


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES[1:], ids=name_of)
def test_every_other_lesson_opens_runs_and_shows_its_figures(lab, page, source):
    run_all(page, lab, ROOT / "notebooks" / f"{source.stem}.ipynb")
    figures = page.locator(".jp-Notebook figure img")
    assert figures.count() >= 3
    for figure in figures.all():
        assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert [address for address in page.asked if not address.startswith((lab, "data:", "blob:"))] == []
