"""HTML from the decks: sources for Sphinx with the lessons' figures in them, built with the reveal.js that its package holds."""

import html
import io
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from notebooks.slides import lesson
from notebooks.slides.deck import PICTURE, Deck, Slide, picture_file, read

STATIC = Path(__file__).resolve().parent / "static"
OUT = lesson.ROOT / "build" / "slides"
SIZE = (1280, 720)
NARROW = 4 / 3  # a picture narrower than this stands beside the text
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>udlib: slides</title><link rel="stylesheet" href="_static/index.css"></head>
<body><main><h1>udlib: slides for teachers</h1>
<p>In a deck, <kbd>→</kbd> shows the next slide, <kbd>S</kbd> opens the speaker view with the notes,
<kbd>F</kbd> fills the screen, and <kbd>Esc</kbd> shows all slides.</p>
<table><thead><tr><th>deck</th><th>slides</th><th>minutes</th><th>PDF</th></tr></thead>
<tbody>
{rows}
</tbody></table></main></body></html>
"""
SETTINGS = {
    "project": "udlib",
    "language": "en",
    "extensions": ["myst_parser", "sphinx_revealjs", "notebooks.slides.mathematics"],
    # Named here: Sphinx shares the default between all builds of a process, and that of the book adds notebooks to it.
    "source_suffix": {".md": "markdown"},
    "myst_enable_extensions": ["dollarmath"],
    "html_math_renderer": "mathml",
    "revealjs_style_theme": "white",
    "revealjs_static_path": [str(STATIC)],
    "revealjs_css_files": ["deck.css"],
    "revealjs_use_section_ids": False,
    "revealjs_script_conf": {
        "width": SIZE[0],
        "height": SIZE[1],
        "margin": 0,
        "display": "flex",
        "center": False,
        "controls": False,
        "hash": True,
        "slideNumber": "c/t",
        "transition": "none",
        "pdfMaxPagesPerSlide": 1,
        "scrollActivationWidth": None,
    },
    "revealjs_script_plugins": [
        {"src": "revealjs/plugin/notes/notes.js", "name": "RevealNotes"},
        {"src": "revealjs/plugin/highlight/highlight.js", "name": "RevealHighlight"},
    ],
    "html_copy_source": False,
    "suppress_warnings": ["toc.not_included", "config.cache"],
}


def picture_shape(target: str) -> float:
    """Width over height of a picture."""
    picture = picture_file(target)
    if isinstance(picture, lesson.Figure):
        width, height = picture.size
        return width / height
    if picture is None:
        raise ValueError(
            f"there is no picture '{target}': `python -m notebooks.slides --figures NN` lists those of a lesson"
        )
    box = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', picture.read_text(encoding="utf-8"))
    return float(box[1]) / float(box[2]) if box else 2.0


def layout(slide: Slide, place: int) -> str:
    """How a slide is laid out: `title`, `text`, or its picture `below` or `beside` the text."""
    if place == 0:
        return "title"
    if not slide.pictures:
        return "text"
    alone = not PICTURE.sub("", slide.body).strip()
    return "beside" if picture_shape(slide.pictures[0][1]) < NARROW and not alone else "below"


def notes_html(slide: Slide) -> str:
    """The speaker notes, as the speaker view shows them."""
    if slide.notes is None:
        return ""
    said = "".join(f"<p>{html.escape(part)}</p>" for part in re.split(r"\n\s*\n", slide.notes.text))
    question = html.escape(slide.notes.question)
    return f'<aside class="notes"><p><b>{slide.notes.minutes:g} min.</b> Ask: <i>{question}</i></p>{said}</aside>'


def raw(text: str) -> str:
    """HTML within Markdown, as it is."""
    return f"```{{raw}} html\n{text}\n```"


def slide_source(slide: Slide, place: int, picture: Callable[[str], str]) -> str:
    """The Markdown of a slide for Sphinx: its timing, its body with pictures in a frame of its layout, its notes."""
    seconds, kind = round(60 * slide.notes.minutes) if slide.notes else 0, layout(slide, place)
    body, style = PICTURE.sub(lambda found: f"![{found[1]}]({picture(found[2])})", slide.body), ""
    if kind == "beside":
        style = f' style="--ratio: {picture_shape(slide.pictures[0][1]):.3f}"'
        image = PICTURE.search(body)
        words = body.replace(image[0], "") if image else body
        body = "\n\n".join([image[0] if image else "", raw('<div class="words">'), words.strip(), raw("</div>")])
    section = f"```{{revealjs-section}}\n:data-layout: {kind}\n:data-timing: {seconds}\n```"
    frame = raw(f'<div class="frame {kind}"{style}>')
    parts = [f"{'##' if place else '#'} {slide.title}", section, frame, body, raw("</div>"), raw(notes_html(slide))]
    return "\n\n".join(parts) + "\n"


def write_source(deck: Deck, folder: Path) -> None:
    """Write a deck for Sphinx, with its pictures beside it."""

    def picture(target: str) -> str:
        """Copy the picture into the folder and return its new name."""
        found = picture_file(target)
        if isinstance(found, lesson.Figure):
            name = target.replace(":", "_").replace("/", "_") + ".png"
            (folder / name).write_bytes(found.png)
        elif found is not None:
            name = found.name
            shutil.copyfile(found, folder / name)
        else:
            raise ValueError(f"{deck.name} shows '{target}', which does not exist")
        return name

    parts = [slide_source(slide, place, picture) for place, slide in enumerate(deck.slides)]
    (folder / f"{deck.name}.md").write_text("\n".join(parts), encoding="utf-8")


def index(decks: list[Deck], out: Path) -> str:
    """The page that lists the decks."""
    rows = []
    for deck in decks:
        time = sum(slide.notes.minutes for slide in deck.slides if slide.notes)
        pdf = f'<a href="{deck.name}.pdf">PDF</a>' if (out / f"{deck.name}.pdf").exists() else "not built"
        link = f'<a href="{deck.name}.html">{html.escape(deck.title)}</a>'
        rows.append(f"<tr><td>{link}</td><td>{len(deck.slides)}</td><td>{time:g}</td><td>{pdf}</td></tr>")
    return INDEX.format(rows="\n".join(rows))


def build(paths: list[Path], out: Path = OUT) -> list[Deck]:
    """Build these decks into `out`, from nothing.

    Raises:
        RuntimeError: Sphinx warned about something, or failed.
    """
    decks = [read(path) for path in paths]
    shutil.rmtree(out, ignore_errors=True)
    warnings = io.StringIO()
    with docutils_namespace(), tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        for deck in decks:
            write_source(deck, source)
        settings = SETTINGS | {"root_doc": decks[0].name}
        trees = Path(folder, "trees")
        app = Sphinx(source, None, out, trees, "revealjs", settings, status=None, warning=warnings, freshenv=True)
        app.build(force_all=True)
    if app.statuscode or warnings.getvalue():
        raise RuntimeError(f"Sphinx warned about the slides:\n{warnings.getvalue()}")
    (out / "index.html").write_text(index(decks, out), encoding="utf-8")
    return decks
