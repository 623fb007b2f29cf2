"""The benchmarks' command, and the one of them that is meant for a GPU, run for a moment at the size of a stamp."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAMP = """
import sys
from tests.benchmarks import __main__, throughput

if __name__ == "__main__":
    stamp = throughput.Plan("small_narrow", "small_narrow", stored=18, side=16, batch=4, peer_fallback=2, steps=2, turns=1,
                            workers=1)
    throughput.PLANS = dict.fromkeys(throughput.PLANS, stamp)
    raise SystemExit(__main__.main(sys.argv[1:]))
"""


def benchmarks(*words):
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)


def agreeing(kept):
    """The values, the figure against the peer and the memory of a file of throughput, whose numbers must agree."""
    assert {"hardware", "torch", "precision", "device", "threads"} <= kept["provenance"].keys()
    speed, times, share, memory, *_ = kept["figures"]["throughput"]
    numbers = speed["values"]
    found = {name: numbers[f"{name}_images_per_second"] for name in ("ours", "peer", "bare")}
    assert min(found.values()) > 0 and min(memory["values"].values()) >= 0
    assert (
        times["values"]["times"] == found["ours"] / found["peer"]
        and times["found"] == f"{times['values']['times']:.1f}×"
    )
    assert (
        share["values"]["share"] == found["ours"] / found["bare"]
        and share["found"] == f"{share['values']['share']:.2f}"
    )
    assert all(f" {found[name]:.0f}" in f" {speed['found']}" for name in found)
    return numbers, times, memory


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data" / "results").glob("throughput-*.json")), ids=lambda path: path.stem
)
def test_shipped_throughput_agrees_with_itself_and_says_where_it_was_measured(path):
    agreeing(json.loads(path.read_text()))


def test_throughput_measures_all_rivals_and_its_figures_can_be_kept(tmp_path):
    done = benchmarks("-c", STAMP, "throughput", "--out", tmp_path / "figures.json")
    assert done.returncode in (0, 1), done.stderr  # on a GPU, so small a problem may well miss the targets
    kept = json.loads((tmp_path / "figures.json").read_text())
    numbers, times, memory = agreeing(kept)
    assert (numbers["batch"], numbers["student"], numbers["peer_precision"]) == (4, "small_narrow", "fp32")
    assert memory["values"].keys() >= {"ours", "peer", "bare"}
    if kept["provenance"]["device"] == "cpu":
        assert done.returncode == 0 and "a CPU's, not the GPU's figure" in done.stdout and times["passed"] is None


def test_an_unknown_benchmark_is_refused_by_name():
    done = benchmarks("-m", "tests.benchmarks", "thruput")
    assert done.returncode == 2 and "no benchmark is called 'thruput': choose among losses," in done.stderr
