"""Checks the links of the built book without a network: files, anchors, and the form of addresses elsewhere."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ELSEWHERE = ("http", "https", "mailto")
LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}


class Page(HTMLParser):
    """What one page of HTML links to, loads and offers.

    Attributes:
        links: The targets of its links.
        loads: What the browser fetches to show it: scripts, styles, fonts, images.
        anchors: The names that a link can lead to.
        undescribed: The sources of its images that have no description.
    """

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.undescribed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the links, the loaded files and the anchors of one element."""
        attributes = {name: value or "" for name, value in attrs}
        self.anchors |= {attributes[name] for name in ("id", "name") if name in attributes}
        if tag in ("a", "area") and "href" in attributes:
            self.links.append(attributes["href"])
        address = attributes.get(LOADED.get(tag, ""))
        if address and not (
            tag == "link" and attributes.get("rel") in ("next", "prev", "search", "index", "canonical")
        ):
            self.loads.append(address)
        if tag == "img" and not attributes.get("alt", "").strip():
            self.undescribed.append(attributes.get("src", "")[:60])


@cache
def read(path: Path) -> Page:
    """Return what a file of HTML links to and offers."""
    return Page(path.read_text(encoding="utf-8"))


def pages(book: Path) -> list[Path]:
    """Return the pages of a book, without the decks of slides, which are built elsewhere, and the theme's own files."""
    outside = [book / "slides" / "decks", book / "_static"]
    return [path for path in sorted(book.rglob("*.html")) if not any(path.is_relative_to(folder) for folder in outside)]


def broken_links(book: Path) -> list[str]:
    """Return a line for each link that leads nowhere, each file from elsewhere, and each image without a description."""
    read.cache_clear()
    problems = []
    for path in pages(book):
        page, name = read(path), path.relative_to(book).as_posix()
        problems += [f"{name}: an image has no description: {source}" for source in page.undescribed]
        for address in page.links + page.loads:
            problem = problem_of(address, path, book)
            if problem:
                problems.append(f"{name}: {address[:120]}: {problem}")
        problems += [
            f"{name}: {address[:120]}: the page loads this from elsewhere" for address in page.loads if _far(address)
        ]
    return problems


def problem_of(address: str, path: Path, book: Path) -> str | None:
    """Return what is wrong with the address that a page gives, or None.

    Args:
        address: The address, as the page writes it.
        path: The file of the page.
        book: The folder of the book; a link must not lead out of it.
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        return str(error)
    if parts.scheme == "data":
        return None
    if _far(address):
        well_formed = parts.scheme in ELSEWHERE and (parts.netloc or parts.scheme == "mailto") and " " not in address
        return None if well_formed else "this is not the form of an address"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target = target / "index.html"
    if not target.is_relative_to(book.resolve()):
        return "this leads out of the book"
    if not target.is_file():
        return "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in read(target).anchors | {"top"}:
        return "there is no such place on that page"
    return None


def _far(address: str) -> bool:
    """Whether an address leads to another host, or has a scheme."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")
