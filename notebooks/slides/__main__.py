"""Build the slides: `python -m notebooks.slides [--only PATTERN] [--html]`; `--figures NN` lists the figures of a lesson."""

import argparse
import importlib.util

from notebooks.slides import lesson
from notebooks.slides.deck import decks, faults, read

parser = argparse.ArgumentParser(prog="python -m notebooks.slides", description=__doc__)
parser.add_argument("--only", default="*", help="decks whose name matches, e.g. 02")
parser.add_argument("--html", action="store_true", help="build no PDF")
parser.add_argument("--figures", metavar="NN", help="list the figures of this lesson, and build nothing")
options = parser.parse_args()

if options.figures:
    for place, figure in enumerate(lesson.figures(options.figures), 1):
        print(f"lesson:{options.figures}/{place}  {figure.size[0]} × {figure.size[1]}  {figure.alt[:150]}")
    raise SystemExit

paths = decks(options.only)
if not paths:
    parser.error(f"no deck in docs/slides matches '{options.only}'")
wrong = [fault for path in paths for fault in faults(read(path))]
if wrong:
    parser.exit(1, "\n".join([*wrong, ""]))
needed = {
    "sphinx": "sphinx",
    "sphinx_revealjs": "sphinx-revealjs",
    "myst_parser": "myst-parser",
    "latex2mathml": "latex2mathml",
}
missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
if missing:
    parser.exit(1, f"missing packages: {', '.join(missing)}. Install them with `pip install -e .[book]`.\n")

from notebooks.slides import browser, build  # noqa: E402 - they need these packages
from udlib.course.doctor import find_chromium  # noqa: E402

NO_PDF = (
    "No PDF was made: this needs Chromium and the package playwright. You can open a deck with ?print-pdf and print it."
)

built = build.build(paths)
print(f"{len(built)} decks: {build.OUT.relative_to(lesson.ROOT) / 'index.html'}", flush=True)
if options.html:
    raise SystemExit
if find_chromium() is None or importlib.util.find_spec("playwright") is None:
    print(NO_PDF)
    raise SystemExit
with browser.chromium() as chromium:
    for deck in built:
        path = browser.print_pdf(chromium, build.OUT / f"{deck.name}.html")
        print(f"{path.name}: {browser.pdf_pages(path)} pages", flush=True)
(build.OUT / "index.html").write_text(build.index(built, build.OUT), encoding="utf-8")
