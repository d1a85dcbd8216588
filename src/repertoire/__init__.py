"""Repertoire: representation learning in which every method can be performed.

Importing this package loads nothing but itself; each room (`repertoire.losses`, `repertoire.train`, ...) is imported
when it is first used, so that `import repertoire` costs next to nothing beside `import torch`.

    import repertoire
    run = repertoire.fit("digits", epochs=5)
    run = repertoire.load("runs/digits-1")
    run.predict("new.png")
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = (
    "backbones",
    "claims",
    "compare",
    "data",
    "diagnostics",
    "errors",
    "estimators",
    "explain",
    "heads",
    "local",
    "losses",
    "methods",
    "ops",
    "papers",
    "registry",
    "report",
    "rules",
    "train",
    "weights",
)
_FORMER = ("boosting", "fewshot", "merge")

_FUNCTIONS = ("fit", "load")
"""What is done most, from the room `train`."""

__all__ = [*_ROOMS, *_FUNCTIONS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("repertoire.train"), name)
    if name in _ROOMS or name in _FORMER:
        return importlib.import_module(f"repertoire.{name}")
    raise AttributeError(f"module 'repertoire' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
