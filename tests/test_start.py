"""A training that begins with another recipe's trained weights, a weight that ramps up, and what a distillation may choose."""

import dataclasses
import hashlib
from dataclasses import asdict

import pytest
import torch
from striped_images import QUICK, same_weights, striped_images

from udlib.methods import needs_of, recipe
from udlib.methods.base import make_network
from udlib.methods.distillation import Settings
from udlib.training import Saving, Watch
from udlib.training.checkpoints import load_checkpoint, require_same, save_checkpoint
from udlib.workshop import train, train_teacher

CONFIG = dataclasses.replace(QUICK, epochs=1, batch_size=16)
SMALL = {"network": "small_narrow", "embedding": 8, **asdict(CONFIG)}
# A rate so small that no weight in single precision moves.
STILL = SMALL | {"lr": 1e-30, "optimizer": "sgd", "weight_decay": 0.0, "schedule": "constant"}


@pytest.fixture(scope="module")
def data():
    return striped_images(32)


def network(seed=7, lam=0.1, classes=3, name="small_narrow"):
    torch.manual_seed(seed)
    return make_network(classes, lam, name, embedding=8)


def test_a_start_is_the_recipe_itself_but_for_what_it_says():
    begin = {"method": "supervised", "lam": 0.1}
    student = recipe("distillation", **SMALL | {"seed": 3}, beta=0.7, start=begin)
    needs = needs_of(student)
    assert needs == {
        "teacher": recipe(**SMALL | {"seed": 3, "network": "small_wide", "lam": 0.1}),
        "start": recipe(**SMALL | {"seed": 3, "lam": 0.1}),
    }
    hard = recipe(**SMALL, lam=1.0, start={"lam": 0.1, "lr": 0.5})
    assert needs_of(hard) == {"start": recipe(**SMALL | {"lr": 0.5}, lam=0.1)}
    assert needs_of(recipe(**SMALL)) == {}


def test_a_start_as_dict_and_as_pairs_in_any_order_is_one_recipe():
    pairs = (("lr", 0.5), ("lam", 0.1))
    one, other = recipe(start=dict(pairs)), recipe(start=pairs)
    assert one == other and one.key == other.key != recipe().key and hash(one) == hash(other)
    assert one.but(seed=1).start == one.start
    with pytest.raises(ValueError, match="a 'supervised' recipe has no field 'lamb': did you mean 'lam'"):
        needs_of(recipe(start={"lamb": 0.1}))
    with pytest.raises(ValueError, match="unknown method 'magic'"):
        needs_of(recipe(start={"method": "magic"}))


def test_a_training_begins_with_exactly_these_weights(data):
    start, firsts = network(), []
    student = recipe(**STILL, lam=0.1, start={"lam": 0.5})
    trained = train(student, data, teachers={"start": start}, watch=Watch(on_epoch=lambda *_: firsts.append(1))).network
    assert firsts == [1]
    for (name, value), expected in zip(trained.named_parameters(), start.parameters()):
        torch.testing.assert_close(value, expected, atol=1e-25, rtol=0, msg=name)
    assert same_weights(start, network()), "the start itself stays as it is"


def test_a_calibration_branch_that_the_student_lacks_is_dropped(data):
    start = network()
    trained = train(recipe(**STILL, lam=0.0, start={"lam": 0.1}), data, teachers={"start": start}).network
    assert trained.head.calibration is None
    assert torch.equal(trained.head.classification.weight, start.head.classification.weight)


@pytest.mark.parametrize(
    "start, complaint",
    [
        (network(classes=4), r"its 'head.calibration.3.bias' is \(4,\), and the network .* has \(3,\)"),
        (network(name="small"), r"the start does not fit: its 'backbone.0.weight' is \(32, 3, 5, 5\)"),
    ],
)
def test_other_shapes_and_other_classes_are_refused(data, start, complaint):
    with pytest.raises(ValueError, match=f"{complaint}.*start from the same network, with as many classes"):
        train(recipe(**SMALL, lam=0.1, start={"lam": 0.5}), data, teachers={"start": start})


def test_a_start_without_the_branch_that_the_student_has_is_refused(data):
    with pytest.raises(
        ValueError,
        match=r"has no calibration branch, .*take a start with λ > 0, or .* \(--lam 0; .* --alpha 0 --beta 0\)",
    ):
        train(recipe(**SMALL, lam=0.1, start={"lam": 0.5}), data, teachers={"start": network(lam=0.0)})


@pytest.mark.parametrize(
    "other",
    [{"classes": (2, 1, 0)}, {"data": "digits"}, {"network": "small"}, {"pooling": "max"}],
    ids=lambda d: next(iter(d)),
)
def test_a_start_on_other_data_or_of_another_network_is_refused_before_anything_is_trained(other):
    (name,) = other
    with pytest.raises(ValueError, match=f"start has {name}=.* but the recipe has .*: .* leave {name} out of start"):
        needs_of(recipe(**SMALL, lam=0.1, classes=(0, 1, 2), start=other))


def test_another_start_is_refused_on_resume(data, tmp_path):
    student, saving = recipe(**SMALL, lam=0.1, start={"lam": 0.5}), Saving(tmp_path)
    train(student, data, teachers={"start": network()}, saving=saving)
    with pytest.raises(ValueError, match="belongs to another training .*teacher start: saved '.*', now '"):
        train(student, data, teachers={"start": network(8)}, saving=saving)


def test_a_start_that_nobody_brings_is_trained_first_and_the_student_is_the_same(data, tmp_path):
    student, names = recipe(**SMALL, lam=1.0, start={"lam": 0.1}), []
    start = train_teacher(student, "start", data).network
    assert same_weights(start, train(recipe(**SMALL, lam=0.1), data).network)
    brought = train(student, data, teachers={"start": start})
    alone = train(student, data, saving=Saving(tmp_path), on_teacher=lambda name, _: names.append(name))
    assert names == ["start"] and same_weights(alone.network, brought.network)
    assert not same_weights(alone.network, train(recipe(**SMALL, lam=1.0), data).network)


def test_a_start_may_be_brought_for_any_recipe_and_its_teachers_are_trained(data):
    start, names = network(lam=0.0), []
    student = recipe("distillation", **STILL, alpha=0.0, beta=0.0, teacher="small_narrow")
    trained = train(student, data, teachers={"start": start}, on_teacher=lambda name, _: names.append(name)).network
    assert names == ["teacher"]
    assert torch.equal(trained.backbone[0].weight, start.backbone[0].weight)
    with pytest.raises(ValueError, match="the teachers are teacher: expected teacher, start"):
        train(student.but(start={"method": "supervised"}), data, teachers={"teacher": network()})


# Checkpoints of a version that lacked a field


def test_a_field_that_a_checkpoint_lacks_stands_for_its_default(data, tmp_path):
    student = recipe("distillation", **SMALL)
    teachers = {"teacher": network()}
    whole = train(student, data, teachers=teachers, saving=Saving(tmp_path)).network
    tensors, state = load_checkpoint(tmp_path)
    new = ("start", "teacher_size", "teacher_training", "weighting", "over_classes", "ramp", "config.freeze")
    for name in new:
        assert name in state["identity"]
        del state["identity"][name]
    kept = {name: state[name] for name in ("identity", "rows", "best_epoch")}
    save_checkpoint(tmp_path, tensors, kept)
    assert same_weights(whole, train(student, data, teachers=teachers, saving=Saving(tmp_path)).network)
    for change in ({"weighting": "released"}, {"freeze": 1}):
        with pytest.raises(ValueError, match="belongs to another training"):
            train(student.but(**change), data, teachers=teachers, saving=Saving(tmp_path))


def test_defaults_stand_in_for_what_is_missing_and_for_nothing_else(tmp_path):
    require_same({"a": 1}, {"a": 1, "b": (2, 3)}, tmp_path, {"b": [2, 3], "c": 4})
    for saved in ({"a": 1, "b": [2, 4]}, {"a": 2}, {"a": 1, "c": 5}):
        with pytest.raises(ValueError, match="belongs to another training"):
            require_same(saved, {"a": 1, "b": (2, 3)}, tmp_path, {"b": [2, 3], "a": 1})
    with pytest.raises(ValueError, match=r"b: saved None, now 2"):
        require_same({"a": 1}, {"a": 1, "b": 2}, tmp_path)


# β that ramps up


def test_beta_rises_in_a_straight_line_between_two_shares_of_the_steps():
    settings = Settings(beta=0.8, ramp=(0.25, 0.75))
    shares = (0.0, 0.25, 0.375, 0.5, 0.75, 0.9)
    assert [settings.beta_at(share) for share in shares] == pytest.approx([0, 0, 0.2, 0.4, 0.8, 0.8])
    assert [Settings(beta=0.8).beta_at(share) for share in (0.0, 0.5)] == [0.8, 0.8]
    assert [Settings(beta=0.8, ramp=(0.5, 0.5)).beta_at(share) for share in (0.49, 0.5)] == [0.0, 0.8]


def test_before_the_ramp_the_attention_weighs_nothing_and_after_it_all_of_beta(data):
    student = recipe("distillation", **SMALL | {"epochs": 4}, alpha=0.3, beta=0.7, ramp=(0.5, 0.75))
    rows = train(student, data, teachers={"teacher": network()}).history.rows
    rest = [row["total"] - row["classification"] - 0.3 * row["calibration"] for row in rows]
    assert rest[0] == pytest.approx(0, abs=1e-6) and rest[1] == pytest.approx(0, abs=1e-6)
    assert 0 < rest[2] < 0.7 * rows[2]["attention"] and rows[0]["attention"] > 0
    assert rest[3] == pytest.approx(0.7 * rows[3]["attention"], rel=1e-4)


@pytest.mark.parametrize("ramp", [(0.5,), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.1, 0.2, 0.3)])
def test_wrong_ramps_are_refused(ramp):
    with pytest.raises(ValueError, match=r"ramp is .*: expected two shares of the steps, 0 ≤ first ≤ second ≤ 1"):
        Settings(ramp=ramp)


# What a distillation may choose


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="weighting is 'softmax': expected one of gradient, released"):
        Settings(weighting="softmax")
    with pytest.raises(ValueError, match="normalize is 'L2': expected False, True or 'l2'"):
        Settings(normalize="L2")
    with pytest.raises(ValueError, match="scale is 'relased': expected 'paper' or 'released'"):
        Settings(scale="relased")
    with pytest.raises(ValueError, match="over_classes is 'max': expected 'mean' or 'sum'"):
        Settings(over_classes="max")


def test_what_a_teacher_does_otherwise_is_the_same_as_dict_and_as_pairs():
    pairs = (("freeze", 3), ("erase", 0.5))
    one, other = recipe("distillation", teacher_training=dict(pairs)), recipe("distillation", teacher_training=pairs)
    assert one == other and one.key == other.key != recipe("distillation").key
    teacher = needs_of(one)["teacher"].training
    assert (teacher.freeze, teacher.erase, teacher.epochs) == (3, 0.5, one.training.epochs)
    assert one.training.freeze == 0
    with pytest.raises(ValueError, match="has no field 'freez'"):
        needs_of(recipe("distillation", teacher_training={"freez": 3}))


def test_keys_of_recipes_that_choose_nothing_new_are_as_they_were():
    """Written by 0.2 before these fields existed."""
    assert recipe("distillation").key == "scenes-distillation-" + _digest('{"method": "distillation"}')
    assert recipe(lam=0.1).key == "scenes-supervised-" + _digest('{"lam": 0.1, "method": "supervised"}')


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:10]
