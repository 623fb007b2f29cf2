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
