"""A trained model's folder: what is written is what is loaded, bit by bit, and anything else is refused by name."""

import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import udlib
from udlib.attention import uncertainty_attention
from udlib.backbones import backbone
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.models import Confidences, TrainedModel, save_trained
from udlib.posthoc import CALIBRATORS, fit_platt
from udlib.training import predict
from udlib.training.batches import ArrayData
from udlib.training.checkpoints import save_checkpoint

NAMES = ("cat", "dog", "sofa")
SIZE = 24


def network(seed=0, classes=3, **options):
    torch.manual_seed(seed)
    net = DualBranchNet(backbone("small_narrow"), classes, embedding=8, **options)
    net(torch.randn(8, 3, SIZE, SIZE))  # so that running statistics are no ones and zeros
    return net


def model(seed=0, **parts):
    return TrainedModel(network(seed), "small_narrow", NAMES, SIZE, **parts)


def pictures(count=5, size=SIZE):
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def fitted(kind="platt"):
    draw = torch.Generator().manual_seed(2)
    return CALIBRATORS[kind](torch.randn(60, 3, generator=draw) * 3, torch.randint(0, 2, (60, 3), generator=draw))


@pytest.fixture
def folder(tmp_path):
    return save_trained(tmp_path / "model", model(calibrator=fitted()))


@pytest.mark.parametrize("kind", [None, *CALIBRATORS])
@pytest.mark.parametrize(
    "options", [{}, {"pooling": "max", "bias": False, "calibration": False}], ids=["branch", "plain"]
)
def test_a_loaded_model_predicts_the_same_bits(tmp_path, kind, options):
    calibrator = None if kind is None else fitted(kind)
    metrics = {"val": {"uncalibrated": {"mAP": 0.1 + 0.2}}}
    made = TrainedModel(
        network(**options),
        "small_narrow",
        NAMES,
        SIZE,
        (0.1, 0.2, 0.3),
        (1.0, 2.0, 3.0),
        "sigmoid",
        calibrator,
        (0.1, 0.5, 0.9),
        metrics,
        {"lr": 0.01},
        {"python": "3"},
    )
    back = udlib.load(save_trained(tmp_path / "model", made))
    assert torch.equal(back.predict(pictures()).probabilities, made.predict(pictures()).probabilities)
    for name in (
        "backbone",
        "classes",
        "size",
        "mean",
        "std",
        "read_as",
        "calibrator",
        "thresholds",
        "metrics",
        "training",
        "provenance",
    ):
        assert getattr(back, name) == getattr(made, name), name
    assert back.network.pooling == made.network.pooling and not back.network.training


def test_probabilities_are_those_of_the_calibrator_fitted_by_hand_on_the_networks_logits():
    images, targets = pictures(40), torch.randint(0, 2, (40, 3), generator=torch.Generator().manual_seed(3))
    net = network()
    logits = predict(net, ArrayData(images, targets), batch_size=16, precision="fp32").logits
    calibrator = fit_platt(logits, targets)
    found = replace(model(), network=net, calibrator=calibrator).predict(images, batch_size=16)
    a, c = torch.tensor(calibrator.a), torch.tensor(calibrator.c)
    torch.testing.assert_close(found.probabilities, torch.sigmoid(a * logits.double() + c))
    assert found.probabilities.dtype == torch.float64 and found.classes == NAMES and found.thresholds == (0.5,) * 3


def test_without_a_calibrator_logits_are_read_as_the_network_was_trained():
    logits = model().logits(pictures()).double()
    assert torch.equal(model().predict(pictures()).probabilities, torch.sigmoid(logits))
    assert torch.equal(model(read_as="softmax").predict(pictures()).probabilities, logits.softmax(1))


def test_paths_pil_images_and_tensors_of_any_size_are_the_same_images(tmp_path):
    large = pictures(3, 40)
    pils = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in large]
    paths = []
    for k, image in enumerate(pils):
        image.save(tmp_path / f"{k}.png")
        paths.append(tmp_path / f"{k}.png")
    expected = torch.stack(
        [
            torch.from_numpy(np.array(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))).permute(2, 0, 1)
            for image in pils
        ]
    )
    asked = model()
    assert all(torch.equal(asked.prepare(path), square) for path, square in zip(paths, expected))
    logits = asked.logits(expected)
    for images in (large, list(large), pils, paths, [str(path) for path in paths]):
        assert torch.equal(asked.logits(images), logits)
    assert torch.equal(asked.logits(paths[0]), asked.logits(expected[:1]))
    assert torch.equal(asked.logits(pils[0]), asked.logits(expected[:1]))


@pytest.mark.parametrize(
    "training, asked, sizes", [({"batch_size": 8}, None, [8, 8, 4]), ({}, None, [20]), ({"batch_size": 8}, 15, [15, 5])]
)
def test_answers_are_computed_in_batches_of_the_training(monkeypatch, training, asked, sizes):
    trained, seen = model(training=training), []
    monkeypatch.setattr(
        TrainedModel, "_logits_of_batch", lambda self, pixels: seen.append(len(pixels)) or torch.zeros(len(pixels), 3)
    )
    trained.predict(torch.zeros(20, 3, 16, 16, dtype=torch.uint8), asked)
    assert seen == sizes


def test_batches_do_not_change_the_answer():
    torch.testing.assert_close(model().logits(pictures(7), batch_size=2), model().logits(pictures(7), batch_size=32))


@pytest.mark.parametrize(
    "images, complaint, error",
    [
        ([], "there are no images", ValueError),
        (["nowhere.jpg"], "image 'nowhere.jpg' does not exist", FileNotFoundError),
        ([3], "image is a int: expected a path, a PIL image or a uint8 tensor", TypeError),
        (torch.zeros(2, 3, 8, 8), "torch.float32 .3, 8, 8.: expected torch.uint8", ValueError),
        (
            torch.zeros(2, 8, 8, dtype=torch.uint8),
            r"torch.uint8 \(8, 8\): expected torch.uint8 \(3, H, W\)",
            ValueError,
        ),
    ],
)
def test_what_is_no_image_is_refused(images, complaint, error):
    with pytest.raises(error, match=complaint):
        model().predict(images)


def test_labels_come_surest_first_from_their_thresholds_on():
    found = Confidences(torch.tensor([[0.5, 0.9, 0.9], [0.1, 0.2, 0.0]]), NAMES, (0.5, 0.95, 0.5))

    def names(**choice):
        return [[name for name, _ in labels] for labels in found.labels(**choice)]

    assert names() == [["sofa", "cat"], []], "each class has its own threshold, which counts as reached"
    assert names(threshold=0.2) == [["dog", "sofa", "cat"], ["dog"]], "equal ones in the order of the classes"
    assert names(top=2) == [["dog", "sofa"], ["dog", "cat"]], "however unsure"
    assert names(top=1, threshold=0.95) == [[], []]
    assert found.labels()[0][1] == ("cat", 0.5)
    for choice, complaint in ({"threshold": 1.5}, "threshold is 1.5"), ({"top": 0}, "top is 0"):
        with pytest.raises(ValueError, match=complaint):
            found.labels(**choice)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_uncertainty_map_is_that_of_eq_16(pooling):
    net = network(pooling=pooling).eval()
    image = pictures(1)
    features = net.backbone(normalise(image))
    found = replace(model(), network=net).uncertainty_map(image[0])
    torch.testing.assert_close(found, uncertainty_attention(net.head, features, pooling)[0].detach())
    assert found.shape == (3, 3)


def test_without_a_calibration_branch_there_is_no_map():
    with pytest.raises(ValueError, match="no calibration branch, and so no uncertainty map: train one with λ above 0"):
        replace(model(), network=network(calibration=False)).uncertainty_map(pictures(1)[0])


@pytest.mark.parametrize(
    "parts, complaint",
    [
        ({"classes": ("cat", "dog", "cat")}, "classes hold 'cat' more than once"),
        ({"classes": ("cat", "dog")}, "answers for 3 classes, and 2 are named"),
        ({"classes": ("cat", "dog", " ")}, "a class is called ' '"),
        ({"size": 0}, "size is 0"),
        ({"mean": (0.1, 0.2)}, r"mean are \[0.1, 0.2\]: expected 3 numbers from 0 to 1"),
        ({"std": (0.0, 1.0, 1.0)}, "std are"),
        ({"thresholds": (0.5, 0.5, 1.5)}, "thresholds are .* expected 3 numbers"),
        ({"read_as": "logits"}, "read_as is 'logits': expected sigmoid or softmax"),
        ({"read_as": "softmax", "calibrator": fitted()}, "a calibrator needs logits that are read by a sigmoid"),
        (
            {"calibrator": replace(fitted(), a=(1.0,) * 4, b=(1.0,) * 4, c=(0.0,) * 4)},
            "platt calibrator does not work .*4",
        ),
        ({"calibrator": replace(fitted(), c=(float("nan"),) * 3)}, "does not give 3 probabilities"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(parts, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(model(), **({"thresholds": None} | parts))


def test_weights_that_are_not_finite_are_refused_by_name():
    net = network()
    net.head.classification.bias.data[1] = float("nan")
    with pytest.raises(ValueError, match="weights 'head.classification.bias' are not finite"):
        TrainedModel(net, "small_narrow", NAMES, SIZE)


def test_a_network_that_is_not_what_its_name_says_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="belongs to another architecture"):
        save_trained(tmp_path / "model", TrainedModel(network(), "small", NAMES, SIZE))
    assert not (tmp_path / "model").exists()


# Bad folders


def test_what_is_no_model_folder_is_said_so(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.pt").write_bytes(pickle.dumps({}))
    for name, complaint in (
        ("nowhere", "does not exist"),
        ("empty", "has no 'state.json'"),
        ("model.pt", "is a file, and a pickled one is never opened"),
    ):
        with pytest.raises(
            FileNotFoundError, match=f"model folder '.*{name}' {complaint}: give a folder that `udlib train`"
        ):
            udlib.load(tmp_path / name)


def test_a_checkpoint_or_a_result_is_no_model(tmp_path):
    save_checkpoint(tmp_path, {"a": torch.zeros(1)}, {"recipe": {}})
    with pytest.raises(
        ValueError, match="'model' is None: expected a folder that `udlib train` wrote, not a checkpoint"
    ):
        udlib.load(tmp_path)


def change(folder, **entries):
    state = json.loads((folder / "state.json").read_text())
    for path, value in entries.items():
        *parents, last = path.split("__")
        place = state
        for name in parents:
            place = place[name]
        place[last] = value
    (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    "entries, complaint",
    [
        ({"model": 2}, "format is 2, expected 1: a later udlib wrote it, update yours"),
        ({"model": "1"}, "'model' is '1'"),
        ({"classes": ["cat", "dog", "dog"]}, "classes hold 'dog' more than once"),
        ({"classes": ["cat", "dog"]}, r"another architecture \(head.calibration.3.bias: saved \(3,\), now \(2,\)\)"),
        ({"classes": ["cat", "dog", 3]}, "a class is called 3"),
        ({"classes": "cat"}, "'classes' is 'cat': expected a list"),
        ({"classes": []}, "num_classes is 0"),
        ({"network": []}, r"'network' is \[\]: expected a dict"),
        ({"network__backbone": "small"}, "another architecture"),
        ({"network__backbone": "lenet"}, "unknown backbone 'lenet'"),
        ({"network__pooling": "sum"}, "pooling is 'sum'"),
        ({"network__embedding": True}, "'embedding' is True: expected a int"),
        ({"network__embedding": 10**9}, "another architecture"),
        ({"network__calibration": False}, "another architecture"),
        ({"transforms__size": 0}, "size is 0"),
        ({"transforms__size": "64"}, "'size' is '64'"),
        ({"transforms__resize": "centre crop"}, "transforms.resize is 'centre crop': expected 'stretched"),
        ({"transforms__mean": [0, 0, "0"]}, "mean are"),
        ({"transforms__std": [1, 1]}, "std are"),
        ({"read_as": "probabilities"}, "read_as is 'probabilities'"),
        ({"calibrator": {"kind": "magic"}}, "unknown kind 'magic' of calibrator"),
        ({"calibrator": {"kind": []}}, r"'kind' is \[\]: expected a str"),
        ({"calibrator__a": [1.0]}, "platt calibrator does not work"),
        ({"calibrator__a": ["x", "y", "z"]}, "platt calibrator does not work"),
        ({"calibrator": []}, r"'calibrator' is \[\]"),
        ({"thresholds": [0.5]}, "thresholds are"),
        ({"metrics": None}, "'metrics' is None: expected a dict"),
    ],
)
def test_json_that_is_not_what_it_says_is_refused_by_name(folder, entries, complaint):
    change(folder, **entries)
    with pytest.raises(ValueError, match=f"model folder '.*model': .*{complaint}"):
        udlib.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_json_is_named(folder, text):
    (folder / "state.json").write_text(text)
    with pytest.raises(ValueError, match="state.json' is damaged .*: copy the folder again"):
        udlib.load(folder)


def tensors_file(folder):
    return next(folder.glob("tensors-*.safetensors"))


def rewrite(folder, content):
    """Replace the weights, with a SHA-256 that agrees."""
    tensors_file(folder).write_bytes(content)
    change(folder, sha256=hashlib.sha256(content).hexdigest())


def test_missing_and_damaged_weights_are_named(folder):
    content = tensors_file(folder).read_bytes()
    tensors_file(folder).write_bytes(content[:-1])
    with pytest.raises(ValueError, match="tensors-.*is damaged, it differs from what was saved: copy the folder again"):
        udlib.load(folder)
    tensors_file(folder).unlink()
    with pytest.raises(ValueError, match="which is missing: copy the folder again"):
        udlib.load(folder)


def test_a_pickle_in_the_place_of_the_weights_is_not_opened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "opened"), "w")

    rewrite(folder, pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="is not a safetensors file .* pickled files are never opened"):
        udlib.load(folder)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (
            lambda weights: {name: value.half() for name, value in weights.items()},
            "are torch.float16: expected torch.float32",
        ),
        (
            lambda weights: weights | {"head.classification.weight": torch.full((3, 64), float("inf"))},
            "weights 'head.classification.weight' are not finite",
        ),
        (
            lambda weights: weights | {"extra": torch.zeros(1)},
            r"another architecture \(extra: saved \(1,\), now None\)",
        ),
    ],
)
def test_other_weights_are_refused_by_name(folder, spoil, complaint):
    rewrite(folder, safetensors.torch.save(spoil(safetensors.torch.load(tensors_file(folder).read_bytes()))))
    with pytest.raises(ValueError, match=complaint):
        udlib.load(folder)


def test_loading_draws_no_random_numbers(folder):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    udlib.load(folder)
    assert torch.equal(torch.rand(3), expected)


def test_importing_the_package_imports_no_torch():
    code = "import sys, udlib; sys.exit('torch' in sys.modules or not callable(udlib.load))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
