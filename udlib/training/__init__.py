"""Training: one loop for every method, what it is fed with, where it computes, and what is measured of what comes out."""

from udlib.training.batches import ArrayData, Batch
from udlib.training.loop import History, Saving, Watch, fit
from udlib.training.optimization import TrainingConfig, learning_rate, mixed_seed
from udlib.training.prediction import Predictions, evaluate, on_validation, predict

__all__ = [
    "ArrayData",
    "Batch",
    "History",
    "Predictions",
    "Saving",
    "TrainingConfig",
    "Watch",
    "evaluate",
    "fit",
    "learning_rate",
    "mixed_seed",
    "on_validation",
    "predict",
]
