"""`udlib reproduce`: what it prints and trains, its files, its errors and exit codes; and once from nothing to the table."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import udlib_command
from torch import nn

import udlib.datasets
from udlib import cli
from udlib.course import store as experiments
from udlib.course.paper_recipes import row_recipe
from udlib.course.paper_tables import TABLES, table
from udlib.course.store import Run
from udlib.datasets.scenes import scenes

BASE, UD = "ResNet-18, baseline", "ResNet-18, UD from ResNet-101"
TWO = ("table3a", "--data", "scenes", "--rows", "ResNet-18, [bU]*101", "--seeds", "2")


class Trainer:
    """Stands in for `experiments.train`: notes what it is asked for; mAP is 70 % plus the seed, a student's 3 % more."""

    def __init__(self):
        self.trained, self.raises = [], {}

    def __call__(self, chosen, checkpoint=None):
        name = (chosen.method, chosen.network, chosen.training.seed)
        if error := self.raises.get(name):
            raise error
        self.trained.append(name)
        score = 0.7 + 0.01 * chosen.training.seed + 0.03 * (chosen.method == "distillation")
        made = {"hardware": "a processor", "seconds": 60.0, "data": "aaa"}
        return Run(
            chosen,
            torch.zeros(4, 3),
            torch.ones(4, 3),
            None,
            None,
            {"val": {"mAP": score}, "test": {"mAP": score}},
            [],
            made,
            nn.Linear(2, 2),
        )


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An empty checkout in a temporary folder."""
    for module in (experiments, udlib.datasets):
        monkeypatch.setattr(module, "checkout", lambda: tmp_path)
    monkeypatch.setattr("udlib.course.reproduction.fingerprint", lambda chosen: "aaa")
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("UDLIB_ROOTS", "")
    monkeypatch.delenv("UDLIB_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trainer(house, monkeypatch):
    found = Trainer()
    monkeypatch.setattr(experiments, "train", found)
    return found


@pytest.fixture
def reproduce(house):
    """Runs `udlib reproduce` in this process: `(exit code, stdout, stderr)`."""
    return partial(udlib_command, "reproduce")


def test_the_list_names_every_table_its_data_and_its_doubts(reproduce):
    code, out, _ = reproduce("--list")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(TABLES)
    assert (
        "table3b  students of other networks: hard labels, KD, UD; coco2014; 10 rows of the paper's own, 2 cited; "
        in out
    )
    assert "50 of 156 cells doubtful" in out


def test_it_trains_teachers_first_stores_all_and_prints_the_papers_numbers_beside_ours(house, trainer, reproduce):
    code, out, _ = reproduce(*TWO)
    assert code == 0 and trainer.trained == [
        ("supervised", "small_wide", 0),
        ("supervised", "small_wide", 1),
        ("distillation", "small", 0),
        ("distillation", "small", 1),
    ]
    assert "4 trainings: 0 stored, 0 half done, 4 missing, 0 damaged" in out
    assert "[1 of 4] teacher of ResNet-18, UD from ResNet-101: supervised(lam=0.1, network=small_wide); " in out
    assert "73.50 ± 0.71" in out and "91.67" in out and "small networks at 64 px stand in" in out
    teachers = [
        row_recipe(table("table2a"), table("table2a").row("ResNet-101, with branch"), "scenes", "course", seed)
        for seed in (0, 1)
    ]
    assert all(experiments.has_model(teacher) for teacher in teachers)
    code, out, _ = reproduce("table3a", "--data", "scenes", "--rows", BASE, "--seeds", "2")
    code, out, _ = reproduce(*TWO)
    assert code == 0 and len(trainer.trained) == 6 and "2 trainings: 2 stored, 0 half done, 0 missing" in out
    assert "+3.00 [+3.00, +3.00]" in out


def test_the_plan_trains_nothing_and_says_states_cost_settings_and_departures(house, trainer, reproduce):
    chosen = row_recipe(table("table3a"), table("table3a").row(BASE))
    folder = house / "data" / "checkpoints" / chosen.key
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"rows": [{}] * 15}))
    code, out, _ = reproduce("table3a", "--rows", "ResNet-18, *", "--seeds", "1", "--plan")
    assert code == 0 and trainer.trained == [] and not (house / "data" / "results").exists()
    assert "on voc2007, full size" in out and "7 trainings: 0 stored, 1 half done, 6 missing, 0 damaged" in out
    assert "ResNet-18, baseline, seed 0: 15 of 20 epochs done, about 2 min in all" in out
    assert "teacher of ResNet-18, KD from VGG-19-BN, seed 0: missing" in out
    assert "GPU-hours (assumed, not measured: one GPU that sustains 40 TFLOP/s" in out
    assert "checkpoint of one training 510.0 MB" in out and "memory: 7.8 GB for the decoded images" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert {"lr 0.001 released code: not stated in the paper", "bias False released code: not stated in the paper"} <= {
        *lines
    }
    assert any(line.startswith("crop 448 paper: section 5.1; ") for line in lines)
    assert any(line.startswith("batch_size 16 ours: ") for line in lines)
    assert "step decay: Table 1 without cosine decay: the paper gives no schedule" in out


def test_the_plan_at_the_courses_size_says_what_stands_in(trainer, reproduce):
    code, out, _ = reproduce(*TWO, "--plan")
    assert code == 0 and trainer.trained == []
    assert "hours of computing (two laptop-class cores" in out and "stand-ins: small_wide for ResNet-101" in out


def test_a_forecast_goes_by_trainings_of_this_very_machine_and_says_so(trainer, reproduce, monkeypatch):
    reproduce(*TWO)
    more = (*TWO[:-1], "3", "--plan")
    assert "two laptop-class cores" in reproduce(*more)[1], "the stored ones were trained elsewhere"
    monkeypatch.setattr("udlib.training.devices.hardware", lambda: "a processor")
    assert "measured: this table's stored trainings on this machine took 0.75 times the forecast" in reproduce(*more)[1]


def test_show_prints_what_is_stored_and_trains_nothing(trainer, reproduce):
    code, out, _ = reproduce(*TWO, "--show")
    assert code == 0 and trainer.trained == [] and "not trained" in out


def test_the_table_is_written_as_csv_and_as_a_figure(house, trainer, reproduce):
    code, out, _ = reproduce(*TWO, "--csv", "table.csv", "--figure", "table.png")
    assert code == 0 and "written: table.csv" in out and "written: table.png" in out
    assert (house / "table.csv").read_text().splitlines()[1].startswith("table3a,scenes,course,")
    assert (house / "table.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("option", ["--csv", "--figure"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_trained(trainer, reproduce, option):
    code, _, err = reproduce(*TWO, option, "gone/table")
    assert code == 2 and trainer.trained == [] and "there is no folder 'gone'" in err and err.count("\n") == 1


def test_control_c_stops_says_how_to_go_on_and_the_same_command_does(trainer, reproduce):
    trainer.raises = {("distillation", "small", 0): KeyboardInterrupt()}
    code, _, err = reproduce(*TWO)
    assert code == 130 and "2 of 4 are trained and stored" in err
    assert "`udlib reproduce table3a --data scenes --rows 'ResNet-18, [bU]*101' --seeds 2` goes on from here" in err
    trainer.raises = {}
    assert reproduce(*TWO)[0] == 0 and len(trainer.trained) == 4


def test_a_training_that_fails_is_named_the_others_go_on_and_the_table_is_printed(trainer, reproduce):
    trainer.raises = {
        ("distillation", "small", 1): FloatingPointError("total nan"),
        ("supervised", "small_wide", 1): torch.OutOfMemoryError("CUDA out of memory"),
    }
    code, out, err = reproduce(*TWO)
    assert code == 1 and "total nan" in err and "batches of 50 do not fit into the GPU's free memory" in err
    assert "1 of 2" in out and "73.00" in out


def test_a_damaged_result_is_named_and_left_as_it_is(house, trainer, reproduce):
    reproduce(*TWO)
    chosen = row_recipe(table("table3a"), table("table3a").row(UD), "scenes", "course")
    path = experiments.result_folder(chosen) / "state.json"
    path.write_text("{")
    code, out, err = reproduce(*TWO)
    assert code == 1 and path.read_text() == "{" and len(trainer.trained) == 4
    assert (
        "1 stored, 0 half done, 0 missing, 1 damaged" in out
        and f"damaged, and left as it is: {UD}, {chosen.key}" in err
    )


def test_one_seed_has_no_interval_and_the_command_says_so(trainer, reproduce):
    code, out, _ = reproduce("table3a", "--data", "scenes", "--rows", "ResNet-18, baseline", "--seeds", "1")
    assert code == 0 and "One seed has no spread and no interval" in out


def test_side_by_side_the_children_train_one_key_each_and_inherit_the_roots(house, trainer, reproduce, monkeypatch):
    started = []

    class Process:
        returncode = 0

        def __init__(self, command, env, stdout):
            started.append((command[command.index("reproduce") :], env["UDLIB_ROOTS"]))

        def poll(self):
            return 0

    monkeypatch.setattr(cli.running.subprocess, "Popen", Process)
    monkeypatch.setattr(cli.running.time, "sleep", lambda seconds: None)
    monkeypatch.setattr("udlib.course.reproduction.images_of", lambda chosen: (40, 20, 20, 16))
    (house / "tree").mkdir()
    code, out, _ = reproduce("table3a", "--data", "tree", "--rows", BASE, "--seeds", "2", "--jobs", "2")
    keys = [row_recipe(table("table3a"), table("table3a").row(BASE), "tree", "course", seed).key for seed in (0, 1)]
    words = ["reproduce", "table3a", "--data", "tree", "--size", "course", "--seeds", "2", "--rows", BASE, "--only"]
    assert code == 0 and started == [([*words, key], f"tree={house / 'tree'}") for key in keys]
    code, out, _ = reproduce(*words[1:], keys[1])
    assert code == 0 and trainer.trained == [("supervised", "small", 1)] and "mAP" not in out


@pytest.mark.parametrize(
    "words, says",
    [
        ((), "which table? `udlib reproduce --list` names them"),
        (("table9",), "unknown table 'table9': choose one of table1"),
        (("table4", "--rows", "LSTM"), "no row of table4 matches 'LSTM'"),
        (("table4", "--size", "tiny"), "size is 'tiny': choose one of course, full"),
        (("table4", "--data", "nothing"), "unknown data set 'nothing': choose one of scenes, digits, photos, voc2007"),
        (("table4", "--data", "scenes", "--root", "."), "'scenes' is made by udlib and has no root"),
        (("table4", "--root", "gone"), "of data set 'voc2007' is not a folder"),
        (("table4", "--data", "voc2007", "--seeds", "0"), "equal to 1"),
    ],
)
def test_a_wrong_command_is_exit_code_2_and_says_what_to_do(house, trainer, reproduce, words, says):
    code, _, err = reproduce(*words, *(["--plan"] if words else []))
    assert code == 2 and says in " ".join(err.replace("│", " ").split()) and trainer.trained == []


def test_a_folder_with_the_name_of_a_known_data_set_is_ambiguous(house, trainer, reproduce):
    (house / "other" / "scenes").mkdir(parents=True)
    code, _, err = reproduce("table4", "--data", "other/scenes", "--plan")
    assert code == 2 and "say which data it holds, with --data NAME --root FOLDER" in err


def test_results_of_a_folder_lie_under_its_name_and_never_hold_its_path(house, trainer, reproduce, monkeypatch):
    monkeypatch.setattr("udlib.course.reproduction.images_of", lambda chosen: (40, 20, 20, 16))
    (house / "secret" / "tree").mkdir(parents=True)
    assert reproduce("table3a", "--data", house / "secret" / "tree", "--rows", BASE, "--seeds", "1")[0] == 0
    assert (
        reproduce("table3a", "--data", "again", "--root", house / "secret" / "tree", "--rows", BASE, "--seeds", "1")[0]
        == 0
    )
    states = sorted((house / "data" / "runs").glob("*/state.json"))
    assert [path.parent.name.split("-")[0] for path in states] == ["again", "tree"]
    assert not any("secret" in path.read_text() for path in states) and not (house / "data" / "results").exists()


def test_from_nothing_to_the_table_in_the_smoke_profile(tmp_path, monkeypatch):
    """Baseline, teacher and student really train, on a tree in VOC layout, each for two steps."""
    tree = tmp_path / "tiny-tree"
    scenes("train", root=tree, counts={"train": 40, "val": 20, "test": 20})
    (tree / "truth.npz").unlink()
    for name, value in {
        "PROFILE": "smoke",
        "SMOKE_STORE": tmp_path / "store",
        "ROOTS": "",
        "PROGRESS": "0",
        "DATA": tmp_path / "data",
    }.items():
        monkeypatch.setenv(f"UDLIB_{name}", str(value))
    words = ["reproduce", "table3a", "--data", tree, "--seeds", "1", "--rows"]
    for rows, count in (("MobileNet-v2, baseline", 1), ("MobileNet-v2, KD from VGG-19-BN", 2)):
        code, out, _ = udlib_command(*words, rows)
        assert code == 0 and f"{count} trainings: 0 stored, 0 half done, {count} missing" in out
    assert "on tiny-tree (the paper: voc2007), course size" in out
    assert "MobileNet-v2, KD from VGG-19-BN" in out and "[one seed]" in out and "not trained" not in out
    states = list((tmp_path / "store").rglob("state.json"))
    assert len(states) == 3 + 1, "three results and the teacher's network"
    assert not any(str(tmp_path) in path.read_text() for path in states)
    assert (
        len({json.loads(path.read_text())["provenance"]["data"] for path in states if "provenance" in path.read_text()})
        == 1
    )
    assert Path(tmp_path / "data").exists() is False
