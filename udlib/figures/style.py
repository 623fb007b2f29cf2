"""The look of all figures, and how a notebook shows them.

Figures are plain `Figure` objects (no pyplot state) in seaborn's colour-blind palette. Whatever differs in colour also
differs in marker, hatch or line style.
"""

from __future__ import annotations

import io

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = PALETTE
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":", "-.")
DPI = 110
HALO = withStroke(linewidth=2.8, foreground="black", alpha=0.45)  # boxes must stand out from pictures of their colour


def show(figure: Figure, alt: str) -> None:
    """Display a figure as the output of a notebook cell.

    Args:
        figure: The figure to display.
        alt: A description in words of what the figure shows, for readers who cannot see it.
    """
    from IPython.display import display  # here, since commands draw figures where Jupyter is not installed

    # Without the alpha channel: nothing is transparent, and notebooks with figures are a tenth smaller.
    opaque = io.BytesIO()
    Image.open(io.BytesIO(png(figure))).convert("RGB").save(opaque, format="png")
    display({"image/png": opaque.getvalue(), "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return the figure as the bytes of a PNG file.

    Args:
        figure: The figure to draw.
        dpi: Pixels per inch.

    Returns:
        The file's bytes, on a white background and cropped to what is drawn.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def titled_axes(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """Return a figure of this size and its only axes, without the upper and the right frame line.

    Args:
        width: Width in inches.
        height: Height in inches.
        title: Title above the axes, at the left.
    """
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11)
    return figure, axes
