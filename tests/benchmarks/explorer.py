"""How long the λ explorer takes from a move of its sliders to the new picture and readings, in the kernel.

Run with `python -m tests.benchmarks explorer`. Every trained λ and seed is visited in a random order.
"""

import random
import statistics
import time
from collections.abc import Iterator

from tests.benchmarks import Figure
from udlib.course.explorers import LambdaExplorer
from udlib.course.recipes import sweep
from udlib.course.store import load

WANTED = 50.0  # milliseconds
ROUNDS = 10


def measure() -> Iterator[Figure]:
    runs = {lam: [load(chosen) for chosen in recipes] for lam, recipes in sweep().items()}
    start = time.perf_counter()
    explorer = LambdaExplorer(runs)
    prepared = time.perf_counter() - start
    settings = [(lam, seed) for lam in explorer.sliders["λ"].options for seed in explorer.sliders["seed"].options]
    order, times = random.Random(0), []
    for _ in range(ROUNDS):
        for lam, seed in order.sample(settings, len(settings)):
            before = explorer.value
            start = time.perf_counter()
            explorer.move(λ=lam, seed=seed)
            if explorer.value != before:
                times.append(1e3 * (time.perf_counter() - start))
            assert f"λ = {lam:g}, seed {seed}:" in explorer.picture.value
    slowest = max(times)
    yield Figure(
        "λ explorer, from slider to picture",
        f"{statistics.median(times):.2f} ms, slowest {slowest:.2f} ms",
        f"≤ {WANTED:.0f} ms",
        slowest <= WANTED,
    )
    yield Figure(f"drawing its {len(settings)} pictures beforehand", f"{prepared:.1f} s")
