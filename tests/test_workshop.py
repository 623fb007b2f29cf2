"""The workshop: it brings the teachers, joins the stages, and resumes only what is the very same training."""

import dataclasses
import json
from dataclasses import asdict

import pytest
import torch
from striped_images import QUICK, same_weights, striped_images

from udlib.datasets.proposals import grid_proposals
from udlib.methods import method_of, methods, recipe
from udlib.methods.base import Cost, Method, Stage, make_network
from udlib.training import Saving, Watch, evaluate
from udlib.training.checkpoints import TRAINING, load_checkpoint, save_checkpoint
from udlib.workshop import train, train_teacher
from udlib.workshop.trainings import _require_stages

CONFIG = dataclasses.replace(QUICK, epochs=2, batch_size=16)
SMALL = {"network": "small_narrow", "embedding": 8, **asdict(CONFIG)}
STUDENTS = {
    "distillation": recipe("distillation", teacher="small_narrow", **SMALL),
    "parallel": recipe("parallel", co=[[0, 1], [2]], **SMALL),
    "detection": recipe("detection", teacher="small_narrow", pool=1, hidden=8, **SMALL),
    "detection, control": recipe(
        "detection", teacher="small_narrow", transfer="predictions", taught_by="classifier", **SMALL
    ),
}


@pytest.fixture(scope="module")
def data():
    return dataclasses.replace(striped_images(48), proposals=grid_proposals(48))


def teachers_of(student, data):
    return {name: train_teacher(student, name, data).network for name in method_of(student.method).needs(student)}


def test_every_method_that_needs_teachers_is_tried_here():
    needing = {name for name, method in methods().items() if method.needs(recipe(name))}
    assert needing | {"parallel"} == {
        name.partition(",")[0] for name in STUDENTS
    }  # parallel needs some by its settings


@pytest.mark.parametrize("name", STUDENTS)
def test_a_checkpoint_of_another_teacher_is_refused_by_name(name, data, tmp_path):
    student, saving = STUDENTS[name], Saving(tmp_path, identity={"images": "striped"})
    teachers = teachers_of(student, data)
    train(student, data, teachers=teachers, saving=saving)
    other = list(teachers)[-1]
    with torch.no_grad():
        next(teachers[other].parameters()).add_(1e-3)
    with pytest.raises(ValueError, match=f"belongs to another training .*teacher {other}: saved '.*', now '"):
        train(student, data, teachers=teachers, saving=saving)


@pytest.mark.parametrize("name", STUDENTS)
def test_teachers_that_nobody_brings_are_trained_first_and_the_student_is_the_same(name, data, tmp_path):
    student, announced = STUDENTS[name], []
    alone = train(student, data, saving=Saving(tmp_path), on_teacher=lambda name, teacher: announced.append(name))
    given = train(student, data, teachers=teachers_of(student, data))
    assert same_weights(alone.network, given.network)
    assert announced == list(method_of(student.method).needs(student))
    assert all((tmp_path / name / "state.json").exists() for name in announced)
    assert "teachers_seconds" in alone.history.rows[0] and "teachers_seconds" not in given.history.rows[0]


@pytest.mark.parametrize("name", STUDENTS)
def test_stages_that_the_student_lacks_are_refused_before_a_teacher_is_trained(name, data):
    announced = []
    with pytest.raises(ValueError, match="freeze is 9: this network has 3 stages"):
        train(STUDENTS[name].but(freeze=9), data, on_teacher=lambda name, teacher: announced.append(name))
    assert announced == []


@pytest.mark.parametrize("network", ["small_narrow", "resnet18", "efficientnet_lite0", "timm:mobilenetv3_small_050"])
def test_to_count_stages_takes_no_random_number(network):
    torch.manual_seed(3)
    _require_stages(recipe("distillation", network=network, freeze=3))
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))
    with pytest.raises(ValueError, match="freeze is 40: this network has"):
        _require_stages(recipe("distillation", network=network, freeze=40))


def test_teachers_that_do_not_go_with_the_recipe_are_refused(data):
    network = make_network(3, 0.1, "small_narrow", embedding=8)
    with pytest.raises(ValueError, match="the teachers are teacher: expected none"):
        train(recipe(**SMALL), data, teachers={"teacher": network})
    with pytest.raises(ValueError, match="the teachers are none: expected co 1, co 2"):
        train(STUDENTS["parallel"], data, teachers={})
    with pytest.raises(ValueError, match="there is no teacher 'co 9' to train: choose one of co 1, co 2"):
        train_teacher(STUDENTS["parallel"], "co 9", data)


def test_a_training_that_0_1_left_half_done_is_refused_in_one_sentence(data, tmp_path):
    train(recipe(**SMALL), data, saving=Saving(tmp_path))
    tensors, state = load_checkpoint(tmp_path)
    del state["identity"][TRAINING]
    save_checkpoint(tmp_path, tensors, {name: state[name] for name in ("identity", "rows", "best_epoch")})
    before = (tmp_path / "state.json").read_bytes()
    with pytest.raises(ValueError, match="an unfinished training of udlib 0.1.*: delete that folder"):
        train(recipe(**SMALL), data, saving=Saving(tmp_path))
    assert (tmp_path / "state.json").read_bytes() == before


class TwoStages(Method):
    """A method of two stages, the second of which builds on the first."""

    name = "two_stages"
    Settings = type(recipe().settings)

    def build(self, recipe, num_classes, weights=None):
        return make_network(num_classes, 0.0, recipe.network, weights, embedding=8)

    def cost(self, recipe):
        return Cost(2 * recipe.training.epochs, {recipe.network: 1.0})

    def stages(self, recipe, data, teachers):
        network = self.new_network(recipe, data.targets.shape[1])
        losses = []

        def loss_fn(model, batch):
            logits = model(batch.images, calibration=False).logits
            return {"total": torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.targets)}

        first = yield Stage(network, loss_fn, data, recipe.training, "1", {"stage": 1}, keep="last")
        losses += first.column("total")
        second = yield Stage(network, loss_fn, data, recipe.training, "2", {"stage": 2})
        assert len(losses) == recipe.training.epochs and second.rows is not first.rows
        return network


@pytest.fixture
def two_stages(monkeypatch):
    monkeypatch.setattr("udlib.workshop.trainings.method_of", lambda name: TwoStages())
    return recipe(**SMALL)


def test_histories_are_joined_and_watchers_see_epochs_that_carry_on_counting(two_stages, data):
    seen, held_out = [], striped_images(16, seed=1)
    validate = lambda network: evaluate(network, held_out, precision="fp32")
    watch = Watch(validate, on_epoch=lambda epoch, network, row: seen.append((epoch, row["epoch"], row["stage"])))
    network, history = train(two_stages.but(keep="best"), data, watch=watch)
    assert seen == [(1, 1, 1), (2, 2, 1), (3, 3, 2), (4, 4, 2)]
    assert history.column("epoch") == [1, 2, 3, 4] and history.column("stage") == [1, 1, 2, 2]
    assert history.best_epoch in (3, 4) and history.best_weights.keys() == network.state_dict().keys()


def test_a_second_stage_belongs_to_its_first(two_stages, data, tmp_path):
    train(two_stages, data, saving=Saving(tmp_path))
    state = json.loads((tmp_path / "2" / "state.json").read_bytes())
    assert "after stage 1" in state["identity"] and state["identity"]["method"] == "supervised"
    for file in (tmp_path / "1").iterdir():
        file.unlink()
    changed = dataclasses.replace(data, images=255 - data.images)  # the same labels, other pixels
    with pytest.raises(ValueError, match="after stage 1: saved '.*', now '"):
        train(two_stages, changed, saving=Saving(tmp_path))
