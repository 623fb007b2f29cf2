"""A training that begins with a trained model: whose rows of the head are kept, which are new, and what is refused."""

from dataclasses import asdict, replace

import pytest
import torch
from striped_images import QUICK, striped_images
from test_start import STILL

from udlib.backbones import backbone
from udlib.datasets.proposals import grid_proposals
from udlib.heads import DualBranchNet
from udlib.methods import method_of, recipe
from udlib.methods.base import make_network
from udlib.methods.detection.network import Detector
from udlib.models import TrainedModel
from udlib.training import Watch
from udlib.workshop import NewHead, settings, train, train_teacher
from udlib.workshop.starts import begin_with, only_classes, start_for

OLD, NEW = ("bike", "cat", "dog"), ("dog", "sofa", "bike", "tv")
SMALL = recipe(**asdict(QUICK), network="small_narrow", embedding=8, lam=0.1)
LAST = ("head.classification.", "head.calibration.3.")  # the layers with a row for each class


def model(classes=OLD, lam=0.1, embedding=8, seed=3):
    torch.manual_seed(seed)
    network = make_network(len(classes), lam, "small_narrow", embedding=embedding)
    return TrainedModel(network, "small_narrow", classes, 24)


def fresh(classes=NEW, changed=SMALL):
    """The network that a training without a start begins with."""
    return method_of(changed.method).new_network(changed, len(classes)).state_dict()


def test_classes_known_by_name_keep_their_rows_and_new_ones_get_those_of_a_new_network():
    old = model()
    start, before, random = start_for(NewHead(old), SMALL, NEW), old.network.state_dict(), fresh()
    after = start.network.state_dict()
    assert after.keys() == random.keys()
    for name, value in after.items():
        if name.startswith(LAST):
            for row, label in enumerate(NEW):
                expected = before[name][OLD.index(label)] if label in OLD else random[name][row]
                assert torch.equal(value[row], expected), (name, label)
        else:
            assert torch.equal(value, before[name]), name
    assert start.notes == (
        "the head keeps the weights of: dog, bike",
        "new in the head: sofa, tv",
        "no longer in the head: cat",
    )


@torch.no_grad()
def test_another_order_of_the_classes_gives_the_same_answers_in_that_order():
    old, order = model(), ("dog", "bike", "cat")
    start = start_for(NewHead(old), SMALL, order)
    images = torch.randn(2, 3, 24, 24)
    ours, theirs = start.network.eval()(images), old.network(images)
    columns = [OLD.index(name) for name in order]
    torch.testing.assert_close(ours.logits, theirs.logits[:, columns])
    torch.testing.assert_close(ours.calibration_logits, theirs.calibration_logits[:, columns])
    assert start.notes == ("the head keeps the weights of: dog, bike, cat", "new in the head: no class")


def test_without_a_common_class_the_backbone_and_the_hidden_layers_are_kept():
    start = start_for(NewHead(model()), SMALL, ("x", "y"))
    assert start.notes[:2] == ("the head keeps the weights of: no class", "new in the head: x, y")
    kept, random, after = model().network.state_dict(), fresh(("x", "y")), start.network.state_dict()
    for name, value in after.items():
        assert torch.equal(value, random[name] if name.startswith(LAST) else kept[name]), name


@pytest.mark.parametrize("old", [model(lam=0.0), model(embedding=5)], ids=["none", "narrower"])
def test_a_branch_that_the_model_lacks_or_has_in_another_width_is_new(old):
    start, random = start_for(NewHead(old), SMALL, OLD), fresh(OLD)
    after = start.network.state_dict()
    branch = [name for name in after if name.startswith("head.calibration.")]
    assert branch and all(torch.equal(after[name], random[name]) for name in branch)
    assert torch.equal(after["head.classification.weight"], old.network.head.classification.weight)
    assert start.notes[-1] == "the calibration branch is new"


def test_the_models_own_head_is_kept_as_it_is_and_says_nothing():
    old = model()
    start = start_for(old, SMALL, OLD)
    assert start.network is old.network and start.notes == ()


@pytest.mark.parametrize(
    "classes, complaint",
    [
        (
            ("bike", "cat", "sofa"),
            "the start does not know 'sofa': .*, or take a new head .*--new-head; in Python start=NewHead",
        ),
        (("bike", "cat"), "the data set does not know 'dog': "),
        (
            ("cat", "bike", "dog"),
            "class 0 is 'bike' to the start and 'cat' to the data set: use one order, or take a new head",
        ),
    ],
)
def test_other_classes_need_a_new_head(classes, complaint):
    with pytest.raises(ValueError, match=complaint):
        start_for(model(), SMALL, classes)


@pytest.mark.parametrize("changes, complaint", [
    ({"network": "small"}, "the start's network is 'small_narrow', and 'small' is to be trained"),
    ({"pooling": "max"}, "the start's pooling is 'avg', and 'max' is to be trained"),
])  # fmt: skip
def test_a_new_head_does_not_make_another_network_fit(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        start_for(NewHead(model()), SMALL.but(**changes), NEW)


def test_a_training_begins_with_the_kept_rows():
    still = recipe(**STILL, lam=0.1)
    start = start_for(NewHead(model(("a", "b", "x"))), still, ("b", "new", "a"))
    trained = train(still, striped_images(32), teachers={"start": start.network}).network
    torch.testing.assert_close(
        trained.head.classification.weight, start.network.head.classification.weight, atol=1e-25, rtol=0
    )
    torch.testing.assert_close(trained.backbone[0].weight, model().network.backbone[0].weight, atol=1e-25, rtol=0)


# Teachers


def test_a_network_of_some_classes_answers_as_the_whole_one_does_for_them():
    whole, images = model().network, torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        part = only_classes(whole, [2, 0])
        torch.testing.assert_close(part(images).logits, whole(images).logits[:, [2, 0]])
    assert part.head.calibration is None and whole.head.calibration is not None


def test_a_detector_begins_with_the_backbone_alone():
    torch.manual_seed(5)
    detector, start = Detector(backbone("small_narrow"), 3, hidden=8), model().network
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    begin_with(detector, start)
    for name, value in detector.state_dict().items():
        assert torch.equal(value, start.state_dict()[name] if name.startswith("backbone.") else before[name]), name


def test_specialists_begin_with_the_rows_of_their_classes():
    still = recipe("parallel", **STILL, co=[[0, 2], [1]])
    start = model(lam=0.0).network
    teacher = train_teacher(still, "co 1", striped_images(32), start=start).network
    torch.testing.assert_close(
        teacher.head.classification.weight, start.head.classification.weight[[0, 2]], atol=1e-25, rtol=0
    )
    torch.testing.assert_close(teacher.backbone[0].weight, start.backbone[0].weight, atol=1e-25, rtol=0)
    student = train(still, striped_images(32), teachers={"start": start}).network
    torch.testing.assert_close(student.head.classification.weight, start.head.classification.weight, atol=1e-25, rtol=0)


def test_a_detectors_student_begins_with_all_of_the_start_and_the_detector_with_its_backbone():
    options = {"teacher": "small_narrow", "hidden": 8, "pool": 1, "multi_scale": False}
    still = recipe("detection", **STILL | {"epochs": 2}, **options)
    data = striped_images(32)
    data = replace(data, proposals=grid_proposals(len(data.images)))
    start, rows = model(lam=0.0).network, []
    detector = train_teacher(still, "teacher", data, start=start).network
    torch.testing.assert_close(detector.backbone[0].weight, start.backbone[0].weight, atol=1e-25, rtol=0)
    watch = Watch(on_epoch=lambda epoch, network, row: rows.append(epoch))
    student = train(still, data, teachers={"start": start}, watch=watch).network
    assert rows == [2], "stage 2 alone is watched"
    torch.testing.assert_close(student.head.classification.weight, start.head.classification.weight, atol=1e-25, rtol=0)
    assert isinstance(student, DualBranchNet)


# Settings


def test_network_and_size_of_the_start_are_the_defaults():
    old = model()
    assert (settings(start=old).network, settings(start=old).size) == ("small_narrow", 24)
    other = settings(network="small", start=NewHead(old), size=32)
    assert (other.network, other.size) == ("small", 32)
    cropped = settings(start=old, crop=True)
    assert (cropped.training.crop, cropped.size) == (24, round(24 * 8 / 7))
    assert settings().network == "small"
    with pytest.raises(
        ValueError, match="weights are 'IMAGENET1K', and the training begins with .* leave one of the two out"
    ):
        settings(start=old, weights="IMAGENET1K")
