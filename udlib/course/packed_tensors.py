"""Tensors in a safetensors file, compressed without loss: float16 logits by 22 %, float32 networks by 16 %.

The high byte of a float holds sign and exponent and takes few values; the low bytes take nearly all. So the bytes of a
tensor are sorted by their place in the number, and then compressed by LZMA2. The file holds the compressed bytes as a
tensor of uint8, and dtype and shape in its metadata. A tensor that would not shrink is stored as it is.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

SHRUNK = "shrunk"  # the entry of the metadata with dtype and shape of each compressed tensor, by name
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
NUMBERS = {"float16": np.float16, "float32": np.float32}


def tensors_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of these tensors, compressed, with these metadata."""
    stored, shrunk = {}, {}
    for name, value in tensors.items():
        value = value.contiguous()
        dtype = str(value.dtype).removeprefix("torch.")
        content = _compressed(value.numpy()) if dtype in NUMBERS else None
        if content is not None and len(content) < value.numel() * value.element_size():
            value, shrunk[name] = torch.frombuffer(bytearray(content), dtype=torch.uint8), [dtype, list(value.shape)]
        stored[name] = value
    # exactly one entry, since safetensors writes several in no fixed order
    return safetensors.torch.save(stored, metadata={SHRUNK: json.dumps([shrunk, dict(metadata)], sort_keys=True)})


def read_tensors(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of such a file whose names are wanted, and its metadata; no other tensor is read.

    Raises ValueError for what is no safetensors file, or none that `tensors_file` wrote.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            shrunk, metadata = json.loads((file.metadata() or {})[SHRUNK])
            tensors = {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118
        return {name: _expanded(value, *shrunk.get(name, ())) for name, value in tensors.items()}, metadata
    except safetensors.SafetensorError as error:
        raise ValueError(f"is not a safetensors file ({error}), and pickled files are never opened") from error
    except (KeyError, TypeError, ValueError, lzma.LZMAError) as error:
        raise ValueError(f"is not a file of packed tensors ({error!r})") from error


def _compressed(numbers: np.ndarray) -> bytes:
    """The bytes of an array, ordered by their place in a number and compressed."""
    planes = np.ascontiguousarray(numbers.reshape(-1).view(np.uint8).reshape(-1, numbers.itemsize).T)
    return lzma.compress(planes.tobytes(), format=lzma.FORMAT_RAW, filters=FILTERS)


def _expanded(value: Tensor, dtype: str = "", shape: tuple[int, ...] = ()) -> Tensor:
    """The tensor that was stored as `value`; `value` itself where that was not compressed."""
    if not dtype:
        return value
    kind = np.dtype(NUMBERS[dtype])
    size = int(np.prod(shape)) * kind.itemsize
    content = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS).decompress(value.numpy().tobytes(), size)
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes for the shape {shape}, which takes {size}")
    planes = np.frombuffer(content, np.uint8).reshape(kind.itemsize, -1)
    return torch.from_numpy(np.ascontiguousarray(planes.T).view(kind).reshape(shape))
