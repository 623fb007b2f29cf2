"""`udlib thresholds`, and the decisions of `predict` and `evaluate` at the thresholds that it stores."""

import csv
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import udlib_command
from tiny_voc import CLASSES, write_tiny_voc

import udlib
from udlib.datasets.voc import VOC
from udlib.metrics import best_thresholds, precision_recall_f1
from udlib.models import save_trained
from udlib.workshop import evaluation_page, fit_thresholds, measured, notes_on_fitting

pytestmark = pytest.mark.usefixtures("terminal")

QUICK = ("--network", "small_narrow", "--epochs", "2", "--size", "24", "--batch", "16")


@pytest.fixture(scope="module")
def usual(tree, tmp_path_factory):
    """The folder of a model as `train` leaves it."""
    folder = tmp_path_factory.mktemp("models") / "usual"
    assert udlib_command("train", tree, "--out", folder, *QUICK)[0] == 0
    return folder


@pytest.fixture(scope="module")
def fitted(tree, usual):
    """The same after `udlib thresholds`, what the command printed, and its CSV."""
    folder = Path(shutil.copytree(usual, usual.with_name("fitted")))
    code, out, err = udlib_command("thresholds", tree, "--model", folder, "--csv", folder.with_name("t.csv"))
    assert code == 0 and err == ""
    return folder, out


def by_hand(model, split):
    return best_thresholds(model.predict(split.paths).probabilities, split.targets, split.difficult)


@pytest.mark.filterwarnings("ignore:classes .* fewer than")
def test_the_command_stores_the_f1_optimal_thresholds_of_the_calibrated_probabilities_on_val(tree, usual, fitted):
    folder, out = fitted
    model, val = udlib.load(folder), VOC(tree, "val")
    assert model.thresholds == pytest.approx(by_hand(udlib.load(usual), val).tolist(), abs=1e-6)
    assert set(model.thresholds) != {0.5} and model.calibrator is not None
    assert "32 images of 'val', 3 classes" in out and f"The thresholds are in '{folder}'" in out
    head, *rows = list(csv.reader(folder.with_name("t.csv").open(newline="")))
    assert head == ["class", "positives", "threshold", "F1 at 0.5", "F1"] and [row[0] for row in rows] == list(CLASSES)
    p, counted = model.predict(val.paths).probabilities, val.targets.bool() & ~val.difficult
    for k, (_, positives, threshold, before, after) in enumerate(rows):
        assert int(positives) == counted[:, k].sum() and float(threshold) == model.thresholds[k]
        column = p[:, k : k + 1], val.targets[:, k : k + 1]
        for value, at in ((before, 0.5), (after, float(threshold))):
            expected = precision_recall_f1(*column, at, ignore=val.difficult[:, k : k + 1])["CF1"]
            assert float(value) == pytest.approx(expected, abs=1e-9)
        assert float(after) >= float(before)


def test_nothing_but_thresholds_and_the_numbers_at_them_changes(usual, fitted):
    before, after = (json.loads((folder / "state.json").read_text()) for folder in (usual, fitted[0]))
    assert before["sha256"] == after["sha256"] and before["training"] == after["training"]
    assert before["calibrator"] == after["calibrator"] and before["classes"] == after["classes"]
    for split in ("val", "test"):
        old, new = before["metrics"][split], after["metrics"][split]
        assert old["uncalibrated"] == pytest.approx(new["uncalibrated"], abs=1e-6, nan_ok=True)
        changed = {name for name in old["calibrated"] if abs(old["calibrated"][name] - new["calibrated"][name]) > 1e-6}
        assert changed and all(re.match(r"[CO](P|R|F1)(_|$)", name) for name in changed)


def test_evaluate_decides_by_the_stored_thresholds_and_says_so(tree, usual, fitted, tmp_path):
    folder, model, test = fitted[0], udlib.load(fitted[0]), VOC(tree, "test")
    code, out, err = udlib_command("evaluate", tree, "--model", folder, "--csv", tmp_path / "n.csv")
    numbers = {name: (float(raw), float(own)) for name, raw, own in list(csv.reader((tmp_path / "n.csv").open()))[1:]}
    p = model.predict(test.paths).probabilities
    expected = precision_recall_f1(p, test.targets, model.thresholds, ignore=test.difficult)
    assert code == 0 and err == ""
    for name, value in expected.items():
        assert numbers[name][1] == pytest.approx(value, abs=1e-9), name
    raw = precision_recall_f1(torch.sigmoid(model.logits(test.paths)), test.targets, ignore=test.difficult)
    assert numbers["CF1"][0] == pytest.approx(raw["CF1"], abs=1e-9), "before calibration: 0.5"
    said = r"count a label from each class's own threshold on \(0.\d\d to 0.\d\d, fitted on 'val' of '{}'\)"
    assert re.search(said.format(tree.name) + "; before calibration from 0.5 on", out)
    assert "count a label from a probability of 0.5 on." in udlib_command("evaluate", tree, "--model", usual)[1]


def test_predict_decides_by_the_stored_thresholds_and_says_so(tree, fitted, tmp_path):
    strict = save_trained(tmp_path / "strict", replace(udlib.load(fitted[0]), thresholds=(0.999, 0.0, 0.999)))
    image = VOC(tree, "test").paths[0]
    code, out, err = udlib_command("predict", image, "--model", strict)
    assert code == 0 and re.fullmatch(r".*: cat \d+\.\d %\n", out)
    assert err == f"udlib: labels from each class's own threshold on (0.00 to 1.00, fitted on 'val' of '{tree.name}')\n"
    for options in (("--top", "3"), ("--threshold", "0")):
        code, out, err = udlib_command("predict", image, "--model", strict, *options)
        assert code == 0 and err == "" and out.count("%") == 3


def test_the_command_of_the_training_keeps_the_thresholds(tree, fitted):
    before = (fitted[0] / "state.json").read_bytes()
    code, out, _ = udlib_command("train", tree, "--out", fitted[0], *QUICK)
    assert code == 0 and "measured again" not in out and (fitted[0] / "state.json").read_bytes() == before


def test_from_python_the_same_thresholds_come_with_a_warning_that_names_classes(tree, usual, fitted):
    model = udlib.load(usual)
    with pytest.warns(UserWarning, match=r"few positives in 'val', so .* other images: dog \(6\)$"):
        again = fit_thresholds(model, tree)
    assert again.thresholds == udlib.load(fitted[0]).thresholds and model.thresholds == (0.5,) * 3
    for kind, numbers in measured(again, VOC(tree, "test")).items():
        assert again.metrics["test"][kind] == pytest.approx(numbers, abs=1e-6, nan_ok=True)


def test_classes_of_few_positives_and_of_none_are_named(usual, tmp_path):
    data = write_tiny_voc(tmp_path / "data", {"val": 12})
    for path in (data / "Annotations").glob("val_*.xml"):
        path.write_text(path.read_text().replace("<name>dog</name>", "<name>cat</name>"))
    folder = Path(shutil.copytree(usual, tmp_path / "model"))
    code, out, err = udlib_command("thresholds", data, "--model", folder)
    assert (
        code == 0 and err == "" and re.search(r"few positives in 'val'.*dog \(0\); a class without any keeps 0.5", out)
    )
    model = udlib.load(folder)
    assert model.thresholds[2] == 0.5
    assert model.metrics == {} and "The stored numbers of val and test are dropped" in out


def test_data_with_other_classes_and_folders_without_a_model_are_refused(tree, usual, tmp_path):
    other = write_tiny_voc(tmp_path / "other", {"val": 4}, classes=("bike", "cat", "cow"))
    code, _, err = udlib_command("thresholds", other, "--model", usual)
    assert code == 2 and "the model has no class 'cow'" in err
    code, _, err = udlib_command("thresholds", tree, "--model", tmp_path / "nobody")
    assert code == 2 and "does not exist" in err
    code, _, err = udlib_command("thresholds", tree, "--model", usual, "--split", "middle")
    assert code == 2 and "has no split 'middle'" in err


def test_a_model_without_a_calibrator_is_measured_at_its_thresholds_in_its_only_column(tree, usual):
    plain = replace(udlib.load(usual), calibrator=None, thresholds=(0.2, 0.3, 0.4))
    test = VOC(tree, "test")
    expected = precision_recall_f1(
        plain.predict(test.paths).probabilities, test.targets, (0.2, 0.3, 0.4), None, test.difficult
    )
    numbers = measured(plain, test)
    assert set(numbers) == {"uncalibrated"} and numbers["uncalibrated"]["CF1"] == pytest.approx(
        expected["CF1"], abs=1e-9
    )


def test_help_says_what_the_command_does():
    code, out, _ = udlib_command("thresholds", "--help")
    text = " ".join(out.replace("│", " ").split())
    parts = ("DATA", "--model", "--split", "highest F1", "udlib predict", "few positives", "Example")
    assert code == 0 and [part for part in parts if part not in text] == []


SEEN = {
    "train": "note  the model was trained on these images",
    "val": "note  the calibrator was fitted on these images",
    "thresholds": "note  the thresholds were fitted on these images: precision, recall and F1 at them look better",
}


def said(*words):
    code, out, err = udlib_command("evaluate", *words)
    assert code == 0 and err == ""
    return {part for part, sentence in SEEN.items() if sentence in out}


def test_evaluate_says_which_parts_of_the_model_were_fitted_on_the_images_that_it_measures(tree, usual, fitted):
    for folder, expected in ((usual, {"val"}), (fitted[0], {"val", "thresholds"})):
        assert said(tree, "--model", folder, "--split", "val") == expected
        assert said(tree, "--model", folder) == set()
        assert said(tree, "--model", folder, "--split", "train") == {"train"}


def test_a_copy_under_other_names_is_recognised_and_new_images_are_not(tree, fitted, tmp_path):
    copy = Path(shutil.copytree(tree, tmp_path / "elsewhere"))
    lists = copy / "ImageSets" / "Main"
    for path in [*lists.glob("*_*.txt"), lists / "trainval.txt"]:
        path.unlink(missing_ok=True)
    (lists / "val.txt").rename(lists / "holiday.txt")
    assert said(copy, "--model", fitted[0], "--split", "holiday") == {"val", "thresholds"}
    names = (lists / "holiday.txt").read_text().split()
    path = copy / "Annotations" / f"{names[0]}.xml"
    path.write_text(path.read_text().replace("<name>dog</name>", "<name>cat</name>").replace("bike", "dog"))
    assert said(copy, "--model", fitted[0], "--split", "holiday") == {"val", "thresholds"}, "the pixels are the same"
    other = write_tiny_voc(tmp_path / "other", {"val": 32}, seed=5)
    assert said(other, "--model", fitted[0], "--split", "val") == set()


def test_thresholds_that_were_fitted_on_other_data_are_recognised_on_these(usual, tmp_path):
    data, folder = write_tiny_voc(tmp_path / "own", {"val": 20}, seed=7), shutil.copytree(usual, tmp_path / "model")
    assert udlib_command("thresholds", data, "--model", folder)[0] == 0
    assert said(data, "--model", folder, "--split", "val") == {"thresholds"}


def test_trainval_holds_the_images_that_thresholds_were_fitted_on(tree, fitted, tmp_path):
    copy = Path(shutil.copytree(tree, tmp_path / "joined"))
    lists = copy / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    assert said(copy, "--model", fitted[0], "--split", "trainval") == set(SEEN)


def test_from_python_and_on_the_page_the_same_is_said(tree, usual, fitted):
    model, val, test = udlib.load(fitted[0]), VOC(tree, "val"), VOC(tree, "test")
    notes = notes_on_fitting(model, val)
    assert [note.partition(":")[0] for note in notes] == [
        "the calibrator was fitted on these images",
        "the thresholds were fitted on these images",
    ]
    with pytest.warns(UserWarning) as caught:
        measured(model, val)
    assert [str(each.message) for each in caught] == list(notes)
    page = evaluation_page(model, val)
    assert all(f"<p>Note: {note}.</p>" in page for note in notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured(model, test)
    assert notes_on_fitting(model, test) == () and "Note:" not in evaluation_page(model, test)
    assert notes_on_fitting(replace(model, provenance={}), val) == ()
