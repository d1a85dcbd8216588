"""The first Ctrl-C as a request, and the second as an end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["interruptible"]


@contextmanager
def interruptible(request: Callable[[], None], *, single: bool = True) -> Iterator[None]:
    """Turns the first Ctrl-C (or SIGTERM) into a request to save and stop; a second one aborts at once.

    Only in the main thread of a single process: ranks would stop at different steps. They end at once, and their run
    resumes from the last checkpoint.

    Args:
        request: is called once, at the first signal.
        single: whether this is the only process of the run.
    """
    if not single or threading.current_thread() is not threading.main_thread():
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
