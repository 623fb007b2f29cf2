"""What trained teachers say about images: computed for each batch, or once for all images.

A teacher is a constant: it is in eval mode, on the device of the images, and no gradient flows through its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from udlib.attention import uncertainty_attention
from udlib.datasets.proposals import Regions
from udlib.datasets.transforms import normalise
from udlib.heads import DualBranchNet
from udlib.normalisation import IMAGENET_MEAN, IMAGENET_STD
from udlib.training.batches import ArrayData, Batch
from udlib.training.devices import autocast, beside, make_accelerator, moved
from udlib.training.optimization import TrainingConfig, normalisation_of


class TeacherAnswers(NamedTuple):
    """What a teacher says about N images."""

    logits: Tensor  # (N, C)
    calibration_logits: Tensor | None  # (N, C), None where no term needs them
    attention: Tensor | None  # (N, h, w), None likewise
    released_attention: Tensor | None = None  # (N, h, w), by the released code's weights, None likewise


Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each colour
WEIGHTINGS = ("gradient", "released")  # of the maps' channels, in the order of the fields above
Ask = Callable[[Batch], TeacherAnswers]


def answers(
    teacher: DualBranchNet,
    calibration: bool = True,
    weightings: Sequence[str] = WEIGHTINGS[:1],
    size: int = 0,
    precision: str = "",
) -> Ask:
    """Make `ask(batch)`, which runs a two-branch teacher on the images of a batch.

    Args:
        teacher: put in eval mode by the caller; it moves to the images' device if need be.
        calibration: whether the calibration branch runs too.
        weightings: of which of `WEIGHTINGS` its map of uncertainty is computed too (UD, Eq. 16).
        size: side of the images that it sees, which show the same regions larger; 0: those of the batch.
        precision: "auto", "bf16" or "fp32"; "": that of the student's forward pass.

    Raises:
        FloatingPointError: when an answer is not finite, with the rows of the images.
        ValueError: for another size or normalisation than the batch's, where nobody knows how its images were made.
    """

    def ask(batch: Batch) -> TeacherAnswers:
        images = images_for(teacher, batch, size)
        context = autocast(images.device, precision) if precision else nullcontext()
        with torch.inference_mode(), context:
            prediction = beside(teacher, images)(images, calibration=calibration)
            branches = prediction[:2] if calibration else prediction[:1]
            require_finite(batch, *branches)
            maps = [
                uncertainty_attention(teacher.head, prediction.features, teacher.pooling, weighting=weighting)
                if weighting in weightings
                else None
                for weighting in WEIGHTINGS
            ]
        # Copies, since tensors made in inference mode may not take part in the student's backward pass.
        whole = TeacherAnswers(prediction.logits, prediction.calibration_logits, *maps)
        return _each(lambda part: part.clone(), whole)

    return ask


def images_for(teacher: nn.Module, batch: Batch, size: int = 0) -> Tensor:
    """The images of a batch as a teacher wants them: at its size, and normalised as it expects.

    Raises:
        ValueError: where they would have to be made anew, and nobody knows how they were made.
    """
    side, normalisation = size or batch.images.shape[-1], normalisation_of(teacher)
    view = batch.view
    if view is None:
        if side == batch.images.shape[-1]:
            return batch.images  # whoever made them knows what the teacher expects
        raise ValueError(
            f"the teacher sees {size} px and the batch has {batch.images.shape[-1]}: only crops that the training loop makes "
            "from uint8 images can be shown at another size, so give uint8 images, or set teacher_size to 0"
        )
    if side == batch.images.shape[-1]:
        if (view.mean, view.std) == normalisation:
            return batch.images
        return renormalised(batch.images, (view.mean, view.std), normalisation)
    return view.again(side, *normalisation).contiguous(memory_format=torch.channels_last)


def renormalised(images: Tensor, before: Normalisation, after: Normalisation) -> Tensor:
    """Images (N, 3, H, W) that were normalised in one way, normalised in another; what was erased gets the same colour."""
    mean, std, new_mean, new_std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (*before, *after))
    return (images * std + (mean - new_mean)) / new_std


def require_finite(batch: Batch, *answers: Tensor) -> None:
    """Refuse answers (N, …) of a teacher that are not finite: FloatingPointError that names the images' rows."""
    finite = torch.stack([answer.isfinite().flatten(1).all(1) for answer in answers]).all(0)
    if not finite.all():
        rows = batch.index[(~finite).cpu()].tolist()
        raise FloatingPointError(
            f"the teacher's answer is not finite for the images in rows {rows} of the "
            "training set: check its weights, and its precision"
        )


def few_views(data: ArrayData, config: TrainingConfig) -> bool:
    """Whether a training shows each image either as it is or mirrored, and often enough for storing the answers to pay."""
    moved = config.shift or config.erase or config.crop
    return not moved and config.epochs > 2 and isinstance(data.images, Tensor)


def stored_where_few(ask: Ask, data: ArrayData, config: TrainingConfig, teacher: nn.Module) -> Ask:
    """`ask`, with the teacher's answers stored beforehand where `few_views` says that this pays."""
    if not few_views(data, config):
        return ask
    return stored_answers(ask, data, config.precision, normalisation=normalisation_of(teacher))


def stored_answers(
    ask: Ask,
    data: ArrayData,
    precision: str = "auto",
    batch_size: int = 256,
    normalisation: Normalisation = (IMAGENET_MEAN, IMAGENET_STD),
) -> Ask:
    """Compute the answers to every image of `data` and to its mirror image now, and look them up from then on.

    A trained teacher gives the same answer to the same picture, and with flips alone each image has two views: over
    forty epochs it is asked a twentieth as often.

    Args:
        ask: asks the teacher.
        data: uint8 images in memory; every batch that is looked up later shows one of these, whole, mirrored or not.
        precision: that of the training.
        batch_size: images at a time.
        normalisation: mean and standard deviation of each colour that the teacher expects.
    """
    device = make_accelerator().device  # of the teacher; the images may be too many for it
    plain: list[TeacherAnswers] = []
    mirrored: list[TeacherAnswers] = []
    pixels = cast(Tensor, data.images)
    for rows in torch.arange(len(data.targets)).split(batch_size):
        images = normalise(pixels[rows.to(pixels.device)].to(device), *normalisation)
        for parts, view, flip in ((plain, images, False), (mirrored, images.flip(3), True)):
            with autocast(device, precision):
                view = view.contiguous(memory_format=torch.channels_last)
                parts.append(ask(Batch(view, data.targets[rows], None, rows, _regions(data, rows, flip, device))))
    as_they_are, flipped = _joined(plain), _joined(mirrored)

    def look_up(batch: Batch) -> TeacherAnswers:
        def view(plain: Tensor, mirrored: Tensor) -> Tensor:
            rows = batch.index.to(plain.device)
            if batch.mirrored is None:
                return plain[rows]
            which = batch.mirrored.to(plain.device).view(-1, *[1] * (plain.ndim - 1))
            return torch.where(which, mirrored[rows], plain[rows])

        return _each(view, as_they_are, flipped)

    return look_up


def _regions(data: ArrayData, rows: Tensor, mirrored: bool, device: torch.device) -> Regions | None:
    if data.proposals is None:
        return None
    return data.proposals.of(rows).to(device).mirrored(torch.full((len(rows),), mirrored))


def _joined(parts: Sequence[TeacherAnswers]) -> TeacherAnswers:
    return _each(lambda *pieces: torch.cat(pieces), *parts)


def _each(function: Callable[..., Tensor], *answers: TeacherAnswers) -> TeacherAnswers:
    """Apply a function to each kind of answer that there is."""
    return TeacherAnswers._make(None if parts[0] is None else function(*parts) for parts in zip(*answers))


def require_same_number(known: int, num_classes: int) -> None:
    """Refuse a teacher of another number of classes (ValueError)."""
    if known != num_classes:
        raise ValueError(
            f"the teacher knows {known} classes and the student {num_classes}: both must name the same "
            "ones, in the same order"
        )


def require_same_classes(
    teacher: Sequence[str], student: Sequence[str], names: tuple[str, str] = ("teacher", "student")
) -> None:
    """Refuse a teacher of other classes, or of the same ones in another order.

    Args:
        teacher: the names of the classes that it knows.
        student: those that the student learns.
        names: what the message calls the two.

    Raises:
        ValueError: naming the first difference.
    """
    teacher, student = tuple(teacher), tuple(student)
    if teacher == student:
        return
    one, other = names
    for whose, missing in ((one, set(student) - set(teacher)), (other, set(teacher) - set(student))):
        if missing:
            raise ValueError(
                f"the {whose} does not know '{min(missing)}': {one} and {other} must name the same classes"
            )
    at = next(k for k, (a, b) in enumerate(zip(teacher, student)) if a != b)
    raise ValueError(f"class {at} is '{teacher[at]}' to the {one} and '{student[at]}' to the {other}: use one order")


def on_teachers_device(teacher: nn.Module, config: TrainingConfig) -> Any:
    """The teacher on the device that trains, in the layout that pays there, in eval mode."""
    device = make_accelerator().device
    # On a CPU the layout gains a small teacher nothing, and changes the last bits of its answers.
    on_gpu = config.channels_last and device.type == "cuda"
    return moved(teacher, device, torch.channels_last if on_gpu else torch.preserve_format).eval()
