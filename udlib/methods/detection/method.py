"""Distilling weakly-supervised detection (WSD; Liu et al., ACM MM 2018) into a classifier that sees whole images alone.

The teacher is WSDDN (`network.Detector`), which learns from image-level labels which of an image's boxes show what. The
student is a plain classifier. Stage 1 teaches it the teacher's features of the same boxes, pooled from its own map by
layers of its own; stage 2, from the backbone that this gave, the labels and the teacher's sharpened predictions, through a
learned scale of each class. At test time the student stands alone. Its controls are settings: either stage's teaching
alone; none, which is the supervised baseline to the last bit; and stage 2 with a plain classifier in the detector's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from udlib.backbones import SMALL_WIDTHS, backbone
from udlib.datasets.base import MultiLabelDataset
from udlib.datasets.proposals import KINDS, Proposals, proposals
from udlib.datasets.transforms import MultiScale
from udlib.heads import DualBranchNet
from udlib.methods import supervised
from udlib.methods.base import Cost, Method, Recipe, Stage, Stages, make_recipe, two_branch_network
from udlib.methods.detection.evaluation import detection
from udlib.methods.detection.network import Detector
from udlib.methods.detection.students import (
    RegionStudent,
    ScaledStudent,
    detection_loss,
    feature_loss,
    prediction_loss,
    predictions_of,
)
from udlib.methods.distillation import without_settings
from udlib.methods.supervised import supervised_loss
from udlib.methods.teachers import answers, require_same_number, stored_where_few
from udlib.training.batches import ArrayData
from udlib.training.optimization import TrainingConfig, mixed_seed

PARTS = ("teacher", "student")
TRANSFERS = ("both", "features", "predictions", "none")
TAUGHT_BY = ("detector", "classifier")
# A detector's step beside a classifier's with the same backbone, as measured for the course: regions are pooled and
# each of them goes through two layers.
REGION_STEP = 2.0


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training."""

    part: str = "student"  # or "teacher", the detector itself
    transfer: str = (
        "both"  # what the student is taught: "features" in stage 1, "predictions" in stage 2, both, or "none"
    )
    taught_by: str = (
        "detector"  # or "classifier", the control without boxes: it has predictions to teach, and no regions
    )
    teacher: str = "small"  # the network of the student's teacher, trained like the student with the same seed
    proposals: str = "grid"  # or "selective-search", which needs OpenCV, or "boxes", the annotated ones
    pool: int = 2  # side of a pooled region in bins; 7 in the paper, whose maps are larger
    hidden: int = 256  # width of both fully connected layers; 4,096 in the paper
    dropout: float = 0.0  # after each of them; 0.5 in WSDDN
    multi_scale: bool = True  # as in the paper: the teacher sees images of three sizes, one for each step
    stage_epochs: float = 0.25  # share of the epochs that stage 1 has, where there is one
    sharpen: float = 2.0  # of both softmaxes in what is taught
    scale: float = 0.2  # where the learned scale of each class starts

    def __post_init__(self):
        for name, allowed in {
            "part": PARTS,
            "transfer": TRANSFERS,
            "taught_by": TAUGHT_BY,
            "proposals": KINDS,
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is '{getattr(self, name)}': choose one of {', '.join(allowed)}")
        if self.taught_by == "classifier" and (self.part, self.transfer) != ("student", "predictions"):
            raise ValueError(
                f"taught_by is 'classifier', part '{self.part}' and transfer '{self.transfer}': a classifier has only "
                "predictions to teach a student, so set transfer to 'predictions'"
            )
        if not 0 < self.stage_epochs < 1:
            raise ValueError(f"stage_epochs is {self.stage_epochs}: expected a share of the epochs between 0 and 1")
        for name in ("sharpen", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a number above 0")

    @property
    def features(self) -> bool:
        """Whether there is a stage 1."""
        return self.transfer in ("both", "features")

    @property
    def predictions(self) -> bool:
        """Whether stage 2 has the teacher's predictions beside the labels."""
        return self.transfer in ("both", "predictions")

    @property
    def needs_teacher(self) -> bool:
        """Whether there is a teacher: for every student but the control without any transfer."""
        return self.part == "student" and self.transfer != "none"

    @property
    def boxed(self) -> bool:
        """Whether training needs proposals: with a detector, for itself or as a teacher."""
        return self.part == "teacher" or (self.needs_teacher and self.taught_by == "detector")


class WeaklySupervisedDetection(Method):
    """A detector, which is a recipe of its own, and a student in two stages."""

    name = "detection"
    Settings = Settings
    teachers_start = True

    def needs(self, recipe: Recipe) -> dict[str, Recipe]:
        """A student's teacher, of the same seed: the detector, or the control's classifier."""
        settings = recipe.settings
        if not settings.needs_teacher:
            return {}
        shared = {"network": settings.teacher, **without_settings(recipe)}
        if settings.taught_by == "classifier":
            return {"teacher": make_recipe(supervised.METHOD.name, supervised.Settings, **shared)}
        alike = {name: getattr(settings, name) for name in ("proposals", "pool", "hidden", "dropout", "multi_scale")}
        return {"teacher": make_recipe(self.name, Settings, part="teacher", **alike, **shared)}

    def build(self, recipe: Recipe, num_classes: int, weights: str | None = None) -> DualBranchNet | Detector:
        """The detector, or the student: a backbone with a classifier alone."""
        settings = recipe.settings
        if settings.part == "teacher":
            features = backbone(recipe.network, weights)
            return Detector(features, num_classes, settings.hidden, settings.pool, settings.dropout)
        return two_branch_network(recipe, num_classes, 0.0, weights)

    def proposals(self, recipe: Recipe, dataset: MultiLabelDataset, split: str) -> Proposals | None:
        """A teacher's boxes for every split, a student's for "train" alone."""
        settings = recipe.settings
        boxed = settings.boxed and (settings.part == "teacher" or split == "train")
        return proposals(dataset, settings.proposals) if boxed else None

    def localise(self, network: Any, data: ArrayData, dataset: MultiLabelDataset, **options) -> dict[str, float]:
        """A detector is measured by its boxes, a student as every classifier."""
        if isinstance(network, Detector):
            return detection(network, data, dataset, **options)
        return super().localise(network, data, dataset, **options)

    def cost(self, recipe: Recipe) -> Cost:
        """Pooled regions double a step, in stage 1 too; a small teacher's answers are stored before stage 2."""
        settings, epochs = recipe.settings, recipe.training.epochs
        steps: dict[str, float] = {}
        if settings.part == "teacher":
            return Cost(epochs, {recipe.network: REGION_STEP})
        first = settings.stage_epochs * settings.features
        steps[recipe.network] = first * REGION_STEP + (1 - first)
        asked = first + (1 - first) * settings.predictions * (recipe.network not in SMALL_WIDTHS)
        forward = (REGION_STEP if settings.boxed else 1) / 3
        steps[settings.teacher] = steps.get(settings.teacher, 0) + asked * forward
        return Cost(epochs, steps)

    def check(self, recipe: Recipe, data: ArrayData) -> None:
        """Refuse data without the boxes that training looks at, and too few epochs for two stages."""
        settings, epochs = recipe.settings, recipe.training.epochs
        if settings.boxed:
            require_proposals(data, recipe.training)
        if settings.part == "student" and stage_1_epochs(settings, epochs) >= epochs:
            raise ValueError(f"epochs is {epochs}: two stages need at least 2")

    def stages(self, recipe: Recipe, data: ArrayData, teachers: Mapping[str, Any]) -> Stages:
        """One stage for the detector. For a student the features, where they are taught, and then labels and predictions."""
        if recipe.settings.part == "teacher":
            return self._detector_stage(recipe, data)
        return self._student_stages(recipe, data, teachers.get("teacher"))

    def _detector_stage(self, recipe: Recipe, data: ArrayData) -> Stages:
        settings, config = recipe.settings, recipe.training
        detector = self.new_network(recipe, data.targets.shape[1])
        augment = config.augment_for(detector, MultiScale) if settings.multi_scale else None
        yield Stage(detector, detection_loss, data, config, augment=augment)
        return detector

    def _student_stages(self, recipe: Recipe, data: ArrayData, teacher: Any) -> Stages:
        """Both stages together have the recipe's epochs, so that a student costs no more of them than one without a teacher."""
        settings, config = recipe.settings, recipe.training
        first = stage_1_epochs(settings, config.epochs)
        student = self.new_network(recipe, data.targets.shape[1])
        if settings.needs_teacher:
            head = teacher.classes if settings.boxed else teacher.head.classification
            require_same_number(len(head.weight), data.targets.shape[1])
        if settings.features:
            own = replace(config, epochs=first, seed=mixed_seed(config.seed, 1))
            region_student = RegionStudent(student, teacher, settings.hidden)
            features = feature_loss(teacher)
            unjudged: Any = {"validated": False, "keep": "last"}
            yield Stage(region_student, features, data, own, "stage 1", {"stage": 1}, **unjudged, starts=student)

        rest = replace(config, epochs=config.epochs - first)
        label = {"stage": 2}
        if not settings.predictions:
            yield Stage(student, supervised_loss(lam=0.0), data, rest, "stage 2", label)
            return student
        ask = predictions_of(teacher, settings.sharpen) if settings.boxed else answers(teacher.eval(), False, ())
        scaled = ScaledStudent(student, settings.scale)
        predictions = prediction_loss(stored_where_few(ask, data, rest, teacher))
        history = yield Stage(scaled, predictions, data, rest, "stage 2", label, student="student")
        history.rows[-1] |= {f"scale {k}": value for k, value in enumerate(scaled.scale.tolist())}
        return student


METHOD = WeaklySupervisedDetection()


def stage_1_epochs(settings: Settings, epochs: int) -> int:
    """How many of the epochs stage 1 has; 0 where there is none."""
    return max(round(epochs * settings.stage_epochs), 1) if settings.features else 0


def require_proposals(data: ArrayData, config: TrainingConfig) -> None:
    """Refuse data without proposals, or with such as cannot follow the way in which images are moved (ValueError)."""
    if data.proposals is None:
        raise ValueError(
            "the data has no proposals: make them with `proposals.proposals(dataset, kind)` or "
            "`proposals.grid_proposals(images)`, and give ArrayData(..., proposals=...)"
        )
    if (config.shift or config.crop) and not data.proposals.shared:
        raise ValueError(
            f"shift is {config.shift} and crop is {config.crop}, but boxes can follow only mirrored images: set shift and crop "
            "to 0, or use the proposals 'grid', which are the same for every image"
        )
