"""Every exercise of every lesson: untouched, solved, and with each classic mistake, each with an answer of its own."""

import ast
import contextlib
import io
import re
import sys
import types
from functools import cache
from importlib import import_module

import nbformat
import numpy as np
import pytest
import torch
from lessons import (
    SOURCES,
    build,
    cells,
    cells_of,
    check_cells,
    code_of,
    exercises,
    name_of,
    names,
    names_at_top,
    text_of,
)

from udlib.course import exercises as checks

EXERCISES = [(source, number) for source in SOURCES for number in exercises(source)]
MISTAKES = [
    (source, number, k) for source, number in EXERCISES for k, _ in enumerate(cells_of(source, "mistake", number))
]


def identify(value):
    return name_of(value) or f"{value}"


@cache
def prepared(source):
    """A module in which the cells tagged `setup` have run, once."""
    module = types.ModuleType(f"lesson_{source.stem}")
    sys.modules[module.__name__] = module
    for cell in cells(source):
        if "setup" in cell.metadata.get("tags", []):
            exec(compile(cell.source, f"{source.stem}: setup", "exec"), vars(module))
    return module


def printed_after(source, number, cell):
    """All that the check prints after the answer in this cell."""
    names = dict(vars(prepared(source)))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for part in (cell, *check_cells(source, number)):
            exec(compile(part.source, f"{source.stem}: exercise {number}", "exec"), names)
    return printed.getvalue()


def answer(source, number, cell):
    """What the check says to the answer in this cell."""
    return re.findall(rf"^Exercise {re.escape(number)}: (.*)$", printed_after(source, number, cell), re.M)


@cache
def learners(source):
    """The committed notebook in which the exercises wait."""
    return nbformat.read(next(iter(build.targets(source))), as_version=4)


@pytest.mark.parametrize("source, number", EXERCISES, ids=identify)
def test_an_exercise_that_nobody_attempted_runs_green_and_says_so(source, number):
    (said,) = answer(source, number, *cells_of(source, "exercise", number))
    assert said.startswith("not attempted yet")


@pytest.mark.parametrize("source, number", EXERCISES, ids=identify)
def test_the_learners_notebook_shows_what_the_check_of_an_untouched_exercise_prints(source, number):
    """The cells that nbval, which runs the solved notebooks, does not run: every stub, and what its check says."""
    (stub,), (check,) = cells_of(source, "exercise", number), check_cells(source, number)
    (shown,) = [cell for cell in code_of(learners(source)) if cell.source == check.source]
    assert {output.output_type for output in shown.outputs} == {"stream"}
    assert "".join(map(text_of, shown.outputs)) == printed_after(source, number, stub)


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_no_cell_but_its_check_builds_upon_an_exercise(source):
    """So that all other cells do the same in the learner's notebook as in the solved one."""
    for number in exercises(source):
        roles = [cell for role in ("exercise", "solution") for cell in cells_of(source, role, number)]
        theirs = set().union(*map(names_at_top, roles))
        checks_of_it = {cell.source for cell in check_cells(source, number)}
        for cell in code_of(build.build(source, solved=False)):
            if cell.source not in checks_of_it | {role.source for role in roles}:
                assert not theirs & names(cell, ast.Load), (number, cell.id)


@pytest.mark.parametrize(
    "code, bound",
    [
        ("import numpy as np\nx = 1", {"np", "x"}),
        ("def f(a):\n    b = a\n    return b", {"f"}),
        ("def f():\n    global g\n    g = 1", {"f", "g"}),
        ("print(x)\nfor k in y: pass", {"k"}),
    ],
)
def test_which_names_a_cell_binds_for_the_cells_after_it(code, bound):
    assert names_at_top(nbformat.v4.new_code_cell(code)) == bound


@pytest.mark.parametrize("source, number", EXERCISES, ids=identify)
def test_the_solution_is_correct(source, number):
    assert answer(source, number, *cells_of(source, "solution", number)) == ["correct."]


@pytest.mark.parametrize("source, number, k", MISTAKES, ids=identify)
def test_a_classic_mistake_is_recognised_and_named(source, number, k):
    mistake = cells_of(source, "mistake", number)[k]
    (said,) = answer(source, number, mistake)
    assert said.startswith("not yet, ") and mistake.metadata["says"] in said


@pytest.mark.parametrize("source, number", EXERCISES, ids=identify)
def test_no_two_mistakes_get_the_same_answer(source, number):
    said = [answer(source, number, cell)[0] for cell in cells_of(source, "mistake", number)]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_a_lesson_asks_about_each_exercise_that_has_a_check(source):
    import_module(f"udlib.course.exercises.lesson_{source.stem[:2]}")
    assert {number for number in checks._CHECKERS if number.startswith(source.stem[:2])} == set(exercises(source))


@pytest.mark.parametrize("source, number", EXERCISES, ids=identify)
def test_a_check_says_whether_an_exercise_was_attempted_and_survives_an_exception(source, number, capsys):
    for untouched in (..., lambda *arguments: ...):
        checks.check(number, untouched)
        assert "not attempted yet" in capsys.readouterr().out
    checks.check(number, lambda *arguments: 1 / 0)
    assert "ZeroDivisionError" in capsys.readouterr().out


@pytest.fixture
def seven(monkeypatch):
    """An exercise 99.1, answered by a function that returns 7."""
    monkeypatch.setitem(sys.modules, "udlib.course.exercises.lesson_99", types.ModuleType("lesson_99"))
    monkeypatch.setattr(checks, "_CHECKERS", {})

    @checks.exercise("99.1")
    def judge(function):
        value = checks.called(function)
        return None if value == 7 else f"{value} is not 7"


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda: 7, "correct."),
        (lambda: 8, "not yet, 8 is not 7\n    The check called <lambda> with\n"),
        (lambda: ..., "not attempted yet"),
        (..., "not attempted yet"),
        (lambda: 1 / 0, "not yet, it stopped with ZeroDivisionError: division by zero"),
    ],
)
def test_a_check_tells_right_from_wrong_from_untouched_and_never_raises_for_an_answer(seven, capsys, function, said):
    checks.check("99.1", function)
    assert capsys.readouterr().out.startswith(f"Exercise 99.1: {said}")


def test_a_function_that_overwrites_its_arguments_leaves_the_example_of_the_check_as_it_is():
    tensor, array, leaf = torch.ones(2), np.ones(2), torch.ones(2, requires_grad=True)

    def spoil(a, b, c):
        a.zero_(), b.fill(0)
        return c is leaf

    assert checks.called(spoil, tensor, array, leaf)
    assert tensor.sum() == array.sum() == 2


def test_a_check_of_an_unknown_exercise_names_the_known_ones(seven):
    with pytest.raises(ValueError, match="no exercise 99.2: this lesson has 99.1"):
        checks.check("99.2", 7)


@pytest.mark.parametrize(
    "guess, said",
    [
        (None, "You wrote no guess"),
        (0.5, "very close"),
        (0.6, "in the right region"),
        (0.9, "within a factor of two"),
        (0.26, "within a factor of two"),
        (2, "far off"),
        (-0.9, "far off"),
        (-0.5, "the right size, with the wrong sign"),
        ("half", "Your guess, 'half', is not one number"),
        ((0.4, 0.6), "is not one number"),
    ],
)
def test_a_guess_is_compared_with_what_was_measured(capsys, guess, said):
    checks.check_guess("share", guess, 0.501)
    assert said in capsys.readouterr().out


SWEEP = {0.0: [0.70, 0.71, 0.70], 0.1: [0.74, 0.75, 0.74], 1.0: [0.73, 0.76, 0.74]}


@pytest.mark.parametrize(
    "guess, said",
    [
        (..., "best on average is 0.1. You wrote no guess"),
        (None, "You wrote no guess"),
        (0.1, "0.1 has the best mean, as you said"),
        (1.0, "rank 2 of 3, and 3 seeds cannot tell the two apart"),
        (0.0, "rank 3 of 3, and the interval of their difference excludes 0"),
        (0.2, "0.2 was not trained: guess one of 0, 0.1, 1"),
        ("0.1", "0.1 has the best mean, as you said"),
        ([0.1, 1.0], "best on average is 0.1. Your guess, [0.1, 1.0], is not one number"),
    ],
)
def test_a_choice_is_scored_by_its_rank_and_by_whether_the_best_can_be_told_from_it(capsys, guess, said):
    checks.check_choice("mAP", guess, SWEEP)
    assert said in capsys.readouterr().out


def test_a_choice_among_errors_is_best_where_it_is_lowest(capsys):
    checks.check_choice("ECE", 0.0, SWEEP, higher_is_better=False)
    checks.check_choice("ECE", 1.0, {0.0: [0.2], 1.0: [0.3]}, higher_is_better=False)
    first, second = capsys.readouterr().out.splitlines()
    assert "0 has the best mean" in first and "but one seed has no interval" in second


def test_a_number_of_the_text_is_held_against_the_measured_one(monkeypatch):
    monkeypatch.delenv("UDLIB_PROFILE", raising=False)
    checks.assert_measured(0.751, stated=0.75, within=0.002)
    with pytest.raises(AssertionError, match=r"measured 0.76, the text says 0.75"):
        checks.assert_measured(0.76, stated=0.75, within=0.002)
    with pytest.raises(AssertionError, match="finite"):
        checks.assert_measured(float("nan"), stated=0.75, within=0.002)


def test_in_the_smoke_profile_a_measured_number_must_only_be_finite(monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    checks.assert_measured(0.1, stated=0.75, within=0.002)
    with pytest.raises(AssertionError, match="finite"):
        checks.assert_measured(float("inf"), stated=0.75, within=0.002)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.stem[:2] != "00"], ids=name_of)
def test_each_lesson_has_one_open_exercise_with_points_and_a_folded_answer(source):
    text = "\n\n".join(cell.source for cell in cells(source) if cell.cell_type == "markdown")
    (asked,) = re.findall(r"^#{1,6} [^\n]*[Ee]xercise[^\n]*★★★.*?(?=^#)", text, re.M | re.S)
    assert re.search(r"^One point each:\n\n1\. .*\n2\. .*\n3\. ", asked, re.M), "no rubric"
    assert re.search(r"<details><summary>A worked answer</summary>\n\n.+\n\n</details>", asked, re.S), (
        "no folded answer"
    )
    assert len(asked.split()) <= 250
