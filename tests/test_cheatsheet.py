"""The cheat sheet names what exists, its PDF has one page, and the README's picture moves through every trained λ."""

import html
import importlib
import re
import shutil

import pytest
from lessons import ROOT
from PIL import Image

from udlib.course.recipes import LAMBDAS

FOLDER = ROOT / "docs" / "cheatsheet"
SHEET = FOLDER / "cheatsheet.html"
MOVING = ROOT / "notebooks" / "images" / "lambda_explorer.gif"
PAGE = re.compile(rb"/Type\s*/Page\b")
MODULES = ("losses", "metrics", "calibration", "posthoc", "statistics", "attention")


def codes():
    return [html.unescape(code) for code in re.findall("<code>(.*?)</code>", SHEET.read_text(encoding="utf-8"))]


def test_every_function_of_the_sheet_exists_and_takes_the_arguments_that_it_shows():
    modules = [importlib.import_module(f"udlib.{name}") for name in MODULES]
    shown = 0
    for code in codes():
        name, arguments = re.fullmatch(r"([\w.]+)(?:\((.*)\))?", code).groups() if "=" not in code[:13] else (None, "")
        if name in (None, "udlib", "scenes"):
            continue
        module, _, function = name.rpartition(".")
        owners = [importlib.import_module(f"udlib.{module}")] if module else modules
        found = [getattr(owner, function) for owner in owners if hasattr(owner, function)]
        assert len(found) == 1, code
        parameters = found[0].__code__.co_varnames[: found[0].__code__.co_argcount]
        asked = [word.split("=")[0].strip() for word in (arguments or "").split(",")]
        assert {word for word in asked if word not in ("", "…")} <= set(parameters), code
        shown += 1
    assert shown >= 20


def test_every_equation_of_the_ledger_stands_on_the_sheet_or_beside_another():
    text = re.sub("<.*?>", "", SHEET.read_text(encoding="utf-8"))
    equations = {int(n) for numbers in re.findall(r"Eq\. ([\d, ]+)", text) for n in re.findall(r"\d+", numbers)}
    assert equations == {1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18}


def test_the_committed_pdf_has_one_page():
    assert len(PAGE.findall((FOLDER / "cheatsheet.pdf").read_bytes())) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_the_sheet_as_it_is_now_still_prints_on_one_page(tmp_path):
    from docs.cheatsheet.build import write_pdf

    write_pdf(tmp_path / "sheet.pdf")
    assert len(PAGE.findall((tmp_path / "sheet.pdf").read_bytes())) == 1


def test_the_moving_picture_shows_every_trained_value_of_lambda_and_stops():
    with Image.open(MOVING) as picture:
        assert picture.n_frames == len(LAMBDAS)
        assert picture.info["loop"] == 1  # repetitions: two rounds
        seconds = picture.info["duration"] / 1000
    assert 1 <= seconds <= 2 and MOVING.stat().st_size <= 1_000_000


def test_the_readme_shows_the_moving_picture_with_words_before_its_first_section():
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    words, path = re.search(r"!\[([^]]+)\]\((notebooks/images/lambda_explorer\.gif)\)", first_screen).groups()
    assert (ROOT / path).exists() and len(words.split()) >= 15
