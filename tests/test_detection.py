"""Distilling weakly-supervised detection: each stage's loss is that of both networks' answers, kills change nothing."""

import dataclasses
import json

import pytest
import torch
from striped_images import QUICK, same_weights, striped_images
from test_detectors import detector, ragged
from trainings import train_detector, train_supervised, train_taught

from udlib.course import store as experiments
from udlib.course.recipes import baseline
from udlib.course.store import load_model, needed, recipe
from udlib.datasets.proposals import grid_proposals
from udlib.datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, BatchAugment, MultiScale, normalise
from udlib.losses import ova_loss
from udlib.methods.detection import (
    RegionStudent,
    ScaledStudent,
    Settings,
    detection_loss,
    feature_loss,
    prediction_loss,
    predictions_of,
)
from udlib.methods.detection.evaluation import detect
from udlib.methods.detection.losses import detection_logits, prediction_transfer_loss, region_feature_loss
from udlib.methods.detection.method import METHOD
from udlib.methods.detection.network import Detector
from udlib.methods.supervised import make_network
from udlib.methods.teachers import stored_answers
from udlib.training import Saving, Watch, evaluate, fit
from udlib.training.batches import ArrayData, Batch
from udlib.workshop import trainings as workshop

CONFIG = dataclasses.replace(QUICK, epochs=4, batch_size=16, shift=0)
SMALL = Settings(hidden=16, pool=2)
NARROW = {"network": "small_narrow", "embedding": 8}


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")


def boxed(count=48, seed=0, grid=True):
    data = striped_images(count, seed=seed)
    return dataclasses.replace(data, proposals=grid_proposals(count, [1, 3]) if grid else ragged(count))


def taught_gradient(teacher):
    return any(parameter.grad is not None for parameter in teacher.parameters())


def student(seed=1):
    torch.manual_seed(seed)
    return make_network(3, 0.0, "small_narrow")


def batch(grid=False):
    data = boxed(6, grid=grid)
    return Batch(
        normalise(data.images), data.targets.float(), None, torch.arange(6), data.proposals.of(torch.arange(6))
    )


@pytest.fixture(scope="module")
def teacher():
    settings = dataclasses.replace(SMALL, part="teacher", multi_scale=False)
    config = dataclasses.replace(CONFIG, epochs=12)
    found = train_detector(boxed(128), config, settings, network="small_narrow")[0].eval()
    found.zero_grad()  # forget its own training
    return found


def test_a_detector_learns_from_labels_of_images_alone(teacher):
    held_out = boxed(64, seed=1)
    assert evaluate(teacher, held_out, precision="fp32")["mAP"] > 0.7
    with torch.no_grad():
        given, found = batch(), detection_loss(teacher, batch())
        assert found == {"total": ova_loss(teacher(given.images, given.regions).logits, given.targets)}


@pytest.mark.parametrize("hidden", [16, 8])
def test_stage_1_compares_features_of_the_same_boxes_and_asks_for_no_label(teacher, hidden):
    torch.manual_seed(0)
    model, given = RegionStudent(student(), teacher, hidden).eval(), batch()
    found = feature_loss(teacher)(model, given._replace(targets=None))
    expected = region_feature_loss(
        teacher(given.images, given.regions).region_features, model(given.images, given.regions), given.regions.image, 6
    )
    torch.testing.assert_close(found["total"], expected)
    assert found.keys() == {"total"} and isinstance(model.adapter, torch.nn.Linear) == (hidden != 16)
    found["total"].backward()
    assert model.backbone[0].weight.grad.any() and not taught_gradient(teacher)


def test_stage_2_is_the_loss_of_the_students_logits_and_the_sharpened_predictions(teacher):
    model, given = ScaledStudent(student(), 0.2).eval(), batch()
    torch.nn.init.uniform_(model.scale, 0.1, 2.0)
    found = prediction_loss(predictions_of(teacher))(model, given)
    z, said = model.student(given.images).logits, teacher(given.images, given.regions)
    q = detection_logits(said.class_scores, said.region_scores, given.regions.image, 6, sharpen=2.0)
    expected = prediction_transfer_loss(z, model.scale * z, given.targets, q)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    found["total"].backward()
    assert model.scale.grad.any() and model.student.backbone[0].weight.grad.any() and not taught_gradient(teacher)


def test_the_scale_of_each_class_is_learned_and_does_not_stay_with_the_student(teacher, monkeypatch):
    kept, plain = [], fit
    monkeypatch.setattr(
        workshop, "fit", lambda model, *given, **options: kept.append(model) or plain(model, *given, **options)
    )
    found, history = train_taught(
        boxed(), teacher, CONFIG, dataclasses.replace(SMALL, transfer="predictions"), **NARROW
    )
    assert isinstance(kept[-1], ScaledStudent) and kept[-1].student is found
    assert (kept[-1].scale != 0.2).all() and len(set(kept[-1].scale.tolist())) == 3
    assert [history.rows[-1][f"scale {k}"] for k in range(3)] == kept[-1].scale.tolist()
    assert found.state_dict().keys() == student().state_dict().keys()


def test_a_classifier_in_the_detectors_place_teaches_the_sigmoid_of_its_logits_and_needs_no_boxes():
    control = dataclasses.replace(SMALL, transfer="predictions", taught_by="classifier")
    master, config = (
        train_supervised(striped_images(48), CONFIG, lam=0.0, **NARROW)[0],
        dataclasses.replace(CONFIG, epochs=1),
    )
    whole = dataclasses.replace(config, batch_size=48, flip=False, lr=1e-12)
    data = striped_images(48)
    _, history = train_taught(data, master, whole, control, **NARROW)
    torch.manual_seed(whole.seed)
    z, said = (net(normalise(data.images)).logits for net in (make_network(3, 0.0, **NARROW).train(), master.eval()))
    expected = prediction_transfer_loss(z, 0.2 * z, data.targets.float(), said)
    assert history.rows[-1]["total"] == pytest.approx(expected["total"].item(), rel=1e-3)
    with pytest.raises(ValueError, match="the teacher knows 3 classes and the student 2"):
        train_taught(dataclasses.replace(data, targets=data.targets[:, :2]), master, config, control, **NARROW)
    chosen = recipe(
        "detection",
        network="small_narrow",
        teacher="small_narrow",
        embedding=8,
        epochs=2,
        batch_size=16,
        shift=0,
        transfer="predictions",
        taught_by="classifier",
    )
    assert same_weights(
        workshop.train(chosen, data).network,
        workshop.train(
            chosen, data, teachers={"teacher": workshop.train(needed(chosen)["teacher"], data).network}
        ).network,
    )


def test_the_classifier_of_the_control_is_the_baseline_itself():
    chosen = recipe("detection", **baseline(seed=2).choices(), transfer="predictions", taught_by="classifier")
    assert needed(chosen)["teacher"] == baseline(seed=2)


def test_without_any_transfer_the_student_is_the_supervised_baseline_to_the_last_bit():
    config = dataclasses.replace(CONFIG, seed=3)
    found, _ = train_taught(striped_images(48), None, config, dataclasses.replace(SMALL, transfer="none"), **NARROW)
    assert same_weights(found, train_supervised(striped_images(48), config, lam=0.0, **NARROW)[0])


@pytest.mark.parametrize(
    "transfer, stages",
    [("both", [1, 2, 2, 2]), ("features", [1, 2, 2, 2]), ("predictions", [2] * 4), ("none", [2] * 4)],
)
def test_both_stages_together_have_the_epochs_of_a_plain_training(teacher, transfer, stages):
    settings, data = dataclasses.replace(SMALL, transfer=transfer), boxed()
    found, history = train_taught(data, teacher, CONFIG, settings, validation=boxed(16, seed=2), **NARROW)
    assert history.column("stage") == stages and history.column("epoch") == [1, 2, 3, 4]
    assert ["mAP" in row for row in history.rows] == [stage == 2 for stage in stages]
    assert ("predictions" in history.rows[-1]) == settings.predictions
    assert history.rows[history.best_epoch - 1]["mAP"] == max(history.column("mAP"))
    assert history.best_weights.keys() == found.state_dict().keys()


def test_the_best_epoch_may_be_kept(teacher):
    found, history = train_taught(boxed(), teacher, CONFIG, SMALL, validation=boxed(16, seed=2), keep="best", **NARROW)
    assert all(torch.equal(value, history.best_weights[name]) for name, value in found.state_dict().items())


def test_each_stage_lowers_its_loss_and_the_student_learns(teacher):
    config = dataclasses.replace(CONFIG, epochs=12, ema=0.1)
    found, history = train_taught(boxed(128), teacher, config, dataclasses.replace(SMALL, stage_epochs=0.5), **NARROW)
    for stage in (1, 2):
        totals = [row["total"] for row in history.rows if row["stage"] == stage]
        assert totals[-1] < totals[0]
    assert evaluate(found, striped_images(64, seed=1), precision="fp32")["mAP"] > 0.7


def test_the_teacher_is_left_as_it_was(teacher):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    train_taught(boxed(), teacher, dataclasses.replace(CONFIG, epochs=2), SMALL, **NARROW)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(part.training for part in teacher.modules())


@pytest.mark.parametrize("grid", [True, False])
def test_stored_predictions_are_those_of_an_image_and_of_its_mirror_image_with_its_boxes(teacher, grid):
    data = boxed(20, grid=grid)
    live = predictions_of(teacher)
    ask = stored_answers(live, data, "fp32", batch_size=8)
    rows, mirrored = torch.tensor([3, 19, 3, 0]), torch.tensor([True, False, False, True])
    plain = normalise(data.images[rows])
    images = torch.where(mirrored[:, None, None, None], plain.flip(3), plain)
    regions = data.proposals.of(rows).mirrored(mirrored)
    given = Batch(images, data.targets[rows], None, rows, regions, mirrored)
    torch.testing.assert_close(ask(given).logits, live(given).logits, atol=1e-4, rtol=1e-4)
    if not grid:
        assert not torch.allclose(live(given).logits, live(given._replace(regions=data.proposals.of(rows))).logits)


HALF = (0.5, 0.5, 0.5)
WHITE = {True: 1.0, False: ((1 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)).max().item()}


def brightest(network, halves):
    """The network, which may expect mean and deviation of one half; and the brightest values that it is shown."""
    shown = set()
    if halves:
        network.backbone.mean = network.backbone.std = HALF
    network.backbone.register_forward_pre_hook(lambda _, inputs: shown.add(round(inputs[0].max().item(), 3)))
    return network, shown


@pytest.mark.parametrize("halves", [(True, False), (False, True), (True, True)])
def test_detector_and_student_each_see_the_images_normalised_as_they_expect(halves):
    data = boxed(16)
    data = dataclasses.replace(data, images=torch.full_like(data.images, 255))
    (teacher, taught), (pupil, learned) = (
        brightest(network, half) for network, half in zip((detector(classes=3), student()), halves)
    )
    for network, loss in (
        (RegionStudent(pupil, teacher, 16), feature_loss(teacher)),
        (ScaledStudent(pupil, 0.2), prediction_loss(predictions_of(teacher))),
    ):
        fit(network, data, loss, dataclasses.replace(CONFIG, epochs=1, precision="fp32"))
    detect(teacher, data, precision="fp32")
    assert taught == {round(WHITE[halves[0]], 3)} and learned == {round(WHITE[halves[1]], 3)}


def test_a_detector_in_training_sees_images_of_every_scale_normalised_as_it_expects(monkeypatch):
    data, made, seen = boxed(16), METHOD.new_network, []
    data = dataclasses.replace(data, images=torch.full_like(data.images, 255))

    def new_network(self, recipe, classes):
        network, shown = brightest(made(recipe, classes), True)
        seen.append(shown)
        return network

    monkeypatch.setattr(type(METHOD), "new_network", new_network)
    train_detector(data, dataclasses.replace(CONFIG, precision="fp32"), SMALL, **NARROW)
    assert seen == [{1.0}]


def test_multi_scale_images_are_the_augmented_ones_at_another_size_drawn_for_the_whole_batch():
    images = torch.randint(256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    sizes = set()
    for seed in range(12):
        augment, plain = MultiScale(shift=0), BatchAugment(shift=0)
        found = augment(images, torch.Generator().manual_seed(seed))
        expected = plain(images, torch.Generator().manual_seed(seed))
        assert torch.equal(augment.mirrored, plain.mirrored)
        sizes.add(found.shape[-1])
        if found.shape[-1] == 16:
            assert torch.equal(found, expected)
        halves = [
            MultiScale(shift=0)(images[rank::2], torch.Generator().manual_seed(seed), (rank, 2)) for rank in (0, 1)
        ]
        assert all(torch.equal(half, found[rank::2]) for rank, half in enumerate(halves))
    assert sizes == {12, 16, 20}


class Killed(Exception):
    """Stands in for a kill: nothing handles it."""


@pytest.fixture
def killed_and_resumed(monkeypatch):
    """What `train()` gives when it is killed after `at` epochs in all and then called again, and how many were trained."""

    def run(train, at):
        epochs, plain = [], workshop.fit

        def count(epoch, model, row):
            epochs.append(epoch)
            if len(epochs) == at:
                raise Killed

        with monkeypatch.context() as patch:
            watch = Watch(on_epoch=count)
            patch.setattr(workshop, "fit", lambda *given, **options: plain(*given, **options | {"watch": watch}))
            with pytest.raises(Killed):
                train()
            return train(), len(epochs)

    return run


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_killed_detector_is_resumed_to_the_same_one(killed_and_resumed, tmp_path, at):
    settings = dataclasses.replace(SMALL, part="teacher", dropout=0.5, multi_scale=True)
    whole, history = train_detector(boxed(grid=False), CONFIG, settings, network="small_narrow")
    (resumed, again), epochs = killed_and_resumed(
        lambda: train_detector(boxed(grid=False), CONFIG, settings, network="small_narrow", checkpoint=tmp_path), at
    )
    assert epochs == 4 and same_weights(whole, resumed) and history.column("total") == again.column("total")


@pytest.mark.parametrize("at", [1, 2, 3, 4])  # of a stage 1 of two epochs and a stage 2 of two
def test_a_kill_in_either_stage_is_resumed_to_the_same_student(killed_and_resumed, teacher, tmp_path, at):
    settings = dataclasses.replace(SMALL, stage_epochs=0.5)
    whole, history = train_taught(boxed(), teacher, CONFIG, settings, **NARROW)
    (resumed, again), epochs = killed_and_resumed(
        lambda: train_taught(boxed(), teacher, CONFIG, settings, checkpoint=tmp_path, **NARROW), at
    )
    assert epochs == 4 and same_weights(whole, resumed) and history.column("total") == again.column("total")


def test_what_looks_on_sees_the_student_of_stage_2_with_its_epochs_counted_on(teacher):
    seen, judged = [], []
    found, history = train_taught(
        boxed(),
        teacher,
        CONFIG,
        dataclasses.replace(SMALL, stage_epochs=0.5),
        **NARROW,
        on_epoch=lambda epoch, model, row: seen.append((epoch, row["epoch"])),
        validate=lambda model: judged.append(model) or {"mAP": len(judged)},
        keep="best",
    )
    assert seen == [(3, 3), (4, 4)] and judged == [found, found] and history.best_epoch == 4
    assert ["mAP" in row for row in history.rows] == [False, False, True, True]


def test_a_student_without_a_teacher_at_hand_trains_the_one_it_needs(tmp_path):
    chosen = recipe(
        "detection", network="small_narrow", teacher="small_narrow", pool=1, hidden=8, epochs=2, batch_size=16, shift=0
    )
    needed_one = needed(chosen)["teacher"]
    judge, _ = workshop.train(needed_one, boxed())
    given, _ = workshop.train(chosen, boxed(), teachers={"teacher": judge})
    own, _ = workshop.train(chosen, boxed(), saving=Saving(tmp_path))
    assert same_weights(given, own) and (tmp_path / "teacher" / "state.json").exists()
    again, _ = workshop.train(chosen, boxed(), saving=Saving(tmp_path))
    assert same_weights(own, again)


def test_a_checkpoint_of_other_boxes_or_of_another_teacher_is_refused(teacher, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=2)
    train_taught(boxed(), teacher, config, SMALL, checkpoint=tmp_path, **NARROW)
    with pytest.raises(ValueError, match="boxes: saved '.*', now"):
        train_taught(boxed(grid=False), teacher, config, SMALL, checkpoint=tmp_path, **NARROW)
    with pytest.raises(ValueError, match="teacher teacher: saved '.*', now"):
        train_taught(boxed(), detector(), config, SMALL, checkpoint=tmp_path, **NARROW)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"part": "pupil"}, "part is 'pupil': choose one of teacher, student"),
        ({"transfer": "all"}, "transfer is 'all': choose one of both, features, predictions, none"),
        ({"taught_by": "me"}, "taught_by is 'me': choose one of detector, classifier"),
        ({"taught_by": "classifier"}, "transfer 'both': a classifier has only predictions to teach"),
        ({"proposals": "edges"}, "proposals is 'edges': choose one of grid, selective-search, boxes"),
        ({"stage_epochs": 1.0}, "stage_epochs is 1.0: expected a share"),
        ({"stage_epochs": 0.0}, "stage_epochs is 0.0"),
        ({"sharpen": 0.0}, "sharpen is 0.0: expected a number above 0"),
        ({"scale": -0.2}, "scale is -0.2"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        recipe("detection", **wrong)


def test_what_cannot_be_trained_is_refused_before_it_starts(teacher, monkeypatch):
    monkeypatch.setattr(workshop, "fit", None)
    with pytest.raises(ValueError, match="the data has no proposals: make them with"):
        train_detector(striped_images(16), CONFIG, SMALL)
    with pytest.raises(ValueError, match="the data has no proposals"):
        train_taught(striped_images(16), teacher, CONFIG, SMALL, **NARROW)
    with pytest.raises(ValueError, match="shift is 2 and crop is 0, but boxes can follow only mirrored images"):
        train_detector(boxed(16, grid=False), dataclasses.replace(CONFIG, shift=2), SMALL)
    with pytest.raises(ValueError, match="the teacher knows 4 classes and the student 3"):
        train_taught(boxed(16), detector(classes=4), CONFIG, SMALL, **NARROW)
    with pytest.raises(ValueError, match="epochs is 1: two stages need at least 2"):
        train_taught(boxed(16), teacher, dataclasses.replace(CONFIG, epochs=1), SMALL, **NARROW)


def test_a_detector_is_not_validated_without_boxes():
    with pytest.raises(ValueError, match="a detector needs the regions"):
        train_detector(boxed(16), CONFIG, SMALL, validation=striped_images(16))


def test_a_grid_may_be_shifted(teacher):
    train_detector(boxed(16), dataclasses.replace(CONFIG, epochs=1, shift=2), SMALL, network="small_narrow")


def test_a_teacher_whose_answer_is_not_finite_is_named_with_the_images():
    broken, given = detector(), batch()
    torch.nn.init.constant_(broken.classes.bias, float("nan"))
    with pytest.raises(
        FloatingPointError, match=r"the teacher's answer is not finite for the images in rows \[0, 1, 2, 3, 4, 5\]"
    ):
        predictions_of(broken)(given)


def test_a_recipe_names_its_teacher_trained_alike_with_the_same_seed_and_the_same_boxes():
    chosen = recipe(
        "detection", seed=3, flip=False, network="small_narrow", proposals="boxes", hidden=64, transfer="predictions"
    )
    master = needed(chosen)["teacher"]
    assert master == recipe("detection", part="teacher", seed=3, flip=False, proposals="boxes", hidden=64)
    assert needed(recipe("detection", transfer="none")) == needed(master) == {}
    assert needed(recipe("detection"))["teacher"] == recipe("detection", part="teacher")


def test_a_recipe_trains_its_teacher_first_and_measures_where_it_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    run = experiments.load_or_run(recipe("detection", network="small_narrow", teacher="small_narrow", hidden=16))
    assert run.metrics["test"]["mAP"] > 0 and "class_pointing_easy" in run.metrics["test"]
    assert run.history[-1]["stage"] == 2 and run.val_calibration_logits is None
    assert experiments.load(run.recipe).history == run.history
    assert json.loads(json.dumps(run.metrics))

    master = experiments.load_or_run(recipe("detection", part="teacher", network="small_narrow", hidden=16))
    assert 0 <= master.metrics["test"]["CorLoc"] <= 1 and 0 <= master.metrics["test"]["detection_mAP"] <= 1
    assert "ECE" in master.metrics["test"] and "class_pointing_easy" not in master.metrics["test"]
    (stored,) = (folder for folder in (tmp_path / "models").iterdir())
    assert stored.name == master.recipe.key, "the student's teacher, by the very key of its own recipe"
    assert isinstance(load_model(master.recipe), Detector)


def test_data_with_the_annotated_boxes_come_from_the_recipe_too(monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    chosen = experiments.for_profile(recipe("detection", part="teacher", proposals="boxes"))
    found = experiments.arrays(chosen, "test")
    assert isinstance(found, ArrayData) and not found.proposals.shared and len(found.proposals) == 96
    assert experiments.arrays(chosen.but(part="student"), "test").proposals is None
    assert experiments.arrays(chosen.but(part="student"), "train").proposals is not None
    assert experiments.arrays(recipe(limit=96), "train").proposals is None
