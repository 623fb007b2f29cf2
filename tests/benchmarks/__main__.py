"""`python -m tests.benchmarks [SUBJECT …] [--out FILE]`: one table, exit code 1 where a target is missed.

FILE gets the figures as JSON, with what they were measured on.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from tests.benchmarks import Figure
from udlib.files import atomic_write
from udlib.training.devices import machine

SUBJECTS = ("losses", "metrics", "depthwise", "scenes", "pixels", "explorer", "distillation", "throughput")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"{', '.join(SUBJECTS)}; default: all of them")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there as JSON, too")
    chosen = parser.parse_args(words)
    if unknown := set(chosen.subjects) - set(SUBJECTS):
        print(f"no benchmark is called {min(unknown)!r}: choose among {', '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    found = {}
    for name in chosen.subjects or SUBJECTS:
        found[name] = []
        for figure in import_module(f"tests.benchmarks.{name}").measure():
            verdict = {True: "PASS", False: "FAIL", None: "    "}[figure.passed]
            print(f"{verdict}  {figure.what:<50} {figure.found:<42} {figure.target}".rstrip(), flush=True)
            found[name].append(figure)
        if chosen.out is not None:
            write(chosen.out, found)
    return int(any(figure.passed is False for figures in found.values() for figure in figures))


def write(path: Path, found: dict[str, list[Figure]]) -> None:
    """Write the figures of some subjects as JSON, with the hardware, versions, threads and precision behind them."""
    figures = {name: [figure._asdict() for figure in some] for name, some in found.items()}
    atomic_write(path, json.dumps({"provenance": machine("auto"), "figures": figures}, indent=1).encode())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
