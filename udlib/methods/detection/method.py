"""Distilling weakly-supervised detection (WSD; Liu et al., ACM MM 2018) into a classifier that sees whole images alone.

The teacher is WSDDN (`detectors.Detector`), which learns from image-level labels which of an image's boxes show what. The
student is a plain classifier. Stage 1 teaches it the teacher's features of the same boxes, pooled from its own map by
layers of its own; stage 2, from the backbone that this gave, the labels and the teacher's sharpened predictions, through a
learned scale of each class. At test time the student stands alone. Its controls are settings: either stage's teaching
alone; none, which is the supervised baseline to the last bit; and stage 2 with a plain classifier in the detector's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from udlib.backbones import backbone
from udlib.datasets.base import MultiLabelDataset
from udlib.datasets.proposals import KINDS, Proposals, Regions, proposals
from udlib.datasets.transforms import MultiScale
from udlib.heads import DualBranchNet
from udlib.losses import ova_loss
from udlib.methods.detection.evaluation import detection
from udlib.methods.detection.losses import detection_logits, prediction_transfer_loss, region_feature_loss
from udlib.methods.detection.network import Detector, RegionHead
from udlib.methods.distillation import Ask, Taught, answers, few_views, stored_answers
from udlib.methods.supervised import make_network, on_validation, supervised_loss, train_supervised
from udlib.training.batches import ArrayData, Batch
from udlib.training.checkpoints import fingerprint
from udlib.training.devices import beside, keeps_devices, make_accelerator
from udlib.training.localisation import localisation
from udlib.training.loop import WATCHING, History, TrainingConfig, fit, mixed_seed

PARTS = ("teacher", "student")
TRANSFERS = ("both", "features", "predictions", "none")
TAUGHT_BY = ("detector", "classifier")


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
    teacher: str = "small"  # the student's teacher's network, trained like the student with the same seed
    proposals: str = "grid"  # or "selective-search", which needs OpenCV, or "boxes", the annotated ones
    pool: int = 2  # side of a pooled region in bins; 7 in the paper, whose maps are larger
    hidden: int = 256  # width of both fully connected layers; 4,096 in the paper
    dropout: float = 0.0  # after each of them; 0.5 in WSDDN
    multi_scale: bool = True  # as in the paper: the teacher sees images of three sizes, one for each step
    stage_epochs: float = 0.25  # share of the epochs that stage 1 has, where there is one
    sharpen: float = 2.0  # of both softmaxes in what is taught
    scale: float = 0.2  # where the learned scale of each class starts

    def __post_init__(self):
        for name, allowed in {"part": PARTS, "transfer": TRANSFERS, "taught_by": TAUGHT_BY, "proposals": KINDS}.items():
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
    def taught(self) -> bool:
        """Whether a teacher is needed: by every student but the control without any transfer."""
        return self.part == "student" and self.transfer != "none"

    @property
    def boxed(self) -> bool:
        """Whether training needs proposals: with a detector, for itself or as a teacher."""
        return self.part == "teacher" or (self.taught and self.taught_by == "detector")


def needs(recipe) -> dict[str, dict]:
    """The networks that must be trained before this recipe: a student's {"teacher": choices of its recipe}, of the same seed."""
    chosen = recipe.settings
    if not chosen.taught:
        return {}
    own = set(Settings.__dataclass_fields__) | {"network"}
    shared = {name: value for name, value in recipe.choices().items() if name not in own}
    if chosen.taught_by == "classifier":
        return {"teacher": {"network": chosen.teacher, **shared}}
    alike = {name: getattr(chosen, name) for name in ("proposals", "pool", "hidden", "dropout", "multi_scale")}
    return {"teacher": {"method": "detection", "part": "teacher", "network": chosen.teacher, **alike, **shared}}


def build(recipe, num_classes: int) -> DualBranchNet | Detector:
    """The network of a recipe (see `experiments.Recipe`) from a random start, for trained weights to be loaded into."""
    chosen = recipe.settings
    if chosen.part == "teacher":
        return Detector(backbone(recipe.network), num_classes, chosen.hidden, chosen.pool, chosen.dropout)
    return make_network(num_classes, 0.0, recipe.network, None, recipe.pooling, recipe.embedding, recipe.bias)


def proposed(recipe, dataset: MultiLabelDataset, split: str) -> Proposals | None:
    """The boxes that a recipe needs of the images of a split: a teacher's of every split, a student's of "train" alone."""
    wanted = recipe.settings.boxed and (recipe.settings.part == "teacher" or split == "train")
    return proposals(dataset, recipe.settings.proposals) if wanted else None


def located(
    model: DualBranchNet | Detector, data: ArrayData, dataset: MultiLabelDataset, **options
) -> dict[str, float]:
    """How well a network finds the objects: `detection_measures.detection` of a teacher, `localisation` of a student."""
    return (detection if isinstance(model, Detector) else localisation)(model, data, dataset, **options)


def train(
    recipe,
    data: ArrayData,
    validation: ArrayData | None,
    checkpoint=None,
    *,
    teacher: Detector | DualBranchNet | None = None,
    **options,
) -> tuple[DualBranchNet | Detector, History]:
    """Train a recipe of this method, with validation and a checkpoint every five epochs, unless `options` of
    `training.fit` say otherwise. A student's `teacher` is trained first where it is not given."""
    usual = {
        "keep": recipe.keep,
        "validate_every": 5,
        "checkpoint_every": 5,
        "identity": recipe.flat(),
        "network": recipe.network,
        "weights": recipe.weights,
        "validation": validation,
        "checkpoint": checkpoint,
    }
    shape = {"pooling": recipe.pooling, "embedding": recipe.embedding, "bias": recipe.bias}
    if recipe.settings.part == "teacher":
        return train_detector(data, recipe.training, recipe.settings, **usual | options)
    if recipe.settings.taught and teacher is None:
        own = {name: value for name, value in (usual | options).items() if name not in WATCHING}
        own |= {
            "network": recipe.settings.teacher,
            "validation": None,
            "checkpoint": checkpoint and Path(checkpoint) / "teacher",
        }
        if recipe.settings.boxed:
            teacher, _ = train_detector(data, recipe.training, replace(recipe.settings, part="teacher"), **own)
        else:
            teacher, _ = train_supervised(data, recipe.training, lam=0.0, **shape | own)
    return train_taught(data, teacher, recipe.training, recipe.settings, **shape | usual | options)


def detection_loss(model: Detector, batch: Batch) -> dict[str, Tensor]:
    """`loss_fn` for `training.fit`: BCE of p, summed over classes (WSDDN), from image-level labels alone."""
    return {"total": ova_loss(model(batch.images, batch.regions).logits, batch.targets, batch.ignore)}


def train_detector(
    data: ArrayData,
    config: TrainingConfig = TrainingConfig(),
    settings: Settings = Settings(part="teacher"),
    *,
    network: str = "small",
    weights=None,
    validation: ArrayData | None = None,
    identity: Mapping[str, object] | None = None,
    **options,
) -> tuple[Detector, History]:
    """Train a WSDDN on `data` with its proposals; the same seed gives the same detector.

    `validation`, if given, has proposals too. `options` go to `training.fit`. Raises ValueError for data without proposals,
    and for a `shift` or `crop` of images whose boxes are their own: boxes follow a mirrored image, no more.
    """
    require_proposals(data, config)
    set_seed(config.seed)
    model = Detector(
        backbone(network, weights), data.targets.shape[1], settings.hidden, settings.pool, settings.dropout
    )
    if validation is not None:
        require_proposals(validation, config)
        options["validate"] = on_validation(validation, config)
    if settings.multi_scale:
        moves = {"flip": config.flip, "shift": config.shift, "erase": config.erase, "crop": config.crop}
        options = {"augment": MultiScale(**moves)} | options
    given = {
        "network": network,
        "weights": str(weights),
        "pool": settings.pool,
        "hidden": settings.hidden,
        "dropout": settings.dropout,
        "multi_scale": settings.multi_scale,
        "boxes": boxes_of(data),
    }
    return model, fit(model, data, detection_loss, config, identity=given | dict(identity or {}), **options)


def require_proposals(data: ArrayData, config: TrainingConfig) -> None:
    """Refuse data without proposals, or with such as cannot follow the way in which images are moved (ValueError)."""
    if data.proposals is None:
        raise ValueError(
            "the data has no proposals: make them with `proposals.proposals(dataset, kind)` or "
            "`proposals.grid_proposals(images)`, and give ArrayData(..., proposals=...)"
        )
    if (config.shift or config.crop) and not data.proposals.shared:
        raise ValueError(
            f"shift is {config.shift} and crop is {config.crop}: boxes follow mirrored images only; set both to 0, or "
            "take the proposals 'grid', which follow nothing"
        )


def boxes_of(data: ArrayData) -> str:
    """What stands for the proposals of a training set in a checkpoint's identity."""
    found = data.proposals
    return fingerprint({"boxes": found.boxes, "scores": found.scores, "starts": found.starts, "counts": found.counts})


class RegionStudent(nn.Module):
    """Stage 1: a student's backbone, and region layers of its own, which end at the teacher's width; none of these stay."""

    def __init__(self, student: DualBranchNet, teacher: Detector, hidden: int):
        super().__init__()
        self.backbone = student.backbone
        self.regions = RegionHead(student.backbone.out_channels, hidden, teacher.regions.pool)
        wide = teacher.regions.hidden
        self.adapter = nn.Identity() if hidden == wide else nn.Linear(hidden, wide)

    def forward(self, images: Tensor, regions: Regions) -> Tensor:
        return self.adapter(self.regions(self.backbone(images), regions))


def feature_loss(teacher: Detector):
    """`loss_fn(model, batch)` of stage 1, for a `RegionStudent`: `losses_detection.region_feature_loss`; no labels."""
    teacher.eval()

    def loss_fn(model: RegionStudent, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            taught = beside(teacher, batch.images)(batch.images, batch.regions).region_features
        said = model(batch.images, batch.regions)
        return {"total": region_feature_loss(taught, said, batch.regions.image, len(batch.images))}

    return loss_fn


class Scaled(NamedTuple):
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

    def forward(self, images: Tensor) -> Scaled:
        logits = self.student(images, calibration=False).logits
        return Scaled(logits, self.scale * logits)


def predictions_of(teacher: Detector, sharpen: float = 2.0) -> Ask:
    """`ask(batch)`: the logits of q, the teacher's sharpened predictions of the images of a batch, detached (WSD)."""
    teacher.eval()

    @torch.no_grad()
    def ask(batch: Batch) -> Taught:
        said = beside(teacher, batch.images)(batch.images, batch.regions)
        q = detection_logits(said.class_scores, said.region_scores, batch.regions.image, len(batch.images), sharpen)
        if not q.isfinite().all():
            rows = batch.index[(~q.isfinite().all(1)).cpu()].tolist()
            raise FloatingPointError(
                f"the teacher's answer is not finite for the images in rows {rows} of the training set: "
                "check its weights, and its precision"
            )
        return Taught(q, None, None)

    return ask


def prediction_loss(ask: Ask):
    """`loss_fn(model, batch)` of stage 2, for a `ScaledStudent`: `losses_detection.prediction_transfer_loss`."""

    def loss_fn(model: ScaledStudent, batch: Batch) -> dict[str, Tensor]:
        said = model(batch.images)
        return prediction_transfer_loss(said.logits, said.scaled, batch.targets, ask(batch).logits, batch.ignore)

    return loss_fn


@keeps_devices
def train_taught(
    data: ArrayData,
    teacher: Detector | DualBranchNet | None,
    config: TrainingConfig = TrainingConfig(),
    settings: Settings = Settings(),
    *,
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
    validation: ArrayData | None = None,
    keep: str = "last",
    checkpoint: str | Path | None = None,
    identity: Mapping[str, object] | None = None,
    **options,
) -> tuple[DualBranchNet, History]:
    """Train a student of a trained detector, or of the control's classifier.

    The same seed gives the same student, of the same start as any other network's.
    `config.epochs` are those of both stages together, so that a student costs no more epochs than one without a teacher:
    stage 1 has `settings.stage_epochs` of them, with a schedule of its own. Rows of the history carry on counting, with
    `stage` 1 and 2; the last has the scale that each class k learned, `scale k`. Each stage has a checkpoint folder of its
    own, so that a kill at any moment is resumed to the same student. Other arguments and errors are those of
    `supervised.train_supervised`, but that only stage 2 is validated and looked on; for errors of the proposals see
    `train_detector`. Raises ValueError for a teacher of other classes, and for fewer than two epochs with a stage 1.
    """
    watch = {name: options.pop(name) for name in WATCHING if name in options}
    first = max(round(config.epochs * settings.stage_epochs), 1) if settings.features else 0
    if first >= config.epochs:
        raise ValueError(f"epochs is {config.epochs}: two stages need at least 2")
    data, folder = data.to(make_accelerator().device), None if checkpoint is None else Path(checkpoint)
    set_seed(config.seed)
    student = make_network(data.targets.shape[1], 0.0, network, weights, pooling, embedding, bias)
    given = {
        "network": network,
        "weights": str(weights),
        "pooling": pooling,
        "transfer": settings.transfer,
        "sharpen": settings.sharpen,
        "scale": settings.scale,
        "hidden": settings.hidden,
    } | dict(identity or {})
    if settings.transfer != "none":
        told = teacher.classes if settings.boxed else teacher.head.classification
        if (known := len(told.weight)) != data.targets.shape[1]:
            raise ValueError(
                f"the teacher knows {known} classes and the student {data.targets.shape[1]}: both must name the same "
                "ones, in the same order"
            )
        given |= {"teacher": fingerprint(teacher.state_dict())}
        if settings.boxed:
            require_proposals(data, config)
            given |= {"boxes": boxes_of(data)}
    rows = []
    if settings.features:
        own = replace(config, epochs=first, seed=mixed_seed(config.seed, 1))
        found = fit(
            RegionStudent(student, teacher, settings.hidden),
            data,
            feature_loss(teacher),
            own,
            identity=given,
            checkpoint=folder and folder / "stage 1",
            **options,
        )
        given |= {"stage 1": fingerprint(student.backbone.state_dict())}
        rows = [row | {"stage": 1} for row in found.rows]

    rest = replace(config, epochs=config.epochs - first)
    model, loss_fn = student, supervised_loss(lam=0.0)
    if settings.predictions:
        ask = predictions_of(teacher, settings.sharpen) if settings.boxed else answers(teacher.eval(), False, False)
        if stored := few_views(data, rest, options):
            ask = stored_answers(ask, *stored)
        model, loss_fn = ScaledStudent(student, settings.scale), prediction_loss(ask)
    if validation is not None:
        watch["validate"] = on_validation(validation, config)
    if (judge := watch.get("validate")) is not None:
        watch["validate"] = lambda trained: judge(getattr(trained, "student", trained))
    if (look := watch.get("on_epoch")) is not None:
        watch["on_epoch"] = lambda epoch, trained, row: look(epoch + first, trained, row | {"epoch": epoch + first})
    found = fit(
        model,
        data,
        loss_fn,
        rest,
        identity=given,
        keep=keep,
        checkpoint=folder and folder / "stage 2",
        **watch | options,
    )
    rows += [row | {"stage": 2, "epoch": row["epoch"] + first} for row in found.rows]
    if settings.predictions:
        rows[-1] |= {f"scale {k}": value for k, value in enumerate(model.scale.tolist())}
    best = {name.removeprefix("student."): value for name, value in found.best_weights.items() if name != "scale"}
    return student, History(rows, found.best_epoch and found.best_epoch + first, best)
