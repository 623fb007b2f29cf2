"""Evaluation mode for a while: the one place where the mode of a network is saved and restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

N = TypeVar("N", bound=nn.Module)


@contextmanager
def evaluating(network: N) -> Iterator[N]:
    """Put a network into evaluation mode inside the `with` block and restore the mode of each part after it.

    Parts are restored one by one because they may differ: a frozen backbone can be in evaluation mode while the head
    trains. They are restored after an error too.

    Args:
        network: any module.

    Yields:
        The same network.

    Example:
        >>> layer = nn.Dropout()
        >>> with evaluating(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for part, training in modes:
            part.training = training
