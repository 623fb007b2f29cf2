"""What `udlib gpu` does on one GPU, in this order: its tests, the benchmark of a training step, trainings on photographs.

Each step leaves a file as soon as it ends, and the trainings after each of them. The next call goes on from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from udlib.course import gpu_results
from udlib.course.gpu_arms import by_seed
from udlib.course.runs import Run
from udlib.course.store import has_model, load, train_and_store
from udlib.datasets.base import checkout, data_root
from udlib.datasets.photos import photo_folder, require_photos
from udlib.datasets.photos_forms import form_of
from udlib.methods.base import Recipe
from udlib.training.devices import machine

PACK = "pack.json"  # what a pack says of itself: commit, date, photographs
TESTS_SECONDS, THROUGHPUT_SECONDS, RESERVE = 90.0, 240.0, 10.0  # at most, of all the time; and what is kept for the end
TEACHER = "teacher"  # the arm whose networks the others need


@dataclass
class Session:
    """One call of `udlib gpu`.

    Args:
        results: The folder of the small files that it leaves.
        minutes: The time that it may take.
        smoke: Whether this is a trial at the size of a stamp, on whatever machine.
        started: When it began, by `time.monotonic`.
    """

    results: Path
    minutes: float
    smoke: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left of its time."""
        return self.started + 60 * self.minutes - RESERVE - time.monotonic()

    def at_most(self, seconds: float) -> float:
        """Seconds that a step may take; a trial, on a machine that may be slow, cuts none short."""
        return self.left if self.smoke else min(seconds, self.left)

    def file(self, name: str) -> Path:
        """One of the files that it leaves."""
        return self.results / name

    def say(self, text: str) -> None:
        """Print a line with the time that is left."""
        print(f"[{max(self.left, 0) / 60:.1f} min left] {text}", flush=True)


def begin_smoke() -> None:
    """Take the smoke profile from here on, with a store that the next call finds again."""
    os.environ["UDLIB_PROFILE"] = "smoke"
    os.environ.setdefault("UDLIB_SMOKE_STORE", str(data_root() / "gpu-smoke"))


def require_machine(smoke: bool) -> Path:
    """Refuse to begin where something is missing.

    Args:
        smoke: Whether no GPU is needed.

    Returns:
        The folder of the checkout or of the pack.

    Raises:
        RuntimeError: There is no CUDA device, or the ImageNet weights are not installed.
        FileNotFoundError: The tests or the photographs are missing.
    """
    if not smoke and not torch.cuda.is_available():
        raise RuntimeError(
            "there is no CUDA device here: copy the folder that `udlib gpu-pack` writes to a machine that has one; "
            "`udlib gpu --smoke` tries every step on this one, in a few minutes"
        )
    root = checkout()
    if root is None or not (root / "tests" / "benchmarks").is_dir():
        raise FileNotFoundError(
            "the tests are missing: run this in a checkout of the project, installed from there with `pip install -e .`, "
            "or in the folder that `udlib gpu-pack` writes"
        )
    require_photos()
    require_weights(by_seed()[0].values())
    return root


def require_weights(recipes: Sequence[Recipe] | Any) -> None:
    """Refuse to begin without the ImageNet weights of all networks (RuntimeError with the command that installs them)."""
    from udlib.backbones.lite import lite_state

    for name in sorted({recipe.network for recipe in recipes}):
        try:
            lite_state(name)
        except ModuleNotFoundError as error:
            raise RuntimeError(str(error).partition(", or pass")[0]) from error


def run(session: Session) -> None:
    """Do all steps that are not done yet, as far as the time goes.

    Raises:
        RuntimeError, FileNotFoundError: As in `require_machine`.
        KeyboardInterrupt: After Ctrl-C; what was finished stays.
    """
    if session.smoke:
        begin_smoke()
    root = require_machine(session.smoke)
    session.results.mkdir(parents=True, exist_ok=True)
    origin = provenance(session, root)
    gpu_results.write(session.file(gpu_results.MACHINE), origin)
    run_tests(session, root)
    run_throughput(session, root)
    train_photos(session, origin)


def provenance(session: Session, root: Path) -> dict[str, Any]:
    """Return where the results come from: hardware, versions, commit, photographs, time."""
    form, pack = form_of(photo_folder()), root / PACK
    source = json.loads(pack.read_bytes()) if pack.is_file() else {"commit": commit(root)}
    return machine("auto") | {
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "commit": source["commit"],
        "photographs": {"short_side": form.short_side, "format": form.suffix.removeprefix(".")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "smoke": session.smoke,
    }


def commit(root: Path) -> str:
    """Return the commit of a checkout, with "+" behind it where files were changed since; "unknown" without git."""
    try:
        names = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
        head, changes = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for words in names
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "+" * bool(changes)


def run_tests(session: Session, root: Path) -> None:
    """Step 1: the tests that need a GPU."""
    file = session.file(gpu_results.TESTS)
    if (gpu_results.read(file) or {}).get("exit_code") is not None:  # it is None where they were ended
        return
    session.say("step 1 of 3: the tests that need a GPU")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *gpu_tests(root)]
    code, output = call(words, root, session.at_most(TESTS_SECONDS), capture=True)
    print(output, end="", flush=True)
    gpu_results.write(file, {"exit_code": code, "output": output[-20_000:]})


def gpu_tests(root: Path) -> list[str]:
    """Return the files that hold tests which need a GPU, as pytest wants them."""
    files = sorted((root / "tests").glob("test_*.py"))
    return [
        file.relative_to(root).as_posix() for file in files if "pytest.mark.gpu" in file.read_text(encoding="utf-8")
    ]


def run_throughput(session: Session, root: Path) -> None:
    """Step 2: images per second of one training step of UD, beside a plain PyTorch version and the bare networks."""
    file = session.file(gpu_results.THROUGHPUT)
    if gpu_results.is_whole(gpu_results.read(file)):
        return
    session.say("step 2 of 3: a training step of UD compared with a plain PyTorch version and with the bare networks")
    words = ["-m", "tests.benchmarks", "throughput", "--out", str(file.resolve())]
    code, _ = call(words, root, session.at_most(THROUGHPUT_SECONDS))
    if code is None:
        session.say("the benchmark took too long and was stopped; what it had measured is stored")


def call(words: Sequence[str], root: Path, seconds: float, capture: bool = False) -> tuple[int | None, str]:
    """Run Python with these words in a process of its own.

    Returns:
        Its exit code, None where it took longer than `seconds` and was ended; and with `capture` its output.
    """
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if capture else {}
    with subprocess.Popen([sys.executable, *words], cwd=root, env=environment, text=True, **pipes) as process:
        try:
            output, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[0] or ""
        except BaseException:
            process.kill()
            raise
    return process.returncode, output or ""


def train_photos(session: Session, origin: dict[str, Any]) -> None:
    """Step 3: the arms on photographs, all of one seed before the next, as long as there is time for a whole seed."""
    durations: dict[str, float] = {}
    for number, arms in enumerate(by_seed(session.smoke)):
        waiting = {arm: recipe for arm, recipe in arms.items() if not is_stored(arm, recipe)}
        expected = sum(durations.get(arm, max(durations.values(), default=0.0)) for arm in waiting)
        if waiting and expected > session.left:
            session.say(
                f"seed {number} would take {expected:.0f} s, more than is left: run the same command again to train it"
            )
            break
        for place, (arm, recipe) in enumerate(waiting.items(), 1):
            ahead = durations.get(arm, max(durations.values(), default=0.0))
            if ahead > session.left or session.left <= 0:
                session.say(
                    f"there is too little time left for {arm} of seed {number}: run the same command again to train it"
                )
                break
            forecast = f"about {ahead:.0f} s" if ahead else "not timed yet"
            session.say(f"step 3 of 3: seed {number}, {arm} ({place} of {len(waiting)}), {forecast}")
            started = time.monotonic()
            failure = train_arm(arm, recipe)
            durations[arm] = time.monotonic() - started
            write_photos(session, origin, {f"{arm}, seed {number}": failure} if failure else {})
    write_photos(session, origin)


def is_stored(arm: str, recipe: Recipe) -> bool:
    """Return whether a training is done; that of a teacher with its network."""
    return load(recipe, logits=False) is not None and (arm != TEACHER or has_model(recipe))


def train_arm(arm: str, recipe: Recipe) -> str:
    """Train and store a recipe; returns why that failed, or nothing."""
    try:
        train_and_store(recipe, network=arm == TEACHER)
    except (FloatingPointError, torch.OutOfMemoryError) as error:
        print(f"failed: {error}", file=sys.stderr, flush=True)
        return str(error)
    return ""


def stored_runs(smoke: bool) -> Iterator[tuple[str, Run]]:
    """Yield each training that is stored, with the name of its arm."""
    for arms in by_seed(smoke):
        for arm, recipe in arms.items():
            if (trained := load(recipe, logits=False)) is not None:
                yield arm, trained


def write_photos(session: Session, origin: dict[str, Any], failures: dict[str, str] | None = None) -> None:
    """Write the numbers of all trainings so far; what failed earlier in this call stays noted."""
    file = session.file(gpu_results.PHOTOS)
    earlier = (gpu_results.read(file) or {}).get("failed", {})
    runs = [gpu_results.of_run(trained, arm) for arm, trained in stored_runs(session.smoke)]
    done = {f"{run['arm']}, seed {run['seed']}" for run in runs}
    failed = {name: reason for name, reason in (earlier | (failures or {})).items() if name not in done}
    gpu_results.write(file, {"machine": origin, "failed": failed, "runs": runs})
