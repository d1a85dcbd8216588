"""Comparing configurations honestly: the same images, the same seeds, and what the differences say.

    found = repertoire.compare.compare("photos/", vary={"loss": "cross-entropy,supcon"}, seeds=5)
    print(found)

Names are imported when they are first used. What differences over seeds say is reckoned by `repertoire.statistics`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from repertoire._aliases import answer_calls

if TYPE_CHECKING:
    from repertoire.compare._cluster import Backend, Cluster, check_backend, cluster, node
    from repertoire.compare._compare import compare
    from repertoire.compare._comparison import Comparison
    from repertoire.compare._grid import parse_assignments
    from repertoire.compare._metric import Metric
    from repertoire.compare._rows import Measurement, Row
    from repertoire.compare._search import Trial

_HOME = {
    "Backend": "_cluster",
    "Cluster": "_cluster",
    "Comparison": "_comparison",
    "Measurement": "_rows",
    "Metric": "_metric",
    "Row": "_rows",
    "Trial": "_search",
    "check_backend": "_cluster",
    "cluster": "_cluster",
    "compare": "_compare",
    "node": "_cluster",
    "parse_assignments": "_grid",
}

__all__ = [
    "Backend",
    "Cluster",
    "Comparison",
    "Measurement",
    "Metric",
    "Row",
    "Trial",
    "check_backend",
    "cluster",
    "compare",
    "node",
    "parse_assignments",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"repertoire.compare.{_HOME[name]}"), name)
    raise AttributeError(f"module 'repertoire.compare' has no attribute {name!r}")


answer_calls(__name__, "repertoire.compare.compare(data, vary={'loss': 'cross-entropy,supcon'}) compares")
