"""A recipe: everything that decides a result, as one value that can be compared, stored and named.

Its fields come in three parts: data and network, `TrainingConfig`, and the method's own `Settings`. Its key is the hash of
what differs from the defaults.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from udlib.datasets.base import Policy
from udlib.training.optimization import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a result. Make one with `recipe(...)`, which takes the fields of all three parts flat."""

    method: str = "supervised"  # a module of udlib.methods
    data: str = "scenes"  # a name: its folder stands in `datasets.roots`; or a folder in VOC layout
    size: int = 64  # side of the square images, in pixels
    limit: int | None = None  # only the first images of each split
    classes: tuple[int, ...] | None = None  # only these classes of the data, by number
    network: str = "small"
    weights: str | None = None  # of torchvision, e.g. IMAGENET1K_V1
    pooling: str = "avg"
    embedding: int = 128  # width of the calibration branch; the released code's 512 suits 2,048 features
    bias: bool = True  # of the classifier; the released code has none
    policy: str = "positive"  # what a difficult label counts as in training
    keep: str = "last"  # or "best", the epoch with the highest mAP on validation
    training: TrainingConfig = TrainingConfig()
    settings: Any = None  # the method's own `Settings`

    def __post_init__(self):
        for name, allowed in (("keep", ("last", "best")), ("policy", get_args(Policy))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is '{getattr(self, name)}': expected one of {', '.join(allowed)}")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))

    @property
    def side(self) -> int:
        """Side in pixels of what the network sees: of the crops in training, where there are any, and of whole images later."""
        return self.training.crop or self.size

    def flat(self) -> dict[str, Any]:
        """All fields by name, those of `training` and `settings` among them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("training", "settings")}
        return own | asdict(self.training) | asdict(self.settings)

    def choices(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        standard = recipe(self.method).flat()
        return {name: value for name, value in sorted(self.flat().items()) if value != standard[name]}

    @property
    def key(self) -> str:
        """Names the result, e.g. `scenes-supervised-1f0c…`; a field added later leaves the keys of old recipes alone."""
        content = json.dumps({"method": self.method} | self.choices(), sort_keys=True)
        return f"{Path(self.data).name}-{self.method}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"

    def but(self, **changes) -> Recipe:
        """The same recipe with some fields changed, of whichever part."""
        return recipe(self.method, **{**self.choices(), **changes})

    def __str__(self) -> str:
        return f"{self.method}({', '.join(f'{name}={value}' for name, value in self.choices().items())})"


def recipe(method: str = "supervised", **choices) -> Recipe:
    """A recipe from flat fields: those of `Recipe`, of `TrainingConfig`, and of the method's own `Settings`.

    >>> str(recipe(erase=0.5, seed=3).but(seed=4))
    'supervised(erase=0.5, seed=4)'

    Raises ValueError for an unknown method or field, with the nearest known name.
    """
    settings = method_of(method).Settings
    parts: dict[type, dict] = {Recipe: {}, TrainingConfig: {}, settings: {}}
    known = {f.name: part for part in parts for f in fields(part) if f.name not in ("method", "training", "settings")}
    for name, value in choices.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(
                f"a '{method}' recipe has no field '{name}'"
                + (f": did you mean '{near[0]}'?" if near else f": choose among {', '.join(known)}")
            )
        parts[known[name]][name] = value
    return Recipe(
        method, training=TrainingConfig(**parts[TrainingConfig]), settings=settings(**parts[settings]), **parts[Recipe]
    )


def method_of(name: str) -> ModuleType:
    """The module of a method; ValueError for an unknown one."""
    try:
        return import_module(f"udlib.methods.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"udlib.methods.{name}":
            raise
        known = sorted(p.stem for p in Path(__file__).parent.iterdir() if p.stem.isalpha() and p.stem != "base")
        raise ValueError(f"unknown method '{name}': choose one of {', '.join(known)}") from None
