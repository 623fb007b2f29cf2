"""What a lesson's cell does that shows photographs: it shows them where they are, and else says how to get them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from udlib.datasets.photos import REMEDY, photos_available

Shown = TypeVar("Shown")


def show_photographs(draw: Callable[[], Shown]) -> Shown | None:
    """Call a function that needs the photographs of `photos`; where they are not, print how to get them.

    Notebooks are written with the photographs hidden, so the sentence is what a committed notebook holds.

    Args:
        draw: Shows something, or returns it.

    Returns:
        What `draw` returns; None without the photographs.
    """
    if photos_available():
        return draw()
    print(f"This cell shows photographs, and they are not here: {REMEDY}.")
    return None
