"""A bar for work of known size, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Shows how much is done on standard error, if that is a terminal, and takes the bar away in the end.

    Yields:
        `advance(done, what)`: so many more are done; `what` replaces the text before the bar, unless it is empty.
    """
    if not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=total)

        def advance(done: int, what: str = "") -> None:
            bar.update(task, advance=done, description=what or None)

        yield advance


def _nothing(done: int, what: str = "") -> None:
    pass
