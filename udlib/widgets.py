"""Explorers: a slider over values that exist, a picture that is already drawn, and numbers in HTML beside it.

Model (`frame`: a value in, a `Frame` out), figure (`udlib.plots`) and view (`Explorer`) are apart, so that each can be
tested alone. A value that was never computed is never shown: the sliders have no positions between the given values.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import ipywidgets
from matplotlib.figure import Figure

from udlib.plots import png


class Frame(NamedTuple):
    """What an explorer shows for one setting: a figure, its description in words, and a table of named readings."""

    figure: Figure
    alt: str
    readings: Mapping[str, str]


class Explorer(ipywidgets.VBox):
    """Sliders above a picture and its readings.

    `controls` maps a name to its values, each with a slider; `frame(*values)` computes what is shown and is called once
    per setting (`warm` computes all of them now, so that every move is instant). An error in `frame` is shown in place
    of the picture, with its message, and leaves the sliders working.
    """

    def __init__(self, controls: Mapping[str, Sequence[Hashable]], frame: Callable[..., Frame], note: str = "",
                 start: Mapping[str, Hashable] | None = None, warm: bool = False):
        for name, values in controls.items():
            if not len(values):
                raise ValueError(f"control '{name}' has no values: give at least one")
        chosen = {name: (start or {}).get(name, values[0]) for name, values in controls.items()}
        for name, value in chosen.items():
            if value not in controls[name]:
                raise ValueError(f"{name} = {value} was not computed: choose one of {', '.join(map(str, controls[name]))}")
        self._render = cache(lambda *values: _rendered(frame(*values)))
        self.sliders = {name: ipywidgets.SelectionSlider(
            options=list(values), value=chosen[name], description=name, continuous_update=True,
            style={"description_width": "initial"}, layout=ipywidgets.Layout(width="480px"))
            for name, values in controls.items()}
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%", object_fit="contain"))
        self.readout = ipywidgets.HTML()
        self.message = ipywidgets.HTML(f"<small>{html.escape(note)}</small>" if note else "")
        super().__init__([*self.sliders.values(), self.readout, self.picture, self.message])
        for slider in self.sliders.values():
            slider.observe(lambda _: self._show(), names="value")
        if warm:
            self._warm([()], list(controls.values()))
        self._show()

    def _warm(self, settings: list[tuple], remaining: list[Sequence]) -> None:
        if remaining:
            return self._warm([(*s, value) for s in settings for value in remaining[0]], remaining[1:])
        for setting in settings:
            self._render(*setting)

    @property
    def value(self) -> tuple:
        """The present setting, one value per slider."""
        return tuple(slider.value for slider in self.sliders.values())

    def _show(self) -> None:
        try:
            picture, readout = self._render(*self.value)
        except Exception as error:  # a callback's exception would otherwise be lost in the server's log
            where = ", ".join(f"{name} = {slider.value}" for name, slider in self.sliders.items())
            self.readout.value = (f"<pre style='color:#b00'>{html.escape(where)}: {type(error).__name__}: "
                                  f"{html.escape(str(error))}</pre>")
            return
        self.picture.value = picture
        self.readout.value = readout


def _rendered(frame: Frame) -> tuple[bytes, str]:
    cells = "".join(f"<td style='padding:2px 14px 2px 0'>{html.escape(name)}<br><b>{html.escape(value)}</b></td>"
                    for name, value in frame.readings.items())
    return png(frame.figure), (f"<table role='status' aria-label='{html.escape(frame.alt, quote=True)}'>"
                               f"<tr>{cells}</tr></table>")
