"""What a training's settings may be and are by default, and what a history, an epoch, a batch and a log hold."""

import dataclasses
import inspect
import math
import random

import numpy as np
import pytest
import torch
from striped_images import QUICK, both_branches, net, striped_images

from udlib.training import History, Saving, Watch, evaluate, fit, predict
from udlib.training.batches import ArrayData
from udlib.training.optimization import TrainingConfig, generator, learning_rate, make_optimizer, mixed_seed

DEFAULTS = {
    "epochs": 40,
    "batch_size": 50,
    "optimizer": "adam",
    "lr": 3e-3,
    "head_lr": None,
    "freeze": 0,
    "weight_decay": 0.0,
    "momentum": 0.9,
    "schedule": "one-cycle",
    "warm_up": 0.25,
    "lr_end": 0.0,
    "ema": 0.0,
    "clip": 5.0,
    "precision": "auto",
    "seed": 0,
    "channels_last": True,
    "flip": True,
    "shift": 0,
    "erase": 0.0,
    "crop": 0,
    "crop_scales": (1.0, 0.875, 0.75, 0.66, 0.5),
    "compile": False,
    "workers": 0,
}


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")


def test_the_defaults_are_those_that_stored_results_were_trained_with():
    """A recipe's key leaves defaults out: another default would be another training under the old key."""
    assert dataclasses.asdict(TrainingConfig()) == DEFAULTS
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().epochs = 3


LEAST = {"epochs": 1, "batch_size": 1, "weight_decay": 0, "momentum": 0, "clip": 0, "seed": 0, "workers": 0, "crop": 0}


@pytest.mark.parametrize("name, least", LEAST.items())
def test_a_setting_reaches_down_to_its_least_value(name, least):
    assert getattr(TrainingConfig(**{name: least}), name) == least
    with pytest.raises(ValueError, match=f"{name} is {least - 1}: expected at least {least}"):
        TrainingConfig(**{name: least - 1})


@pytest.mark.parametrize("seed", [2**32, 2**32 + 1, 2**40])
def test_a_seed_is_one_that_numpy_takes(seed):
    with pytest.raises(ValueError, match=rf"seed is {seed}: expected less than 2\*\*32"):
        TrainingConfig(seed=seed)
    assert TrainingConfig(seed=2**32 - 1).seed == 2**32 - 1


@pytest.mark.parametrize("lr", [0, -1e-3, math.inf])
def test_a_learning_rate_is_a_number_above_zero(lr):
    with pytest.raises(ValueError, match=f"lr is {lr}: expected a number above 0"):
        TrainingConfig(lr=lr)
    assert TrainingConfig(lr=1e-9).lr == 1e-9 and TrainingConfig(lr=50.0).lr == 50


@pytest.mark.parametrize("name", ["warm_up", "ema", "lr_end"])
def test_a_share_lies_from_zero_to_below_one(name):
    for value in (0.0, 0.999):
        assert getattr(TrainingConfig(**{name: value}), name) == value
    for value in (-0.01, 1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"{name} is {value}: expected a share"):
            TrainingConfig(**{name: value})


def test_the_augmentation_has_the_settings_of_the_training():
    augment = TrainingConfig(flip=False, shift=3, erase=0.25, crop=16).augment
    assert (augment.flip, augment.shift, augment.erase, augment.crops.size) == (False, 3, 0.25, 16)
    assert TrainingConfig().augment.crops is None


def test_optimizers_have_their_settings():
    model = net()
    frozen = model.backbone[0].weight.requires_grad_(False)
    settings = TrainingConfig(lr=0.07, weight_decay=0.01, momentum=0.8)
    adam = make_optimizer(model, settings)
    sgd = make_optimizer(model, dataclasses.replace(settings, optimizer="sgd"))
    assert type(adam) is torch.optim.Adam and type(sgd) is torch.optim.SGD
    for group in (*adam.param_groups, *sgd.param_groups):
        assert group["lr"] == 0.07 and group["weight_decay"] == 0.01 and group["fused"]
        assert len(group["params"]) == len(list(model.parameters())) - 1
        assert not any(part is frozen for part in group["params"])
    assert sgd.param_groups[0]["momentum"] == 0.8


def test_seeds_are_mixed_by_numpy_into_31_bits():
    for key in ((0,), (1, 2), (2, 1), (5, 0, 1)):
        expected = int(np.random.SeedSequence(key).generate_state(1)[0]) // 2
        assert mixed_seed(*key) == expected == generator(*key).initial_seed() < 2**31
    assert len({mixed_seed(1, 2), mixed_seed(2, 1), mixed_seed(1), mixed_seed(1, 2, 1)}) == 4


def test_the_last_third_of_step_begins_with_its_first_whole_step():
    config = TrainingConfig(lr=1.0, schedule="step")
    for total in range(1, 13):
        rates = [learning_rate(step, total, config) for step in range(total)]
        assert rates == [1.0 if step < 2 * total / 3 else 0.1 for step in range(total)]


def test_cosine_falls_from_the_peak_towards_its_end():
    config = TrainingConfig(lr=0.4, schedule="cosine", lr_end=0.25)
    expected = [0.1 + 0.3 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert [learning_rate(step, 8, config) for step in range(8)] == pytest.approx(expected)


def test_one_cycle_begins_at_a_25th_and_ends_at_a_ten_thousandth_of_that():
    config = TrainingConfig(lr=1.0, warm_up=0.5)
    assert learning_rate(0, 10, config) == pytest.approx(1 / 25)
    assert learning_rate(4, 10, config) == 1.0 and learning_rate(9, 10, config) == pytest.approx(1 / 25e4)


@pytest.mark.parametrize(
    "function, defaults",
    [
        (fit, {"max_steps": None}),
        (Watch, {"every": 1, "select": "mAP", "keep": "last"}),
        (Saving, {"every": 1}),
        (predict, {"batch_size": 256, "precision": "auto", "calibration": True, "workers": 0}),
        (evaluate, {"scores": "sigmoid"}),
    ],
)
def test_the_defaults_of_the_loop(function, defaults):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in defaults} == defaults


def test_only_a_higher_number_is_an_improvement_and_the_first_one_always_is():
    history, best = History(), []
    for epoch, value in enumerate((-5.0, -5.0, math.nan, -6.0, -4.0), 1):
        history.rows.append({"epoch": epoch, "score": value})
        best.append((history.improved("score"), history.best_epoch))
    assert best == [(True, 1), (False, 1), (False, 1), (False, 1), (True, 5)]
    assert "best_weights" not in repr(history)


def test_losses_of_an_epoch_are_means_over_its_steps():
    values = []

    def loss(model, batch):
        terms = both_branches(model, batch)
        values.append([terms["ova"].item(), terms["pal_n"].item()])
        return terms

    history = fit(net(), striped_images(), loss, dataclasses.replace(QUICK, epochs=2))
    for row, steps in zip(history.rows, (values[:3], values[3:])):
        assert [row["ova"], row["pal_n"]] == pytest.approx(np.mean(steps, axis=0).tolist(), rel=1e-5)


def test_softmax_scores_are_ranked_by_softmax_and_have_no_nll():
    data, model = striped_images(30), net()
    logits = predict(model, data).logits
    measured = evaluate(model, data, "softmax")
    assert set(measured) == {"mAP"} and set(evaluate(model, data)) == {"mAP", "NLL"}
    from udlib.metrics import mean_average_precision

    assert measured["mAP"] == mean_average_precision(logits.softmax(1), data.targets)
    difficult = torch.zeros_like(data.targets, dtype=torch.bool)
    difficult[data.targets.bool().nonzero()[0][0]] = data.targets[data.targets.bool().nonzero()[0][0]].bool()
    marked = ArrayData(data.images, data.targets, difficult=difficult)
    expected = mean_average_precision(logits.softmax(1), data.targets, difficult)
    assert evaluate(model, marked, "softmax")["mAP"] == expected


def test_predictions_bring_the_labels_along():
    data = striped_images(7)
    marked = ArrayData(data.images, data.targets, difficult=data.targets.bool())
    found = predict(net(), marked, batch_size=3, precision="fp32")
    assert torch.equal(found.difficult, data.targets.bool()) and len(found.logits) == 7


def test_an_evaluation_does_without_the_calibration_branch():
    class Never(torch.nn.Module):
        def forward(self, features):
            raise AssertionError("nobody needs it")

    model = net()
    model.head.calibration = Never()
    assert 0 <= evaluate(model, striped_images(20))["mAP"] <= 1


@pytest.mark.parametrize("last", [True, False])
def test_weights_are_laid_out_as_the_settings_say(last):
    model, layouts = net(), []
    config = dataclasses.replace(QUICK, epochs=1, channels_last=last)
    weight = model.backbone[3].conv1.weight if hasattr(model.backbone[3], "conv1") else model.backbone[0].weight
    fit(
        model,
        striped_images(),
        both_branches,
        config,
        watch=Watch(on_epoch=lambda *_: layouts.append(weight.is_contiguous(memory_format=torch.channels_last))),
    )
    assert layouts == [last]


def test_the_progress_of_a_training_is_counted_in_images(tmp_path, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.steps, self.shown = options, [], []
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            self.steps.append(count)

        def set(self, **numbers):
            self.shown.append(numbers)

    monkeypatch.setattr("udlib.training.loop.track", Bar)
    numbers = iter([0.5, 0.6, 0.7, 0.8, 0.9])
    watch = Watch(lambda _: {"mAP": next(numbers)})
    options = {"saving": Saving(tmp_path / "run"), "watch": watch}
    fit(net(), striped_images(), both_branches, QUICK, **options)
    fit(net(), striped_images(), both_branches, QUICK, **options)
    (first, again) = bars
    assert (first.options["total"], first.options["initial"], first.options["silent"]) == (288, 0, False)
    assert first.steps == [32] * 9 and [shown["epoch"] for shown in first.shown] == [1, 2, 3]
    assert [shown["mAP"] for shown in first.shown] == [0.5, 0.6, 0.7] and set(first.shown[0]) == {
        "epoch",
        "total",
        "mAP",
    }
    assert (again.options["initial"], again.steps) == (288, [])


def test_order_and_augmentation_of_an_epoch_come_from_the_seed_and_the_epoch():
    """Stored results can be made again only while these are the generators."""
    orders, draws = [], []

    def augment(images, source, share):
        draws.append(torch.rand(2, generator=source))
        return images.float()

    def loss(model, batch):
        orders.append(batch.index)
        return both_branches(model, batch)

    config = dataclasses.replace(QUICK, epochs=2, batch_size=96, seed=7)
    fit(net(), striped_images(), loss, config, augment=augment)
    for epoch in (0, 1):
        assert torch.equal(orders[epoch], torch.randperm(96, generator=generator(7, epoch)))
        assert torch.equal(draws[epoch], torch.rand(2, generator=generator(7, epoch, 1)))


def test_global_generators_are_seeded_at_each_epoch():
    drawn = []

    def loss(model, batch):
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
        return both_branches(model, batch)

    config = dataclasses.replace(QUICK, epochs=2, batch_size=96, seed=7)
    fit(net(), striped_images(), loss, config)
    for epoch in (0, 1):
        seed = mixed_seed(7, epoch)
        expected = torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()
        assert drawn[epoch] == (expected, np.random.RandomState(seed).rand(), random.Random(seed).random())


def test_boxes_need_an_augmentation_that_says_what_it_mirrored():
    from udlib.datasets.proposals import grid_proposals

    data = striped_images(32)
    data = ArrayData(data.images, data.targets, proposals=grid_proposals(32))
    config = dataclasses.replace(QUICK, epochs=1)
    assert len(fit(net(), data, both_branches, config).rows) == 1
    with pytest.raises(ValueError, match="augment has no `mirrored`"):
        fit(net(), data, both_branches, config, augment=lambda images, source, share: images.float())
