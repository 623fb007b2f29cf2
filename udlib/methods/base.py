"""What a method declares, and the recipe that a method reads.

A method never trains. It names the networks that must be trained before it (`needs`) and then its own trainings, in
order (`stages`). `udlib.workshop` does the training, the same way for every method. A new method is one file in this
folder that ends in `METHOD = NewMethod()`; nothing else has to know its name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args

from accelerate.utils import set_seed
from torch import Tensor, nn

from udlib.backbones import backbone
from udlib.datasets.base import MultiLabelDataset, Policy
from udlib.datasets.proposals import Proposals
from udlib.heads import DualBranchNet
from udlib.methods.teachers import Ask
from udlib.training.batches import ArrayData, Batch
from udlib.training.localisation import localisation
from udlib.training.loop import Augment
from udlib.training.optimization import TrainingConfig

LossFunction = Callable[[Any, Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a result, as one value that can be compared, stored and named.

    Its fields come in three parts: data and network, `TrainingConfig`, and the method's own `Settings`. Make one with
    `udlib.methods.recipe(...)`, which takes the fields of all three parts flat.
    """

    method: str = "supervised"  # a module of udlib.methods
    data: str = "scenes"  # a name, whose folder stands in `datasets.roots`, or a folder in VOC layout
    size: int = 64  # side of the square images, in pixels
    limit: int | None = None  # only the first images of each split
    classes: tuple[int, ...] | None = None  # only these classes of the data, by number
    network: str = "small"
    weights: str | None = None  # IMAGENET1K_V1 of torchvision, IMAGENET1K of EfficientNet-Lite
    start: tuple = ()  # another recipe whose trained network is the start, as the fields in which it differs from this one
    pooling: str = "avg"
    embedding: int = 128  # width of the calibration branch; the released code's 512 suits 2,048 features
    bias: bool = True  # of the classifier; the released code has none
    policy: str = "positive"  # what a difficult label counts as in training
    keep: str = "last"  # or "best", the epoch with the highest mAP on validation
    training: TrainingConfig = TrainingConfig()
    settings: Any = None  # the method's own `Settings`

    def __post_init__(self):
        for name, allowed in (("keep", ("last", "best")), ("policy", get_args(Policy))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is '{getattr(self, name)}': expected one of {', '.join(allowed)}")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "start", sorted_pairs(self.start))

    @property
    def side(self) -> int:
        """Side in pixels of what the network sees: of the crops in training, if there are any, and of whole images later."""
        return self.training.crop or self.size

    def flat(self) -> dict[str, Any]:
        """All fields by name, those of `training` and `settings` among them."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("training", "settings")}
        return own | asdict(self.training) | asdict(self.settings)

    def choices(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        defaults = make_recipe(self.method, type(self.settings)).flat()
        return {name: value for name, value in sorted(self.flat().items()) if value != defaults[name]}

    @property
    def key(self) -> str:
        """Names the result, e.g. `scenes-supervised-1f0c…`; a field added later leaves the keys of old recipes alone."""
        content = json.dumps({"method": self.method} | self.choices(), sort_keys=True)
        return f"{Path(self.data).name}-{self.method}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"

    def but(self, **changes) -> Recipe:
        """The same recipe with some fields changed, of whichever part."""
        return make_recipe(self.method, type(self.settings), **{**self.choices(), **changes})

    def __str__(self) -> str:
        return f"{self.method}({', '.join(f'{name}={value}' for name, value in self.choices().items())})"


def sorted_pairs(values: Mapping[str, Any] | Sequence) -> tuple:
    """A mapping as sorted pairs, which can be hashed, compared and stored; pairs are sorted only."""
    return tuple(sorted(dict(values).items()))


def make_recipe(method: str, settings: type, **choices) -> Recipe:
    """Make a recipe of a method with these `Settings` from flat fields; `udlib.methods.recipe` needs the name alone.

    Raises:
        ValueError: for an unknown field, with the nearest known name.
    """
    parts: dict[type, dict] = {Recipe: {}, TrainingConfig: {}, settings: {}}
    owners = {f.name: part for part in parts for f in fields(part) if f.name not in ("method", "training", "settings")}
    for name, value in choices.items():
        if name not in owners:
            nearest = difflib.get_close_matches(name, owners, 1)
            remedy = f"did you mean '{nearest[0]}'?" if nearest else f"choose among {', '.join(owners)}"
            raise ValueError(f"a '{method}' recipe has no field '{name}': {remedy}")
        parts[owners[name]][name] = value
    training, own = TrainingConfig(**parts[TrainingConfig]), settings(**parts[settings])
    return Recipe(method, training=training, settings=own, **parts[Recipe])


@dataclass
class Stage:
    """One training: `loss_fn(network, batch)` is minimised on `data` as `config` says, and `network` is trained in place."""

    network: nn.Module
    loss_fn: LossFunction
    data: ArrayData
    config: TrainingConfig
    name: str = ""  # of its checkpoint folder; a method with a single stage needs none
    label: Mapping[str, float] = field(default_factory=dict)  # stands in each row of its history, e.g. {"half": 2}
    validated: bool = True  # False where there is nothing to validate yet
    keep: str | None = None  # "last" or "best"; None: what the recipe says
    student: str = ""  # path of the submodule that is validated and handed on; "": the network itself
    starts: nn.Module | None = None  # gets the weights of a start; None: the student
    augment: Augment | None = None  # None: what the config says
    ask: Ask | None = None  # asked about each batch; the loss reads the answers as `batch.answers`
    ask_size: int = 0  # side in pixels of the images that `ask` looks at


# A stage may build on what an earlier one gave: a method yields a stage, and is sent its history when it is trained.
Stages = Generator[Stage, Any, nn.Module]


class Cost(NamedTuple):
    """What a training costs: its epochs, and for each backbone the training steps that one image takes in an epoch."""

    epochs: int
    steps: Mapping[str, float]


class Method(ABC):
    """A published system, as a declaration."""

    name: ClassVar[str]  # of its module
    Settings: ClassVar[type]  # a frozen dataclass: what a recipe may choose beyond data, network and training
    teachers_start: ClassVar[bool] = (
        False  # whether its teachers begin with the weights that are brought for the student
    )

    @abstractmethod
    def build(self, recipe: Recipe, num_classes: int, weights: str | None = None) -> nn.Module:
        """Make the network that the method ends with, with random heads, and a backbone that is random or has `weights`."""

    @abstractmethod
    def stages(self, recipe: Recipe, data: ArrayData, teachers: Mapping[str, Any]) -> Stages:
        """Yield the trainings in order, and return the trained network.

        Args:
            recipe: what to train.
            data: the training set, in memory or decoded on demand.
            teachers: the trained networks that `needs` names; the workshop brings them, in no particular mode.
        """

    def check(self, recipe: Recipe, data: ArrayData) -> None:  # noqa: B027 — most methods take all data
        """Refuse data that the recipe cannot be trained on (ValueError), before the first teacher is trained."""

    def needs(self, recipe: Recipe) -> dict[str, Recipe]:
        """Name the networks that must be trained before this recipe, with their own recipes; often none."""
        return {}

    def scores(self, recipe: Recipe) -> str:
        """Say how logits are to be read: "sigmoid", or "softmax" where only differences of logits mean anything."""
        return "sigmoid"

    def cost(self, recipe: Recipe) -> Cost:
        """Estimate what a training costs, without the networks that it needs."""
        return Cost(recipe.training.epochs, {recipe.network: 1.0})

    def proposals(self, recipe: Recipe, dataset: MultiLabelDataset, split: str) -> Proposals | None:
        """Propose boxes for the images of a split, for a method that looks at boxes; None for all others."""
        return None

    def localise(self, network: Any, data: ArrayData, dataset: MultiLabelDataset, **options) -> dict[str, float]:
        """Measure how well a trained network finds the annotated objects; `options` are those of `training.predict`."""
        return localisation(network, data, dataset, **options)

    def new_network(self, recipe: Recipe, num_classes: int) -> Any:
        """Make the network that training starts from: the same seed gives the same start, whatever the method."""
        set_seed(recipe.training.seed)
        return self.build(recipe, num_classes, recipe.weights)


def make_network(
    num_classes: int,
    lam: float,
    network: str = "small",
    weights: str | None = None,
    pooling: str = "avg",
    embedding: int = 512,
    bias: bool = True,
) -> DualBranchNet:
    """Make a backbone with both heads; without the calibration branch for λ = 0, which does not train one."""
    return DualBranchNet(backbone(network, weights), num_classes, pooling, embedding, lam > 0, bias)


def two_branch_network(recipe: Recipe, num_classes: int, lam: float, weights: str | None) -> DualBranchNet:
    """`make_network` with the fields of a recipe."""
    return make_network(num_classes, lam, recipe.network, weights, recipe.pooling, recipe.embedding, recipe.bias)
