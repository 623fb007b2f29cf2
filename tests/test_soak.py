"""Long kill and fuzz tests, which `make test-more` runs, and lessons elsewhere, which `make soak` runs.

Pytest prints the seed of one that fails.
"""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lessons import build
from striped_images import QUICK, both_branches, net, same_weights, striped_images

from udlib.course import store as experiments
from udlib.datasets.scenes import scenes
from udlib.datasets.voc import VOC
from udlib.training import Saving, fit

EPOCHS = 60
ROOT = Path(__file__).resolve().parent.parent
TRAINER = """
import dataclasses, sys, torch
sys.path.insert(0, sys.argv[1])
import striped_images as here
from udlib.training import Saving, fit
torch.set_num_threads(1)
print("ready", flush=True)
config = dataclasses.replace(here.QUICK, epochs=int(sys.argv[3]))
fit(here.net(), here.striped_images(), here.both_branches, config, saving=Saving(sys.argv[2]))
print("finished", flush=True)
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments_and_the_weights_are_those_of_one_quiet_run(tmp_path):
    command, chance = (
        [sys.executable, "-c", TRAINER, str(Path(__file__).parent), str(tmp_path), str(EPOCHS)],
        random.Random(0),
    )
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.02, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert "finished" in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    torch.set_num_threads(1)
    config = dataclasses.replace(QUICK, epochs=EPOCHS)
    quiet, resumed = net(), net(seed=5)
    fit(quiet, striped_images(), both_branches, config)
    fit(resumed, striped_images(), both_branches, config, saving=Saving(tmp_path))
    assert same_weights(quiet, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_file_of_a_data_set_is_named_or_skipped_never_a_stray_error(tmp_path, seed):
    root = tmp_path / "voc"
    scenes("train", root=root, counts={"train": 6, "val": 2, "test": 2})
    chance = random.Random(seed)
    victim = chance.choice(sorted([*root.glob("Annotations/train*"), *root.glob("JPEGImages/train*")]))
    content = bytearray(victim.read_bytes())
    if chance.random() < 0.4:
        content = content[: chance.randrange(len(content))]
    else:
        for _ in range(chance.randrange(1, 20)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    victim.write_bytes(content)
    try:
        found = VOC(root, "train")
        for i in range(len(found)):
            found.image(i)
    except (ValueError, FileNotFoundError) as error:
        assert victim.stem in str(error)
    kept = VOC(root, "train", classes=found_classes(root), on_error="skip") if not names_changed(root) else None
    assert kept is None or len(kept) + len(kept.skipped) == 6


def found_classes(root):
    return (root / "classes.txt").read_text().split()


def names_changed(root):
    """Whether the damage made up a class name, which is an error whatever `on_error` says."""
    try:
        VOC(root, "train", on_error="skip")
    except ValueError as error:
        return "unknown" in str(error) or "class" in str(error)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_result_with_any_byte_changed_is_refused_or_reads_the_same(tmp_path, monkeypatch, seed):
    from test_experiments import fake_run

    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    run = fake_run()
    folder = experiments.save(run)
    chance = random.Random(seed)
    victim = chance.choice(sorted(folder.iterdir()))
    content = bytearray(victim.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    victim.write_bytes(content)
    try:
        found = experiments.load(run.recipe)
    except (ValueError, KeyError):
        return
    assert (found.test_logits == run.test_logits).all() and (found.val_logits == run.val_logits).all()
    shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.parametrize("lesson", ["01", "02"])
@pytest.mark.parametrize("data", ["digits", "a folder"])
def test_a_lesson_runs_on_other_data_with_one_changed_line(tmp_path, monkeypatch, lesson, data):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setenv("UDLIB_SMOKE_STORE", str(tmp_path / "results"))
    if data == "a folder":
        root = tmp_path / "VOCdevkit" / "VOC2007"
        scenes("train", root=root, counts={"train": 120, "val": 60, "test": 120})
        for ours in ("truth.npz", "classes.txt", "VERSION"):  # what VOC does not have
            (root / ours).unlink()
        data = str(tmp_path / "VOCdevkit")
    notebook = build.build(build.sources(lesson)[0], solved=False)
    cell = next(cell for cell in notebook.cells if cell.source.startswith('DATA = "scenes"'))
    cell.source = cell.source.replace('"scenes"', repr(data), 1)
    build.execute(notebook, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(
    "lesson", sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_lesson_runs_where_there_is_a_gpu(lesson, tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "lesson_on_gpu.py"), str(lesson)]
    settings = {
        "UDLIB_PROFILE": "smoke",
        "UDLIB_SMOKE_STORE": str(tmp_path),
        "UDLIB_PROGRESS": "0",
        "MPLBACKEND": "agg",
    }
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
