"""Network of weakly-supervised detection (WSDDN): image and boxes → scores of each box → logits of the image.

Source: WSDDN = Bilen and Vedaldi, CVPR 2016.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from udlib.datasets.proposals import Regions
from udlib.methods.detection.losses import detection_logits


class Detection(NamedTuple):
    """What a detector answers for B images with M regions in all; its logits are read as those of a `Prediction`.

    Attributes:
        logits: (B, C): sigmoid gives p_k = Σ_r S^c_rk S^d_rk.
        calibration_logits: None: a detector has no calibration branch.
        region_features: (M, D), of the last hidden layer, float32.
        class_scores: (M, C), M^c before its softmax over classes.
        region_scores: (M, C), M^d before its softmax over the regions of an image.
    """

    logits: Tensor
    calibration_logits: None
    region_features: Tensor
    class_scores: Tensor
    region_scores: Tensor


def pool_regions(features: Tensor, regions: Regions, size: int) -> Tensor:
    """Pool the features of each region (RoI max-pooling), times the region's score.

    A region covers the cells between its rounded edges, at least one, and is cut into size × size bins, which overlap
    where there are fewer cells; the maximum of each bin is kept.

    Args:
        features: (B, D, h, w), feature maps.
        regions: of those B images, M in all.
        size: number of bins along each side.

    Returns:
        (M, D, size, size) float32.

    Source: Girshick, Fast R-CNN, ICCV 2015.
    """
    h, w = features.shape[-2:]
    cells = regions.boxes * regions.boxes.new_tensor([w, h, w, h])
    # torchvision counts a region's last cell in, and pools nothing from a region that starts at the map's edge.
    first = torch.minimum(cells[:, :2], cells.new_tensor([w - 1, h - 1]))
    rois = torch.cat([regions.image[:, None].to(cells.dtype), first, cells[:, 2:] - 1], 1)
    with torch.autocast(features.device.type, enabled=False):
        pooled = roi_pool(features.float(), rois, size)
        # Scores of 1 change nothing, and a product of this size costs a tenth of a step.
        return pooled if (regions.scores == 1).all() else pooled * regions.scores.view(-1, 1, 1, 1)


class RegionHead(nn.Module):
    """Features of regions: pooled regions → FC → ReLU → FC → ReLU, with dropout after each ReLU as in WSDDN.

    Args:
        in_channels: D of the feature maps.
        hidden: width of both layers.
        pool: number of bins along each side of a region.
        dropout: chance that a unit is dropped in training, in [0, 1).

    Raises:
        ValueError: a size below 1, dropout outside [0, 1).
    """

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
        """Map feature maps (B, D, h, w) and their M regions to features (M, hidden), float32."""
        return self.layers(pool_regions(features, regions, self.pool).flatten(1)).to(torch.float32)


class Detector(nn.Module):
    """Detection network (WSDDN): backbone → `RegionHead` → scores M^c and M^d of each region.

    It learns from image-level labels: `losses.ova_loss` of its logits is WSDDN's loss. `training.predict` gives it the
    regions of the data's `proposals`.

    Args:
        backbone: maps images (B, 3, H, W) to features (B, D, h, w); its `out_channels` is D.
        num_classes: C, at least 2.
        hidden: width of the region head's layers.
        pool: number of bins along each side of a region.
        dropout: of the region head, in [0, 1).

    Raises:
        ValueError: fewer than two classes, and as `RegionHead`.
    """

    sees_regions = True  # tells `training.predict` to pass them

    def __init__(self, backbone: nn.Module, num_classes: int, hidden: int = 256, pool: int = 2, dropout: float = 0.0):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}: a detector's softmax over classes needs at least 2")
        self.backbone = backbone
        self.regions = RegionHead(cast(int, backbone.out_channels), hidden, pool, dropout)
        self.classes = nn.Linear(hidden, num_classes)
        self.detection = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor, regions: Regions | None = None, calibration: bool = False) -> Detection:
        """Compute the scores of all regions and the logits of the images.

        Args:
            images: (B, 3, H, W).
            regions: of these images.
            calibration: not used; `training.predict` passes it to every network.

        Returns:
            Logits of the B images, features and scores of the M regions.

        Raises:
            ValueError: a call without regions, an image without a region.
        """
        if regions is None:
            raise ValueError(
                "a detector needs the regions of its images: give the data proposals, ArrayData(..., proposals=...)"
            )
        hidden = self.regions(self.backbone(images), regions)
        # As in `heads.DualBranchHead`: in bfloat16, logits keep 3 digits and scores would tie.
        with torch.autocast(hidden.device.type, enabled=False):
            c, d = self.classes(hidden), self.detection(hidden)
            return Detection(detection_logits(c, d, regions.image, len(images)), None, hidden, c, d)
