"""One folder with all that `udlib gpu` needs, for a machine with a GPU that may have no network.

It holds the package, the tests and benchmarks that the command runs, the photographs at a short side of 224 px as WebP, and the
ImageNet weights of both networks in half precision. No notebooks and no results are in it.
"""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from PIL import Image

import udlib
from udlib.backbones.lite import features_of, lite_state
from udlib.backbones.weight_files import weights_file
from udlib.course.gpu_steps import PACK, commit, gpu_tests, require_weights
from udlib.course.photo_arms import STUDENT, TEACHER
from udlib.datasets.base import checkout
from udlib.datasets.photos import IMAGES, Photos, photos, require_photos
from udlib.datasets.photos_forms import MANIFEST, Form
from udlib.datasets.photos_table import SPLITS
from udlib.methods import recipe
from udlib.progress import track

FORM = Form(short_side=224, suffix=".webp")
QUALITY = 50  # of the WebP files: all photographs take 23 MB, and JPEGs of that size would be 2 dB worse
PHOTOS = Path("data") / "photos" / IMAGES
WEIGHTS = Path("udlib") / "backbones" / "weights"
LIMITS = {"photographs": 24.0, "weights": 21.0, "all": 60.0}  # in MB
COPIED = ("pyproject.toml", "LICENSE")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")

SCRIPT = '''"""`python run_gpu.py` runs all steps on the GPU of this machine; with `--smoke`, for a trial, on any machine."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NEEDED = {needed!r}

missing = [package for package, module in NEEDED.items() if importlib.util.find_spec(module) is None]
if missing:
    raise SystemExit("some packages are missing: run `pip install " + " ".join(missing) + "`")
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    from udlib.cli import main

    main(["gpu", *sys.argv[1:]])
'''
# Distributions with the module that each gives; what only lessons and other data sets need is not among them.
NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "timm": "timm",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "matplotlib": "matplotlib",
    "seaborn": "seaborn",
    "tqdm": "tqdm",
    "filelock": "filelock",
    "typer": "typer",
    "pytest": "pytest",
}
README = """# A pack for one GPU

`python run_gpu.py` tests, measures and trains for at most nine minutes on the GPU of this machine, and writes a few
small files in `gpu-results`. The same command continues after an interruption.
`python run_gpu.py --smoke` tries every step without a GPU.
Copy `gpu-results` back, and in the checkout run `udlib gpu --collect gpu-results`.

Do not pass this folder on: the photographs belong to their photographers, under several Creative Commons licences, some of them
non-commercial. Annotations: Microsoft COCO, CC BY 4.0. Weights: EfficientNet-Lite, Google, Apache 2.0. Code: MIT (LICENSE).
"""
MAKEFILE = "gpu:\n\tpython3 run_gpu.py\n\n.PHONY: gpu\n"


def write_pack(out: Path) -> dict[str, int]:
    """Write the folder; whole, or not at all.

    Args:
        out: The new folder.

    Returns:
        The bytes of its parts by name, and of "all".

    Raises:
        FileExistsError: The folder exists.
        FileNotFoundError: The photographs are missing, or this is no checkout.
        RuntimeError: The ImageNet weights are not installed.
        ValueError: A photograph is wrong, or a part is too large.
    """
    out = Path(out).expanduser().resolve()
    if out.exists():
        raise FileExistsError(f"'{out}' exists: delete it, or name another folder with --out")
    root = checkout()
    if root is None or not (root / "tests").is_dir():
        raise FileNotFoundError(
            "a pack is made in a checkout of the project, installed from there with `pip install -e .`: the tests are "
            "missing here"
        )
    require_photos()
    names = (STUDENT, TEACHER)
    require_weights([recipe(network=name) for name in names])
    partial_folder = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    try:
        _write_code(root, partial_folder)
        _write_photos(partial_folder / PHOTOS)
        for name in names:
            content = weights_file(features_of(lite_state(name)))
            _write(partial_folder / WEIGHTS / f"{name}.safetensors", content)
        sizes = part_sizes(partial_folder)
        for name, most in LIMITS.items():
            if sizes[name] > most * 1e6:
                raise ValueError(
                    f"{name} of the pack take {sizes[name] / 1e6:.1f} MB, and {most:g} are allowed: lower QUALITY in gpu_pack.py"
                )
        os.replace(partial_folder, out)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return sizes


def part_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of the parts of a pack, by name."""

    def size(path: Path) -> int:
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    weights, tests, pictures = (size(folder / part) for part in (WEIGHTS, "tests", PHOTOS))
    return {
        "package": size(folder / "udlib") - weights,
        "tests": tests,
        "photographs": pictures,
        "weights": weights,
        "all": size(folder),
    }


def _write_code(root: Path, folder: Path) -> None:
    """The package, the tests, and the files beside them."""
    shutil.copytree(root / "udlib", folder / "udlib", ignore=IGNORED)
    for name in COPIED:
        shutil.copy2(root / name, folder / name)
    for file in needed_tests(root):
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    _write(folder / "run_gpu.py", SCRIPT.replace("{needed!r}", json.dumps(NEEDED, indent=4)).encode())
    _write(folder / "README.md", README.encode())
    _write(folder / "Makefile", MAKEFILE.encode())
    origin = {
        "commit": commit(root),
        "udlib": udlib.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "photographs": asdict(FORM) | {"quality": QUALITY},
    }
    _write(folder / PACK, json.dumps(origin, indent=1).encode())


def needed_tests(root: Path) -> list[Path]:
    """Return the files below `tests` that the command runs: tests for a GPU, the benchmarks, and what they import."""
    tests = root / "tests"
    waiting = [tests / "conftest.py", *(root / name for name in gpu_tests(root)), *(tests / "benchmarks").glob("*.py")]
    needed: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in needed:
            needed.add(file)
            waiting += [path for name in _imports(file) if (path := tests / f"{name}.py").is_file()]
    return sorted(needed)


def _imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, by their first name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _write_photos(folder: Path) -> None:
    """Every photograph, smaller; each is compared with the table when it is read."""
    for split in SPLITS:
        part = photos(split)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            files = pool.map(partial(_reduced, part), range(len(part)))
            for name, content in track(files, total=len(part), description=f"photographs, {split}"):
                _write(folder / name, content)
    _write(folder / MANIFEST, FORM.manifest())


def _reduced(part: Photos, i: int) -> tuple[str, bytes]:
    """The name and the content of one photograph's file."""
    photo = FORM.reduced(part.entry(i))
    image = part.image(i)
    if image.size != (photo.width, photo.height):
        image = image.resize((photo.width, photo.height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=QUALITY, method=4)
    return FORM.file(photo), content.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file of a folder that gets its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
