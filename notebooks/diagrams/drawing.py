"""A canvas for diagrams: boxes, arrows and labels, measured in points from the upper left corner; saved as SVG.

The letters are stored as outlines, so that a diagram looks the same on a machine without its fonts; a title and a
description tell a screen reader what it shows. `Diagram.faults` finds what an eye would stumble over: text that leaves its
box or the canvas, covers another text, is too small, or too pale for its ground.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Polygon, Rectangle
from matplotlib.text import Text

from notebooks.diagrams.compact import compact
from udlib.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE

STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "udlib",
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "cm",  # as MathJax sets the equations of the lessons
    "path.simplify": False,
    "hatch.linewidth": 0.7,
}
Color = tuple[float, float, float]
Point = tuple[float, float]

INK: Color = (0.1, 0.1, 0.1)
WHITE: Color = (1.0, 1.0, 1.0)
SIZE = 10.5  # points, of ordinary text
SMALLEST = 10.0  # a picture of 640 points that is shrunk to 770 pixels still has letters of 9 points
CONTRAST = 4.5
LINE = 1.3  # from one line of text to the next, in sizes


@contextmanager
def style() -> Iterator[None]:
    """The house's style, whatever the settings of matplotlib are: for drawing, and for saving."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def mixed(color: Color, share: float, other: Color = WHITE) -> Color:
    """A colour with this share of itself and the rest of another."""
    return tuple(share * a + (1 - share) * b for a, b in zip(to_rgb(color), to_rgb(other)))


@dataclass(frozen=True)
class Role:
    """What a colour stands for in all diagrams; the line style tells it without colours."""

    color: Color
    line: object = "-"

    @property
    def dark(self) -> Color:
        """For lines and small areas: the colour itself is too pale on white."""
        return mixed(self.color, 0.72, (0.0, 0.0, 0.0))

    @property
    def tint(self) -> Color:
        """For the ground under text."""
        return mixed(self.color, 0.2)


PLAIN = Role(GREY)
CLASSIFICATION = Role(BLUE)
CALIBRATION = Role(ORANGE, (0, (5, 2)))
ATTENTION = Role(GREEN, (0, (6, 2, 1.2, 2)))
GRADIENT = Role(PURPLE, (0, (1.5, 2)))


@dataclass(frozen=True)
class Box:
    """A rectangle on the canvas, by its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> Point:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    def left(self, share: float = 0.5) -> Point:
        """A point of the left edge, this share of the way down."""
        return self.x, self.y + share * self.height

    def right(self, share: float = 0.5) -> Point:
        """A point of the right edge, this share of the way down."""
        return self.x + self.width, self.y + share * self.height

    def top(self, share: float = 0.5) -> Point:
        """A point of the upper edge, this share of the way to the right."""
        return self.x + share * self.width, self.y

    def bottom(self, share: float = 0.5) -> Point:
        """A point of the lower edge, this share of the way to the right."""
        return self.x + share * self.width, self.y + self.height


class Diagram:
    """A white canvas of `width` × `height` points, with y downwards.

    Args:
        width: in points; 640 points are 853 pixels in JupyterLab.
        height: in points.
        title: what the diagram is about, in a few words.
        description: what it shows, for readers who cannot see it.
    """

    def __init__(self, width: float, height: float, title: str, description: str):
        self.width, self.height, self.title, self.description = width, height, title, description
        self.figure = Figure(figsize=(width / 72, height / 72), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()
        self.texts: list[tuple[Text, Box | None, Color]] = []  # each with the box it must stay in, and its ground

    def patch(self, patch: Patch) -> None:
        """Add a shape of matplotlib, unclipped."""
        patch.set_clip_on(False)
        self.axes.add_artist(patch)

    def text(self, x: float, y: float, words: str, size: float = SIZE, align: str = "center", **look) -> None:
        """Words at a point: their middle, or the middle of their left or right end.

        `ground` is the colour below them, `inside` the box that they may not leave; with `first=True` y is the middle
        of the first line.
        """
        ground, inside, first = look.pop("ground", WHITE), look.pop("inside", None), look.pop("first", False)
        look = {"color": INK, "zorder": 5, "va": "center" if "rotation" in look else "baseline"} | look
        lines = words.split("\n")
        # One by one, since matplotlib's own distance of lines depends on their letters. Capitals are 0.73 of the size high.
        y -= 0 if first else LINE * size * (len(lines) - 1) / 2
        for k, line in enumerate(lines):
            at = y + LINE * size * k + (0 if "rotation" in look else 0.365 * size)
            self.texts.append((self.axes.text(x, at, line, size=size, ha=align, **look), inside, ground))

    def box(self, x: float, y: float, width: float, height: float, words: str = "", role: Role = PLAIN, **look) -> Box:
        """A rounded box with words in it; `fill`, `line`, `edge`, `lw` and `radius` change its look, the rest its text's."""
        box = Box(x, y, width, height)
        fill, radius = look.pop("fill", role.tint), look.pop("radius", 5)
        shape = FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={radius}",
            facecolor=fill,
            edgecolor=look.pop("edge", role.dark),
            linewidth=look.pop("lw", 1.3),
            linestyle=look.pop("line", role.line),
            zorder=2,
        )
        self.patch(shape)
        if words:
            self.text(*box.middle, words, **{"ground": fill, "inside": box} | look)
        return box

    def area(self, x: float, y: float, width: float, height: float, fill: Color = WHITE, **look) -> Box:
        """A plain rectangle without words."""
        look = {"edgecolor": INK, "linewidth": 0.8, "zorder": 3} | look
        self.patch(Rectangle((x, y), width, height, facecolor=fill, **look))
        return Box(x, y, width, height)

    def line(self, points: Sequence[Point], role: Role = PLAIN, lw: float = 1.4, **look) -> None:
        """A line through points, in the role's colour and style."""
        xs, ys = zip(*points)
        look = {"color": INK if role is PLAIN else role.dark, "linestyle": role.line, "zorder": 3} | look
        self.axes.add_artist(
            Line2D(xs, ys, linewidth=lw, solid_joinstyle="round", dash_capstyle="butt", clip_on=False, **look)
        )

    def arrow(self, *points: Point, role: Role = PLAIN, lw: float = 1.4, head: float = 7.5, **look) -> None:
        """A line through points that ends in a head."""
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        neck = (x1 - head * ux, y1 - head * uy)
        half = 0.42 * head
        self.line([*points[:-1], neck], role, lw, **look)
        corners = [(x1, y1), (neck[0] - half * uy, neck[1] + half * ux), (neck[0] + half * uy, neck[1] - half * ux)]
        color = look.get("color", INK if role is PLAIN else role.dark)
        self.patch(Polygon(corners, closed=True, facecolor=color, edgecolor="none", zorder=3))

    def faults(self) -> list[str]:
        """What is wrong with the text: its size, its contrast, its place."""
        canvas = FigureCanvasAgg(self.figure)
        with style():
            canvas.draw()
        scale = 72 / self.figure.dpi
        spans = []
        for text, box, ground in self.texts:
            words = repr(text.get_text())
            extent = text.get_window_extent(canvas.get_renderer())
            left, right = extent.x0 * scale, extent.x1 * scale
            top, bottom = self.height - extent.y1 * scale, self.height - extent.y0 * scale
            frame = box or Box(0, 0, self.width, self.height)
            if text.get_size() < SMALLEST:
                spans.append((None, f"{words} has {text.get_size():g} points"))
            if contrast(to_rgb(text.get_color()), ground) < CONTRAST:
                spans.append((None, f"{words} is too pale"))
            if left < frame.x or right > frame.right()[0] or top < frame.y - 1 or bottom > frame.bottom()[1] + 1:
                spans.append((None, f"{words} leaves its {'box' if box else 'canvas'}"))
            spans.append(((left, right, top, bottom), words))
        faults = [words for span, words in spans if span is None]
        places = [(span, words) for span, words in spans if span is not None]
        for n, (a, one) in enumerate(places):
            faults += [f"{one} covers {other}" for b, other in places[:n] if overlap(a, b)]
        return faults

    def svg(self, name: str) -> bytes:
        """The diagram as an SVG file with a title and a description."""
        file = io.StringIO()
        with style():
            self.figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None, "Title": self.title})
        text = compact(file.getvalue())
        told = f"<title>{escape(self.title)}</title>"
        labelled = f'role="img" aria-labelledby="{name}-title {name}-desc"'
        named = told.replace("<title>", f'<title id="{name}-title">')
        text = text.replace(f"{told}\n", f'{named}\n<desc id="{name}-desc">{escape(self.description)}</desc>\n', 1)
        return text.replace("<svg ", f"<svg {labelled} ", 1).encode()


def overlap(a: tuple, b: tuple, slack: float = 1.0) -> bool:
    """Whether two spans (left, right, top, bottom) share more than a hair."""
    return min(a[1], b[1]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[2], b[2]) > slack


def contrast(a: Color, b: Color) -> float:
    """The contrast of two colours by WCAG 2: 1 for equal ones, 21 for black on white."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: Color) -> float:
    """The relative luminance of a colour, in [0, 1]."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
