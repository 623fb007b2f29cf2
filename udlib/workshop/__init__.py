"""The workshop: the only place that trains a method, on data it is handed, and what makes a model's folder of the result."""

from udlib.workshop.fitted_images import measured, notes_on_fitting
from udlib.workshop.model_folders import open_splits, partitioned, train_model
from udlib.workshop.report import evaluation_page
from udlib.workshop.settings import settings
from udlib.workshop.splits import aligned, array_data, numbers_of, say_left_out
from udlib.workshop.starts import NewHead
from udlib.workshop.thresholds import decision_sentence, fit_thresholds, threshold_note
from udlib.workshop.trainings import Trained, train, train_teacher

__all__ = [
    "NewHead",
    "Trained",
    "aligned",
    "array_data",
    "decision_sentence",
    "evaluation_page",
    "fit_thresholds",
    "measured",
    "notes_on_fitting",
    "numbers_of",
    "open_splits",
    "partitioned",
    "say_left_out",
    "settings",
    "threshold_note",
    "train",
    "train_model",
    "train_teacher",
]
