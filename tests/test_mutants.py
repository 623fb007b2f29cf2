"""The tool that plants faults: it finds places in code alone, plants one at a time, and tells killed from survived."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.faults import faults, plant
from tests.grafts import graft

ROOT = Path(__file__).resolve().parents[1]


def planted(source):
    """Every source text that differs from this one by a single fault."""
    return {plant(source, fault, text) for fault in faults(source) for text in fault.texts}


@pytest.mark.parametrize(
    "source, changed",
    [
        ("a < b", {"(a <= b)", "(a >= b)"}),
        ("a and not b", {"(a or not b)", "((a))", "((not b))", "a and (b)"}),
        ("a + b", {"(a - b)", "(a)", "(b)"}),
        ("x = 3", {"x = 4", "x = 2", "x = 6"}),
        ("x = True", {"x = False"}),
        ("x[i:]", {"x[i + 1:]", "x[i:-1]"}),
        ("f(a, dim=b)", {"pass", "(f(a))"}),
        ("x += f", {"pass"}),
        ("x = a if b else c", {"x = (a)", "x = (c)", "x = (c if b else a)", "x = a if (not b) else c"}),
    ],
)
def test_the_faults_of_a_line(source, changed):
    assert planted(source) == changed


@pytest.mark.parametrize(
    "source",
    ['"""A docstring with 3 < 4."""', "x: Literal[3]", "import math", "warnings.warn('3', stacklevel=3)", "f'{a + 3}'"],
)
def test_what_changes_only_what_is_said_is_left_alone(source):
    assert planted(source) <= {"pass"}


def test_every_fault_of_the_library_is_a_python_program():
    for path in sorted(ROOT.glob("udlib/training/*.py")):
        source = path.read_text()
        for fault in faults(source):
            compile(plant(source, fault, fault.texts[0]), str(path), "exec")


def test_a_branch_matters_where_it_is_executed_and_a_default_or_a_constant_everywhere():
    source = "def f(a=1):\n    if a:\n        return 2\n\n\nlimit = 5\n"
    assert [fault.lines for fault in faults(source)] == [None, range(2, 3), range(3, 4), None]


def test_a_graft_reaches_what_was_imported_before(monkeypatch):
    before = (
        "LIMIT = 1\ndef f(a=1):\n    return a + LIMIT\nclass C:\n    size = 1\n    def m(self):\n        return 1\n"
    )
    module = types.ModuleType("toy")
    module.__file__ = "toy.py"
    monkeypatch.setitem(sys.modules, "toy", module)
    exec(before, vars(module))
    f, thing = module.f, module.C()
    graft(module, before.replace("1", "2"))
    assert (f(), thing.m(), thing.size, module.LIMIT, isinstance(thing, module.C)) == (4, 2, 2, 2, True)


@pytest.fixture
def toy(tmp_path):
    """A checkout with one module, of which one function is tested and the other one only executed."""
    files = {
        "udlib/__init__.py": "",
        "udlib/toy.py": "def add(a, b):\n    return a + b\n\n\n"
        "def loop(n):\n    while n > 0:\n        n -= 1\n    return n\n",
        "udlib/idle.py": "def add(a, b):\n    return a + b\n",
        "tests/test_toy.py": "from udlib.toy import add, loop\n\n\ndef test_add():\n    assert add(2, 3) == 5\n\n\n"
        "def test_loop():\n    assert loop(2) == 0\n",
        "tests/test_idle.py": "from udlib.idle import add\n\n\ndef test_add():\n    add(2, 3)\n",
    }
    for name, text in files.items():
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_text(text)
    return tmp_path / "checkout"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are planted in forked processes")
def test_a_fault_that_a_test_notices_is_killed_and_one_that_none_notices_is_shown(toy):
    command = [sys.executable, "-m", "tests.mutants", "9", "0", "--no-libraries", "--seconds", "2", "--root", str(toy)]
    ended = subprocess.run(
        [*command, "--files", "udlib/toy.py", "udlib/idle.py"], cwd=ROOT, text=True, capture_output=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if "udlib/" in line and line[:4].strip().isdigit()]
    by_file = {name: [line for line in lines if f"udlib/{name}.py" in line] for name in ("toy", "idle")}
    assert len(by_file["idle"]) == 1 and "SURVIVED" in by_file["idle"][0] and "-    return a + b" in ended.stdout
    assert (
        all("killed" in line for line in by_file["toy"] if ":2 " in line)
        and "tests/test_toy.py::test_add" in ended.stdout
    )
    assert (toy / "udlib" / "toy.py").read_text().startswith("def add(a, b):\n    return a + b\n")
