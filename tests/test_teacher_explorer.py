"""The explorer of a student's teacher and temperature, as plain Python."""

import html
import re
from dataclasses import replace

import pytest
import torch
from lessons import drawn

from udlib.calibration import calibration_interval, expected_calibration_error
from udlib.course.data import RecipeData
from udlib.course.explorers import LambdaExplorer, TeacherExplorer
from udlib.course.store import Run, recipe
from udlib.training.evaluation import Split, measure

CLASSES, POSTERIOR = ("boat", "fish"), torch.tensor([[0.9, 0.1], [0.2, 0.7], [0.6, 0.5], [0.1, 0.4]] * 20)
TARGETS = (torch.rand(80, 2, generator=torch.Generator().manual_seed(0)) < POSTERIOR).to(torch.uint8)
TEACHERS, TEMPERATURES, SEEDS = ("wide", "narrow"), (1.0, 3.0, 5.0), (0, 3)


def labelled(posterior=POSTERIOR):
    return Split(CLASSES, TARGETS, torch.zeros_like(TARGETS, dtype=torch.bool), posterior)


def run_of(chosen, sharper):
    """A run whose logits are those of the posterior, sharpened."""
    logits = sharper * torch.logit(POSTERIOR) + 0.01 * chosen.training.seed
    return Run(chosen, logits, logits, None, None, {"test": measure(logits, labelled())}, [], {})


def taught(teacher, T, seed):
    sharper = 1 + T / 10 + TEACHERS.index(teacher)
    return run_of(recipe("distillation", teacher=teacher, temperature=T, seed=seed, alpha=0.0, beta=0.0), sharper)


@pytest.fixture
def grid(monkeypatch):
    monkeypatch.setattr(RecipeData, "labels", lambda data, split: labelled())
    return {
        (teacher, T): [taught(teacher, T, seed) for seed in SEEDS]
        for T in reversed(TEMPERATURES)
        for teacher in TEACHERS
    }


@pytest.fixture
def baseline():
    return [run_of(recipe(seed=seed), 2.5) for seed in SEEDS]


def test_every_position_shows_the_student_that_was_trained_there(grid, baseline):
    explorer = TeacherExplorer(grid, baseline, samples=5)
    assert list(explorer.sliders) == ["teacher", "T", "seed"]
    assert [list(slider.options) for slider in explorer.sliders.values()] == [
        list(TEACHERS),
        list(TEMPERATURES),
        list(SEEDS),
    ]
    pictures = set()
    for teacher in TEACHERS:
        for T in TEMPERATURES:
            explorer.move(teacher=teacher, T=T, seed=3)
            known = grid[teacher, T][1].metrics["test"]
            shown = html.unescape(explorer.readout.value)
            for name, key in (
                ("mAP", "mAP"),
                ("ECE, class-wise", "ECE"),
                ("ECE, pooled", "ECE_pooled"),
                ("true error, pooled", "true_CE_pooled"),
            ):
                assert explorer.measure(teacher, T, 3)[name].estimate == pytest.approx(known[key], abs=1e-9), name
                assert re.search(rf"{re.escape(name)}<br><b>{100 * known[key]:.1f}\b", shown), name
            assert f"NLL, nats<br><b>{known['NLL']:.4f}</b>" in shown
            assert f"taught by {teacher} at T = {T:g}, seed 3" in explorer.picture.value
            pictures.add(drawn(explorer))
    assert len(pictures) == len(grid)


def test_the_baseline_of_the_same_seed_stands_in_the_picture(grid, baseline):
    explorer = TeacherExplorer(grid, baseline, samples=5, warm=False)
    axes = explorer.frame("wide", 3.0, 3).figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["baseline", "student"]
    other = TeacherExplorer(
        grid, [baseline[0], replace(baseline[1], test_logits=-baseline[1].test_logits)], samples=5, warm=False
    )
    lines = [each.frame("wide", 3.0, 3).figure.axes[0].lines for each in (explorer, other)]
    assert lines[0][1].get_ydata().tolist() != lines[1][1].get_ydata().tolist(), "the baseline is drawn"
    assert lines[0][2].get_ydata().tolist() == lines[1][2].get_ydata().tolist(), "and the student beside it"


def test_its_readings_and_its_table_are_those_of_the_other_explorer(grid, baseline):
    explorer = TeacherExplorer(grid, baseline, samples=5, warm=False)
    student = grid["narrow", 5.0][1]
    other = LambdaExplorer({0.0: [student]}, samples=5, warm=False)
    mine, theirs = explorer.measure("narrow", 5.0, 3), other.measure(0.0, 3)
    assert mine.pop("NLL, nats").estimate == student.metrics["test"]["NLL"]
    assert str(mine) == str(theirs), "as text, since NaN equals nothing"
    assert (
        mine["ECE, pooled"]
        == theirs["ECE, pooled"]
        == calibration_interval(
            expected_calibration_error, student.probabilities(), TARGETS, samples=5, average="pooled"
        )
    )
    explorer.move(teacher="narrow", T=5.0, seed=3)
    assert explorer.table.value == other.table.value and "boat" in explorer.table.value


def test_warm_draws_all_students_at_once_and_a_move_draws_none(grid, baseline):
    explorer = TeacherExplorer(grid, baseline, samples=5)
    assert explorer._render.cache_info().currsize == len(grid) * len(SEEDS)
    before = explorer._render.cache_info().misses
    explorer.move(teacher="narrow", T=5.0, seed=3)
    assert explorer._render.cache_info().misses == before


def test_a_temperature_or_a_teacher_that_was_not_trained_is_refused(grid, baseline):
    with pytest.raises(ValueError, match="T = 2 was not trained: choose one of 1.0, 3.0, 5.0"):
        TeacherExplorer(grid, baseline, start={"T": 2}, warm=False)
    explorer = TeacherExplorer(grid, baseline, samples=5, start={"teacher": "narrow", "T": 3.0}, warm=False)
    assert explorer.value == ("narrow", 3.0, 0)
    with pytest.raises(ValueError, match="teacher = huge was not trained: choose one of wide, narrow"):
        explorer.move(teacher="huge")


def test_every_teacher_needs_every_temperature(grid, baseline):
    del grid["narrow", 3.0]
    with pytest.raises(ValueError, match="no runs of narrow at T = 3: expected every teacher at every T"):
        TeacherExplorer(grid, baseline, warm=False)
    with pytest.raises(ValueError, match="no runs of any teacher"):
        TeacherExplorer({}, baseline, warm=False)


def test_students_and_baseline_need_the_same_seeds(grid, baseline):
    for broken, beside in ((grid, baseline[:1]), (grid, []), ({**grid, ("wide", 1.0): []}, baseline)):
        with pytest.raises(
            ValueError, match="the same ones for every teacher and T, and for the baseline, and at least one"
        ):
            TeacherExplorer(broken, beside, warm=False)


def test_what_was_not_measured_is_a_dash(grid, baseline, monkeypatch):
    monkeypatch.setattr(RecipeData, "labels", lambda data, split: labelled(posterior=None))
    bare = {key: [replace(run, metrics={"test": {}}) for run in runs] for key, runs in grid.items()}
    shown = TeacherExplorer(bare, baseline, samples=5, warm=False).readout.value
    assert "mAP, Difficult<br><b>–</b>" in shown and "NLL, nats<br><b>–</b>" in shown and "true error" not in shown
