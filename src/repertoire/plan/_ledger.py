"""What a piece of code holds in tensors, and what it computes: counted as PyTorch calls its operators."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["Ledger", "Work"]

_aten = torch.ops.aten

#: Formulas of operations, by operator; attention on a CPU has none of its own, and takes the tensors of a GPU's.
_FORMULAS: dict[Any, Any] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}

#: Operators that may be given masks as indices.
_INDEXED = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}

#: Granularity of the allocator on a GPU, in bytes.
_GPU_BLOCK = 512


class Work:
    """Operations: how many, their multiplications and additions, and the bytes that they read and write.

    Attributes:
        calls: operators that compute something.
        flops: floating-point operations of matrix products, convolutions and attention.
        product_bytes: what those read and write.
        bytes: what all other operators read and write.
    """

    __slots__ = ("bytes", "calls", "flops", "product_bytes")

    def __init__(self, calls: float = 0, flops: float = 0, product_bytes: float = 0, bytes: float = 0) -> None:
        self.calls, self.flops, self.product_bytes, self.bytes = calls, flops, product_bytes, bytes

    def plus(self, other: Work, share: float = 1) -> Work:
        """This, and a share of the other."""
        return Work(*(getattr(self, name) + share * getattr(other, name) for name in _COUNTED))

    def times(self, factor: float) -> Work:
        """A multiple of this."""
        return Work().plus(self, factor)


_COUNTED = ("calls", "flops", "product_bytes", "bytes")


class Ledger(TorchDispatchMode):
    """Books the storages that operators make, until they are freed, and the work that operators do.

    Works on real tensors and, inside of `FakeTensorMode`, on fake ones, which have storages without memory. Numbers
    that the code reads from fake tensors are 1: a loss that is looked at, the step of an optimiser. That all of
    something is so is true.

    Args:
        answer: what the code reads from any other boolean; and whether masks are true everywhere, or nowhere.

    Attributes:
        now: bytes that are held, by kind; everything is an "activation" until it is booked as something else.
        peak: largest sum of bytes so far.
        at_peak: `now`, when the sum was largest.
        work: see `Work`.
    """

    def __init__(self, answer: bool = True) -> None:
        super().__init__()
        self._answer = answer
        self._universal: set[int] = set()
        self._held: dict[int, tuple[int, str, weakref.ref[Any]]] = {}
        self.now: dict[str, int] = {"activations": 0}
        self.total = 0
        self.work = Work()
        self.forget()

    def forget(self) -> None:
        """Starts to look for the peak, and to count work, from here."""
        self.peak, self.at_peak = self.total, dict(self.now)
        self.work = Work()

    def book(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Says what tensors are; those that were not seen yet are held from now on."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._held:
                size, before, ref = self._held[key]
                self.now[before] -= size
                self._held[key] = size, kind, ref
                self.now[kind] = self.now.get(kind, 0) + size
            else:
                self._hold(storage, tensor.device, kind)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return self._read(args[0])
        if func is _aten.nonzero.default and isinstance(args[0], FakeTensor):
            out = self._places(args[0])
        else:
            if func.overloadpacket in _INDEXED and any(isinstance(i, FakeTensor) for i in args[1]):
                args = (args[0], self._unmasked(args[1]), *args[2:])
            out = func(*args, **kwargs)
        if func.overloadpacket is _aten.all and isinstance(out, FakeTensor):
            self._universal.add(out.untyped_storage()._cdata)
        made = list(_tensors(out))
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._held and tensor.device.type != "meta":
                self._hold(storage, tensor.device, "activations")
        if made and isinstance(made[0], FakeTensor) and made[0].device.type == "cpu":
            self._touch(_scratch(func, args, out))
        if made and not func.is_view:
            self._count(func, args, kwargs, out)
        return out

    def _read(self, scalar: Tensor) -> bool | int | float:
        if scalar.dtype == torch.bool:
            return self._answer or scalar.untyped_storage()._cdata in self._universal
        return 1.0 if scalar.is_floating_point() else 1

    def _places(self, mask: Tensor) -> Tensor:
        """Where a mask is true. That cannot be known, and the most it can be is what must fit: everywhere."""
        return mask.new_empty(mask.numel() if self._answer else 0, mask.dim(), dtype=torch.long)

    def _unmasked(self, indices: Iterable[Tensor | None]) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for index in indices:
            masked = index is not None and index.dtype in (torch.bool, torch.uint8)
            found += self._places(index).unbind(1) if masked and index is not None else [index]
        return found

    def _hold(self, storage: Any, device: torch.device, kind: str) -> None:
        key, size = storage._cdata, storage.nbytes()
        if device.type == "cuda":
            size = -(-size // _GPU_BLOCK) * _GPU_BLOCK
        self._held[key] = size, kind, weakref.ref(storage, partial(self._free, key))
        self.now[kind] = self.now.get(kind, 0) + size
        self.total += size
        self._touch(0)

    def _touch(self, scratch: int) -> None:
        """Notes a new peak, with what a kernel holds for itself."""
        if self.total + scratch > self.peak:
            self.peak = self.total + scratch
            self.at_peak = {**self.now, "activations": self.now["activations"] + scratch}

    def _free(self, key: int, _: object) -> None:
        size, kind, _ = self._held.pop(key)
        self._universal.discard(key)
        self.now[kind] -= size
        self.total -= size

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        moved = sum(t.nbytes for t in _tensors((args, kwargs, out)))
        work = self.work
        work.calls += 1
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is None:
            work.bytes += moved
        else:
            work.flops += formula(*args, **kwargs, out_val=out)
            work.product_bytes += moved


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in the arguments or results of an operator."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _scratch(func: Any, args: Any, out: Any) -> int:
    """Bytes that kernels of the CPU hold for themselves when they are done, found with PyTorch's profiler."""
    if func is _aten.native_batch_norm_backward.default:
        # The result is made twice, and one is thrown away before anything is computed.
        return out[0].nbytes if out[0] is not None else 0
    if func is _aten.convolution_backward.default:
        # The gradient of the weights is made in a layout of its own, then in rows, then in that of the weights.
        return 2 * out[1].nbytes if out[1] is not None else 0
    if func is _aten.max_pool2d_with_indices_backward.default:
        # Everything is brought into the layout of the gradient that comes in.
        gradient, indices = args[0], args[-1]
        return 0 if _layout(gradient) == _layout(indices) else indices.nbytes + out.nbytes
    return 0


def _layout(tensor: Tensor) -> tuple[int, ...]:
    """The dimensions in the order in which they lie in memory."""
    strides = tensor.stride()
    return tuple(sorted(range(tensor.dim()), key=lambda dim: -int(strides[dim])))
