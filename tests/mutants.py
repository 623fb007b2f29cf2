"""Plants single faults in the library, one at a time, and shows those that no test notices.

    python -m tests.mutants 100 7                            # 100 faults, drawn with seed 7
    python -m tests.mutants 20 7 --files udlib/losses.py     # in this file alone

Each fault is planted in a scratch copy of the tree. It is killed by the first test that fails (or does not end in time)
among the library's tests which import the file and execute the line; the tests run in a process that is forked from one
with the large libraries imported. Tests of the course and of the command do not count: they take minutes, and what the
library does is for its own tests to notice. Doctests of the file count.
"""

import argparse
import ast
import difflib
import importlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from tests.faults import faults, plant

PURE = ("losses", "metrics", "calibration", "posthoc", "attention", "statistics", "training")
READERS = "voc coco nuswide custom folders layouts tables base roots sources annotator".split()
LARGE = ("torch", "torchvision", "sklearn.metrics", "scipy.stats", "pandas", "hypothesis", "torchmetrics.functional")
NOT_COUNTED = ("udlib.course", "udlib.cli", "commands", "lessons")
SLOW = "not soak and not slow and not browser and not gpu"
NEAREST = 6  # test files; those that know a module best
SECONDS = 60  # a test may take this long, and twenty times what it took without a fault


class Tree:
    """A scratch copy of a checkout, and what its test files import."""

    def __init__(self, root, scratch):
        self.root, self.clean = Path(scratch) / "tree", Path(scratch) / "clean"
        for copy in (self.root, self.clean):
            if not copy.exists():
                leave_out = shutil.ignore_patterns(".*", "__pycache__", "notebooks", "results", "docs")
                shutil.copytree(root, copy, ignore=leave_out)
        self.modules = {self.name(path): path for path in self.root.glob("udlib/**/*.py")}
        self.tests = sorted(self.root.glob("tests/test_*.py"))
        self.names, self.imports, self.tests_of = cache(self.names), cache(self.imports), cache(self.tests_of)
        self.cache = Path(scratch) / "lines.json"
        self.executed = json.loads(self.cache.read_text()) if self.cache.exists() else {}

    def name(self, path):
        return ".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")

    def names(self, path):
        """Names of the modules that a file imports."""
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return names

    def imports(self, path):
        """The same, where a package stands for what its `__init__` imports too."""
        names = self.names(path)
        packages = [self.modules[name] for name in names if name in self.modules]
        return names.union(*(self.imports(file) for file in packages if file.name == "__init__.py" and file != path))

    def tests_of(self, module):
        """The nearest test files that import a module, or if none does, that import what imports it."""
        wanted = {module}
        while not (files := [path for path in self.tests if self.imports(path) & wanted and self.counts(path, module)]):
            more = wanted | {name for name, path in self.modules.items() if self.imports(path) & wanted}
            if more == wanted:
                return [path for path in self.tests if self.imports(path) & wanted][:NEAREST]
            wanted = more
        distance = {path: (not self.names(path) & wanted, -kinship(module, path)) for path in files}
        return sorted(files, key=lambda path: (distance[path], path.stat().st_size))[:NEAREST]

    def counts(self, path, module):
        own = module.rpartition(".")[2] in path.stem.split("_")
        return own or not any(name.startswith(NOT_COUNTED) for name in self.imports(path))

    def lines(self, test):
        """What each passing test of a file (or doctest of a module) executes without a fault, and for how long."""
        key = str(test.relative_to(self.root))
        if key not in self.executed:
            _, text = forked(self.clean, 1800, lambda: Trace(self.clean).of(self.clean / key))
            self.executed[key] = json.loads(text)
            self.cache.write_text(json.dumps(self.executed))
        return self.executed[key]


def kinship(module, test):
    """How much the name of a test file has in common with that of a module, whose last part says most."""
    return sum(place for place, word in enumerate(module.split(".")) if word in test.stem.split("_"))


class Trace:
    """A pytest plugin that notes which lines below a folder each passing test executes, its fixtures included."""

    def __init__(self, root):
        self.folder, self.now, self.tests, self.fixtures, self.failed = f"{root}{os.sep}", set(), {}, {}, set()

    def call(self, frame, event, arg):
        return self.line if frame.f_code.co_filename.startswith(self.folder + "udlib") else None

    def line(self, frame, event, arg):
        self.now.add((frame.f_code.co_filename, frame.f_lineno))
        return self.line

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.now, start = set(), time.monotonic()
        threading.settrace(self.call)
        sys.settrace(self.call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            shared = [self.fixtures.get(name, set()) for name in getattr(item, "fixturenames", ())]
            self.tests[item.nodeid] = time.monotonic() - start, self.now.union(*shared)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before, self.now = self.now, set()
        try:
            return (yield)
        finally:
            self.fixtures.setdefault(fixturedef.argname, set()).update(self.now)
            self.now |= before

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)

    def of(self, file):
        pytest_on([file], self)
        tests = {}
        for name, (seconds, places) in self.tests.items():
            by_file = {}
            for file, line in places:
                by_file.setdefault(file.removeprefix(self.folder), []).append(line)
            tests[name] = {"seconds": seconds, "lines": by_file}
        return json.dumps({name: facts for name, facts in tests.items() if name not in self.failed})


class Chosen:
    """A pytest plugin that runs these tests alone, and keeps the name of the first that fails."""

    def __init__(self, names):
        self.names, self.killer = names, ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid in self.names]

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.killer = self.killer or report.nodeid


def pytest_on(files, plugin):
    # Without the project's own options, which refuse a mark that is not registered (yet).
    options = ["-o", "addopts=", "-q", "--doctest-modules", "--tb=no", "-p", "no:cacheprovider", "-m", SLOW]
    options += ["-x"] if isinstance(plugin, Chosen) else []
    return pytest.main([*options, *map(str, files)], plugins=[plugin])


def forked(folder, seconds, work):
    """Runs `work` in a forked process with `folder` as its tree; returns whether it ended in time, and its text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(folder.parent / "log.txt", "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.chdir(folder)
        sys.path[:] = [str(folder), *(entry for entry in sys.path if entry not in ("", os.environ["MUTANTS_ROOT"]))]
        os.environ["PYTHONPATH"] = str(folder)
        text = "no test could be run"
        with suppress(BaseException):
            text = work()
        with os.fdopen(writing, "w") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(writing)
    end, chunks = time.monotonic() + seconds, []
    with os.fdopen(reading, "rb") as pipe:
        while in_time := bool(select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]):
            chunks.append(os.read(pipe.fileno(), 1 << 20))
            if not chunks[-1]:
                break
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return in_time, b"".join(chunks).decode()


def killer(tree, module, lines):
    """Runs the tests that can notice a fault in these lines; returns what killed it, or "" where nothing did."""
    file = tree.modules[module]
    covered = False
    for test in [file, *tree.tests_of(module)]:
        facts = tree.lines(test)
        names = {
            name: fact["seconds"]
            for name, fact in facts.items()
            if lines is None or not {*lines}.isdisjoint(fact["lines"].get(str(file.relative_to(tree.root)), ()))
        }
        if names and (killed := run(tree, [test], names)):
            return killed
        covered = covered or bool(names)
    if not covered:  # executed by a process that a test starts, or by the import
        for test in tree.tests_of(module):
            if killed := run(tree, [test], {name: fact["seconds"] for name, fact in tree.lines(test).items()}):
                return killed
    return ""


def run(tree, files, names):
    def work():
        plugin = Chosen(names)
        code = pytest_on(files, plugin)
        if code in (3, 4):
            return "PYTEST ITSELF FAILED"
        return "" if code in (0, 5) else plugin.killer or "collecting the tests"

    in_time, text = forked(tree.root, SECONDS + 20 * sum(names.values()), work)
    return text if in_time else "the time limit"


def pool(tree, files):
    """The files in which faults are planted: those named, or the pure functions, the training and the readers."""
    if files:
        return [tree.root / file for file in files]
    patterns = [f"udlib/{name}{end}" for name in PURE for end in (".py", "/**/*.py")]
    patterns += [f"udlib/datasets/{name}{end}" for name in READERS for end in (".py", "/**/*.py")]
    return sorted({path for pattern in patterns for path in tree.root.glob(pattern)})


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--files", nargs="+", help="files to plant faults in, relative to the checkout")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="the checkout")
    parser.add_argument("--scratch", type=Path, help="a folder for the copy of the tree, kept for the next run")
    options = parser.parse_args(words)
    os.environ |= {
        "MUTANTS_ROOT": str(Path.cwd()),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # reading every package's list
    for name in LARGE:
        with suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(options.root, options.scratch or folder)
        survivors = study(tree, pool(tree, options.files), options.count, random.Random(options.seed))
    return survivors


def study(tree, files, count, draw):
    """Plants `count` faults and prints what becomes of each; returns how many survived."""
    sources = {file: file.read_text() for file in files}
    places = [(file, fault) for file, source in sources.items() for fault in faults(source)]
    survived = 0
    for number, (file, fault) in enumerate(draw.sample(places, min(count, len(places))), 1):
        before, module = sources[file], tree.name(file)
        after = plant(before, fault, draw.choice(fault.texts))
        where = f"{file.relative_to(tree.root)}:{before.encode()[: fault.start].count(10) + 1}"
        try:
            write(file, after, number)
            killed = killer(tree, module, fault.lines)
        finally:
            write(file, before, 0)
        print(f"{number:4} {'killed  ' if killed else 'SURVIVED'} {where}  {killed}", flush=True)
        if not killed:
            survived += 1
            lines = difflib.unified_diff(before.splitlines(), after.splitlines(), where, "fault", n=2, lineterm="")
            print("\n".join(lines), flush=True)
    print(f"{number} faults: {number - survived} killed, {survived} survived")
    return survived


def write(file, source, number):
    # Bytecode is believed by time and size: a time of its own for every fault.
    file.write_text(source)
    os.utime(file, (number + 1, number + 1))


if __name__ == "__main__":
    main()
