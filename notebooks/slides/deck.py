"""A deck as its author writes it: slides with a title, a body, pictures and speaker notes; and what is wrong with it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from notebooks.slides import lesson

DECKS = lesson.ROOT / "docs" / "slides"
FEWEST, MOST, WORDS = 12, 20, 45  # slides of a deck, words of a slide
CODE_LINES, CODE_WIDTH, TABLE_ROWS = 6, 70, 6
NOTES = re.compile(r"^```\{revealjs-notes\}\n(.*?)^```\s*$", re.M | re.S)
CODE = re.compile(r"^```.*?\n(.*?)^```\s*$", re.M | re.S)
EQUATION = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.S)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
FROM_LESSON = re.compile(r"lesson:(\d\d)/(\d+)")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True)
class Notes:
    """What the teacher sees: the minutes of a slide, the question to ask, and what to say."""

    minutes: float
    question: str
    text: str


@dataclass(frozen=True)
class Slide:
    """One slide: its title, its Markdown without the notes, and its notes, or None if it has none that can be read."""

    title: str
    body: str
    notes: Notes | None

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """The description and the target of each picture."""
        return PICTURE.findall(self.body)

    @property
    def code(self) -> list[str]:
        """The lines of all blocks of code."""
        return [line for block in CODE.findall(self.body) for line in block.splitlines()]

    @property
    def words(self) -> int:
        """How many words the class reads: no code, no equation, no description of a picture."""
        text = EQUATION.sub(" ", CODE.sub(" ", f"{self.title}\n{self.body}"))
        text = LINK.sub(r"\1", PICTURE.sub(" ", text))
        return sum(any(letter.isalnum() for letter in word) for word in text.split())


@dataclass(frozen=True)
class Deck:
    """The slides of one lesson, the title slide first."""

    name: str
    slides: tuple[Slide, ...]

    @property
    def number(self) -> str:
        """The number of its lesson, `"04"`."""
        return self.name[:2]

    @property
    def title(self) -> str:
        """The title of its first slide."""
        return self.slides[0].title


def decks(only: str = "*") -> list[Path]:
    """The files of the decks, in order, whose name matches `04`, `04_ece_analysis` or a pattern such as `0[12]*`."""
    paths = sorted(DECKS.glob("[0-9][0-9]_*.md"))
    return [path for path in paths if path.match(f"{only}.md") or path.match(f"{only}_*.md")]


def read_notes(text: str) -> Notes | None:
    """Notes from their block; None if it does not begin with its time and its question."""
    found = re.match(r"Time: (\d+(?:\.\d+)?) min\nAsk: (.+)\n?", text)
    return found and Notes(float(found[1]), found[2].strip(), text[found.end() :].strip())


def read_slide(text: str) -> Slide:
    """One slide from its Markdown, whose first line is its title."""
    title, _, body = text.partition("\n")
    blocks = NOTES.findall(body)
    notes = read_notes(blocks[0]) if len(blocks) == 1 else None
    return Slide(title.lstrip("# ").strip(), NOTES.sub("", body).strip(), notes)


def read(path: Path) -> Deck:
    """Read a deck. A heading within a block of code does not begin a slide."""
    slides: list[list[str]] = []
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if not fenced and re.match("##? ", line) or not slides:
            slides.append([])
        slides[-1].append(line)
    return Deck(path.stem, tuple(read_slide("\n".join(lines) + "\n") for lines in slides))


def picture_file(target: str) -> Path | lesson.Figure | None:
    """What a picture's target names: a figure of a lesson, or the file of a diagram; None if there is no such thing."""
    if found := FROM_LESSON.fullmatch(target):
        figures = lesson.figures(found[1]) if found[1] in lesson.lessons() else ()
        return figures[int(found[2]) - 1] if 1 <= int(found[2]) <= len(figures) else None
    path = lesson.NOTEBOOKS / target
    return path if target.startswith("images/") and path.is_file() else None


def picture_faults(slide: Slide) -> Iterator[str]:
    """What is wrong with the pictures of a slide."""
    if len(slide.pictures) > 1:
        yield "has more than one picture"
    for alt, target in slide.pictures:
        if len(alt.split()) < 4:
            yield f"describes the picture {target} in fewer than four words"
        if picture_file(target) is None:
            yield f"shows {target}, which does not exist"
        if not re.search(rf"(?:^|\n\n)!\[[^\]]*\]\({re.escape(target)}\)(?:\n\n|$)", slide.body):
            yield f"has {target} in a paragraph with other things: a picture stands alone"


def body_faults(slide: Slide) -> Iterator[str]:
    """What is wrong with the text of a slide."""
    if slide.words > WORDS:
        yield f"has {slide.words} words: at most {WORDS} are allowed"
    if len(slide.code) > CODE_LINES or any(len(line) > CODE_WIDTH for line in slide.code):
        yield f"has more than {CODE_LINES} lines of code, or one longer than {CODE_WIDTH} characters"
    if sum(line.startswith("|") for line in slide.body.splitlines()) > TABLE_ROWS + 2:
        yield f"has a table with more than {TABLE_ROWS} rows"
    if "\\underbrace" in slide.body:
        yield "has an \\underbrace, which browsers draw in the wrong place: say it in words"


def slide_faults(slide: Slide, number: str) -> Iterator[str]:
    """What is wrong with one slide of the lesson with this number, in words."""
    yield from body_faults(slide)
    yield from picture_faults(slide)
    if slide.notes is None:
        yield "needs one block {revealjs-notes} that begins with 'Time: N min' and 'Ask: …'"
    elif not slide.notes.text:
        yield "has notes that do not say what the teacher says"
    notes = f"{slide.notes.question}\n{slide.notes.text}" if slide.notes else ""
    for unknown in lesson.unknown_numbers(f"{slide.title}\n{slide.body}\n{notes}", number):
        yield f"says {unknown}, which lesson {number} does not"


def faults(deck: Deck) -> list[str]:
    """What is wrong with a deck, one sentence each."""
    found = []
    if not FEWEST <= len(deck.slides) <= MOST:
        found.append(f"{deck.name} has {len(deck.slides)} slides: it needs {FEWEST} to {MOST}")
    if deck.title != lesson.title(deck.number):
        found.append(f"{deck.name} has the title '{deck.title}': its lesson's is '{lesson.title(deck.number)}'")
    time, given = sum(slide.notes.minutes for slide in deck.slides if slide.notes), lesson.minutes(deck.number)
    if time > given:
        found.append(f"{deck.name} takes {time:g} minutes: its lesson has {given:g}")
    for place, slide in enumerate(deck.slides, 1):
        found += [f"{deck.name}, slide {place}, '{slide.title}', {fault}" for fault in slide_faults(slide, deck.number)]
    return found
