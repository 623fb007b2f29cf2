"""The rules of docs/quizzes/README.md, as checks that name each fault."""

import json
import math
import re
from functools import cache

from lessons import ROOT, SOURCES, text_of

from udlib.course.quizzes import BLOCKS, names

FOLDER = ROOT / "docs" / "quizzes"
NAMES = names(FOLDER)
AIMS = json.loads((FOLDER / "aims.json").read_text(encoding="utf-8"))
KINDS = {"multiple_choice": (3, 5), "many_choice": (4, 6), "numeric": (3, 6)}  # fewest and most answers
FIELDS = {"question", "type", "aim", "lessons", "sums", "precision", "answers"}
MARKUP = re.compile(r"[<>&$`*\\]|\]\(")
DECIMAL = re.compile(r"\d+\.\d+")
KNOWN = {"log": math.log, "exp": math.exp, "sqrt": math.sqrt, "sigmoid": lambda z: 1 / (1 + math.exp(-z))}
SUM = re.compile(r"(?:[\d\s.+*/()-]|log|exp|sqrt|sigmoid)+")


def lessons_of(name):
    """The numbers of the lessons that a quiz is about."""
    return BLOCKS.get(name, (name,))


@cache
def cells_of_lesson(number):
    """The cells of a committed lesson, solved; read without nbformat and jupytext, which are slow."""
    source = next(path for path in SOURCES if path.stem.startswith(number))
    path = ROOT / "notebooks" / "solutions" / f"{source.stem}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@cache
def words_of_lesson(number):
    """All text of a lesson: its cells and their outputs, with the numbers as they are printed."""
    cells = cells_of_lesson(number)
    outputs = [text_of(output) for cell in cells for output in cell.get("outputs", [])]
    return "\n".join([*("".join(cell["source"]) for cell in cells), *outputs])


def aim_paragraph(number):
    """The paragraph that begins with "Aim.", as a reader sees it."""
    paragraphs = "".join(cells_of_lesson(number)[0]["source"]).split("\n\n")
    (text,) = [paragraph for paragraph in paragraphs if paragraph.startswith("**Aim.**")]
    return " ".join(re.sub(r"\[([^]]*)\]\([^)]*\)|\*", r"\1", text).split())


def texts(question):
    """Everything that a learner reads of a question."""
    return [question["question"], *(text for answer in question["answers"] for text in texts_of_answer(answer))]


def texts_of_answer(answer):
    shown = answer["answer"] if "answer" in answer else str(answer.get("value", ""))
    return [shown, answer["feedback"]]


def faults(name, questions):
    """Everything that is wrong with a quiz, in sentences; an empty list for a good one."""
    found = [] if 6 <= len(questions) <= 10 else [f"{len(questions)} questions"]
    for number, question in enumerate(questions, start=1):
        kind = question.get("type")
        if kind not in KINDS:
            found.append(f"question {number}: the type {kind!r}")
            continue
        checks = [*faults_of_form(question), *faults_of_words(question), *faults_of_numbers(name, question)]
        found += [f"question {number}: {fault}" for fault in checks]
    if not found:
        found += [*faults_of_aims(name, questions), *faults_of_order(questions)]
    return found


def faults_of_form(question):
    low, high = KINDS[question["type"]]
    answers = question["answers"]
    if not low <= len(answers) <= high:
        yield f"{len(answers)} answers"
    if unknown := set(question) - FIELDS:
        yield f"unknown fields {sorted(unknown)}"
    right = sum(answer.get("correct", False) for answer in answers)
    if question["type"] == "many_choice":
        if not 2 <= right < len(answers):
            yield f"{right} of {len(answers)} are right"
    elif right != 1:
        yield f"{right} are right"
    values = answers[:-1] if question["type"] == "numeric" else []
    if question["type"] == "numeric" and answers[-1].get("type") != "default":
        yield "the last answer is not the default"
    if question["type"] == "numeric" and not all(isinstance(answer.get("value"), int | float) for answer in values):
        yield "an answer without a number"
    if question["type"] != "numeric" and not all(isinstance(answer.get("answer"), str) for answer in answers):
        yield "an answer without a text"
    shown = [str(answer.get("answer", answer.get("value"))) for answer in answers]
    if len(set(shown)) < len(shown):
        yield "two equal answers"


def faults_of_words(question):
    for text in texts(question):
        if MARKUP.search(text):
            yield f"markup in {text!r}"
        if re.search(r"(?:all|none|both) of the (?:above|below|other)", text, re.I):
            yield f"an answer about other answers: {text!r}"
    for answer in question["answers"]:
        right, feedback = answer.get("correct", False), answer["feedback"]
        verdict, _, reason = feedback.partition(" ")
        if verdict != ("Right." if right else "Wrong."):
            yield f"the feedback does not begin with the verdict: {feedback!r}"
        sentences = re.findall(r"\w[^.?!:;]*[.?!](?=\s|$|[”)])", re.sub(r"(?<=\d)\.(?=\d)", ",", reason))
        needed = 1 if right or answer.get("type") == "default" else 2
        if len(sentences) < needed or len(reason.split()) < 5 * needed:
            yield f"the feedback explains too little: {feedback!r}"


def faults_of_numbers(name, question):
    sums = question.get("sums", [])
    for line in sums:
        expression, _, value = line.rpartition("=")
        if not SUM.fullmatch(expression):
            yield f"no sum: {line!r}"
            continue
        digits = len(value.strip().partition(".")[2])
        result = eval(expression, {"__builtins__": {}}, KNOWN)  # noqa: S307 - only the characters of SUM
        if abs(result - float(value)) > 0.5 * 10**-digits + 1e-9:
            yield f"the sum is wrong: {line!r}, it is {result}"
    known = set(DECIMAL.findall("\n".join([*map(words_of_lesson, lessons_of(name)), *sums])))
    for text in texts(question):
        for number in DECIMAL.findall(text):
            if number not in known:
                yield f"{number} is in no lesson and in no sum: {text!r}"


def faults_of_aims(name, questions):
    if name in BLOCKS:
        joined = [question.get("lessons", []) for question in questions]
        if any(len(lessons) < 2 or not set(lessons) <= set(BLOCKS[name]) for lessons in joined):
            yield "a question that does not join two lessons of the block"
        missing = set(BLOCKS[name]) - {lesson for lessons in joined for lesson in lessons}
        if missing:
            yield f"no question about the lessons {sorted(missing)}"
        return
    tested = {question.get("aim") for question in questions}
    if unknown := tested - set(AIMS[name]):
        yield f"unknown aims {unknown}"
    if missing := set(AIMS[name]) - tested:
        yield f"no question for the aims {missing}"


def faults_of_order(questions):
    """Whether the place or the length of an option tells that it is right."""
    choices = [question["answers"] for question in questions if question["type"] == "multiple_choice"]
    places = [[answer["correct"] for answer in answers].index(True) for answers in choices]
    if len(choices) < 3 or len(set(places)) < 3:
        yield f"the right options are in the places {places}"
    if max(map(places.count, places)) > len(places) / 2:
        yield f"more than half of the right options are in one place: {places}"
    lengths = [[len(answer["answer"]) for answer in answers] for answers in choices]
    for word, extreme in (("longest", max), ("shortest", min)):
        at = [row[place] == extreme(row) and row.count(row[place]) == 1 for row, place in zip(lengths, places)]
        if sum(at) > len(at) / 2:
            yield f"in {sum(at)} of {len(at)} questions the right option is the {word}"
