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
import gc
import importlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import Fault, faults, plant
from tests.grafts import graft
from tests.watching import First, Trace, run_all

PURE = ("losses", "metrics", "calibration", "posthoc", "attention", "statistics", "training")
READERS = "voc coco nuswide custom folders layouts tables base roots sources annotator".split()
LARGE = ("torch", "torchvision", "sklearn.metrics", "scipy.stats", "pandas", "hypothesis", "torchmetrics.functional")
NOT_COUNTED = ("udlib.course", "udlib.cli", "commands", "lessons")
SLOW = "not soak and not slow and not browser and not gpu"
NEAREST = 6  # test files; those that know a module best
LONGEST = 3600  # seconds for all tests of a file
SECONDS = 60


class Tree:
    """A scratch copy of a checkout, and what its test files import."""

    def __init__(self, root, scratch, seconds, lines=None):
        self.root, self.started_in, self.seconds = Path(scratch).resolve() / "tree", str(Path.cwd()), seconds
        if not self.root.exists():
            leave_out = shutil.ignore_patterns(".*", "__pycache__", "notebooks", "results", "docs")
            shutil.copytree(root, self.root, ignore=leave_out)
        self.modules = {self.name(path): path for path in self.root.glob("udlib/**/*.py")}
        self.tests = sorted(self.root.glob("tests/test_*.py"))
        self.names, self.imports, self.tests_of = cache(self.names), cache(self.imports), cache(self.tests_of)
        self.lines, self.executed = Path(lines or Path(scratch) / "lines"), {}
        self.lines.mkdir(parents=True, exist_ok=True)
        self.library = zlib.crc32(b"".join(path.read_bytes() for path in sorted(self.modules.values())))

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
        modules = {module}
        while not (
            files := [path for path in self.tests if self.imports(path) & modules and self.counts(path, module)]
        ):
            more = modules | {name for name, path in self.modules.items() if self.imports(path) & modules}
            if more == modules:
                return [path for path in self.tests if self.imports(path) & modules][:NEAREST]
            modules = more
        distance = {path: (not self.names(path) & modules, -kinship(module, path)) for path in files}
        return sorted(files, key=lambda path: (distance[path], path.stat().st_size))[:NEAREST]

    def counts(self, path, module):
        own = path.stem.endswith("_" + module.rpartition(".")[2])
        return own or not any(name.startswith(NOT_COUNTED) for name in self.imports(path))


def kinship(module, test):
    """How much the name of a test file has in common with that of a module, whose last part says most."""
    return sum(place for place, word in enumerate(module.split(".")) if word in test.stem.split("_"))


class Judge:
    """A pytest plugin that collects the tests of a module once, and runs them in a forked process for each fault."""

    def __init__(self, tree, module, cases, report):
        self.tree, self.file, self.module, self.cases, self.report = tree, tree.modules[module], module, cases, report
        self.failed = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        self.groups = {}  # in the order of the test files, the nearest first
        for item in session.items:
            self.groups.setdefault(item.nodeid.partition("::")[0], []).append(item)
        for case in self.cases:
            self.report(case, self.killer(case))
        return True

    def killer(self, case):
        """What kills a fault: a test, the time limit, or the import; "" where nothing does."""
        place, covered, left = str(self.file.relative_to(self.tree.root)), False, []
        for name, items in self.groups.items():
            facts = self.tree.executed.setdefault(name, {}) or self.trace(name, items)
            passing = [item for item in items if item.nodeid in facts]
            lines = {*(case.fault.lines or ())}
            noticing = [
                item
                for item in passing
                if case.fault.lines is None or not lines.isdisjoint(facts[item.nodeid]["lines"].get(place, ()))
            ]
            if noticing and (killed := self.run(case, noticing, facts)):
                return killed
            covered = covered or bool(noticing)
            left.append((passing, facts))
        if covered:
            return ""
        # Executed by a process that a test starts, or by the import alone.
        return next((killed for items, facts in left if items and (killed := self.run(case, items, facts))), "")

    def trace(self, name, items):
        """What each test of a file executes: as another run has found it, or as is found now."""
        stamp = zlib.crc32((self.tree.root / name).read_bytes(), self.tree.library)
        stored = self.tree.lines / f"{name.replace('/', '.')}-{stamp:08x}.json"
        if not stored.exists():

            def work():
                trace = Trace(self.tree.root)
                items[0].config.pluginmanager.register(trace)
                run_all(items)
                return trace.facts()

            partial = stored.with_suffix(f".{os.getpid()}")
            partial.write_text(forked(self.tree, LONGEST, work)[1])
            partial.replace(stored)
        self.tree.executed[name] = json.loads(stored.read_bytes() or "{}")
        return self.tree.executed[name]

    def run(self, case, items, facts):
        def work():
            try:
                graft(sys.modules[self.module], case.source)
            except Exception as error:
                return f"importing it ({error!r})"
            first = First()
            items[0].config.pluginmanager.register(first)
            run_all(items, first)
            return first.name

        seconds = self.tree.seconds + 20 * sum(facts[item.nodeid]["seconds"] for item in items)
        write(self.file, case.source)  # for the processes that tests start
        try:
            in_time, text = forked(self.tree, seconds, work)
        finally:
            write(self.file, case.before)
        return text if in_time else "the time limit"


def forked(tree, seconds, work):
    """Runs `work` in a forked process; returns whether it ended in time, and the text that it gave."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        text = "the process ended"
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


def judge(tree, module, cases):
    """Runs the tests of one module against its faults, in a process of its own; returns what killed each, by number."""

    def work():
        killers = {}
        os.chdir(tree.root)
        sys.path[:] = [str(tree.root), *(entry for entry in sys.path if entry not in ("", tree.started_in))]
        os.environ["PYTHONPATH"] = str(tree.root)
        with open(tree.root.parent / "log.txt", "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        files = [str(path) for path in (tree.modules[module], *tree.tests_of(module))]
        # Without the project's own options, which refuse a mark that is not registered.
        options = ["-o", "addopts=", "-q", "--doctest-modules", "--tb=no", "-p", "no:cacheprovider", "-m", SLOW]

        def report(case, killed):
            killers[case.number] = killed

        pytest.main([*options, *files], plugins=[Judge(tree, module, cases, report)])
        return json.dumps({"killers": killers, "executed": tree.executed})

    in_time, text = forked(tree, LONGEST * len(cases), work)
    outcome = json.loads(text)
    if len(outcome["killers"]) < len(cases):
        raise RuntimeError(f"the tests of {module} cannot be collected: see {tree.root.parent / 'log.txt'}")
    tree.executed = outcome["executed"]
    return {int(number): killed for number, killed in outcome["killers"].items()}


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
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="a test may take this long, and 20 times its usual time"
    )
    parser.add_argument("--lines", type=Path, help="a folder for the lines that each test executes, for several runs")
    parser.add_argument("--no-libraries", action="store_true", help="import no large library beforehand")
    options = parser.parse_args(words)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which would read the metadata of every installed package
    for name in () if options.no_libraries else LARGE:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # or each forked process would copy the memory of all these libraries when it collects garbage
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(options.root.resolve(), options.scratch or folder, options.seconds, options.lines)
        draw = random.Random(options.seed)
        return study(tree, drawn(tree, pool(tree, options.files), options.count, draw), draw)


class Case(NamedTuple):
    """A drawn fault: its number, where it is, and the source without and with it."""

    number: int
    file: Path
    fault: Fault
    before: str
    source: str

    def where(self, root):
        return f"{self.file.relative_to(root)}:{self.before.encode()[: self.fault.start].count(10) + 1}"


def drawn(tree, files, count, draw):
    """`count` faults at different places of these files."""
    places = [(file, source, fault) for file in files for source in [file.read_text()] for fault in faults(source)]
    sample = draw.sample(places, min(count, len(places)))
    return [
        Case(number, file, fault, source, plant(source, fault, draw.choice(fault.texts)))
        for number, (file, source, fault) in enumerate(sample, 1)
    ]


def study(tree, cases, draw):
    """Plants each fault and prints what becomes of it; returns how many survived."""
    survived = 0
    files = sorted({case.file for case in cases})
    draw.shuffle(files)  # runs side by side then share what they find
    for file in files:
        mine = [case for case in cases if case.file == file]
        killers = judge(tree, tree.name(file), mine)
        for case in mine:
            killed = killers[case.number]
            print(f"{case.number:4} {'killed  ' if killed else 'SURVIVED'} {case.where(tree.root)}  {killed}")
            if not killed:
                survived += 1
                texts = case.before.splitlines(), case.source.splitlines()
                print("\n".join(difflib.unified_diff(*texts, case.where(tree.root), "fault", n=2, lineterm="")))
        sys.stdout.flush()
    print(f"{len(cases)} faults: {len(cases) - survived} killed, {survived} survived")
    return survived


def write(file, source):
    # Bytecode is believed by time and size: a time of its own for every content.
    file.write_text(source)
    second = zlib.crc32(source.encode()) // 4
    os.utime(file, (second, second))


if __name__ == "__main__":
    main()
