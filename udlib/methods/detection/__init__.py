"""Distillation from weakly-supervised detection: `method` declares it, `network` is the detector."""

from udlib.methods.detection.method import *  # noqa: F403
