"""Builds the book: `python -m docs.book.build [--out FOLDER] [--slides FOLDER]`, or `make book`.

The book is a folder of HTML that needs no network. The build executes no notebook. It ends with exit code 1 if Sphinx warns or
if a link of the book leads nowhere.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from docs.book.links import broken_links
from docs.book.staging import ROOT, stage

HERE = Path(__file__).resolve().parent


def build(out: Path, slides: Path | None = None, work: Path | None = None) -> list[str]:
    """Build the book.

    Args:
        out: The folder of the HTML; what is there is replaced.
        slides: The folder of the built slides, which need not exist.
        work: A folder for the sources that Sphinx reads; by default beside `out`.

    Returns:
        A line for each warning of Sphinx, each image without a description, and each link that leads nowhere.
    """
    work = work or out.with_name(f"{out.name}-work")
    for folder in (out, work):
        shutil.rmtree(folder, ignore_errors=True)
    sources, warnings = work / "sources", io.StringIO()
    stage(sources, slides)
    decks = sources / "_decks"
    settings = {"html_extra_path": [str(decks)] if decks.is_dir() else [], "exclude_patterns": ["_decks"]}
    with docutils_namespace():  # what Sphinx registers belongs to this build alone, so that another may follow
        app = Sphinx(
            sources,
            HERE,
            work / "html",
            work / "doctrees",
            "html",
            settings,
            status=None,
            warning=warnings,
            parallel=2,
            verbosity=0,
        )
        app.build(force_all=True)
    shutil.move(work / "html", out)  # built elsewhere, because MyST-NB writes a folder beside the pages
    lines = [line for line in warnings.getvalue().splitlines() if line.strip()]
    return [line.replace(f"{sources}/", "") for line in lines] + broken_links(out)


def main(words: list[str] | None = None) -> int:
    """Build the book where the words of the command say, and print what is wrong with it."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.book.build", description="Build the book of the course as HTML."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", help="the folder of the HTML")
    parser.add_argument("--slides", type=Path, default=ROOT / "build" / "slides", help="the folder of the built slides")
    options = parser.parse_args(words)
    problems = build(options.out, options.slides)
    print("\n".join(problems) or f"The book is built: open {options.out / 'index.html'} in a browser.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
