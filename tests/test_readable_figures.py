"""Words in figures can be read: 9 points or more at the size shown, with a contrast of 4.5 to 1 (WCAG 2.1, 1.4.3)."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_plots import CURVES

from udlib.datasets.base import Box
from udlib.figures import boxes, label_graphs, overlays, plots

COLUMN = 948  # pixels that JupyterLab has for a figure in a window 1400 pixels wide, beside its list of files
SMALLEST, CONTRAST = 9, 4.5
HIDDEN_SHARE = 0.15  # of the area of a word may be less readable: a thin line that passes
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
NAMES = ["bottle", "chair", "clock", "flower"]
AFFINITY = np.ones((4, 4)) - np.eye(4)
PARTITIONS = {"CGP": [[0, 1], [2, 3]], "DGP": [[0, 2], [1, 3]]}
P = [0.97, 0.51, 0.3, 0.02]
REGIONS = [((0.1, 0.2, 0.9, 0.9), "bottle", True), ((0.3, 0.5, 0.6, 0.8), "chair", False)]
MAP = NOISE[:8, :8, 0] - 120.0

FIGURES = {name: lambda draw=draw: draw(4) for name, draw in CURVES.items()} | {
    "heat_map, annotated": lambda: plots.heat_map(np.linspace(0, 1, 36).reshape(6, 6), range(6), "x", annotate=True),
    "picture_grid": lambda: plots.picture_grid([NOISE] * 12, ["lamp, ball\n(truncated)"] * 12),
    "panels, three in a row": lambda: plots.panels(
        [0.0, 0.03, 0.1, 0.3], {name: {"scenes": [[1, 2, 4]] * 4} for name in NAMES}, "λ"
    ),
    "prediction, certain": lambda: plots.prediction(NOISE, NAMES, [1.0, 0.9, 0.95, 0], [1, 1, 1, 0], [0, 1, 0, 0]),
    "attention_grid": lambda: overlays.attention_grid(
        [NOISE], {n: [MAP] for n in NAMES}, ["lamp"], [[Box("x", 1, 2, 30, 40)]]
    ),
    "attention": lambda: overlays.attention(NOISE, MAP, NAMES, {"sigmoid": P, "softmax": P}, "uncertainty"),
    "answers": lambda: overlays.answers([NOISE], NAMES, [{"teacher": P, "student": P}], ["lamp"]),
    "detections": lambda: boxes.detections([NOISE] * 5, [REGIONS] * 5, ["lamp"] * 5),
    "top_predictions": lambda: boxes.top_predictions(
        [NOISE], [REGIONS], [{"WSD": P, "KD": P[::-1]}], NAMES, [[1, 0, 0, 1]]
    ),
    "partition_graph": lambda: label_graphs.partition_graph(AFFINITY, NAMES, PARTITIONS),
    "affinity_blocks": lambda: label_graphs.affinity_blocks(AFFINITY, NAMES, PARTITIONS),
    "embedding": lambda: label_graphs.embedding(np.eye(4)[:, :2], NAMES, PARTITIONS["CGP"], "x", "y"),
    "monotone": lambda: label_graphs.monotone([0, 1], {"BCE": [0, 1]}, "π", "p", points={"here": (0.4, 0.8)}),
}


def words(figure):
    """All text that is drawn: not the ticks of axes that are off."""
    off = {
        t for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis) for t in axis.findobj(Text)
    }
    found = [text for text in figure.findobj(Text) if text not in off]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def luminance(colours):
    colours = np.asarray(colours, float)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    """The contrast ratio of WCAG between colours of RGB in [0, 1]."""
    bright, dark = np.maximum(luminance(one), luminance(other)), np.minimum(luminance(one), luminance(other))
    return (bright + 0.05) / (dark + 0.05)


def backgrounds(figure):
    """The colours behind each word: those of its own box, or of the pixels drawn there without any words."""
    figure.set_dpi(plots.DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = {text: text.get_window_extent() for text in words(figure)}
    colours = {text: text.get_color() for text in found}
    for text in found:
        text.set_alpha(0)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    for text, extent in found.items():
        x0, x1 = np.clip([extent.x0, extent.x1], 0, pixels.shape[1]).round().astype(int)
        y0, y1 = np.clip(pixels.shape[0] - np.array([extent.y1, extent.y0]), 0, pixels.shape[0]).round().astype(int)
        area = pixels[y0:y1, x0:x1].reshape(-1, 3)
        if text.get_bbox_patch() is not None:
            area = np.array([text.get_bbox_patch().get_facecolor()[:3]])
        yield text.get_text(), to_rgb(colours[text]), area if len(area) else np.ones((1, 3))


def test_contrast_is_that_of_the_guidelines():
    assert contrast(to_rgb("white"), to_rgb("black")) == pytest.approx(21)
    assert contrast(to_rgb("#767676"), to_rgb("white")) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("name", FIGURES)
def test_every_word_of_a_figure_has_nine_points_or_more_at_the_size_shown(name):
    figure = FIGURES[name]()
    width = Image.open(io.BytesIO(plots.png(figure))).width
    scale = plots.DPI / 96 * min(1, COLUMN / width)  # a page has 96 pixels per inch
    sizes = {text.get_text(): round(scale * text.get_fontsize(), 2) for text in words(figure)}
    assert sizes and {text: size for text, size in sizes.items() if size < SMALLEST} == {}, width


@pytest.mark.parametrize("name", FIGURES)
def test_every_word_of_a_figure_stands_out_from_what_is_behind_it(name):
    weak = {
        text: share
        for text, colour, area in backgrounds(FIGURES[name]())
        if (share := float((contrast(colour, area) < CONTRAST).mean())) > HIDDEN_SHARE
    }
    assert weak == {}


def test_grey_words_and_words_on_a_bar_are_noticed():
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.barh(0, 1, color=plots.BLUE)
    axes.text(0.2, 0, "on the bar")
    axes.set_title("grey", color=plots.GREY)
    weak = {text for text, colour, area in backgrounds(figure) if (contrast(colour, area) < CONTRAST).mean() > 0.9}
    assert weak == {"on the bar", "grey"}
