"""The quizzes keep the rules of docs/quizzes/README.md, and are shown without a script."""

import copy
import re
from html.parser import HTMLParser

import nbformat
import pytest
from lessons import NOTEBOOKS, ROOT, SOURCES, name_of
from quizzes import AIMS, FOLDER, NAMES, aim_paragraph, faults, texts_of_answer

from udlib.course import quizzes, shipped
from udlib.course.quizzes import BLOCKS, as_html, load, quiz

PLAIN = {"div", "p", "ol", "li", "strong", "details", "summary"}


class Fragment(HTMLParser):
    """The tags of a piece of HTML, whether they are closed in order, and the options with what they open."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = set(), [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open.append(tag)
        if tag == "details":
            self.texts.append({"summary": "", "p": ""})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "details" in self.open:
            self.texts[-1]["summary" if "summary" in self.open else "p"] += data


@pytest.mark.parametrize("name", NAMES)
def test_a_quiz_keeps_all_rules(name):
    assert faults(name, load(name)) == []


@pytest.mark.parametrize("number", [source.stem[:2] for source in SOURCES])
def test_the_aims_of_a_lesson_are_in_its_opening_cell(number):
    assert [aim for aim in AIMS[number] if aim not in aim_paragraph(number)] == []


def test_each_lesson_and_each_block_has_a_quiz():
    assert NAMES == [*(source.stem[:2] for source in SOURCES), *BLOCKS]


def changed(change):
    """The quiz of lesson 04 after a change to its questions."""
    questions = copy.deepcopy(load("04"))
    change(questions)
    return faults("04", questions)


def set_answer(question, place, **values):
    return lambda questions: questions[question]["answers"][place].update(values)


def reverse_all(questions):
    for question in questions:
        question["answers"].sort(key=lambda answer: not answer.get("correct", False))


def lengthen_right(questions):
    for question in questions:
        for answer in question["answers"]:
            if answer.get("correct") and "answer" in answer:
                answer["answer"] += " and so on" * 10


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda questions: questions.__delitem__(slice(5, None)), "5 questions"),
        (
            set_answer(1, 0, correct=False, feedback="Wrong. One. Two and three and four and five and six."),
            "0 are right",
        ),
        (
            set_answer(1, 1, feedback="It is wrong. Nobody can repair a lack of resolution."),
            "does not begin with the verdict",
        ),
        (
            set_answer(1, 1, feedback="Wrong. Only one sentence stands here, however many words it has."),
            "explains too little",
        ),
        (
            set_answer(1, 1, feedback="Wrong. The error is 7.77 points. That is more than one would think."),
            "7.77 is in no lesson",
        ),
        (set_answer(1, 1, answer="its <b>resolution</b>"), "markup"),
        (set_answer(1, 1, answer="none of the above"), "about other answers"),
        (lambda questions: questions[2]["sums"].append("0.9 - 0.7 = 0.3"), "the sum is wrong"),
        (lambda questions: questions[2]["sums"].append("open('x') = 1"), "no sum"),
        (lambda questions: questions.__delitem__(2), "no question for the aims {'compute the error that measures it'}"),
        (lambda questions: questions[2]["answers"].pop(), "the last answer is not the default"),
        (reverse_all, "the right options are in the places"),
        (reverse_all, "more than half of the right options are in one place"),
        (lengthen_right, "the right option is the longest"),
    ],
)
def test_a_broken_rule_is_noticed(change, fault):
    assert any(fault in found for found in changed(change))


@pytest.mark.parametrize("name", NAMES)
def test_the_html_has_every_option_with_its_verdict_in_words_and_needs_no_script(name):
    html, questions = as_html(name), load(name)
    fragment = Fragment(html)
    assert fragment.tags == PLAIN and fragment.open == []
    assert not re.search(r"https?:|url\(|\son\w+=|\sid=", html)
    assert html.count("<li") == len(questions)
    answers = [answer for question in questions for answer in question["answers"]]
    assert [option["p"] for option in fragment.texts] == [answer["feedback"] for answer in answers]
    for option, answer in zip(fragment.texts, answers):
        text, _ = texts_of_answer(answer)
        assert option["summary"] == (text.replace("-", "−") if "value" in answer else text or quizzes.OTHER_NUMBER)


@pytest.mark.parametrize("path", [path for _, path, _ in NOTEBOOKS], ids=name_of)
def test_a_lesson_stores_its_quizzes_as_they_are_now(path):
    cells = nbformat.read(path, as_version=4).cells
    shown = {m[1]: cell for cell in cells if (m := re.search(r'^quiz\("(.+)"\)$', cell.source, re.M))}
    assert path.stem[:2] in shown
    for name, cell in shown.items():
        assert [output.data["text/html"] for output in cell.outputs] == [as_html(name)], (
            f"write lesson {path.stem[:2]} again"
        )


def test_text_is_escaped():
    answer = {"answer": "a < b", "correct": True, "feedback": "Right. b > a & so on."}
    shown = quizzes.Quiz("05", [{"question": "1 < 2?", "type": "multiple_choice", "answers": [answer]}])._repr_html_()
    assert "1 &lt; 2?" in shown and "a &lt; b" in shown and "b &gt; a &amp; so on." in shown


def test_a_quiz_has_words_where_html_is_not_shown():
    assert repr(quiz("03")) == f"Quiz of lesson 03: {len(load('03'))} questions"
    assert repr(quiz("block 1")).startswith("Quiz of lessons 00, 01 and 02: ")


def test_all_quizzes_together_make_the_notebooks_less_than_a_megabyte_larger():
    assert 2 * sum(len(as_html(name).encode()) for name in NAMES) < 1e6  # in the lesson and in its solved copy


@pytest.mark.parametrize("name", ["12", "block 5", "../aims", "block_1"])
def test_an_unknown_quiz_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"there is no quiz '.*': choose one of 00, 01, .*block 1, .*block 2"):
        quiz(name)


def test_without_a_checkout_the_error_says_where_the_quizzes_come_from(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "own_checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="the quizzes are not here: they come with a checkout of the project; clone"
    ):
        quiz("05")


@pytest.mark.parametrize("folder", [".", "notebooks", "notebooks/my", "notebooks/solutions"])
def test_an_installed_package_finds_the_quizzes_of_the_checkout_that_it_is_used_in(monkeypatch, tmp_path, folder):
    (tmp_path / "notebooks" / "my").mkdir(parents=True)
    (tmp_path / "notebooks" / "solutions").mkdir()
    (tmp_path / shipped.LESSON).write_text("{}")
    monkeypatch.setattr(shipped, "own_checkout", lambda: None)
    monkeypatch.chdir(tmp_path / folder)
    with pytest.raises(
        FileNotFoundError, match="has no folder docs/quizzes: `git checkout -- docs/quizzes` brings it back"
    ):
        quiz("00")
    (tmp_path / shipped.QUIZZES).mkdir(parents=True)
    (tmp_path / shipped.QUIZZES / "quiz_00.json").write_text("[]")
    assert quiz("00").questions == []


def test_the_page_of_answers_is_up_to_date_and_has_every_right_answer():
    page = (ROOT / quizzes.ANSWERS).read_text(encoding="utf-8")
    assert page == quizzes.answers_page(FOLDER), "run `make readme`"
    for name in NAMES:
        for question in load(name):
            assert question["question"] in page
            assert all(
                (answer["feedback"].split(" ", 1)[1] in page) for answer in question["answers"] if answer.get("correct")
            )
