"""The commands for one's own data, end to end on a tiny folder: train, evaluate, distil, predict, and all that can go wrong."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import udlib_command
from PIL import Image
from tiny_voc import CLASSES, write_tiny_voc

import udlib
from udlib import cli
from udlib import workshop as making
from udlib.calibration import expected_calibration_error
from udlib.datasets import pixels
from udlib.datasets.voc import VOC
from udlib.metrics import mean_average_precision
from udlib.models import save_trained
from udlib.posthoc import fit_label_temperature, fit_temperature
from udlib.training import devices
from udlib.training import loop as training
from udlib.training.checkpoints import fingerprint, load_checkpoint
from udlib.training.devices import within_memory
from udlib.workshop import model_folders, splits

pytestmark = pytest.mark.usefixtures("terminal")

QUICK = ("--network", "small_narrow", "--epochs", "2", "--size", "24", "--batch", "16")


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    """A trained model's folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("models") / "teacher"
    code, out, err = udlib_command("train", tree, "--out", folder, *QUICK)
    assert code == 0 and err == ""
    return folder, out


def weights(folder):
    return load_checkpoint(folder)[0]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def files(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith("tensors-")}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def interrupted(monkeypatch, epoch, act=lambda: signal.raise_signal(signal.SIGINT)):
    """Ctrl-C, or something else, in the middle of this epoch."""
    trained_epochs, usual = [], training._Training._steps

    def train_epoch(*arguments):
        trained_epochs.append(len(trained_epochs) + 1)
        if trained_epochs[-1] == epoch:
            act()
        return usual(*arguments)

    monkeypatch.setattr(training._Training, "_steps", train_epoch)
    return trained_epochs


# train


def test_train_leaves_a_model_that_is_calibrated_on_val_and_measured_on_test(tree, trained):
    folder, out = trained
    assert files(folder) == {"state.json", "log.csv"}
    model, val, test = udlib.load(folder), VOC(tree, "val"), VOC(tree, "test")
    by_hand = fit_temperature(model.logits(val.paths), val.targets)
    assert model.calibrator.a == pytest.approx(by_hand.a, rel=1e-5)
    found, numbers = model.predict(test.paths).probabilities, model.metrics["test"]
    assert numbers["calibrated"]["ECE"] == pytest.approx(expected_calibration_error(found, test.targets), abs=1e-6)
    assert numbers["uncalibrated"]["ECE"] != numbers["calibrated"]["ECE"]
    expected = mean_average_precision(found, test.targets, test.difficult)
    assert numbers["calibrated"]["mAP"] == numbers["uncalibrated"]["mAP"] == pytest.approx(expected)
    assert model.classes == CLASSES and model.size == 24 and model.backbone == "small_narrow"
    assert model.provenance["images"] == {"train": 48, "val": 32, "test": 32} and model.training["lam"] == 0.1
    assert "3 classes; images: 48 train, 32 val, 32 test; small_narrow at 24 px, 2 epochs" in out
    assert "val, on which the calibrator was fitted" in out and re.search(
        r"^ECE, class-wise +[\d.]+ +[\d.]+$", out, re.M
    )
    assert f"udlib predict IMAGE... --model {folder}" in out


def test_the_log_has_a_row_for_each_epoch(trained):
    head, *rows = rows_of(trained[0] / "log.csv")
    assert head[:4] == ["epoch", "lr", "seconds", "images_per_second"] and {
        "total",
        "ova",
        "pal_n",
        "mAP",
        "NLL",
    } < set(head)
    assert [row[0] for row in rows] == ["1", "2"] and all(float(value) == float(value) for row in rows for value in row)


def test_the_same_command_again_trains_nothing(tree, trained, monkeypatch):
    before = (trained[0] / "state.json").stat().st_mtime_ns
    epochs = interrupted(monkeypatch, 1)
    code, out, _ = udlib_command("train", tree, "--out", trained[0], *QUICK)
    assert code == 0 and epochs == [] and (trained[0] / "state.json").stat().st_mtime_ns == before
    assert "The model is in" in out


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--lr", "0.5"), "lr: saved 0.003, now 0.5"),
        (("--calibrate", "platt"), "calibrate: saved 'temperature', now 'platt'"),
        (("--lam", "0"), "lam: saved 0.1, now 0"),
    ],
)
def test_a_folder_that_holds_another_model_is_left_alone(tree, trained, options, complaint):
    before = weights(trained[0])
    code, _, err = udlib_command("train", tree, "--out", trained[0], *QUICK, *options)
    assert code == 2 and complaint in err and "another folder" in err and err.count("\n") == 1
    assert same(weights(trained[0]), before)


def test_a_folder_that_holds_anything_else_is_left_alone(tree, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    for out, complaint in (
        (tmp_path, "holds 'thesis.tex', but no model and no unfinished training"),
        (tmp_path / "thesis.tex", "is a file"),
    ):
        code, _, err = udlib_command("train", tree, "--out", out, *QUICK)
        assert code == 2 and complaint in err and files(tmp_path) == {"thesis.tex"}


def test_control_c_says_how_to_go_on_and_the_same_command_does_bit_for_bit(tree, trained, tmp_path, monkeypatch):
    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        code, _, err = udlib_command("train", tree, "--out", out, *QUICK)
    assert (
        code == 130
        and "training stopped after 1 epochs: 1 are saved in" in err
        and "the same command goes on from there" in err
    )
    assert files(out) == {"checkpoint", "log.csv"} and len(rows_of(out / "log.csv")) == 2
    code, _, err = udlib_command("train", tree, "--out", out, *QUICK, "--lr", "0.5")
    assert code == 2 and "belongs to another training (config.lr: saved 0.003, now 0.5)" in err
    epochs = interrupted(monkeypatch, 9)
    assert udlib_command("train", tree, "--out", out, *QUICK)[0] == 0
    assert epochs == [1] and same(weights(out), weights(trained[0])) and files(out) == {"state.json", "log.csv"}
    assert [row[0] for row in rows_of(out / "log.csv")] == ["epoch", "1", "2"]


def test_what_a_kill_left_beside_a_finished_model_goes_with_the_same_command(tree, trained, tmp_path):
    folder = Path(shutil.copytree(trained[0], tmp_path / "model"))
    for name in ("tensors-0123456789abcdef.safetensors", ".state.json.0123abcd.tmp", ".log.csv.4567cdef.tmp"):
        (folder / name).write_bytes(b"half")
    (folder / "checkpoint").mkdir()
    assert udlib_command("train", tree, "--out", folder, *QUICK)[0] == 0
    assert {path.name for path in folder.iterdir()} == {path.name for path in trained[0].iterdir()}


def test_images_of_a_mapped_file_train_the_same_weights(tree, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "IN_MEMORY", 0)
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    assert udlib_command("train", tree, "--out", tmp_path / "model", *QUICK)[0] == 0
    assert same(weights(tmp_path / "model"), weights(trained[0]))
    assert len(list((tmp_path / "data" / "cache" / "pixels").glob("24px-*.uint8"))) == 2, "train and val"


def test_without_a_test_split_the_model_is_measured_on_val_alone(tmp_path):
    tree = write_tiny_voc(tmp_path / "data", {"train": 16, "val": 16})
    code, out, _ = udlib_command(
        "train", tree, "--out", tmp_path / "model", *QUICK, "--calibrate", "none", "--lam", "0"
    )
    model = udlib.load(tmp_path / "model")
    assert code == 0 and "(no test split)" in out and set(model.metrics) == {"val"}
    assert (
        model.calibrator is None
        and model.network.head.calibration is None
        and set(model.metrics["val"]) == {"uncalibrated"}
    )


def test_a_class_that_val_lacks_is_named_and_keeps_the_sigmoid(tmp_path):
    tree = write_tiny_voc(tmp_path / "data", {"train": 32, "val": 32})
    for path in (tree / "Annotations").glob("val_*.xml"):
        path.write_text(path.read_text().replace("<name>dog</name>", "<name>cat</name>"))
    code, out, err = udlib_command(
        "train", tree, "--out", tmp_path / "model", *QUICK, "--calibrate", "label-temperature"
    )
    model, val = udlib.load(tmp_path / "model"), VOC(tree, "val")
    assert (
        code == 0
        and "not calibrated, because all images of val have the label or none has it: dog" in out
        and err == ""
    )
    with pytest.warns(UserWarning):
        by_hand = fit_label_temperature(model.logits(val.paths), val.targets)
    assert model.calibrator.a == pytest.approx(by_hand.a, rel=1e-5) and model.calibrator.fallbacks == (2,)


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--network", "resnet99"), "unknown network 'resnet99': choose one of small_narrow"),
        (("--calibrate", "magic"), "unknown kind 'magic' of calibrator: choose one of temperature"),
        (("--keep", "first"), "keep is 'first'"),
        (("--difficult", "maybe"), "policy is 'maybe'"),
        (("--lr", "0"), "lr is 0"),
        (("--weights", "IMAGENET1K_V1"), "'small_narrow' has no pretrained weights"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(tree, tmp_path, options, complaint):
    code, _, err = udlib_command("train", tree, "--out", tmp_path / "model", *QUICK, *options)
    assert code == 2 and complaint in err and err.count("\n") == 1


def test_crops_come_out_of_larger_images_and_the_model_sees_whole_ones_of_their_size(tree, tmp_path, monkeypatch):
    decoded, usual = set(), splits.images_of
    monkeypatch.setattr(splits, "images_of", lambda dataset, size: decoded.add(size) or usual(dataset, size))
    code, out, err = udlib_command("train", tree, "--out", tmp_path / "model", *QUICK, "--crop", "--ema", "0.3")
    model = udlib.load(tmp_path / "model")
    assert code == 0 and err == "" and "at 24 px" in out and decoded == {27} and model.size == 24
    assert (model.training["crop"], model.training["ema"]) == (24, 0.3)
    whole = making.measured(model, VOC(tree, "val"))["uncalibrated"]
    assert model.metrics["val"]["uncalibrated"]["mAP"] == pytest.approx(whole["mAP"])
    taught = udlib_command(
        "distill",
        tree,
        "--teacher",
        tmp_path / "model",
        "--out",
        tmp_path / "student",
        "--network",
        "small_narrow",
        "--epochs",
        "3",
        "--batch",
        "16",
        "--crop",
    )
    assert taught[0] == 0 and udlib.load(tmp_path / "student").size == 24


@pytest.mark.parametrize("size, stored", [(448, 512), (24, 27), (64, 73)])
def test_images_are_kept_eight_sevenths_as_large_as_their_crops(size, stored):
    chosen = making.settings(size=size, crop=True)
    assert (chosen.size, chosen.training.crop) == (stored, size)


def test_unusable_data_are_one_line_and_exit_code_2(tree, tmp_path):
    def refused(data):
        code, _, err = udlib_command("train", data, "--out", tmp_path / "model", *QUICK)
        assert code == 2 and err.count("\n") == 1 and not (tmp_path / "model").exists()
        return err

    assert "unknown data set" in refused(tmp_path / "nowhere")
    lists = "ImageSets/Main"
    broken = Path(shutil.copytree(tree, tmp_path / "broken"))
    shutil.copy(tree / lists / "val.txt", broken / lists / "test.txt")
    assert "'val' and 'test' share 32 images" in refused(broken)
    shutil.copy(tree / lists / "test.txt", broken / lists / "test.txt")
    for path in (broken / "Annotations").glob("val_*.xml"):
        path.write_text(re.sub(r"<object>.*</object>\n", "", path.read_text()))
    assert "'val' has 32 images and no positive label that is not difficult" in refused(broken)
    for name in ("train.txt", "val.txt"):
        (broken / lists / name).unlink()
    assert "has no split 'train'" in refused(broken)


def test_settings_follow_the_network_and_what_is_given():
    small, full = making.settings(network="small"), making.settings(network="resnet18", epochs=3, weights=None)
    assert (small.size, small.embedding, small.weights, small.training.optimizer) == (64, 128, None, "adam")
    assert (full.size, full.embedding, full.weights, full.training.optimizer) == (448, 512, "IMAGENET1K_V1", "sgd")
    assert full.training.epochs == 3 and full.network == "resnet18"
    assert making.settings(network="resnet18", weights="none").weights is None


# TensorBoard


def test_tensorboard_that_is_not_installed_is_said_before_anything_is_trained(tree, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = udlib_command("train", tree, "--out", tmp_path / "model", *QUICK, "--tensorboard")
    assert (
        code == 2
        and "TensorBoard is not installed: `pip install tensorboard`" in err
        and not (tmp_path / "model").exists()
    )


def test_the_real_tensorboard_reads_back_what_two_runs_of_one_training_wrote(tree, tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    command = ("train", tree, "--out", tmp_path / "m", *QUICK, "--epochs", "3", "--tensorboard")
    interrupted(monkeypatch, 2)
    assert udlib_command(*command)[0] == 130 and udlib_command(*command)[0] == 0
    found = events.EventAccumulator(str(tmp_path / "m" / "tensorboard"))
    found.Reload()
    head, *rows = rows_of(tmp_path / "m" / "log.csv")
    for name in head[1:]:
        assert [event.step for event in found.Scalars(name)] == [1, 2, 3]
        assert [event.value for event in found.Scalars(name)] == pytest.approx(
            [float(row[head.index(name)]) for row in rows]
        )


def test_tensorboard_gets_the_numbers_of_the_log_and_forgets_what_a_resumed_training_repeats(tmp_path, monkeypatch):
    from udlib.training.logs import EpochLog

    made, scalars = [], []

    class Writer:
        def __init__(self, folder, purge_step):
            made.append((folder, purge_step))

        def add_scalar(self, name, value, epoch):
            scalars.append((name, value, epoch))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    log = EpochLog(tmp_path / "log.csv", tmp_path / "tb")
    for epoch in (1, 2, 3):
        log(epoch, None, {"epoch": epoch, "mAP": epoch / 4})
    EpochLog(tmp_path / "log.csv", tmp_path / "tb")(3, None, {"epoch": 3, "mAP": 0.5, "new": 1.0})
    assert made == [(str(tmp_path / "tb"), 1), (str(tmp_path / "tb"), 3)]
    assert scalars[:2] == [("mAP", 0.25, 1), ("mAP", 0.5, 2)] and scalars[-1] == ("new", 1.0, 3)
    assert rows_of(tmp_path / "log.csv") == [
        ["epoch", "mAP", "new"],
        ["1", "0.25", ""],
        ["2", "0.5", ""],
        ["3", "0.5", "1.0"],
    ]


@pytest.mark.parametrize("content", ["", "no log\n1,2\n", "epoch\nx\n"])
def test_a_file_that_is_no_log_is_written_anew(tmp_path, content):
    from udlib.training.logs import EpochLog

    (tmp_path / "log.csv").write_text(content)
    EpochLog(tmp_path / "log.csv")(4, None, {"epoch": 4})
    assert rows_of(tmp_path / "log.csv") == [["epoch"], ["4"]]


# GPU out of memory


def test_out_of_memory_says_which_batch_was_tried_and_fits():
    tried = []

    def needs(most):
        def step(batch):
            tried.append(batch)
            if batch > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return batch

        return step

    assert within_memory(needs(64), 50, needs(64)) == 50 and tried == [50]
    with pytest.raises(
        RuntimeError,
        match=r"too little memory for batches of 50 images, and a trial showed that batches of 6 fit: pass --batch 6$",
    ):
        within_memory(needs(7), 50, needs(7))
    assert tried == [50, 50, 25, 12, 6]
    with pytest.raises(RuntimeError, match="for batches of 50 images, and even for batches of 2: use smaller images"):
        within_memory(needs(2), 50, needs(0), least=2)
    with pytest.raises(RuntimeError, match="something else"):
        within_memory(lambda batch: (_ for _ in ()).throw(RuntimeError("something else")), 50, needs(64))
    assert devices.torch.OutOfMemoryError is torch.cuda.OutOfMemoryError


def test_training_out_of_memory_is_one_line_with_the_batch_that_fits(tree, tmp_path, monkeypatch):
    usual = model_folders.train

    def train(chosen, *arguments, **options):
        if chosen.training.batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert options["max_steps"] == 1
        return usual(chosen, *arguments, **options)

    monkeypatch.setattr(model_folders, "train", train)
    code, _, err = udlib_command("train", tree, "--out", tmp_path / "model", *QUICK)
    assert code == 2 and "batches of 16 images, and a trial showed that batches of 4 fit: pass --batch 4" in err


# distill


@pytest.fixture(scope="module")
def student(tree, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "student"
    code, out, err = udlib_command(
        "distill",
        tree,
        "--teacher",
        trained[0],
        "--out",
        folder,
        "--network",
        "small_narrow",
        "--epochs",
        "2",
        "--batch",
        "16",
        "--beta",
        "0.1",
    )
    assert code == 0 and err == ""
    return folder, out


def test_distill_makes_a_student_at_the_teachers_size_that_remembers_its_teacher(trained, student):
    model = udlib.load(student[0])
    assert model.size == 24 and model.training["method"] == "distillation" and model.training["beta"] == 0.1
    assert model.training["teacher"] == fingerprint(udlib.load(trained[0]).network.state_dict())
    assert {"classification", "attention"} < set(rows_of(student[0] / "log.csv")[0])
    assert model.network.head.calibration is not None and set(model.metrics) == {"val", "test"}


def test_a_teacher_that_does_not_fit_is_refused(tree, trained, tmp_path):
    def refused(**parts):
        net = replace(udlib.load(trained[0]), **parts)
        folder = save_trained(tmp_path / "teacher", net)
        code, _, err = udlib_command("distill", tree, "--teacher", folder, "--out", tmp_path / "model", *QUICK)
        assert code == 2 and err.count("\n") == 1
        return err

    assert "class 0 is 'cat' to the teacher and 'bike' to the student" in refused(classes=("cat", "bike", "dog"))
    assert "the teacher does not know 'dog'" in refused(classes=("bike", "cat", "cow"))
    assert "the teacher normalises images by (0.0, 0.0, 0.0)" in refused(mean=(0.0, 0.0, 0.0))
    assert "logits are read by a softmax" in refused(read_as="softmax", calibrator=None)
    code, _, err = udlib_command("distill", tree, "--teacher", tmp_path / "nobody", "--out", tmp_path / "model")
    assert code == 2 and "does not exist: give a folder that `udlib train`" in err


# evaluate


def test_evaluate_gives_every_number_as_text_and_csv(tree, trained, tmp_path):
    code, out, err = udlib_command("evaluate", tree, "--model", trained[0], "--csv", tmp_path / "numbers.csv")
    assert code == 0 and err == "" and out.startswith("32 images of 'test', 3 classes")
    head, *rows = rows_of(tmp_path / "numbers.csv")
    numbers = udlib.load(trained[0]).metrics["test"]
    assert head == ["metric", "uncalibrated", "calibrated"] and {row[0] for row in rows} == set(numbers["calibrated"])
    for name, before, after in rows:
        expected = [numbers[kind][name] for kind in ("uncalibrated", "calibrated")]
        assert [float(before), float(after)] == pytest.approx(expected, abs=1e-6, nan_ok=True), name
    for line in (
        "mAP",
        "mAP, difficult images",
        "CP",
        "OF1",
        "CF1, top 3",
        "OF1, top 3, difficult as negative",
        "ECE, class-wise",
        "ECE, pooled",
        "NLL (nats)",
    ):
        assert re.search(rf"^{re.escape(line)}  +[\d.]+ +[\d.]+$", out, re.M), line


def test_evaluate_matches_classes_by_name_and_refuses_other_ones(tree, trained, tmp_path):
    turned = Path(shutil.copytree(tree, tmp_path / "turned"))
    (turned / "classes.txt").write_text("dog\ncat\nbike\n")
    model = udlib.load(trained[0])
    assert making.measured(model, VOC(turned, "test")) == making.measured(model, VOC(tree, "test"))
    other = write_tiny_voc(tmp_path / "other", {"test": 4}, classes=("bike", "cat", "cow"))
    code, _, err = udlib_command("evaluate", other, "--model", trained[0])
    assert code == 2 and "the model has no class 'cow'" in err
    fewer = write_tiny_voc(tmp_path / "fewer", {"test": 4}, classes=("bike", "cat"))
    code, _, err = udlib_command("evaluate", fewer, "--model", trained[0])
    assert code == 2 and "the data set has no class 'dog'" in err


def test_evaluate_out_of_memory_says_which_batch_fits(tree, trained, monkeypatch):
    usual = udlib.models.TrainedModel.logits

    def logits(self, images, batch_size=32):
        if batch_size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(self, images, batch_size)

    monkeypatch.setattr(udlib.models.TrainedModel, "logits", logits)
    code, _, err = udlib_command("evaluate", tree, "--model", trained[0], "--batch", "12")
    assert code == 2 and "batches of 12 images, and a trial showed that batches of 3 fit" in err


# predict


def test_predict_says_the_labels_with_their_calibrated_confidence(tree, trained, tmp_path):
    paths = VOC(tree, "test").paths[:5]
    code, out, err = udlib_command(
        "predict", *paths, "--model", trained[0], "--top", "2", "--csv", tmp_path / "p.csv", "--batch", "2"
    )
    found = udlib.load(trained[0]).predict(paths)
    assert code == 0 and err == ""
    for path, labels, line in zip(paths, found.labels(top=2), out.splitlines()):
        assert line == f"{path}: " + ", ".join(f"{name} {100 * p:.1f} %" for name, p in labels)
    head, *rows = rows_of(tmp_path / "p.csv")
    assert head == ["image", *CLASSES] and [row[0] for row in rows] == [str(path) for path in paths]
    np.testing.assert_allclose([[float(p) for p in row[1:]] for row in rows], found.probabilities, rtol=1e-4)
    code, out, _ = udlib_command("predict", paths[0], "--model", trained[0], "--threshold", "1")
    assert out == f"{paths[0]}: no label is sure enough\n"


def test_predict_takes_folders_and_the_model_of_the_environment(tree, trained, tmp_path, monkeypatch):
    (tmp_path / "some").mkdir()
    for k, path in enumerate(VOC(tree, "test").paths[:2]):
        shutil.copy(path, tmp_path / "some" / f"{k}.JPG")
    (tmp_path / "some" / "notes.txt").write_text("")
    monkeypatch.setenv("UDLIB_MODEL", str(trained[0]))
    code, out, _ = udlib_command("predict", tmp_path / "some")
    assert code == 0 and re.findall(r"(\d).JPG: ", out) == ["0", "1"]
    (tmp_path / "none").mkdir()
    code, _, err = udlib_command("predict", tmp_path / "none")
    assert code == 2 and "holds no images" in err


def test_broken_images_are_named_and_the_others_answered(tree, trained, tmp_path):
    good = VOC(tree, "test").paths[0]
    (tmp_path / "half.jpg").write_bytes(good.read_bytes()[:300])
    code, out, err = udlib_command(
        "predict",
        tmp_path / "half.jpg",
        good,
        tmp_path / "gone.jpg",
        "--model",
        trained[0],
        "--csv",
        tmp_path / "p.csv",
    )
    assert code == 1 and out.count("\n") == 1 and str(good) in out and len(rows_of(tmp_path / "p.csv")) == 2
    assert f"'{tmp_path / 'half.jpg'}' cannot be decoded" in err and f"'{tmp_path / 'gone.jpg'}' does not exist" in err
    code, out, _ = udlib_command("predict", tmp_path / "gone.jpg", "--model", trained[0])
    assert code == 1 and out == ""


def test_maps_are_pictures_of_their_own_one_for_each_image(tree, student, tmp_path):
    one = VOC(tree, "test").paths[0]
    (tmp_path / "again").mkdir()
    twin = shutil.copy(one, tmp_path / "again" / one.name)
    code, _, err = udlib_command("predict", one, twin, "--model", student[0], "--map", tmp_path / "maps" / "deep")
    assert code == 0 and err == ""
    assert files(tmp_path / "maps" / "deep") == {f"{one.stem}.png", f"{one.stem}-2.png"}
    with Image.open(tmp_path / "maps" / "deep" / f"{one.stem}.png") as image:
        assert image.width > image.height > 100


def test_a_map_without_a_calibration_branch_is_refused_before_anything_is_said(tree, trained, tmp_path):
    model = udlib.load(trained[0])
    model.network.head.calibration = None
    folder = save_trained(tmp_path / "plain", model)
    code, out, err = udlib_command("predict", VOC(tree, "test").paths[0], "--model", folder, "--map", tmp_path / "maps")
    assert code == 2 and out == "" and "no calibration branch" in err and not (tmp_path / "maps").exists()


def test_predict_without_a_model_says_what_a_model_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = udlib_command("predict", "a.jpg")
    assert (
        code == 2
        and "model folder 'model' does not exist: give a folder that `udlib train` or `udlib distill` wrote" in err
    )


# lab and help


def test_lab_opens_lesson_00_of_the_checkout_and_hands_on_the_exit_code(tmp_path, monkeypatch):
    started = []

    def run(command, cwd):
        started.append((command, cwd))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(udlib.datasets, "checkout", lambda: tmp_path)
    monkeypatch.setattr(cli.course.subprocess, "run", run)
    code, _, err = udlib_command("lab")
    assert code == 2 and "there is no notebooks/00_start_here.ipynb" in err and started == []
    (tmp_path / "notebooks").mkdir()
    lesson = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks" / "00_start_here.ipynb").write_text(json.dumps(lesson))
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    code, out, _ = udlib_command("lab")
    assert code == 3 and "copied 1 lesson to notebooks/my" in out
    assert udlib_command("lab", "--as-shipped")[0] == 3
    jupyter = [sys.executable, "-m", "jupyterlab", "--allow-root", f"--ServerApp.root_dir={tmp_path}"]
    assert started == [
        ([*jupyter, "notebooks/my/00_start_here.ipynb"], tmp_path),
        ([*jupyter, "notebooks/00_start_here.ipynb"], tmp_path),
    ]
    monkeypatch.setattr(udlib.datasets, "checkout", lambda: None)
    assert udlib_command("lab")[0] == 2


@pytest.mark.parametrize(
    "command, parts",
    [
        (
            "train",
            (
                "--out",
                "--network",
                "--lam",
                "--calibrate",
                "--tensorboard",
                "--no-flip",
                "isotonic",
                "Ctrl-C",
                "log.csv",
                "Example",
            ),
        ),
        ("distill", ("--teacher", "--alpha", "--beta", "--temperature", "Eq. 17", "the teacher's", "Example")),
        ("evaluate", ("--split", "--csv", "--model", "UDLIB_MODEL", "by name")),
        ("predict", ("IMAGE...", "--top", "--threshold", "--map", "--csv", "exit code is 1", "Example")),
        ("lab", ("JupyterLab", "lesson 00", "--as-shipped", "never overwritten")),
    ],
)
def test_help_says_what_a_command_takes_and_does(command, parts):
    code, out, _ = udlib_command(command, "--help")
    text = " ".join(out.replace("│", " ").split())
    assert code == 0 and [part for part in parts if part not in text] == []
