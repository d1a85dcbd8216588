"""The first Ctrl-C as a request, and the second as an end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["interrupt", "interruptible"]

_REQUESTS: list[Callable[[], None]] = []
"""Of what is under way in this process."""


def interrupt() -> None:
    """Asks every run of this process to save and stop, as a first Ctrl-C does.

    For programs that are told to stop in another way than by a signal, and for runs outside the main thread.

    Example:
        >>> from repertoire import train
        >>> train.interrupt()  # nothing is under way
    """
    for request in list(_REQUESTS):
        request()


@contextmanager
def interruptible(request: Callable[[], None], *, single: bool = True) -> Iterator[None]:
    """Turns the first Ctrl-C (or SIGTERM) into a request to save and stop; a second one aborts at once.

    Only in the main thread of a single process: ranks would stop at different steps. They end at once, and their run
    resumes from the last checkpoint. In another thread only `interrupt` asks.

    Args:
        request: is called once, at the first signal.
        single: whether this is the only process of the run.
    """
    if not single:
        yield
        return
    _REQUESTS.append(request)
    try:
        with _signalled(request):
            yield
    finally:
        _REQUESTS.remove(request)


@contextmanager
def _signalled(request: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in signals}

    def first(number: int, frame: object) -> None:
        for which, handler in previous.items():
            signal.signal(which, handler)
        request()

    for number in signals:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
