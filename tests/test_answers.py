"""How answers of any kind are read, and what is said about those that cannot be."""

import math
import types

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from udlib.course.exercises import NotAttempted
from udlib.course.exercises.answers import compare, differentiable, number, numbers, shown
from udlib.course.exercises.calls import call_in_words, in_words, remedy
from udlib.losses import bernoulli_kl, ova_loss
from udlib.statistics import paired_difference


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


@pytest.mark.parametrize(
    "mistake, words",
    [
        (lambda: torch.where(torch.tensor([1, 0]), torch.ones(2), torch.zeros(2)), "for example targets == 1"),
        (lambda: torch.ones(2, requires_grad=True).div_(2), "make a new tensor, z = z / T"),
    ],
)
def test_an_error_about_the_kind_of_a_tensor_says_what_to_write(mistake, words):
    with pytest.raises(RuntimeError) as raised:
        mistake()
    assert words in remedy(raised.value)


def test_a_long_value_is_shown_by_its_beginning():
    assert shown(list(range(100))) == "list [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1…"


def test_the_right_number_says_nothing_a_known_mistake_its_sentence_and_any_other_the_example():
    mistakes = {2.0: "doubled", 0.5: "halved"}
    assert compare(1.00001, 1.0, mistakes) is None
    assert compare(2.0001, 1.0, mistakes) == "doubled"
    assert compare(3.0, 1.0, mistakes) == "on a small example it gives 3, expected 1"


@pytest.mark.parametrize(
    "value, words",
    [
        (0.5, "a Python number: return the tensor itself, without .item()"),
        (np.float64(0.5), "a Python number"),
        ([torch.tensor(0.5)], "a list: join its tensors to one, with torch.stack"),
        (np.zeros(2), "a ndarray"),
        (torch.tensor(0.5), "cuts it off from the logits"),
    ],
)
def test_what_cuts_a_gradient_off_is_named(value, words):
    assert words in differentiable(value)


def test_a_gradient_can_flow_through_a_tensor_of_the_graph():
    assert differentiable(2 * torch.tensor(0.5, requires_grad=True)) is None


@pytest.mark.parametrize(
    "value, words",
    [
        ((0.1, 0.2, 0.3), "expected four numbers, (λ, mean, low, high); 1 of them is missing"),
        ((0.1,), "3 of them are missing"),
        (paired_difference([1.0, 2.0], [0.0, 0.5]), "the PairedDifference itself: expected four numbers, (λ, mean"),
    ],
)
def test_an_answer_that_lacks_numbers_is_told_which_ones_are_asked_for(value, words):
    assert words in numbers(value, "(λ, mean, low, high)", 4)[1]


@pytest.mark.parametrize(
    "attempt, words",
    [
        (lambda: [1.0] - [2.0], "Python cannot calculate with a list: convert it to an array first"),
        (lambda: 1.0 - [2.0], "Python cannot calculate with a list"),
        (lambda: [1.0] * 0.5, "Python cannot calculate with a list"),
        (lambda: [1.0].mean(), "a list has no .mean"),
        (lambda: (0.5).exp(), "a Python number has no .exp"),
        (lambda: torch.sigmoid(0.5), "torch.sigmoid takes a tensor, not a float"),
        (lambda: torch.mean([0.5]), "torch.mean takes a tensor, not a list"),
        (lambda: ova_loss(torch.zeros(1, 2), torch.full((1, 2), 0.3)), "got 0.3"),
        (lambda: ova_loss([0.5], torch.zeros(1, 2)), "the library takes a tensor for logits, not a list"),
        (lambda: ova_loss(torch.zeros(1, 2), torch.zeros(1, 3)), "logits and targets of the same shape"),
        (lambda: torch.zeros(1, requires_grad=True).numpy(), "use torch functions all the way"),
        (lambda: (lambda a: a)(1, 2), "the check calls it with 2 arguments"),
        (lambda: (lambda a, b: a)(1), "the check passes fewer arguments"),
        (lambda: torch.zeros(2, 3) + torch.zeros(2, 4), "two shapes do not fit"),
        (lambda: np.zeros(3) - np.zeros(4), "two shapes do not fit"),
        (lambda: 1 - (torch.ones(2) > 0), "a tensor of True and False"),
        (lambda: torch.ones(2) & torch.ones(2), "work only on True and False"),
        (lambda: torch.ones(2).double() @ torch.ones(2), "the types of the numbers do not match"),
        (lambda: torch.ones(2).double() @ torch.ones(2, 3), "the types of the numbers do not match"),
        (lambda: torch.ones(2, 3).int().T @ torch.ones(2), "the types of the numbers do not match"),
        (lambda: torch.ones(2).masked_fill(torch.ones(2), 0), "a mask holds True and False"),
        (lambda: torch.ones(2)[torch.ones(2)], "a mask holds True and False"),
        (lambda: np.ones(2)[np.ones(2)], "a mask holds True and False"),
        (lambda: ~torch.ones(2), "a mask holds True and False"),
        (lambda: torch.ones(2)(0), "something of type Tensor was called like a function"),
        (lambda: {0.1: 1}[np.int64(4)], "there is no key 4: look at the keys"),
        (lambda: 1 if torch.ones(2) else 2, "use torch.where"),
        (lambda: undefined, "undefined has no value: run the cells above"),  # noqa: F821
        (lambda: 3 * None, "returned nothing"),
        (lambda: np.zeros(2).median(), "a NumPy array has no .median"),
        (lambda: torch.mean(np.zeros(2)), "torch.mean takes a tensor, and this is a NumPy array"),
        (lambda: types.SimpleNamespace(logits=1).detach(), "call it on each tensor, such as teacher.logits.detach()"),
        (lambda: types.SimpleNamespace(logits=1).features, "no .features in this check"),
        (lambda: bernoulli_kl(torch.zeros(1, 2), torch.zeros(1, 2), reduction="sum"), "no reduction='sum'"),
        (lambda: bernoulli_kl(torch.zeros(2), torch.zeros(2)), "cut one image out with [k : k + 1]"),
        (lambda: bernoulli_kl(torch.zeros(1, 2), torch.zeros(1, 2), beta=1), "bernoulli_kl has no argument beta"),
        (lambda: torch.cat([torch.tensor(1.0)]), "join single numbers with torch.stack"),
        (lambda: F.interpolate(torch.zeros(2, 5, 5), size=(3, 3), mode="bilinear"), "add a channel dimension"),
        (lambda: F.interpolate(torch.zeros(2, 5, 5), size=3, mode="bilinear"), "add a channel dimension"),
        (lambda: 1 / 0, "it stopped with ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_of_a_plausible_attempt_says_what_to_change(attempt, words):
    with pytest.raises(Exception) as raised:
        attempt()
    assert words in remedy(raised.value)


@pytest.mark.parametrize(
    "value, text",
    [
        (torch.tensor([[1.0, -0.25], [1 / 3, 2.0]]), "[[1, -0.25], [0.3333, 2]]"),
        (torch.tensor(0.5), "0.5"),
        (torch.tensor([-0.0]), "[0]"),
        (np.array([True, False]), "[True, False]"),
        (np.zeros((13, 13)), "ndarray of shape (13, 13)"),
        ({0.1: [0.70, 0.71]}, "{0.1: [0.7, 0.71]}"),
        (("UD", 3), "['UD', 3]"),
        (types.SimpleNamespace(logits=torch.ones(1, 2)), ".logits [[1, 1]]"),
        (torch.Generator(), "a Generator"),
        (torch.nn.Identity(), "Identity()"),
        (torch.nn.Sequential(torch.nn.Identity()), "a Sequential of 1"),
        (list(range(1000)), "a list of 1000"),
    ],
)
def test_an_argument_is_shown_as_it_would_be_typed_and_a_large_one_by_its_size(value, text):
    assert in_words(value) == text


def test_a_call_is_shown_under_the_names_that_the_learner_gave():
    shown_call = call_in_words(lambda z, T: None, (torch.ones(2), 3.0))
    assert shown_call.splitlines()[1:] == ["      z = [1, 1]", "      T = 3"]
    assert "argument 2 = 3" in call_in_words(lambda *anything: None, (1.0, 3.0))
