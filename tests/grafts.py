"""Gives a module that is imported already the content of another source text, wherever its parts have gone by then.

Functions and classes stay the objects that others imported, and get the code, the defaults and the attributes of the
new source. That is much quicker than a new process in which everything is imported again.
"""

import sys
import types
from contextlib import suppress

KEPT = ("__dict__", "__weakref__", "__module__", "__dataclass_fields__", "__dataclass_params__", "__doc__")


def graft(module, source):
    """Gives `module` the content of `source`. Raises what importing that source raises."""
    new = types.ModuleType(module.__name__)
    new.__file__, new.__package__ = module.__file__, module.__package__
    exec(compile(source, module.__file__, "exec"), vars(new))
    for name, value in list(vars(new).items()):
        if name.startswith("__") and name.endswith("__"):
            continue
        before = vars(module).get(name)
        after = merged(before, value, module.__name__)
        if after is not before:
            for other in list(sys.modules.values()):
                if name in (getattr(other, "__dict__", None) or {}) and vars(other)[name] is before:
                    setattr(other, name, after)


def merged(before, value, module):
    """What is to stand where `before` stood: `before` itself where it can take over the content of `value`."""
    if before is value:
        return before
    kinds = type(before), type(value)
    if kinds == (types.FunctionType, types.FunctionType):
        return function(before, value, module)
    if isinstance(before, type) and isinstance(value, type) and before.__module__ == module:
        return type_of(before, value, module)
    if kinds == (dict, dict):
        content = {key: merged(before.get(key), item, module) for key, item in value.items()}
        before.clear()
        before.update(content)
        return before
    if kinds in ((tuple, tuple), (list, list)) and len(before) == len(value):
        content = kinds[0](merged(one, other, module) for one, other in zip(before, value))
        return before if all(one is other for one, other in zip(before, content)) else content
    if isinstance(before, property):
        return property(function(before.fget, value.fget, module))
    inner = getattr(before, "__wrapped__", None), getattr(value, "__wrapped__", None)
    if all(isinstance(part, types.FunctionType) for part in inner):
        function(*inner, module)
        return before
    if type(value).__module__ == module and type(value).__name__ == type(before).__name__:
        with suppress(TypeError):  # an object of a class of this module, a default perhaps
            vars(before).update(vars(value))
        return before
    with suppress(Exception):  # arrays have no single truth
        return before if kinds[0] is kinds[1] and before == value else value
    return value


def function(before, value, module):
    if before.__code__.co_freevars != value.__code__.co_freevars:  # a call of super() that is gone, say
        return value
    for one, other in zip(before.__closure__ or (), value.__closure__ or ()):
        with suppress(ValueError):  # an empty cell
            if isinstance(one.cell_contents, types.FunctionType) and one.cell_contents is not other.cell_contents:
                one.cell_contents = function(one.cell_contents, other.cell_contents, module)
    before.__code__ = value.__code__
    before.__defaults__ = merged(before.__defaults__, value.__defaults__, module)
    before.__kwdefaults__ = value.__kwdefaults__ and {
        name: merged((before.__kwdefaults__ or {}).get(name), item, module)
        for name, item in value.__kwdefaults__.items()
    }
    return before


def type_of(before, value, module):
    for name, item in list(vars(value).items()):
        old = vars(before).get(name)
        if name not in KEPT and (after := merged(old, item, module)) is not old:
            with suppress(AttributeError, TypeError):
                setattr(before, name, after)
    for name in ("__setattr__", "__delattr__"):  # of a dataclass that is no longer frozen
        if name in vars(before) and name not in vars(value):
            delattr(before, name)
    return before
