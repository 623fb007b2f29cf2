"""The program that runs a notebook from top to bottom: `python -m udlib.course.grading.runner FOLDER REPORT`.

It runs no code of the report itself: the kernel does. After each cell it notes which of the study's files changed. FOLDER
holds `report.ipynb`, and gets `trace.jsonl` and `executed.ipynb`; REPORT is the folder in which the notebook runs.
"""

from __future__ import annotations

import ctypes
import json
import stat
import subprocess
import sys
from pathlib import Path

FILES = ("protocol.json", "results.csv", "choice.json")  # those of `udlib.course.project`, which would import much
LARGEST = 5_000_000  # bytes of a file that is read
KERNEL = "graded"
SUBREAPER = 36  # of prctl: children whose parent ends become ours


def content_of(path: Path) -> str | None:
    """The text of a file of the study; None where there is none, or something else than a file of a few MB."""
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


class Trace:
    """Notes what happens, one line of JSON each, so that it is there even if this program is killed."""

    def __init__(self, path: Path, report: Path):
        self.path, self.report = path, report
        self.contents: dict[str, str | None] = dict.fromkeys(FILES)

    def note(self, **event) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def before(self, cell_index: int, **_) -> None:
        """Note that a cell starts."""
        self.note(event="start", cell=cell_index)

    def after(self, cell_index: int, **_) -> None:
        """Note the files that a cell changed."""
        contents = {name: content_of(self.report / name) for name in FILES}
        changed = {name: text for name, text in contents.items() if text != self.contents[name]}
        self.contents = contents
        self.note(event="done", cell=cell_index, changed=changed)


def main(folder: Path, report: Path) -> None:
    """Run the notebook, and write down what happened."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    notebook = nbformat.read(folder / "report.ipynb", as_version=4)
    trace = Trace(folder / "trace.jsonl", report)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name=KERNEL,
        resources={"metadata": {"path": str(report)}},
        on_cell_execute=trace.before,
        on_cell_executed=trace.after,
    )
    try:
        client.execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except CellExecutionError as error:
        trace.note(event="error", name=error.ename, value=error.evalue[:300])
    except DeadKernelError:
        trace.note(event="died")
    trace.note(event="end")
    nbformat.write(notebook, folder / "executed.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
