"""`pip install udlib` alone, without the extra `course`: the package and its commands run where Jupyter is not installed."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tiny_voc import write_tiny_voc

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
JUPYTER = (
    "IPython",
    "ipykernel",
    "ipywidgets",
    "jupyterlab",
    "jupyter_client",
    "jupytext",
    "nbformat",
    "nbval",
    "traitlets",
)

INSTALLED = packages_distributions()  # module → the distributions that bring it


def distributions(requirements):
    return {Requirement(line).name.lower().replace("_", "-") for line in requirements}


def imported_distributions(path):
    """The distributions whose modules a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    others = names - set(sys.stdlib_module_names) - {"udlib"}
    return {name.lower().replace("_", "-") for module in others for name in INSTALLED.get(module, [module])[:1]}


def test_jupyter_is_what_the_extra_for_the_course_brings():
    assert {"jupyterlab", "ipywidgets", "nbval"} <= distributions(EXTRAS["course"])
    core = distributions(PROJECT["dependencies"])
    assert core.isdisjoint(distributions(EXTRAS["course"])) and core.isdisjoint({"ipython", "ipykernel", "jupyter"})


def test_the_package_imports_only_what_pyproject_asks_for():
    core = distributions(PROJECT["dependencies"])
    optional = {
        "cv2",
        "opencv-contrib-python-headless",
    }  # the extra `proposals`; a clear error says so when it is missing
    notebook = {"ipython", "ipywidgets", "nbclient", "nbformat"}  # with the extra `course`
    for path in sorted((ROOT / "udlib").rglob("*.py")):
        room = path.relative_to(ROOT / "udlib").parts[0]
        allowed = core | optional | (notebook if room in ("course", "figures") else set())
        assert imported_distributions(path) <= allowed, path


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What a Python without Jupyter prints: the modules that it cannot import, then each command by its name."""
    folder = tmp_path_factory.mktemp("bare")
    write_tiny_voc(folder / "tiny")
    picture = next((folder / "tiny" / "JPEGImages").glob("*.jpg"))
    commands = {
        "check": ["data", "check", "tiny"],
        "train": ["train", "tiny", "--out", "m", "--network", "small_narrow", "--epochs", "1", "--size", "24"],
        "evaluate": ["evaluate", "tiny", "--model", "m"],
        "predict": ["predict", str(picture), "--model", "m", "--map", "maps"],
        "doctor": ["doctor"],
    }
    source = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({JUPYTER!r}))  # None there: Python takes the module for one that is not installed
import udlib
print("command imports")
for module in pkgutil.walk_packages(udlib.__path__, "udlib.", onerror=lambda name: None):
    if not module.name.startswith(("udlib.course", "udlib.__main__")):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            print(module.name, error)
from udlib.cli import main
for name, words in {commands!r}.items():
    print("command", name)
    try:
        main(words)
    except SystemExit as stop:
        print("status", stop.code or 0)
    except ImportError as error:
        print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UDLIB_PROGRESS": "0", "COLUMNS": "200", "NO_COLOR": "1"}
    words = [sys.executable, "-c", source]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    outputs = dict(part.split("\n", 1) for part in done.stdout.split("command ")[1:])
    return outputs, folder, picture


def test_the_library_and_the_command_can_be_imported_without_jupyter(printed):
    assert printed[0]["imports"] == ""


@pytest.mark.parametrize("name", ["check", "train", "evaluate", "predict", "doctor"])
def test_a_command_ends_well_without_jupyter(printed, name):
    assert printed[0][name].rstrip().endswith("status 0"), printed[0][name]


def test_without_jupyter_predictions_and_maps_are_written(printed):
    outputs, folder, picture = printed
    assert picture.name in outputs["predict"]
    assert [path.suffix for path in (folder / "maps").iterdir()] == [".png"]


def test_the_doctor_names_what_the_lessons_need_and_how_to_install_it(printed):
    report = printed[0]["doctor"]
    assert "jupyterlab" in report and "ipywidgets" in report
    assert "pip install 'udlib[course]'" in report
    assert "PROBLEM" not in report
