"""A copy of a report's folder, in which the report runs with hard limits; and what this run left."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import site
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from udlib.course.grading.kernel import LIMITS
from udlib.course.grading.notebook import LARGEST, Cell, cells_of, read_json, runnable
from udlib.course.grading.processes import MARK, Limits, run_watched, size_of
from udlib.course.grading.runner import FILES, KERNEL
from udlib.datasets import EMBEDDED, data_root

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".ipynb_checkpoints", "__pycache__", *FILES)
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "UDLIB_PHOTOS")


@dataclass(frozen=True)
class Execution:
    """What a run of a report showed.

    Attributes:
        problem: Why it did not come to its end, in words; "" where it did.
        seconds: How long it took.
        cells: Its cells as this run left them; empty where it was stopped.
        contents: What each file held after the cells that changed it: (number of the cell, text or None), by name.
    """

    problem: str
    seconds: float
    cells: list[Cell] = field(default_factory=list)
    contents: Mapping[str, list[tuple[int, str | None]]] = field(default_factory=dict)

    @property
    def first(self) -> dict[str, int]:
        """Number of the cell after which each of the study's files existed first."""
        firsts = {}
        for name, changes in self.contents.items():
            if numbers := [number for number, text in changes if text is not None]:
                firsts[name] = numbers[0]
        return firsts

    def last(self, name: str) -> str | None:
        """What a file held in the end; None where there was none."""
        changes = self.contents.get(name)
        return changes[-1][1] if changes else None


def require_limits() -> None:
    """Refuse to run a report where it could not be limited, or where Jupyter is missing.

    Raises:
        RuntimeError: On a system without the module `resource`, such as Windows, or without nbclient.
    """
    try:
        import resource  # noqa: F401
    except ImportError:
        raise RuntimeError(
            "this system cannot limit time and memory of a report, so `udlib grade` runs none here: use Linux, or WSL on "
            "Windows"
        ) from None
    if find_spec("nbclient") is None:
        raise RuntimeError("`udlib grade` runs a report with Jupyter: install it with `pip install 'udlib[course]'`")


def execute(report: Path, limits: Limits) -> Execution:
    """Run a report in a temporary copy of its folder, and never longer or larger than its limits.

    Args:
        report: The notebook.
        limits: What it may use.

    Raises:
        FileNotFoundError, ValueError: It cannot be read, or its folder is too large to be copied.
        RuntimeError: This system cannot limit it.
    """
    require_limits()
    content = read_json(report)
    size = size_of(report.parent)
    if size > 1e6 * limits.folder_mb:
        raise ValueError(
            f"the folder '{report.parent}' holds {size / 1e6:.0f} MB, and {limits.folder_mb} MB can be copied: put the "
            "report into a folder of its own"
        )
    # A path without links: what is confined to a folder is confined to its real place.
    with tempfile.TemporaryDirectory(prefix="udlib-grade-", ignore_cleanup_errors=True) as temporary:
        place = Path(temporary).resolve()
        folder = place / "report"
        shutil.copytree(report.parent, folder, symlinks=True, ignore=LEFT_OUT)
        private = _prepare(place, content)
        command = [sys.executable, "-P", "-m", "udlib.course.grading.runner", str(private), str(folder)]
        outcome = run_watched(command, _environment(place, limits), place, limits, private / "messages.txt")
        events = list(_events(private / "trace.jsonl"))
        problem = _problem(outcome.broken, outcome.code, events, content)
        cells = []
        if not outcome.broken and (executed := private / "executed.ipynb").is_file():
            if executed.stat().st_size <= LARGEST:
                cells = cells_of(read_json(executed))
            else:
                problem = problem or f"its outputs have more than {LARGEST // 10**6} MB"
        return Execution(problem, outcome.seconds, cells, _contents(events))


def _prepare(place: Path, content: dict[str, Any]) -> Path:
    """Make the folders of a run; returns the one of the grader, which the report cannot write into where it is confined."""
    private, home = place / "grader", place / "home"
    kernel = private / "jupyter" / "kernels" / KERNEL
    for folder in (kernel, private / "runtime", home / "tmp", home / "data"):
        folder.mkdir(parents=True)
    words = [sys.executable, "-P", "-m", "udlib.course.grading.kernel", "-f", "{connection_file}"]
    spec = {"argv": [*words, "--HistoryManager.hist_file=:memory:"], "display_name": KERNEL, "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    (private / "report.ipynb").write_text(json.dumps(runnable(content)), encoding="utf-8")
    sources = " ".join(cell.source for cell in cells_of(content))
    for path in data_root().glob("*"):  # drawn once, and not again for each report
        if path.is_dir() and any(path.name.startswith(name) and name in sources for name in EMBEDDED):
            shutil.copytree(path, home / "data" / path.name)
    return private


def _environment(place: Path, limits: Limits) -> dict[str, str]:
    """The variables of a run: few of ours, so that the report learns nothing from them, and folders of its own."""
    private, home = place / "grader", place / "home"
    allowed = {
        "seconds": int(60 * limits.minutes) + 1,
        "memory": int(1.5e9 * limits.memory_gb) + 10**9,  # what is watched ends it before; this is for sudden jumps
        "file": limits.file_mb * 10**6,
        "writable": [str(place / "report"), str(home)],
    }
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    modules = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {
        **{name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
        **({"PYTHONPATH": os.pathsep.join(modules)} if modules else {}),
        "PYTHONUSERBASE": site.getuserbase(),
        **threads,
        MARK: secrets.token_hex(16),
        LIMITS: json.dumps(allowed),
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "IPYTHONDIR": str(home / "ipython"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "JUPYTER_PATH": str(private / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "jupyter"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "UDLIB_PROGRESS": "0",
        "UDLIB_DATA": str(home / "data"),
    }


def _events(trace: Path) -> Iterator[dict[str, Any]]:
    """The lines that the runner noted; the last one may be cut off."""
    if not trace.is_file():
        return
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _contents(events: list[dict[str, Any]]) -> dict[str, list[tuple[int, str | None]]]:
    contents: dict[str, list[tuple[int, str | None]]] = {}
    for event in events:
        for name, text in event.get("changed", {}).items():
            contents.setdefault(name, []).append((event["cell"] + 1, text))
    return contents


def _problem(broken: str, code: int, events: list[dict[str, Any]], content: dict[str, Any]) -> str:
    """Why a run did not come to its end, with the number of the cell; "" where it did."""
    starts = [event["cell"] + 1 for event in events if event["event"] == "start"]
    where = f"in cell {starts[-1]} of {len(content['cells'])}" if starts else "before its first cell"
    kinds = {event["event"]: event for event in events}
    if broken:
        return f"{broken}, {where}, and was stopped"
    if error := kinds.get("error"):
        return f"an error {where}: {error['name']}: {error['value']}".splitlines()[0]
    if "died" in kinds:
        return f"its Python ended {where}: it ran out of memory or computing time, or called exit"
    if code or "end" not in kinds:
        return f"the program that runs it ended {where} (exit code {code}); no report should end other programs"
    return ""
