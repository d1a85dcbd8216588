"""A paper's status, computed from what is there and never typed."""

from __future__ import annotations

import importlib
from typing import Literal, get_args

from repertoire.papers._evidence import evidence

__all__ = ["STATUSES", "Status", "missing_components", "stored_verdict"]

Status = Literal["open", "built", "holds", "does not hold", "undecided", "no answer"]
STATUSES: tuple[Status, ...] = get_args(Status)


def stored_verdict(slug: str) -> Status | None:
    """Verdict of the evidence of a paper's central claim, the `full` budget before `small`; None without evidence.

    Raises:
        DataError: a file of evidence cannot be read.
    """
    found = evidence(slug)
    return None if found is None else found.verdict


def missing_components(components: tuple[str, ...]) -> list[str]:
    """The dotted names that do not import. Imports their rooms, which is why no listing calls it."""
    missing = []
    for dotted in components:
        module, _, name = dotted.rpartition(".")
        try:
            found = hasattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            found = False
        if not found:
            missing.append(dotted)
    return missing
