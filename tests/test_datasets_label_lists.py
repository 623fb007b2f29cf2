"""Labels in one cell: every way of separating them that leaves no doubt, and a refusal of every one that does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udlib.datasets.label_lists import read_labels
from udlib.datasets.names import clean, doubtful, variants

SETS = [("cat",), ("dog",), ("owl",), ("cat", "dog"), (), ("cat", "owl"), ("cat", "dog", "owl")]
FORMS = {
    "bars": "|".join,
    "semicolons": "; ".join,
    "commas": ",".join,
    "commas and spaces": ", ".join,
    "spaces": " ".join,
    "lines": "\n".join,
    "python": lambda names: str(list(names)),
    "tuple": lambda names: str(tuple(names)),
    "json": lambda names: "[" + ", ".join(f'"{name}"' for name in names) + "]",
    "numpy": lambda names: "[" + " ".join(f"'{name}'" for name in names) + "]",
    "bare list": lambda names: "[" + ", ".join(names) + "]",
    "nan": lambda names: "|".join(names) or "nan",
    "None": lambda names: "|".join(names) or "None",
}


def read(*cells, classes=()):
    refused = {}
    labels, notes = read_labels(cells, classes, lambda row, problem: refused.setdefault(row, problem))
    return labels, notes, refused


@pytest.mark.parametrize("form", FORMS)
def test_the_same_labels_are_read_however_they_are_separated(form):
    labels, notes, refused = read(*(FORMS[form](names) for names in SETS))
    assert labels == SETS and refused == {}
    announced = {"commas", "commas and spaces", "spaces", "nan", "None"}
    assert bool(notes) == (form in announced)


def test_a_separator_that_is_guessed_is_said_with_the_labels_that_result():
    _, notes, _ = read("cat,dog", "cat", "dog")
    assert notes == ["column 'labels' is separated by commas: its labels are cat, dog"]
    _, notes, _ = read("cat", "NaN", "NaN")
    assert notes == ["column 'labels' holds 'NaN' in 2 lines: they count as images without labels"]


@pytest.mark.parametrize(
    "cells, doubted",
    [
        (("cat,dog",), "cat,dog"),  # nothing says that either is a label
        (("cat", "dog", "cat dog", "traffic light"), "cat dog"),  # a space separates, or belongs to a name
        (("cat dog", "dog owl", "cat owl", "owl dog cat"), "cat dog"),
        (("cat|owl", "cat", "dog", "cat,dog"), "cat,dog"),  # two separators in one column
        (("cat", "dog", "cat/dog"), "cat/dog"),
        (("cat", "dog", "cat + dog"), "cat + dog"),
        (("cat", "cat|nan"), "nan"),
        (("['cat', 'dog'", "cat"), "['cat', 'dog'"),
        (("{'cat': 1}", "cat"), "{'cat': 1}"),
        (("['cat', dog]", "cat"), "['cat', dog]"),
    ],
)
def test_a_cell_that_may_hold_one_label_or_several_is_refused(cells, doubted):
    labels, _, refused = read(*cells)
    row = next(row for row, cell in enumerate(cells) if doubted in cell)
    assert doubted in refused[row] or repr(doubted) in refused[row]
    assert all(doubted not in names for names in labels)


def test_names_of_several_words_stay_whole():
    assert read("traffic light", "dog", "hot dog|dog")[0] == [("traffic light",), ("dog",), ("hot dog", "dog")]
    assert read("lung, left|heart", "lung, right")[0] == [("lung, left", "heart"), ("lung, right",)]
    assert read("T-shirt", "cat_a", "(old) car")[0] == [("T-shirt",), ("cat_a",), ("(old) car",)]


def test_numbers_separated_by_spaces_are_labels():
    assert read("5 0", "16", "5", "0", "16 0")[0] == [("5", "0"), ("16",), ("5",), ("0",), ("16", "0")]


def test_given_classes_decide():
    cells = ("cat,dog", "hot dog", "none", "cat hot", "hot dog,cat")
    labels, notes, refused = read(*cells, classes=("cat", "dog", "hot dog", "none", "hot"))
    assert labels[:4] == [("cat", "dog"), ("hot dog",), ("none",), ("cat", "hot")]
    assert labels[4] == ("hot dog", "cat") and notes == [] and refused == {}


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=4, unique=True), min_size=1, max_size=12),
    st.sampled_from([",", " ", "|", ";", ", ", "/", "+", "\n"]),
)
def test_a_label_never_holds_a_separator_in_silence(rows, sign):
    cells = [sign.join(names) for names in rows]
    labels, notes, refused = read(*cells)
    for row, (names, expected) in enumerate(zip(labels, rows)):
        silent = not notes and row not in refused
        if silent and sign.strip() in ("|", ";", "", ",") and sign != " ":
            assert set(names) == set(expected)
    if len({*map(tuple, rows)} - {()}) > len({name for names in rows for name in names}):
        joined = [name for names in labels for name in names if len(name) > 1]
        assert not joined, "more combinations than labels: a combination is no label"


def test_names_that_look_the_same_are_the_same():
    assert clean(" fire\u00a0  truck ") == "fire truck" and clean("caf\u0065\u0301") == "caf\u00e9"
    assert read("cafe\u0301", "caf\u00e9|dog ")[0] == [("caf\u00e9",), ("caf\u00e9", "dog")]


def test_names_that_differ_in_case_or_signs_alone_are_noted():
    assert variants(["owl", "cat", "Owl", "big_cat", "big cat", "1", "1.0", "2"]) == [
        ("owl", "Owl"),
        ("big_cat", "big cat"),
        ("1", "1.0"),
    ]
    (note,) = doubtful({"owl": 18, "Owl": 6, "cat": 3})
    assert note.startswith("'owl' (18 images) and 'Owl' (6 images) differ only in case")
    (note,) = doubtful({"bicycle": 100, "bicyle": 1, "dog": 3})
    assert note.startswith("label 'bicyle' is in 1 image, and 'bicycle' in 100: is it a slip")
    (note,) = doubtful({"bicycle": 200, "Bicyle": 10})
    assert "'Bicyle' is in 10 images" in note
    assert doubtful({"bicycle": 100, "bicyle": 10, "cat": 5, "dog": 0}) == []
