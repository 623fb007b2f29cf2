"""The base of all explorers: sliders over existing values, a picture, and numbers in HTML beside it.

Model (`frame`, which takes values and returns a `Frame`), figure (`udlib.figures.plots`) and view (`Explorer`) are
separate, so that each can be tested alone. The sliders have no positions between the given values, so no invented value
is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from html import escape
from typing import NamedTuple

import ipywidgets
from matplotlib.figure import Figure

from udlib.course.explorers import markup
from udlib.figures.style import figure_html, png


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


class Rendered(NamedTuple):
    """A frame as the page shows it: the bytes of its PNG file, its description, and two pieces of HTML."""

    picture: bytes
    alt: str
    readings: str
    table: str


class Explorer(ipywidgets.VBox):
    """Sliders above a picture and its readings.

    Where no kernel is running, as in a notebook that is only read, the page shows the present frame as a figure. An
    error in `frame` is shown with its message beside the picture, and leaves the sliders working.

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
        self.picture = ipywidgets.HTML()
        self.readout = ipywidgets.HTML()
        self.readout.add_class(markup.READOUT)
        self.table = ipywidgets.HTML()
        self.message = ipywidgets.HTML(escape(note))
        super().__init__([*self.sliders.values(), self.readout, self.picture, self.table, self.message])
        self.add_class(markup.EXPLORER)
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

    @property
    def setting(self) -> str:
        """The present setting in words."""
        return ", ".join(f"{name} = {slider.value}" for name, slider in self.sliders.items())

    @property
    def rendered(self) -> Rendered:
        """The frame of the present setting, as the page shows it."""
        return self._render(*self.value)

    def _show(self) -> None:
        """Show the frame of the present setting, or the error in computing it."""
        try:
            frame = self.rendered
        except Exception as error:  # a callback's exception would otherwise be lost in the server's log
            self.readout.value = markup.error(self.setting, error)
            return
        self.picture.value = markup.picture(frame.picture, frame.alt)
        self.readout.value = frame.readings
        self.table.value = frame.table

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        """The sliders where a kernel is running, and elsewhere the present frame as a figure, or its error."""
        bundle = super()._repr_mimebundle_(**options)
        try:
            frame = self.rendered
        except Exception as error:
            return bundle | {"text/plain": f"{self.setting}: {error}", "text/html": markup.error(self.setting, error)}
        caption = f"{self.setting}. Run the notebook to move the slider{'s' * (len(self.sliders) > 1)}."
        return bundle | {"text/plain": frame.alt, "text/html": figure_html(frame.picture, frame.alt, caption)}


def _rendered(frame: Frame) -> Rendered:
    """A frame with its picture as PNG and its other parts as HTML."""
    content = png(frame.figure)
    return Rendered(content, frame.alt, markup.readings(frame.readings), markup.table(frame.table))
