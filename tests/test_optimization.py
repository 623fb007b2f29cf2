"""The settings of a training, its learning rates, and the running average of the weights."""

import dataclasses
import math

import pytest
import torch
from striped_images import QUICK, both_branches, net, same_weights, striped_images
from torch import nn

from udlib.training import Watch, devices, evaluate, fit, predict
from udlib.training.optimization import TrainingConfig, learning_rate, running_average


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "epochs is 0: expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0: expected a number above 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"clip": -1.0}, "clip is -1.0: expected at least 0"),
        ({"weight_decay": math.nan}, "weight_decay is nan"),
        ({"warm_up": 1.0}, r"warm_up is 1.0: expected a share of the steps in \[0, 1\)"),
        ({"ema": 1.0}, r"ema is 1.0: expected a share of the steps in \[0, 1\)"),
        ({"lr_end": -0.1}, r"lr_end is -0.1: expected a share of lr in \[0, 1\)"),
        ({"crop": -1}, "crop is -1: expected at least 0"),
        ({"optimizer": "lion"}, "optimizer is 'lion': expected one of adam, adamw, sgd"),
        ({"schedule": "linear"}, "schedule is 'linear': expected one of one-cycle, cosine, step, constant"),
        ({"precision": "fp16"}, "precision is 'fp16': expected one of auto, bf16, fp32"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**change)


@pytest.mark.parametrize("total, warm_up", [(20, 0.25), (100, 0.1), (7, 0.3), (1000, 0.5)])
def test_one_cycle_is_torchs(total, warm_up):
    config = TrainingConfig(lr=0.3, warm_up=warm_up)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    shape = {"total_steps": total, "pct_start": warm_up, "cycle_momentum": False}
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, **shape)
    for step in range(total):
        assert learning_rate(step, total, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        if step < total - 1:
            optimizer.step()
            torchs.step()


def test_step_divides_the_rate_by_ten_for_the_last_third():
    config = TrainingConfig(lr=0.3, schedule="step")
    assert [learning_rate(step, 6, config) for step in range(6)] == pytest.approx([0.3] * 4 + [0.03] * 2)


@pytest.mark.parametrize("lr_end", [0.0, 0.1])
def test_cosine_is_torchs_and_constant_is_constant(lr_end):
    config = TrainingConfig(lr=0.3, schedule="cosine", lr_end=lr_end)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.3 * lr_end)
    for step in range(50):
        assert learning_rate(step, 50, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        torchs.step()
    assert {learning_rate(step, 50, TrainingConfig(lr=0.3, schedule="constant")) for step in range(50)} == {0.3}


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warm_up", [0.0, 0.25, 0.9])
def test_schedules_of_a_few_steps_stay_between_zero_and_the_peak(schedule, total, warm_up):
    config = TrainingConfig(lr=0.3, schedule=schedule, warm_up=warm_up)
    assert all(0 < learning_rate(step, total, config) <= 0.3 for step in range(total))


# The running average of the weights


def test_the_running_average_is_that_of_a_loop_written_by_hand():
    """Of the weights after each step, with the decay 1 − 1/(ema · steps); the first step's start it, not the random ones."""
    config = dataclasses.replace(QUICK, ema=0.4)  # 9 steps: a window of 3.6
    path: list[dict] = []

    def recorded(model, batch):
        path.append({name: value.detach().clone() for name, value in model.state_dict().items()})
        return both_branches(model, batch)

    plain, averaged = net(), net()
    fit(plain, striped_images(), recorded, QUICK)
    path.append(plain.state_dict())
    seen = []
    fit(
        averaged,
        striped_images(),
        both_branches,
        config,
        watch=Watch(on_epoch=lambda epoch, model, row: seen.append(model)),
    )
    by_hand, decay = dict(path[1]), 1 - 1 / 3.6
    # Batch statistics change in the forward pass: what stands after a step is what the next one finds, or the end.
    for after in path[2:]:
        by_hand = {
            name: decay * value + (1 - decay) * after[name] if value.is_floating_point() else after[name]
            for name, value in by_hand.items()
        }
    found = averaged.state_dict()
    for name, value in by_hand.items():
        if value.is_floating_point():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5)
    assert not same_weights(plain, averaged) and seen[-1] is not averaged and same_weights(seen[-1], averaged)


def test_the_average_is_what_is_validated_and_kept():
    data = striped_images()
    config = dataclasses.replace(QUICK, ema=0.4)
    states = []

    def validate(model):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mAP": (0.1, 0.9, 0.2)[len(states) - 1]}

    for keep, kept in (("best", 1), ("last", 2)):
        states.clear()
        model = net()
        history = fit(model, data, both_branches, config, watch=Watch(validate=validate, keep=keep))
        assert all(torch.equal(value, states[kept][name]) for name, value in model.state_dict().items())
        assert all(torch.equal(value, states[1][name]) for name, value in history.best_weights.items())


def test_the_window_is_the_same_part_of_a_short_training_as_of_a_long_one():
    """PSD's 0.9997 at 80 COCO epochs; and weights that stand still are their own average, however short the training."""
    steps = 80 * (82783 // 128)
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    for total, decay in ((steps, 0.9997), (2000, 1 - 1 / 130), (3, 0.0)):
        average = running_average(model, TrainingConfig(ema=0.065), total)
        average.update_parameters(model)
        one = nn.Linear(1, 1, bias=False)
        nn.init.ones_(one.weight)
        average.update_parameters(one)
        assert average.module.weight.item() == pytest.approx(1 - decay, rel=0.01)


# Multi-scale crops


def test_training_sees_crops_and_evaluation_whole_images_of_their_size():
    data, sides = striped_images(48, size=24), {True: set(), False: set()}

    def watched(model):
        model.register_forward_pre_hook(lambda module, given: sides[module.training].add(tuple(given[0].shape[-2:])))
        return model

    config = dataclasses.replace(QUICK, epochs=1, crop=16)
    model = watched(net())
    fit(
        model,
        data,
        both_branches,
        config,
        watch=Watch(validate=lambda model: evaluate(model, data, prepare=config.prepare)),
    )
    assert sides == {True: {(16, 16)}, False: {(16, 16)}}
    whole = dataclasses.replace(config, crop=0)
    assert torch.equal(predict(model, data, prepare=whole.prepare).logits, predict(model, data).logits)
    assert (24, 24) in sides[False]


def test_crops_are_drawn_anew_for_each_image_and_epoch_and_repeat_with_the_seed():
    def views(seed):
        seen = []

        def loss(model, batch):
            seen.append(batch.images[batch.index.argsort()].clone())
            return both_branches(model, batch)

        fit(net(), striped_images(32, size=24), loss, dataclasses.replace(QUICK, epochs=2, crop=16, seed=seed))
        return seen

    first, again, other = views(0), views(0), views(1)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


# torch.compile


def test_training_steps_go_through_the_compiled_backbone_and_nothing_else_does(monkeypatch):
    taken = []

    def backend(graph, inputs):
        def call(*arguments):
            taken.append(1)
            return graph.forward(*arguments)

        return call

    usual = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: usual(function, backend=backend))
    data, plain, compiled = striped_images(), net(), net()
    fit(plain, data, both_branches, QUICK)
    during = []

    def validate(model):
        before = len(taken)
        numbers = evaluate(model, data)
        during.append(len(taken) - before)
        return numbers

    fit(compiled, data, both_branches, dataclasses.replace(QUICK, compile=True), watch=Watch(validate=validate))
    assert len(taken) >= 9 and during == [0, 0, 0]
    for name, value in compiled.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], atol=1e-5, rtol=1e-4)
    before = len(taken)
    compiled.train()(torch.zeros(2, 3, 16, 16))
    assert len(taken) == before, "after the training the network is as ever"


def test_where_nothing_compiles_that_is_said_and_training_goes_on(monkeypatch):
    def broken(function, **_):
        raise OSError("no C++ compiler\nsecond line")

    monkeypatch.setattr(torch, "compile", broken)
    plain, other = net(), net()
    fit(plain, striped_images(), both_branches, QUICK)
    with pytest.warns(
        UserWarning, match=r"torch.compile does not work here \(no C\+\+ compiler\): training goes on without it"
    ):
        fit(other, striped_images(), both_branches, dataclasses.replace(QUICK, compile=True))
    assert same_weights(plain, other)
    assert devices.compiled_or_not(plain, False).__enter__() is None
