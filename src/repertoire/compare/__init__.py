"""Comparing configurations honestly: the same images, the same seeds, and what the differences say.

    found = repertoire.compare.compare("photos/", vary={"loss": "cross-entropy,supcon"}, seeds=5)
    print(found)

Names are imported when they are first used: showing stored evidence takes the statistics, and must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repertoire.compare._compare import compare
    from repertoire.compare._comparison import Comparison, Measurement, Row
    from repertoire.compare._metric import Metric
    from repertoire.compare._search import Trial
    from repertoire.compare._statistics import Verdict, holm, interval, p_value, seeds_needed, verdict

_HOME = {
    "Comparison": "_comparison",
    "Measurement": "_comparison",
    "Metric": "_metric",
    "Row": "_comparison",
    "Trial": "_search",
    "Verdict": "_statistics",
    "compare": "_compare",
    "holm": "_statistics",
    "interval": "_statistics",
    "p_value": "_statistics",
    "seeds_needed": "_statistics",
    "verdict": "_statistics",
}

__all__ = [
    "Comparison",
    "Measurement",
    "Metric",
    "Row",
    "Trial",
    "Verdict",
    "compare",
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
