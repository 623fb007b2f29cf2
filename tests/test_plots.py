"""Figures: what is drawn is the data, axes are named, one item is enough, and a picture has words beside it."""

import base64
import html
import io
import math
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from udlib.calibration import reliability_curve
from udlib.datasets.base import Box
from udlib.figures import plots
from udlib.statistics import summary

PICTURE = np.zeros((8, 8, 3), np.uint8)


def classes(n):
    return [f"class {k}" for k in range(n)]


CURVES = {
    "bars": lambda n: plots.bars(classes(n), {"plain": range(n), "difficult": range(n)}, "images"),
    "heat_map": lambda n: plots.heat_map(np.eye(n), classes(n), "share"),
    "lines": lambda n: plots.lines([1, 2], {f"curve {k}": [k, k + 1] for k in range(n)}, "epoch", "mAP (%)"),
    "seed_intervals": lambda n: plots.seed_intervals({f"group {k}": [k, k + 1, k + 3] for k in range(n)}, "mAP (%)"),
    "prediction": lambda n: plots.prediction(PICTURE, classes(n), [0.5] * n, [1] * n, [False] * n),
    "precision_recall": lambda n: plots.precision_recall({f"net {k}": ([0, 1], [1, 0.5]) for k in range(n)}),
    "estimates": lambda n: plots.estimates(
        [f"class {k}" for k in range(n)], {"train": (range(n), range(-1, n - 1), range(1, n + 1))}, "share (%)"
    ),
    "panels": lambda n: plots.panels(classes(n), {f"score {k}": {"scenes": [[1, 2, 4]] * n} for k in range(n)}, "λ"),
    "reliability": lambda n: plots.reliability(
        {f"class {k}": reliability_curve([[0.2], [0.9]], [[0], [1]], average="pooled") for k in range(n)}
    ),
    "scatter": lambda n: plots.scatter(
        {f"class {k}": ([k, k + 1], [k, k + 2]) for k in range(n)}, "truth (%)", "estimate (%)"
    ),
    "interval_bars": lambda n: plots.interval_bars(
        classes(n), {"said": [[k, k + 1, k + 3] for k in range(n)]}, "per cent"
    ),
    "trajectories": lambda n: plots.trajectories(
        {f"class {k}": {"UD": ([1, 2], [[k, k + 1], [k, k + 3]])} for k in range(n)}, "epoch"
    ),
    "dots": lambda n: plots.dots(classes(n), {"ours": range(n), "theirs": range(1, n + 1)}, "AP (%)"),
}


def test_every_kind_of_figure_is_tested_here():
    kinds = {
        name
        for name, function in vars(plots).items()
        if not name.startswith("_") and getattr(function, "__annotations__", {}).get("return") == "Figure"
    }
    assert kinds - {"picture_grid"} == CURVES.keys()  # pictures have no axes; they have tests of their own


def data_axes(figure):
    return [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", CURVES)
def test_every_figure_stands_alone_is_drawn_and_names_its_axes(name, count):
    figure = CURVES[name](count)
    assert type(figure) is Figure, "a plain Figure: nothing is left behind in pyplot"
    assert Image.open(io.BytesIO(plots.png(figure))).size[0] > 100
    for axes in data_axes(figure):
        named_rows = [label.get_text() for label in axes.get_yticklabels() if label.get_text()]
        if name == "heat_map":
            assert named_rows and [label.get_text() for label in axes.get_xticklabels()] == named_rows
        else:
            named = axes.get_xlabel() or figure.axes[-1].get_xlabel()  # what stands in one column is named below
            assert named and (axes.get_ylabel() or axes.get_title("left") or len(named_rows) == count)


@pytest.mark.parametrize("name", CURVES)
def test_names_given_to_a_figure_can_be_read_in_it(name):
    figure = CURVES[name](3)
    plots.png(figure)  # ticks get their words when they are drawn
    words = " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    last = {"lines": "curve 2", "seed_intervals": "group 2", "precision_recall": "net 2"}.get(name, "class 2")
    assert last in words


def test_a_heat_maps_colour_bar_says_what_it_shows():
    figure = plots.heat_map(np.eye(2), ["a", "b"], "share of images")
    assert "share of images" in [axes.get_ylabel() for axes in figure.axes]


def test_lines_differ_in_colour_in_stroke_and_in_marker():
    drawn = plots.lines([1, 2], {name: [0, 1] for name in "abcd"}, "x", "y").axes[0].get_lines()
    for looks in (
        {to_hex(line.get_color()) for line in drawn},
        {line.get_linestyle() for line in drawn},
        {line.get_marker() for line in drawn},
    ):
        assert len(looks) == 4


def test_lines_draws_the_numbers_and_the_band_it_is_given():
    axes = plots.lines([1, 2], {"mAP": [70, 75]}, "epoch", "mAP", bands={"mAP": ([69, 74], [71, 76])}).axes[0]
    assert axes.get_lines()[0].get_xydata().tolist() == [[1, 70], [2, 75]]
    low_and_high = axes.collections[0].get_paths()[0].vertices
    assert low_and_high[:, 1].min() == 69 and low_and_high[:, 1].max() == 76


def test_bars_are_stacked():
    axes = plots.bars(["cat", "dog"], {"plain": [5, 2], "difficult": [1, 3]}, "images").axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0, 5), (0, 2), (5, 1), (2, 3)]


def test_seed_intervals_show_every_seed_and_the_t_interval_of_their_mean():
    values = [70.0, 72.0, 77.0]
    axes = plots.seed_intervals({"baseline": values}, "mAP (%)", zero=True).axes[0]
    assert axes.get_lines()[0].get_xdata().tolist() == values
    half = 4.302652729911275 * math.sqrt(13.0) / math.sqrt(3)  # t(0.975, 2 degrees of freedom) · s / √n
    segments = [collection.get_segments()[0] for collection in axes.collections]
    ends = sorted(x for x, _ in segments[0])
    assert ends == pytest.approx([73 - half, 73 + half])
    assert any(line.get_xdata() == [0, 0] for line in axes.get_lines() if len(line.get_xdata()) == 2)


def test_a_single_seed_has_a_dot_and_no_interval():
    figure = plots.seed_intervals({"baseline": [70.0]}, "mAP (%)")
    assert plots.png(figure)


def test_a_grid_shows_each_picture_and_every_box_where_it_is():
    boxes = [[Box("cat", 1, 2, 5, 7)], [Box("dog", 0, 0, 3, 3, difficult=True)]]
    figure = plots.picture_grid([PICTURE, PICTURE + 255], ["one", "two"], boxes, columns=3)
    first, second, empty = figure.axes
    assert first.images[0].get_array().max() == 0 and second.images[0].get_array().min() == 255 and not empty.images
    assert first.get_title() == "one"
    frame, dashed = first.patches[0], second.patches[0]
    # pixel k is drawn from k - 0.5 to k + 0.5
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (0.5, 1.5, 4, 5)
    assert frame.get_linestyle() in ("-", "solid") and dashed.get_linestyle() in ("--", "dashed")
    assert to_hex(frame.get_edgecolor()) != to_hex(dashed.get_edgecolor())


def test_a_grid_of_one_picture_needs_no_titles_and_no_boxes():
    assert plots.picture_grid([Image.fromarray(PICTURE)]).axes[0].images


def test_a_prediction_shows_the_most_probable_classes_first_and_tells_true_from_false_ones():
    figure = plots.prediction(PICTURE, ["ant", "bee", "cow"], [0.2, 0.9, 0.6], [0, 1, 1], [False, False, True])
    axes = figure.axes[1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bee", "cow (difficult)", "ant"]
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.6, 0.2]
    bee, cow, ant = axes.patches
    assert to_hex(ant.get_facecolor()) == "#ffffff" and to_hex(bee.get_facecolor()) != to_hex(cow.get_facecolor())
    assert cow.get_hatch() and not bee.get_hatch()


def test_dots_put_each_groups_value_in_the_row_of_its_name_and_leave_out_nan():
    axes = plots.dots(["cat", "dog"], {"before": [0.5, math.nan], "after": [0.7, math.nan]}, "AP").axes[0]
    before, after = axes.get_lines()
    assert before.get_xydata()[0].tolist() == [0.5, 0] and after.get_xydata()[0].tolist() == [0.7, 0]
    assert [segment.tolist() for segment in axes.collections[0].get_segments()] == [[[0.5, 0], [0.7, 0]]]


def test_panels_join_the_means_over_seeds_show_every_seed_and_a_reference():
    seeds = [[1.0, 2.0, 6.0], [4.0, 4.5, 5.0]]
    figure = plots.panels(
        [0.0, 0.1], {"mAP": {"scenes": seeds}, "ECE": {"scenes": seeds, "digits": seeds}}, "λ", {"mAP": {"CutOut": 4.2}}
    )
    left, right = figure.axes
    ticks, means = left.lines[0], left.containers[0].lines[0]
    assert ticks.get_ydata().tolist() == [1, 2, 6, 4, 4.5, 5] and means.get_ydata().tolist() == [3, 4.5]
    reach = [segment[:, 1] for segment in left.containers[0].lines[2][0].get_segments()]
    expected = summary(seeds[0])
    assert reach[0].tolist() == pytest.approx([expected.low, expected.high])
    assert left.lines[-1].get_label() == "CutOut" and set(left.lines[-1].get_ydata()) == {4.2}
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "0.1"]
    assert left.get_title("left") == "mAP" and len(right.containers) == 2 and right.get_xlabel() == "λ"


def test_reliability_draws_shares_over_confidences_and_counts_and_leaves_out_sparse_bins():
    curve = reliability_curve([[0.1], [0.1], [0.7], [0.9]], [[0], [1], [1], [1]], bins=2, average="pooled")
    upper, lower = plots.reliability({"net": curve}, smallest=2).axes
    diagonal, drawn = upper.lines
    assert diagonal.get_xdata().tolist() == diagonal.get_ydata().tolist() == [0, 1]
    assert drawn.get_xdata() == pytest.approx([0.1, 0.8]) and drawn.get_ydata() == pytest.approx([0.5, 1.0])
    assert lower.patches[0].get_data().values.tolist() == [2, 2] and lower.get_yscale() == "log"
    sparse = plots.reliability({"net": curve}, smallest=3).axes[0].lines[1]
    assert len(sparse.get_xdata()) == 0


def test_scatter_draws_the_points_and_the_diagonal():
    (axes,) = plots.scatter({"a": ([1, 2], [2, 5]), "b": ([3, 4], [3, math.nan])}, "x", "y").axes
    diagonal, first, second = axes.lines
    low, high = diagonal.get_xdata()
    assert list(diagonal.get_ydata()) == [low, high] and low < 1 and high > 5
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1, 2], [2, 5])
    assert first.get_marker() != second.get_marker()


def test_interval_bars_are_as_long_as_the_mean_and_carry_its_interval():
    seeds = {"said": [[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]], "right": [[2.0, 2.0, 2.0], [math.nan, 1.0, 1.0]]}
    (axes,) = plots.interval_bars(["net", "other"], seeds, "per cent").axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([3, 4, 2, 1]), "NaN is left out"
    reach = axes.collections[0].get_segments()[0][:, 0]
    assert reach.tolist() == pytest.approx([summary(seeds["said"][0]).low, summary(seeds["said"][0]).high])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["net", "other"]


def test_estimates_put_value_and_interval_in_the_row_of_their_name_side_by_side_for_groups():
    groups = {"train": ([5, 2], [4, 1], [7, 3]), "val": ([6, 1], [6, 1], [6, 1])}
    axes = plots.estimates(["cat", "dog"], groups, "share").axes[0]
    train, val = axes.containers
    assert train.lines[0].get_xdata().tolist() == [5, 2] and val.lines[0].get_xdata().tolist() == [6, 1]
    assert [segment[:, 0].tolist() for segment in train.lines[2][0].get_segments()] == [[4, 7], [1, 3]]
    assert all(train.lines[0].get_ydata() < val.lines[0].get_ydata())
    assert train.lines[0].get_ydata().round().tolist() == [0, 1] and val.lines[0].get_ydata().round().tolist() == [0, 1]


def test_trajectories_join_the_means_span_the_seeds_and_draw_one_name_alike_in_all_panels():
    upper, lower = plots.trajectories(
        {"mAP": {"hard": ([5, 10], [[1, 2], [3, 6]]), "UD": ([5, 10], [1, 1])}, "loss": {"UD": ([1, 2, 3], [9, 3, 1])}},
        "epoch",
        marks=[7],
        logarithmic=["loss"],
    ).axes
    hard, ud, mark = upper.lines
    assert hard.get_ydata().tolist() == [2, 4] and ud.get_ydata().tolist() == [1, 1] and set(mark.get_xdata()) == {7}
    assert upper.collections[0].get_paths()[0].get_extents().get_points().tolist() == [[5, 1], [10, 6]]
    assert (ud.get_color(), ud.get_marker()) == (lower.lines[0].get_color(), lower.lines[0].get_marker())
    assert (hard.get_color(), hard.get_linestyle()) != (ud.get_color(), ud.get_linestyle())
    assert upper.get_yscale() == "linear" and lower.get_yscale() == "log" and lower.get_xlabel() == "epoch"


def test_a_long_name_below_a_panel_has_several_lines():
    names = ["none", "T", "T / class", "Platt", "beta", 0.30]
    (axes,) = plots.panels(names, {"ECE": {"scenes": [[1, 2, 4]] * 6}}, "").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["none", "T", "T /\nclass", "Platt", "beta", "0.3"]


def test_precision_recall_marks_the_threshold_it_is_given():
    axes = plots.precision_recall({"net": ([0, 1], [1, 0.5])}, points={"net": (0.4, 0.8)}).axes[0]
    assert axes.get_lines()[1].get_xydata().tolist() == [[0.4, 0.8]]


def shown(monkeypatch, *arguments):
    """What `show` hands to the notebook."""
    output = {}
    monkeypatch.setattr("IPython.display.display", lambda data, **rest: output.update(data=data, **rest))
    plots.show(*arguments)
    assert output["raw"] is True
    return output["data"]


def test_show_puts_the_words_into_the_page(monkeypatch):
    words = 'mAP "rises" & ECE < 1'
    data = shown(monkeypatch, CURVES["lines"](1), words)
    assert data["text/plain"] == words and set(data) == {"text/plain", "text/html"}
    image, caption = re.fullmatch(
        r'<figure style="margin:0"><img alt="([^"]*)" src="data:image/png;base64,[\w+/=]+">'
        r"<figcaption>(.*)</figcaption></figure>",
        data["text/html"],
    ).groups()
    assert html.unescape(image) == html.unescape(caption) == words and "<" not in image + caption


@pytest.mark.parametrize(
    ("alt", "caption", "line"),
    [
        ("Eq. 13 falls. The other rises.", None, "<figcaption>Eq. 13 falls.</figcaption>"),
        ("one thing", "another <thing>", "<figcaption>another &lt;thing&gt;</figcaption>"),
        ("one thing", "", ""),
    ],
)
def test_a_caption_is_the_first_sentence_or_what_is_asked_for(monkeypatch, alt, caption, line):
    assert shown(monkeypatch, CURVES["lines"](1), alt, caption)["text/html"].endswith(f'">{line}</figure>')


def test_a_file_is_shown_with_its_own_pixels(monkeypatch):
    file = io.BytesIO()
    Image.new("RGBA", (3, 2), (255, 0, 7, 255)).save(file, "png")
    (encoded,) = re.findall(r"base64,([^\"]*)", shown(monkeypatch, file.getvalue(), "red")["text/html"])
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.mode == "RGB" and image.size == (3, 2) and image.getpixel((2, 1)) == (255, 0, 7)


def test_show_has_no_picture_without_words():
    with pytest.raises(TypeError):
        plots.show(CURVES["lines"](1))
    with pytest.raises(ValueError, match="no description: say in `alt` what it shows"):
        plots.show(CURVES["lines"](1), " ")
