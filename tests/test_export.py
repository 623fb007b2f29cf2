"""Exported models: their logits are the model's, in ONNX Runtime and reloaded by torch; and what cannot be exported is said."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from commands import udlib_command
from test_models import NAMES, SIZE, fitted, model, network, pictures

import udlib
from udlib.datasets.transforms import normalise
from udlib.models import export as exports
from udlib.models import save_trained
from udlib.models.export import FORMATS, export

pytestmark = pytest.mark.usefixtures("terminal")


@pytest.fixture(scope="module")
def trained():
    return model(calibrator=fitted("beta"), thresholds=(0.2, 0.4, 0.6), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    return save_trained(tmp_path_factory.mktemp("models") / "mine", trained)


def prepared(trained, count):
    """Images as the network takes them."""
    return normalise(pictures(count), trained.mean, trained.std)


def test_the_onnx_file_gives_the_models_logits_in_onnx_runtime_for_any_number_of_images(trained, tmp_path):
    written = export(trained, tmp_path / "model.onnx", "onnx")
    assert written.difference < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]
    session = onnxruntime.InferenceSession(str(written.model))
    ((name, kind, shape),) = [(each.name, each.type, each.shape) for each in session.get_inputs()]
    assert (name, kind, shape[1:]) == ("images", "tensor(float)", [3, SIZE, SIZE]) and isinstance(shape[0], str)
    for count in (1, 2, 7):
        (logits,) = session.run(["logits"], {"images": prepared(trained, count).numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), trained.logits(pictures(count)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options", [{}, {"pooling": "max", "bias": False, "calibration": False}], ids=["branch", "plain"]
)
def test_the_reloaded_torch_program_gives_the_models_logits_for_any_number_of_images(tmp_path, options):
    trained = replace(model(), network=network(**options))
    written = export(trained, tmp_path / "model.pt2", "torch-export")
    program = torch.export.load(written.model).module()
    for count in (1, 2, 7):
        logits = program(prepared(trained, count))
        torch.testing.assert_close(logits, trained.logits(pictures(count)), atol=1e-4, rtol=0)


def test_the_description_has_the_models_own_numbers(trained, tmp_path):
    about = json.loads(export(trained, tmp_path / "a.pt2", "torch-export").description.read_text(encoding="utf-8"))
    how, reading = about["preprocessing"], about["probabilities"]
    assert (about["file"], about["format"], about["network"]) == ("a.pt2", "torch-export", "small_narrow")
    assert (tuple(about["classes"]), tuple(about["thresholds"])) == (NAMES, trained.thresholds)
    assert (how["size"], how["mean"], how["std"]) == (SIZE, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    assert how["scale"] == 1 / 255 and how["turn_by_exif"] is True and "bilinear" in how["resize"]
    assert about["input"]["shape"] == ["N", 3, SIZE, SIZE] and about["output"]["shape"] == ["N", 3]
    assert reading["kind"] == "beta" and tuple(reading["a"]) == trained.calibrator.a
    softmax = exports.description(model(read_as="softmax"), "a.onnx", "onnx")["probabilities"]
    assert softmax["kind"] == "softmax" and "exp(z) / sum" in softmax["formula"]


def test_an_export_leaves_the_model_and_its_network_as_they_were(trained, tmp_path):
    before, mode = trained.logits(pictures()), trained.network.training
    export(trained, tmp_path / "model.pt2", "torch-export")
    assert torch.equal(trained.logits(pictures()), before) and trained.network.training == mode


# What cannot be exported


@pytest.mark.parametrize(
    "name, form, complaint",
    [
        ("model.onnx", "tensorflow", "format is 'tensorflow': choose one of onnx, torch-export"),
        ("model.pt2", "onnx", "'model.pt2' does not end in .onnx, as a file of onnx does: name it 'model.onnx'"),
        ("nowhere/model.pt2", "torch-export", "cannot be written: there is no folder '.*nowhere'"),
    ],
)
def test_a_form_an_ending_and_a_folder_that_cannot_be_are_refused(trained, tmp_path, name, form, complaint):
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        export(trained, tmp_path / name, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [lambda logits: logits + 0.01, lambda logits: logits * np.nan])
def test_a_file_with_other_logits_is_not_kept(trained, tmp_path, monkeypatch, wrong):
    form = FORMATS["torch-export"]

    def read(file):
        program = form.read(file)
        return lambda images: wrong(program(images))

    monkeypatch.setitem(FORMATS, "torch-export", form._replace(read=read))
    with pytest.raises(
        ValueError, match="the written network's logits differ from the model's by up to .*: take the other"
    ):
        export(trained, tmp_path / "model.pt2", "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_the_exporter_refuses_is_one_sentence(trained, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("operator 'strange' is unknown\nand much more")

    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(write=refuse))
    with pytest.raises(
        ValueError, match=r"cannot be written in that format \(RuntimeError: operator 'strange' is unknown\): "
    ):
        export(trained, tmp_path / "model.onnx")


# The command


def test_the_command_writes_beside_the_models_folder_and_says_how_near_it_is(folder, trained):
    code, out, err = udlib_command("export", "--model", folder, "--format", "torch-export")
    file = folder.with_name("mine.pt2")
    assert (code, err) == (0, "") and f"written: {file} (" in out and f"and {file}.json" in out
    assert "its logits differ from the model's by at most 0, on random images" in out
    logits = torch.export.load(file).module()(prepared(trained, 2))
    torch.testing.assert_close(logits, udlib.load(folder).logits(pictures(2)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--format", "tflite"), "format is 'tflite': choose one of onnx, torch-export"),
        (("--out", "model.pt2"), "name it 'model.onnx'"),
        (("--model", "nobody"), "model folder 'nobody' does not exist"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(folder, options, complaint):
    code, out, err = udlib_command("export", "--model", folder, *options)
    assert code == 2 and out == "" and complaint in err and err.count("\n") == 1


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(folder, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = udlib_command("export", "--model", folder, "--out", tmp_path / "model.onnx")
    assert code == 2 and err.count("\n") == 1 and list(tmp_path.iterdir()) == []
    assert f"need the package '{package}', which is not installed: run `pip install onnx onnxscript onnxruntime`" in err


def test_help_names_the_formats_and_the_packages():
    code, out, _ = udlib_command("export", "--help")
    text = " ".join(out.replace("│", " ").split())
    assert (
        code == 0
        and [p for p in ("onnx", "torch-export", "--out", "pip install onnx", "Example") if p not in text] == []
    )
