"""A training by the command, killed by the system where it has most to lose: the same command ends as if never killed."""

import io
import json
import os
import signal
from functools import partial

import pytest
from commands import outcome, udlib_command
from killing import udlib_process
from torch.optim.optimizer import register_optimizer_step_post_hook

from udlib import files
from udlib.training import checkpoints, prediction

# All that a checkpoint must carry: a running average, the draws of crops and erasing, the weights of the best epoch.
EVERYTHING = (
    "--network",
    "small_narrow",
    "--epochs",
    "3",
    "--size",
    "24",
    "--batch",
    "16",
    "--ema",
    "0.2",
    "--crop",
    "--erase",
    "0.5",
    "--keep",
    "best",
)


def level(evaluate):
    """`evaluate` to which every epoch is as good: the first stays the best, and its weights survive in checkpoints alone."""
    return lambda *arguments, **options: evaluate(*arguments, **options) | {"mAP": 0.5}


@pytest.fixture(scope="module", autouse=True)
def validation_is_level():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UDLIB_PROGRESS", "0")
        patch.setattr(prediction, "evaluate", level(prediction.evaluate))
        yield


@pytest.fixture(scope="module")
def undisturbed(tree, tmp_path_factory):
    """What the training leaves that nobody kills."""
    folder = tmp_path_factory.mktemp("models") / "model"
    assert udlib_command("train", tree, "--out", folder, *EVERYTHING)[0] == 0
    return outcome(folder)


def dying(moment):
    """What makes a process die at this moment of its second epoch, of three steps."""
    prediction.evaluate = level(prediction.evaluate)
    moment()


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def second(matches):
    """Whether a path is the second whose name matches: it belongs to the second epoch's checkpoint."""
    found = []
    return lambda path: matches(path.name) and (found.append(path) or len(found) == 2)


def in_the_middle_of_an_epoch():
    steps = []
    register_optimizer_step_post_hook(lambda *_: steps.append(1) or len(steps) == 5 and die())


def half_way_through_the_tensors():
    last = second(lambda name: name.startswith(".tensors-"))
    files.open = lambda path, mode: (HalfWritten if last(path) else open)(path, mode)


class HalfWritten(io.FileIO):
    """A file whose writer does not live to write more than half."""

    def write(self, content):
        super().write(content[: len(content) // 2])
        die()


def between_tensors_and_state():
    last, write = second(lambda name: name == "state.json"), checkpoints.atomic_write
    checkpoints.atomic_write = lambda path, content: (die if last(path) else write)(path, content)


@pytest.mark.parametrize(
    "moment, left",
    [
        (in_the_middle_of_an_epoch, [".json", ".safetensors"]),
        (half_way_through_the_tensors, [".json", ".safetensors", ".tmp"]),
        (between_tensors_and_state, [".json", ".safetensors", ".safetensors"]),
    ],
)
def test_after_a_kill_the_same_command_ends_with_the_bits_of_an_undisturbed_run(
    tree, undisturbed, tmp_path, moment, left
):
    words, log = ["train", tree, "--out", tmp_path / "model", *EVERYTHING], tmp_path / "said"
    assert udlib_process(words, log, partial(dying, moment), {})[0] == -signal.SIGKILL, log.read_text()
    checkpoint = tmp_path / "model" / "checkpoint"
    state = json.loads((checkpoint / "state.json").read_bytes())
    assert [row["epoch"] for row in state["rows"]] == [1]
    assert sorted(path.suffix for path in checkpoint.iterdir()) == left
    for half in checkpoint.glob("*.tmp"):
        assert half.stat().st_size == (checkpoint / state["tensors"]).stat().st_size // 2
    assert udlib_command(*words)[0] == 0
    assert outcome(tmp_path / "model") == undisturbed
