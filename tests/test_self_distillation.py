"""Two halves with one restart: what teaches the second, and that a kill anywhere leads to the same network."""

import dataclasses

import pytest
import torch
from striped_images import QUICK, same_weights, striped_images
from trainings import train_self_distilled, train_supervised

from udlib.course import store as experiments
from udlib.course.store import recipe
from udlib.methods import self_distillation
from udlib.training import evaluate, fit, prediction
from udlib.workshop import trainings as workshop

CONFIG = dataclasses.replace(QUICK, epochs=3, batch_size=16, schedule="cosine")
SMALL = {"network": "small_narrow", "embedding": 8}


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")


@pytest.fixture(scope="module")
def splits():
    return striped_images(48), striped_images(32, seed=1)


def test_the_first_half_is_supervised_training_and_the_rate_starts_again(splits):
    data, held_out = splits
    _, history = train_self_distilled(data, held_out, CONFIG, lam=0.5, **SMALL)
    _, alone = train_supervised(data, CONFIG, lam=0.5, validation=held_out, **SMALL)
    assert history.column("epoch") == [1, 2, 3, 4, 5, 6] and history.column("half") == [1, 1, 1, 2, 2, 2]
    assert history.column("total")[:3] == alone.column("total") and history.column("mAP")[:3] == alone.column("mAP")
    assert history.column("lr")[3:] == history.column("lr")[:3]
    assert "pal_n" in history.rows[2] and "attention" in history.rows[3] and "ova" not in history.rows[3]


def test_the_teacher_of_the_second_half_is_the_best_of_the_first(splits, monkeypatch):
    data, held_out = splits
    seen = []
    plain = self_distillation.teacher_answers

    def watched(teacher, *values, **options):
        seen.append({name: value.clone() for name, value in teacher.state_dict().items()})
        return plain(teacher, *values, **options)

    monkeypatch.setattr(self_distillation, "teacher_answers", watched)
    maps = iter(
        [0.2, 0.9, 0.4, 0.5, 0.3, 0.1]
    )  # the second epoch is the best of the first half, the fourth of the other
    monkeypatch.setattr(prediction, "evaluate", lambda *_, **__: {"mAP": next(maps)})
    _, history = train_self_distilled(data, held_out, CONFIG, lam=0.5, **SMALL)
    states = []
    train_supervised(
        data,
        CONFIG,
        lam=0.5,
        on_epoch=lambda epoch, model, row: states.append(
            {name: value.clone() for name, value in model.state_dict().items()}
        ),
        **SMALL,
    )
    assert all(torch.equal(seen[-1][name], value) for name, value in states[1].items())
    assert history.best_epoch == 4


def test_without_distillation_the_second_half_stays_on_hard_labels(splits):
    _, history = train_self_distilled(*splits, CONFIG, lam=0.5, distil=False, **SMALL)
    assert "pal_n" in history.rows[-1] and "attention" not in history.rows[-1] and len(history.rows) == 6


def test_the_second_half_sees_the_batches_in_another_order(splits, monkeypatch):
    orders = []
    plain = fit
    monkeypatch.setattr(
        workshop,
        "fit",
        lambda model, data, loss_fn, config, **options: (
            orders.append(config.seed) or plain(model, data, loss_fn, config, **options)
        ),
    )
    train_self_distilled(*splits, dataclasses.replace(CONFIG, epochs=1), distil=False, **SMALL)
    assert len(set(orders)) == 2


class Killed(Exception):
    """Stands in for a kill: nothing handles it."""


@pytest.mark.parametrize("at", [(1, 2), (1, 3), (2, 1), (2, 2)])
def test_a_kill_at_any_epoch_or_at_the_restart_is_resumed_to_the_same_network(splits, tmp_path, at):
    whole, complete = train_self_distilled(*splits, CONFIG, **SMALL)
    halves = []

    def kill(epoch, model, row):
        halves.append(epoch)
        half = 1 + (len(halves) > CONFIG.epochs)
        if (half, epoch - (half - 1) * CONFIG.epochs) == at:
            raise Killed

    with pytest.raises(Killed):
        train_self_distilled(*splits, CONFIG, checkpoint=tmp_path, on_epoch=kill, **SMALL)
    resumed, history = train_self_distilled(*splits, CONFIG, checkpoint=tmp_path, **SMALL)
    assert same_weights(whole, resumed)
    assert history.column("total") == complete.column("total") and history.best_epoch == complete.best_epoch


def test_a_second_half_of_another_first_half_is_refused(splits, tmp_path):
    train_self_distilled(*splits, CONFIG, checkpoint=tmp_path, **SMALL)
    for file in (tmp_path / "1").iterdir():
        file.unlink()
    data, held_out = splits
    changed = dataclasses.replace(data, images=255 - data.images)  # the same labels, other pixels
    with pytest.raises(ValueError, match="after stage 1: saved '.*', now"):
        train_self_distilled(changed, held_out, CONFIG, checkpoint=tmp_path, **SMALL)


def test_settings_that_cannot_be_distilled_are_refused_before_training(splits, monkeypatch):
    monkeypatch.setattr(workshop, "fit", None)
    with pytest.raises(ValueError, match="no calibration branch"):
        train_self_distilled(*splits, CONFIG, lam=0.0, **SMALL)
    with pytest.raises(ValueError, match="beta is -1"):
        train_self_distilled(*splits, CONFIG, beta=-1, **SMALL)


def test_keep_best_ends_with_the_best_of_the_second_half(splits):
    data, held_out = splits
    model, history = train_self_distilled(data, held_out, CONFIG, keep="best", **SMALL)
    assert history.best_epoch > CONFIG.epochs
    best = next(row for row in history.rows if row["epoch"] == history.best_epoch)
    assert evaluate(model, held_out, precision="fp32")["mAP"] == best["mAP"]


def test_self_distillation_is_a_recipe(monkeypatch, tmp_path):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    run = experiments.load_or_run(recipe("self_distillation", network="small_narrow"))
    assert len(run.history) == 4 and run.metrics["test"]["mAP"] > 0
    assert experiments.load(run.recipe).history == run.history
