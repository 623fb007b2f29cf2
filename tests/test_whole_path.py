"""From a folder to labels by the documented commands, in every layout: check, describe, train, distil, evaluate, predict."""

import csv

import pytest
from commands import udlib_command
from trees import CLASSES, coco_tree, csv_tree, nus_tree, parts, voc_tree

COUNT = 240
QUICK = ("--network", "small_narrow", "--epochs", "3", "--size", "24", "--batch", "20")


@pytest.mark.parametrize("make", [voc_tree, coco_tree, nus_tree, csv_tree])
def test_the_whole_path_runs_by_the_documented_commands(make, tmp_path, monkeypatch):
    for name, value in {"UDLIB_PROGRESS": "0", "UDLIB_DATA": str(tmp_path / "data"), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    root, teacher, student, scores = (
        tmp_path / "my_images",
        tmp_path / "model",
        tmp_path / "student",
        tmp_path / "scores.csv",
    )
    make(root, COUNT)

    assert udlib_command("data", "check", root)[0] == 0
    code, said, _ = udlib_command("data", "describe", root)
    assert code == 0 and all(name in said for name in CLASSES)

    assert udlib_command("train", root, "--out", teacher, *QUICK)[0] == 0
    code, said, wrong = udlib_command(
        "distill", root, "--teacher", teacher, "--out", student, *QUICK, "--alpha", "0.5", "--beta", "0.005"
    )
    assert code == 0 and wrong == "" and f"{len(CLASSES)} classes" in said

    code, said, _ = udlib_command("evaluate", root, "--model", student, "--csv", scores)
    assert code == 0 and f"{len(parts(COUNT)['test'])} images of 'test'" in said
    with scores.open(encoding="utf-8", newline="") as file:
        found = {row["metric"]: row for row in csv.DictReader(file)}
    assert 0 < float(found["mAP"]["uncalibrated"]) <= 1 and float(found["mAP"]["calibrated"]) == pytest.approx(
        float(found["mAP"]["uncalibrated"])
    ), "one temperature for all ranks as before"
    assert {"CF1_top3", "ECE", "ECE_pooled"} <= found.keys() and ("mAP_difficult" in found) == (make is voc_tree)

    image = next(path for path in sorted(root.rglob("*.jpg")))
    code, said, _ = udlib_command("predict", image, "--model", teacher, "--top", "2", "--map", tmp_path / "maps")
    assert code == 0 and said.count("%") == 2 and (tmp_path / "maps" / f"{image.stem}.png").is_file()

    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setenv("UDLIB_SMOKE_STORE", str(tmp_path / "results"))
    monkeypatch.setenv("UDLIB_ROOTS", "")  # and what the command adds to it goes with the test
    code, said, _ = udlib_command(
        "reproduce",
        "table3a",
        "--data",
        "my_images",
        "--root",
        root,
        "--size",
        "course",
        "--seeds",
        "2",
        "--rows",
        "ResNet-18, [bK]*[e1]",
        "--csv",
        tmp_path / "table.csv",
    )
    assert code == 0 and "6 trainings: 0 stored" in said and "[one seed]" not in said
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        lines = [row for row in csv.DictReader(file) if row["column"] == "mAP" and row["row"].endswith("ResNet-101")]
    assert [(row["data"], row["seeds"], row["paper"]) for row in lines] == [("my_images", "2", "91.41")]
    assert float(lines[0]["difference_low"]) < float(lines[0]["difference"]) < float(lines[0]["difference_high"])


def test_a_csv_without_test_images_trains_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")
    root = csv_tree(tmp_path / "my_images", 60)
    listing = root / "labels.csv"
    kept = [line for line in listing.read_text(encoding="utf-8").splitlines() if ",test," not in line]
    listing.write_text("\n".join(kept), encoding="utf-8")
    code, said, wrong = udlib_command(
        "train",
        root,
        "--out",
        tmp_path / "model",
        "--network",
        "small_narrow",
        "--epochs",
        "1",
        "--size",
        "24",
        "--batch",
        "10",
    )
    assert code == 0 and wrong == "" and "(no test split)" in said
