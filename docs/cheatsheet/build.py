"""Print the cheat sheet as PDF: `python docs/cheatsheet/build.py`. It needs Chromium and Playwright."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
PAGE = HERE / "cheatsheet.html"


def write_pdf(path: Path) -> None:
    """Print the sheet in the size that its style asks for.

    Raises:
        FileNotFoundError: where Chromium is not installed.
    """
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser_path is None:
        raise FileNotFoundError("Chromium prints the cheat sheet and is not installed: install it, or open the HTML page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(PAGE.as_uri())
        page.pdf(path=str(path), prefer_css_page_size=True, print_background=True, tagged=True)
        browser.close()


if __name__ == "__main__":
    write_pdf(HERE / "cheatsheet.pdf")
