"""One progress bar for the whole package: a thin wrapper on plain tqdm."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from tqdm import tqdm


class track:
    """Progress bar with the time left and units per second; iterate over it, or update it by hand.

    The environment variable `UDLIB_PROGRESS=0` silences every bar. Plain tqdm is used everywhere: the notebook
    widget stops at its first frame when a notebook is executed without a browser, and needs ipywidgets.

    Args:
        iterable: what to walk through, optional.
        total: number of units; default `len(iterable)`.
        description: text on the left.
        unit: name of what is counted.
        silent: True shows nothing, for all processes but the first.
        initial: number of units that were done before; they count neither for the rate nor for the time left.

    Example:
        >>> list(track([1, 2, 3]))
        [1, 2, 3]
        >>> with track(total=128, description="epoch 1") as bar:
        ...     bar.update(64)
        ...     bar.set(loss=0.25)
    """

    def __init__(
        self,
        iterable: Iterable | None = None,
        total: int | None = None,
        description: str = "",
        unit: str = "img",
        silent: bool = False,
        initial: int = 0,
    ):
        self.bar = tqdm(
            iterable,
            total=total,
            initial=initial,
            desc=description or None,
            unit=f" {unit}",
            disable=silent or os.environ.get("UDLIB_PROGRESS", "1") == "0",
            # ASCII and no colour: the bar is also stored in executed notebooks and log files.
            ascii=True,
            mininterval=0.5,
            dynamic_ncols=False,
            ncols=100,
        )

    def __iter__(self) -> Iterator:
        return iter(self.bar)

    def __enter__(self) -> track:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()  # leaves the last state on the screen

    def update(self, n: int = 1) -> None:
        """Count `n` more units."""
        self.bar.update(n)

    def set(self, **numbers: float) -> None:
        """Show named numbers on the right of the bar, e.g. `bar.set(loss=0.31)`."""
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)
