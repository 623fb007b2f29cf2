"""Files of weights inside the package: a pack for a GPU has them, so that it needs neither a network nor further packages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

FOLDER = Path(__file__).with_name("weights")  # only a pack has it


def bundled_weights(name: str) -> dict[str, Tensor] | None:
    """Load the weights of a network out of the package's own folder.

    Args:
        name: of the network.

    Returns:
        Its parameters on the CPU, in the order in which they were stored, float32; None where there is no such file.

    Raises:
        ValueError: a damaged file.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            order = json.loads((file.metadata() or {})["order"])
            tensors = {key: file.get_tensor(key) for key in order}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"'{path}' is damaged ({error}): `udlib gpu-pack` writes the whole pack again") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def weights_file(state: Mapping[str, Tensor]) -> bytes:
    """Make a file of weights that `bundled_weights` reads.

    Kernels and matrices are stored in half precision. What belongs to channels (scales, shifts, running statistics) is
    small, may leave the range of half precision, and keeps its own.

    Args:
        state: parameters by name, in the order that counts.

    Returns:
        The content of the file.
    """
    tensors = {
        key: (value.half() if value.dtype == torch.float32 and value.ndim > 1 else value).contiguous()
        for key, value in state.items()
    }
    return safetensors.torch.save(tensors, {"order": json.dumps(list(tensors))})
