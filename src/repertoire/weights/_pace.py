"""How long something will take, said after its first steps."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

LONG = 30.0
"""Seconds from which on it is worth saying."""


class Pace:
    """Says once, after the second step, how long all of them will take. The first is no measure: it also warms up.

    Args:
        report: is given the line; None for nobody.
        what: what is done.
        hint: what makes it shorter.
    """

    def __init__(self, report: Callable[[str], None] | None, what: str, hint: str) -> None:
        self._report, self._what, self._hint = report, what, hint
        self._begun: float | None = None

    def passed(self, step: int, steps: int) -> None:
        """Is told of every step when it is over, counted from 1."""
        if self._report is None or step > 2:
            return
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
            return
        left = (now - self._begun) * (steps - step)
        if left >= LONG:
            self._report(f"{self._what}: about {spoken(left)}; {self._hint}")


def spoken(seconds: float) -> str:
    """A duration in the unit that suits it."""
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
