"""The guide for teachers and the ways to open the course elsewhere: what they name exists, and their minutes are the lessons'."""

import json
import os
import re
import subprocess
import sys
import tomllib
import types
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement

from udlib import cli
from udlib.course import exercises
from udlib.course.my_lessons import copy_lessons

ROOT = Path(__file__).resolve().parents[1]
TEACHING = ROOT / "docs" / "teaching"
PAGES = [*sorted(TEACHING.glob("*.md")), ROOT / "docs" / "open_anywhere.md"]
LESSONS = sorted((ROOT / "notebooks" / "src").glob("[0-9]*.py"))
SCRIPTS = [ROOT / ".binder" / "postBuild", ROOT / ".devcontainer" / "install.sh"]
# What a page names before its folder is in the checkout: the guide was written beside them.
COMING = {"docs/slides": {"slides"}, "docs/project": {"grade"}}


def text_of(path):
    return path.read_text(encoding="utf-8")


def coming():
    """Commands and targets of parts that are not in this checkout."""
    return {name for folder, names in COMING.items() if not (ROOT / folder).is_dir() for name in names}


def subcommands():
    return set(typer.main.get_command(cli.app).commands)


def all_exercises():
    for path in LESSONS:
        import_module(f"udlib.course.exercises.lesson_{path.stem[:2]}")
    return set(exercises._CHECKERS)


def tables(page):
    """The rows of all tables of a page, each as its cells."""
    rows = [line.strip().strip("|").split("|") for line in text_of(page).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def stated_minutes(lesson):
    """What the lesson's line **Time.** says, in minutes."""
    words = re.search(r"\*\*Time\.\*\* (.+?)(?: to read| with|\.)", text_of(lesson)).group(1)
    numbers = {"ten": 10, "two": 2}
    half = 0.5 if "and a half" in words else 0
    number = next(float(numbers.get(word, word)) for word in words.split() if word.isdigit() or word in numbers)
    return (number + half) * (60 if "hour" in words else 1)


MINUTES = {path.stem[:2]: stated_minutes(path) for path in LESSONS}


def test_the_minutes_of_the_schedule_are_those_that_the_lessons_state():
    rows = [row for row in tables(TEACHING / "schedules.md") if re.match(r"\d\d · ", row[0])]
    assert len(rows) == 12 + 3 + 3
    assert {row[0][:2]: float(row[1]) for row in rows} == MINUTES
    assert sum(MINUTES.values()) == 1140 and "1,140 minutes, which is 19 hours" in text_of(TEACHING / "schedules.md")


def test_each_afternoon_and_each_week_has_the_minutes_of_its_lessons_and_all_lessons_come_once():
    rows = [
        row for row in tables(TEACHING / "schedules.md") if row[0].isdigit() and re.match(r"\d\d(, \d\d)*$", row[1])
    ]
    for row in rows:
        assert sum(MINUTES[number] for number in row[1].split(", ")) == float(row[2]), row
    numbers = [number for row in rows for number in row[1].split(", ")]
    assert numbers == 2 * [path.stem[:2] for path in LESSONS]  # six afternoons, then twelve weeks


def test_the_routes_of_one_afternoon_take_as_long_as_the_page_says():
    assert MINUTES["00"] + MINUTES["02"] + MINUTES["04"] == MINUTES["00"] + MINUTES["02"] + MINUTES["05"] == 220
    assert "Both have 220 minutes" in text_of(TEACHING / "schedules.md")


def test_every_exercise_tests_a_goal_and_every_open_exercise_too():
    cells = [row[1] for row in tables(TEACHING / "goals.md")]
    assert {cell for cell in cells if re.fullmatch(r"\d\d\.\d", cell)} == all_exercises()
    opened = {path.stem[:2] for path in LESSONS if "★★★ (open)" in text_of(path)}
    assert {cell[:2] for cell in cells if cell.endswith("★★★")} == opened


def test_the_stumbling_blocks_are_mistakes_that_the_checks_name():
    known = {}
    for path in LESSONS:
        for number, words in re.findall(r'mistake="(\d\d\.\d)" says="(.+?)"', text_of(path)):
            known.setdefault(number, set()).add(words)
    rows = [row for row in tables(TEACHING / "stumbles.md") if re.fullmatch(r"\d\d\.\d", row[0])]
    assert [row for row in rows if row[1] not in known[row[0]]] == []
    assert {row[0] for row in rows} == all_exercises() and all(len(row[2]) > 20 for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_exist(page):
    links = re.findall(r"\]\(([^)#]+)", text_of(page))
    assert [link for link in links if not (page.parent / link).exists()] == []
    parts = re.findall(r"\]\(([^)#]*)#([\w-]+)\)", text_of(page))
    for file, part in parts:
        titles = re.findall(r"^#+ (.+)$", text_of((page.parent / file) if file else page), re.M)
        assert part in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, part


def test_commands_and_make_targets_that_the_pages_name_exist():
    rules = re.findall(r"^([a-z][a-z -]*):", text_of(ROOT / "Makefile"), re.M)
    targets = {name for rule in rules for name in rule.split()}
    everything = "\n".join(map(text_of, PAGES))
    make = set(re.findall(r"(?:^|`|=smoke )make ([a-z-]+)", everything, re.M))
    command = set(re.findall(r"(?:^|`|-m )udlib ([a-z-]+)", everything, re.M))
    assert {"lab", "wheelhouse", "lessons", "course"} <= make <= targets | coming()
    assert {"doctor", "prepare", "grade"} <= command <= subcommands() | coming()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_scripts_of_container_and_binder_call_commands_that_exist(script):
    called = set(re.findall(r"^(?:\S+ -m )?udlib ([a-z-]+)", text_of(script), re.M))
    assert called == {"prepare", "doctor"} <= subcommands()
    assert os.access(script, os.X_OK) and text_of(script).startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", script], capture_output=True).stderr == b""


@pytest.mark.parametrize("page", [*SCRIPTS], ids=lambda page: page.name)
def test_the_scripts_make_the_copies_of_the_lessons_that_the_page_opens(page, tmp_path, monkeypatch):
    code = re.search(r'python -c "(.+)"', text_of(page)).group(1)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_start_here.ipynb").write_text('{"cells": [], "metadata": {}}')
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "notebooks" / "my" / "00_start_here.ipynb").is_file()
    assert "notebooks/my/00_start_here.ipynb" in text_of(ROOT / "docs" / "open_anywhere.md")
    assert copy_lessons(tmp_path / "notebooks").made == []


def test_the_container_is_described_by_valid_json_and_its_files_exist():
    described = json.loads(text_of(ROOT / ".devcontainer" / "devcontainer.json"))
    image, command = described["image"], described["postCreateCommand"].split()
    version = re.search(r"python:(3\.\d+)-", image).group(1)
    assert tuple(map(int, version.split("."))) in {(3, 11), (3, 12), (3, 13)}
    assert command[0] == "bash" and ROOT / command[1] == SCRIPTS[1]
    assert described["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        "/.venv/bin/python"
    )
    assert {"--torch-backend cpu", "--constraint requirements.lock"} <= set(
        re.findall(r"--[a-z-]+ [\w.]+", text_of(SCRIPTS[1]))
    )


def test_binder_gets_what_package_and_lessons_need_for_the_cpu_and_nothing_else():
    conda = yaml.safe_load(text_of(ROOT / ".binder" / "environment.yml"))
    *lines, pip = conda["dependencies"]
    ranges = {r.name: str(r.specifier) for r in map(Requirement, [*(lines[2:]), *pip["pip"]])}
    assert lines[:2] == ["python=3.12", "pip"]
    everybody = yaml.safe_load(text_of(ROOT / "environment.yml"))["dependencies"]
    listed = {r.name: str(r.specifier) for r in map(Requirement, [*everybody[:-1], *everybody[-1]["pip"][:-1]])}
    assert ranges.pop("pytorch-cpu") == listed.pop("pytorch")
    assert ranges.items() <= listed.items()

    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    needed = {Requirement(r).name for r in project["dependencies"] + project["optional-dependencies"]["course"]}
    assert set(ranges) == needed - {"torch"}


def colab_cell():
    return re.search(r"```python\n(import sys\n.+?)```", text_of(ROOT / "docs" / "open_anywhere.md"), re.S).group(1)


def test_the_cell_for_colab_does_nothing_elsewhere(monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    before = (Path.cwd(), list(sys.path))
    monkeypatch.setattr(subprocess, "run", None)  # a call of it would fail
    names = {}
    exec(colab_cell(), names)
    assert (Path.cwd(), list(sys.path)) == before and set(names) == {"sys", "__builtins__"}


def test_the_cell_for_colab_asks_for_the_address_of_the_project(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    with pytest.raises(ValueError, match="into REPOSITORY"):
        exec(colab_cell(), {})


def test_the_cell_for_colab_fetches_the_project_once_installs_it_and_goes_to_its_lessons(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    folder, calls = tmp_path / "udlib", []

    def run(words, check):
        calls.append(words[:2] if words[0] == "git" else words[1:4])
        (folder / "notebooks").mkdir(parents=True, exist_ok=True)
        assert check and words[-1] == str(folder)

    monkeypatch.setattr(subprocess, "run", run)
    cell = colab_cell().replace("/content/udlib", str(folder)).replace('REPOSITORY = ""', 'REPOSITORY = "here"')
    exec(cell, {})
    exec(cell, {})
    assert calls == [["git", "clone"], ["-m", "pip", "install"], ["-m", "pip", "install"]]
    assert Path.cwd() == folder / "notebooks" and sys.path[0] == str(folder)


def test_what_nobody_could_try_is_marked_as_untried():
    page = text_of(ROOT / "docs" / "open_anywhere.md")
    for title in ("VS Code", "A development container", "Binder", "Google Colab"):
        assert f"## {title} (untried)" in page
    assert "| macOS, Windows | untried |" in page
