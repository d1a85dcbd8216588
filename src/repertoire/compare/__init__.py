"""Comparing configurations honestly: the same images, the same seeds, and what the differences say.

Names are imported when they are first used: showing stored evidence takes the statistics, and must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repertoire.compare._statistics import Verdict, holm, interval, p_value, seeds_needed, verdict

_HOME = {
    "Verdict": "_statistics",
    "holm": "_statistics",
    "interval": "_statistics",
    "p_value": "_statistics",
    "seeds_needed": "_statistics",
    "verdict": "_statistics",
}

__all__ = [
    "Verdict",
    "holm",
    "interval",
    "p_value",
    "seeds_needed",
    "verdict",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"repertoire.compare.{_HOME[name]}"), name)
    raise AttributeError(f"module 'repertoire.compare' has no attribute {name!r}")
