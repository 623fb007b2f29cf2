"""Copies the pages of the book into one folder, each at its place in the project, so that all links between them stay true.

What a page of the book has and its source has not is added to the copies: how to open a lesson live, folded code, a link in
the caption of each explorer, links from the page of equations to the cells.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import nbformat

from docs.book import conf, generated

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "CITATION.cff",
    "data/README.md",
    "notebooks/equations.md",
    "docs/*.md",
    "docs/quizzes/README.md",
    "docs/slides/README.md",
)
TEACHING = ("docs/teaching", "docs/project", "docs/cheatsheet")  # whole folders, with whatever their pages link to
LINK = re.compile(r"\]\(([^)#\s]+)")
RUN_TO_MOVE = re.compile(r"Run the notebook to move the sliders?\.")
OPEN_TO_MOVE = '<a href="#open-this-lesson-live">Open this lesson to move it</a>.'
CELL = re.compile(r"\[(lesson \d\d)\]\((\w+\.ipynb)\), In \[(\d+)\]")  # of the page of equations


def stage(folder: Path, slides: Path | None = None, root: Path = ROOT) -> None:
    """Write all sources of the book into a folder that is empty or does not exist.

    Args:
        folder: The folder for Sphinx to read.
        slides: The folder of the built slides, which need not exist. The book lists what is there.
        root: The project.
    """
    for pattern in PAGES:
        for path in sorted(root.glob(pattern)):
            _copy(path, folder / path.relative_to(root))
    for name in TEACHING:
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name)
    shutil.copytree(root / "notebooks" / "images", folder / "notebooks" / "images")
    equations = folder / "notebooks" / "equations.md"
    equations.write_text(CELL.sub(r"[\1, In [\3]](\2#in-\3)", equations.read_text(encoding="utf-8")), encoding="utf-8")
    for path in sorted((folder / "docs").rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        fold(notebook)
        nbformat.write(notebook, path)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        lesson = nbformat.read(path, as_version=4)
        page(lesson, f"notebooks/{path.name}")
        nbformat.write(lesson, folder / "notebooks" / path.name)
    index = (root / "docs" / "book" / "index.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(with_all_pages(index, folder), encoding="utf-8")
    _copy_linked_files(folder, root)
    generated.write(folder, root, slides)


def with_all_pages(index: str, folder: Path) -> str:
    """Return the first page with every page of `docs` in its tables of contents.

    Args:
        index: The text of the first page. It names some pages itself, and has a line where the others go.
        folder: The staged sources.
    """
    found = [
        path.relative_to(folder) for path in sorted((folder / "docs").rglob("*")) if path.suffix in (".md", ".ipynb")
    ]
    names = [path.with_suffix("").as_posix() for path in found]
    others = [name for name in names if name.count("/") == 1 and name not in index.splitlines()]
    teaching = [name for name in names if name.count("/") > 1]
    return index.replace("OTHER PAGES", "\n".join(others)).replace("PAGES FOR TEACHERS", "\n".join(teaching))


def fold(notebook: nbformat.NotebookNode) -> None:
    """Let the book fold the code that JupyterLab shows collapsed, in place, and say where a figure has no description."""
    for cell in notebook.cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            cell.metadata["mystnb"] = {"image": {"alt": "The notebook has no description of this figure."}}
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]


def page(lesson: nbformat.NotebookNode, path: str) -> None:
    """Make a page of the book of a lesson, in place.

    Code that JupyterLab shows collapsed is folded. The caption of an explorer's frame says where its sliders move. The last
    section says how to open the lesson live, and a line below the title leads there.

    Args:
        lesson: The notebook; its outputs stay as they are stored.
        path: Where the project has it, for example "notebooks/00_start_here.ipynb".
    """
    fold(lesson)
    for cell in lesson.cells:
        for output in cell.get("outputs", []):
            bundle = output.get("data", {})
            if "text/html" in bundle:
                bundle["text/html"] = RUN_TO_MOVE.sub(OPEN_TO_MOVE, bundle["text/html"])
    first = (
        "*This page shows the stored results. [Open this lesson live](#open-this-lesson-live) to change and run it.*"
    )
    lesson.cells[0].source += f"\n\n{first}"
    lesson.cells.append(nbformat.v4.new_markdown_cell(open_live(path)))


def open_live(path: str, repository: str | None = None) -> str:
    """Return the section, in Markdown, that says how to open a lesson live.

    Args:
        path: Where the project has it.
        repository: `owner/name` on GitHub; by default that of `conf.py`, which may be "".
    """
    repository = conf.repository if repository is None else repository
    name = Path(path).name
    lines = [
        "## Open this lesson live",
        "",
        f"On this page nothing runs. To run the cells and to move the sliders, open `{name}` in JupyterLab:",
        "",
        "* From a clone of the project, type `make lab`. It installs the course and opens your own copies of the lessons.",
        "* If the course is installed, type `udlib lab`.",
    ]
    if repository:
        values = {"repository": repository, "branch": conf.branch, "path": path}
        lines += [
            f"* Without an installation: [on Binder]({conf.binder.format(**values)}) or "
            f"[on Colab]({conf.colab.format(**values)}). Nobody has tried these two yet.",
        ]
    lines += ["", f"Then choose `{html.escape(name)}` in the list of files at the left."]
    return "\n".join(lines)


def _copy_linked_files(folder: Path, root: Path) -> None:
    """Copy the files of the project that pages link to and that are no pages: programs, licences, tables."""
    for page in folder.rglob("*.md"):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.is_relative_to(folder.resolve()) and not target.exists():
                source = root / target.relative_to(folder.resolve())
                if source.is_file() and source.suffix not in (".md", ".ipynb"):
                    _copy(source, target)


def _copy(path: Path, target: Path) -> None:
    """Copy one file, and make the folder that it goes to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)
