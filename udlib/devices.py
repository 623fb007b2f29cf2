"""Where the numbers are computed, and how precisely."""

from __future__ import annotations

import torch
from accelerate import Accelerator


def make_accelerator() -> Accelerator:
    """CUDA where there is one, else the CPU (said aloud, or two CPU processes would train two separate models).

    Precision is not accelerate's here: its state is set once per process, and a notebook trains in several.
    """
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")


def resolve_precision(precision: str, device: torch.device) -> str:
    """"auto" → "bf16" where the hardware multiplies in bfloat16, else "fp32": emulated, bfloat16 is the slower one."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in this precision ("auto", "bf16" or "fp32") on this device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(precision, device) == "bf16")
