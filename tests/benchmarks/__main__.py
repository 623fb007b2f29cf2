"""`python -m tests.benchmarks [losses|metrics|scenes|pixels|explorer|distillation …]`: one table, exit code 1 where a target is missed."""

import sys
from importlib import import_module

import torch

SUBJECTS = ("losses", "metrics", "scenes", "pixels", "explorer", "distillation")


def main(names: list[str]) -> int:
    if unknown := set(names) - set(SUBJECTS):
        print(f"no benchmark is called {min(unknown)!r}: choose among {', '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    missed = 0
    for name in names or SUBJECTS:
        for figure in import_module(f"tests.benchmarks.{name}").measure():
            verdict = {True: "PASS", False: "FAIL", None: "    "}[figure.passed]
            print(f"{verdict}  {figure.what:<50} {figure.found:<42} {figure.target}".rstrip(), flush=True)
            missed += figure.passed is False
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
