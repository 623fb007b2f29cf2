"""A training that begins with the weights of a trained model: for the same classes, or for others with a new head."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from udlib.heads import DualBranchNet
from udlib.methods import method_of
from udlib.methods.base import Recipe
from udlib.methods.teachers import require_same_classes
from udlib.models import TrainedModel

BRANCH = "head.calibration."
# What a head has for each class; the rest of it belongs to no class.
ROWS = ("head.classification.", "head.calibration.3.")


@dataclass(frozen=True)
class NewHead:
    """A trained model to begin with, whose head gives way to one of the data set's classes.

    A class that the model knows by name keeps the model's weights. Every other one gets new weights, which the recipe's seed
    draws. So does a calibration branch that the model lacks, or that has another width.
    """

    model: TrainedModel


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Attributes:
        network: with the weights that the training begins with, and its classes in its order.
        notes: sentences about what its head keeps of the model, none where it is the model's own head.
    """

    network: DualBranchNet
    notes: tuple[str, ...] = ()


def start_for(start: TrainedModel | NewHead, recipe: Recipe, classes: Sequence[str]) -> Start:
    """Make the start of a training out of a trained model.

    Args:
        start: a model of the recipe's network and pooling.
        recipe: of the training.
        classes: that it learns, in their order.

    Returns:
        Where the training begins.

    Raises:
        ValueError: for another network or pooling, and, without a new head, for other classes or another order of them.
    """
    model = start.model if isinstance(start, NewHead) else start
    for name, theirs, ours in (
        ("network", model.backbone, recipe.network),
        ("pooling", model.network.pooling, recipe.pooling),
    ):
        if theirs != ours:
            raise ValueError(
                f"the start's {name} is '{theirs}', and '{ours}' is to be trained: train '{theirs}', or take another start"
            )
    if not isinstance(start, NewHead):
        _require_same_classes(model.classes, classes)
        return Start(model.network)
    network = method_of(recipe.method).new_network(recipe.but(weights=None), len(classes))
    network.load_state_dict(_with_kept_rows(network.state_dict(), model, classes))
    return Start(network, tuple(_notes(network, model, classes)))


def begin_with(network: nn.Module, start: nn.Module) -> None:
    """Give a network the weights of a trained one, which may have a calibration branch that the network lacks.

    Of a network without such a head, as a detector is, the backbone alone begins with them.

    Raises:
        ValueError: for another architecture or another number of classes, naming the first tensor that differs.
    """
    expected, weights = network.state_dict(), start.state_dict()
    if not hasattr(network, "head"):
        weights = {name: value for name, value in weights.items() if name.startswith("backbone.")}
        weights = expected | weights
    has, had = (any(name.startswith(BRANCH) for name in state) for state in (expected, weights))
    if has and not had:
        raise ValueError(
            "the start has no calibration branch, and the network that is to be trained has one: take a start with λ > 0, or "
            "train without the branch (--lam 0; for `udlib distill` --alpha 0 --beta 0), or with a new one (--new-head)"
        )
    if not has:
        weights = {name: value for name, value in weights.items() if not name.startswith(BRANCH)}
    for name in sorted({*expected, *weights}):
        own, theirs = (tuple(state[name].shape) if name in state else None for state in (expected, weights))
        if own != theirs:
            raise ValueError(
                f"the start does not fit: its '{name}' is {theirs}, and the network that is to be trained has {own}: "
                "start from the same network, with as many classes and the same embedding"
            )
    network.load_state_dict(weights)


def only_classes(start: nn.Module, classes: Sequence[int]) -> nn.Module:
    """A copy of a network whose classifier knows these of its classes alone, in this order, without calibration branch."""
    network = copy.deepcopy(start)
    head = network.head
    whole, head.calibration = head.classification, None
    head.classification = nn.Linear(whole.in_features, len(classes), bias=whole.bias is not None)
    rows = torch.tensor(classes)
    head.classification.load_state_dict({name: value[rows] for name, value in whole.state_dict().items()})
    return network


def _require_same_classes(model: Sequence[str], data: Sequence[str]) -> None:
    """As `require_same_classes`, with the remedy."""
    try:
        require_same_classes(model, data, ("start", "data set"))
    except ValueError as error:
        raise ValueError(
            f"{error}, or take a new head for the data set's classes, in which those that the start knows keep their weights "
            "(--new-head; in Python start=NewHead(model), of udlib.workshop)"
        ) from None


def _with_kept_rows(state: Mapping[str, Tensor], model: TrainedModel, classes: Sequence[str]) -> dict[str, Tensor]:
    """The state of a new network, with all of the model's weights that it has a place for."""
    trained = model.network.state_dict()
    pairs = [(k, model.classes.index(name)) for k, name in enumerate(classes) if name in model.classes]
    own, theirs = (
        (torch.tensor(rows, dtype=torch.long) for rows in zip(*pairs)) if pairs else (torch.tensor([]).long(),) * 2
    )
    branch = _keeps_branch(state, trained)
    result = {}
    for name, value in state.items():
        result[name] = value.clone()
        if name not in trained or (name.startswith(BRANCH) and not branch):
            continue
        if name.startswith(ROWS):
            result[name][own] = trained[name][theirs].to(value)
        else:
            result[name] = trained[name]
    return result


def _keeps_branch(state: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> bool:
    """Whether both have a calibration branch of one width."""
    hidden = f"{BRANCH}0.weight"
    return hidden in state and hidden in trained and state[hidden].shape == trained[hidden].shape


def _notes(network: DualBranchNet, model: TrainedModel, classes: Sequence[str]) -> list[str]:
    """What the head of the new network keeps, in sentences."""
    kept = [name for name in classes if name in model.classes]
    new = [name for name in classes if name not in model.classes]
    dropped = [name for name in model.classes if name not in classes]
    notes = [
        f"the head keeps the weights of: {', '.join(kept) or 'no class'}",
        f"new in the head: {', '.join(new) or 'no class'}",
    ]
    if dropped:
        notes.append(f"no longer in the head: {', '.join(dropped)}")
    state = network.state_dict()
    if network.head.calibration is not None and not _keeps_branch(state, model.network.state_dict()):
        notes.append("the calibration branch is new")
    return notes
