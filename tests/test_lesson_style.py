"""How lessons read: what is visible, where they lead, answers below questions, a length that fits one sitting."""

import re

import pytest
from lessons import SOURCES, build, name_of

WIDEST = 100  # characters of a visible line of code
ONE_SITTING = {"03": (95, 3750), "04": (97, 3700), "07": (60, 2300)}  # cells and words of text before the quiz
lesson = pytest.mark.parametrize("source", SOURCES, ids=name_of)


def code_cells(source):
    return [cell for cell in build.build(source, solved=False).cells if cell.cell_type == "code"]


def text(source):
    return "\n".join(cell.source for cell in build.build(source, solved=False).cells if cell.cell_type == "markdown")


def tags(cell):
    return {"learn", "report"} & set(cell.metadata.get("tags", []))


def hidden(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


@lesson
def test_every_cell_teaches_or_reports_and_only_reports_are_collapsed(source):
    cells = code_cells(source)
    assert [cell.id for cell in cells if len(tags(cell)) != 1] == []
    assert all(hidden(cell) == ("report" in tags(cell)) for cell in cells)


@pytest.mark.parametrize("source", [source for source in SOURCES if "03" <= source.stem[:2] <= "10"], ids=name_of)
def test_most_visible_cells_teach(source):
    visible = [cell for cell in code_cells(source) if not hidden(cell)]
    assert sum("learn" in tags(cell) for cell in visible) >= 2 / 3 * len(visible)


@lesson
def test_visible_code_fits_the_page(source):
    lines = [line for cell in code_cells(source) if not hidden(cell) for line in cell.source.split("\n")]
    assert [line for line in lines if len(line) > WIDEST] == []


@lesson
def test_a_lesson_leads_to_the_one_before_and_the_one_after(source):
    number = SOURCES.index(source)
    for neighbour in SOURCES[max(number - 1, 0) : number + 2]:
        assert neighbour == source or f"]({neighbour.stem}.ipynb)" in text(source)


@lesson
def test_every_question_to_think_about_has_a_folded_answer_before_the_next_heading(source):
    for after in re.split(r"\*Think", text(source))[1:]:
        assert "<details><summary>Answer</summary>" in re.split(r"(?m)^#{1,6} ", after, maxsplit=1)[0], after[:80]


@lesson
def test_no_text_waits_for_its_result(source):
    waiting = (
        r"\bif (the|these|all|both) (orders?|rows?|two|numbers)\b[^.]*\b(agree|say)|still to be trained|fill itself"
    )
    assert not re.search(waiting, text(source), re.IGNORECASE)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.stem[:2] in ONE_SITTING], ids=name_of)
def test_a_lesson_is_one_sitting(source):
    cells, words = ONE_SITTING[source.stem[:2]]
    before_quiz = [cell.source for cell in build.build(source, solved=False).cells]
    before_quiz = before_quiz[: before_quiz.index(next(text for text in before_quiz if text.startswith("## Quiz")))]
    assert len(before_quiz) <= cells
    assert len(text(source).partition("## Quiz")[0].split()) <= words


@lesson
def test_a_lesson_ends_with_its_quiz(source):
    shown = [cell.source.splitlines()[-1] for cell in code_cells(source) if "quiz(" in cell.source]
    assert shown[0] == f'quiz("{source.stem[:2]}")' and len(shown) <= 2
