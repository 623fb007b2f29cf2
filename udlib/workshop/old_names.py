"""The training functions of udlib 0.1, kept for one release: each makes a recipe of its arguments and calls `train`.

`options` are the fields of a recipe, and what 0.1 passed on to `training.fit`: validate, validate_every, select, keep,
on_epoch, checkpoint, checkpoint_every, identity, max_steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from udlib.methods import method_of, recipe
from udlib.methods.base import Recipe
from udlib.methods.teachers import require_same_classes
from udlib.training.loop import Saving, Watch
from udlib.training.optimization import TrainingConfig
from udlib.training.prediction import on_validation
from udlib.workshop.trainings import Trained, train, train_teacher


def train_supervised(data, config: TrainingConfig = TrainingConfig(), **options) -> Trained:
    """Train on hard labels; now `train(recipe("supervised", …), data)`."""
    return _warned("supervised", data, config, {"lam": 0.1, **options}, {})


def train_distilled(data, teacher: nn.Module, config: TrainingConfig = TrainingConfig(), **options) -> Trained:
    """Train on a teacher's answers; now `train(recipe("distillation", …), data, teachers={"teacher": …})`."""
    names = [options.pop(name, None) for name in ("teacher_classes", "classes")]
    if None not in names:
        require_same_classes(*names)
    return _warned("distillation", data, config, options, {"teacher": teacher})


def train_self_distilled(data, validation, config: TrainingConfig = TrainingConfig(), **options) -> Trained:
    """Train with a restart; now `train(recipe("self_distillation", …), data, watch=Watch(validate))`."""
    return _warned("self_distillation", data, config, {"validation": validation, **options}, {})


def train_parallel(
    data, config: TrainingConfig = TrainingConfig(), settings=None, *, teachers=None, only=None, **options
) -> Trained:
    """Train specialists and their student; now `train(recipe("parallel", …), data)`."""
    options = _settings(settings) | options
    return _warned("parallel", data, config, options, teachers, only)


def train_detector(data, config: TrainingConfig = TrainingConfig(), settings=None, **options) -> Trained:
    """Train a detector; now `train(recipe("detection", part="teacher", …), data)`."""
    return _warned("detection", data, config, _settings(settings) | {"part": "teacher"} | options, {})


def train_taught(data, teacher, config: TrainingConfig = TrainingConfig(), settings=None, **options) -> Trained:
    """Train a detector's student; now `train(recipe("detection", …), data, teachers={"teacher": …})`."""
    choices = _settings(settings) | options
    teachers = {"teacher": teacher} if choices.get("transfer") != "none" else {}
    return _warned("detection", data, config, choices, teachers)


def _settings(settings) -> dict[str, Any]:
    return {} if settings is None else asdict(settings)


def _warned(
    method: str,
    data,
    config: TrainingConfig,
    options: Mapping[str, Any],
    teachers: Mapping[str, nn.Module] | None,
    only: str | None = None,
) -> Trained:
    warnings.warn("udlib 0.3 removes this function: use `udlib.workshop.train`", DeprecationWarning, stacklevel=3)
    return train_flat(method, data, config, options, teachers, only)


def train_flat(
    method: str,
    data,
    config: TrainingConfig,
    options: Mapping[str, Any],
    teachers: Mapping[str, nn.Module] | None,
    only: str | None = None,
) -> Trained:
    """Sort flat options into a recipe, a watch and a checkpoint, and train."""
    options = dict(options)
    checkpoint, every = options.pop("checkpoint", None), options.pop("checkpoint_every", 1)
    folder = None if checkpoint is None else Path(checkpoint)
    saving = Saving(folder, every, options.pop("identity", None) or {})
    validate, validation = options.pop("validate", None), options.pop("validation", None)
    watching = {
        "every": options.pop("validate_every", 1),
        "select": options.pop("select", "mAP"),
        "on_epoch": options.pop("on_epoch", None),
    }
    max_steps, on_teacher = options.pop("max_steps", None), options.pop("on_teacher", None)
    order: Recipe = recipe(method, **{"embedding": 512, **options, **asdict(config)})
    if validate is None and validation is not None:
        validate = on_validation(validation, config, method_of(method).scores(order))
    if only is not None:
        return train_teacher(order, only, data, saving=saving, max_steps=max_steps)
    watch = Watch(validate, **watching)
    return train(order, data, teachers=teachers, watch=watch, saving=saving, max_steps=max_steps, on_teacher=on_teacher)
