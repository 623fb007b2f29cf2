"""`python tests/lesson_on_gpu.py NOTEBOOK`: the cells of a lesson, one after the other, on a machine that seems to have a GPU.

Stops at the first cell that fails, with exit code 1 and its traceback.
"""

import os
import sys
from pathlib import Path

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from pretended_gpu import pretended_gpu


def main(path: Path) -> int:
    shell = InteractiveShell.instance(colors="nocolor")
    os.chdir(path.parent)
    with pretended_gpu():
        for number, cell in enumerate(nbformat.read(path.name, as_version=4).cells):
            if cell.cell_type == "code" and not shell.run_cell(cell.source).success:
                print(f"{path.name}: cell {number} fails", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).resolve()))
