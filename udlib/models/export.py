"""A trained model as one file for other programs, ONNX or PyTorch's own, with all that belongs to its use beside it as JSON."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import udlib
from udlib.attention import POOLINGS
from udlib.files import atomic_write
from udlib.models.trained import TrainedModel
from udlib.posthoc import LogisticCalibrator

INPUT, OUTPUT = "images", "logits"
TRIED_BATCHES = (1, 3)  # numbers of images on which a written file is compared with the network
LARGEST_DIFFERENCE = 1e-4  # of logits, as a share of the largest one where that is above 1

FORMULAS = {
    "logistic": "p = 1 / (1 + exp(-(a * log(sigmoid(z)) - b * log(sigmoid(-z)) + c))), with the class's a, b and c",
    "isotonic": "p = the class's broken line at z, through its points (logits, probabilities), flat outside them; "
    "where a class has null, p = 1 / (1 + exp(-z))",
    "softmax": "p = exp(z) / sum over the classes of exp(z)",
}


class Exported(NamedTuple):
    """The files that an export wrote, and how far its logits are from the network's on a trial."""

    model: Path
    description: Path
    difference: float


class _Logits(nn.Module):
    """The part of a network that answers: normalised images (N, 3, S, S) → logits (N, C)."""

    def __init__(self, model: TrainedModel):
        super().__init__()
        network = copy.deepcopy(model.network).cpu().to(memory_format=torch.contiguous_format).eval()
        self.backbone, self.classification = network.backbone, network.head.classification
        self.pool = POOLINGS[network.pooling]

    def forward(self, images: Tensor) -> Tensor:
        return self.classification(self.pool(self.backbone(images)))


def export(model: TrainedModel, file: str | Path, form: str = "onnx") -> Exported:
    """Write a model's network as one file, and beside it a JSON file that says how to use it.

    The network takes float32 (N, 3, size, size), prepared as the JSON file says, for any N ≥ 1, and gives float32 logits
    (N, C). What was written is read again and compared with the network.

    Args:
        model: to export. Its calibration branch, which serves uncertainty maps alone, stays behind.
        file: where to; the description is called as it, with .json at the end ("model.onnx.json").
        form: a key of `FORMATS`: "onnx" for ONNX Runtime and many others, "torch-export" for `torch.export.load`.

    Returns:
        The two files, and the largest difference of a logit in the trial.

    Raises:
        ValueError: for an unknown form, a file with another ending than the form's, a network that cannot be written in this
            form, and a written network whose logits differ.
        ModuleNotFoundError: for ONNX without its packages; the message has the command.
        OSError: for a file that cannot be written.

    Source: https://onnx.ai; https://docs.pytorch.org/docs/stable/export.html
    """
    require_form(form)
    ending, write, read = FORMATS[form]
    file = Path(file).expanduser()
    if file.suffix != ending:
        raise ValueError(
            f"'{file.name}' does not end in {ending}, as a file of {form} does: name it '{file.stem}{ending}'"
        )
    if not file.parent.is_dir():
        raise FileNotFoundError(f"'{file}' cannot be written: there is no folder '{file.parent}'")
    network = _Logits(model)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        written = Path(folder) / file.name
        _quietly(write, network, torch.zeros(2, 3, model.size, model.size), written)
        difference = _largest_difference(network, read(written), model.size)
        content = written.read_bytes()
    atomic_write(file, content)
    described = file.with_name(f"{file.name}.json")
    atomic_write(described, json.dumps(description(model, file.name, form), indent=1, ensure_ascii=False).encode())
    return Exported(file, described, difference)


def require_form(form: str) -> None:
    """Raise ValueError for a form that is no key of `FORMATS`."""
    if form not in FORMATS:
        raise ValueError(f"format is '{form}': choose one of {', '.join(FORMATS)}")


def description(model: TrainedModel, file: str, form: str) -> dict[str, Any]:
    """Describe how an exported network is used: its input, how an image becomes that, and how its logits are read.

    Args:
        model: that was exported.
        file: the exported file's name.
        form: a key of `FORMATS`.

    Returns:
        What the JSON file beside it holds; all numbers are those of the model.
    """
    return {
        "file": file,
        "format": form,
        "written_by": f"udlib {udlib.__version__}",
        "network": model.backbone,
        "input": {"name": INPUT, "type": "float32", "shape": ["N", 3, model.size, model.size], "colours": "RGB"},
        "output": {"name": OUTPUT, "type": "float32", "shape": ["N", len(model.classes)]},
        "preprocessing": {
            "turn_by_exif": model.orientation is not None,
            "size": model.size,
            "resize": "stretched to size x size pixels, bilinear with antialiasing (Pillow's BILINEAR), on 8-bit RGB",
            "scale": 1 / 255,
            "mean": list(model.mean),
            "std": list(model.std),
            "formula": "(pixel * scale - mean) / std, colour by colour",
        },
        "classes": list(model.classes),
        "probabilities": _reading(model),
        "thresholds": list(model.thresholds),
        "decision": "a label is present where its probability is at least its class's threshold",
    }


def _reading(model: TrainedModel) -> dict[str, Any]:
    """How logits become probabilities: the formula, and its numbers."""
    if model.read_as == "softmax":
        return {"kind": "softmax", "formula": FORMULAS["softmax"]}
    ones = (1.0,) * len(model.classes)
    calibrator = model.calibrator or LogisticCalibrator("none", ones, ones, (0.0,) * len(model.classes))
    values = {name: value for name, value in calibrator.to_dict().items() if name != "fallbacks"}
    return values | {"formula": FORMULAS.get(values["kind"], FORMULAS["logistic"])}


def _write_onnx(network: nn.Module, example: Tensor, file: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(package)
        except ImportError:
            raise ModuleNotFoundError(
                f"ONNX files need the package '{package}', which is not installed: run `pip install onnx onnxscript "
                "onnxruntime`, or take --format torch-export"
            ) from None
    torch.onnx.export(
        network,
        (example,),
        file,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _read_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    session = import_module("onnxruntime").InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _write_torch(network: nn.Module, example: Tensor, file: Path) -> None:
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("N")},))
    torch.export.save(program, file)


def _read_torch(file: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(file).module()


class Form(NamedTuple):
    """How a file of one form is called, written and read."""

    ending: str
    write: Callable[[nn.Module, Tensor, Path], None]
    read: Callable[[Path], Callable[[Tensor], Tensor]]


FORMATS = {
    "onnx": Form(".onnx", _write_onnx, _read_onnx),
    "torch-export": Form(".pt2", _write_torch, _read_torch),
}


def _quietly(write: Callable, network: nn.Module, example: Tensor, file: Path) -> None:
    """Write a file without the exporter's remarks; ValueError with the first line of its reason where it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(network, example, file)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the exporters raise errors of many kinds
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"this network cannot be written in that format ({type(error).__name__}: {reason}): take the other format, or "
            "serve the model's folder (docs/serving.md)"
        ) from error


def _largest_difference(network: nn.Module, written: Callable[[Tensor], Tensor], size: int) -> float:
    """How far the written network's logits are from the network's, at most; ValueError where that is too far."""
    draw, largest = torch.Generator().manual_seed(0), 0.0
    for count in TRIED_BATCHES:
        images = torch.randn(count, 3, size, size, generator=draw)
        expected, logits = network(images), written(images)
        difference = float((expected - logits).abs().max())
        bound = LARGEST_DIFFERENCE * max(float(expected.abs().max()), 1.0)
        if not difference <= bound:  # NaN, too
            raise ValueError(
                f"the written network's logits differ from the model's by up to {difference:.2g}: take the other format, or "
                "serve the model's folder (docs/serving.md)"
            )
        largest = max(largest, difference)
    return largest
