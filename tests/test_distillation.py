"""Learning from a teacher: the loss is Eq. 18 of the two networks' answers, and the teacher is left as it was."""

import dataclasses
import hashlib
import json

import pytest
import torch
from striped_images import QUICK, striped_images
from trainings import train_distilled, train_supervised

from udlib.attention import uncertainty_attention
from udlib.backbones import backbone
from udlib.course import store as experiments
from udlib.course.store import for_profile, needed, recipe
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.losses import uncertainty_distillation_loss
from udlib.methods import teachers
from udlib.methods.distillation import distillation_loss
from udlib.methods.teachers import answers, require_same_classes, stored_answers
from udlib.training import evaluate
from udlib.training.batches import ArrayData, Batch
from udlib.training.checkpoints import save_checkpoint

CONFIG = dataclasses.replace(QUICK, epochs=6, batch_size=16)


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")


def network(name="small_narrow", seed=0, classes=3, **options):
    torch.manual_seed(seed)
    return DualBranchNet(backbone(name), classes, embedding=8, **options).eval()


def batch(images=4, classes=3):
    draw = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(images, 3, 32, 32, generator=draw), torch.zeros(images, classes), None, torch.arange(images) + 10
    )


@pytest.fixture(scope="module")
def teacher():
    return train_supervised(striped_images(128), CONFIG, lam=0.5, network="small_narrow", embedding=16)[0].eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 2.0, "beta": 0.0, "temperature": 3.0},
        {"beta": 4.0, "normalize": True},
        {"scale": "released", "alpha": 1.0, "beta": 0.1, "temperature": 3.0},
        {"over_classes": "sum"},
        {"normalize": "l2"},
        {"scale": "released", "alpha": 1.0, "beta": 0.1, "temperature": 3.0, "weighting": "released"},
    ],
)
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_loss_is_eq_18_of_both_networks_answers_and_maps(options, pooling):
    master, student, given = network(seed=1), network(seed=2, pooling=pooling), batch()
    found = distillation_loss(master, **options)(student, given)
    taught, told = master(given.images), student(given.images)
    weighting = options.get("weighting", "gradient")
    maps = {
        "teacher_map": uncertainty_attention(master.head, taught.features, "avg", weighting=weighting),
        "student_map": uncertainty_attention(student.head, told.features, pooling, weighting=weighting),
    }
    terms = {"alpha": 0.5, "beta": 0.5} | {name: value for name, value in options.items() if name != "weighting"}
    expected = uncertainty_distillation_loss(taught, told, **terms, **maps)
    assert found.keys() == {"total", "classification", "calibration", "attention"}
    for name in ("total", "classification", "calibration"):
        torch.testing.assert_close(found[name], expected[name])
    assert found["attention"].item() == pytest.approx(expected["attention"].item() if options.get("beta") != 0 else 0)


def test_alpha_and_beta_0_are_plain_kd_for_which_neither_network_needs_a_calibration_branch():
    master, student = network(seed=1, calibration=False), network(seed=2, calibration=False)
    found = distillation_loss(master, alpha=0, beta=0)(student, batch())
    assert found["total"] == found["classification"] > 0 and found["calibration"] == found["attention"] == 0


def test_a_student_equal_to_its_teacher_has_nothing_to_learn():
    found = distillation_loss(network(seed=1))(network(seed=1), batch())
    assert all(value.abs() < 1e-5 for value in found.values())


def test_hard_labels_take_no_part():
    master, student, given = network(seed=1), network(seed=2), batch()
    other = given._replace(targets=1 - given.targets)
    assert distillation_loss(master)(student, given) == distillation_loss(master)(student, other)


def test_a_student_learns_from_the_teachers_answers_though_its_labels_are_noise(teacher):
    seen = striped_images(128)
    noise = (torch.rand(seen.targets.shape, generator=torch.Generator().manual_seed(3)) < 0.5).to(seen.targets.dtype)
    student, history = train_distilled(
        ArrayData(seen.images, noise), teacher, CONFIG, network="small_narrow", embedding=16
    )
    assert evaluate(student, striped_images(64, seed=1), precision="fp32")["mAP"] > 0.97
    for term in ("classification", "calibration", "attention"):
        assert history.column(term)[-1] < history.column(term)[0], term


def test_the_teacher_is_left_as_it_was(teacher):
    teacher.zero_grad()  # forget its own training
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    train_distilled(striped_images(32), teacher, dataclasses.replace(CONFIG, epochs=1), network="small_narrow")
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(part.training for part in teacher.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("name, pooling", [("small", "avg"), ("small_narrow", "max"), ("resnet18", "avg")])
def test_students_of_another_width_depth_pooling_or_map_size_can_learn(teacher, name, pooling):
    data = striped_images(16)
    student, history = train_distilled(
        data, teacher, dataclasses.replace(CONFIG, epochs=1), network=name, pooling=pooling
    )
    assert all(
        value > 0 and value < 1e4
        for term in ("classification", "calibration", "attention")
        for value in history.column(term)
    )


def test_the_attention_may_train_the_student_through_its_weights_too():
    master, given = network(seed=1), batch()
    for through_weights in (False, True):
        student = network(seed=2)
        distillation_loss(master, through_weights=through_weights)(student, given)["attention"].backward()
        moved = student.head.classification.weight.grad is not None and student.head.classification.weight.grad.any()
        assert bool(moved) == through_weights and student.backbone[0].weight.grad.any()


def views(data, rows, mirrored):
    pixels = normalise(data.images[rows])
    images = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    return Batch(images, data.targets[rows], None, rows, mirrored=mirrored)


def test_stored_answers_are_those_of_the_teacher_for_an_image_and_for_its_mirror_image(teacher):
    data, asked = striped_images(32), []
    live = answers(teacher)
    ask = stored_answers(lambda given: asked.append(len(given.index)) or live(given), data, "fp32", batch_size=20)
    assert asked == [20, 20, 12, 12]
    rows, mirrored = torch.tensor([3, 31, 3, 0]), torch.tensor([True, False, False, True])
    given = views(data, rows, mirrored)
    for found, expected in zip(ask(given), live(given)):
        torch.testing.assert_close(found, expected)
    as_they_are = views(data, rows, torch.zeros(4, dtype=torch.bool))
    for found, expected in zip(ask(as_they_are._replace(mirrored=None)), live(as_they_are)):
        torch.testing.assert_close(found, expected)
    assert len(asked) == 4, "nothing was asked again"


@pytest.mark.parametrize(
    "changes, stored",
    [
        ({}, True),
        ({"flip": False}, True),
        ({"shift": 1}, False),
        ({"erase": 0.5}, False),
        ({"crop": 12}, False),
        ({"epochs": 2}, False),
    ],
)
def test_answers_are_stored_where_each_image_has_two_views_at_most(teacher, monkeypatch, changes, stored):
    config = dataclasses.replace(CONFIG, **{"epochs": 3, "shift": 0, "erase": 0.0} | changes)
    used = []
    monkeypatch.setattr(
        teachers, "stored_answers", lambda *given, **named: used.append(given) or stored_answers(*given, **named)
    )
    student, _ = train_distilled(striped_images(32), teacher, config, network="small_narrow", embedding=8)
    assert bool(used) == stored
    monkeypatch.setattr(teachers, "few_views", lambda *_: False)
    again, _ = train_distilled(striped_images(32), teacher, config, network="small_narrow", embedding=8)
    for a, b in zip(student.parameters(), again.parameters()):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)


def test_a_killed_training_resumes_to_the_same_student(teacher, tmp_path):
    data, options = striped_images(32), {"network": "small_narrow", "embedding": 8}
    config = dataclasses.replace(CONFIG, epochs=3)
    whole, _ = train_distilled(data, teacher, config, **options)

    def stop(epoch, model, row):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="2 are saved in"):
        train_distilled(data, teacher, config, checkpoint=tmp_path, on_epoch=stop, **options)
    resumed, _ = train_distilled(data, teacher, config, checkpoint=tmp_path, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    with pytest.raises(ValueError, match="beta: saved 0.5, now 1.0"):
        train_distilled(data, teacher, config, checkpoint=tmp_path, beta=1.0, **options)


@pytest.mark.parametrize("weights", [{"alpha": -0.1}, {"beta": -1.0}, {"alpha": float("nan")}])
def test_negative_weights_are_refused(weights):
    ((name, value),) = weights.items()
    with pytest.raises(ValueError, match=f"{name} is {value}: expected at least 0"):
        distillation_loss(network(), **weights)


def test_a_teacher_without_a_calibration_branch_is_refused_where_one_is_needed():
    with pytest.raises(ValueError, match="the teacher has no calibration branch: train it with λ > 0"):
        distillation_loss(network(calibration=False), alpha=0.0, beta=0.5)


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="the teacher knows 4 classes and the student 3"):
        distillation_loss(network(classes=4))(network(classes=3), batch())


@pytest.mark.parametrize(
    "teacher_classes, says",
    [
        (["cat", "dog", "owl"], None),
        (["cat", "owl", "dog"], "class 1 is 'owl' to the teacher and 'dog' to the student"),
        (["cat", "dog"], "the teacher does not know 'owl'"),
        (["cat", "dog", "elk", "owl"], "the student does not know 'elk'"),
    ],
)
def test_classes_are_compared_by_name_and_order(teacher, teacher_classes, says):
    if says is None:
        return require_same_classes(teacher_classes, ["cat", "dog", "owl"])
    with pytest.raises(ValueError, match=says):
        require_same_classes(teacher_classes, ["cat", "dog", "owl"])


@pytest.mark.parametrize("branch", ["classification", "calibration"])
def test_a_teacher_whose_answer_is_not_finite_is_named_with_the_images(branch):
    master = network(seed=1)
    part = master.head.classification if branch == "classification" else master.head.calibration[3]
    torch.nn.init.constant_(part.bias, float("nan"))
    with pytest.raises(
        FloatingPointError, match=r"the teacher's answer is not finite for the images in rows \[10, 11, 12, 13\]"
    ):
        distillation_loss(master)(network(seed=2), batch())


def test_a_batch_of_one_cannot_train_the_students_batch_normalisation_and_says_so():
    student = network(seed=2).train()
    with pytest.raises(ValueError, match="cannot train on a batch of 1 image"):
        distillation_loss(network(seed=1))(student, batch(images=1))


def test_a_recipe_names_its_teacher_trained_alike_with_the_same_seed():
    chosen = recipe(
        "distillation", seed=3, data="digits", flip=False, network="small_narrow", alpha=1.0, teacher="small"
    )
    assert needed(chosen) == {"teacher": recipe(seed=3, data="digits", flip=False, network="small", lam=0.1)}
    assert needed(recipe("distillation"))["teacher"].network == "small_wide"
    full = for_profile(chosen, "full")
    assert (full.network, full.settings.teacher, full.size) == ("mobilenet_v2", "resnet18", 448)


def test_a_recipe_trains_its_teacher_first_and_only_once(tmp_path, monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    trained = []
    plain = experiments.train
    monkeypatch.setattr(
        experiments, "train", lambda chosen, checkpoint=None: trained.append(chosen) or plain(chosen, checkpoint)
    )
    for beta in (0.0, 0.5):
        chosen = recipe("distillation", network="small_narrow", teacher="small_narrow", beta=beta, epochs=1)
        run = experiments.load_or_run(chosen)
        assert (
            run.metrics["test"]["mAP"] > 0 and {"classification", "calibration", "attention"} <= run.history[0].keys()
        )
    assert [chosen.method for chosen in trained] == ["distillation", "supervised", "distillation"]
    again = experiments.load_model(for_profile(chosen))
    assert isinstance(again, DualBranchNet) and not again.training


@pytest.fixture
def stored_teacher(tmp_path, monkeypatch):
    """A recipe, and the folder of its stored network."""
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    chosen = for_profile(recipe(network="small_narrow", lam=0.1))
    folder = tmp_path / "models" / chosen.key
    save_checkpoint(folder, network(classes=16).state_dict(), {})
    return chosen, folder


def test_a_truncated_teacher_is_refused(stored_teacher):
    chosen, folder = stored_teacher
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged, it differs from what was saved"):
        experiments.load_model(chosen)


def test_a_teacher_of_another_architecture_is_refused_with_the_first_tensor_that_differs(stored_teacher):
    chosen, folder = stored_teacher
    with pytest.raises(
        ValueError, match=r"belongs to another architecture \(head.calibration.0.bias: saved \(8,\), now \(128,\)\)"
    ):
        experiments.load_model(chosen)


def test_a_pickled_teacher_is_never_opened(stored_teacher):
    chosen, folder = stored_teacher
    bomb = b"cos\nsystem\n(S'touch " + str(folder / "opened").encode() + b"'\ntR."
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(bomb)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"sha256": hashlib.sha256(bomb).hexdigest()}))
    with pytest.raises(ValueError, match="is not a safetensors file .* pickled files are never opened"):
        experiments.load_model(chosen)
    assert not (folder / "opened").exists()
