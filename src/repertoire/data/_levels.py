"""Black and white of images of more than 8 bits: one for a whole data set.

An image by itself does not say what its white is. 12 bits are kept in files of 16, floats run to 1, to 255 or to
anything; and a white that is guessed for each image makes brightness, which may be what tells classes apart, a matter
of the brightest pixel.
"""

from __future__ import annotations

from collections.abc import Iterable

from repertoire.data._decode import Levels

__all__ = ["KINDS", "levels_note", "settle"]

_BITS = (8, 10, 12, 14, 16)
_DARKEST = 1 / 8
"""Floats whose highest value is lower are not taken to have white at 1."""

_WORDS = {"uint16": "16-bit images", "int32": "images of 32-bit integers", "float32": "images of floats"}
KINDS = tuple(_WORDS)


def settle(ranges: Iterable[tuple[str, float, float]]) -> dict[str, tuple[float, float]]:
    """Black and white for each kind of image, from the lowest and highest value of each image.

    Integers: black is 0, or the lowest value where one is negative; white is the highest number of the fewest bits (of
    8, 10, 12, 14, 16) that hold all values, or the highest value where it takes more. Floats: black is 0, or the lowest
    value where one is negative; white is 1 where the highest value lies from 1/8 to 1, else that value.

    Example:
        >>> settle([("uint16", 3, 4000), ("uint16", 0, 700), ("float32", 0.0, 1.01)])
        {'uint16': (0.0, 4095.0), 'float32': (0.0, 1.01)}
    """
    found: dict[str, tuple[float, float]] = {}
    for kind, low, high in ranges:
        before = found.get(kind, (0.0, -float("inf")))
        found[kind] = min(before[0], float(low)), max(before[1], float(high))
    return {kind: (low, _white(kind, low, high)) for kind, (low, high) in found.items()}


def _white(kind: str, low: float, high: float) -> float:
    if kind == "float32":
        return 1.0 if low >= 0 and (_DARKEST <= high <= 1 or high <= 0) else high
    whole = (float(2**bits - 1) for bits in _BITS if high <= 2**bits - 1)
    return high if low < 0 else next(whole, high)


def levels_note(levels: Levels) -> str | None:
    """Note for a person on what was taken for black and white."""
    said = [f"{_WORDS[kind]} have black at {low:g} and white at {high:g}" for kind, (low, high) in levels.items()]
    return f"{'; '.join(said).capitalize()}; the option white of a source sets it." if said else None
