"""Two tiny wheels that stand for PyTorch's CPU builds: they lend torch and torchvision from the Python that runs the tests.

PyTorch publishes its CPU builds for Linux in an index of its own, which cannot be reached everywhere, and they take 200 MB. So
a test hands these two wheels to `make wheelhouse`; every other package comes from the ordinary index.
"""

import importlib.util
import zipfile
from importlib import metadata
from pathlib import Path

LENT = ("torch", "torchgen", "functorch", "torchvision", "nvidia", "triton")
NOT_NEEDED = ("nvidia-", "cuda-", "triton")  # a CPU build asks for none of these

FINDER = '''"""Finds some packages in the folder of another Python, and nothing else there."""

import sys
from importlib.machinery import PathFinder


class Borrowed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is None and name in {lent!r}:
            return PathFinder.find_spec(name, [{folder!r}])
        return None


sys.meta_path.append(Borrowed)
'''


def write_wheel(folder, name, version, files, requires=()):
    """Write a wheel that any Python can install, with these files; returns its path."""
    info = f"{name}-{version}.dist-info"
    asked = "".join(f"Requires-Dist: {line}\n" for line in requires)
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{asked}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    everything = files | about
    record = "".join(f"{path},,\n" for path in [*everything, f"{info}/RECORD"])
    wheel = Path(folder) / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (everything | {f"{info}/RECORD": record}).items():
            archive.writestr(path, text)
    return wheel


def write_borrowed_torch(folder, versions):
    """Write the wheels of torch and torchvision, in these versions, into a folder."""
    place = str(Path(importlib.util.find_spec("torch").origin).parents[1])
    finder = FINDER.format(lent=set(LENT), folder=place)
    for name, version in versions.items():
        requires = [
            line for line in metadata.requires(name) if not line.startswith(NOT_NEEDED) and "extra ==" not in line
        ]
        requires = [
            line.replace(f"torch=={metadata.version('torch')}", f"torch=={versions['torch']}") for line in requires
        ]
        files = {f"borrowed_{name}.py": finder, f"borrowed_{name}.pth": f"import borrowed_{name}\n"}
        write_wheel(folder, name, version, files if name == "torch" else {}, requires)
