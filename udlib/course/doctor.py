"""What this machine has and what it lacks, in plain words."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from udlib.course.shipped import missing_lessons, own_checkout

PYTHON = ((3, 11), (3, 14))  # from the first up to, but without, the second
ROOM = 1.0  # GB that the embedded data sets, checkpoints and a few retrained results may need
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        name: What was checked.
        value: What was found.
        problem: What is wrong and what to do, if anything.
        essential: Whether nothing works until the problem is solved.
    """

    name: str
    value: str
    problem: str | None = None
    essential: bool = False


def findings() -> Iterator[Finding]:
    """Yield all lines of the report one by one, the quick ones first."""
    yield _python()
    yield _packages()
    yield _lessons()
    try:
        import torch
        import torchvision
    except Exception as error:  # a broken wheel raises OSError or RuntimeError rather than ImportError
        remedy = "install torch and torchvision as one pair, with `make lab`"
        yield Finding("torch", "cannot be imported", f"{type(error).__name__}: {error}; {remedy}", True)
        return
    yield Finding("torch", f"{torch.__version__}, torchvision {torchvision.__version__}")
    yield from _compute()
    yield _profile()
    yield from _data()
    yield _results()
    browser = find_chromium()
    yield Finding(
        "Chromium",
        Path(browser).name
        if browser
        else "none: the browser test is skipped; on Debian and Ubuntu `sudo apt-get install chromium` brings it",
    )


def find_chromium() -> str | None:
    """Return the path of the Chromium (or Chrome) that the browser test can use, or None."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


def shown(path: Path) -> str:
    """Return a path as it may be printed: relative to the working folder, else to the home folder, else as it is."""
    for start, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        try:
            return f"{prefix}{path.absolute().relative_to(start)}"
        except ValueError:
            continue
    return str(path)


def _python() -> Finding:
    """Whether this Python is one of the supported versions."""
    version = platform.python_version()
    low, high = PYTHON
    if low <= sys.version_info[:2] < high:
        return Finding("Python", version)
    versions = f"{low[0]}.{low[1]} to {high[0]}.{high[1] - 1}"
    return Finding("Python", version, f"Python {versions} is needed: install one, then `make lab PYTHON=...`", True)


def _packages() -> Finding:
    """Whether all that the package depends on is installed, and new enough."""
    try:
        required = _required()
    except metadata.PackageNotFoundError:
        return Finding("packages", "udlib is not installed", "install it with `make lab`, or `pip install -e .`", True)
    wrong = []
    for line in required:
        name, bound = re.match(r"([\w.-]+)", line)[1], re.search(r">=\s*([\d.]+)", line)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if bound and _numbers(version) < _numbers(bound[1]):
            wrong.append(f"{name} is {version}, {bound[1]} or later is needed")
    return Finding(
        "packages",
        f"{len(required) - len(wrong)} of {len(required)} present",
        "; ".join(wrong) + ": `make lab` installs the tested versions" if wrong else None,
        bool(wrong),
    )


def _required() -> list[str]:
    """What the package depends on: as its checkout says now, else as it was when the package was installed."""
    installed = [line for line in metadata.requires("udlib") or [] if "extra ==" not in line]
    own = Path(__file__).resolve().parents[2] / "pyproject.toml"  # not by `checkout`, which imports torch
    return tomllib.loads(own.read_text(encoding="utf-8"))["project"]["dependencies"] if own.is_file() else installed


def _lessons() -> Finding:
    """Whether the lessons are here and can be opened; the package itself does without them and without Jupyter."""
    names = ("jupyterlab", "ipywidgets", "nbval")
    missing = [name for name in names if find_spec(name) is None]
    remedy = "to open the lessons, run `make lab` in a checkout, or `pip install 'udlib[course]'`"
    problems = [f"missing: {', '.join(missing)}; {remedy}"] if missing else []
    folder = own_checkout()
    if absent := missing_lessons():
        problems.append(absent)
    place = "with this checkout" if folder else "none"
    packages = f"{len(names) - len(missing)} of {len(names)} packages present"
    return Finding("lessons", f"{place}; {packages}", "; ".join(problems) or None)


def _numbers(version: str) -> tuple[int, ...]:
    """The first numbers of a version, to compare versions by."""
    return tuple(map(int, re.findall(r"\d+", version.split("+")[0])[:3]))


def _compute() -> Iterator[Finding]:
    """The device, its precision, and the number of threads."""
    import torch

    from udlib.training.devices import make_accelerator, processor, resolve_precision

    device = make_accelerator().device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    yield Finding("device", f"{device.type} ({name})")
    precision = resolve_precision("auto", device)
    reason = (
        "multiplies in bfloat16, which is faster"
        if precision == "bf16"
        else "cannot multiply in bfloat16, and emulating it is slower"
    )
    if precision == "bf16" and device.type == "cpu":
        reason += "; networks with depthwise convolutions may train slower in it, so that is measured before the first training"
    yield Finding("precision", f"{precision}: this {'GPU' if device.type == 'cuda' else 'processor'} {reason}")
    yield from _measured_precision()
    yield Finding("threads", f"{torch.get_num_threads()} on {os.cpu_count()} processor cores")


def _measured_precision() -> Iterator[Finding]:
    """In which precision a training computes by default, for each backbone of which that was measured."""
    from udlib.training.precision import measured_ratios

    for key, ratio in measured_ratios().items():
        times = f"a training step in bf16 takes {ratio:.2f} times as long as in fp32"
        yield Finding("precision", f"{'bf16' if ratio < 1 else 'fp32'} in training: {times} ({key})")


def _profile() -> Finding:
    """The profile that UDLIB_PROFILE names."""
    from udlib.course.profiles import profile

    try:
        return Finding("profile", profile())
    except ValueError as error:
        return Finding("profile", os.environ["UDLIB_PROFILE"], str(error), True)


def _data() -> Iterator[Finding]:
    """Where data sets lie, whether there is room, and which data sets there are."""
    from udlib.datasets import data_root

    root = data_root()
    place = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    writable = place.is_dir() and os.access(place, os.W_OK)
    problem = None if writable else "it cannot be written to: set UDLIB_DATA to a folder that can"
    if writable and free < ROOM:
        problem = f"data sets and training need about {ROOM:g} GB: free some, or set UDLIB_DATA to a folder elsewhere"
    yield Finding("data root", f"{shown(root)}, {free:.1f} GB free", problem, not writable)
    yield from _data_sets(root)


def _data_sets(root: Path) -> Iterator[Finding]:
    """The embedded data sets by size, and the folders in the layout of VOC."""
    from importlib import import_module

    from udlib.datasets import EMBEDDED
    from udlib.datasets.voc_writer import read_version

    for name in EMBEDDED:
        version = import_module(f"udlib.datasets.{name}").VERSION
        sizes_in_words, broken = [], []
        for folder in sorted(root.glob(f"{name}-v{version}-*")):
            state = read_version(folder)
            if state is None:
                broken.append(folder)
            else:
                sizes_in_words.append(f"{state['size']} px ({sum(state['counts'].values()):,} pictures)")
        problem = f"{shown(broken[0])} has no VERSION file: delete that folder, it is made again" if broken else None
        sizes = " and ".join(sizes_in_words) or "not made yet: on first use, in seconds"
        yield Finding(name, f"version {version}, {sizes}", problem)
    yield Finding("photos", _photographs())
    for folder_of_splits in sorted([*root.glob("*/ImageSets/Main"), *root.glob("*/*/ImageSets/Main")]):
        if not (folder_of_splits.parents[1] / "VERSION").exists():
            yield Finding("VOC folder", shown(folder_of_splits.parents[1]))


def _photographs() -> str:
    """Where the photographs of the data set `photos` are."""
    from udlib.datasets.photos import photo_folder, photos_available

    if (folder := photo_folder()) is not None and photos_available():
        return f"photographs in {shown(folder)}"
    return "labels only; `udlib data photos --coco ROOT` adds the photographs"


def _results() -> Finding:
    """How many results are stored, and which of them are damaged."""
    from udlib.course.recipes import shipped_groups
    from udlib.course.report import size_in_megabytes, stored
    from udlib.course.store import absent_results

    try:
        recipes = {recipe.key: recipe for recipes_of_group in shipped_groups().values() for recipe in recipes_of_group}
        runs, damaged = stored(list(recipes.values()))
    except ValueError as error:
        return Finding("results", "cannot be read", str(error))
    problems = [f"damaged: {', '.join(damaged)}; `udlib runs --retrain --only KEY` trains one again"] if damaged else []
    if absent := absent_results():
        problems.append(absent)
    value = f"{len(runs)} of {len(recipes)} stored, {size_in_megabytes():.1f} MB"
    return Finding("results", value, "; ".join(problems) or None)
