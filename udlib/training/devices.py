"""Where the numbers are computed, and how precisely; and a record of it, to stand beside every result."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import platform
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from accelerate import Accelerator
from torch import nn

import udlib

# How launchers (accelerate and torchrun, Open MPI, Intel MPI and MPICH, srun) tell a process how many there are.
WORLDS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


def make_accelerator() -> Accelerator:
    """Make accelerate use the GPU if there is one, and the CPU if there is none.

    Raises:
        RuntimeError: as `require_one_world` does.
    """
    # The CPU is named outright, or two CPU processes would train two separate models. Precision is not accelerate's here:
    # its state is set once per process, and a notebook trains in several precisions.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    require_one_world(accelerator.num_processes)
    if accelerator.num_processes > 1:
        atexit.unregister(leave_the_others)  # or it would be called as often as this was
        atexit.register(leave_the_others)
    return accelerator


def leave_the_others() -> None:
    """End the connections to the other processes: threads that still serve them while Python ends would abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def require_one_world(processes: int) -> None:
    """Refuse to go on alone where a launcher has started several processes.

    Args:
        processes: how many processes see each other.

    Raises:
        RuntimeError: saying how to start them.
    """
    launched = {name: os.environ[name] for name in WORLDS if os.environ.get(name, "1") not in ("", "1")}
    if launched and processes == 1:
        name, count = next(iter(launched.items()))
        raise RuntimeError(
            f"{name} says that {count} processes were launched, and this one sees no other: they would train "
            f"{count} separate models; start them with `torchrun --nproc_per_node {count} -m udlib …`"
        )


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve "auto" to "bf16" where the hardware multiplies in bfloat16, else to "fp32": emulated bfloat16 is slower."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in this precision ("auto", "bf16" or "fp32") on this device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(precision, device) == "bf16")


def keeps_devices(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that may move the networks among its arguments to a GPU: they end on the device where they began.

    Networks in a mapping that is an argument count too.
    """

    @functools.wraps(function)
    def at_home(*args: P.args, **kwargs: P.kwargs) -> T:
        values = [*args, *kwargs.values()]
        parts = [part for value in values for part in (value.values() if isinstance(value, Mapping) else [value])]
        homes = [(part, device_of(part)) for part in parts if isinstance(part, nn.Module)]
        try:
            return function(*args, **kwargs)
        finally:
            for network, home in homes:
                network.to(home)

    return at_home


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; without any, the CPU."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def moved(network: N, device: torch.device, layout: torch.memory_format) -> N:
    """The network, moved to a device, with its convolutions' weights in this layout."""
    return network.to(device, memory_format=layout)  # type: ignore[call-overload]  # torch's types lack the pair


def beside(network: N, tensor: torch.Tensor) -> N:
    """The network, moved to the device of the tensor if it is on another one."""
    return network if device_of(network) == tensor.device else network.to(tensor.device)


class Compiled:
    """`with` it, a module's forward pass, and so its backward pass, is torch.compile's; outside it is as ever."""

    def __init__(self, module: nn.Module):
        module.compile()  # its weights keep their names
        self.module, self.call = module, module._compiled_call_impl  # where `nn.Module.compile` puts it
        self.__exit__()

    def __enter__(self) -> None:
        self.module._compiled_call_impl = self.call

    def __exit__(self, *_) -> None:
        self.module._compiled_call_impl = None


def compiled_or_not(module: nn.Module, wanted: bool) -> AbstractContextManager:
    """`Compiled`; or where that is not wanted, or, with a warning, cannot work here, a context that changes nothing."""
    if not wanted:
        return nullcontext()
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=make_accelerator().device))
    except Exception as error:  # of many kinds: no C++ compiler, no Triton, a GPU or a Python that is not supported
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        warnings.warn(f"torch.compile does not work here ({reason}): training goes on without it", stacklevel=3)
        return nullcontext()
    return Compiled(module)


def within_memory(run: Callable[[int], T], batch: int, trial: Callable[[int], object], least: int = 1) -> T:
    """Run something with a batch size; where a GPU's memory is too small for it, say which batch size would fit.

    That number is tried, not guessed: after a failure, trials with half the batch, half of that and so on run until one
    fits.

    Args:
        run: called with the batch size; its result is returned.
        batch: images at a time.
        trial: one step with so many images.
        least: the smallest batch size that is tried.

    Raises:
        RuntimeError: where the memory is too small, with the batch size that would fit.
    """
    try:
        return run(batch)
    except torch.OutOfMemoryError:
        pass  # only outside, where the error's frames are gone, is the memory of what failed free again
    fits = batch
    while (fits := fits // 2) >= least:
        gc.collect()
        torch.cuda.empty_cache()
        try:
            trial(fits)
        except torch.OutOfMemoryError:
            continue
        raise RuntimeError(
            f"the GPU has too little memory for batches of {batch} images, and a trial showed that batches of {fits} fit: "
            f"pass --batch {fits}"
        )
    raise RuntimeError(
        f"the GPU has too little memory for batches of {batch} images, and even for batches of {least}: "
        "use smaller images or a smaller network, or stop other programs that use the GPU"
    )


def provenance(precision: str, rows: list[dict[str, float]]) -> dict[str, object]:
    """Where a training's numbers come from: `machine`, and what the training took (a history's rows)."""
    spent = sum(row["seconds"] for row in rows)
    images = sum(row["seconds"] * row["images_per_second"] for row in rows)
    return machine(precision) | {"seconds": round(spent, 1), "images_per_second": round(images / spent, 1)}


def machine(precision: str) -> dict[str, object]:
    """What computes here, and how: versions, hardware, threads and precision."""
    device = make_accelerator().device
    return {
        "udlib": udlib.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": hardware(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "precision": resolve_precision(precision, device),
    }


def hardware() -> str:
    """The name of what trains: the GPU's where there is one, else the processor's."""
    device = make_accelerator().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
