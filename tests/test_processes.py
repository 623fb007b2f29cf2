"""Two real processes (gloo, on the CPU) against one: every image once, the same gradient, and no separate worlds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from safetensors.torch import load_file

from udlib.training import evaluate, predict
from udlib.training.devices import WORLDS, require_one_world

SCRIPT = Path(two_processes.__file__)
ALONE = {name: value for name, value in os.environ.items() if name not in WORLDS} | {
    "PYTHONPATH": str(SCRIPT.parents[1]),
    "UDLIB_PROGRESS": "0",
    "OMP_NUM_THREADS": "1",
}
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process and what two of them got, by the names of `two_processes.main`."""
    folder = tmp_path_factory.mktemp("processes")
    for launcher in ([sys.executable], LAUNCH):
        done = subprocess.run(
            [*launcher, str(SCRIPT), str(folder)], env=ALONE, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return {count: load_file(folder / f"found-{count}.safetensors") for count in (1, 2)}


def restored(found, name):
    model = two_processes.networks()[name]
    model.load_state_dict(
        {
            key.removeprefix(f"{name}/weights/"): value
            for key, value in found.items()
            if key.startswith(f"{name}/weights/")
        }
    )
    return model


@pytest.mark.parametrize("name", ["plain", "normalised", "detector"])
def test_two_processes_predict_every_image_once_and_in_order(found, name):
    """The network that two processes trained, asked again by one: the same logits, though 37 is odd."""
    assert found[2]["processes"] == 2 and found[1]["processes"] == 1
    model, data = restored(found[2], name), two_processes.images(37, 3)
    alone = predict(model, data, precision="fp32")
    assert found[2][f"{name}/logits"].shape == (37, two_processes.CLASSES)
    torch.testing.assert_close(found[2][f"{name}/logits"], alone.logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[2][f"{name}/targets"], alone.targets.float())
    assert abs(found[2][f"{name}/mAP"] - evaluate(model, data, precision="fp32")["mAP"]) < 1e-6


@pytest.mark.parametrize("model", ["plain", "detector", "stage 1", "stage 2"])
def test_two_processes_train_as_one_does_at_the_same_global_batch(found, model):
    """Without batch normalisation the gradient of a batch is the mean of its halves': equal but for rounding. So it is where
    images have different numbers of boxes."""
    one, two = found[1], found[2]
    torch.testing.assert_close(two[f"{model}/loss"], one[f"{model}/loss"], atol=1e-5, rtol=1e-5)
    for name in (name for name in one if name.startswith(f"{model}/weights")):
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4)


def test_batch_normalisation_sees_its_share_of_the_batch(found):
    """Statistics of 4 images instead of 8 are another training: close to the other, and not equal to it."""
    one, two = (found[count]["normalised/loss"] for count in (1, 2))
    assert not torch.equal(one, two) and (two - one).abs().max() < 0.25 * one.max()


@pytest.mark.parametrize("name", WORLDS)
def test_a_launch_that_would_become_separate_worlds_is_refused(monkeypatch, name):
    for other in WORLDS:
        monkeypatch.delenv(other, raising=False)
    require_one_world(1)
    monkeypatch.setenv(name, "2")
    require_one_world(2)
    with pytest.raises(RuntimeError, match=f"{name} says that 2 processes were launched.*`torchrun --nproc_per_node 2"):
        require_one_world(1)


def test_a_launcher_that_accelerate_does_not_know_fails_loudly(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env=ALONE | {"SLURM_STEP_NUM_TASKS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0 and "SLURM_STEP_NUM_TASKS says that 2 processes were launched" in done.stderr
    assert not list(tmp_path.iterdir())
