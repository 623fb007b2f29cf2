"""The equation ledger: every entry points at code, at a cell that runs it, and at a test that names the function."""

import ast
import re

import pytest
import torch
from lessons import ROOT, SOURCES, cells
from torch.nn import functional as F

from udlib import attention, calibration, losses
from udlib.course.ledger import LEDGER, find_cell
from udlib.course.report import equations

ROOMS = {"losses": losses, "calibration": calibration, "attention": attention}


def lesson_function(number, name, **names):
    """A function as the lesson's own cell defines it; `names` is what the cell uses from cells before."""
    source = next(path for path in SOURCES if path.stem.startswith(number))
    code = next(cell.source for cell in cells(source) if cell.cell_type == "code" and f"def {name}" in cell.source)
    tree = ast.parse(code)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    exec(compile(tree, source.name, "exec"), names)
    return names[name]


def test_the_ledger_has_every_equation_of_the_paper_once_in_order():
    assert [entry.equation for entry in LEDGER] == [str(k) for k in range(1, 19)]


@pytest.mark.parametrize("entry", LEDGER, ids=lambda entry: f"Eq. {entry.equation}")
def test_an_entry_points_at_a_function_a_cell_and_a_test(entry):
    place, _, name = entry.function.rpartition(": ") if ": " in entry.function else entry.function.partition(".")
    if place in ROOMS:
        assert callable(getattr(ROOMS[place], name))
    else:
        assert callable(lesson_function(place.removeprefix("lesson "), name))
    path, number = find_cell(ROOT / "notebooks", entry)
    assert path.stem.startswith(entry.lesson) and number >= 1
    file, _, test = entry.test.partition("::")
    code = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {test}\(", code, re.M), f"{file} has no {test}"
    assert name in code, f"{file} never mentions {name}"
    assert entry.computes and entry.released


def test_an_entry_that_no_lesson_teaches_is_an_error_that_names_it():
    from dataclasses import replace

    with pytest.raises(LookupError, match="Eq. 3: lesson 02 .* has no code cell with"):
        find_cell(ROOT / "notebooks", replace(LEDGER[2], words=("no such words",)))


def test_the_page_is_what_the_ledger_gives():
    assert (ROOT / "notebooks" / "equations.md").read_text(encoding="utf-8") == equations(ROOT), "run `make readme`"
    assert equations(ROOT).count("](0") == len(LEDGER)


def test_eq_8_at_like_confidence_is_the_weighted_gap_of_a_literal_loop():
    import numpy as np

    at_like_confidence = lesson_function("04", "at_like_confidence", np=np)
    g = torch.Generator().manual_seed(0)
    f, outcomes = torch.rand(200, 4, generator=g), (torch.rand(200, 4, generator=g) < 0.4).double()
    crowded = torch.rand(200, 4, generator=g) < 0.5
    total = weight = 0.0
    for b in range(10, 20):
        many = [o for x, o, c in zip(f.flatten(), outcomes.flatten(), crowded.flatten()) if b <= 20 * x < b + 1 and c]
        few = [
            o for x, o, c in zip(f.flatten(), outcomes.flatten(), crowded.flatten()) if b <= 20 * x < b + 1 and not c
        ]
        total += len(many) * (sum(many) / len(many) - sum(few) / len(few))
        weight += len(many)
    assert at_like_confidence(f, outcomes, crowded, ~crowded) == pytest.approx(float(total / weight))


def test_eq_9_distances_are_those_from_z_prime_given_a_label():
    g = torch.Generator().manual_seed(0)
    p, logits = torch.rand(5, 3, generator=g, dtype=torch.float64), torch.randn(5, 3, generator=g, dtype=torch.float64)
    sets = torch.cartesian_prod(*[torch.tensor([0, 1])] * 3)
    expected = []
    for row in p:
        joint = torch.where(sets == 1, row, 1 - row).prod(1)
        z = losses.pick_all_labels_marginals(sets, joint)
        expected.append(z / z.sum())
    z_prime_of = lesson_function("03", "z_prime_of", torch=torch, F=F)
    candidates = lesson_function("03", "candidates", z_prime_of=z_prime_of)
    run = type("Run", (), {"test_calibration_logits": logits})
    distances = lesson_function("03", "distances", several=torch.ones(5, dtype=torch.bool))(run, candidates(p))
    assert distances["z', Eq. 7"] == pytest.approx(
        (logits.softmax(1) - torch.stack(expected)).abs().sum(1).mean().item()
    )
