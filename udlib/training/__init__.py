"""Training: one loop for every method, what it is fed with, where it computes, and what is measured of what comes out."""

from udlib.training.batches import ArrayData, Batch
from udlib.training.loop import History, Predictions, evaluate, fit, predict
from udlib.training.optimization import TrainingConfig, learning_rate, mixed_seed

__all__ = [
    "ArrayData",
    "Batch",
    "History",
    "Predictions",
    "TrainingConfig",
    "evaluate",
    "fit",
    "learning_rate",
    "mixed_seed",
    "predict",
]
