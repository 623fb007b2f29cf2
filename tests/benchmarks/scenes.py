"""How fast `scenes` is drawn, and drawn and written to disk. Run with `python -m tests.benchmarks scenes`."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import Figure
from udlib.datasets.drawing import CLASSES
from udlib.datasets.scenes import record
from udlib.datasets.voc_writer import write_voc

WANTED, ROUNDS = 400.0, 5  # images per second at 64 px on one core
COUNT = {64: 200, 448: 20}


def per_second(job, count: int) -> float:
    """Images per second of one core (its own time, whatever else the machine does): a median, after a warm-up."""
    job()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        job()
        times.append(time.process_time() - start)
    return count / statistics.median(times)


def measure() -> Iterator[Figure]:
    for size, count in COUNT.items():

        def draw(size=size, count=count):
            return (record(k, "train", size) for k in range(count))

        def write(draw=draw):
            with tempfile.TemporaryDirectory() as folder:
                write_voc(Path(folder) / "scenes", {"train": draw()}, CLASSES, {"version": 0})

        drawn, written = per_second(lambda draw=draw: list(draw()), count), per_second(write, count)
        target = (f"≥ {WANTED:.0f} img/s", written >= WANTED) if size == 64 else ()
        yield Figure(f"scenes at {size} px, drawn", f"{drawn:.0f} img/s")
        yield Figure(f"scenes at {size} px, drawn and written in VOC layout", f"{written:.0f} img/s", *target)
