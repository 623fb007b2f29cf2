"""A page about one evaluation: tables and pictures in a single HTML file, which needs no other file and no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from unicodedata import category

from PIL import Image

# The browser loads nothing from anywhere, whatever a name of a class or of a file may hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff }
main { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
caption { text-align: left; color: #444; padding-bottom: .4rem }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #ccc; text-align: right }
th:first-child, td:first-child { text-align: left; font-weight: 600 }
img { max-width: 100%; height: auto }
ul.mistakes { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem }
ul.mistakes li { width: 11rem; overflow-wrap: anywhere }
"""
THUMBNAIL = 176  # pixels of the longer side


class Mistake(NamedTuple):
    """One label on which a model and an annotation differ.

    Attributes:
        image: The picture.
        name: What the picture is called.
        label: The class.
        probability: What the model gives it, in [0, 1].
        labelled: Whether the annotation has it.
    """

    image: Image.Image
    name: str
    label: str
    probability: float
    labelled: bool


def page(title: str, sections: Iterable[str]) -> str:
    """Return a whole HTML page.

    Args:
        title: Its title and first heading, as plain text.
        sections: The rest, as HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escaped(title)}</h1>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """Return a section of a page.

    Args:
        heading: Plain text.
        *parts: HTML.
    """
    return f"<section>\n<h2>{escaped(heading)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(text: str) -> str:
    """Return plain text as a paragraph."""
    return f"<p>{escaped(text)}</p>"


def table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table.

    Args:
        rows: Cells of plain text, the head first; the first cell of a row names it.
        caption: What the table shows.
    """
    head, *body = rows
    lines = ["".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)]
    for name, *cells in body:
        lines.append(f'<th scope="row">{escaped(name)}</th>' + "".join(f"<td>{escaped(cell)}</td>" for cell in cells))
    rows_of_cells = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>\n<caption>{escaped(caption)}</caption>\n{rows_of_cells}\n</table>"


def mistakes(found: Sequence[Mistake], nothing: str) -> str:
    """Return thumbnails of mistakes, in the order given, with what model and annotation say below each.

    Args:
        found: The mistakes.
        nothing: What is written where there are none.
    """
    if not found:
        return paragraph(nothing)
    items = []
    for one in found:
        model = f"the model gives {one.label} {100 * one.probability:.1f} %"
        label = "the label is there" if one.labelled else "the label is not there"
        words = f"<strong>{escaped(one.label)}</strong> {100 * one.probability:.1f} %, {label}<br>{escaped(one.name)}"
        items.append(f"<li>{_thumbnail(one.image, f'{one.name}: {model}, and {label}.')}<br>{words}</li>")
    return '<ul class="mistakes">\n' + "\n".join(items) + "\n</ul>"


def escaped(text: object) -> str:
    """Return plain text as HTML; control characters and halves of characters, which no page may hold, become U+FFFD.

    Example:
        >>> escaped("<b> & 'c'")
        '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    return html.escape("".join("\ufffd" if category(letter) in ("Cc", "Cs") else letter for letter in str(text)))


def _thumbnail(image: Image.Image, alt: str) -> str:
    """A small copy of a picture as an `<img>` that holds its own pixels."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, format="jpeg", quality=80)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img alt="{escaped(alt)}" {size} src="data:image/jpeg;base64,{encoded}">'
