"""The house: imports run downwards, nothing goes in circles, files stay short, and what is public says what it does."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "udlib"
FLOORS = [
    ["losses", "losses_detection", "attention", "metrics", "calibration", "posthoc", "statistics", "progress", "files"],
    ["datasets", "backbones", "heads", "proposals", "detectors"],
    ["devices", "batches", "checkpoints", "logs", "localisation", "detection_measures", "optimization", "training"],
    ["methods"],
    [
        "measures",
        "sizes",
        "recipe",
        "experiments",
        "recipes",
        "models",
        "making",
        "paper",
        "tables",
        "reproduce",
        "verdicts",
        "ledger",
    ],
    # On the top floor and inside a folder a later file may use an earlier one, never the other way round.
    [
        "plots",
        "overlays",
        "telling",
        "widgets",
        "graphs",
        "regions",
        "exercises",
        "report",
        "comparison",
        "doctor",
        "cli",
        "__main__",
    ],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LONGEST = 350
FILES = sorted(PACKAGE.rglob("*.py"))


def relative(path):
    return str(path.relative_to(ROOT))


def module(path):
    """`udlib/datasets/base.py` → `udlib.datasets.base`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imported(path):
    """The project's own modules that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write imports out in full, from udlib"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name.startswith("udlib") and name not in MODULES:
                name = name.rpartition(".")[0]
            if name in MODULES and name != "udlib" and MODULES[name] != path:
                found.add(name)
    return found


def room(name):
    return name.split(".")[1]


def below(upper, lower):
    """Whether module `upper` may import module `lower`."""
    if room(upper) == room(lower):
        return True  # inside a folder: the test for circles decides
    here, there = FLOOR[room(upper)], FLOOR[room(lower)]
    top = len(FLOORS) - 1
    return (
        there < here
        or (there == here != top)
        or (there == here == top and FLOORS[top].index(room(lower)) < FLOORS[top].index(room(upper)))
    )


def test_every_file_has_its_floor():
    assert {room(name) for name in MODULES if name != "udlib"} <= set(FLOOR)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "udlib"])
def test_imports_run_downwards(name):
    assert [lower for lower in imported(MODULES[name]) if not below(name, lower)] == []


def test_imports_never_go_in_circles():
    edges = {name: imported(path) for name, path in MODULES.items()}
    while free := {name for name, lower in edges.items() if not lower & edges.keys() - {name}}:
        edges = {name: lower for name, lower in edges.items() if name not in free}
    assert edges == {}, f"a circle among {', '.join(sorted(edges))}"


@pytest.mark.parametrize("path", [*FILES, ROOT / "notebooks" / "build.py"], ids=relative)
def test_no_file_is_longer_than_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_public_function_and_class_says_what_it_does(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, f"{path.name} has no docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    # The check of an exercise is called by its number, and the exercise says what it does; a painter's name says it.
    spoken_for = [node for node in public if "exercise" in map(decorator, node.decorator_list) or paints(node)]
    assert [node.name for node in public if not ast.get_docstring(node) and node not in spoken_for] == []


def decorator(node):
    """`exercise` for `@exercise("01.1")`."""
    called = node.func if isinstance(node, ast.Call) else node
    return getattr(called, "id", "")


def paints(node):
    """Whether a function draws one kind of thing on a sketch."""
    return isinstance(node, ast.FunctionDef) and ast.unparse(node.args) == "s: Sketch"


def test_the_rules_themselves_notice_an_import_that_runs_upwards(tmp_path):
    wrong = tmp_path / "losses.py"
    wrong.write_text("def f():\n    from udlib.training.loop import fit\n    return fit\n")
    assert imported(wrong) == {"udlib.training.loop"}
    assert not below("udlib.losses", "udlib.training.loop") and not below("udlib.figures.plots", "udlib.cli")
    assert below("udlib.cli", "udlib.figures.plots") and below("udlib.training.loop", "udlib.losses")
