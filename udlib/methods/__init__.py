"""The methods, each a file or a folder of its own that declares one `METHOD`; see `base` for what it declares."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from udlib.methods.base import Method, Recipe, make_recipe


@cache
def methods() -> dict[str, Method]:
    """All methods by name: every module of this package that has a `METHOD`."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return {module.METHOD.name: module.METHOD for module in modules if hasattr(module, "METHOD")}


def method_of(name: str) -> Method:
    """The method of this name; ValueError for an unknown one."""
    if name not in methods():
        raise ValueError(f"unknown method '{name}': choose one of {', '.join(sorted(methods()))}")
    return methods()[name]


def recipe(method: str = "supervised", **choices) -> Recipe:
    """Make a recipe from flat fields: those of `Recipe`, of `TrainingConfig`, and of the method's own `Settings`.

    Raises:
        ValueError: for an unknown method or field, with the nearest known name.

    Example:
        >>> str(recipe(erase=0.5, seed=3).but(seed=4))
        'supervised(erase=0.5, seed=4)'
    """
    return make_recipe(method, method_of(method).Settings, **choices)


def needs_of(recipe: Recipe) -> dict[str, Recipe]:
    """The recipes whose trained networks a recipe needs, by name: its method's teachers, and the "start" if it has one.

    The start is the recipe itself but for what `recipe.start` says: other settings, another method, no start of its own.

    Raises:
        ValueError: for a start with an unknown method or field, or with other data, classes, network or pooling.
    """
    needs = method_of(recipe.method).needs(recipe)
    if recipe.start:
        changes = dict(recipe.start)
        method = changes.pop("method", recipe.method)
        own = {*type(recipe.settings).__dataclass_fields__} if method != recipe.method else set()
        kept = {name: value for name, value in recipe.choices().items() if name not in {*own, "start"}}
        start = make_recipe(method, method_of(method).Settings, **kept | changes)
        for name in ("data", "classes", "network", "pooling"):
            if getattr(start, name) != getattr(recipe, name):
                raise ValueError(
                    f"start has {name}={getattr(start, name)!r} but the recipe has {getattr(recipe, name)!r}: both must have "
                    f"the same data, classes, network and pooling, so leave {name} out of start"
                )
        needs = needs | {"start": start}
    return needs
