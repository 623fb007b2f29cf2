"""What one of several processes does in `test_processes`: train and predict, then the first one writes what it got.

Run as `torchrun --nproc_per_node 2 tests/two_processes.py FOLDER`, or alone by `python`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from udlib.datasets.proposals import Proposals
from udlib.heads import DualBranchNet
from udlib.methods.detection.method import (
    RegionStudent,
    ScaledStudent,
    detection_loss,
    feature_loss,
    prediction_loss,
    predictions_of,
)
from udlib.methods.detection.network import Detector
from udlib.methods.supervised import make_network, supervised_loss
from udlib.training import Saving, TrainingConfig, evaluate, fit, predict
from udlib.training.batches import ArrayData
from udlib.training.devices import make_accelerator

CLASSES, CONFIG = (
    4,
    TrainingConfig(epochs=3, batch_size=8, optimizer="sgd", lr=0.05, precision="fp32", erase=0.5, seed=1),
)


class Plain(nn.Module):
    """Two convolutions without batch normalisation, whose statistics each process takes of its own share."""

    out_channels = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())

    def forward(self, images):
        return self.layers(images)


def images(count: int, seed: int) -> ArrayData:
    """Random pixels and labels, and one to five boxes for each image."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 2, (count, CLASSES), generator=draw)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=draw, dtype=torch.uint8)
    corners = [torch.rand(1 + k % 5, 2, generator=draw) / 2 for k in range(count)]
    return ArrayData(
        pixels, targets, proposals=Proposals.of_images([torch.cat([low, low + 0.4], 1) for low in corners])
    )


def networks() -> dict[str, DualBranchNet | Detector]:
    torch.manual_seed(0)
    return {
        "plain": DualBranchNet(Plain(), CLASSES, embedding=8, calibration=False),
        "normalised": make_network(CLASSES, 0.1, "small_narrow"),
        "detector": Detector(Plain(), CLASSES, hidden=8),
    }


def stages() -> dict[str, tuple[nn.Module, object]]:
    """Both stages of a detector's student, each with its loss."""
    teacher, student = networks()["detector"], networks()["plain"]
    torch.manual_seed(1)
    return {
        "stage 1": (RegionStudent(student, teacher, 8), feature_loss(teacher)),
        "stage 2": (ScaledStudent(student, 0.2), prediction_loss(predictions_of(teacher))),
    }


def main(folder: Path) -> None:
    processes = make_accelerator().num_processes
    found = {"processes": torch.tensor(processes)}
    for name, model in networks().items():
        loss_fn = detection_loss if name == "detector" else supervised_loss(0.1 if name == "normalised" else 0.0)
        history = fit(model, images(37, 2), loss_fn, CONFIG, saving=Saving(folder / f"{name}-{processes}"))
        # 37 images on 2 processes: a share is padded, and the padding must not be seen
        predicted = predict(model, images(37, 3), batch_size=10, precision="fp32")
        scores = evaluate(model, images(37, 3), precision="fp32", batch_size=10)
        found |= {
            f"{name}/loss": torch.tensor(history.column("total")),
            f"{name}/logits": predicted.logits,
            f"{name}/targets": predicted.targets.float(),
            f"{name}/mAP": torch.tensor(scores["mAP"]),
        }
        found |= {f"{name}/weights/{key}": value.clone() for key, value in model.state_dict().items()}
    for name, (model, loss_fn) in stages().items():
        found[f"{name}/loss"] = torch.tensor(fit(model, images(37, 2), loss_fn, CONFIG).column("total"))
        found |= {f"{name}/weights/{key}": value.clone() for key, value in model.state_dict().items()}
    if make_accelerator().is_main_process:
        save_file({key: value.contiguous() for key, value in found.items()}, folder / f"found-{processes}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
