"""Names that left the methods in 0.2, importable from their old places until 0.3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any


def moved_names(module: str, **places: str) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module: `places` maps each old name to where it stands now, "module:name".

    The new place is imported when it is asked for, since it may stand on the methods itself.
    """

    def __getattr__(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        place, new = places[name].split(":")
        warnings.warn(
            f"{module}.{name} is now {place}.{new}; udlib 0.3 removes the old name", DeprecationWarning, stacklevel=2
        )
        return attrgetter(new)(import_module(place))

    return __getattr__
