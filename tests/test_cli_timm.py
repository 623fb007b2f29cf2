"""`--network timm:NAME` in every command: the networks that timm has for tests, trained, distilled, used and exported."""

import huggingface_hub.constants
import pytest
import torch
from commands import udlib_command
from tiny_voc import write_tiny_voc

import udlib

pytestmark = pytest.mark.usefixtures("terminal")

FEW = {"train": 16, "val": 16, "test": 8}
QUICK = ("--epochs", "1", "--batch", "8", "--size", "32")
TEACHER, STUDENT = "timm:test_convnext", "timm:test_resnet"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return write_tiny_voc(tmp_path_factory.mktemp("data") / "few", FEW)


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    """A folder trained with a network of timm, and what the command said."""
    folder = tmp_path_factory.mktemp("models") / "teacher"
    code, out, err = udlib_command("train", few, "--out", folder, *QUICK, "--network", TEACHER)
    assert (code, err) == (0, "")
    return folder, out


def test_train_says_that_it_begins_at_random_and_evaluate_and_predict_use_the_model(few, trained, tmp_path):
    folder, out = trained
    assert f"{TEACHER} begins at random; with --weights pretrained it begins with timm's weights\n" in out
    image = next((few / "JPEGImages").iterdir())
    assert udlib_command("evaluate", few, "--model", folder)[0] == 0
    assert udlib_command("predict", image, "--model", folder, "--map", tmp_path / "maps")[0] == 0
    assert len(list((tmp_path / "maps").iterdir())) == 1


@pytest.mark.parametrize(
    "command, options",
    [
        ("distill", ("--alpha", "0.5", "--beta", "0.5", "--teacher", "{teacher}")),
        ("parallel", ("--k", "1")),
        ("detection", ("--epochs", "2", "--pool", "1", "--hidden", "8")),
    ],
)
def test_every_other_training_takes_it(few, trained, tmp_path, command, options):
    options = [option.format(teacher=trained[0]) for option in options]
    out = tmp_path / "model"
    code, _, err = udlib_command(command, few, "--out", out, *QUICK, *options, "--network", STUDENT)
    assert (code, err) == (0, "") and udlib.load(out).backbone == STUDENT


def test_it_goes_on_from_its_model_and_is_exported(few, trained, tmp_path):
    code, out, err = udlib_command("train", few, "--out", tmp_path / "more", *QUICK, "--from", trained[0])
    assert (code, err) == (0, "") and "begins at random" not in out
    file = tmp_path / "more.pt2"
    assert udlib_command("export", "--model", tmp_path / "more", "--format", "torch-export", "--out", file)[0] == 0
    model, images = udlib.load(tmp_path / "more"), torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    logits = torch.export.load(file).module()(model._normalised(images))
    torch.testing.assert_close(logits, model.logits(images), atol=1e-4, rtol=0)


NO_MAP = ("timm:vit_tiny_patch16_224", "'timm:vit_tiny_patch16_224' returns no feature map (B, D, h, w)")


@pytest.mark.parametrize(
    "command, network, complaint",
    [
        ("train", "timm:resnet19", "has no network 'resnet19': did you mean timm:resnet"),
        (
            "train",
            "timm:maxvit_pico_rw_256",
            "cannot take images of 40 px: choose another size (256 px is its own, --size",
        ),
        *((command, *NO_MAP) for command in ("train", "distill", "parallel", "detection")),
    ],
)
def test_what_has_no_map_no_name_or_another_size_is_one_line(few, trained, tmp_path, command, network, complaint):
    words = (command, few, "--out", tmp_path / "model", *QUICK, "--size", "40", "--network", network)
    options = {"distill": ("--teacher", trained[0]), "parallel": ("--k", "1")}.get(command, ())
    code, _, err = udlib_command(*words, *options)
    assert code == 2 and complaint in err and err.count("\n") == 1
    assert not (tmp_path / "model" / "state.json").exists()


def test_without_a_network_pretrained_weights_are_one_line_with_the_remedies(few, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    words = ("train", few, "--out", tmp_path / "model", *QUICK, "--network", STUDENT, "--weights", "pretrained")
    code, _, err = udlib_command(*words)
    assert code == 2 and err.count("\n") == 1
    assert "cannot be downloaded" in err and "--weights FILE.safetensors" in err and "--weights none" in err
