"""Two branches on one pooled feature vector: classification (sigmoid) and calibration (softmax)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from udlib.attention import POOLINGS


class Prediction(NamedTuple):
    """What a network answers for N images: both branches, and the features that they were computed from.

    Attributes:
        logits: (N, C), classification branch: sigmoid gives P(y_i = 1).
        calibration_logits: (N, C), calibration branch, read by a softmax; None where the branch is absent or left out.
        features: (N, D, h, w), the backbone's last map.
        pooled: (N, D), float32.
    """

    logits: Tensor
    calibration_logits: Tensor | None
    features: Tensor
    pooled: Tensor


class DualBranchHead(nn.Module):
    """Two branches side by side on the pooled features: a classifier (FC), and FC → BN → ReLU → FC for calibration.

    Args:
        in_features: D, width of the pooled features.
        num_classes: C.
        embedding: width of the calibration branch's hidden layer.
        calibration: False makes the head a classifier alone.
        bias: False makes a classifier without bias.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> logits, calibration_logits = DualBranchHead(64, 20).eval()(torch.zeros(1, 64))
        >>> logits.shape, calibration_logits.shape
        (torch.Size([1, 20]), torch.Size([1, 20]))

    Source: UD, Section 4.2.2.
    """

    def __init__(
        self, in_features: int, num_classes: int, embedding: int = 512, calibration: bool = True, bias: bool = True
    ):
        super().__init__()
        for name, value in {"in_features": in_features, "num_classes": num_classes, "embedding": embedding}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: expected at least 1")
        # The classifier comes first, so that a seed gives it the same start with and without the calibration branch.
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
        """Compute the logits of both branches, in training mode and in evaluation mode alike.

        Args:
            pooled: (N, D).
            calibration: False leaves the calibration branch out.

        Returns:
            `(logits, calibration_logits)`, each (N, C); the second is None without a calibration branch.

        Raises:
            ValueError: a batch of one image while the calibration branch is in training mode.
        """
        branch = self.calibration if calibration else None
        if branch is not None and branch.training and len(pooled) == 1:
            raise ValueError(
                "the calibration branch's batch normalisation cannot train on a batch of 1 image: "
                "use batches of at least 2, or call eval() first"
            )
        # In bfloat16, logits keep 3 digits: scores would tie, and rounding would swamp the gradients of the attention.
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = pooled.to(self.classification.weight.dtype)
            return self.classification(pooled), None if branch is None else branch(pooled)


class DualBranchNet(nn.Module):
    """Network with two branches: backbone → global pooling → `DualBranchHead`.

    The calibration branch serves training and distillation. Only `calibration=False`, here or in the call, leaves it
    out; training and evaluation mode make no difference.

    Args:
        backbone: maps images (N, 3, H, W) to features (N, D, h, w); its `out_channels` is D.
        num_classes: C.
        pooling: "avg" or "max".
        embedding: width of the calibration branch's hidden layer.
        calibration: False makes a network without the calibration branch.
        bias: False makes a classifier without bias.

    Raises:
        ValueError: an unknown pooling, a size below 1.

    Example:
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
        self.head = DualBranchHead(cast(int, backbone.out_channels), num_classes, embedding, calibration, bias)

    def forward(self, images: Tensor, calibration: bool = True) -> Prediction:
        """Compute the prediction for images (N, 3, H, W); `calibration=False` leaves the calibration branch out."""
        features = self.backbone(images)
        pooled = POOLINGS[self.pooling](features.to(self.head.classification.weight.dtype))
        logits, calibration_logits = self.head(pooled, calibration)
        return Prediction(logits, calibration_logits, features, pooled)
