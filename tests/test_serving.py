"""The programs of docs/serving.md, run as they stand there: they answer as the model does."""

import json
import re
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_models import NAMES, SIZE, fitted, model

from udlib.models import save_trained
from udlib.models.export import description, export
from udlib.posthoc import CALIBRATORS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
SERVER, CLIENT = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def served():
    """A model with a calibrator, and thresholds of its own."""
    return model(calibrator=fitted(), thresholds=(0.2, 0.4, 0.6))


@pytest.fixture(scope="module")
def folder(served, tmp_path_factory):
    """A working folder with the model, its ONNX file and four pictures, one of them turned by its EXIF orientation."""
    folder = tmp_path_factory.mktemp("work")
    save_trained(folder / "model", served)
    export(served, folder / "model.onnx", "onnx")
    draw = np.random.default_rng(0)
    for k, shape in enumerate([(40, 30, 3), (24, 24, 3), (17, 90), (33, 21, 3)]):
        exif = Image.Exif()
        exif[0x0112] = 6 if k == 3 else 1
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{k}.png", exif=exif)
    return folder


@pytest.fixture
def program(folder, monkeypatch):
    """Run a program of the page in the working folder, and give its names."""
    monkeypatch.chdir(folder)

    def run(source):
        names = {"__name__": "program"}
        exec(compile(source, str(PAGE), "exec"), names)
        return names

    return run


def test_the_page_has_about_twenty_lines_for_each():
    assert all(sum(bool(line.strip()) for line in source.splitlines()) <= 27 for source in (SERVER, CLIENT))


def test_the_server_answers_with_the_labels_of_the_model_and_refuses_what_is_no_image(program, folder, served):
    server = HTTPServer(("127.0.0.1", 0), program(SERVER)["Answers"])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        for name in ("0.png", "1.png", "2.png"):
            with urllib.request.urlopen(address, (folder / name).read_bytes(), timeout=60) as answer:
                labels = json.loads(answer.read())["labels"]
            expected = served.predict(folder / name).labels()[0]
            assert [(label["name"], pytest.approx(label["probability"])) for label in labels] == expected
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(address, b"no image", timeout=60)
        assert refusal.value.code == 400 and "cannot identify image" in json.loads(refusal.value.read())["error"]
    finally:
        server.shutdown()
        server.server_close()


def test_the_program_without_udlib_gives_the_models_probabilities_and_labels(program, folder, served):
    names, files = program(CLIENT), [folder / f"{k}.png" for k in range(4)]
    confidences = served.predict(files)
    (logits,) = names["session"].run(["logits"], {"images": np.stack([names["prepared"](file) for file in files])})
    torch.testing.assert_close(torch.from_numpy(logits), served.logits(files), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        torch.from_numpy(names["probabilities"](logits)), confidences.probabilities, atol=1e-4, rtol=0
    )
    expected = [dict(labels) for labels in confidences.labels()]
    assert [
        {name: pytest.approx(p, abs=1e-4) for name, p in labels.items()} for labels in names["labels"](files)
    ] == expected


@pytest.mark.parametrize("kind", [None, *CALIBRATORS])
def test_its_formulas_are_those_of_every_calibrator(program, kind):
    changed = model(calibrator=None if kind is None else fitted(kind))
    names = program(CLIENT)
    names["about"] = json.loads(json.dumps(description(changed, "model.onnx", "onnx")))
    logits = torch.randn(50, len(NAMES), generator=torch.Generator().manual_seed(4)) * 5
    expected = torch.sigmoid(logits.double()) if kind is None else changed.calibrator(logits)
    torch.testing.assert_close(torch.from_numpy(names["probabilities"](logits.numpy())), expected)


def test_a_class_that_could_not_be_fitted_keeps_the_sigmoid_in_the_description_too(program):
    with pytest.warns(UserWarning, match="keep the plain sigmoid"):
        calibrator = CALIBRATORS["isotonic"](torch.randn(20, 3), torch.tensor([[0, 1, 1]] * 10 + [[0, 0, 1]] * 10))
    changed = replace(model(), calibrator=calibrator)
    assert calibrator.fallbacks == (0, 2)
    names = program(CLIENT)
    names["about"] = json.loads(json.dumps(description(changed, "model.onnx", "onnx")))
    logits = torch.randn(50, 3)
    torch.testing.assert_close(torch.from_numpy(names["probabilities"](logits.numpy())), calibrator(logits))
    assert names["about"]["preprocessing"]["size"] == SIZE
