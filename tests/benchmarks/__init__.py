"""Speed: `make bench`, or `python -m tests.benchmarks`, prints one table and fails where a target is missed.

One thread, so that the arithmetic is measured and not how cores share it. Rivals take turns, so that a busy machine
slows all of them alike; each time is a median.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

for _library in ("OMP", "MKL", "OPENBLAS"):  # read once, when NumPy and torch are imported
    os.environ[f"{_library}_NUM_THREADS"] = "1"
os.environ["UDLIB_PROGRESS"] = "0"  # no bars between the lines of the table


class Figure(NamedTuple):
    """One line of the table; `passed` is None for a figure without a target.

    `values` are its numbers, and the conditions they were measured under, for a program to read.
    """

    what: str
    found: str
    target: str = ""
    passed: bool | None = None
    values: Mapping[str, Any] = {}
