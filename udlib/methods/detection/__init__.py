"""Distillation from weakly-supervised detection: `method` declares it, `network` is the detector, `students` learn from it."""

from udlib.methods.detection.method import METHOD, PARTS, TAUGHT_BY, TRANSFERS, Settings, WeaklySupervisedDetection
from udlib.methods.detection.students import (
    RegionStudent,
    ScaledStudent,
    detection_loss,
    feature_loss,
    prediction_loss,
    predictions_of,
)
from udlib.methods.moved import moved_names

__all__ = [
    "METHOD",
    "PARTS",
    "TAUGHT_BY",
    "TRANSFERS",
    "RegionStudent",
    "ScaledStudent",
    "Settings",
    "WeaklySupervisedDetection",
    "detection_loss",
    "feature_loss",
    "prediction_loss",
    "predictions_of",
]

__getattr__ = moved_names(
    __name__,
    train_detector="udlib.workshop.old_names:train_detector",
    train_taught="udlib.workshop.old_names:train_taught",
)
