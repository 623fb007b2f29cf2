"""`udlib parallel` and `udlib detection` end to end on a tiny folder: what they leave, how they go on, what they refuse."""

import json
import re
import signal
import sys

import pytest
import torch
from commands import udlib_command
from tiny_voc import CLASSES

import udlib
from udlib.datasets.voc import VOC
from udlib.methods.parallel import partitions
from udlib.training import loop as training
from udlib.training.checkpoints import load_checkpoint

pytestmark = pytest.mark.usefixtures("terminal")

QUICK = ("--network", "small_narrow", "--epochs", "2", "--size", "24", "--batch", "16", "--k", "2")


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "student"
    code, out, err = udlib_command("parallel", tree, "--out", folder, *QUICK)
    assert code == 0 and err == ""
    return folder, out


@pytest.fixture
def epochs(monkeypatch):
    """The epochs that are trained from here on, by teachers and student."""
    found, usual = [], training._Training._steps
    monkeypatch.setattr(training._Training, "_steps", lambda *given: found.append(1) or usual(*given))
    return found


def test_parallel_leaves_a_model_with_its_partitions(tree, trained):
    folder, out = trained
    kept = {path.name for path in folder.iterdir() if not path.name.startswith("tensors-")}
    assert kept == {"state.json", "log.csv", "partitions"}
    model, train = udlib.load(folder), VOC(tree, "train")
    parts = partitions(train.targets, 2)
    assert {name: [list(part) for part in model.training[name]] for name in ("co", "dis")} == parts
    assert json.loads((folder / "partitions" / "CGP.json").read_bytes())["parts"] == parts["co"]
    assert model.classes == CLASSES and model.training["method"] == "parallel" and model.calibrator is not None
    assert (model.training["ema"], model.training["warm_up"]) == (0.065, 0.1)
    for group, found in parts.items():
        for number, part in enumerate(found, 1):
            assert f"teacher {group} {number}: {', '.join(CLASSES[k] for k in part)}\n" in out
    assert (folder / "log.csv").read_text().splitlines()[0].startswith("epoch,") and out.count("\nteacher ") == 4
    assert len((folder / "log.csv").read_text().splitlines()) == 3, "the student's epochs alone"


def test_the_same_command_again_trains_nothing_and_another_strategy_is_refused(tree, trained, epochs):
    before = {path: path.read_bytes() for path in trained[0].rglob("*") if path.is_file()}
    assert udlib_command("parallel", tree, "--out", trained[0], *QUICK)[0] == 0 and epochs == []
    code, _, err = udlib_command("parallel", tree, "--out", trained[0], *QUICK, "--strategy", "DGP")
    assert code == 2 and "co: saved" in err and "another folder" in err and err.count("\n") == 1
    code, _, err = udlib_command("train", tree, "--out", trained[0], *QUICK[:-2])
    assert code == 2 and "method: saved 'parallel', now 'supervised'" in err
    assert {path: path.read_bytes() for path in trained[0].rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("at", [2, 5, 10])  # of 4 teachers and a student with 2 epochs each
def test_control_c_anywhere_is_resumed_bit_for_bit(tree, trained, tmp_path, monkeypatch, at):
    found, usual = [], training._Training._steps

    def train_epoch(*given):
        found.append(1)
        if len(found) == at:
            signal.raise_signal(signal.SIGINT)
        return usual(*given)

    monkeypatch.setattr(training._Training, "_steps", train_epoch)
    out = tmp_path / "student"
    code, _, err = udlib_command("parallel", tree, "--out", out, *QUICK)
    assert code == 130 and "the same command goes on from there" in err
    assert udlib_command("parallel", tree, "--out", out, *QUICK)[0] == 0
    assert len(found) == 11, "only the epoch under way was trained twice"
    (one, _), (other, _) = load_checkpoint(out), load_checkpoint(trained[0])
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert not (out / "checkpoint").exists()


@pytest.mark.parametrize(
    "strategy, teachers", [("CGP", ["co 1", "co 2"]), ("random", ["co 1", "co 2", "dis 1", "dis 2"])]
)
def test_controls_have_their_teachers(tree, tmp_path, strategy, teachers):
    code, out, err = udlib_command(
        "parallel", tree, "--out", tmp_path / "m", *QUICK, "--epochs", "1", "--strategy", strategy
    )
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("teacher ")] == [
        f"teacher {t}" for t in teachers
    ]


def test_teachers_side_by_side_are_those_of_one_process(tree, tmp_path, epochs):
    command = ("parallel", tree, *QUICK, "--strategy", "CGP", "--out")
    assert udlib_command(*command, tmp_path / "one")[0] == 0 and len(epochs) == 6
    code, out, err = udlib_command(*command, tmp_path / "two", "--jobs", "2")
    assert (code, err) == (0, "") and len(epochs) == 8, "here, the student alone"
    assert sorted(re.findall(r"\] (co \d)", out)) == ["co 1", "co 2"] and "FAILED" not in out
    (one, _), (two, _) = load_checkpoint(tmp_path / "one"), load_checkpoint(tmp_path / "two")
    torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)  # bit for bit only with as many threads
    assert udlib_command(*command, tmp_path / "two", "--jobs", "2")[0] == 0 and len(epochs) == 8


def test_a_teacher_that_fails_in_its_process_is_said(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "udlib.cli.systems.side_by_side", lambda names, jobs, words: len([words(name) for name in names])
    )
    code, _, err = udlib_command("parallel", tree, "--out", tmp_path / "m", *QUICK, "--jobs", "2")
    assert code == 2 and "4 of 4 teachers failed: run the same command with --jobs 1 to see why" in err
    code, _, err = udlib_command("parallel", tree, "--out", tmp_path / "m", *QUICK, "--teacher", "co 3")
    assert code == 2 and "there is no teacher 'co 3' to train: choose one of co 1, co 2, dis 1, dis 2" in err


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--k", "4"), "k is 4: expected 1 to 3 parts, as there are 3 classes"),
        (("--strategy", "CPG"), "strategy is 'CPG': choose one of both, CGP, DGP, random"),
    ],
)
def test_a_wrong_option_is_one_line_and_trains_nothing(tree, tmp_path, epochs, options, complaint):
    code, _, err = udlib_command("parallel", tree, "--out", tmp_path / "m", *QUICK, *options)
    assert code == 2 and complaint in err and err.count("\n") == 1 and epochs == []


def test_a_folder_that_holds_anything_else_is_left_alone(tree, tmp_path, epochs):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = udlib_command("parallel", tree, "--out", tmp_path, *QUICK)
    assert code == 2 and "holds 'thesis.tex'" in err and epochs == []
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


DETECT = (*QUICK[:-2], "--epochs", "4", "--pool", "1", "--hidden", "16")


def test_detection_leaves_a_plain_classifier(tree, tmp_path, epochs):
    out = tmp_path / "m"
    code, _, err = udlib_command("detection", tree, "--out", out, *DETECT)
    assert (code, err) == (0, "") and len(epochs) == 8, "four of the detector, one of stage 1 and three of stage 2"
    assert {path.name for path in out.iterdir() if not path.name.startswith("tensors-")} == {"state.json", "log.csv"}
    model = udlib.load(out)
    assert (
        model.training["method"] == "detection"
        and model.training["teacher"] == "small_narrow"
        and model.calibrator is not None
    )
    assert not any(name.startswith(("scale", "adapter", "regions")) for name in load_checkpoint(out)[0])
    rows = [line.split(",") for line in (out / "log.csv").read_text().splitlines()]
    stage = rows[0].index("stage")
    assert [(row[0], row[stage]) for row in rows[1:]] == [("1", "1"), ("2", "2"), ("3", "2"), ("4", "2")]
    assert udlib_command("detection", tree, "--out", out, *DETECT)[0] == 0 and len(epochs) == 8
    code, _, err = udlib_command("detection", tree, "--out", out, *DETECT, "--teacher", "small")
    assert code == 2 and "teacher: saved 'small_narrow', now 'small'" in err


@pytest.mark.parametrize("at", [2, 5, 7])
def test_control_c_in_a_detector_or_either_stage_is_resumed_bit_for_bit(tree, tmp_path, monkeypatch, at):
    found, usual = [], training._Training._steps

    def train_epoch(*given):
        found.append(1)
        if len(found) == at:
            signal.raise_signal(signal.SIGINT)
        return usual(*given)

    whole = tmp_path / "whole"
    assert udlib_command("detection", tree, "--out", whole, *DETECT)[0] == 0
    monkeypatch.setattr(training._Training, "_steps", train_epoch)
    out = tmp_path / "m"
    assert udlib_command("detection", tree, "--out", out, *DETECT)[0] == 130
    assert udlib_command("detection", tree, "--out", out, *DETECT)[0] == 0 and len(found) == 9
    (one, _), (other, _) = load_checkpoint(out), load_checkpoint(whole)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "options, trained",
    [
        (("--transfer", "none"), 4),
        (("--transfer", "predictions"), 8),
        (("--transfer", "predictions", "--taught-by", "classifier"), 8),
        (("--proposals", "boxes", "--multi-scale"), 8),
    ],
)
def test_controls_of_detection_train_what_they_need(tree, tmp_path, epochs, options, trained):
    code, _, err = udlib_command("detection", tree, "--out", tmp_path / "m", *DETECT, *options)
    assert (code, err) == (0, "") and len(epochs) == trained


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--transfer", "all"), "transfer is 'all': choose one of both, features, predictions, none"),
        (
            ("--taught-by", "classifier"),
            "a classifier has only predictions to teach a student, so set transfer to 'predictions'",
        ),
        (("--proposals", "selective-search"), "selective search needs OpenCV"),
        (("--epochs", "1"), "epochs is 1: two stages need at least 2"),
    ],
)
def test_what_detection_cannot_do_is_one_line(tree, tmp_path, monkeypatch, options, complaint):
    monkeypatch.setitem(sys.modules, "cv2", None)
    code, _, err = udlib_command("detection", tree, "--out", tmp_path / "m", *DETECT, *options)
    assert code == 2 and complaint in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "command, parts",
    [
        (
            "parallel",
            (
                "--k",
                "--jobs",
                "--strategy",
                "--alpha",
                "--partition-seed",
                "CGP",
                "FOLDER/partitions",
                "Xu et al., 2022",
            ),
        ),
        ("detection", ("--proposals", "--transfer", "--pool", "OpenCV", "without a box", "Liu et al., 2018")),
    ],
)
def test_help_says_what_a_command_takes_and_does(command, parts):
    code, out, _ = udlib_command(command, "--help")
    text = " ".join(out.replace("│", " ").split())
    assert code == 0 and [part for part in (*parts, "Example") if part not in text] == []
