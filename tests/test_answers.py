"""How answers of any kind are read, and what is said about those that cannot be."""

import math

import numpy as np
import pytest
import torch

from udlib.course.exercises import NotAttempted
from udlib.course.exercises.answers import compare, number, numbers, shown


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor([0.5], requires_grad=True), "0.5", True / 2],
)
def test_one_number_may_come_in_many_forms(value):
    assert number(value) == (0.5, None)


@pytest.mark.parametrize(
    "value, words",
    [
        (None, "returned nothing: end it with return"),
        (torch.zeros(2, 3), r"a tensor of shape (2, 3): expected a single number"),
        ([1.0], "list [1.0]: expected a single number"),
        ("half", "str 'half': expected a single number"),
    ],
)
def test_what_is_no_number_is_named(value, words):
    found, problem = number(value)
    assert math.isnan(found) and words in problem


@pytest.mark.parametrize("value", [(1, 2.0, "higher"), [np.float64(1), torch.tensor(2.0), None]])
def test_parts_beside_the_numbers_may_be_anything(value):
    assert numbers(value, "(low, high, verdict)", 2, beside=1) == ([1.0, 2.0], None)


@pytest.mark.parametrize("value", [np.array([1.0, 2.0]), torch.tensor([1.0, 2.0], requires_grad=True)])
def test_an_array_is_as_good_as_a_tuple(value):
    assert numbers(value, "(low, high)", 2) == ([1.0, 2.0], None)


@pytest.mark.parametrize(
    "value, count, beside, words",
    [
        (0.5, 2, 0, "float 0.5: expected a pair, (…)"),
        ((1, 2), 3, 0, "expected three numbers, (…)"),
        ((1, 2), 2, 1, "expected three things, (…)"),
        (None, 3, 1, "expected four things, (…)"),
        ((1, "two"), 2, 0, "a part of the answer is not a number: it returned str 'two'"),
        (np.eye(2), 2, 0, "expected a pair"),
    ],
)
def test_a_wrong_shape_of_answer_is_named(value, count, beside, words):
    found, problem = numbers(value, "(…)", count, beside)
    assert len(found) == count and words in problem


def test_a_part_that_is_still_dots_is_no_attempt():
    with pytest.raises(NotAttempted):
        numbers((0.5, ...), "(a, b)", 2)


def test_a_long_value_is_shown_by_its_beginning():
    assert shown(list(range(100))) == "list [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1…"


def test_the_right_number_says_nothing_a_known_mistake_its_sentence_and_any_other_the_example():
    mistakes = {2.0: "doubled", 0.5: "halved"}
    assert compare(1.00001, 1.0, mistakes) is None
    assert compare(2.0001, 1.0, mistakes) == "doubled"
    assert compare(3.0, 1.0, mistakes) == "on a small example it gives 3, expected 1"
