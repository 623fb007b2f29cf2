"""A report as a file: its cells, its stored outputs and its figures. Nothing here runs any of its code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

LARGEST = 50_000_000  # bytes of a report
SHORTEST_DESCRIPTION = 20  # characters
MARKDOWN_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
PICTURE = re.compile(r"""src=(["'])data:.*?\1""", re.DOTALL)
TAG = re.compile(r"<[^>]*>")
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
# What differs from run to run and says nothing: times, dates, addresses in memory.
PASSING = re.compile(
    r"0x[0-9a-fA-F]+|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?|\d\d:\d\d(?::\d\d)?"
    r"|\b\d+(?:\.\d+)?(?:\s*|-)(?:ms|s|sec|secs|seconds?|min|minutes?|h|hours?)\b"
)
NUMBER = re.compile(r"(?<![\w.])[+\-−]?\d+(?:[.,]\d+)*(?:[eE][+\-]?\d+)?")


class Figure(NamedTuple):
    """A figure of a report: the number of its cell (from 1), its description, and its caption."""

    cell: int
    description: str
    caption: str


@dataclass(frozen=True)
class Cell:
    """A cell: its number in the report (from 1), its kind, source, tags, and what it stores of its last run."""

    number: int
    kind: str
    source: str
    tags: tuple[str, ...]
    outputs: tuple[dict[str, Any], ...]
    count: int | None

    @property
    def text(self) -> str:
        """All text of its outputs: what it printed, and the text of what it displayed, without pictures."""
        parts = []
        for output in self.outputs:
            if output.get("output_type") == "stream":
                parts.append(joined(output.get("text")) if output.get("name") == "stdout" else "")
            else:
                data = output.get("data") or {}
                html = joined(data.get("text/html"))
                parts += [joined(data.get("text/plain")), TAG.sub(" ", PICTURE.sub("", html))]
        return "\n".join(parts)

    @property
    def numbers(self) -> list[float]:
        """All numbers in its outputs, in order, without times, dates and addresses."""
        return numbers_in(PASSING.sub(" ", self.text))


def numbers_in(text: str) -> list[float]:
    """All numbers in a text, in order.

    >>> numbers_in("mAP +0.5 and −1,234.5 in model_3")
    [0.5, -1234.5]
    """
    values = []
    for word in NUMBER.findall(text):
        plain = word.replace("−", "-").replace(",", "")
        try:
            values.append(float(plain))
        except ValueError:  # such as a version, 1.2.3
            continue
    return values


def joined(text: Any) -> str:
    """The text of a field of a notebook, which is one string or a list of them."""
    if isinstance(text, list):
        return "".join(part for part in text if isinstance(part, str))
    return text if isinstance(text, str) else ""


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON of a report.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no notebook, or has no code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no report '{path}': name a notebook, such as report.ipynb")
    if path.stat().st_size > LARGEST:
        raise ValueError(
            f"'{path}' has more than {LARGEST // 10**6} MB: clear large outputs, run it again, and save it"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = (
            str(error) if isinstance(error, json.JSONDecodeError) else "it is not text in UTF-8, or nested too deeply"
        )
        raise ValueError(
            f"'{path}' is damaged: it is no JSON ({reason}). Open it in Jupyter and save it again, or ask for a new copy"
        ) from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError(f"'{path}' is no Jupyter notebook of version 4: open it in Jupyter and save it again")
    if not any(cell.get("cell_type") == "code" and joined(cell.get("source")).strip() for cell in cells):
        raise ValueError(f"'{path}' has no cell with code: start from docs/project/template.ipynb")
    return content


def cells_of(content: dict[str, Any]) -> list[Cell]:
    """The cells of a notebook's JSON."""
    cells = []
    for number, cell in enumerate(content["cells"], 1):
        metadata = cell.get("metadata")
        tags = metadata.get("tags") if isinstance(metadata, dict) else None
        outputs = cell.get("outputs")
        count = cell.get("execution_count")
        cells.append(
            Cell(
                number,
                str(cell.get("cell_type")),
                joined(cell.get("source")),
                tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
                tuple(o for o in outputs if isinstance(o, dict)) if isinstance(outputs, list) else (),
                count if isinstance(count, int) else None,
            )
        )
    return cells


def runnable(content: dict[str, Any]) -> dict[str, Any]:
    """A notebook with the same cells and nothing else: no outputs, and no tags that could make a runner skip a cell."""
    cells = []
    for number, cell in enumerate(cells_of(content)):
        bare = {"cell_type": cell.kind if cell.kind == "code" else "markdown", "id": f"cell-{number}", "metadata": {}}
        bare["source"] = cell.source
        if cell.kind == "code":
            bare |= {"outputs": [], "execution_count": None}
        cells.append(bare)
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


class _Images(HTMLParser):
    """Collects the description of each image in a piece of HTML, and the text of its captions."""

    def __init__(self, html: str):
        super().__init__()
        self.descriptions: list[str] = []
        self.captions: list[str] = []
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.descriptions.append(dict(attributes).get("alt") or "")
        elif tag == "figcaption":
            self.inside = True
            self.captions.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "figcaption"

    def handle_data(self, data):
        if self.inside:
            self.captions[-1] += data


def figures(cells: list[Cell]) -> list[Figure]:
    """List all figures: those in outputs, and images in the text, whose description is also their caption."""
    found = []
    for cell in cells:
        if cell.kind == "markdown":
            for description in MARKDOWN_IMAGE.findall(cell.source):
                found.append(Figure(cell.number, description, description))
            found += _figures_in(cell.number, cell.source)
        for output in cell.outputs:
            data = output.get("data") or {}
            in_html = _figures_in(cell.number, joined(data.get("text/html")))
            found += in_html
            if not in_html and any(kind in data for kind in IMAGES):
                found.append(Figure(cell.number, "", ""))
    return found


def _figures_in(number: int, html: str) -> list[Figure]:
    images = _Images(html)
    captions = images.captions + [""] * len(images.descriptions)
    return [Figure(number, alt, caption.strip()) for alt, caption in zip(images.descriptions, captions)]
