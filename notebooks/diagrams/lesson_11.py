"""Lesson 11: from a folder of images to a trained, calibrated model."""

from notebooks.diagrams.drawing import CALIBRATION, CLASSIFICATION, INK, PLAIN, WHITE, Diagram

SPLITS = {"train": 72, "val": 150, "test": 228}  # the middle of each row
HIGH = 50


def folder_to_model() -> Diagram:
    """Which command does what, and what each split is for."""
    d = Diagram(
        640,
        324,
        "From a folder of labelled images to a calibrated model",
        "A folder holds the splits train, val and test. The command udlib data check opens every file, udlib data "
        "describe counts the labels. udlib train fits the weights on train, chooses the epoch by mAP on val and "
        "fits a temperature on val, and measures on test. The model's folder keeps weights, classes, thresholds and"
        " the calibrator. udlib evaluate measures it on a split, udlib predict names what is in a new image, udlib "
        "distill trains a smaller model on its answers.",
    )
    d.text(54, 16, "your folder", weight="bold")
    d.area(8, 30, 92, 240, (0.96, 0.96, 0.96), linewidth=1.0, zorder=1)
    d.text(166, 16, "udlib data", weight="bold")
    d.box(126, 30, 80, 240, "check:\nevery file\nopens\n\n\ndescribe:\nlabels are\ncounted")
    d.text(334, 16, "udlib train", weight="bold")
    d.area(232, 30, 204, 240, WHITE, linewidth=1.6, zorder=1)
    names = {"train": "train:\nimages, labels", "val": "val:\nimages, labels", "test": "test:\nimages, labels"}
    roles = {"train": CLASSIFICATION, "val": CALIBRATION, "test": PLAIN}
    for split, y in SPLITS.items():
        box = d.box(14, y - HIGH / 2, 80, HIGH, names[split], fill=WHITE, size=10)
        d.arrow(box.right(), (126, y))
        d.arrow((206, y), (242, y), role=roles[split], linestyle="-")
    weights = d.box(
        242, SPLITS["train"] - 25, 184, HIGH, "fit the weights\n(BCE and the branch, Eq. 12)", CLASSIFICATION
    )
    epoch = d.box(242, SPLITS["val"] - 25, 86, HIGH, "choose the\nepoch by mAP", CALIBRATION, line="-")
    temperature = d.box(344, SPLITS["val"] - 25, 82, HIGH, "fit the\ntemperature", CALIBRATION, line="-")
    measure = d.box(
        242, SPLITS["test"] - 25, 184, HIGH, "measure accuracy and\ncalibration, once", fill=WHITE, edge=INK
    )
    d.arrow((epoch.top()[0], weights.bottom()[1]), epoch.top())
    d.arrow(epoch.right(), temperature.left())
    d.arrow(temperature.bottom(), (temperature.bottom()[0], measure.y))
    d.text(498, 16, "model’s folder", weight="bold")
    model = d.box(456, 72, 84, 156, "weights,\nclasses,\nimage size,\ncalibrator,\nthresholds,\nmetrics", lw=2.4)
    d.arrow((436, 150), model.left(), lw=2.0)
    uses = {"evaluate": "udlib\nevaluate", "predict": "udlib\npredict", "distill": "udlib\ndistill"}
    for name, y in zip(uses, SPLITS.values()):
        box = d.box(562, y - 22, 72, 44, uses[name], weight="bold")
        d.arrow((540, 150), (551, 150), (551, y), box.left()) if y != 150 else d.arrow((540, 150), box.left())
    d.text(
        8,
        304,
        "Nothing is chosen on test. predict: a new image → labels, each with a calibrated probability.\n"
        "distill: a smaller model learns from the answers of this one.",
        align="left",
    )
    return d


DIAGRAMS = {"folder_to_model": folder_to_model}
