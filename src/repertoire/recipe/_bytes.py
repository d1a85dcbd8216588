"""Amounts of memory, as people write them."""

from __future__ import annotations

import re

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = {"b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


def parse_bytes(text: str) -> int:
    """Bytes of an amount such as "4GiB", "800 MB" or "2.5GB".

    Units with an i are powers of 1024, those without are powers of 1000; capitals make no difference.

    Raises:
        ValueError: says what was expected.

    Example:
        >>> parse_bytes("2.5GB"), parse_bytes("1 KiB")
        (2500000000, 1024)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]+)\s*", text)
    if found is None or found[2].lower() not in _UNITS or not float(found[1]):
        raise ValueError("expected a positive number with a unit, such as 4GiB, 800MB or 2.5GB")
    return max(1, int(float(found[1]) * _UNITS[found[2].lower()]))


def format_bytes(amount: float) -> str:
    """An amount with three digits.

    Example:
        >>> format_bytes(3.2 * 2**30), format_bytes(123456)
        ('3.20 GiB', '121 KiB')
    """
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if amount >= 0.9995 * 1024**power:
            value = amount / 1024**power
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{amount:.0f} B"
