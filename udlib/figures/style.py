"""The look of all figures, and how a notebook shows them.

Figures are plain `Figure` objects (no pyplot state) in seaborn's colour-blind palette. Whatever differs in colour also
differs in marker, hatch or line style.
"""

from __future__ import annotations

import base64
import html
import io
import re

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.typing import ColorType
from PIL import Image

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = PALETTE
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":", "-.")
DPI = 110
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
HALO = withStroke(linewidth=2.8, foreground="black", alpha=0.45)  # boxes must stand out from pictures of their colour


def show(picture: Figure | bytes, alt: str, caption: str | None = None) -> None:
    """Display a picture as the output of a notebook cell, with its description in the page.

    The output is one piece of HTML. JupyterLab and nbconvert would show an `image/png` output without its description.

    Args:
        picture: The figure to display, or the bytes of a PNG file.
        alt: A description in words of what the picture shows, for readers who cannot see it.
        caption: A line below the picture, for all readers. By default it is the first sentence of `alt`; "" is none.

    Raises:
        ValueError: Without a description.
    """
    from IPython.display import display  # here, since commands draw figures where Jupyter is not installed

    content = png(picture) if isinstance(picture, Figure) else picture
    display({"text/html": figure_html(content, alt, caption), "text/plain": alt}, raw=True)


def figure_html(content: bytes, alt: str, caption: str | None = None) -> str:
    """Return a picture with its description and its caption as an HTML figure that needs no other file.

    Args:
        content: The bytes of a PNG file.
        alt: A description in words of what the picture shows.
        caption: A line below the picture. By default it is the first sentence of `alt`; "" is none.

    Returns:
        A `<figure>` element.

    Raises:
        ValueError: Without a description.
    """
    line = SENTENCE_END.split(alt, maxsplit=1)[0] if caption is None else caption
    below = f"<figcaption>{html.escape(line)}</figcaption>" if line else ""
    return f'<figure style="margin:0">{image_html(content, alt)}{below}</figure>'


def image_html(content: bytes, alt: str, attributes: str = "") -> str:
    """Return a picture as an HTML image that holds its own pixels, without the alpha channel.

    Args:
        content: The bytes of a PNG file.
        alt: A description in words of what the picture shows.
        attributes: Further attributes of the element, as HTML.

    Returns:
        An `<img>` element.

    Raises:
        ValueError: Without a description.
    """
    if not alt.strip():
        raise ValueError("a picture has no description: say in `alt` what it shows")
    # Nothing is transparent, and notebooks with opaque pictures are a tenth smaller.
    opaque = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(opaque, format="png")
    encoded = base64.b64encode(opaque.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(alt)}"{attributes and f" {attributes}"} src="data:image/png;base64,{encoded}">'


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


def readable_on(colour: ColorType) -> str:
    """Return the colour of words that can be read on a background: their contrast is at least 4.5 to 1.

    Args:
        colour: The background.

    Returns:
        "black" or "white".

    Example:
        >>> readable_on("yellow"), readable_on("darkblue")
        ('black', 'white')
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"  # there, both have a contrast of 4.6


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
