"""`udlib train` and `udlib distill` killed at random moments of their whole lives: `make test-more`.

The disk is slow and the caches are made for any size, so that moments fall into the parsing of labels, the decoding of
images and the writing of files too, and not into the training's steps alone.
"""

import os
import random
import signal
import time
from collections import Counter
from typing import NamedTuple

import pytest
from commands import outcome
from killing import udlib_process
from trees import voc_tree

from udlib import files
from udlib.datasets import pixels, tables, voc

pytestmark = pytest.mark.slow

KILLS = 24  # of each command
QUICK = ("--network", "small_narrow", "--epochs", "3", "--size", "24", "--batch", "20")
OPTIONS = {
    "train": (*QUICK, "--ema", "0.3", "--crop", "--erase", "0.5", "--keep", "best"),
    "distill": (*QUICK, "--alpha", "0.5", "--beta", "0.005"),
}


def slow_disk_and_caches_for_all():
    slow(os, "fsync", 0.05)
    slow(voc, "read_boxes", 0.003)
    slow(pixels, "to_square", 0.01)
    tables.SMALLEST, pixels.IN_MEMORY, pixels.TOGETHER = 0, 0, 8
    files.ABANDONED = 0  # as if an hour had passed since the last kill


def slow(owner, name, seconds):
    usual = getattr(owner, name)
    setattr(owner, name, lambda *arguments: (time.sleep(seconds), usual(*arguments))[1])


class Quiet(NamedTuple):
    """What a command does that nobody disturbs."""

    words: tuple
    seconds: float
    outcome: dict
    cache: list


def life(words, root, kill_after=300.0):
    """One process of the command, with the model and the caches below `root`: its exit code and its seconds."""
    return udlib_process(
        [*words, "--out", root / "model"],
        root / "said",
        slow_disk_and_caches_for_all,
        {"UDLIB_DATA": str(root / "data")},
        kill_after,
    )


def cached(root):
    """All files below the cache but locks, which are empty and stay."""
    found = [path for path in (root / "data").rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(str(path.relative_to(root)) for path in found)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """Both commands undisturbed, by name; the model of the first teaches the second."""
    base = tmp_path_factory.mktemp("quiet")
    photos, found = voc_tree(base / "my_images", 240), {}
    for command, more in {"train": (), "distill": ("--teacher", base / "train" / "model")}.items():
        words, root = (command, photos, *more, *OPTIONS[command]), base / command
        root.mkdir()
        code, seconds = life(words, root)
        assert code == 0, (root / "said").read_text()
        found[command] = Quiet(words, seconds, outcome(root / "model"), cached(root))
        assert len(found[command].cache) == 5, "labels of three splits, pixels of two"
    return found


def stage(root):
    """What a killed process was about, by what it has left."""
    model, ended = root / "model", [path.suffix for path in (root / "data").rglob("*")]
    if ended.count(".uint8") < 2:
        return "decoding" if {".uint8", ".partial"} & {*ended} else "labels"
    if not (model / "checkpoint").exists():
        return "first epoch"
    return "finished model" if list(model.glob("*tensors-*")) else "epochs"


@pytest.mark.parametrize("command, seed", [("train", 0), ("distill", 1)])
def test_kills_at_random_moments_of_a_command_leave_no_trace(command, seed, quiet, tmp_path, capsys):
    """Killed and started again until it ends, over and over: each end has the bits of the quiet run, and no stray file."""
    expected, chance, stages, ends = quiet[command], random.Random(seed), Counter(), 0
    while stages.total() < KILLS:
        root = tmp_path / str(ends)
        root.mkdir()
        while (code := life(expected.words, root, chance.uniform(0, expected.seconds))[0]) == -signal.SIGKILL:
            stages[stage(root)] += 1
        assert code == 0, (root / "said").read_text()
        assert outcome(root / "model") == expected.outcome
        assert cached(root) == expected.cache
        ends += 1
    with capsys.disabled():
        print(
            f"\nudlib {command}, seed {seed}: {stages.total()} kills within {expected.seconds:.1f} s each, {ends} ends; "
            + ", ".join(f"{count} in '{name}'" for name, count in stages.most_common())
        )
