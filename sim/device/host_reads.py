"""A guard under which reading a device from the host, or sending it data, raises: a recorded step may do neither.

On a processor nothing would stall, so every road is closed by hand: torch's operators that wait for a GPU (what
``torch.cuda.set_sync_debug_mode("error")`` watches), masks as indices, tensors made of Python's numbers (a copy from
the host), and Warp's reads and waits.  For tests of what is to be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import warp as wp
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = (
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::repeat_interleave.Tensor", "aten::_linalg_check_errors", "aten::equal",
    "aten::is_nonzero", "aten::lift_fresh", "aten::bincount",
)  # fmt: skip
"""Operators that wait for a GPU; ``lift_fresh`` is the birth of a tensor from Python's numbers."""
INDEXING = ("aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
READS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (torch.Tensor, ("numpy", "cpu", "tolist", "item", "__bool__", "__int__", "__float__", "__index__", "__array__")),
    (torch, ("tensor", "from_numpy", "scalar_tensor")),
    (wp.array, ("numpy", "list", "__array__")),
    (wp, ("synchronize", "synchronize_device", "synchronize_stream", "synchronize_event")),
)


class HostRead(AssertionError):
    """The host touched the device's data."""


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name in WAITING:
            raise HostRead(name)
        if name in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise HostRead(f"{name} with a mask")
        if name == "aten::where.self" and any(x.ndim == 0 for x in args[1:]):
            raise HostRead(f"{name} with a number")  # which is copied to the device; masked_fill takes it along
        return func(*args, **(kwargs or {}))


def _raising(name: str) -> Callable[..., Any]:
    def read(*args: Any, **kwargs: Any) -> Any:
        raise HostRead(name)

    return read


@contextmanager
def no_host_read() -> Iterator[None]:
    """Raise ``HostRead`` at every read of torch's or Warp's data by the host."""
    with ExitStack() as stack:
        for owner, names in READS:
            for name in names:
                if (kept := getattr(owner, name, None)) is not None:
                    stack.callback(setattr, owner, name, kept)
                    setattr(owner, name, _raising(f"{owner.__name__}.{name}"))
        stack.enter_context(_Operators())
        yield
