"""The workshop: the only place that trains a method, on data it is handed, and what makes a model's folder of the result."""

from udlib.workshop.model_folders import open_splits, partitioned, train_model
from udlib.workshop.settings import settings
from udlib.workshop.splits import aligned, array_data, measured, say_left_out
from udlib.workshop.starts import NewHead
from udlib.workshop.trainings import Trained, train, train_teacher

__all__ = [
    "NewHead",
    "Trained",
    "aligned",
    "array_data",
    "measured",
    "open_splits",
    "partitioned",
    "say_left_out",
    "settings",
    "train",
    "train_model",
    "train_teacher",
]
