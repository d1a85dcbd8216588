"""Threads that work side by side, each with one thread of arithmetic.

PyTorch shares out every operation among its threads and waits for the last of them, spinning. For a walk of many small
operations that is a barrier every few hundred microseconds: on idle cores it costs little, but where other programs run
on the same cores each barrier waits for a thread that is not running, and two threads take longer than one. Here a
thread gets a share of the whole work and meets the others once, at the end.
"""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["alone", "at_once", "by_rows", "worker_count"]

T = TypeVar("T")

#: Numbers from which PyTorch shares out an operation of its own (the grain size of most of its kernels).
_GRAIN = 2**15


class _State(threading.local):
    """Whether this thread is one of the workers."""

    inside = False


class _Pool:
    """As many threads as were ever asked for at once. They are made once, and wait between one piece of work and the
    next; who asks for more than there are adds to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._size = 0

    def run(self, works: Sequence[Callable[[], T]]) -> list[Future[T]]:
        """Hands works to threads, one for each, which have them next."""
        with self._lock:
            if self._size < len(works):
                self._grow(len(works))
        futures: list[Future[T]] = [Future() for _ in works]
        for future, work in zip(futures, works, strict=True):
            self._waiting.put((future, work))
        return futures

    def _grow(self, size: int) -> None:
        whole = torch.get_num_threads()
        entered = threading.Barrier(size - self._size + 1)
        for number in range(self._size, size):
            # A daemon: it holds nothing that an end of the program would have to wait for.
            name = f"repertoire-worker_{number}"
            threading.Thread(target=_serve, args=(self._waiting, entered), name=name, daemon=True).start()
        entered.wait()
        torch.set_num_threads(whole)
        self._size = size

    def forget(self) -> None:
        """After a fork the threads are not there, and the lock may be held by one of them."""
        self.__init__()  # type: ignore[misc]


def _serve(waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]], entered: threading.Barrier) -> None:
    # The number of threads is a setting of the thread, but one that has not asked for it yet takes the number that was
    # set last, by anybody: so it is asked for here, before that is put back.
    torch.set_num_threads(1)
    torch.get_num_threads()
    _STATE.inside = True
    entered.wait()
    while True:
        future, work = waiting.get()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        # Until the next work comes, nothing of this one is to be held.
        del future, work


_STATE = _State()
_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.forget)


def worker_count(*tensors: Tensor | None) -> int:
    """Number of workers for these tensors: as many as this thread has threads of arithmetic, or one.

    One on an accelerator, within a worker, under `torch.compile` or a trace, and where something that belongs to this
    thread alone watches or replaces operations (a dispatch mode, `torch.func`, a subclass of tensors).

    Example:
        >>> import torch
        >>> from repertoire.ops import worker_count
        >>> worker_count(torch.zeros(3)) == torch.get_num_threads()
        True
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _STATE.inside:
        return 1
    given = [t for t in tensors if t is not None]
    if any(t.device.type != "cpu" or type(t) not in (Tensor, torch.nn.Parameter) for t in given):
        return 1
    c = torch._C
    if c._len_torch_dispatch_stack() or c._len_torch_function_stack() or c._are_functorch_transforms_active():
        return 1
    return torch.get_num_threads()


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """Runs functions side by side, each with one thread of arithmetic, and gives their results in order.

    They see the caller's grad mode and inference mode, without autocast. The threads outlive the call; the number of
    threads that PyTorch uses anywhere else is not changed.

    Args:
        works: functions without arguments. One alone runs in the caller's thread, with all threads of arithmetic.

    Raises:
        Exception: what the first of them raised, in the order given, when all have ended.

    Example:
        >>> from repertoire.ops import at_once
        >>> at_once([lambda: 1, lambda: 2])
        [1, 2]
    """
    if len(works) == 1 or _STATE.inside:
        return [work() for work in works]
    return _in_workers(works)


def alone(work: Callable[[], T]) -> T:
    """Runs a function with one thread of arithmetic, whatever the caller's thread has.

    For a walk of operations so small that they are not worth being shared out, but large enough that PyTorch would. It
    sees the caller's grad mode and inference mode, without autocast.

    Raises:
        Exception: what it raised.

    Example:
        >>> import torch
        >>> from repertoire.ops import alone
        >>> alone(torch.get_num_threads)
        1
    """
    return work() if _STATE.inside else _in_workers([work])[0]


def _in_workers(works: Sequence[Callable[[], T]]) -> list[T]:
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(work: Callable[[], T]) -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return work()

    futures = _POOL.run([functools.partial(run, work) for work in works])
    wait(futures)
    return [future.result() for future in futures]


def by_rows(work: Callable[[slice], T], *tensors: Tensor) -> list[T]:
    """Calls `work` with slices that make up all rows, side by side where there is something to gain.

    Args:
        work: called with the rows of each share, in the caller's thread and with all of them where there is one share.
        tensors: what it reads. The first has the rows.

    Example:
        >>> import torch
        >>> from repertoire.ops import by_rows
        >>> x = torch.arange(6.0).view(3, 2)
        >>> by_rows(lambda rows: x[rows].sum(), x)
        [tensor(15.)]
    """
    count = len(tensors[0])
    workers = worker_count(*tensors) if tensors[0].numel() > _GRAIN else 1
    workers = max(1, min(workers, count))
    ends = [count * share // workers for share in range(workers + 1)]
    shares = [slice(first, last) for first, last in itertools.pairwise(ends)]
    return at_once([lambda rows=rows: work(rows) for rows in shares])  # type: ignore[misc]
