"""CI goes red when it should: changed outputs, stripped outputs, a wrong loss, a wrong metric, a tampered result.

The notebooks' own runner (`notebooks/build.py`) judges copies of committed notebooks, cut to the cells that matter.
"""

import os
import re
import shutil

import nbformat
import pytest
from broken import run_with_broken, source_of
from forks import call_in_fork
from lessons import ROOT, SOURCES, build, code_of, complaints, cut

from udlib.course import store as experiments
from udlib.course.recipes import two_branch
from udlib.course.store import load, save
from udlib.datasets import data_root


def write(notebook, path):
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def exercise():
    """The first exercise of lesson 00 with its check, whose output nbval compares."""
    return cut("00", 'check("00.1"')


def test_a_changed_output_of_a_tagged_cell_turns_ci_red(exercise, tmp_path, capfd):
    assert build.CHECK_TAG in exercise.cells[-1].metadata.tags
    output = exercise.cells[-1].outputs[0]
    output.text = output.text.replace("not attempted yet", "correct")
    assert build.nbval([write(exercise, tmp_path / "changed.ipynb")]) == 1
    assert "Exercise 00.1: not attempted yet" in capfd.readouterr().out


def test_stripped_outputs_pass_nbval_vacuously_but_not_our_own_check(exercise, tmp_path):
    for cell in code_of(exercise):
        cell.outputs, cell.execution_count = [], None
    assert build.nbval([write(exercise, tmp_path / "stripped.ipynb")]) == 0
    found = "\n".join(complaints(exercise, SOURCES[0], solved=False))
    assert "no text to compare with" in found and "not executed in order" in found


# What is broken, and words of the first cell that must notice: lesson, room, function, the body that takes its place.
MUTANTS = {
    "BCE, flipped": (
        "02",
        "losses",
        "ova_loss",
        "return -right(*values, **options)",
        ("by_library = ova_loss(", "assert"),
    ),
    "AP, upside down": (
        "02",
        "metrics",
        "average_precision",
        "return right(-torch.as_tensor(values[0]), *values[1:], **options)",
        ("metrics.average_precision(", "assert"),
    ),
    "PAL-N, summed over positives": (
        "03",
        "losses",
        "pal_n_loss",
        "return right(*values, **options) * values[1].sum(1).clamp(min=1).float().mean()",
        ("pal_n_loss(z, y)", "assert"),
    ),
    "partial softmax, full": (
        "03",
        "losses",
        "partial_softmax",
        "return values[0].softmax(1) * values[1]",
        ("partial_softmax(z, y)", "assert"),
    ),
    "z', marginals": (
        "03",
        "losses",
        "pick_all_labels_marginals",
        "return values[1] @ values[0].double()",
        ("pick_all_labels_marginals(LABELS", "assert"),
    ),
    "ECE, too small": (
        "04",
        "calibration",
        "expected_calibration_error",
        "return 0.9 * right(*values, **options)",
        ("pooled_by_hand", "assert"),
    ),
    "true error, too large": (
        "04",
        "calibration",
        "true_calibration_error",
        "return 1.1 * right(*values, **options)",
        ("true_calibration_error(p, truth)", "assert"),
    ),
    "temperature, of other logits": (
        "04",
        "posthoc",
        "fit_temperature",
        "return right(2 * values[0], *values[1:], **options)",
        ("posthoc.fit_temperature(r.val_logits", "assert"),
    ),
    "KD, teacher and student swapped": (
        "05",
        "losses",
        "bernoulli_kl",
        "return right(values[1], values[0], *values[2:], **options)",
        ("by_loop", "assert torch.isclose(bernoulli_kl(t, s)"),
    ),
    "energy, negative cells counted": (
        "06",
        "attention",
        "energy_inside",
        "return right(values[0].abs(), values[1])",
        ("energy_inside(tiny", "assert"),
    ),
    "Eq. 14, averaged over classes": (
        "07",
        "losses",
        "softmax_kl",
        "return right(*values, **options) / values[0].shape[1]",
        ("softmax_kl(", "assert", "# Eq. 14"),
    ),
    "Eq. 17, squared": (
        "07",
        "losses",
        "attention_loss",
        "return right(*values, **options) ** 2",
        ("attention_loss(", "assert", "# Eq. 17"),
    ),
    "schedule without its restart": (
        "08",
        "training.optimization",
        "learning_rate",
        "return right(values[0] // 2, *values[1:], **options)",
        ("learning_rate(", "assert np.allclose(run_rates"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_function_turns_the_lesson_that_teaches_it_red(name, tmp_path):
    """In a process of its own, which runs the cells as nbval's kernel would: the first error is a failed assertion."""
    number, room, function, body, words = MUTANTS[name]
    cells = cut(number, *words).cells
    assert not {tag for cell in cells for tag in cell.metadata.get("tags", []) if "raises" in tag or "skip" in tag}
    sources = [cell.source for cell in cells]
    error, printed = call_in_fork(run_with_broken, room, function, body, sources, tmp_path)
    assert error == "AssertionError", "red for this reason only"
    assert not re.search(r"training \w+\(", printed), "the shipped runs were not found"


def test_an_assertion_that_fails_because_a_function_is_broken_turns_ci_red(tmp_path, capfd):
    """The same by nbval, in a kernel that imports a broken copy of the package."""
    number, room, function, body, words = MUTANTS["BCE, flipped"]
    lesson = write(cut(number, *words), tmp_path / "lesson.ipynb")
    shutil.copytree(ROOT / "udlib", tmp_path / "mutant" / "udlib", ignore=shutil.ignore_patterns("__pycache__"))
    place = tmp_path / "mutant" / "udlib" / room
    with open(place / "__init__.py" if place.is_dir() else place.with_suffix(".py"), "a", encoding="utf-8") as file:
        file.write(f"\n\n{source_of(function, body)}")
    # The mutant is no checkout, and finds data and results where the environment says.
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "results").symlink_to(ROOT / "data" / "results")
    for folder in data_root().glob("*-v*"):
        (tmp_path / "data" / folder.name).symlink_to(folder)
    path = os.pathsep.join(filter(None, [str(tmp_path / "mutant"), os.environ.get("PYTHONPATH")]))
    assert build.nbval([lesson], PYTHONPATH=path, UDLIB_DATA=str(tmp_path / "data")) == 1
    printed = capfd.readouterr().out
    assert "AssertionError" in printed and not {"NameError", "ImportError"} & set(printed.split())
    assert not re.search(r"training \w+\(", printed), "the shipped runs were not found"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The recipe of a result that ships with its logits, and a copy of the folder of packed results."""
    folder = shutil.copytree(ROOT / "data" / "results", tmp_path / "results")
    monkeypatch.setattr(experiments, "results_folder", lambda: folder)
    monkeypatch.setattr(experiments, "store", lambda: tmp_path / "runs")
    return two_branch(0.1)[0], folder


def test_a_packed_file_of_logits_with_one_changed_byte_is_refused(shipped):
    recipe, folder = shipped
    assert load(recipe).test_logits.isfinite().all()
    path = folder / "logits" / "lambda.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"lambda\.safetensors"):
        load(recipe)


def test_a_changed_number_in_the_packed_table_is_refused(shipped):
    recipe, folder = shipped
    value = repr(load(recipe).metrics["test"]["mAP"])
    table = folder / "metrics.csv"
    text = table.read_text(encoding="utf-8")
    assert value in text
    table.write_text(text.replace(value, repr(float(value) + 0.1), 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.csv"):
        load(recipe)


def test_a_shipped_result_under_another_recipes_name_is_refused(shipped, tmp_path):
    recipe, _ = shipped
    save(load(recipe))
    other = recipe.but(seed=recipe.training.seed + 100)
    (tmp_path / "runs" / recipe.key).rename(tmp_path / "runs" / other.key)
    with pytest.raises(ValueError, match="holds the result of"):
        load(other)
