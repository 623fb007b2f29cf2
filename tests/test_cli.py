"""The command: what it prints, what it trains, what it leaves alone, and its exit codes."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
from torch import nn

import udlib.datasets
from udlib import cli
from udlib.course import doctor, recipes, report
from udlib.course import store as experiments
from udlib.course.recipes import baseline
from udlib.course.store import Run
from udlib.course.verdicts import Claim
from udlib.training import devices

GROUPS = {
    "tricks/cosine decay": [baseline(seed=seed) for seed in range(3)],
    "digits/baseline": [baseline("digits", seed) for seed in range(2)],
}


def fake_run(chosen, score=None):
    """A run as training leaves it, with a mAP of 70 % plus the seed."""
    score = 0.7 + 0.01 * chosen.training.seed if score is None else score
    numbers = {name: score for name in report.COLUMNS}
    made_by = {
        "hardware": "a processor",
        "device": "cpu",
        "threads": 2,
        "precision": "fp32",
        "torch": "2.15.0",
        "python": "3.12.1",
        "seconds": 60.0,
    }
    return Run(
        chosen,
        torch.zeros(4, 3),
        torch.ones(4, 3),
        None,
        None,
        {"val": numbers, "test": numbers},
        [],
        made_by,
        nn.Linear(2, 2),
    )


class Trainer:
    """Stands in for `experiments.train`: notes what it is asked for, and does as it is told about single seeds."""

    def __init__(self):
        self.trained, self.raises, self.score = [], {}, None

    def __call__(self, chosen, checkpoint=None):
        if checkpoint is not None:
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / "state.json").write_text("{}")
        if error := self.raises.get((chosen.data, chosen.training.seed)):
            raise error
        self.trained.append((chosen.data, chosen.training.seed))
        return fake_run(chosen, self.score)


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty checkout in a temporary folder, with five recipes in two groups."""
    monkeypatch.setattr(recipes, "groups", lambda: GROUPS)
    for module in (experiments, udlib.datasets, udlib.datasets.base):
        monkeypatch.setattr(module, "checkout", lambda: tmp_path)
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("UDLIB_PROFILE", raising=False)
    (tmp_path / "data" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trainer(house, monkeypatch):
    found = Trainer()
    monkeypatch.setattr(experiments, "train", found)
    return found


@pytest.fixture
def udlib_command(house):
    """Runs the command in this process: `(exit code, stdout, stderr)`."""
    return commands.udlib_command


def folder_of(house, chosen):
    return house / "data" / "runs" / chosen.key


def damage(house, chosen):
    (path,) = folder_of(house, chosen).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return path


# runs


def test_runs_trains_what_is_missing_counts_and_stores_it_and_then_has_nothing_left(house, trainer, udlib_command):
    code, out, _ = udlib_command("runs")
    assert code == 0 and len(trainer.trained) == 5
    assert "5 to train" in out and all(f"[{k} of 5]" in out for k in range(1, 6))
    assert "all that is left takes about" in out
    assert all(experiments.load(chosen).recipe == chosen for found in GROUPS.values() for chosen in found)
    code, out, _ = udlib_command("runs")
    assert code == 0 and len(trainer.trained) == 5 and "5 stored, 0 damaged, 0 to train" in out


def test_runs_keeps_the_networks_that_ship_and_no_other(house, trainer, udlib_command):
    udlib_command("runs")
    kept = {path.parent.name for path in (house / "data" / "models").glob("*/state.json")}
    assert kept == {baseline().key}


def test_a_stored_result_whose_network_is_missing_is_trained_again(house, trainer, udlib_command):
    experiments.save(fake_run(baseline(seed=0)))
    experiments.save(fake_run(baseline(seed=1)))
    udlib_command("runs", "--only", "tricks*")
    assert trainer.trained == [("scenes", 0), ("scenes", 2)]


def test_plan_says_what_and_how_long_and_trains_nothing(house, trainer, udlib_command):
    code, out, _ = udlib_command("runs", "--plan")
    assert code == 0 and trainer.trained == [] and "5 to train in about" in out
    assert "seed=2" in out and out.count("tricks/cosine decay: ") == 3
    assert list((house / "data" / "results").iterdir()) == []


def test_a_plan_goes_by_what_stored_trainings_took_on_this_processor(house, monkeypatch):
    runs = [fake_run(baseline(seed=seed)) for seed in range(2)]
    forecast = experiments.seconds(baseline())
    assert cli.running.measured_pace(runs) == 1.0
    monkeypatch.setattr(devices, "processor", lambda: "a processor")
    assert cli.running.measured_pace(runs) == pytest.approx(60 / forecast)


def test_only_takes_the_groups_that_match_or_the_recipe_of_a_key(house, trainer, udlib_command):
    udlib_command("runs", "--only", "digits*")
    assert trainer.trained == [("digits", 0), ("digits", 1)]
    udlib_command("runs", "--only", baseline(seed=2).key)
    assert trainer.trained[2:] == [("scenes", 2)]


def test_only_without_a_match_is_one_line_and_exit_code_2(trainer, udlib_command):
    code, out, err = udlib_command("runs", "--only", "nothing")
    assert code == 2 and out == "" and err.startswith("udlib: no recipe matches 'nothing'") and err.count("\n") == 1


def test_control_c_keeps_what_is_done_says_how_to_go_on_and_the_same_command_does(house, trainer, udlib_command):
    trainer.raises = {("scenes", 1): KeyboardInterrupt()}
    code, _, err = udlib_command("runs", "--only", "tricks*")
    assert code == 130 and "1 of 3 are trained" in err and "`udlib runs --only 'tricks*'` goes on" in err
    trainer.raises = {}
    udlib_command("runs", "--only", "tricks*")
    assert trainer.trained == [("scenes", 0), ("scenes", 1), ("scenes", 2)]


def test_a_training_that_fails_is_named_and_the_others_go_on(house, trainer, udlib_command):
    trainer.raises = {("scenes", 1): FloatingPointError("epoch 3, step 2: total nan")}
    code, _, err = udlib_command("runs", "--only", "tricks*")
    assert code == 1 and f"failed: {baseline(seed=1).key}: epoch 3, step 2" in err
    assert trainer.trained == [("scenes", 0), ("scenes", 2)]


def test_a_damaged_result_is_named_and_left_as_it_is(house, trainer, udlib_command):
    udlib_command("runs")
    path = damage(house, baseline(seed=1))
    before = path.read_bytes()
    code, out, err = udlib_command("runs")
    assert code == 1 and len(trainer.trained) == 5 and path.read_bytes() == before
    assert "4 stored, 1 damaged" in out
    assert f"`udlib runs --only {baseline(seed=1).key} --retrain`" in err


def test_retrain_replaces_what_is_stored_and_what_is_damaged(house, trainer, udlib_command):
    udlib_command("runs", "--only", "digits*")
    damage(house, baseline("digits", 1))
    trainer.score = 0.5
    code, _, _ = udlib_command("runs", "--only", "digits*", "--retrain")
    assert code == 0 and len(trainer.trained) == 4
    assert [experiments.load(chosen).metrics["test"]["mAP"] for chosen in GROUPS["digits/baseline"]] == [0.5, 0.5]


def test_a_finished_training_leaves_no_checkpoint_and_an_interrupted_one_does(house, trainer, udlib_command):
    trainer.raises = {("scenes", 2): KeyboardInterrupt()}
    udlib_command("runs", "--only", "tricks*")
    assert [path.name for path in (house / "data" / "checkpoints").iterdir()] == [baseline(seed=2).key]


def test_trainings_side_by_side_are_processes_of_their_own_that_share_the_cores(house, udlib_command, monkeypatch):
    started, at_once = [], []

    class Process:
        returncode = None

        def __init__(self, command, env, stdout):
            started.append((command, env))
            at_once.append(sum(process.returncode is None for process in alive) + 1)
            alive.append(self)

        def poll(self):
            self.returncode = int(baseline(seed=1).key in started[alive.index(self)][0])  # this one fails
            return self.returncode

    alive = []
    monkeypatch.setattr(cli.running.subprocess, "Popen", Process)
    monkeypatch.setattr(cli.running.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(cli.running.os, "cpu_count", lambda: 4)
    code, out, _ = udlib_command("runs", "--jobs", "2")
    assert code == 1 and "[5 of 5]" in out and out.count("FAILED") == 1
    assert [command[-1] for command, _ in started] == [chosen.key for found in GROUPS.values() for chosen in found]
    assert {env["OMP_NUM_THREADS"] for _, env in started} == {"2"} and max(at_once) == 2


def test_a_student_waits_for_a_teacher_that_another_training_makes(house, monkeypatch):
    teachers = [baseline(seed=seed).but(network="small_wide", lam=0.1) for seed in range(2)]
    students = [student for seed in range(2) for terms in ("KD", "UD") for student in [recipes.distilled(terms)[seed]]]
    assert cli.running.next_free([*students, *teachers], []) == teachers[0], "its result is to be trained anyway"
    assert cli.running.next_free([*students, teachers[1]], [teachers[0]]) == teachers[1]
    assert cli.running.next_free(students[2:], [teachers[1]]) is None
    assert cli.running.next_free(students, []) == students[0], "a student trains a teacher that nobody else does"
    assert cli.running.next_free(students[1:], [students[0]]) == students[2], "and the other students wait for it"
    experiments.save_model(fake_run(teachers[0]))
    assert cli.running.next_free(students[1:], [students[0]]) == students[1]
    assert cli.running.next_free([], students) is None


def test_networks_of_teachers_are_kept_and_no_others(house, trainer, udlib_command, monkeypatch):
    teacher, student = baseline(seed=1).but(network="small_wide", lam=0.1), recipes.distilled()[1]
    monkeypatch.setattr(recipes, "groups", lambda: {"both": [teacher, student]})
    assert udlib_command("runs")[0] == 0
    assert [path.name for path in (house / "data" / "models").iterdir()] == [teacher.key]
    assert experiments.has_model(teacher) and not experiments.has_model(student)


def test_only_the_sweeps_runs_keep_the_calibration_branch(house, trainer, udlib_command, monkeypatch):
    branch = torch.ones(4, 3)
    monkeypatch.setattr(
        experiments,
        "train",
        lambda chosen, checkpoint=None: replace(
            fake_run(chosen), val_calibration_logits=branch, test_calibration_logits=branch
        ),
    )
    of_sweep, other = baseline(seed=1).but(lam=0.3), baseline(seed=1).but(lam=0.3, pooling="max")
    monkeypatch.setattr(recipes, "groups", lambda: {"both": [of_sweep, other]})
    assert udlib_command("runs")[0] == 0
    assert torch.equal(experiments.load(other).val_calibration_logits, branch), "what is trained here stays whole"
    assert udlib_command("pack")[0] == 0
    shutil.rmtree(house / "data" / "runs")
    assert torch.equal(experiments.load(of_sweep).test_calibration_logits, branch)
    assert experiments.load(other).test_calibration_logits is None is experiments.load(other).val_calibration_logits


def test_runs_of_which_only_the_metrics_are_read_ship_without_logits(house, trainer, udlib_command, monkeypatch):
    read, other = recipes.distilled()[1], recipes.distilled(network="small_narrow")[1]
    monkeypatch.setattr(
        recipes,
        "groups",
        lambda: {"distilled/small_wide to small, UD": [read], "distilled/small_wide to small_narrow, UD": [other]},
    )
    assert udlib_command("runs")[0] == 0 and udlib_command("pack")[0] == 0
    shutil.rmtree(house / "data" / "runs")
    assert experiments.load(read).test_logits is not None
    assert experiments.load(other).test_logits is None and experiments.load(other).metrics["test"][
        "mAP"
    ] == pytest.approx(0.71)


# results


def test_results_shows_mean_and_standard_deviation_over_the_stored_seeds(house, udlib_command):
    for chosen in [*GROUPS["tricks/cosine decay"], GROUPS["digits/baseline"][0]]:
        experiments.save(fake_run(chosen))
    code, out, _ = udlib_command("results")
    scenes, digits = (re.split(r" {2,}", line) for line in out.splitlines()[1:3])
    std = np.std([70, 71, 72], ddof=1)
    assert code == 0 and scenes.count(f"71.0 ± {std:.1f}") == len(report.COLUMNS)
    assert digits == ["digits/baseline", "1 of 2", *["70.0"] * len(report.COLUMNS)]
    assert "These are 4 trainings. They took 4 minutes in all on a processor (cpu, threads: 2, precision: fp32)" in out


def test_a_metric_that_a_data_set_lacks_is_a_dash(house):
    run = fake_run(baseline())
    del run.metrics["test"]["true_CE_pooled"]
    experiments.save(run)
    assert report.results()[1][-1] == "–"


def test_a_verdict_stands_in_the_table_in_points_or_nats(house):
    two = [baseline(seed=seed) for seed in range(2)]
    for chosen in two:
        run = fake_run(chosen)
        run.metrics["test"]["NLL"] = 0.2 + 0.001 * chosen.training.seed
        experiments.save(run)
    claims = [Claim("a", "b", (metric,), [two[1], two[1]], two, "higher") for metric in ("mAP", "NLL")]
    head, in_points, in_nats = report.verdicts(claims)
    assert in_points == ["a", "b", "scenes", "+0.50 points", "[-5.85, +6.85]", "**not detected**"] and len(head) == 6
    assert in_nats[3:5] == ["+0.0005 nats", "[-0.0059, +0.0069]"]


def test_results_of_an_empty_store_says_how_to_fill_it(house, udlib_command):
    code, out, _ = udlib_command("results")
    assert code == 0 and "`make runs` trains them" in out


# readme

README = """# Title

<!-- generated:lessons -->
old
<!-- /generated -->

text

<!-- generated:verdicts -->
<!-- /generated -->

<!-- generated:results -->
<!-- /generated -->
"""


def write_lesson(folder, name, heading, seconds):
    cells = [
        {"cell_type": "markdown", "source": ["\n", f"# {heading}\n", "text"], "metadata": {}},
        {"cell_type": "code", "source": "", "metadata": {"tags": ["exercise-00.1"]}},
    ]
    (folder / "notebooks").mkdir(exist_ok=True)
    (folder / "notebooks" / name).write_text(json.dumps({"cells": cells, "metadata": {"udlib": {"seconds": seconds}}}))


def test_readme_writes_its_generated_parts_and_nothing_else(house, udlib_command):
    (house / "README.md").write_text(README)
    write_lesson(house, "00_start_here.ipynb", "00 · Start here", 12.4)
    experiments.save(fake_run(baseline()))
    assert udlib_command("readme", "--check")[0] == 1 and (house / "README.md").read_text() == README
    assert udlib_command("readme")[0] == 0
    new = (house / "README.md").read_text()
    assert "| [00 · Start here](notebooks/00_start_here.ipynb) | 1 | 12 s |" in new and "old" not in new
    assert "| tricks/cosine decay | 1 of 3 | 70.0 |" in new
    assert "Not judged yet: no result of supervised(lam=0.03) is stored" in new
    kept = re.compile(r"(<!-- generated:\w+ -->).*?(<!-- /generated -->)", re.S)
    assert kept.sub(r"\1\2", new) == kept.sub(r"\1\2", README)
    assert udlib_command("readme", "--check")[0] == 0


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("<!-- generated:prices -->\n<!-- /generated -->", "no generated part is called 'prices'"),
        ("<!-- generated:lessons -->\ntext", "1 generated parts begin and 0 end"),
        (
            "<!-- generated:lessons -->\n<!-- generated:results -->\n<!-- /generated -->",
            "2 generated parts begin and 1 ",
        ),
    ],
)
def test_a_readme_with_broken_marks_is_refused_and_left_alone(house, udlib_command, text, complaint):
    (house / "README.md").write_text(text)
    (house / "notebooks").mkdir()
    code, _, err = udlib_command("readme")
    assert code == 2 and complaint in err and (house / "README.md").read_text() == text


def test_readme_needs_a_checkout(house, udlib_command):
    code, _, err = udlib_command("readme")
    assert code == 2 and "there is no README.md" in err


# doctor


def test_doctor_reports_the_machine_in_relative_paths_and_is_content(house, udlib_command):
    code, out, err = udlib_command("doctor")
    assert code == 0 and err == ""
    for name in (
        "Python",
        "packages",
        "torch",
        "device",
        "precision",
        "threads",
        "profile",
        "data root",
        "scenes",
        "digits",
        "results",
        "Chromium",
    ):
        assert re.search(rf"^{name} +\S", out, re.M), name
    assert re.search(r"^data root +data, [\d.]+ GB free", out, re.M) and str(house) not in out
    assert "not made yet" in out and "0 of 5 stored" in out and "Ready" in out


def test_doctor_finds_data_sets_results_and_what_is_wrong_with_them(house, udlib_command):
    for name in ("scenes-v1-64", "digits-v1-64"):
        (house / "data" / name).mkdir()
    (house / "data" / "scenes-v1-64" / "VERSION").write_text('{"size": 64, "counts": {"train": 2000, "test": 4000}}')
    (house / "data" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main").mkdir(parents=True)
    experiments.save(fake_run(baseline(seed=1)))
    experiments.save(fake_run(baseline(seed=2)))
    damage(house, baseline(seed=2))
    code, out, _ = udlib_command("doctor")
    assert code == 0, "none of this is essential"
    assert "64 px (6,000 pictures)" in out and "data/digits-v1-64 has no VERSION file: delete that folder" in out
    assert "data/VOCdevkit/VOC2007" in out and "1 of 5 stored" in out
    assert f"damaged: {baseline(seed=2).key}" in out and "Ready, with the notes above" in out


@pytest.mark.parametrize(
    "installed, complaint",
    [
        ("1.0", "torch is 1.0, 2.11 or later is needed"),
        (None, "torch is missing"),
    ],
)
def test_a_missing_or_old_package_is_named_and_is_essential(udlib_command, monkeypatch, installed, complaint):
    present = metadata.version

    def version(name):
        if name != "torch":
            return present(name)
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(doctor.metadata, "version", version)
    code, out, _ = udlib_command("doctor")
    assert code == 1 and f"PROBLEM: {complaint}: `make lab`" in out and "Not ready" in out


def test_what_is_needed_is_what_the_checkout_says_now_and_not_at_its_installation(udlib_command, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["torch>=2.11"])
    _, out, _ = udlib_command("doctor")
    count = len(tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["dependencies"])
    assert f"{count} of {count} present" in out and count > 1


def test_a_data_root_that_cannot_be_written_to_is_essential(house, udlib_command, monkeypatch):
    (house / "file").write_text("")
    monkeypatch.setenv("UDLIB_DATA", str(house / "file"))
    code, out, _ = udlib_command("doctor")
    assert code == 1 and "PROBLEM: it cannot be written to: set UDLIB_DATA" in out


def test_little_room_on_the_disk_is_a_note(house, udlib_command, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 2e8})())
    code, out, _ = udlib_command("doctor")
    assert code == 0 and "0.2 GB free" in out and "note: data sets and training need about 1 GB" in out


def test_an_unknown_profile_is_a_problem(udlib_command, monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "turbo")
    code, out, _ = udlib_command("doctor")
    assert code == 1 and "UDLIB_PROFILE is 'turbo': choose one of smoke, course, full" in out


def test_a_python_that_is_too_old_is_a_problem(udlib_command, monkeypatch):
    monkeypatch.setattr(doctor, "PYTHON", ((3, 98), (3, 99)))
    code, out, _ = udlib_command("doctor")
    assert code == 1 and "Python 3.98 to 3.98 is needed" in out


def test_without_a_chromium_the_browser_test_is_said_to_be_skipped(udlib_command, monkeypatch):
    monkeypatch.setattr(doctor, "CHROMIUM", ("no-such-browser",))
    code, out, _ = udlib_command("doctor")
    assert code == 0 and "none: the browser test is skipped" in out


def test_paths_are_shown_from_here_or_from_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.Path, "home", lambda: tmp_path.parent)
    assert doctor.shown(tmp_path / "data" / "x") == os.path.join("data", "x")
    assert doctor.shown(tmp_path.parent / "other") == "~/other"


# the rest


def test_prepare_makes_every_embedded_data_set_at_the_size_asked_for(house, udlib_command, monkeypatch):
    made = []

    class TwoClasses:
        classes = ("a", "b")

    monkeypatch.setattr(udlib.datasets, "open_dataset", lambda *choice: made.append(choice) or TwoClasses)
    code, out, _ = udlib_command("prepare", "--size", "96")
    assert code == 0 and made == [("scenes", "train", 96), ("digits", "train", 96)]
    assert "scenes: 2 classes" in out and "in data" in out


def test_an_error_of_this_package_is_one_line(house, udlib_command, monkeypatch):
    (house / "data" / "scenes-v1-64").mkdir()
    (house / "data" / "scenes-v1-64" / "stray").write_text("")
    code, _, err = udlib_command("prepare")
    assert code == 2 and err.startswith("udlib: ") and "delete that folder" in err and err.count("\n") == 1


def test_another_librarys_error_keeps_its_traceback(house, monkeypatch):
    monkeypatch.setattr(recipes, "select", lambda only: json.loads("{"))
    monkeypatch.setattr(sys, "argv", ["udlib", "results"])
    with pytest.raises(json.JSONDecodeError):
        cli.main()


def test_help_is_quick_because_it_imports_no_torch():
    code = "import sys, udlib.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_python_m_udlib_is_the_command():
    found = subprocess.run([sys.executable, "-m", "udlib", "--help"], capture_output=True, text=True)
    assert found.returncode == 0 and "Usage: udlib " in found.stdout
    for command in ("doctor", "prepare", "runs", "results", "readme"):
        assert command in found.stdout
