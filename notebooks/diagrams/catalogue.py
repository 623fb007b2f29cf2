"""Which diagrams there are."""

import importlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from notebooks.diagrams.drawing import Diagram, style

Draw = Callable[[], Diagram]


def diagrams(only: str = "*") -> dict[str, Draw]:
    """The functions that draw, by the name of the diagram, for the lessons that match (`03`, `03_pal_n*`, `0[23]*`)."""
    sources = Path(__file__).resolve().parents[1] / "src"
    lessons = [
        path.stem for path in sorted(sources.glob("*.py")) if fnmatch(path.stem, only) or path.stem.startswith(only)
    ]
    found: dict[str, Draw] = {}
    for lesson in lessons:
        if Path(__file__).with_name(f"lesson_{lesson[:2]}.py").exists():
            found |= importlib.import_module(f"notebooks.diagrams.lesson_{lesson[:2]}").DIAGRAMS
    return found


def drawn(draw: Draw) -> Diagram:
    """A diagram in the house's style."""
    with style():
        return draw()
