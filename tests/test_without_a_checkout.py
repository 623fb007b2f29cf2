"""The package alone, as a wheel installs it: what it says about the lessons and the stored results, which a checkout brings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from udlib.course import shipped

ROOT = Path(__file__).resolve().parents[1]

SOURCE = """
import os, sys
from udlib.cli import main
from udlib.course import store
for name, folder, words in (
    ("doctor", here, ["doctor"]), ("results", here, ["results", "--only", "tricks*"]), ("lab", here, ["lab"]),
    ("runs", here, ["runs", "--plan", "--only", "tricks*"]), ("doctor around", lessons, ["doctor"]),
    ("lab around", lessons, ["lab"]),
):
    os.chdir(folder)
    print("command", name, flush=True)
    try:
        main(words)
    except SystemExit as stop:
        print("status", stop.code or 0)
os.chdir(here)
print("command load_or_run")
store.train, store.save = lambda recipe, checkpoint: "a run", lambda run: None
print(store.load_or_run(store.recipe()))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each command prints, by name: first in an empty folder, then in a folder of lessons."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "udlib", folder / "site" / "udlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("home", "here", "clone/notebooks"):
        (folder / name).mkdir(parents=True)
    (folder / "clone" / shipped.LESSON).write_text("{}")
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "site"),
        "HOME": str(folder / "home"),
        "UDLIB_PROGRESS": "0",
    }
    for name in ("UDLIB_DATA", "UDLIB_PROFILE"):
        environment.pop(name, None)
    places = f"here, lessons = {str(folder / 'here')!r}, {str(folder / 'clone' / 'notebooks')!r}\n"
    words = [sys.executable, "-c", places + SOURCE]
    kind = {"capture_output": True, "text": True, "encoding": "utf-8"}
    done = subprocess.run(words, cwd=folder / "here", env=environment | {"PYTHONUTF8": "1"}, **kind)
    assert done.returncode == 0, done.stderr
    return dict(part.split("\n", 1) for part in done.stdout.split("command ")[1:]), done.stderr, folder


COME = "come with a checkout of the project; clone the project and run `make lab` in it, or install it from there with"


def test_the_doctor_says_what_is_not_there_and_is_not_content_without_a_note(printed):
    out = printed[0]["doctor"]
    assert "note: the lessons are not here: they come with a checkout" in out and out.count(COME) == 2
    assert "lessons     none; " in out and "results     0 of " in out
    assert "note: the course's stored results are not here, so that every recipe is trained anew" in out
    assert (
        "everything the course needs is here" not in out and "Ready, with the notes above." in out and "status 0" in out
    )


@pytest.mark.parametrize("name", ["results", "runs", "load_or_run"])
def test_what_trains_or_shows_results_says_where_they_come_from(printed, name):
    assert (
        f"note: the course's stored results are not here, so that every recipe is trained anew: they {COME}"
        in printed[0][name]
    )


def test_load_or_run_trains_then(printed):
    assert printed[0]["load_or_run"].rstrip().endswith("a run")


def test_lab_says_where_lessons_come_from(printed):
    outputs, errors, _ = printed
    assert "status 2" in outputs["lab"]
    assert f"there is no {shipped.LESSON}: the lessons are not here: they {COME} `pip install -e .`" in errors


def test_in_a_checkout_that_the_package_is_not_installed_from_both_name_it(printed):
    outputs, errors, folder = printed
    here = f"'{folder / 'clone'}' is one, and this package is not installed from it: run `make lab` or `pip install -e .` there"
    assert f"the lessons are not here: they come with a checkout of the project; {here}" in errors
    assert outputs["doctor around"].count(here) == 2
    assert f"{here}, or set UDLIB_DATA to its folder 'data'" in outputs["doctor around"]


def test_a_checkout_has_both():
    assert shipped.own_checkout() == ROOT and shipped.missing_lessons() is None
    assert shipped.missing_results(ROOT / "data" / "results") is None


def test_a_checkout_without_its_results_says_how_to_restore_them(tmp_path):
    assert "`git checkout -- data/results` brings them back" in shipped.missing_results(tmp_path)
