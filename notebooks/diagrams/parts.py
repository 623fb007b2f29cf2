"""What several diagrams show: a picture of a cup and a book, feature maps, grids of numbers, bars of probabilities."""

from collections.abc import Sequence

from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

from notebooks.diagrams.drawing import INK, Box, Color, Diagram, Role, mixed
from udlib.figures.style import BLUE, BROWN, RED, SKY

CLASSES = ("cup", "book", "lamp", "boat")
PRESENT = (1, 1, 0, 0)  # the targets of the picture


def picture(diagram: Diagram, x: float, y: float, side: float) -> Box:
    """A square picture of a cup and a book on a table."""

    def at(u: float, v: float) -> tuple[float, float]:
        return x + u * side, y + v * side

    def shape(kind, *arguments, color: Color, **look) -> None:
        diagram.patch(kind(*arguments, facecolor=color, edgecolor=INK, linewidth=0.8, zorder=4, **look))

    diagram.area(x, y, side, side, mixed(SKY, 0.3))
    shape(Rectangle, at(0, 0.68), side, 0.32 * side, color=mixed(BROWN, 0.75))
    shape(Circle, at(0.40, 0.55), 0.085 * side, color=mixed(BLUE, 0.6))
    shape(Circle, at(0.40, 0.55), 0.045 * side, color=mixed(SKY, 0.3))
    shape(
        Polygon, [at(0.12, 0.42), at(0.40, 0.42), at(0.36, 0.74), at(0.16, 0.74)], color=mixed(BLUE, 0.6), closed=True
    )
    shape(
        Polygon, [at(0.54, 0.30), at(0.66, 0.26), at(0.66, 0.74), at(0.54, 0.78)], color=mixed(RED, 0.75), closed=True
    )
    shape(Polygon, [at(0.66, 0.26), at(0.90, 0.30), at(0.90, 0.78), at(0.66, 0.74)], color=mixed(RED, 0.5), closed=True)
    diagram.area(x, y, side, side, fill="none", linewidth=1.2, zorder=4.5)
    return Box(x, y, side, side)


def stack(diagram: Diagram, x: float, y: float, side: float, cells: int = 4, sheets: int = 4) -> Box:
    """A feature map: some sheets behind each other, the front one with its cells."""
    step = side * 0.09
    for n in reversed(range(sheets)):
        diagram.area(x + n * step, y - n * step, side, side, mixed(BLUE, 0.12 + 0.06 * n))
    for k in range(1, cells):
        at = k * side / cells
        diagram.line([(x + at, y), (x + at, y + side)], lw=0.5, zorder=4)
        diagram.line([(x, y + at), (x + side, y + at)], lw=0.5, zorder=4)
    return Box(x, y - (sheets - 1) * step, side + (sheets - 1) * step, side + (sheets - 1) * step)


def bar(diagram: Diagram, box: Box, value: float, role: Role, hatch: str | None = None) -> None:
    """A horizontal bar that fills this share of its frame, and a tick at one half."""
    fill = mixed(role.color, 0.55)
    diagram.area(box.x, box.y, box.width, box.height)
    diagram.area(box.x, box.y, value * box.width, box.height, fill, hatch=hatch)
    diagram.line([box.top(), box.bottom()], lw=0.7, linestyle=(0, (2, 2)), zorder=4)


def number(value: float, digits: int = 2) -> str:
    """A number as text, with a real minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def matrix(
    diagram: Diagram, x: float, y: float, cell: tuple[float, float], values: Sequence, role: Role, top: float = 1.0
) -> Box:
    """A table of numbers in shaded cells; `top` is the number that has the full shade."""
    width, height = cell
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            ground = mixed(role.color, 0.05 + 0.45 * min(max(value / top, 0), 1))
            place = diagram.area(x + c * width, y + r * height, width, height, ground)
            diagram.text(*place.middle, number(value), size=10, ground=ground, inside=place)
    return Box(x, y, width * len(values[0]), height * len(values))


def bracket(diagram: Diagram, x: float, top: float, bottom: float, depth: float = 5) -> None:
    """A square bracket that opens to the left, at x."""
    diagram.line([(x - depth, top), (x, top), (x, bottom), (x - depth, bottom)], lw=1.1)


def rounded(diagram: Diagram, box: Box, color: Color, **look) -> None:
    """A rounded outline around a place."""
    look = {"facecolor": "none", "linewidth": 2.0, "zorder": 4.5} | look
    diagram.patch(
        FancyBboxPatch(
            (box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=4", edgecolor=color, **look
        )
    )
