"""What a student of a detector learns in each stage: the networks around it, and their losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from udlib.datasets.proposals import Regions
from udlib.heads import DualBranchNet
from udlib.losses import ova_loss
from udlib.losses.reductions import weighted_mean
from udlib.methods.detection.losses import detection_logits, prediction_transfer_loss, region_feature_loss
from udlib.methods.detection.network import Detector, RegionHead
from udlib.methods.teachers import Ask, TeacherAnswers, images_for, require_finite
from udlib.training.batches import Batch
from udlib.training.devices import beside


def detection_loss(model: Detector, batch: Batch) -> dict[str, Tensor]:
    """Compute the detector's own loss: BCE of p, summed over classes (WSDDN), from image-level labels alone."""
    per_image = ova_loss(model(batch.images, batch.regions).logits, batch.targets, batch.ignore, "none")
    return {"total": weighted_mean(per_image, batch.weights)}


class RegionStudent(nn.Module):
    """Stage 1: a student's backbone, and region layers of its own, which end at the teacher's width; none of these stay."""

    def __init__(self, student: DualBranchNet, teacher: Detector, hidden: int):
        super().__init__()
        self.backbone = student.backbone
        channels = cast(int, student.backbone.out_channels)
        self.regions = RegionHead(channels, hidden, teacher.regions.pool)
        wide = teacher.regions.hidden
        self.adapter = nn.Identity() if hidden == wide else nn.Linear(hidden, wide)

    def forward(self, images: Tensor, regions: Regions) -> Tensor:
        """Features (M, D) of the regions, as wide as the teacher's."""
        return self.adapter(self.regions(self.backbone(images), regions))


def feature_loss(teacher: Detector) -> Callable[[RegionStudent, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` of stage 1: `region_feature_loss`, without any label."""
    teacher.eval()

    def loss_fn(student: RegionStudent, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            images = images_for(teacher, batch)
            teacher_features = beside(teacher, images)(images, batch.regions).region_features
        regions = cast(Regions, batch.regions)
        features = student(batch.images, regions)
        count = len(batch.images)
        return {"total": region_feature_loss(teacher_features, features, regions.image, count, batch.weights)}

    return loss_fn


class ScaledLogits(NamedTuple):
    """A student's logits z, and a ⊙ z, both (N, C)."""

    logits: Tensor
    scaled: Tensor


class ScaledStudent(nn.Module):
    """Stage 2: a student, and a (C,), the learned scale of each class, which is the training's own and not the student's."""

    def __init__(self, student: DualBranchNet, scale: float):
        super().__init__()
        self.student = student
        weight = student.head.classification.weight
        self.scale = nn.Parameter(torch.full((len(weight),), scale, dtype=weight.dtype, device=weight.device))

    @property
    def backbone(self) -> nn.Module:
        """What `torch.compile` is for."""
        return self.student.backbone

    def forward(self, images: Tensor) -> ScaledLogits:
        """Logits of the images, as they are and scaled."""
        logits = self.student(images, calibration=False).logits
        return ScaledLogits(logits, self.scale * logits)


def predictions_of(teacher: Detector, sharpen: float = 2.0) -> Ask:
    """Make `ask(batch)`: the logits of q, the teacher's sharpened predictions of the images of a batch (WSD).

    Raises:
        FloatingPointError: when an answer is not finite, with the rows of the images.
    """
    teacher.eval()

    @torch.no_grad()
    def ask(batch: Batch) -> TeacherAnswers:
        images = images_for(teacher, batch)
        detection = beside(teacher, images)(images, batch.regions)
        scores = (detection.class_scores, detection.region_scores)
        regions = cast(Regions, batch.regions)
        logits = detection_logits(*scores, regions.image, len(batch.images), sharpen)
        require_finite(batch, logits)
        return TeacherAnswers(logits, None, None)

    return ask


def prediction_loss(ask: Ask) -> Callable[[ScaledStudent, Batch], dict[str, Tensor]]:
    """Make `loss_fn(network, batch)` of stage 2: `prediction_transfer_loss` on what `ask(batch)` answers."""

    def loss_fn(student: ScaledStudent, batch: Batch) -> dict[str, Tensor]:
        prediction = student(batch.images)
        teacher_logits = ask(batch).logits
        return prediction_transfer_loss(
            prediction.logits, prediction.scaled, batch.targets, teacher_logits, batch.ignore, batch.weights
        )

    return loss_fn
