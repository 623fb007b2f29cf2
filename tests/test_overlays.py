"""Signed maps over pictures: each covers its cells, on its own scale, and its sign can be read without colour."""

import io

import numpy as np
import pytest
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from PIL import Image

from udlib.datasets.base import Box
from udlib.figures import overlays, plots

PICTURE = np.full((8, 8, 3), 200, np.uint8)
HEAT = np.array([[3.0, 1.0], [-6.0, 0.0]])
BOXES = [Box("cup", 1, 2, 5, 7), Box("lamp", 0, 0, 3, 3, difficult=True)]


def drawn(heat, boxes=()):
    """The axes of one map over the picture."""
    figure = Figure()
    axes = figure.subplots()
    overlays.overlay(axes, PICTURE, heat, boxes)
    assert Image.open(io.BytesIO(plots.png(figure))).size[0] > 100
    return axes


def contours(axes):
    return [artist for artist in axes.get_children() if isinstance(artist, ContourSet)]


def test_a_map_covers_the_picture_on_a_scale_of_its_own_with_zero_in_the_middle():
    picture, heat = drawn(HEAT).images
    assert heat.get_array().tolist() == HEAT.tolist() and heat.get_extent() == picture.get_extent()
    assert (heat.norm.vmin, heat.norm.vmax) == (-6, 6)
    assert heat.get_alpha()[1, 1] == 0, "where the map is 0 the picture shows through"


def test_the_sign_can_be_read_from_the_lines():
    (lines,) = contours(drawn(np.abs(HEAT)))
    assert list(lines.levels) == [3] and list(lines.linestyles) == ["-"]
    (lines,) = contours(drawn(HEAT))  # -6 to 3: no cell reaches +3 and more
    assert list(lines.levels) == [-3] and list(lines.linestyles) == ["--"]


@pytest.mark.parametrize("heat", [np.zeros((2, 2)), np.ones((2, 2)), np.ones((1, 1)), np.zeros((1, 3))])
def test_a_flat_map_has_no_lines_and_no_warning(heat, recwarn):
    assert contours(drawn(heat)) == [] and len(recwarn) == 0


def test_boxes_are_those_of_the_other_pictures():
    easy, hard = drawn(HEAT, BOXES).patches
    assert (easy.get_x(), easy.get_y(), easy.get_width(), easy.get_height()) == (0.5, 1.5, 4, 5)
    assert easy.get_linestyle() in ("-", "solid") and hard.get_linestyle() in ("--", "dashed")


@pytest.mark.parametrize("count", [1, 3])
def test_a_grid_has_a_row_for_each_picture_and_a_column_for_each_network(count):
    maps = {"teacher": [HEAT] * count, "student": [None] + [2 * HEAT] * (count - 1)}
    figure = overlays.attention_grid([PICTURE] * count, maps, [f"image {k}\nKL" for k in range(count)], [BOXES] * count)
    assert Image.open(io.BytesIO(plots.png(figure))).size[0] > 100
    grid = np.array(figure.axes).reshape(count, 3)
    assert [axes.get_title() for axes in grid[:, 0]] == [f"image {k}\nKL" for k in range(count)]
    assert [axes.get_title() for axes in grid[0, 1:]] == ["teacher", "student"]
    assert [len(axes.images) for axes in grid[0]] == [1, 2, 0], "None leaves a gap"
    assert all(len(axes.patches) == 2 for axes in grid[:, :2].ravel())


def test_the_bars_of_each_head_stand_side_by_side_in_the_row_of_their_class():
    heads = {"sigmoid": [0.9, 0.5], "softmax": [0.99, 0.01]}
    figure = overlays.attention(PICTURE, HEAT, ["cup", "lamp"], heads, "uncertainty", BOXES)
    left, middle, axes = figure.axes
    assert len(left.images) == 1 and len(middle.images) == 2 and middle.get_title() == "uncertainty"
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, 0.99, 0.01]
    tops = [bar.get_y() for bar in axes.patches]
    assert tops[0] < tops[2] < tops[1] < tops[3]
    assert len({bar.get_hatch() for bar in axes.patches}) == 2, "readable without colour"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cup", "lamp"]
    assert axes.get_xlabel() and axes.get_xlim() == (0, 1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(heads)


def test_a_network_without_a_map_shows_the_picture_and_says_why():
    figure = overlays.attention(PICTURE, None, ["cup"], {"sigmoid": [0.9]}, "no calibration branch")
    assert not figure.axes[1].images and figure.axes[1].get_title() == "no calibration branch"
    assert plots.png(figure)


def test_answers_stand_in_the_row_of_their_class_the_most_probable_first():
    figure = overlays.answers(
        [PICTURE], ["cup", "lamp", "tree"], [{"label": [0, 1, 0], "teacher": [0.3, 0.8, 0.1]}], count=2
    )
    axes = figure.axes[1]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["lamp", "cup"]
    points = {line.get_label(): list(zip(line.get_ydata().tolist(), line.get_xdata().tolist())) for line in axes.lines}
    assert points == {"label": [(0, 1), (1, 0)], "teacher": [(0, 0.8), (1, 0.3)]}
    assert len({line.get_marker() for line in axes.lines}) == 2, "told apart without colour"
    assert Image.open(io.BytesIO(plots.png(figure))).size[0] > 100
