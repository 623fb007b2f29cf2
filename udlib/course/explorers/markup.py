"""The HTML of an explorer: its picture, its readings and its table, and names for its sliders."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from udlib.figures.style import image_html

EXPLORER, READOUT = "udlib-explorer", "udlib-readout"  # CSS classes, by which the script finds its widgets

# The sliders of ipywidgets tell a screen reader neither their name nor their value, only the number of the position. Both
# stand beside the handle, so each picture, once it is there, copies them to the handles of its explorer. The readings
# are spoken when they change: the element that is told so must be there before they are.
NAME_SLIDERS = f"""
const explorer = this.closest('.{EXPLORER}');
explorer?.querySelector('.{READOUT}').setAttribute('role', 'status');
explorer?.querySelectorAll('.widget-slider').forEach(slider => {{
  const handle = slider.querySelector('[role=slider]'), value = slider.querySelector('.widget-readout');
  if (handle.hasAttribute('aria-label')) return;
  const speak = () => {{
    if (handle.getAttribute('aria-valuetext') !== value.textContent)
      handle.setAttribute('aria-valuetext', value.textContent);
  }};
  handle.setAttribute('aria-label', slider.querySelector('.widget-label').textContent);
  const observer = new MutationObserver(speak);
  observer.observe(handle, {{attributeFilter: ['aria-valuetext']}});
  observer.observe(value, {{childList: true, characterData: true, subtree: true}});
  speak();
}});
"""


def picture(content: bytes, alt: str) -> str:
    """Return the picture of a frame, which names the sliders above it for screen readers.

    Args:
        content: The bytes of a PNG file.
        alt: A description of the setting and its readings in words.
    """
    # A stretched picture is blurred, so a wide page leaves it as large as it is.
    return image_html(content, alt, f'style="max-width:100%" onload="{html.escape(NAME_SLIDERS)}"')


def readings(values: Mapping[str, str]) -> str:
    """Return the readings as a table of one row.

    Args:
        values: Values in words, by name.
    """
    cells = "".join(
        f"<td style='padding:2px 14px 2px 0'>{html.escape(name)}<br><b>{html.escape(value)}</b></td>"
        for name, value in values.items()
    )
    return f"<table aria-label='readings'><tr>{cells}</tr></table>"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table, head first: the first column to the left, the others to the right.

    Args:
        rows: The cells of each row; without rows there is no table.
    """
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


def error(setting: str, exception: Exception) -> str:
    """Return the message of an error in computing a frame.

    Args:
        setting: The setting in words.
        exception: The error.
    """
    words = html.escape(f"{setting}: {type(exception).__name__}: {exception}")
    return f"<pre style='color:var(--jp-error-color1, #b00)'>{words}</pre>"
