"""`make wheelhouse` and its `install.py`: the course in a room without a network."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from borrowed_torch import write_borrowed_torch, write_wheel

from docs.teaching import install_from_wheelhouse, wheelhouse

ROOT = Path(__file__).resolve().parents[1]
LOCK = """torch==2.15.0
torchvision==0.29.2
triton==3.9.0 ; sys_platform != 'beos'
nvidia-cudnn-cu13==9.26.0.51
numpy==1.0.0 ; python_full_version < '3.0'
PyYAML==6.0.3
"""
PLAIN = [("torch", "2.15.0"), ("torchvision", "0.29.2")]
YAML = ("pyyaml", "6.0.3")


@pytest.fixture
def lock(tmp_path):
    file = tmp_path / "some.lock"
    file.write_text(LOCK)
    return file


@pytest.mark.parametrize(
    "system, cuda, expected",
    [
        ("linux", False, [("torch", "2.15.0+cpu"), ("torchvision", "0.29.2+cpu"), YAML]),
        ("darwin", False, [*PLAIN, YAML]),
        ("win32", False, [*PLAIN, YAML]),
        ("linux", True, [*PLAIN, ("triton", "3.9.0"), ("nvidia-cudnn-cu13", "9.26.0.51"), YAML]),
    ],
)
def test_a_wheelhouse_holds_pytorch_for_the_cpu_unless_cuda_is_asked_for(lock, system, cuda, expected):
    assert wheelhouse.pins(lock, cuda, system) == expected


def test_only_pytorchs_cpu_build_comes_from_pytorchs_index(tmp_path):
    build, other = wheelhouse.Pin("torch", "2.15.0+cpu"), wheelhouse.Pin("tqdm", "4.70.1")
    assert wheelhouse.source_of(build, "https://one.example/cpu") == ["--index-url", "https://one.example/cpu"]
    assert wheelhouse.source_of(build, str(tmp_path)) == ["--no-index", "--find-links", str(tmp_path)]
    assert wheelhouse.source_of(other, str(tmp_path)) == []
    groups = list(wheelhouse.batches([build, other, wheelhouse.Pin("torch", "2.15.0")], str(tmp_path)))
    assert [[pin.name for pin in group] for group, _ in groups] == [["tqdm", "torch"], ["torch"]]


@pytest.mark.slow
def test_a_package_that_cannot_be_fetched_is_named_and_the_same_command_continues(tmp_path, monkeypatch, capsys):
    shelf, folder, lock = tmp_path / "shelf", tmp_path / "wheels", tmp_path / "some.lock"
    shelf.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setattr(wheelhouse, "build_project", lambda root, out: write_wheel(out, "udlib", "9.9", {}))
    write_wheel(shelf, "first_package", "1.0", {})
    lock.write_text("first-package==1.0\nlost-package==3.0\n")
    words = ["--out", str(folder), "--lock", str(lock)]

    assert wheelhouse.main(words) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 packages" in out
    assert "lost-package==3.0 could not be fetched: Could not find a version that satisfies the requirement" in err
    assert "still missing: lost-package; the same command tries only these again" in err
    assert [path.name for path in folder.iterdir()] == ["first_package-1.0-py3-none-any.whl"]

    (shelf / "first_package-1.0-py3-none-any.whl").unlink()  # fetching it again would now fail
    write_wheel(shelf, "lost_package", "3.0", {})
    assert wheelhouse.main(words) == 0
    assert "1 of 2 packages are here already" in capsys.readouterr().out
    assert (folder / "requirements.txt").read_text() == "first-package==1.0\nlost-package==3.0\n"
    assert len(json.loads((folder / "wheelhouse.json").read_text())["wheels"]) == 3
    assert {"install.py", "README.txt"} <= {path.name for path in folder.iterdir()}


def test_the_installer_refuses_another_python_and_an_incomplete_copy(tmp_path):
    wheel = write_wheel(tmp_path, "some_package", "1.0", {})
    here = {"python": ".".join(platform.python_version_tuple()[:2]), "system": platform.system()}
    here |= {"machine": platform.machine(), "wheels": {wheel.name: wheel.stat().st_size}}
    assert install_from_wheelhouse.unfit(here, tmp_path) is None
    assert "made for Python 2.7 for" in install_from_wheelhouse.unfit(here | {"python": "2.7"}, tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:-1])
    assert (
        install_from_wheelhouse.unfit(here, tmp_path)
        == f"missing or incomplete here, 1 of 1 wheels ({wheel.name}): copy the folder again"
    )


def run(words, folder, **variables):
    """Run a command in a folder without this test's own package path; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "UDLIB_DATA")}
    done = subprocess.run(
        [*map(str, words)], cwd=folder, env=environment | variables, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def without_network(words):
    """The command in a network of its own that leads nowhere, where this system can make one."""
    lonely = ["unshare", "--net"]
    possible = shutil.which("unshare") and not subprocess.run([*lonely, "true"], capture_output=True).returncode
    return [*lonely, *words] if possible else words


OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_COMPILE": "1"} | dict.fromkeys(
    ("http_proxy", "https_proxy"), "http://127.0.0.1:9"
)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A small checkout in which `install.py` has run without a network; what it printed; and the wheelhouse."""
    folder = tmp_path_factory.mktemp("room")
    probe = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--retries",
        "0",
        "--dest",
        str(folder),
        "zipp==4.1.2",
    ]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no package index can be reached, so no wheelhouse can be made")
    (folder / "wheels of torch").mkdir()
    pinned = wheelhouse.pins(ROOT / "requirements.lock", cuda=False)
    write_borrowed_torch(
        folder / "wheels of torch", {name: version for name, version in pinned if name in wheelhouse.TORCH}
    )
    wheels = folder / "wheelhouse"
    if sys.platform == "linux":
        words = ["--torch-index", folder / "wheels of torch"]
    else:
        words = []  # there the ordinary index has the build for the CPU
    run([sys.executable, ROOT / "docs" / "teaching" / "wheelhouse.py", "--out", wheels, *words], folder)
    project = folder / "project"
    shutil.copytree(ROOT / "udlib", project / "udlib", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "notebooks").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, project)
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", project / "notebooks")
    printed = run(without_network([sys.executable, wheels / "install.py"]), project, **OFFLINE)
    return project, printed, wheels


@pytest.mark.slow
def test_a_wheelhouse_has_each_package_of_the_lock_and_the_project_and_nothing_for_cuda(room):
    _, _, wheels = room
    listed = json.loads((wheels / "wheelhouse.json").read_text())["wheels"]
    pinned = wheelhouse.pins(ROOT / "requirements.lock", cuda=False)
    assert len(listed) == len(pinned) + 1 == len(list(wheels.glob("*.whl")))
    assert not [name for name in listed if name.startswith(("nvidia", "triton", "cuda"))]


@pytest.mark.slow
def test_without_a_network_everything_is_installed_and_the_doctor_is_content(room):
    project, printed, _ = room
    assert "PROBLEM" not in printed and "Ready" in printed and "ready: `make lab` opens the course" in printed
    assert "with this checkout; 3 of 3 packages present" in printed
    python = project / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    source = "import udlib, jupyterlab, timm, numpy; print(udlib.__file__, numpy.__file__, jupyterlab.__file__)"
    package, *others = run([python, "-c", source], project.parent, **OFFLINE).split()
    assert Path(package) == project / "udlib" / "__init__.py"
    assert [Path(file).is_relative_to(project / ".venv") for file in others] == [True, True]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_after_that_make_lab_installs_nothing(room):
    project, _, _ = room
    commands = run(["make", "--dry-run", "lab"], project)
    assert "-m udlib lab" in commands and "pip" not in commands


@pytest.mark.slow
def test_without_the_folder_of_the_project_the_package_alone_is_installed(room, tmp_path):
    project, _, wheels = room
    words = [sys.executable, wheels / "install.py", "--environment", project / ".venv"]
    printed = run(without_network(words), tmp_path, **OFFLINE)
    assert "ready, without lessons" in printed and "PROBLEM" not in printed
    python = project / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    file = run([python, "-c", "import udlib; print(udlib.__file__)"], tmp_path).strip()
    assert Path(file).is_relative_to(project / ".venv")
