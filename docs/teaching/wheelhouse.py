"""`make wheelhouse`: one folder with every wheel that the course needs, for a room without a network.

It needs pip and a network, and nothing else: no package of the course has to be installed here. The wheels fit this system,
this processor and this version of Python. The same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

try:
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.tags import sys_tags
    from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename
    from pip._vendor.packaging.version import Version
except ImportError:
    raise SystemExit("this Python has no pip: install it with `python -m ensurepip`, or name another Python") from None

ROOT = Path(__file__).resolve().parents[2]
LOCK = "requirements.lock"
TORCH = ("torch", "torchvision")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # where PyTorch publishes its CPU builds
ONLY_FOR_CUDA = ("nvidia-", "cuda-", "triton")  # what the lock names for PyTorch's CUDA builds alone
BATCH = 16  # packages for each call of pip
PARTIAL = ".partial"  # a wheel is here until it is complete
MANIFEST = "wheelhouse.json"
INSTALLER = "install.py"
PROJECT = "udlib"
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE")
README = """This folder holds every package of the course, for {system} on {machine} with Python {python}.

1. Copy the folder of the project to the computer, and this folder into it.
2. In the folder of the project, run:

       python {installer_path}

   It makes the environment .venv and installs everything into it, without a network. Then `make lab` opens the course; without
   make, use `{bin}/udlib lab`.

Without the folder of the project (no lessons, only the package and its command):

       python -m venv .venv
       {bin}/python -m pip install --no-index --find-links {folder} -r {folder}/requirements.txt udlib
"""


class Pin(NamedTuple):
    """One package of the lock.

    Attributes:
        name: Its name, written as packaging compares names.
        version: Its version, written the same way, with "+cpu" where only PyTorch's CPU build will do.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def pins(lock: Path, cuda: bool, system: str = sys.platform) -> list[Pin]:
    """Return the packages of a lock that this Python needs.

    Args:
        lock: The file.
        cuda: Whether PyTorch is taken as the lock has it: on Linux with CUDA and its libraries.
        system: The system as Python names it; on Linux PyTorch's CPU build has a version of its own.
    """
    pinned = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        if not cuda and name.startswith(ONLY_FOR_CUDA):
            continue
        (specifier,) = requirement.specifier
        local = "+cpu" if name in TORCH and not cuda and system == "linux" else ""
        pinned.append(Pin(name, str(Version(specifier.version + local))))
    return pinned


def wheels(folder: Path) -> dict[Pin, Path]:
    """Return the wheels in a folder that this Python can install."""
    tags = set(sys_tags())
    found = {}
    for path in sorted(folder.glob("*.whl")):
        name, version, _, wheel_tags = parse_wheel_filename(path.name)
        if tags & wheel_tags:
            found[Pin(name, str(version))] = path
    return found


def missing(pinned: Iterable[Pin], folder: Path) -> list[Pin]:
    """Return the packages that the folder has no wheel for."""
    present = wheels(folder)
    return [pin for pin in pinned if pin not in present]


def source_of(pin: Pin, torch_index: str) -> list[str]:
    """Return pip's options that say where a package comes from; none means pip's own index.

    Args:
        pin: The package.
        torch_index: The address of an index with PyTorch's CPU builds, or a folder with their two wheels.
    """
    if not pin.version.endswith("+cpu"):
        return []
    if Path(torch_index).is_dir():
        return ["--no-index", "--find-links", str(Path(torch_index).resolve())]
    return ["--index-url", torch_index]


def fetch(pinned: list[Pin], folder: Path, options: list[str]) -> str | None:
    """Put the wheels of some packages into the folder; a package without a wheel is built from its source.

    Returns:
        None, or pip's reason why one of them could not be fetched. Then none of them is in the folder.
    """
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    words = ["wheel", "--no-deps", "--wheel-dir", str(partial), "--retries", "2", "--timeout", "60", *options]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *map(str, pinned)], capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        return (reasons[0] if reasons else done.stderr.strip() or "pip stopped without a word").removeprefix("ERROR: ")
    for path in partial.iterdir():
        os.replace(path, folder / path.name)
    partial.rmdir()
    return None


def batches(pinned: list[Pin], torch_index: str) -> Iterator[tuple[list[Pin], list[str]]]:
    """Yield groups of packages that come from one place, each with pip's options for it."""
    for options in ([], source_of(Pin("torch", "0+cpu"), torch_index)):
        group = [pin for pin in pinned if source_of(pin, torch_index) == options]
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH], options


def fetch_all(pinned: list[Pin], folder: Path, torch_index: str) -> dict[Pin, str]:
    """Fetch what the folder lacks, and print how far it is.

    Returns:
        The packages that could not be fetched, each with pip's reason. If a whole group fails, no other is tried.
    """
    waiting = missing(pinned, folder)
    done = len(pinned) - len(waiting)
    if done:
        print(f"{done} of {len(pinned)} packages are here already", flush=True)
    failed: dict[Pin, str] = {}
    for group, options in batches(waiting, torch_index):
        reasons: dict[Pin, str] = {}
        if fetch(group, folder, options) is not None:  # then one by one, to learn which one it is
            for pin in group:
                if (reason := fetch([pin], folder, options)) is not None:
                    reasons[pin] = reason
        failed |= reasons
        done += len(group) - len(reasons)
        names = ", ".join(pin.name for pin in group if pin not in reasons)
        print(f"{done:>4} of {len(pinned)} packages, {megabytes(folder):,.0f} MB: {names}", flush=True)
        if len(reasons) == len(group):
            break
    return failed


def megabytes(folder: Path) -> float:
    """Return the size of the wheels in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.whl")) / 1e6


def build_project(root: Path, folder: Path) -> Path:
    """Build the wheel of the project from a copy, so that no old build gets into it; returns the wheel.

    Raises:
        RuntimeError: pip could not build it.
    """
    for old in folder.glob(f"{PROJECT}-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as copy:
        for name in BUILT_FROM:
            shutil.copy2(root / name, copy)
        shutil.copytree(root / PROJECT, Path(copy) / PROJECT, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        words = ["wheel", "--no-deps", "--no-index", "--find-links", str(folder), "--wheel-dir", str(folder), copy]
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{PROJECT} could not be built: {done.stderr.strip()}")
    return next(folder.glob(f"{PROJECT}-*.whl"))


def write_beside(pinned: list[Pin], folder: Path) -> None:
    """Write what the computers in the room need beside the wheels: the list, the installer and the instructions."""
    (folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pinned), encoding="utf-8")
    made_for = {"python": ".".join(platform.python_version_tuple()[:2]), "system": platform.system()}
    made_for["machine"] = platform.machine()
    listed = [path for pin, path in wheels(folder).items() if pin in pinned or pin.name == PROJECT]
    sizes = {path.name: path.stat().st_size for path in listed}
    (folder / MANIFEST).write_text(json.dumps(made_for | {"wheels": sizes}, indent=1), encoding="utf-8")
    shutil.copy2(Path(__file__).with_name("install_from_wheelhouse.py"), folder / INSTALLER)
    bin_folder = ".venv\\Scripts" if os.name == "nt" else ".venv/bin"
    words = {"installer_path": Path(folder.name) / INSTALLER, "bin": bin_folder, "folder": folder.name}
    (folder / "README.txt").write_text(README.format(**made_for, **words), encoding="utf-8")


def main(words: list[str] | None = None) -> int:
    """Make the folder; returns 1 if a package is missing in it."""
    parser = argparse.ArgumentParser(prog="make wheelhouse", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("wheelhouse"), metavar="FOLDER", help="where the wheels go")
    parser.add_argument("--lock", type=Path, default=ROOT / LOCK, metavar="FILE", help=f"another lock than {LOCK}")
    parser.add_argument(
        "--cuda", action="store_true", help="PyTorch as the lock has it: on Linux with CUDA, several GB more"
    )
    parser.add_argument(
        "--torch-index",
        default=os.environ.get("TORCH_INDEX") or TORCH_INDEX,
        metavar="PLACE",
        help="an index with PyTorch's CPU builds, or a folder with the wheels of torch and torchvision",
    )
    options = parser.parse_args(words)
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    pinned = pins(options.lock, options.cuda)
    failed = fetch_all(pinned, folder, options.torch_index)
    if absent := missing(pinned, folder):
        for pin, reason in failed.items():
            print(f"{pin} could not be fetched: {reason}", file=sys.stderr)
        if any(pin.version.endswith("+cpu") for pin in failed):
            print(
                f"PyTorch's CPU builds were looked for in {options.torch_index}; TORCH_INDEX names another index, or a "
                "folder with the two wheels, and CUDA=1 takes the builds of the lock",
                file=sys.stderr,
            )
        names = ", ".join(pin.name for pin in absent)
        print(f"still missing: {names}; the same command tries only these again", file=sys.stderr)
        return 1
    try:
        build_project(ROOT, folder)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    write_beside(pinned, folder)
    print(f"'{options.out}' is complete: {len(pinned) + 1} packages, {megabytes(folder):,.0f} MB")
    print(f"in the room, in the folder of the project: python {options.out / INSTALLER}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
