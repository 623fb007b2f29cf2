"""The checks of lesson 01 take right answers in any form, and give every classic mistake its name."""

import numpy as np
import pytest
import torch

from udlib.course.exercises import check
from udlib.datasets.annotator import marking_probability


def verdict(capsys, number, answer):
    check(number, answer)
    return capsys.readouterr().out


def per_class(rule):
    def posterior(class_index, visibility, C):
        chance = marking_probability(visibility)
        return [rule(chance[class_index == c]) if (class_index == c).any() else 0.0 for c in range(C)]

    return posterior


def flags(boxes, classes):
    return [[box.difficult for box in boxes if box.name == name] for name in classes]


def conditional(Y):
    return Y.T @ Y / Y.sum(0).clamp(min=1)[:, None]


def conditional_by_loop(Y):
    rows = [
        [float(Y[Y[:, i] == 1][:, j].mean()) if Y[:, i].any() else 0.0 for j in range(Y.shape[1])]
        for i in range(Y.shape[1])
    ]
    return np.array(rows)


def states(boxes, classes):
    return [(-1 if not difficult else 0 if all(difficult) else 1) for difficult in flags(boxes, classes)]


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("01.1", conditional),
        ("01.1", conditional_by_loop),
        ("01.2", per_class(lambda chance: 1 - np.prod(1 - chance))),
        ("01.2", lambda k, v, C: torch.tensor(per_class(lambda chance: 1 - np.exp(np.log1p(-chance).sum()))(k, v, C))),
        ("01.3", states),
        ("01.3", lambda boxes, classes: np.array(states(boxes, classes))),
        ("01.3", lambda boxes, classes: torch.tensor(states(boxes, classes), dtype=torch.int8)),
    ],
)
def test_right_answers_are_correct_as_lists_arrays_and_tensors(capsys, number, answer):
    assert verdict(capsys, number, answer) == f"Exercise {number}: correct.\n"


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        ("01.1", lambda Y: Y.T @ Y / Y.sum(0).clamp(min=1), "this is P(i | j)"),
        ("01.1", lambda Y: Y.T @ Y / len(Y), "not by N"),
        ("01.1", lambda Y: Y.T @ Y, "still counts"),
        ("01.1", lambda Y: Y.T @ Y / Y.sum(0)[:, None], "the row of a class that has no picture holds nan"),
        ("01.1", lambda Y: conditional(Y).fill_diagonal_(0), "the diagonal is empty"),
        ("01.1", lambda Y: 1 - conditional(Y), "position [0, 0] of a test case holds 0: expected 1"),
        ("01.2", per_class(np.sum), "the chances are summed"),
        ("01.2", per_class(np.prod), "the chances are multiplied"),
        ("01.2", per_class(np.max), "only the most visible object"),
        ("01.2", per_class(lambda chance: np.prod(1 - chance)), "position [2]"),
        (
            "01.2",
            lambda k, v, C: [np.prod(1 - marking_probability(v[k == c])) for c in range(C)],
            "the class is missed",
        ),
        (
            "01.2",
            lambda k, v, C: [1 - np.prod(1 - v[k == c]) for c in range(C)],
            "pass them through marking_probability",
        ),
        (
            "01.2",
            lambda k, v, C: np.full(C, 1 - np.prod(1 - marking_probability(v))),
            "every class uses all objects",
        ),
        (
            "01.3",
            lambda b, c: [-1 if not f else 0 if any(f) else 1 for f in flags(b, c)],
            "only if all of its objects are",
        ),
        ("01.3", lambda b, c: [-1 if not f else 1 - f[-1] for f in flags(b, c)], "the last object of a class decides"),
        ("01.3", lambda b, c: [-1 if not f else 1 - f[0] for f in flags(b, c)], "the first object of a class decides"),
        (
            "01.3",
            lambda b, c: [0 if not f else -1 if all(f) else 1 for f in flags(b, c)],
            "absent and difficult are swapped",
        ),
        ("01.3", lambda b, c: [0 if not f or all(f) else 1 for f in flags(b, c)], "an absent class gets 0"),
        ("01.3", lambda b, c: [1 if f else -1 for f in flags(b, c)], "a difficult class gets 1"),
        ("01.3", lambda b, c: [7] * len(c), "holds 7"),
    ],
)
def test_each_mistake_gets_its_own_words(capsys, number, answer, words):
    said = verdict(capsys, number, answer)
    assert said.startswith(f"Exercise {number}: not yet, ") and words in said


@pytest.mark.parametrize(("number", "arguments"), [("01.1", 1), ("01.2", 3), ("01.3", 2)])
class TestAnyAnswer:
    def test_that_is_still_the_dots_is_not_attempted(self, capsys, number, arguments):
        for answer in (lambda *given: ..., ...):
            assert "not attempted yet" in verdict(capsys, number, answer)

    def test_of_another_shape_is_told_the_shape(self, capsys, number, arguments):
        assert "the answer has shape (2, 3): expected (4" in verdict(capsys, number, lambda *given: np.zeros((2, 3)))

    def test_that_is_no_array_of_numbers_is_told_so(self, capsys, number, arguments):
        assert "the answer is a dict: expected numbers" in verdict(capsys, number, lambda *given: {"cup": 1})

    def test_without_a_return_is_reminded_of_it(self, capsys, number, arguments):
        assert "end it with return" in verdict(capsys, number, lambda *given: None)

    def test_that_raises_is_told_the_error_and_does_not_stop_the_lesson(self, capsys, number, arguments):
        assert "it stopped with ZeroDivisionError" in verdict(capsys, number, lambda *given: 1 / 0)

    def test_with_the_wrong_number_of_arguments_is_told_so(self, capsys, number, arguments):
        assert "TypeError" in verdict(capsys, number, lambda *given, extra: given)

    def test_of_nothing_but_nan_is_not_correct(self, capsys, number, arguments):
        shape = (4, 4) if number == "01.1" else (4,)
        assert "not yet" in verdict(capsys, number, lambda *given: np.full(shape, np.nan))
