"""The base of all explorers: sliders over existing values, a picture, and numbers in HTML beside it.

Model (`frame`, which takes values and returns a `Frame`), figure (`udlib.figures.plots`) and view (`Explorer`) are
separate, so that each can be tested alone. The sliders have no positions between the given values, so no invented value
is shown.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import ipywidgets
from matplotlib.figure import Figure

from udlib.figures.plots import png


class Frame(NamedTuple):
    """What an explorer shows for one setting.

    Attributes:
        figure: The picture.
        alt: A description of the setting and its readings in words.
        readings: Values in words, by name.
        table: Rows to stand below the picture, head first.
    """

    figure: Figure
    alt: str
    readings: Mapping[str, str]
    table: Sequence[Sequence[str]] = ()


class Explorer(ipywidgets.VBox):
    """Sliders above a picture and its readings.

    An error in `frame` is shown with its message beside the picture, and leaves the sliders working.

    Args:
        controls: The values of each slider, by its name.
        frame: Computes what is shown, from one value per slider; it is called once per setting.
        note: A note below the picture.
        start: First value of some sliders, by name; the others start at their first value.
        warm: Whether to compute all frames now, so that every move is instant.

    Raises:
        ValueError: For a slider without values, and for a `start` value that has no position.
    """

    origin = "computed"  # how the offered values came to be; an error says that a value "was not computed"

    def __init__(
        self,
        controls: Mapping[str, Sequence[Hashable]],
        frame: Callable[..., Frame],
        note: str = "",
        start: Mapping[str, Hashable] | None = None,
        warm: bool = False,
    ):
        for name, values in controls.items():
            if not len(values):
                raise ValueError(f"control '{name}' has no values: give at least one")
        first_values = {name: (start or {}).get(name, values[0]) for name, values in controls.items()}
        for name, value in first_values.items():
            self._require(name, value, controls[name])
        self._render = cache(lambda *values: _rendered(frame(*values)))
        self.sliders = {
            name: ipywidgets.SelectionSlider(
                options=list(values),
                value=first_values[name],
                description=name,
                continuous_update=True,
                style={"description_width": "initial"},
                layout=ipywidgets.Layout(width="480px"),
            )
            for name, values in controls.items()
        }
        # flex-start: a box stretches its children to its own width, and a stretched picture is blurred
        self.picture = ipywidgets.Image(
            format="png", layout=ipywidgets.Layout(max_width="100%", align_self="flex-start")
        )
        self.readout = ipywidgets.HTML()
        self.table = ipywidgets.HTML()
        self.message = ipywidgets.HTML(f"<small>{html.escape(note)}</small>" if note else "")
        super().__init__([*self.sliders.values(), self.readout, self.picture, self.table, self.message])
        for slider in self.sliders.values():
            slider.observe(lambda _: self._show(), names="value")
        if warm:
            self._warm([()], list(controls.values()))
        self._show()

    def _warm(self, settings: list[tuple], remaining: list[Sequence]) -> None:
        """Compute the frames of all settings: extend each setting by the values of the next slider, then render."""
        if remaining:
            return self._warm([(*s, value) for s in settings for value in remaining[0]], remaining[1:])
        for setting in settings:
            self._render(*setting)

    @property
    def value(self) -> tuple:
        """The present setting, one value per slider."""
        return tuple(slider.value for slider in self.sliders.values())

    def move(self, **values: Hashable) -> None:
        """Set sliders by name, as a hand would.

        Raises:
            ValueError: For an unknown name, and for a value that has no position.
        """
        for name, value in values.items():
            if name not in self.sliders:
                raise ValueError(f"there is no slider '{name}': this explorer has {', '.join(self.sliders)}")
            self._require(name, value, self.sliders[name].options)
            self.sliders[name].value = value

    def _require(self, name: str, value: Hashable, values: Sequence[Hashable]) -> None:
        """Raise ValueError unless the value is one of the slider's."""
        if value not in values:
            raise ValueError(f"{name} = {value} was not {self.origin}: choose one of {', '.join(map(str, values))}")

    def _show(self) -> None:
        """Show the frame of the present setting, or the error in computing it."""
        try:
            picture, readout, table = self._render(*self.value)
        except Exception as error:  # a callback's exception would otherwise be lost in the server's log
            where = ", ".join(f"{name} = {slider.value}" for name, slider in self.sliders.items())
            self.readout.value = (
                f"<pre style='color:#b00'>{html.escape(where)}: {type(error).__name__}: {html.escape(str(error))}</pre>"
            )
            return
        self.picture.value = picture
        self.readout.value = readout
        self.table.value = table


def _rendered(frame: Frame) -> tuple[bytes, str, str]:
    """A frame as the bytes of a PNG file and two pieces of HTML: its readings and its table."""
    cells = "".join(
        f"<td style='padding:2px 14px 2px 0'>{html.escape(name)}<br><b>{html.escape(value)}</b></td>"
        for name, value in frame.readings.items()
    )
    return (
        png(frame.figure),
        (f"<table role='status' aria-label='{html.escape(frame.alt, quote=True)}'><tr>{cells}</tr></table>"),
        _table(frame.table),
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as an HTML table, head first: the first column to the left, the others to the right."""
    if not rows:
        return ""

    def line(cells: Sequence[str], tag: str) -> str:
        align = ["left"] + ["right"] * (len(cells) - 1)
        return (
            "<tr>"
            + "".join(
                f"<{tag} style='text-align:{side};padding:0 12px 0 0'>{html.escape(str(cell))}</{tag}>"
                for cell, side in zip(cells, align)
            )
            + "</tr>"
        )

    return f"<table>{line(rows[0], 'th')}{''.join(line(row, 'td') for row in rows[1:])}</table>"
