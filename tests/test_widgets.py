"""Explorers as plain Python, and one in a notebook's own kernel."""

import base64
import html
import re
from dataclasses import replace

import nbformat
import pytest
import torch
from lessons import build, descriptions, drawn
from matplotlib.figure import Figure
from nbclient import NotebookClient

from udlib.calibration import calibration_interval, expected_calibration_error
from udlib.course.data import RecipeData
from udlib.course.explorers import Explorer, Frame, LambdaExplorer
from udlib.course.store import Run, recipe
from udlib.metrics import average_precision
from udlib.training.evaluation import Split, measure


def picture(explorer):
    """The bytes of the picture."""
    content = drawn(explorer)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return content


class Line:
    """A frame function that counts its calls: a line of the height chosen, and that height as a reading."""

    def __init__(self):
        self.calls = []

    def __call__(self, height, colour="blue"):
        self.calls.append((height, colour))
        if height < 0:
            raise ValueError(f"height is {height}: <expected> at least 0")
        figure = Figure(figsize=(1, 1))
        figure.subplots().axhline(height, color=colour)
        return Frame(figure, f'a line at "{height}"', {"height": f"{height} m"})


def test_moving_the_slider_changes_the_picture_and_the_reading():
    explorer = Explorer({"height": [1, 2, 3]}, Line())
    first = picture(explorer)
    assert "1 m" in explorer.readout.value and explorer.value == (1,)
    explorer.sliders["height"].value = 3
    assert picture(explorer) != first
    assert "3 m" in explorer.readout.value and "1 m" not in explorer.readout.value
    explorer.sliders["height"].value = 1
    assert picture(explorer) == first


def test_each_setting_is_drawn_once_and_only_when_it_is_looked_at():
    line = Line()
    explorer = Explorer({"height": [1, 2, 3]}, line)
    for height in (2, 1, 2, 1):
        explorer.sliders["height"].value = height
    assert line.calls == [(1, "blue"), (2, "blue")]


def test_warm_draws_every_combination_at_once():
    line = Line()
    explorer = Explorer({"height": [1, 2], "colour": ["red", "blue", "black"]}, line, warm=True)
    assert sorted(line.calls) == sorted((h, c) for h in (1, 2) for c in ("red", "blue", "black"))
    explorer.sliders["colour"].value = "black"
    assert len(line.calls) == 6 and explorer.value == (1, "black")


def test_an_error_is_shown_with_its_setting_and_the_slider_goes_on_working():
    explorer = Explorer({"height": [1, -1, 2]}, Line())
    before = picture(explorer)
    explorer.sliders["height"].value = -1
    assert "height = -1" in explorer.readout.value and "ValueError" in explorer.readout.value
    assert "&lt;expected&gt; at least 0" in explorer.readout.value, "messages are text, not markup"
    explorer.sliders["height"].value = 2
    assert "2 m" in explorer.readout.value and "ValueError" not in explorer.readout.value
    assert picture(explorer) != before


def test_an_error_in_the_very_first_frame_is_shown_too():
    explorer = Explorer({"height": [-1, 1]}, Line())
    assert "ValueError" in explorer.readout.value
    explorer.sliders["height"].value = 1
    assert picture(explorer)


def test_the_start_may_be_chosen_among_the_values_only():
    assert Explorer({"height": [1, 2]}, Line(), start={"height": 2}).value == (2,)
    with pytest.raises(ValueError, match="height = 5 was not computed: choose one of 1, 2"):
        Explorer({"height": [1, 2]}, Line(), start={"height": 5})


def test_a_control_without_values_is_refused():
    with pytest.raises(ValueError, match="'height' has no values"):
        Explorer({"height": []}, Line())


def test_the_slider_has_no_positions_between_the_values():
    explorer = Explorer({"λ": [0, 0.1, 3]}, Line())
    assert list(explorer.sliders["λ"].options) == [0, 0.1, 3]
    with pytest.raises(Exception, match="Invalid selection"):
        explorer.sliders["λ"].value = 1


def test_a_screen_reader_finds_names_readings_and_a_description_that_follows_the_slider():
    """What it finds in the page, `test_browser` asks a real browser."""
    explorer = Explorer({"height": [1, 2]}, Line(), note="measured < 10 times")
    assert explorer.sliders["height"].description == "height"
    assert explorer.readout.value.startswith("<table aria-label='readings'><tr><td"), "a table, and nothing else"
    assert descriptions(explorer.picture.value) == ['a line at "1"']
    explorer.move(height=2)
    assert descriptions(explorer.picture.value) == ['a line at "2"']
    assert "measured &lt; 10 times" in explorer.message.value


def test_where_no_kernel_runs_the_page_shows_the_present_frame_as_a_figure():
    explorer = Explorer({"height": [1, 2], "colour": ["red", "blue"]}, Line(), start={"height": 2})
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert bundle["text/plain"] == 'a line at "2"' and descriptions(bundle["text/html"]) == ['a line at "2"']
    assert (
        "<figcaption>height = 2, colour = red. Run the notebook to move the sliders.</figcaption>"
        in bundle["text/html"]
    )
    (encoded,) = build.PNG.findall(bundle["text/html"])
    assert base64.b64decode(encoded) == picture(explorer)


def test_where_no_kernel_runs_an_error_is_shown_in_place_of_the_frame():
    bundle = Explorer({"height": [-1, 1]}, Line())._repr_mimebundle_()
    assert bundle["text/plain"] == "height = -1: height is -1: <expected> at least 0"
    assert "height = -1: ValueError: height is -1: &lt;expected&gt; at least 0" in bundle["text/html"]


def test_a_table_stands_below_the_picture_as_text_not_markup():
    def frame(height):
        return Frame(Figure(figsize=(1, 1)), "x", {}, [["class", "AP"], ["<boat>", f"{height}"]])

    explorer = Explorer({"height": [1, 2]}, frame)
    explorer.sliders["height"].value = 2
    assert (
        "<th" in explorer.table.value and "&lt;boat&gt;" in explorer.table.value and ">2</td>" in explorer.table.value
    )


def test_move_sets_sliders_by_name_and_refuses_other_names_and_values():
    explorer = Explorer({"height": [1, 2], "colour": ["red", "blue"]}, Line())
    explorer.move(height=2, colour="blue")
    assert explorer.value == (2, "blue") and "2 m" in explorer.readout.value
    with pytest.raises(ValueError, match="height = 1.5 was not computed: choose one of 1, 2"):
        explorer.move(height=1.5)
    with pytest.raises(ValueError, match="no slider 'width': this explorer has height, colour"):
        explorer.move(width=1)
    assert explorer.value == (2, "blue")


CLASSES, POSTERIOR = ("boat", "fish"), torch.tensor([[0.9, 0.1], [0.2, 0.7], [0.6, 0.5], [0.1, 0.4]] * 20)
TARGETS = (torch.rand(80, 2, generator=torch.Generator().manual_seed(0)) < POSTERIOR).to(torch.uint8)


def trained(lam, seed, sharper=1.0):
    """A run whose logits are those of the posterior, sharpened."""
    logits = sharper * torch.logit(POSTERIOR) + 0.01 * seed
    run = Split(CLASSES, TARGETS, torch.zeros_like(TARGETS, dtype=torch.bool), POSTERIOR)
    return Run(recipe(lam=lam, seed=seed), logits, logits, None, None, {"test": measure(logits, run)}, [], {})


@pytest.fixture
def sweep(monkeypatch):
    monkeypatch.setattr(
        RecipeData,
        "labels",
        lambda data, split: Split(CLASSES, TARGETS, torch.zeros_like(TARGETS, dtype=torch.bool), POSTERIOR),
    )
    return {
        lam: [trained(lam, seed, sharper) for seed in (0, 3)] for lam, sharper in ((1.0, 1.0), (0.0, 3.0), (0.1, 2.0))
    }


def test_the_lambda_explorer_shows_the_run_of_its_sliders(sweep):
    explorer = LambdaExplorer(sweep, samples=20)
    assert list(explorer.sliders["λ"].options) == [0.0, 0.1, 1.0] and list(explorer.sliders["seed"].options) == [0, 3]
    assert explorer.value == (0.0, 0)
    pictures = set()
    for lam in (0.0, 0.1, 1.0):
        explorer.move(λ=lam, seed=3)
        run = sweep[lam][1]
        for name, key in (
            ("mAP", "mAP"),
            ("ECE, class-wise", "ECE"),
            ("ECE, pooled", "ECE_pooled"),
            ("ECE, p ≥ 0.5", "ECE_confident"),
            ("true error, pooled", "true_CE_pooled"),
        ):
            assert explorer.measure(lam, 3)[name].estimate == pytest.approx(run.metrics["test"][key], abs=1e-9), name
            assert re.search(
                rf"{re.escape(name)}<br><b>{100 * run.metrics['test'][key]:.1f}\b",
                html.unescape(explorer.readout.value),
            ), name
        pictures.add(picture(explorer))
    assert len(pictures) == 3


def test_the_lambda_explorers_intervals_and_class_table_are_those_of_the_run(sweep):
    explorer = LambdaExplorer(sweep, samples=20, warm=False)
    p = sweep[0.1][1].probabilities()
    measurements = explorer.measure(0.1, 3)["ECE, pooled"]
    assert measurements == calibration_interval(expected_calibration_error, p, TARGETS, samples=20, average="pooled")
    explorer.move(λ=0.1, seed=3)
    ap, share = average_precision(p, TARGETS), TARGETS.double().mean(0)
    for k, name in enumerate(CLASSES):
        row = [
            name,
            str(int(TARGETS[:, k].sum())),
            f"{100 * ap[k]:.1f}",
            f"{100 * expected_calibration_error(p[:, [k]], TARGETS[:, [k]]):.1f}",
            f"{100 * (p[:, k].mean() - share[k]):+.1f}",
        ]
        assert re.sub("<[^>]*>", " ", explorer.table.value).split(name)[1].split()[:4] == row[1:]


def test_the_lambda_explorer_refuses_a_lambda_that_was_not_trained(sweep):
    with pytest.raises(ValueError, match="λ = 0.2 was not trained: choose one of 0.0, 0.1, 1.0"):
        LambdaExplorer(sweep, start={"λ": 0.2}, warm=False)
    explorer = LambdaExplorer(sweep, warm=False)
    with pytest.raises(ValueError, match="λ = 3 was not trained"):
        explorer.move(λ=3)


@pytest.mark.parametrize("broken", [{}, {0.0: []}, {0.0: [trained(0.0, 0)], 1.0: [trained(1.0, 1)]}])
def test_the_lambda_explorer_wants_the_same_seeds_for_every_lambda(broken):
    with pytest.raises(ValueError, match="the same ones for every λ, and at least one"):
        LambdaExplorer(broken)


def test_a_network_that_never_says_yes_has_no_confident_answers(sweep):
    shy = {lam: [replace(run, test_logits=run.test_logits - 9) for run in runs] for lam, runs in sweep.items()}
    explorer = LambdaExplorer(shy, samples=20, warm=False)
    assert "p ≥ 0.5" not in explorer.readout.value and "Error" not in explorer.readout.value
    assert "ECE, pooled" in explorer.readout.value


def test_a_class_nobody_has_is_a_dash_in_the_explorers_table(sweep, monkeypatch):
    nobody = TARGETS.clone()
    nobody[:, 1] = 0
    monkeypatch.setattr(
        RecipeData,
        "labels",
        lambda data, split: Split(CLASSES, nobody, torch.zeros_like(nobody, dtype=torch.bool), None),
    )
    table = LambdaExplorer(sweep, samples=20, warm=False).table.value
    assert re.sub("<[^>]*>", " ", table).split("fish")[1].split()[:2] == ["0", "–"]


def test_without_a_posterior_the_lambda_explorer_shows_no_true_error(sweep, monkeypatch):
    monkeypatch.setattr(
        RecipeData,
        "labels",
        lambda data, split: Split(CLASSES, TARGETS, torch.zeros_like(TARGETS, dtype=torch.bool), None),
    )
    explorer = LambdaExplorer(sweep, samples=20, warm=False)
    assert "mAP, Difficult<br><b>–</b>" in explorer.readout.value, "nothing is difficult here"
    assert "true error" not in explorer.readout.value and "ECE, pooled" in explorer.readout.value


def test_an_explorer_works_in_a_notebooks_own_kernel():
    cells = [
        """from matplotlib.figure import Figure
from udlib.course.explorers import Explorer, Frame
def frame(lam):
    figure = Figure(figsize=(1, 1))
    figure.subplots().axhline(lam)
    return Frame(figure, f"trained at {lam}", {"ECE": f"{lam / 10:.2f}"})
explorer = Explorer({"lam": [0, 1, 3]}, frame)
explorer""",
        """before = explorer.picture.value
explorer.sliders["lam"].value = 3
assert explorer.picture.value != before
print(explorer.readout.value)""",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown, printed = (cell.outputs[0] for cell in notebook.cells)
    assert "application/vnd.jupyter.widget-view+json" in shown.data
    assert "<b>0.30</b>" in printed.text
