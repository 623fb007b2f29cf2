"""The quizzes of the lessons, as HTML that needs no script.

The files in docs/quizzes have the format of jupyterquiz, so a teacher can show them with that package too. The lessons and
the book do not use it, for four reasons:

* Its quiz is built by a script. JupyterLab runs no script of a notebook that it does not trust, such as one that was just
  downloaded. The quiz is then empty. The same holds for a book without JavaScript.
* It says "right" and "wrong" by a colour, and a screen reader is not told that an answer has appeared.
* Where it finds MathJax 3 it may load another copy from the network.
* Each quiz stores all of its scripts in the notebook, with an identifier that is different after each execution.

Here each option is a <details> element. A browser opens it by mouse, touch or keyboard, and a screen reader says whether it
is open. It also works in JupyterLab where the notebook is not trusted, and in pages without JavaScript.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from udlib.course.shipped import quizzes_folder

# The lessons of each block, which a quiz joins.
BLOCKS = {
    "block 1": ("00", "01", "02"),
    "block 2": ("03", "04"),
    "block 3": ("05", "06", "07", "08"),
    "block 4": ("09", "10"),
}
ANSWERS = "docs/teaching/answers.md"  # the page for teachers, in a checkout
INTRODUCTION = (
    "Decide on an answer first. Then open it: click it, or go to it with Tab and press Enter. It says whether it is right, and "
    "why. Nothing is stored."
)
HINTS = {
    "multiple_choice": "One option is right.",
    "many_choice": "More than one option is right.",
    "numeric": "Work out the number, then open the line that has it.",
}
OTHER_NUMBER = "another number"
PAGE_HEAD = """# Answers to the quizzes

The right answers, for teachers. The quizzes themselves also explain each wrong answer.

`make readme` writes this page from the files in [docs/quizzes](../quizzes/README.md).
"""

# Styles are written into the elements, because JupyterLab removes <style> from a notebook that it does not trust.
_OPTION = "border:1px solid #888888;border-radius:4px;margin:6px 0;padding:2px 10px;max-width:700px"
_SUMMARY = "cursor:pointer;padding:4px 0"
_QUESTION = "margin:20px 0"

Question = dict[str, Any]


class Quiz:
    """A quiz, to be displayed as the last value of a notebook's cell.

    Args:
        name: The number of a lesson, such as "05", or a block, such as "block 3".
        questions: Its questions, in the format of docs/quizzes/README.md.
    """

    def __init__(self, name: str, questions: list[Question]) -> None:
        self.name, self.questions = name, questions

    @property
    def title(self) -> str:
        """What the quiz is about, in words."""
        lessons = BLOCKS.get(self.name)
        if lessons is None:
            return f"Quiz of lesson {self.name}"
        return f"Quiz of lessons {', '.join(lessons[:-1])} and {lessons[-1]}"

    def _repr_html_(self) -> str:
        questions = "\n".join(map(_question_html, self.questions))
        return f'<div class="udlib-quiz">\n<p>{INTRODUCTION}</p>\n<ol aria-label="{self.title}">\n{questions}\n</ol>\n</div>'

    def __repr__(self) -> str:
        return f"{self.title}: {len(self.questions)} questions"


def quiz(name: str) -> Quiz:
    """Return a quiz; as the last line of a notebook's cell, it is displayed.

    Args:
        name: The number of a lesson, such as "05", or a block, such as "block 3".

    Raises:
        ValueError: For a name without a quiz.
        FileNotFoundError: Where the package was installed without the quizzes.
    """
    return Quiz(name, load(name))


def as_html(name: str) -> str:
    """Return a quiz as a piece of HTML that needs no script, no style sheet and no network.

    Args:
        name: The number of a lesson, such as "05", or a block, such as "block 3".
    """
    return quiz(name)._repr_html_()


def load(name: str, folder: Path | None = None) -> list[Question]:
    """Read the questions of a quiz.

    Args:
        name: The number of a lesson, such as "05", or a block, such as "block 3".
        folder: The folder of the quizzes; by default that of the checkout.

    Raises:
        ValueError: For a name without a quiz.
        FileNotFoundError: Where the package was installed without the quizzes.
    """
    folder = quizzes_folder() if folder is None else folder
    path = folder / f"quiz_{name.replace(' ', '_')}.json"
    if name not in names(folder):
        raise ValueError(f"there is no quiz '{name}': choose one of {', '.join(names(folder))}")
    questions: list[Question] = json.loads(path.read_text(encoding="utf-8"))
    return questions


def names(folder: Path | None = None) -> list[str]:
    """List the names of all quizzes: the lessons, then the blocks.

    Args:
        folder: The folder of the quizzes; by default that of the checkout.
    """
    folder = quizzes_folder() if folder is None else folder
    stems = (path.stem.removeprefix("quiz_") for path in folder.glob("quiz_*.json"))
    return sorted(stem.replace("_", " ") for stem in stems)


def answers_page(folder: Path | None = None) -> str:
    """Write the page of right answers for teachers, in Markdown.

    Args:
        folder: The folder of the quizzes; by default that of the checkout.
    """
    parts = [PAGE_HEAD]
    for name in names(folder):
        quiz_of_name = Quiz(name, load(name, folder))
        parts.append(f"## {quiz_of_name.title}\n")
        for number, question in enumerate(quiz_of_name.questions, start=1):
            parts.append(_answer_of(number, question))
    return "\n".join(parts)


def _answer_of(number: int, question: Question) -> str:
    """A question with what it tests and its right answers, in Markdown."""
    tests = question["aim"] if "aim" in question else f"lessons {', '.join(question['lessons'])}"
    right = [a for a in question["answers"] if a.get("correct")]
    lines = [f"   * **{_text(a).removesuffix('.')}**: {a['feedback'].removeprefix('Right. ')}" for a in right]
    return "\n".join([f"{number}. {question['question']} (*{tests}*)", *lines, ""])


def _question_html(question: Question) -> str:
    """One question as an element of the list."""
    options = "\n".join(map(_option_html, question["answers"]))
    text, hint = escape(question["question"], quote=False), HINTS[question["type"]]
    return f'<li style="{_QUESTION}"><strong>{text}</strong> {hint}\n{options}\n</li>'


def _option_html(answer: dict[str, Any]) -> str:
    """One option: a line that opens, with "Right." or "Wrong." and the reason."""
    verdict, reason = answer["feedback"].split(" ", 1)
    return (
        f'<details style="{_OPTION}"><summary style="{_SUMMARY}">{escape(_text(answer), quote=False)}</summary>'
        f"<p><strong>{verdict}</strong> {escape(reason, quote=False)}</p></details>"
    )


def _text(answer: dict[str, Any]) -> str:
    """What an option says: its text, or its number with a proper minus sign."""
    if "answer" in answer:
        return answer["answer"]
    return OTHER_NUMBER if "value" not in answer else str(answer["value"]).replace("-", "−")
