import dataclasses
import math

import pytest
import torch
from striped_images import QUICK, both_branches, net, same_weights, striped_images
from torch.nn import functional as F
from trainings import fit_flat

from udlib.datasets.transforms import normalise
from udlib.losses import dual_branch_loss, ova_loss
from udlib.training import History, Watch, evaluate, fit, predict
from udlib.training.batches import ArrayData
from udlib.training.optimization import TrainingConfig, learning_rate


def test_fit_equals_a_loop_written_by_hand():
    data = striped_images(40)
    plain = {"optimizer": "sgd", "schedule": "constant", "clip": 0, "flip": False, "shift": 0, "precision": "fp32"}
    config = TrainingConfig(epochs=2, batch_size=8, lr=0.05, weight_decay=1e-4, **plain)
    model, by_hand, seen = net(), net(), []

    def recorded(model, batch):
        seen.append(batch.index)
        return both_branches(model, batch)

    history = fit(model, data, recorded, config)

    by_hand.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    totals = []
    for rows in seen:
        found = by_hand(normalise(data.images[rows]).contiguous(memory_format=torch.channels_last))
        loss = dual_branch_loss(found, data.targets[rows], lam=0.5)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, by_hand.state_dict()[name])
    assert history.column("total") == pytest.approx([sum(totals[:5]) / 5, sum(totals[5:]) / 5])


def test_an_epoch_shows_every_image_once_in_an_order_of_seed_and_epoch():
    def orders(seed):
        seen = []

        def loss(model, batch):
            seen.append(batch.index)
            return {"total": model(batch.images).logits.sum()}

        config = dataclasses.replace(QUICK, epochs=2, batch_size=10, seed=seed)
        fit(net(), striped_images(30), loss, config)
        return torch.cat(seen).reshape(2, 30).tolist()

    first, second = orders(0)
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second and orders(0) == [first, second] and orders(1)[0] != first


def test_an_incomplete_last_batch_is_left_out_and_a_small_set_is_one_batch():
    sizes = []

    def loss(model, batch):
        sizes.append(len(batch.index))
        return {"total": model(batch.images).logits.sum()}

    fit(net(), striped_images(30), loss, dataclasses.replace(QUICK, epochs=1, batch_size=8))
    assert sizes == [8, 8, 8]
    sizes.clear()
    fit(net(), striped_images(5), loss, dataclasses.replace(QUICK, epochs=2, batch_size=8))
    assert sizes == [5, 5]


@pytest.mark.parametrize("optimizer, lr", [("adam", 0.01), ("sgd", 0.02)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_separable_problem_is_learnt(optimizer, lr, precision):
    train, test = striped_images(128), striped_images(64, seed=1)
    config = TrainingConfig(epochs=6, batch_size=16, optimizer=optimizer, lr=lr, precision=precision, shift=1)
    model = net()
    history = fit(model, train, both_branches, config)
    losses = history.column("total")
    assert losses[-1] < 0.5 * losses[0]
    assert evaluate(model, test, precision=precision)["mAP"] > 0.98


def test_history_has_a_row_per_epoch_with_terms_rate_speed_and_validation():
    numbers = iter([0.25, 0.75, 0.5])
    told = []
    history = fit(
        net(),
        striped_images(),
        both_branches,
        QUICK,
        watch=Watch(
            validate=lambda model: {"mAP": next(numbers)},
            on_epoch=lambda epoch, model, row: told.append((epoch, row["mAP"])),
        ),
    )
    assert history.column("epoch") == [1, 2, 3] and history.column("mAP") == [0.25, 0.75, 0.5]
    assert told == [(1, 0.25), (2, 0.75), (3, 0.5)] and history.best_epoch == 2
    for row in history.rows:
        assert row["total"] == pytest.approx(row["ova"] + 0.5 * row["pal_n"], rel=1e-5)
        assert row["seconds"] > 0 and row["images_per_second"] == pytest.approx(96 / row["seconds"])
    assert history.column("lr") == [learning_rate(step, 9, QUICK) for step in (2, 5, 8)]


def test_validation_comes_at_its_interval_and_after_the_last_epoch():
    config = dataclasses.replace(QUICK, epochs=5)
    rising = iter([0.1, 0.2, 0.3])
    options = {"validate": lambda _: {"mAP": next(rising)}, "validate_every": 2}
    history = fit_flat(net(), striped_images(), both_branches, config, **options)
    assert [row.get("mAP") for row in history.rows] == [None, 0.1, None, 0.2, 0.3] and history.best_epoch == 5


def test_ignored_labels_leave_the_loss():
    data = striped_images()
    ignore = torch.rand(data.targets.shape) < 0.3
    one, other = net(), net()
    wrong = torch.where(ignore, 1 - data.targets, data.targets)
    fit(one, ArrayData(data.images, data.targets, ignore=ignore), both_branches, QUICK)
    fit(other, ArrayData(data.images, wrong, ignore=ignore), both_branches, QUICK)
    assert same_weights(one, other)


def test_an_augmentation_of_ones_own_gets_uint8_images_and_a_generator():
    given = []

    def augment(images, generator, share):
        given.append((images.dtype, share, torch.rand(1, generator=generator).item()))
        return images.float()

    fit(net(), striped_images(), both_branches, dataclasses.replace(QUICK, epochs=2), augment=augment)
    assert {(dtype, share) for dtype, share, _ in given} == {(torch.uint8, (0, 1))}
    assert len({draw for *_, draw in given}) == len(given) == 6


def test_max_steps_ends_training_and_its_schedule():
    seen = []

    def loss(model, batch):
        seen.append(batch.index)
        return both_branches(model, batch)

    history = fit(net(), striped_images(), loss, QUICK, max_steps=4)
    assert len(seen) == 4 and len(history.rows) == 2
    assert history.rows[-1]["lr"] == learning_rate(3, 4, QUICK) == pytest.approx(QUICK.lr / 25e4)


def test_one_seed_gives_one_network_and_another_seed_another():
    one, again, other = net(), net(), net()
    fit(one, striped_images(), both_branches, QUICK)
    fit(again, striped_images(), both_branches, QUICK)
    fit(other, striped_images(), both_branches, dataclasses.replace(QUICK, seed=1))
    assert same_weights(one, again) and not same_weights(one, other)


def test_keep_best_ends_with_the_best_epochs_weights_and_keep_last_with_the_last():
    snapshots = []

    def run(keep):
        numbers = iter([0.5, 0.9, float("nan")])
        snapshots.clear()
        model = net()
        fit(
            model,
            striped_images(),
            both_branches,
            QUICK,
            watch=Watch(
                validate=lambda model: {"score": next(numbers)},
                select="score",
                keep=keep,
                on_epoch=lambda epoch, model, row: snapshots.append([value.clone() for value in model.parameters()]),
            ),
        )
        return list(model.parameters())

    assert all(map(torch.equal, run("best"), snapshots[1]))
    assert all(map(torch.equal, run("last"), snapshots[2]))


def test_the_gradient_is_clipped_to_the_stated_norm():
    lengths = []
    for clip in (0, 1e-3):
        model = net()
        before = torch.cat([value.detach().flatten() for value in model.parameters()])
        plain = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0, "schedule": "constant"}
        config = dataclasses.replace(QUICK, epochs=1, batch_size=96, clip=clip, **plain)
        fit(model, striped_images(), both_branches, config)
        after = torch.cat([value.detach().flatten() for value in model.parameters()])
        lengths.append((after - before).norm().item())
    assert lengths[0] > 0.1 and lengths[1] == pytest.approx(1e-3, rel=1e-2)


def test_predictions_are_the_networks_own_in_order_whatever_the_batch_size():
    data, model = striped_images(23), net().eval()
    with torch.no_grad():
        expected = model(normalise(data.images))
    for size in (5, 23, 100):
        found = predict(model, data, batch_size=size, precision="fp32")
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.calibration_logits, expected.calibration_logits)
        assert torch.equal(found.targets, data.targets) and found.difficult is None
        assert found.logits.dtype == torch.float32 and not found.logits.requires_grad


def test_the_calibration_branch_is_dropped_only_by_the_argument():
    data = striped_images(6)
    assert predict(net(), data, calibration=False).calibration_logits is None
    assert predict(net(calibration=False), data).calibration_logits is None
    assert predict(net(), data).calibration_logits.shape == (6, 3)


def test_prediction_leaves_every_module_in_its_mode_and_the_statistics_alone():
    model = net().train()
    model.backbone[3].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict(model, striped_images(6))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_evaluate_ignores_difficult_labels_in_map_and_not_in_nll():
    data, model = striped_images(50), net()
    difficult = data.targets.bool() & (torch.rand(50, 3) < 0.5)
    marked = ArrayData(data.images, data.targets, difficult=difficult)
    found = predict(model, marked, precision="fp32").logits
    averages = []
    for c in range(3):  # the mean of the precisions at the positives, among the labels that are not difficult
        rows = [i for i in found[:, c].argsort(descending=True).tolist() if not difficult[i, c]]
        hits = [data.targets[i, c].item() for i in rows]
        averages.append(sum(sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit) / sum(hits))
    measured = evaluate(model, marked, precision="fp32")
    assert measured["mAP"] == pytest.approx(sum(averages) / 3)
    nll = F.binary_cross_entropy(found.sigmoid(), data.targets.float()).item()
    assert measured["NLL"] == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_batch_that_is_not_finite_stops_at_once_and_names_its_images(poison):
    data = striped_images()
    batches = []

    def loss(model, batch):
        batches.append(batch.index)
        ova = ova_loss(model(batch.images).logits, batch.targets)
        if len(batches) == 5:
            ova = ova * math.nan if poison == "loss" else ova + (model.head.classification.bias * 0).abs().sqrt().sum()
        return {"total": ova, "ova": ova}

    model = net()
    weights = []
    with pytest.raises(FloatingPointError) as error:
        fit(
            model,
            data,
            loss,
            QUICK,
            watch=Watch(on_epoch=lambda *_: weights.append(model.head.classification.weight.clone())),
        )
    message = str(error.value)
    assert "epoch 2, step 2: total " in message and "ova " in message and f"rows {batches[-1].tolist()}" in message
    assert len(batches) == 5 and torch.isfinite(model.head.classification.weight).all()


def test_a_training_set_without_positives_is_refused_before_training():
    data = striped_images()
    with pytest.raises(ValueError, match="none of the 96 training images has a positive label"):
        fit(net(), ArrayData(data.images, torch.zeros_like(data.targets)), both_branches, QUICK)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"keep": "best"}, "keep is 'best': expected 'last', or 'best' together with validate"),
        ({"keep": "first"}, "keep is 'first'"),
        ({"max_steps": 0}, "max_steps is 0: expected at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"validate_every": 0}, "validate_every is 0"),
        ({"validate": lambda model: {"NLL": 1.0}}, "an epoch has no 'mAP', only .*NLL: pass one of these as select="),
        ({"validate": lambda model: {"mAP": math.nan}, "keep": "best"}, "'mAP' was not finite after any epoch"),
    ],
)
def test_arguments_of_fit_that_cannot_be_meant_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit_flat(net(), striped_images(), both_branches, dataclasses.replace(QUICK, epochs=1), **change)


def test_a_history_lists_a_number_through_the_epochs_that_have_it():
    assert History([{"epoch": 1}, {"epoch": 2, "mAP": 0.5}]).column("mAP") == [0.5]
