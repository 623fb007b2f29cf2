"""Calibration and knowledge distillation for multi-label image classification: the package of the course."""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path

__version__ = "0.2.0"


def load(path):
    """Load a trained model from the folder `path` that `udlib train` wrote; see `udlib.models.load`."""
    from udlib import models  # here, so that `import udlib` alone does not take torch's seconds

    return models.load(path)


class _MovedModules:
    """Keeps the module names of 0.1 importable until 0.3; moved_names.txt says which modules hold their names now."""

    def find_spec(self, name, path=None, target=None):
        if not name.startswith("udlib."):
            return None
        lines = Path(__file__).with_name("moved_names.txt").read_text(encoding="utf-8").splitlines()
        moved = {f"udlib.{old}": new for old, *new in (line.split() for line in lines if not line.startswith("#"))}
        is_package = any(old.startswith(f"{name}.") for old in moved)
        return ModuleSpec(name, self, loader_state=moved[name], is_package=is_package) if name in moved else None

    def create_module(self, spec):
        return None  # Python makes an empty module

    def exec_module(self, module):
        old, entries = module.__name__, module.__spec__.loader_state
        places = [import_module(f"udlib.{entry}") for entry in entries if "=" not in entry]
        renamed = dict(entry.split("=") for entry in entries if "=" in entry)

        def __getattr__(name):
            for place in places if not name.startswith("__") else ():
                if hasattr(place, new := renamed.get(name, name)):
                    message = f"{old}.{name} is now {place.__name__}.{new}; udlib 0.3 removes the old name"
                    warnings.warn(message, DeprecationWarning, stacklevel=2)
                    return getattr(place, new)
            # `from … import name` would replace the text of an AttributeError by a text without a remedy.
            caller = sys._getframe(1)
            imported = caller.f_code.co_code[caller.f_lasti] == import_module("opcode").opmap["IMPORT_FROM"]
            homes = " or ".join(place.__name__ for place in places)
            message = f"'{name}' is not in {homes}, where {old} went: CHANGELOG.md lists what moved"
            raise (ImportError if imported else AttributeError)(message)

        module.__all__ = sorted({name for place in places for name in dir(place) if not name.startswith("_")})
        module.__getattr__, module.__dir__ = __getattr__, lambda: module.__all__


sys.meta_path.append(_MovedModules())  # after Python's own finders, so that it is asked only for what they lack
