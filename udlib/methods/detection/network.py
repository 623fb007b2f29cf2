"""Weakly-supervised detection network (WSDDN; Bilen and Vedaldi, CVPR 2016): image and boxes → scores of each box → image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from udlib.datasets.proposals import Regions
from udlib.methods.detection.losses import detection_logits


class Detection(NamedTuple):
    """What a detector says about B images with M regions in all; its logits are read as those of a `Prediction`."""

    logits: Tensor  # (B, C): sigmoid gives p_k = Σ_r S^c_rk S^d_rk
    calibration_logits: None  # a detector has no calibration branch
    region_features: Tensor  # (M, D), of the last hidden layer, float32
    class_scores: Tensor  # (M, C), M^c before its softmax over classes
    region_scores: Tensor  # (M, C), M^d before its softmax over the regions of an image


def pool_regions(features: Tensor, regions: Regions, size: int) -> Tensor:
    """RoI max-pooling (Girshick, 2015): feature maps (B, D, h, w) → (M, D, size, size) float32, times each region's score.

    A region covers the cells between its rounded edges, at least one, and is cut into size × size bins, which overlap where
    there are fewer cells; the maximum of each bin is kept.
    """
    h, w = features.shape[-2:]
    cells = regions.boxes * regions.boxes.new_tensor([w, h, w, h])
    # torchvision counts a region's last cell in, and finds nothing in one that starts at the map's edge.
    first = torch.minimum(cells[:, :2], cells.new_tensor([w - 1, h - 1]))
    rois = torch.cat([regions.image[:, None].to(cells.dtype), first, cells[:, 2:] - 1], 1)
    with torch.autocast(features.device.type, enabled=False):
        pooled = roi_pool(features.float(), rois, size)
        # Scores of 1 change nothing, and a product of this size costs a tenth of a step.
        return pooled if (regions.scores == 1).all() else pooled * regions.scores.view(-1, 1, 1, 1)


class RegionHead(nn.Module):
    """Pooled regions → FC → ReLU → FC → ReLU, dropout after each as in WSDDN: maps (B, D, h, w) and regions → (M, hidden)."""

    def __init__(self, in_channels: int, hidden: int = 256, pool: int = 2, dropout: float = 0.0):
        super().__init__()
        for name, value in {"hidden": hidden, "pool": pool}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: expected at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}: expected a chance in [0, 1)")
        self.pool, self.hidden = pool, hidden
        self.layers = nn.Sequential(
            nn.Linear(in_channels * pool**2, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )

    def forward(self, features: Tensor, regions: Regions) -> Tensor:
        return self.layers(pool_regions(features, regions, self.pool).flatten(1)).to(torch.float32)


class Detector(nn.Module):
    """WSDDN: backbone → `RegionHead` → M^c and M^d; images (B, 3, H, W) and their regions → `Detection`.

    It learns from image-level labels: `losses.ova_loss` of its logits is WSDDN's loss. `training.predict` gives it the
    regions of the data's `proposals`. Raises ValueError for fewer than two classes, and in a call without regions.
    """

    sees_regions = True  # what tells `training.predict` to pass them

    def __init__(self, backbone: nn.Module, num_classes: int, hidden: int = 256, pool: int = 2, dropout: float = 0.0):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}: a detector's softmax over classes needs at least 2")
        self.backbone = backbone
        self.regions = RegionHead(backbone.out_channels, hidden, pool, dropout)
        self.classes = nn.Linear(hidden, num_classes)
        self.detection = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor, regions: Regions | None = None, calibration: bool = False) -> Detection:
        if regions is None:
            raise ValueError(
                "a detector needs the regions of its images: give the data proposals, ArrayData(..., proposals=...)"
            )
        found = self.regions(self.backbone(images), regions)
        with torch.autocast(found.device.type, enabled=False):  # as the logits of `heads.DualBranchHead`
            c, d = self.classes(found), self.detection(found)
            return Detection(detection_logits(c, d, regions.image, len(images)), None, found, c, d)
