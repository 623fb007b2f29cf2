"""Trainings with all choices flat, as tests write them: fields of a recipe, of `Watch` and of `Saving` side by side."""

from dataclasses import asdict

from udlib.training import Saving, TrainingConfig, Watch, fit
from udlib.workshop.old_names import train_flat


def train_supervised(data, config=TrainingConfig(), **options):
    return train_flat("supervised", data, config, {"lam": 0.1, **options}, {})


def train_distilled(data, teacher, config=TrainingConfig(), **options):
    return train_flat("distillation", data, config, options, {"teacher": teacher})


def train_self_distilled(data, validation, config=TrainingConfig(), **options):
    return train_flat("self_distillation", data, config, {"validation": validation, **options}, {})


def train_parallel(data, config=TrainingConfig(), settings=None, *, teachers=None, only=None, **options):
    return train_flat("parallel", data, config, of(settings) | options, teachers, only)


def train_detector(data, config=TrainingConfig(), settings=None, **options):
    return train_flat("detection", data, config, of(settings) | {"part": "teacher"} | options, {})


def train_taught(data, teacher, config=TrainingConfig(), settings=None, **options):
    choices = of(settings) | options
    return train_flat(
        "detection", data, config, choices, {"teacher": teacher} if choices.get("transfer") != "none" else {}
    )


def of(settings):
    """The fields of a method's settings."""
    return {} if settings is None else asdict(settings)


WATCHING = {
    "validate": "validate",
    "validate_every": "every",
    "select": "select",
    "keep": "keep",
    "on_epoch": "on_epoch",
}
SAVING = {"checkpoint": "folder", "checkpoint_every": "every", "identity": "identity"}


def fit_flat(model, data, loss_fn, config=TrainingConfig(), **options):
    """`training.fit` with the fields of `Watch` and `Saving` side by side."""
    watch = Watch(**{WATCHING[name]: options.pop(name) for name in WATCHING if name in options})
    saving = Saving(**{SAVING[name]: options.pop(name) for name in SAVING if name in options})
    return fit(model, data, loss_fn, config, watch=watch, saving=saving, **options)
