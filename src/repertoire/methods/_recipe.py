"""The options of a run that methods without labels were found to learn with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["UNLABELLED"]

UNLABELLED: Mapping[str, Any] = MappingProxyType({"optimizer": "adamw", "lr": 5e-3, "weight_decay": 1e-4})
"""For a convolutional network from random weights, in batches of 64: every method of the table of
`benchmarks/self_supervised.py` learned with them on 9,000 photographs within 40 epochs."""
