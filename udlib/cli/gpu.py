"""`udlib gpu` and `udlib gpu-pack`: what one GPU can add to the course, in a few minutes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def gpu(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go, a few small files.")] = Path(
        "gpu-results"
    ),
    minutes: Annotated[float, typer.Option(min=0.5, help="How long it may take.")] = 9.0,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Try every step on tiny images, without a GPU; the results prove nothing.")
    ] = False,
    collect: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only copy results from this folder to those that ship.")
    ] = None,
) -> None:
    """Test, measure and train on one GPU in less than ten minutes; after an interruption the same command goes on.

    First the tests that need a GPU, then the speed of a training step of UD, then `photos` at 224 px: hard labels, λ = 1, the
    teacher, KD, UD as printed and UD as released, seed by seed.

    Exit code 1 when a test or a training failed, 130 after Ctrl-C.
    """
    started = time.monotonic()
    from udlib.course import gpu_results, gpu_steps
    from udlib.course.profiles import profile
    from udlib.course.store import results_folder

    if collect is not None:
        for path in gpu_results.collect(collect, results_folder()):
            print(f"wrote '{path}'")
        print("`udlib readme` puts them into the README, and lesson 11 shows them")
        return
    smoke = smoke or profile() == "smoke"
    session = gpu_steps.Session(out.resolve(), 60.0 if smoke else minutes, smoke, started)
    try:
        gpu_steps.run(session)
    except KeyboardInterrupt:
        print(f"\nstopped: what is finished is in '{out}', and the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    raise typer.Exit(_report(out))


def _report(out: Path) -> int:
    """Print what the folder of results holds; returns the exit code."""
    from udlib.course import gpu_results
    from udlib.figures.text import as_text
    from udlib.files import megabytes

    tests, trainings = (gpu_results.read(out / name) or {} for name in (gpu_results.TESTS, gpu_results.PHOTOS))
    for row in gpu_results.speeds(gpu_results.read(out / gpu_results.THROUGHPUT)):
        speeds = ", ".join(f"{rival} {row[rival]:.0f}" for rival in gpu_results.RIVALS)
        print(f"images a second, torch.compile: {row['torch.compile']}: {speeds}")
    if trainings.get("runs"):
        print(as_text(gpu_results.photo_table(trainings)))
        print(gpu_results.NOTE)
        print(gpu_results.counted(trainings["runs"]))
    for name, reason in trainings.get("failed", {}).items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if tests.get("exit_code") != 0:
        print(f"the tests that need a GPU did not pass: see '{out / gpu_results.TESTS}'", file=sys.stderr)
    files = [path for path in out.iterdir() if path.is_file()]
    print(
        f"'{out}' holds {len(files)} files of {megabytes(out):.2f} MB; "
        f"in a checkout, `udlib gpu --collect {out}` adds them to the results that ship"
    )
    return int(tests.get("exit_code") != 0 or bool(trainings.get("failed")))


def gpu_pack(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The new folder; it must not exist yet.")] = Path(
        "gpu-pack"
    ),
) -> None:
    """Write one folder with everything that `udlib gpu` needs; copy it to a machine with a GPU, which needs no network.

    It holds the package, a few tests, the photographs at a short side of 224 px, and ImageNet weights: 60 MB at most. Keep it
    to yourself: the photographs belong to their photographers.
    """
    from udlib.course.gpu_pack import write_pack

    for name, size in write_pack(out).items():
        print(f"{name:<12} {size / 1e6:6.2f} MB")
    print(f"\ncopy '{out}' to a machine with a GPU and PyTorch, and run `python run_gpu.py` there")
