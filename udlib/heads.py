"""Two branches on one pooled feature vector: classification (sigmoid) and calibration (softmax)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from udlib.attention import POOLINGS


class Prediction(NamedTuple):
    """What a network says about N images: both branches, and the features they stand on."""

    logits: Tensor  # (N, C), classification: sigmoid gives P(y_i = 1)
    calibration_logits: Tensor | None  # (N, C), calibration: softmax; None where the branch is absent or dropped
    features: Tensor  # (N, D, h, w), the backbone's last map
    pooled: Tensor  # (N, D), float32


class DualBranchHead(nn.Module):
    """Classification FC, and calibration FC → BN → ReLU → FC, side by side on the pooled features (UD, section 4.2.2).

    `in_features` D, `num_classes` C, `embedding` width of the calibration branch's hidden layer, `bias=False` for a
    classifier without bias. With `calibration=False` the head is the classifier alone. The forward pass maps pooled
    features (N, D) to `(logits, calibration_logits)`, each (N, C), in training mode and in evaluation mode alike.

    >>> logits, calibration_logits = DualBranchHead(64, 20).eval()(torch.zeros(1, 64))
    >>> logits.shape, calibration_logits.shape
    (torch.Size([1, 20]), torch.Size([1, 20]))
    """

    def __init__(
        self, in_features: int, num_classes: int, embedding: int = 512, calibration: bool = True, bias: bool = True
    ):
        super().__init__()
        for name, value in {"in_features": in_features, "num_classes": num_classes, "embedding": embedding}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: expected at least 1")
        # The classifier comes first, so that one seed starts it alike with and without the calibration branch.
        self.classification = nn.Linear(in_features, num_classes, bias=bias)
        self.calibration = None
        if calibration:
            self.calibration = nn.Sequential(
                nn.Linear(in_features, embedding),
                nn.BatchNorm1d(embedding),
                nn.ReLU(inplace=True),
                nn.Linear(embedding, num_classes),
            )

    def forward(self, pooled: Tensor, calibration: bool = True) -> tuple[Tensor, Tensor | None]:
        branch = self.calibration if calibration else None
        if branch is not None and branch.training and len(pooled) == 1:
            raise ValueError(
                "the calibration branch's batch normalisation cannot train on a batch of 1 image: "
                "use batches of at least 2, or call eval() first"
            )
        # In bfloat16, logits keep 3 digits: scores would tie, and the attention's gradients drown in rounding.
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = pooled.to(self.classification.weight.dtype)
            return self.classification(pooled), None if branch is None else branch(pooled)


class DualBranchNet(nn.Module):
    """Backbone → global pooling ("avg" or "max") → `DualBranchHead`; images (N, 3, H, W) → `Prediction`.

    The calibration branch serves training and distillation. Only `calibration=False`, here or in the call, leaves it
    out; train and eval mode make no difference.

    >>> from udlib.backbones import backbone
    >>> net = DualBranchNet(backbone("small_narrow"), num_classes=5).eval()
    >>> prediction = net(torch.zeros(2, 3, 64, 64), calibration=False)
    >>> prediction.logits.shape, prediction.calibration_logits, prediction.features.shape
    (torch.Size([2, 5]), None, torch.Size([2, 64, 8, 8]))
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        pooling: str = "avg",
        embedding: int = 512,
        calibration: bool = True,
        bias: bool = True,
    ):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is '{pooling}': expected 'avg' or 'max'")
        self.backbone = backbone
        self.pooling = pooling
        self.head = DualBranchHead(backbone.out_channels, num_classes, embedding, calibration, bias)

    def forward(self, images: Tensor, calibration: bool = True) -> Prediction:
        features = self.backbone(images)
        pooled = POOLINGS[self.pooling](features.to(self.head.classification.weight.dtype))
        return Prediction(*self.head(pooled, calibration), features, pooled)
