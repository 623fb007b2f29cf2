"""Calibration and knowledge distillation for multi-label image classification: the package of the course."""

__version__ = "0.1.0"
