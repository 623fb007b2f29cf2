"""A GPU that is not there: for tests of the code for GPUs on machines without one.

Inside `pretended_gpu()`, tensors that are moved to "cuda:0" say that they are there, and are computed with by the CPU. What a
GPU refuses is refused, in its words: operands of which some are here and some there, an index on the GPU into a tensor on the
CPU, random numbers by the other device's generator, NumPy. Its kernels, its speed and bfloat16 are not pretended.
"""

from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
AMPLE, NONE = 10**12, 0  # bytes of free memory
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}
# PyTorch's derivative of indexing makes its zeros where C++ believes the tensor to be, so this one goes unchecked.
UNCHECKED = COPIES | {aten.index_put.default}
NEVER_MIXED = {aten.cat.default, aten.stack.default, aten.index_select.default}  # not even with a number on the CPU


class OnGPU(torch.Tensor):
    """A tensor that says it is on the GPU; `inner` holds its values, on the CPU."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> torch.Tensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            storage_offset=inner.storage_offset(),
            device="cpu",
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda = property(lambda self: GPU), property(lambda self: True)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    # C++ believes these tensors to be on the CPU, and would have nothing to do here.
    def cpu(self, *args, **kwargs) -> torch.Tensor:
        return ToCPU.apply(self)

    def to(self, *args, **kwargs) -> torch.Tensor:
        like = args[0] if args and isinstance(args[0], torch.Tensor) else None
        words = [like.device, like.dtype] if like is not None else args
        device = next(
            (
                torch.device(word)
                for word in (kwargs.pop("device", None), *words)
                if isinstance(word, (str, torch.device))
            ),
            GPU,
        )
        kinds = [word for word in words if isinstance(word, torch.dtype)]
        kwargs.pop("non_blocking", None)
        if device.type == "cpu":
            return self.cpu().to(*kinds, **kwargs) if kinds or kwargs else self.cpu()
        return torch.Tensor.to(self, *(kinds or [self.dtype]), **kwargs)

    def new_tensor(self, data, **kwargs) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": GPU} | kwargs)

    def tolist(self) -> list:
        return self.inner.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    def numpy(self, *args, **kwargs):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )

    __array__ = numpy

    def __repr__(self) -> str:
        return f"OnGPU({self.inner!r})"


class ToCPU(torch.autograd.Function):
    """The values of a tensor on the GPU."""

    @staticmethod
    def forward(context, value: OnGPU) -> torch.Tensor:
        return value.inner.clone()

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> OnGPU:
        return OnGPU(gradient)


computed: Counter[tuple[str, str]] = Counter()  # operations, by name and the device of their first tensor


def compute(func, args, kwargs):
    """One operation of PyTorch, refused or computed on the CPU; its results are where a GPU's would be."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, OnGPU)]
    asked = kwargs.get("device")
    on_gpu = bool(here) if asked is None else torch.device(asked).type == "cuda"
    if tensors:
        computed[func.overloadpacket.__name__, tensors[0].device.type] += 1
    if func not in UNCHECKED and (wrong := misplaced(func, args, tensors)) and here:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}: {', '.join(str(tuple(tensor.shape)) for tensor in wrong)} on the CPU)"
        )
    device = "cuda" if on_gpu else "cpu"
    if (generator := kwargs.get("generator")) is not None and generator.device.type != device:
        raise RuntimeError(f"Expected a '{device}' device type for generator but found '{generator.device.type}'")

    def inside(value):
        return value.inner if isinstance(value, OnGPU) else value

    elsewhere = {
        name: value for name, value in {"device": torch.device("cpu"), "pin_memory": False}.items() if name in kwargs
    }
    found = func(*tree_map(inside, args), **tree_map(inside, kwargs) | elsewhere)
    known = {id(tensor.inner): tensor for tensor in here}

    def outside(value):
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else OnGPU(value) if on_gpu else value

    return args[0] if func is aten.copy_.default else tree_map(outside, found)


def misplaced(func, args, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors on the CPU that may not stand beside one on the GPU: single numbers may, and an index into a tensor there."""
    if func in INDEXING:
        tensors = [args[0], *(tensor for tensor in args[2:3] if tensor.ndim)]
    elif func not in NEVER_MIXED:
        tensors = [tensor for tensor in tensors if tensor.ndim]
    return [tensor for tensor in tensors if not isinstance(tensor, OnGPU)]


class Computing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def made(make):
    """torch.tensor or torch.as_tensor, which look for a real GPU before anybody is asked."""

    def on(data, *args, device=None, **kwargs):
        found = data if isinstance(data, OnGPU) else make(data, *args, **kwargs)
        return found if device is None else found.to(device)

    return on


usual_move = torch.nn.Module.to


def moved(module: torch.nn.Module, *args, **kwargs) -> torch.nn.Module:
    """nn.Module.to, which here makes new parameters, unless the module is there already: an optimizer may hold the old ones."""
    words = [word for word in (*args, kwargs.get("device")) if isinstance(word, (str, torch.device))]
    first = next(module.parameters(), None)
    if (
        first is not None
        and words
        and torch.device(words[0]).type == first.device.type
        and "memory_format" not in kwargs
    ):
        return module
    return usual_move(module, *args, **kwargs)


@contextmanager
def pretended_gpu(free: int = AMPLE):
    """Inside it there is a GPU, with so many bytes of free memory; yields the operations that were computed, counted."""
    computed.clear()
    instead = {
        (Accelerator, "device"): GPU,
        (torch.cuda, "_lazy_init"): lambda: None,
        (torch.cuda, "mem_get_info"): lambda *_: (free, free),
        (torch.cuda, "is_bf16_supported"): lambda *_, **__: False,
        (torch.cuda, "get_device_name"): lambda *_: "pretended",
        (torch.cuda, "synchronize"): lambda *_: None,
        (torch, "tensor"): made(torch.tensor),
        (torch, "as_tensor"): made(torch.as_tensor),
        (torch, "inference_mode"): lambda mode=True: torch.no_grad() if mode else torch.enable_grad(),
        (torch.__future__, "get_overwrite_module_params_on_conversion"): lambda: True,
        (torch.nn.Module, "to"): moved,
    }
    with ExitStack() as stack:
        for (owner, name), value in instead.items():
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(Computing())
        yield computed
