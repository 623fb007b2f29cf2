"""pyproject.toml is where the dependencies stand: conda's environment, the lock and the README must agree with it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import udlib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = {r.name: r for r in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}  # conda-forge's name where it is another one
LOCK = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line.strip()]


def conda_packages():
    return {r.name: r for r in map(Requirement, (line for line in CONDA["dependencies"] if isinstance(line, str)))}


def pins():
    """Package → its pinned versions (several where Python or the system decides)."""
    found = {}
    for line in LOCK:
        pinned = Requirement(line)
        found.setdefault(pinned.name, []).extend(part.version for part in pinned.specifier)
    return found


def test_conda_gets_every_package_in_the_range_of_pyproject_and_no_other():
    ranges = {name: requirement.specifier for name, requirement in conda_packages().items()}
    expected = {CONDA_NAMES.get(name, name): requirement.specifier for name, requirement in WANTED.items()}
    python = ranges.pop("python")
    del ranges["pip"]
    assert ranges == expected
    assert str(python) == str(Requirement(f"python{PROJECT['requires-python']}").specifier)


def test_conda_installs_the_project_itself_in_place_and_takes_one_channel():
    assert CONDA["dependencies"][-1] == {"pip": ["-e ."]}
    assert [channel for channel in CONDA["channels"] if channel != "nodefaults"] == ["conda-forge"]


@pytest.mark.parametrize("name", WANTED)
def test_the_lock_pins_each_package_inside_its_range(name):
    versions = pins().get(name)
    assert versions, f"{name} is not in requirements.lock: run `make lock`"
    assert all(WANTED[name].specifier.contains(version) for version in versions)


def test_the_lock_pins_exact_versions_and_names_no_registry_and_no_path():
    for line in LOCK:
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.!+]+( ; [^/\\]+)?", line), line
        assert "://" not in line and "--" not in line, line


def test_the_versions_of_package_project_and_citation_are_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert udlib.__version__ == PROJECT["version"] == str(citation["version"])
    assert citation["cff-version"] and citation["title"] and citation["authors"] and citation["license"] == "MIT"


def test_every_make_target_named_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {word for line in readme.splitlines() for word in re.findall(r"(?:^|`)make ([a-z]+)", line)}
    assert {"lab", "test", "course", "runs", "bench"} <= named <= targets


def test_files_and_folders_that_the_readme_links_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []
