"""What every backbone is: layers in a row, with the properties that a training and a trained model ask it for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from torch import nn

from udlib.normalisation import IMAGENET_MEAN, IMAGENET_STD


class Backbone(nn.Sequential):
    """Layers that are applied in turn.

    Args:
        layers: in their order.
        out_channels: D, number of channels of the feature map.
        stride: number of pixels per cell of the feature map, along each side.
        parts: names of the layers of the stem (none without one), then of each stage; other layers belong to no stage.
        mean: of each colour channel, for values in [0, 1], which is subtracted from an image before the first layer.
        std: of each colour channel, by which an image is then divided.
    """

    def __init__(
        self,
        *layers: nn.Module,
        out_channels: int,
        stride: int,
        parts: Sequence[Sequence[str]] = ((),),
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ):
        super().__init__(*layers)
        self.name = ""  # `backbone` fills it in
        self.out_channels = out_channels
        self.stride = stride
        self.parts = [list(names) for names in parts]
        self.mean = mean
        self.std = std

    @property
    def stages(self) -> int:
        """Number of stages that `frozen_layers` can name."""
        return len(self.parts) - 1

    @property
    def depthwise(self) -> bool:
        """Whether any convolution works on groups of channels apart."""
        return any(getattr(module, "groups", 1) > 1 for module in self.modules() if isinstance(module, nn.Conv2d))

    def frozen_layers(self, k: int) -> list[nn.Module]:
        """List the layers that stay as they are when the stem and the first `k` stages are frozen.

        Args:
            k: number of stages, from 0 to `stages`; 0 freezes nothing, not even the stem.

        Returns:
            The layers in their order. Layers behind the last stage are never among them.

        Raises:
            ValueError: k below 0, or more than the network has stages.

        Example:
            >>> from udlib.backbones import backbone
            >>> [len(backbone("small").frozen_layers(k)) for k in range(4)]
            [0, 4, 5, 6]
        """
        if not 0 <= k <= self.stages:
            raise ValueError(f"freeze is {k}: this network has {self.stages} stages, choose 0 to {self.stages}")
        return [self.get_submodule(name) for names in self.parts[: k + 1] for name in names] if k else []


def in_a_row(*counts: int) -> list[list[str]]:
    """Name the layers of the stem and of each stage, where all of them stand in a row.

    Args:
        counts: number of layers of the stem (0 without one), then of each stage.

    Returns:
        For each of them the names that `Sequential` gives to its layers.

    Example:
        >>> in_a_row(2, 1)
        [['0', '1'], ['2']]
    """
    names = iter(map(str, range(sum(counts))))
    return [list(islice(names, count)) for count in counts]
