"""Learning from a teacher: KD (UD, Eq. 13), its prediction distribution (Eq. 14) and its attention (Eq. 17): UD, Eq. 18.

Trained: a student with both heads, on the teacher's answers alone; hard labels take no part, as in Eq. 18. The teacher
is a trained two-branch network of any width, depth and map size, in eval mode and left as it is. α = β = 0 is plain
KD on the sigmoids; the student then has no calibration branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import Dataset

from udlib.attention import uncertainty_attention, uncertainty_attention_of
from udlib.datasets.proposals import Regions
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.losses import uncertainty_distillation_loss
from udlib.methods.supervised import make_network, on_validation
from udlib.training.batches import ArrayData, Batch, as_data
from udlib.training.devices import autocast, beside, keeps_devices, make_accelerator
from udlib.training.loop import History, TrainingConfig, fit


@dataclass(frozen=True)
class Settings:
    """What a recipe of this method may choose beyond data, network and training."""

    teacher: str = "small_wide"  # the teacher's network; it is trained like the student, on hard labels
    teacher_lam: float = 0.1  # the teacher's λ (Eq. 12); 0 has no calibration branch and can teach by KD only
    alpha: float = 0.5  # weight of the prediction distribution, Eq. 14
    beta: float = 0.5  # weight of the attention, Eq. 17
    temperature: float = 1.0  # of both divergences; the released code's is 3
    normalize: bool = False  # standardise both maps before they are compared
    through_weights: bool = True  # let the attention's gradient flow through w (Eq. 15) too, not only through Z
    scale: str = "paper"  # or "released", the repaired factors of the released code

    def __post_init__(self):
        _require_weights(alpha=self.alpha, beta=self.beta)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: expected a number above 0")


def needs(recipe) -> dict[str, dict]:
    """The networks that must be trained before this recipe: {"teacher": choices of its recipe}, of the same seed."""
    own = set(Settings.__dataclass_fields__)
    shared = {name: value for name, value in recipe.choices().items() if name not in own | {"network"}}
    return {"teacher": shared | {"network": recipe.settings.teacher, "lam": recipe.settings.teacher_lam}}


def build(recipe, num_classes: int) -> DualBranchNet:
    """The student of a recipe (see `experiments.Recipe`) from a random start, for trained weights to be loaded into."""
    return make_network(
        num_classes, _branch(recipe.settings), recipe.network, None, recipe.pooling, recipe.embedding, recipe.bias
    )


def train(
    recipe, data: ArrayData, validation: ArrayData | None, checkpoint=None, *, teacher: DualBranchNet, **options
) -> tuple[DualBranchNet, History]:
    """Train a recipe of this method, with validation and a checkpoint every five epochs, unless `options` of
    `train_distilled` say otherwise."""
    chosen = recipe.settings
    usual = {"keep": recipe.keep, "validate_every": 5, "checkpoint_every": 5, "identity": recipe.flat()}
    return train_distilled(
        data,
        teacher,
        recipe.training,
        alpha=chosen.alpha,
        beta=chosen.beta,
        temperature=chosen.temperature,
        normalize=chosen.normalize,
        through_weights=chosen.through_weights,
        scale=chosen.scale,
        network=recipe.network,
        weights=recipe.weights,
        pooling=recipe.pooling,
        embedding=recipe.embedding,
        bias=recipe.bias,
        validation=validation,
        checkpoint=checkpoint,
        **usual | options,
    )


def distillation_loss(
    teacher: DualBranchNet,
    alpha: float = 0.5,
    beta: float = 0.5,
    temperature: float = 1.0,
    normalize: bool = False,
    through_weights: bool = True,
    scale: str = "paper",
    stored: tuple[ArrayData, str] | None = None,
) -> Callable[[DualBranchNet, Batch], dict[str, Tensor]]:
    """`loss_fn(model, batch)` for `training.fit`: Eq. 18 with the terms "classification", "calibration", "attention".

    What the terms are and what `temperature`, `normalize` and `scale` do to them: `losses.uncertainty_distillation_loss`.
    The student's map is that of the forward pass which is trained; `through_weights` is `create_graph` of
    `attention.uncertainty_attention_of`. The teacher is put in eval mode. A term whose weight is 0 is not computed.
    `stored`, data and precision, asks by `stored_answers`.

    Raises ValueError for α < 0 or β < 0, for a teacher without a calibration branch where α or β needs one, for a student
    of another number of classes; FloatingPointError for a teacher whose answer is not finite, naming the images' rows.
    """
    _require_weights(alpha=alpha, beta=beta)
    branch = alpha > 0 or beta > 0
    if branch and teacher.head.calibration is None:
        raise ValueError(
            f"alpha is {alpha} and beta is {beta}, but the teacher has no calibration branch: train it with "
            "λ > 0, or set both to 0 for plain KD"
        )
    teacher.eval()
    ask = answers(teacher, branch, beta > 0)
    if stored:
        ask = stored_answers(ask, *stored)

    def loss_fn(model: DualBranchNet, batch: Batch) -> dict[str, Tensor]:
        taught = ask(batch)
        prediction = model(batch.images, calibration=branch)
        if prediction.logits.shape != taught.logits.shape:
            raise ValueError(
                f"the teacher knows {taught.logits.shape[1]} classes and the student "
                f"{prediction.logits.shape[1]}: both must name the same ones, in the same order"
            )
        student_map = uncertainty_attention_of(prediction, through_weights) if beta > 0 else None
        return uncertainty_distillation_loss(
            taught, prediction, alpha, beta, taught.attention, student_map, temperature, batch.ignore, normalize, scale
        )

    return loss_fn


class Taught(NamedTuple):
    """What a teacher says about N images: constants, through which no gradient flows."""

    logits: Tensor  # (N, C)
    calibration_logits: Tensor | None  # (N, C), None where no term needs them
    attention: Tensor | None  # (N, h, w), likewise


Ask = Callable[[Batch], Taught]


def answers(teacher: DualBranchNet, calibration: bool = True, attention: bool = True) -> Ask:
    """`ask(batch)`: the teacher's answers to the images of a batch, in inference mode; it comes to their device if need be."""

    def ask(batch: Batch) -> Taught:
        with torch.inference_mode():
            seen = beside(teacher, batch.images)(batch.images, calibration=calibration)
            finite = seen.logits.isfinite().all(1)
            if calibration:
                finite &= seen.calibration_logits.isfinite().all(1)
            if not finite.all():
                rows = batch.index[(~finite).cpu()].tolist()
                raise FloatingPointError(
                    f"the teacher's answer is not finite for the images in rows {rows} of the "
                    "training set: check its weights, and its precision"
                )
            maps = uncertainty_attention(teacher.head, seen.features, teacher.pooling) if attention else None
        # Copies, since tensors made in inference mode may not take part in the student's backward pass.
        return Taught(
            *(None if part is None else part.clone() for part in (seen.logits, seen.calibration_logits, maps))
        )

    return ask


def stored_answers(ask: Ask, data: ArrayData, precision: str = "auto", batch_size: int = 256) -> Ask:
    """`ask`, with its answers to every image of `data` and to its mirror image computed now, once and for all.

    A trained teacher gives the same answer to the same picture, and with flips alone each image has two: over forty epochs
    it is asked a twentieth as often. A batch that holds any other view of an image is passed on to `ask`. `data` has its
    uint8 images in memory; `precision` is that of the training.
    """
    device = make_accelerator().device  # of the teacher; the images may be too many for it

    def views(rows: Tensor) -> tuple[Tensor, Tensor]:
        plain = normalise(data.images[rows.to(data.images.device)].to(device))
        return plain, plain.flip(3)

    def regions(rows: Tensor, mirrored: bool) -> Regions | None:
        if data.proposals is None:
            return None
        return data.proposals.of(rows).to(device).mirrored(torch.full((len(rows),), mirrored))

    parts = ([], [])
    for rows in torch.arange(len(data.targets)).split(batch_size):
        for said, images, mirrored in zip(parts, views(rows), (False, True)):
            with autocast(images.device, precision):
                said.append(
                    ask(
                        Batch(
                            images.contiguous(memory_format=torch.channels_last),
                            None,
                            None,
                            rows,
                            regions(rows, mirrored),
                        )
                    )
                )
    plain, mirrored = (Taught(*(None if part[0] is None else torch.cat(part) for part in zip(*said))) for said in parts)

    def look_up(batch: Batch) -> Taught:
        same, flipped = ((batch.images == view).flatten(1).all(1) for view in views(batch.index))
        if not (same | flipped).all():
            return ask(batch)
        rows = batch.index.to(same.device)
        return Taught(
            *(
                None if p is None else torch.where(same.view(-1, *[1] * (p.ndim - 1)), p[rows], m[rows])
                for p, m in zip(plain, mirrored)
            )
        )

    return look_up


def few_views(data: ArrayData, config: TrainingConfig, options: Mapping) -> tuple[ArrayData, str] | None:
    """What `distillation_loss` stores answers for where a training shows each image as it is or mirrored, and nothing else,
    often enough; None elsewhere."""
    plain = not (config.shift or config.erase or config.crop) and options.get("augment") is None
    return (data, config.precision) if plain and config.epochs > 2 and isinstance(data.images, Tensor) else None


@keeps_devices
def train_distilled(
    data: ArrayData | Dataset,
    teacher: DualBranchNet,
    config: TrainingConfig = TrainingConfig(),
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    temperature: float = 1.0,
    normalize: bool = False,
    through_weights: bool = True,
    scale: str = "paper",
    network: str = "small",
    weights=None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
    classes: Sequence[str] | None = None,
    teacher_classes: Sequence[str] | None = None,
    validation: ArrayData | Dataset | None = None,
    **options,
) -> tuple[DualBranchNet, History]:
    """Train a student `network` on the teacher's answers; the same seed gives the same student.

    `alpha` to `scale` are those of `distillation_loss`; the others are as in `supervised.train_supervised`. Where both
    `classes` and `teacher_classes` are given, they must be the same names in the same order (ValueError).
    """
    if classes is not None and teacher_classes is not None:
        require_same_classes(teacher_classes, classes)
    device = make_accelerator().device
    data = as_data(data).to(device)
    set_seed(config.seed)
    model = make_network(data.targets.shape[1], max(alpha, beta), network, weights, pooling, embedding, bias)
    # On a CPU the layout gains a small teacher nothing, and changes the last bits of its answers.
    on_gpu = config.channels_last and device.type == "cuda"
    teacher.to(device, memory_format=torch.channels_last if on_gpu else torch.preserve_format)
    terms = {
        "alpha": alpha,
        "beta": beta,
        "temperature": temperature,
        "normalize": normalize,
        "through_weights": through_weights,
        "scale": scale,
    }
    if validation is not None:
        options["validate"] = on_validation(validation, config)
    identity = (
        terms
        | {"network": network, "weights": str(weights), "pooling": pooling}
        | (options.pop("identity", None) or {})
    )
    loss_fn = distillation_loss(teacher, **terms, stored=few_views(data, config, options))
    history = fit(model, data, loss_fn, config, identity=identity, **options)
    return model, history


def require_same_classes(teacher: Sequence[str], student: Sequence[str]) -> None:
    """Refuse a teacher of other classes, or of the same ones in another order: ValueError that names the first difference."""
    teacher, student = tuple(teacher), tuple(student)
    if teacher == student:
        return
    for whose, missing in (("teacher", set(student) - set(teacher)), ("student", set(teacher) - set(student))):
        if missing:
            raise ValueError(
                f"the {whose} does not know '{min(missing)}': teacher and student must name the same classes"
            )
    at = next(k for k, (a, b) in enumerate(zip(teacher, student)) if a != b)
    raise ValueError(f"class {at} is '{teacher[at]}' to the teacher and '{student[at]}' to the student: use one order")


def _require_weights(**weights: float) -> None:
    for name, value in weights.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}: expected at least 0, and finite")


def _branch(settings: Settings) -> float:
    """Above 0 where the student has a calibration branch, as `make_network` asks."""
    return max(settings.alpha, settings.beta)
