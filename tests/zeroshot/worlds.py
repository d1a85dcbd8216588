"""Rows of classes that have a colour and a shape each, some combinations of which are never seen."""

from __future__ import annotations

import numpy as np


def combined(
    noise: float = 0.3, sides: int = 4, width: int = 12, each: int = 12, seed: int = 0, hidden: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows `[N, width]`, classes `[N]`, descriptions `[sides^2, 2 sides]`, and which rows are of seen classes.

    `hidden` is the size of what classes have that no description says."""
    generator = np.random.default_rng(seed)
    pairs = np.arange(sides**2)
    descriptions = np.concatenate([np.eye(sides)[pairs // sides], np.eye(sides)[pairs % sides]], 1)
    y = np.repeat(pairs, each)
    x = descriptions[y] @ generator.normal(size=(2 * sides, width)) + noise * generator.normal(size=(len(y), width))
    x = x + hidden * generator.normal(size=(sides**2, width))[y]
    return x, y, descriptions, (y // sides != y % sides)
