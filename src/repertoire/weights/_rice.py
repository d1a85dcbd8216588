"""Golomb-Rice codes: whole numbers in bits, few for small ones."""

from __future__ import annotations

import numpy as np

__all__ = ["decode", "encode", "rice_bits"]


def rice_bits(numbers: np.ndarray) -> int:
    """The number of low bits with which the numbers take the least room."""
    sizes = [int((numbers >> bits).sum()) + len(numbers) * (1 + bits) for bits in range(32)]
    return int(np.argmin(sizes))


def encode(numbers: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Rice codes of numbers >= 0: high parts in unary (so many ones, and a zero), low parts in so many bits each.

    The parts stand apart, so that neither has to be read number by number. Golomb, *Run-Length Encodings* (1966); Rice
    and Plaunt, *Adaptive Variable-Length Coding for Efficient Compression of Spacecraft Television Data* (1971).

    Args:
        numbers: int64 `[n]`.
        bits: of the low part; the best is what :func:`rice_bits` gives.

    Returns:
        Bytes of the high parts and of the low ones, uint8.

    Example:
        >>> import numpy as np
        >>> high, low = encode(np.array([5, 0, 9]), 2)
        >>> np.unpackbits(high), np.unpackbits(low)[:6]  # 10 0 110; 01 00 01
        (array([1, 0, 0, 1, 1, 0, 0, 0], dtype=uint8), array([0, 1, 0, 0, 0, 1], dtype=uint8))
        >>> decode(high, low, 3, 2)
        array([5, 0, 9])
    """
    numbers = np.asarray(numbers, np.int64)
    high = numbers >> bits
    unary = np.ones(int(high.sum()) + len(high), np.uint8)
    unary[np.cumsum(high + 1) - 1] = 0
    places = np.arange(bits - 1, -1, -1)
    low = ((numbers[:, None] >> places) & 1).astype(np.uint8)
    return np.packbits(unary), np.packbits(low.reshape(-1))


def decode(high: np.ndarray, low: np.ndarray, count: int, bits: int) -> np.ndarray:
    """The numbers of which `encode` made the bytes.

    Raises:
        ValueError: the bytes hold fewer numbers.
    """
    ends = np.flatnonzero(np.unpackbits(high) == 0)[:count]
    lows = np.unpackbits(low)[: count * bits]
    if len(ends) < count or len(lows) < count * bits:
        raise ValueError(f"the codes hold {min(len(ends), count)} numbers, expected {count}")
    quotients = np.diff(ends, prepend=-1) - 1
    places = 1 << np.arange(bits - 1, -1, -1)
    return (quotients << bits) + lows.reshape(count, bits).astype(np.int64) @ places.astype(np.int64)
