"""Messages from one process to the next, sent while both work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["Receiver", "Sender", "dense"]

#: Data types by their number in a header.
_DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
_ALIGNMENT = 64
"""Tensors begin at multiples of this many bytes in a message, as the allocator lays them out."""
_DIMENSIONS = 8
_FIELD = 2 + 2 * _DIMENSIONS
_PREFIX = 8


class _End:
    """The base of the two ends of a channel.

    A message is a header of a fixed size, which says what follows, and a payload. Payloads have the size of the largest
    one so far, which both ends know, so that the receiver can ask for the next one before anything is known of it: it
    then arrives while the receiver computes.

    Args:
        peer: global rank of the other end.
        control: group for headers, which are in the memory of the host.
        group: group for payloads.
        device: of the payloads.
        tensors: most tensors that a message has.
        reporting: what operations with a peer run in; raises an error that says who is gone.
    """

    def __init__(
        self,
        peer: int,
        control: Any,
        group: Any,
        device: torch.device,
        tensors: int,
        reporting: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        self.peer = peer
        self._control = control
        self._group = group
        self._device = device
        self._reporting = reporting
        self._header_size = _PREFIX + _FIELD * tensors
        self._capacity = 0
        self._works: list[Any] = []

    def _wait(self) -> None:
        works, self._works = self._works, []
        with self._reporting(self.peer):
            for work in works:
                work.wait()

    def _begin(self, operation: Callable[..., Any], tensor: Tensor, group: Any) -> None:
        with self._reporting(self.peer):
            self._works.append(operation(tensor, self.peer, group=group))

    def close(self) -> None:
        """Forgets what is under way."""
        self._works = []
        self._control = self._group = None


class Sender(_End):
    """Sends tensors to the next process, and returns while they are on their way."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._header = torch.zeros(self._header_size, dtype=torch.int64)
        self._buffer = torch.empty(0, dtype=torch.uint8, device=self._device)

    def send(self, numbers: Sequence[int], tensors: Sequence[Tensor]) -> None:
        """Sends a message. Waits only until the one before has left.

        Args:
            numbers: up to seven integers.
            tensors: copied before this returns.
        """
        self._wait()
        places, total = [], 0
        header = [*numbers, *[0] * (_PREFIX - 1 - len(numbers)), len(tensors)]
        for tensor in tensors:
            places.append(total)
            total += math.ceil(_bytes(tensor) / _ALIGNMENT) * _ALIGNMENT
            pad = [0] * (_DIMENSIONS - tensor.dim())
            header += [_DTYPES.index(tensor.dtype), tensor.dim(), *tensor.shape, *pad, *_strides(tensor), *pad]
        if total > len(self._buffer):
            self._buffer = torch.empty(total, dtype=torch.uint8, device=self._device)
        for place, tensor in zip(places, tensors, strict=True):
            _unpack(self._buffer, place, tensor.dtype, tensor.shape, _strides(tensor)).copy_(tensor)
        self._header[: len(header)] = torch.tensor(header)
        self._begin(distributed.isend, self._header, self._control)
        for part in (self._buffer[: self._capacity], self._buffer[self._capacity : max(total, self._capacity)]):
            if len(part):
                self._begin(distributed.isend, part, self._group)
        self._capacity = max(total, self._capacity)

    def flush(self) -> None:
        """Waits until all has left."""
        self._wait()


class Receiver(_End):
    """Receives what a `Sender` sends; the message after this one arrives in the meantime."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._header = torch.zeros(self._header_size, dtype=torch.int64)
        self._buffers = [torch.empty(0, dtype=torch.uint8, device=self._device) for _ in range(2)]
        self._posted = False

    def receive(self) -> tuple[list[int], list[Tensor]]:
        """The numbers and the tensors of the next message. The tensors are valid until the next call."""
        if not self._posted:
            self._post()
        # On a GPU to wait for the payload means that what follows waits for it there; the header is read here.
        self._wait()
        header = self._header.tolist()
        fields = [header[_PREFIX + _FIELD * i : _PREFIX + _FIELD * (i + 1)] for i in range(header[_PREFIX - 1])]
        found, total = [], 0
        for code, dim, *numbers in fields:
            shape, strides = numbers[:dim], numbers[_DIMENSIONS : _DIMENSIONS + dim]
            found.append((total, _DTYPES[code], shape, strides))
            total += math.ceil(math.prod(shape) * _DTYPES[code].itemsize / _ALIGNMENT) * _ALIGNMENT
        if total > self._capacity:
            buffer = torch.empty(total, dtype=torch.uint8, device=self._device)
            buffer[: self._capacity] = self._buffers[0]
            self._begin(distributed.irecv, buffer[self._capacity :], self._group)
            self._wait()
            self._buffers = [buffer, torch.empty_like(buffer)]
            self._capacity = total
        buffer = self._buffers[0]
        self._buffers.reverse()
        self._post()
        return header[: _PREFIX - 1], [_unpack(buffer, *place) for place in found]

    def _post(self) -> None:
        """Asks for the next message."""
        self._begin(distributed.irecv, self._header, self._control)
        if self._capacity:
            self._begin(distributed.irecv, self._buffers[0], self._group)
        self._posted = True


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def dense(tensor: Tensor) -> Tensor:
    """The tensor, without gaps and overlaps: what it is after it was sent. Most tensors are returned as they are.

    Kernels choose their way, and with it the order of their sums, by the memory format, so that it must be the same
    whether a tensor comes from this process or from another.
    """
    strides = _strides(tensor)
    if strides == tensor.stride():
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _strides(tensor: Tensor) -> tuple[int, ...]:
    """The strides that a tensor has without gaps and overlaps, its dimensions in the order that they have in memory."""
    order = sorted((d for d in range(tensor.dim()) if tensor.shape[d] > 1), key=lambda d: tensor.stride(d))
    strides, step = list(tensor.stride()), 1
    for d in order:
        strides[d] = step
        step *= tensor.shape[d]
    return tuple(strides)


def _unpack(buffer: Tensor, place: int, dtype: torch.dtype, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """The tensor that lies in a buffer from a place on."""
    count = math.prod(shape)
    flat = buffer[place : place + count * dtype.itemsize].view(dtype)
    return flat.as_strided(tuple(shape), tuple(strides)) if count else flat.reshape(tuple(shape))
