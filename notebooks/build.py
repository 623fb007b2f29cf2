"""Lessons from their sources: `python notebooks/build.py write|shrink|execute|shipped|smoke|verify [--only PATTERN]`.

A lesson is written once, in `notebooks/src/NN_name.py` (cells in jupytext's percent format). From it come two
notebooks: `notebooks/NN_name.ipynb`, where exercises wait for the learner, and `notebooks/solutions/NN_name.ipynb`,
where they are solved; there, relative links and pictures begin one folder below. Cells of a source carry what they are in
their metadata:

    # %% exercise="01.1"           what the learner sees, replaced by the solution in the solved notebook
    # %% solution="01.1"           the solved exercise
    # %% mistake="01.1" says="…"   a classic mistake, and words of the answer it must get (run by the tests only)
    # %% tags=["setup"]            what an exercise needs before it can run (imports, data)
    # %% tags=["learn"]            code that a learner reads
    # %% tags=["report"]           code that only shows or asserts what was found; the notebook shows it collapsed
    # %% tags=["cover"]            its figure is the picture of the README
    # %% tags=["photo"]            shows photographs where they are (`udlib.course.photo_cells.show_photographs`)

A cell that calls `check(…)` has its output compared by nbval. `write` builds and executes; `execute` runs the committed
notebooks without writing them. Both notebooks of a lesson are stored small: pictures have a palette of 256 colours, and
a picture that both notebooks show is stored in the learner's only; the solved one keeps its description. An explorer
is stored as the picture of its starting frame. `shrink` does this to committed notebooks without executing them. The
diagrams in `images` come from `notebooks/diagrams`.

`write`, `execute` and `shipped` hide the photographs of `photos`, which may be in no commit: what a cell says without
them is its committed output. `smoke` compares no outputs, and shows them where `UDLIB_PHOTOS` says that they are.

`shipped` and `smoke` are what CI does. Both run nbval over the solved notebooks, which hold every cell of the learner's
but the stubs (the tests run those, with their checks): `shipped` as they are committed, `smoke` trained from nothing in
the `smoke` profile. `verify` does both, one after the other.
"""

import argparse
import base64
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

from udlib.course.my_lessons import links_from_below

HERE = Path(__file__).resolve().parent
CHECK_TAG = "nbval-check-output"
HTML = "text/html"
WIDGET = "application/vnd.jupyter.widget-view+json"
PNG = re.compile(r'(?<=src="data:image/png;base64,)[\w+/=]+')  # the pictures in a piece of HTML
SETTINGS = {"UDLIB_PROGRESS": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
HIDDEN = {"UDLIB_PHOTOS": "none"}  # the photographs of `photos`, so that none gets into a notebook


def sources(only: str = "*") -> list[Path]:
    """The lessons' sources, in order, whose name matches the pattern (`01`, `01_multilabel_data` or `0[12]*`)."""
    return [
        p for p in sorted((HERE / "src").glob("[0-9][0-9]_*.py")) if fnmatch(p.stem, only) or p.stem.startswith(only)
    ]


def read_source(path: Path) -> list[nbformat.NotebookNode]:
    """All cells of a source, the ones for solutions and mistakes included."""
    return jupytext.read(path, fmt="py:percent").cells


def exercise_of(cell, role: str) -> str | None:
    """The number of the exercise whose `role` (exercise, solution or mistake) this cell plays, or None."""
    return cell.metadata.get(role)


def build(path: Path, solved: bool) -> nbformat.NotebookNode:
    """The notebook of one source, not executed: with exercises open, or solved."""
    cells = read_source(path)
    solutions = {exercise_of(c, "solution"): c.source for c in cells if exercise_of(c, "solution")}
    kept = []
    for cell in cells:
        if exercise_of(cell, "solution") or exercise_of(cell, "mistake"):
            continue
        number, source = exercise_of(cell, "exercise"), cell.source
        if number and solved:
            source = solutions[number]
        if solved and cell.cell_type == "markdown":
            source = links_from_below(source)
        new = (nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell)(source)
        new.id = f"{path.stem[:2]}-{len(kept):03d}"
        tags = list(cell.metadata.get("tags", []))
        if cell.cell_type == "code" and re.search(r"^check\(", source, re.M):
            tags.append(CHECK_TAG)
        if number:
            tags += [tag for tag in ("learn", f"exercise-{number}") if tag not in tags]
        if tags:
            new.metadata["tags"] = tags
        if "report" in tags:
            new.metadata["jupyter"] = {"source_hidden": True}
        kept.append(new)
    notebook = nbformat.v4.new_notebook(cells=kept)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def has_exercises(path: Path) -> bool:
    return any(exercise_of(cell, "exercise") for cell in read_source(path))


def targets(path: Path) -> dict[Path, bool]:
    """Where the notebooks of a source go: {path: solved}."""
    found = {HERE / f"{path.stem}.ipynb": False}
    if has_exercises(path):
        found[HERE / "solutions" / f"{path.stem}.ipynb"] = True
    return found


def execute(notebook: nbformat.NotebookNode, folder: Path) -> float:
    """Runs a notebook in place, from a clean kernel; returns the seconds it took."""
    start = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute(env=os.environ | SETTINGS | HIDDEN)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return time.perf_counter() - start


def write(only: str) -> None:
    for source in sources(only):
        executed = {}
        for path, solved in targets(source).items():
            executed[path] = notebook = build(source, solved)
            seconds = execute(notebook, path.parent)
            notebook.metadata["udlib"] = {"seconds": round(seconds, 1)}
            print(f"{path.relative_to(HERE.parent)}: {seconds:.0f} s", flush=True)
        store(executed)


def shrink(only: str) -> None:
    for source in sources(only):
        paths = list(targets(source))
        before = sum(path.stat().st_size for path in paths)
        store({path: nbformat.read(path, as_version=4) for path in paths})
        after = sum(path.stat().st_size for path in paths)
        print(f"{source.stem}: {before / 1e6:.2f} MB before, {after / 1e6:.2f} MB now", flush=True)


def store(notebooks: dict[Path, nbformat.NotebookNode]) -> None:
    """Writes the executed notebooks of one lesson, the learner's first, and the cover if it is theirs."""
    for notebook in notebooks.values():
        for output in pictures(notebook):
            output.data[HTML] = PNG.sub(lambda found: in_palette(found[0]), output.data[HTML])
            output.data.pop(WIDGET, None)  # without a kernel, JupyterLab would show an error in place of the picture
    asked, *others = notebooks.values()
    save_cover(asked)
    for solved in others:
        leave_out_pictures_of(asked, solved)
    for path, notebook in notebooks.items():
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)


def pictures(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The outputs of a notebook that hold pictures."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs if pngs(output)]


def pngs(output: nbformat.NotebookNode) -> list[str]:
    """The PNG files in an output, encoded."""
    return PNG.findall(output.get("data", {}).get(HTML, ""))


def in_palette(png: str) -> str:
    """The same picture, encoded, with a palette."""
    return base64.b64encode(palette_png(base64.b64decode(png))).decode("ascii")


def palette_png(content: bytes) -> bytes:
    """The same picture with a palette of at most 256 colours, a third of the size; equal pixels give equal bytes."""
    picture = Image.open(io.BytesIO(content))
    if picture.mode == "P":
        return content
    # Median cut alone gives small areas no colour of their own: a yellow ball turned beige. k-means brings it back.
    picture = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return file.getvalue()


def leave_out_pictures_of(asked: nbformat.NotebookNode, solved: nbformat.NotebookNode) -> None:
    """Removes from the solved notebook the pictures that the learner's shows too; their descriptions stay as text."""
    stored = {png for output in pictures(asked) for png in pngs(output)}
    for output in pictures(solved):
        if stored.issuperset(pngs(output)) and "text/plain" in output.data:
            del output.data[HTML]


def save_cover(notebook: nbformat.NotebookNode) -> None:
    """The figure of the cell tagged `cover` becomes the picture of the README."""
    for cell in notebook.cells:
        if "cover" in cell.metadata.get("tags", []):
            (HERE / "images").mkdir(exist_ok=True)
            (HERE / "images" / "cover.png").write_bytes(base64.b64decode(pngs(cell.outputs[0])[0]))


def notebooks(only: str = "*") -> list[Path]:
    """The committed notebooks, solutions included."""
    return [path for source in sources(only) for path in targets(source)]


def execute_all(only: str) -> None:
    for path in notebooks(only):
        seconds = execute(nbformat.read(path, as_version=4), path.parent)
        print(f"{path.relative_to(HERE.parent)}: {seconds:.0f} s", flush=True)


def nbval(paths: list[Path], **environment: str) -> int:
    """nbval's verdict on these notebooks in lax mode: outputs of tagged cells are compared, every cell must run."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=1800",
        "-p",
        "no:cacheprovider",
        "-q",
        *map(str, paths),
    ]
    return subprocess.run(command, env=os.environ | SETTINGS | environment, cwd=HERE.parent).returncode


def copy_for_smoke(paths: list[Path], folder: Path) -> list[Path]:
    """Copies of notebooks whose outputs are not compared, for a run in which every number is another one."""
    copies = []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if CHECK_TAG in cell.metadata.get("tags", []):
                cell.metadata["tags"] = [t for t in cell.metadata["tags"] if t != CHECK_TAG]
        copy = folder / path.name
        nbformat.write(notebook, copy)
        copies.append(copy)
    return copies


def as_shipped(only: str) -> int:
    return nbval(solved_notebooks(only), UDLIB_PROFILE="course", **HIDDEN)


def in_smoke(only: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        copies = copy_for_smoke(solved_notebooks(only), Path(folder))
        return nbval(copies, UDLIB_PROFILE="smoke", UDLIB_SMOKE_STORE=f"{folder}/results")


def solved_notebooks(only: str) -> list[Path]:
    """The notebook of each lesson that holds all cells: the solved one, or the learner's if it has no exercises."""
    paths = [list(targets(source))[-1] for source in sources(only)]
    if not paths:
        raise SystemExit(f"no notebook matches '{only}'")
    return paths


def verify(only: str) -> int:
    return max(as_shipped(only), in_smoke(only))


VERBS = {
    "write": write,
    "shrink": shrink,
    "execute": execute_all,
    "shipped": as_shipped,
    "smoke": in_smoke,
    "verify": verify,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--only", default="*", help="lessons whose name matches, e.g. 02")
    arguments = parser.parse_args()
    raise SystemExit(VERBS[arguments.verb](arguments.only))
