"""The house: imports run downwards, files and functions stay short, no method is known by name outside its own room, and
what is public says what it does. The rules for imports stand in pyproject.toml; import-linter checks them."""

import ast
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "udlib"
FILES = sorted(PACKAGE.rglob("*.py"))
LIBRARY = [path for path in FILES if path.relative_to(PACKAGE).parts[0] not in ("course", "cli")]
DRAWN = sorted(path for folder in ("diagrams", "slides") for path in (ROOT / "notebooks" / folder).glob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

LONGEST_FILE = 350
MOST_FILES_AT_THE_TOP = 14
LONGEST_FUNCTION = 60  # lines, without those of its docstring
MOST_PARAMETERS = 8

# Functions that may have more parameters, each with its reason.
MANY_PARAMETERS = {
    "udlib/calibration/intervals.py:calibration_interval": "public: a measure, its data, how to resample, its options",
    "udlib/losses/distillation.py:uncertainty_distillation_loss": "public: two networks' outputs, and what Eq. 18 leaves open",
}

# Where the name of a method may be compared, each place with its reason.
KNOWS_METHODS = {
    "udlib/methods/": "their own room",
    "udlib/course/recipes.py": "the course's experiments",
    "udlib/course/paper_recipes.py": "the recipe behind each row of a table of the papers",
    "udlib/course/paper_tables.py": "there `method` is the papers' name of a row",
}


def relative(path):
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def method_names():
    """The files and packages of udlib/methods that declare a class `Settings`."""
    files = [path for path in sorted((PACKAGE / "methods").rglob("*.py")) if path.stem != "base"]
    declare = [path for path in files if any(getattr(node, "name", "") == "Settings" for node in parsed(path).body)]
    return {path.relative_to(PACKAGE / "methods").with_suffix("").parts[0] for path in declare}


def functions(path):
    """`udlib/models.py:TrainedModel.predict` → its node, for every function and method of a file, nested ones too."""
    found = {}

    def visit(node, name):
        for child in ast.iter_child_nodes(node):
            inside = f"{name}{child.name}" if isinstance(child, (*FUNCTIONS, ast.ClassDef)) else name.rstrip(".")
            if isinstance(child, FUNCTIONS):
                found[inside if inside not in found else f"{inside}, line {child.lineno}"] = child
            visit(child, f"{inside}." if inside[-1] != ":" else inside)

    visit(parsed(path), f"{relative(path)}:")
    return found


def length(node):
    """Lines of a function from `def` to its last, without its docstring."""
    first = node.body[0]
    docstring = first if ast.get_docstring(node, clean=False) is not None else None
    return node.end_lineno - node.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def parameters(node):
    """The names that a function takes, without `self` and `cls`."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [argument.arg for argument in named if argument and argument.arg not in ("self", "cls")]


def method_comparisons(tree):
    """Lines that compare a `.method` or a method's name, look something up by `[….method]`, or match on either."""

    methods = method_names()

    def names_a_method(node):
        constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
        return getattr(node, "attr", None) == "method" or not methods.isdisjoint(map(str, constants))

    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(map(names_a_method, (node.left, *node.comparators))):
            lines.append(node.lineno)
        elif isinstance(node, ast.Subscript) and getattr(node.slice, "attr", None) == "method":
            lines.append(node.lineno)
        elif isinstance(node, ast.match_case) and names_a_method(node.pattern):
            lines.append(node.pattern.lineno)
    return sorted(lines)


def lint_imports(folder):
    """import-linter's exit status and report on the package in a folder, by the contracts of pyproject.toml."""
    words = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    environment = {"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "200", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [*words, *options], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    return done.returncode, done.stdout + done.stderr


def test_imports_obey_the_contracts():
    status, report = lint_imports(ROOT)
    assert status == 0, report
    assert "Contracts: " in report and " 0 broken." in report


def test_the_contracts_notice_an_import_that_runs_upwards_a_circle_and_jupyter(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "udlib", ignore=shutil.ignore_patterns("__pycache__"))
    planted = {
        "losses.py": "from udlib.training import loop",
        "heads.py": "from udlib.course import verdicts",
        "models.py": "import ipywidgets",
        "datasets/base.py": "from udlib.datasets import voc",
    }
    for name, line in planted.items():
        with (tmp_path / "udlib" / name).open("a", encoding="utf-8") as file:
            file.write(f"\n\ndef planted():\n    {line}\n")
    status, report = lint_imports(tmp_path)
    assert status == 1
    for sentence in (
        "udlib.losses is not allowed to import udlib.training",
        "udlib.heads -> udlib.course.verdicts",
        "udlib.models is not allowed to import ipywidgets",
        "Imports never go in circles BROKEN",
    ):
        assert sentence in report


def test_few_files_lie_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FILES_AT_THE_TOP


@pytest.mark.parametrize("path", [*FILES, *DRAWN, ROOT / "notebooks" / "build.py"], ids=relative)
def test_no_file_is_longer_than_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", [*LIBRARY, *DRAWN], ids=relative)
def test_functions_of_the_library_are_short_and_take_few_parameters(path):
    nodes = functions(path)
    assert {name: length(node) for name, node in nodes.items() if length(node) > LONGEST_FUNCTION} == {}
    many = {name: len(parameters(node)) for name, node in nodes.items() if len(parameters(node)) > MOST_PARAMETERS}
    assert {name: count for name, count in many.items() if name not in MANY_PARAMETERS} == {}


def test_every_exception_for_parameters_is_still_needed_and_has_a_reason():
    nodes = {name: node for path in LIBRARY for name, node in functions(path).items()}
    for name, reason in MANY_PARAMETERS.items():
        assert len(parameters(nodes[name])) > MOST_PARAMETERS and reason


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_are_written_out_from_the_root(path):
    relatives = [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, ast.ImportFrom) and node.level]
    assert relatives == []


@pytest.mark.parametrize("path", [p for p in FILES if not relative(p).startswith(tuple(KNOWS_METHODS))], ids=relative)
def test_no_method_is_known_by_name_outside_the_methods(path):
    assert method_comparisons(parsed(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "recipe.method == 'x'",
        "name == 'distillation'",
        "name != 'parallel'",
        "name in ('supervised', 'other')",
        "TRAINERS[recipe.method]",
        "match name:\n    case 'detection': pass",
    ],
)
def test_the_rule_notices_each_way_to_know_a_method(line):
    assert {"supervised", "distillation", "self_distillation", "parallel", "detection"} <= method_names()
    assert len(method_comparisons(ast.parse(line))) == 1
    assert method_comparisons(ast.parse("recipe.network == 'small'\nrecipe.methods\nTRAINERS['x']")) == []


def test_lengths_and_parameters_are_counted_as_the_rule_says():
    tree = ast.parse('def f(self, a, /, b, *c, d=1, **e):\n    """One.\n\n    Two.\n    """\n    x = 1\n    return x\n')
    assert length(tree.body[0]) == 3 and parameters(tree.body[0]) == ["a", "b", "d", "c", "e"]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_public_function_and_class_says_what_it_does(path):
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body, f"{path.name} has no docstring"
    public = [
        node for node in tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
    ]
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
