"""An executed lesson, as its slides need it: title, time, figures in order, and every number in it."""

import base64
import html
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
PICTURE = re.compile(r'<img\b[^>]*?src="data:image/png;base64,([\w+/=]+)"[^>]*>')
ALT = re.compile(r'\balt="([^"]*)"')
TIME = re.compile(r"\*\*Time\.\*\*\s+([^.;(]*)")
WORDS = {"ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "a": 1, "one": 1, "two": 2, "three": 3}
DECIMAL = re.compile(r"[+-]?\d+(?:,\d{3})*\.\d+")
PERCENT = re.compile(r"(?<![\d.])(\d+) ?(?:%|per cent)")


@dataclass(frozen=True)
class Figure:
    """A figure that a lesson shows: the bytes of its PNG, and its description."""

    png: bytes
    alt: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, which a PNG keeps at a fixed place."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")


def lessons() -> dict[str, Path]:
    """The executed notebooks by their number, `"04"`."""
    return {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


@cache
def cells(number: str) -> list[dict]:
    """The cells of the learner's notebook of a lesson."""
    return json.loads(lessons()[number].read_text(encoding="utf-8"))["cells"]


def outputs(cell: dict) -> list[dict[str, str]]:
    """The outputs of a cell: for each its text by kind."""
    found = [output.get("data") or {"text/plain": output.get("text", "")} for output in cell.get("outputs", [])]
    return [{kind: "".join(text) for kind, text in data.items() if isinstance(text, str | list)} for data in found]


@cache
def figures(number: str) -> tuple[Figure, ...]:
    """The figures of a lesson, in the order of its outputs: pictures in HTML, and PNG outputs."""
    found = []
    for cell in cells(number):
        for data in outputs(cell):
            pictures = list(PICTURE.finditer(data.get("text/html", "")))
            for match in pictures:
                alt = ALT.search(match[0])
                found.append(Figure(base64.b64decode(match[1]), html.unescape(alt[1]) if alt else ""))
            if not pictures and "image/png" in data:
                found.append(Figure(base64.b64decode(data["image/png"]), ""))
    return tuple(found)


def plain(text: str) -> str:
    """The text with one kind of minus, space and per cent sign, so that numbers can be compared."""
    text = text.replace("−", "-").replace("–", " ").replace("\\%", "%").replace("\\,", "")
    return re.sub(r"[\u00a0\u2009\u202f]", " ", text)


@cache
def text(number: str) -> str:
    """The words of a lesson: its Markdown, its code, its outputs and the descriptions of its figures."""
    parts = []
    for cell in cells(number):
        parts.append("".join(cell["source"]))
        for data in outputs(cell):
            page = PICTURE.sub(lambda match: " ".join(ALT.findall(match[0])), data.get("text/html", ""))
            parts += [re.sub(r"<[^>]+>", " ", page), data.get("text/plain", ""), data.get("text/markdown", "")]
    return plain(html.unescape("\n".join(parts)))


def numbers(words: str) -> set[str]:
    """The numbers with a decimal point, each with its sign and without, and the whole numbers of per cent, as `"95 %"`."""
    words = plain(words)
    decimals = DECIMAL.findall(words)
    return {*decimals, *(number.lstrip("+-") for number in decimals)} | {f"{n} %" for n in PERCENT.findall(words)}


@cache
def known_numbers(number: str) -> set[str]:
    """The numbers that a lesson holds."""
    return numbers(text(number))


def unknown_numbers(words: str, number: str) -> list[str]:
    """The numbers in these words that the lesson does not hold. A number with a sign must have this sign in the lesson."""
    words, known = plain(words), known_numbers(number)
    return [n for n in [*DECIMAL.findall(words), *(f"{n} %" for n in PERCENT.findall(words))] if n not in known]


def title(number: str) -> str:
    """The title of a lesson, `04 · How calibrated? ECE and its traps`."""
    return "".join(cells(number)[0]["source"]).splitlines()[0].removeprefix("# ")


def minutes(number: str) -> float:
    """The time that a lesson takes in class, from its paragraph **Time.**: `two and a half hours` are 150."""
    said = TIME.search("".join(cells(number)[0]["source"]))
    if said is None:
        raise ValueError(f"lesson {number} has no paragraph '**Time.**' in its first cell: add one")
    amount = re.search(r"(\d+|\w+)( and a half)? (minutes|hours?)", said[1])
    if amount is None or not (amount[1].isdigit() or amount[1] in WORDS):
        raise ValueError(
            f"lesson {number} says '{said[1].strip()}' under **Time.**: write 'about 90 minutes' or 'about two hours'"
        )
    value = (int(amount[1]) if amount[1].isdigit() else WORDS[amount[1]]) + (0.5 if amount[2] else 0)
    return value * (60 if amount[3].startswith("hour") else 1)
