"""Sixteen kinds of things, each drawn from a few antialiased shapes (signed distances in NumPy).

A painter receives a `Sketch`, whose grid spans [-1, 1] × [-1, 1] (x to the right, y downwards), and fills shapes on it.
No code here depends on the size of the picture: the same item at 64 or at 448 pixels differs only in sharpness.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

WHITE, BLACK, BROWN, LEAF, GLASS = (
    (0.96, 0.95, 0.92),
    (0.10, 0.10, 0.12),
    (0.42, 0.27, 0.15),
    (0.25, 0.52, 0.18),
    (0.70, 0.84, 0.90),
)


@dataclass(frozen=True)
class Look:
    """What varies between two drawings of one class."""

    colour: Colour  # the main one
    detail: float  # in [0, 1), decides on details
    mirrored: bool
    tilt: float  # radians


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour lighter or darker.

    Args:
        colour: Red, green and blue in [0, 1].
        factor: Above 1 makes it lighter, below 1 darker.

    Returns:
        The new colour.
    """
    red, green, blue = (min(1.0, c * factor) for c in colour)
    return red, green, blue


def length(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute √(a² + b²), several times faster than np.hypot, which guards against overflow.

    Args:
        a: Any array.
        b: An array that fits it.

    Returns:
        The lengths of the vectors (a, b).
    """
    return np.sqrt(a * a + b * b)


class Sketch:
    """A square on which shapes are filled one over another.

    Args:
        pixels: Side of the square [-1, 1] × [-1, 1], in pixels.
        look: How the drawing varies.
        offset: Sub-pixel position of the square's corner, each in [0, 1). The corner is `margin` whole pixels inside
            the sketch, since the corners of a tilted thing may stick out.

    Attributes:
        rgba: The result; its colour channels are premultiplied by the last one, the coverage.
        x: Coordinates of the pixels' centres, with `y`.
        margin: Pixels around the square.
    """

    def __init__(self, pixels: float, look: Look, offset: tuple[float, float] = (0.0, 0.0)):
        self.margin = 1 + int(0.045 * pixels)
        count = int(np.ceil(pixels)) + 1 + 2 * self.margin
        step = 2.0 / pixels
        centres = np.arange(count, dtype=np.float32) + np.float32(0.5 - self.margin)
        x = ((centres - np.float32(offset[0])) * np.float32(step) - 1)[None, :]
        y = ((centres - np.float32(offset[1])) * np.float32(step) - 1)[:, None]
        if look.mirrored:
            x = -x
        if look.tilt:
            cos, sin = np.float32(np.cos(look.tilt)), np.float32(np.sin(look.tilt))
            x, y = cos * x + sin * y, cos * y - sin * x
        self.x, self.y, self.look = x, y, look
        self._sharpness = np.float32(1.0 / step)
        self.rgba = np.zeros((count, count, 4), np.float32)

    def fill(self, distance: np.ndarray, colour: Colour, opacity: float = 1.0) -> None:
        """Paint one shape, with one pixel of antialiasing at its edge.

        Args:
            distance: The signed distance of each pixel to the shape's edge, negative inside.
            colour: The shape's colour.
            opacity: In (0, 1].
        """
        cover = np.clip(np.float32(0.5) - distance * self._sharpness, 0, 1)
        if opacity < 1:
            cover *= np.float32(opacity)
        difference = np.array((*colour, 1.0), np.float32) - self.rgba
        difference *= cover[..., None]
        self.rgba += difference

    def circle(self, cx: float, cy: float, r: float) -> np.ndarray:
        """Compute the distance to a circle of radius r."""
        return length(self.x - cx, self.y - cy) - r

    def ellipse(self, cx: float, cy: float, a: float, b: float) -> np.ndarray:
        """Compute about the distance to an ellipse with the half axes a and b."""
        return (length((self.x - cx) / a, (self.y - cy) / b) - 1) * min(a, b)

    def box(self, cx: float, cy: float, half_width: float, half_height: float, corner: float = 0.0) -> np.ndarray:
        """Compute the distance to a rectangle whose corners are rounded with radius `corner`."""
        dx = np.abs(self.x - cx) - (half_width - corner)
        dy = np.abs(self.y - cy) - (half_height - corner)
        return length(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner

    def line(self, x1: float, y1: float, x2: float, y2: float, width: float) -> np.ndarray:
        """Compute the distance to a line with round ends."""
        ex, ey = x2 - x1, y2 - y1
        along = np.clip(((self.x - x1) * ex + (self.y - y1) * ey) / (ex * ex + ey * ey), 0, 1)
        return length(self.x - x1 - along * ex, self.y - y1 - along * ey) - width / 2

    def polygon(self, *corners: tuple[float, float]) -> np.ndarray:
        """Compute the distance to a convex polygon, whose corners are in clockwise order on the screen."""
        distance = None
        for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1]):
            length = math.hypot(x2 - x1, y2 - y1)
            edge = ((self.x - x1) * (y2 - y1) - (self.y - y1) * (x2 - x1)) / length
            distance = edge if distance is None else np.maximum(distance, edge)
        return distance


def apple(s: Sketch) -> None:
    """Paint an apple."""
    body = np.minimum(s.circle(-0.27, 0.2, 0.62), s.circle(0.27, 0.2, 0.62))
    s.fill(body, s.look.colour)
    s.fill(s.ellipse(-0.4, -0.05, 0.14, 0.2), WHITE, 0.45)
    s.fill(s.line(0.0, -0.3, 0.12, -0.8, 0.13), BROWN)
    s.fill(s.ellipse(0.42, -0.66, 0.32, 0.15), LEAF)


def orange(s: Sketch) -> None:
    """Paint an orange."""
    s.fill(s.circle(0, 0.05, 0.86), s.look.colour)
    s.fill(s.circle(0.18, 0.25, 0.6), shade(s.look.colour, 1.12), 0.5)
    s.fill(s.ellipse(-0.35, -0.3, 0.18, 0.13), WHITE, 0.4)
    s.fill(s.circle(0.0, -0.74, 0.11), LEAF)


def ball(s: Sketch) -> None:
    """Paint a ball."""
    outline = s.circle(0, 0, 0.9)
    s.fill(outline, s.look.colour)
    angle = np.arctan2(s.y + 0.12, s.x - 0.1)
    sectors = np.cos(3 * angle + 6.28 * s.look.detail) * length(s.x - 0.1, s.y + 0.12) / 3
    s.fill(np.maximum(outline, sectors), WHITE)
    s.fill(s.circle(0.1, -0.12, 0.16), WHITE)


def bird(s: Sketch) -> None:
    """Paint a bird."""
    dark = shade(s.look.colour, 0.6)
    s.fill(s.polygon((-0.95, -0.12), (-0.4, 0.02), (-0.42, 0.34), (-0.98, 0.2)), dark)
    s.fill(s.ellipse(-0.02, 0.14, 0.62, 0.38), s.look.colour)
    s.fill(s.circle(0.5, -0.22, 0.29), s.look.colour)
    s.fill(s.polygon((0.74, -0.3), (0.99, -0.17), (0.74, -0.07)), (0.93, 0.65, 0.15))
    wing = 0.25 if s.look.detail < 0.5 else -0.35
    s.fill(s.polygon((-0.42, 0.02), (-0.2, wing - 0.42), (0.22, 0.05), (-0.1, 0.3)), dark)
    s.fill(s.circle(0.56, -0.27, 0.075), BLACK)


def boat(s: Sketch) -> None:
    """Paint a boat."""
    s.fill(s.line(0.02, -0.92, 0.02, 0.4, 0.1), BROWN)
    s.fill(s.polygon((0.1, -0.9), (0.78, 0.2), (0.1, 0.2)), WHITE)
    s.fill(s.polygon((-0.06, -0.7), (-0.06, 0.2), (-0.62, 0.2)), shade(s.look.colour, 1.25))
    s.fill(s.polygon((-0.96, 0.33), (0.96, 0.33), (0.62, 0.84), (-0.62, 0.84)), s.look.colour)
    s.fill(s.box(0, 0.4, 0.88, 0.06), WHITE, 0.8)


def book(s: Sketch) -> None:
    """Paint a book."""
    s.fill(s.box(0.05, 0.03, 0.62, 0.86, 0.05), shade(s.look.colour, 0.6))
    s.fill(s.box(0.04, 0.0, 0.56, 0.8), WHITE)
    s.fill(s.box(-0.06, 0.0, 0.58, 0.84, 0.05), s.look.colour)
    s.fill(s.box(-0.55, 0.0, 0.09, 0.84), shade(s.look.colour, 0.7))
    s.fill(s.box(0.05, -0.35 + 0.3 * s.look.detail, 0.32, 0.13), (0.97, 0.9, 0.62))


def bottle(s: Sketch) -> None:
    """Paint a bottle."""
    s.fill(s.box(0, -0.55, 0.15, 0.36), s.look.colour)
    s.fill(s.box(0, 0.32, 0.38, 0.64, 0.16), s.look.colour)
    s.fill(s.box(0, -0.88, 0.19, 0.09), shade(s.look.colour, 0.45))
    s.fill(s.box(0, 0.38, 0.37, 0.23), WHITE)
    s.fill(s.box(0, 0.38, 0.2, 0.08), shade(s.look.colour, 0.8))
    s.fill(s.box(-0.22, -0.08, 0.05, 0.14, 0.04), WHITE, 0.5)


def car(s: Sketch) -> None:
    """Paint a car."""
    s.fill(s.polygon((-0.42, -0.5), (0.3, -0.5), (0.62, 0.06), (-0.66, 0.06)), shade(s.look.colour, 0.82))
    s.fill(s.polygon((-0.38, -0.4), (-0.09, -0.4), (-0.09, 0.02), (-0.54, 0.02)), GLASS)
    s.fill(s.polygon((0.01, -0.4), (0.26, -0.4), (0.48, 0.02), (0.01, 0.02)), GLASS)
    s.fill(s.box(0, 0.25, 0.96, 0.27, 0.14), s.look.colour)
    s.fill(s.circle(0.87, 0.2, 0.09), (0.99, 0.93, 0.6))
    for x in (-0.52, 0.52):
        s.fill(s.circle(x, 0.5, 0.26), BLACK)
        s.fill(s.circle(x, 0.5, 0.11), (0.7, 0.7, 0.72))


def chair(s: Sketch) -> None:
    """Paint a chair."""
    dark = shade(s.look.colour, 0.72)
    for x in (-0.5, 0.48):
        s.fill(s.line(x, 0.2, x * 1.12, 0.93, 0.15), dark)
    for y in (-0.78, -0.36) if s.look.detail < 0.5 else (-0.57,):
        s.fill(s.box(0.0, y, 0.5, 0.15 if s.look.detail < 0.5 else 0.36, 0.06), s.look.colour)
    for x in (-0.5, 0.5):
        s.fill(s.line(x, -0.88, x, 0.2, 0.14), dark)
    s.fill(s.box(0, 0.2, 0.64, 0.13, 0.06), s.look.colour)


def clock(s: Sketch) -> None:
    """Paint a clock."""
    s.fill(s.circle(0, 0, 0.92), s.look.colour)
    s.fill(s.circle(0, 0, 0.72), WHITE)
    for hour in range(4):
        s.fill(s.circle(0.58 * np.cos(hour * np.pi / 2), 0.58 * np.sin(hour * np.pi / 2), 0.07), BLACK)
    turn = 6.28 * s.look.detail
    s.fill(s.line(0, 0, 0.55 * np.sin(turn * 12), -0.55 * np.cos(turn * 12), 0.1), BLACK)
    s.fill(s.line(0, 0, 0.36 * np.sin(turn), -0.36 * np.cos(turn), 0.14), BLACK)


def cup(s: Sketch) -> None:
    """Paint a cup."""
    s.fill(np.abs(s.circle(0.52, 0.1, 0.33)) - 0.1, shade(s.look.colour, 0.85))
    s.fill(s.polygon((-0.78, -0.62), (0.56, -0.62), (0.4, 0.8), (-0.62, 0.8)), s.look.colour)
    s.fill(s.ellipse(-0.11, -0.62, 0.67, 0.18), shade(s.look.colour, 1.2))
    s.fill(s.ellipse(-0.11, -0.6, 0.53, 0.11), (0.33, 0.2, 0.12))
    if s.look.detail < 0.5:
        s.fill(s.box(-0.11, 0.15, 0.56, 0.1), WHITE, 0.85)


def fish(s: Sketch) -> None:
    """Paint a fish."""
    dark = shade(s.look.colour, 0.7)
    s.fill(s.polygon((-0.96, -0.5), (-0.35, 0.0), (-0.96, 0.5), (-0.78, 0.0)), dark)
    s.fill(s.polygon((-0.1, -0.58), (0.25, -0.3), (-0.25, -0.25)), dark)
    body = s.ellipse(0.15, 0, 0.72, 0.42)
    s.fill(body, s.look.colour)
    s.fill(s.ellipse(0.18, 0.17, 0.5, 0.2), shade(s.look.colour, 1.3), 0.7)
    s.fill(np.maximum(body, np.abs(s.circle(0.72, 0, 0.4)) - 0.035), dark, 0.8)
    s.fill(s.circle(0.58, -0.12, 0.11), WHITE)
    s.fill(s.circle(0.6, -0.12, 0.06), BLACK)


def flower(s: Sketch) -> None:
    """Paint a flower."""
    s.fill(s.line(0, -0.2, 0.05, 0.95, 0.12), LEAF)
    s.fill(s.ellipse(0.28, 0.6, 0.28, 0.12), LEAF)
    petals = 5 + int(2 * s.look.detail)
    for k in range(petals):
        turn = 2 * np.pi * (k / petals + s.look.detail)
        s.fill(s.circle(0.38 * np.cos(turn), -0.36 + 0.38 * np.sin(turn), 0.25), s.look.colour)
    s.fill(s.circle(0, -0.36, 0.22), (0.97, 0.8, 0.2))


def lamp(s: Sketch) -> None:
    """Paint a lamp."""
    s.fill(s.line(0, -0.2, 0, 0.88, 0.12), (0.3, 0.3, 0.33))
    s.fill(s.ellipse(0, 0.88, 0.42, 0.11), (0.3, 0.3, 0.33))
    s.fill(s.circle(0, -0.08, 0.17), (1.0, 0.97, 0.75))
    s.fill(s.polygon((-0.34, -0.92), (0.34, -0.92), (0.7, -0.1), (-0.7, -0.1)), s.look.colour)
    s.fill(s.polygon((-0.2, -0.92), (0.02, -0.92), (0.02, -0.1), (-0.4, -0.1)), WHITE, 0.3)


def tree(s: Sketch) -> None:
    """Paint a tree."""
    s.fill(s.polygon((-0.12, 0.1), (0.12, 0.1), (0.2, 0.97), (-0.2, 0.97)), BROWN)
    if s.look.detail < 0.6:
        for x, y, r in ((-0.38, -0.05, 0.42), (0.38, -0.05, 0.42), (0.0, -0.42, 0.5)):
            s.fill(s.circle(x, y, r), s.look.colour)
        s.fill(s.circle(-0.15, -0.5, 0.25), shade(s.look.colour, 1.25), 0.6)
    else:
        for top, half in ((-0.2, 0.72), (-0.58, 0.58), (-0.96, 0.42)):
            s.fill(s.polygon((0, top), (half, top + 0.68), (-half, top + 0.68)), s.look.colour)


def umbrella(s: Sketch) -> None:
    """Paint an umbrella."""
    s.fill(s.line(0, -0.5, 0, 0.8, 0.1), BROWN)
    s.fill(s.line(0, 0.85, 0.2, 0.85, 0.1), BROWN)
    dome = np.maximum(s.circle(0, 0.1, 0.95), s.y - 0.1)
    for x in (-0.63, 0.0, 0.63):
        dome = np.maximum(dome, -s.ellipse(x, 0.12, 0.3, 0.14))
    s.fill(dome, s.look.colour)
    s.fill(np.maximum(dome, s.ellipse(0, 0.1, 0.33, 0.95)), shade(s.look.colour, 1.35))


@dataclass(frozen=True)
class Kind:
    """How a class looks."""

    paint: Callable[[Sketch], None]
    hue: float  # mean, in turns
    spread: float  # of the hue, in turns
    saturation: float
    value: float
    size: float  # usual, in picture units
    tilt: float  # greatest, in radians

    def colour(self, noise: np.ndarray) -> Colour:
        """Draw the main colour of one drawing.

        Args:
            noise: Four standard normal numbers.

        Returns:
            The colour.
        """
        saturation = float(np.clip(self.saturation + 0.15 * noise[1], 0.05, 1))
        value = float(np.clip(self.value + 0.13 * noise[2], 0.15, 1))
        return colorsys.hsv_to_rgb((self.hue + 1.25 * self.spread * float(noise[0])) % 1.0, saturation, value)


KINDS: dict[str, Kind] = {
    "apple": Kind(apple, 0.99, 0.04, 0.80, 0.78, 0.22, 0.25),
    "ball": Kind(ball, 0.97, 0.12, 0.75, 0.85, 0.24, 0.50),
    "bird": Kind(bird, 0.58, 0.06, 0.45, 0.62, 0.24, 0.25),
    "boat": Kind(boat, 0.02, 0.07, 0.65, 0.55, 0.40, 0.12),
    "book": Kind(book, 0.62, 0.12, 0.60, 0.50, 0.26, 0.40),
    "bottle": Kind(bottle, 0.36, 0.06, 0.55, 0.45, 0.30, 0.08),
    "car": Kind(car, 0.60, 0.15, 0.65, 0.70, 0.44, 0.05),
    "chair": Kind(chair, 0.07, 0.05, 0.55, 0.60, 0.40, 0.08),
    "clock": Kind(clock, 0.08, 0.10, 0.50, 0.45, 0.24, 0.10),
    "cup": Kind(cup, 0.53, 0.10, 0.45, 0.80, 0.22, 0.08),
    "fish": Kind(fish, 0.09, 0.06, 0.70, 0.85, 0.26, 0.30),
    "flower": Kind(flower, 0.90, 0.06, 0.55, 0.90, 0.26, 0.20),
    "lamp": Kind(lamp, 0.13, 0.04, 0.55, 0.92, 0.42, 0.05),
    "orange": Kind(orange, 0.07, 0.03, 0.85, 0.92, 0.21, 0.60),
    "tree": Kind(tree, 0.32, 0.05, 0.60, 0.48, 0.52, 0.06),
    "umbrella": Kind(umbrella, 0.80, 0.10, 0.55, 0.70, 0.40, 0.20),
}
CLASSES: tuple[str, ...] = tuple(KINDS)
