"""Checks of options that many explainers share."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from repertoire.errors import ConfigError

__all__ = ["at_least", "check_seed", "one_of"]


def one_of(**options: tuple[Any, Collection[str]]) -> None:
    """Refuses options that are none of the words that they may be.

    Raises:
        ConfigError: the first such option.

    Example:
        >>> one_of(combine=("mean", ("mean", "max")))
    """
    for name, (value, allowed) in options.items():
        if not isinstance(value, str) or value not in allowed:
            *first, last = allowed
            raise ConfigError(f"{name} must be {', '.join(first)} or {last}, found {value!r}")


def at_least(low: float, **options: float | None) -> None:
    """Refuses options below a number, or without bound; None, where nothing was said, passes.

    Raises:
        ConfigError: the first such option.

    Example:
        >>> at_least(1, samples=8, patch=None)
    """
    for name, value in options.items():
        if value is not None and not low <= value < math.inf:
            raise ConfigError(f"{name} must be {low} or more, found {value}")


def check_seed(seed: int) -> None:
    """Refuses a seed that no generator takes.

    Raises:
        ConfigError: it has more than 64 bits.
    """
    if not -(2**63) <= seed < 2**63:
        raise ConfigError(f"seed must be a number of 64 bits, found {seed}")
