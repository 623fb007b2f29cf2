"""Explorers as plain Python, and one in a notebook's own kernel."""

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

from udlib.widgets import Explorer, Frame



def picture(explorer):
    """The bytes of the picture; traitlets may hand them out as a view."""
    content = bytes(explorer.picture.value)
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


def test_a_screen_reader_finds_names_readings_and_a_description():
    explorer = Explorer({"height": [1]}, Line(), note="measured < 10 times")
    assert explorer.sliders["height"].description == "height"
    assert "role='status'" in explorer.readout.value
    assert "aria-label='a line at &quot;1&quot;'" in explorer.readout.value
    assert "measured &lt; 10 times" in explorer.message.value


def test_an_explorer_works_in_a_notebooks_own_kernel():
    cells = ["""from matplotlib.figure import Figure
from udlib.widgets import Explorer, Frame
def frame(lam):
    figure = Figure(figsize=(1, 1))
    figure.subplots().axhline(lam)
    return Frame(figure, f"trained at {lam}", {"ECE": f"{lam / 10:.2f}"})
explorer = Explorer({"lam": [0, 1, 3]}, frame)
explorer""", """before = explorer.picture.value
explorer.sliders["lam"].value = 3
assert explorer.picture.value != before
print(explorer.readout.value)"""]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown, printed = (cell.outputs[0] for cell in notebook.cells)
    assert "application/vnd.jupyter.widget-view+json" in shown.data
    assert "<b>0.30</b>" in printed.text
