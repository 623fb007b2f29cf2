"""The decks in Chromium: printed to PDF, and each slide measured as a class sees it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from notebooks.slides.build import SIZE

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
# Every slide in turn: its size and the size of what it holds; the parts that stick out of it, that would have to scroll, or that
# lie over the next part; and its pictures, with the size at which they are drawn within their boxes.
MEASURE = """() => Reveal.getSlides().map(slide => {
  const place = Reveal.getIndices(slide);
  Reveal.slide(place.h, place.v);
  const box = part => part.getBoundingClientRect(), frame = box(slide), say = part => part.outerHTML.slice(0, 90);
  const parts = [...slide.querySelectorAll('*:not(aside):not(aside *)')];
  const outside = parts.filter(part => box(part).right > frame.right + 1 || box(part).bottom > frame.bottom + 1 ||
    box(part).left < frame.left - 1 || box(part).top < frame.top - 1);
  const scrolls = parts.filter(part => part.matches('pre, pre code, table, p, .equation, .frame, .words') &&
    (part.scrollWidth > part.clientWidth + 1 || part.matches('pre code, .words') && part.scrollHeight > part.clientHeight + 1));
  const covers = parts.filter(part => part.nextElementSibling && part.matches('.frame > *, .words > *') &&
    !part.parentElement.matches('.beside') &&
    [part, ...part.querySelectorAll('*')].some(inner => box(inner).bottom > box(part.nextElementSibling).top + 4));
  return {
    title: slide.querySelector('h1, h2').textContent.trim(), notes: slide.querySelectorAll('aside.notes').length,
    width: slide.offsetWidth, height: slide.offsetHeight, inner_width: slide.scrollWidth, inner_height: slide.scrollHeight,
    outside: outside.map(say), scrolls: scrolls.map(say), covers: covers.map(say),
    pictures: [...slide.querySelectorAll('img')].map(image => {
      const scale = Math.min(box(image).width / image.naturalWidth, box(image).height / image.naturalHeight);
      return {source: image.getAttribute('src'), loaded: image.complete && image.naturalWidth > 0, alt: image.alt,
        width: scale * image.naturalWidth, height: scale * image.naturalHeight};
    }),
  };
})"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A Chromium that can reach no network."""
    from playwright.sync_api import sync_playwright

    from udlib.course.doctor import find_chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, page_file: Path, query: str = "") -> Iterator[tuple[Any, list[str]]]:
    """A page with a deck that is ready, and the list of all addresses that it asked for which are not files."""
    context = browser.new_context(viewport={"width": SIZE[0], "height": SIZE[1]}, offline=True)
    page, asked = context.new_page(), []
    page.on(
        "request", lambda request: asked.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.goto(page_file.resolve().as_uri() + query, wait_until="load")
    page.wait_for_function("window.Reveal && Reveal.isReady() && document.fonts.status === 'loaded'")
    try:
        yield page, asked
    finally:
        context.close()


def measure(browser: Any, page_file: Path) -> tuple[list[dict], list[str]]:
    """Measure each slide of a deck at its size; also return the addresses outside the disk that the deck asked for."""
    with opened(browser, page_file) as (page, asked):
        page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
        return page.evaluate(MEASURE), asked


def print_pdf(browser: Any, page_file: Path) -> Path:
    """Print a deck to a PDF beside it, one page for each slide."""
    target = page_file.with_suffix(".pdf")
    with opened(browser, page_file, "?print-pdf") as (page, _):
        page.wait_for_selector(".pdf-page")
        page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
        page.pdf(path=str(target), prefer_css_page_size=True, print_background=True)
    return target


def pdf_pages(path: Path) -> int:
    """How many pages a PDF of Chromium has."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", path.read_bytes()))
