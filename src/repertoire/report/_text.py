"""Numbers and names as a person reads them."""

from __future__ import annotations

import math

from repertoire.errors import ascii_path, plural

__all__ = [
    "count",
    "data_size",
    "duration",
    "label",
    "name_of_data",
    "number",
    "percent",
    "plural",
    "shorten",
    "signed",
]

DASH = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits; a dash where there is none.

    >>> number(0.123456), number(1500.0), number(None)
    ('0.123', '1500', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def signed(value: float | None) -> str:
    """A number between -1 and 1 to three decimals, with a true minus sign; a dash where there is none.

    >>> signed(0.5), signed(-0.25), signed(-0.0001), signed(None)
    ('0.500', '−0.250', '0.000', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "\u2212")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage.

    >>> percent(0.9751), percent(None)
    ('97.5%', '–')
    """
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}%}"


def count(value: int) -> str:
    """A whole number with thousands separated.

    >>> count(60000)
    '60,000'
    """
    return f"{value:,}"


def duration(seconds: float | None) -> str:
    """A time in the two largest units that matter; a dash where there is none.

    >>> duration(3.21), duration(83), duration(7321)
    ('3.2 s', '1 min 23 s', '2 h 2 min')
    """
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def data_size(size: float) -> str:
    """Bytes in binary units.

    >>> data_size(400 * 2**20), data_size(3 * 2**30), data_size(2.5 * 2**20), data_size(5000)
    ('400 MiB', '3.0 GiB', '2.5 MiB', '5 KiB')
    """
    if size >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    if size >= 2**20:
        return f"{size / 2**20:.{0 if size >= 10 * 2**20 else 1}f} MiB"
    return f"{size / 2**10:.0f} KiB"


def label(name: object) -> str:
    """A name on one line: control characters and broken unicode are escaped.

    >>> label("a\\nb")
    'a\\\\nb'
    """
    return ascii_path(str(name))


def name_of_data(data: str) -> str:
    """What data is called in a title: of a path the last part, as the whole is among the details.

    >>> name_of_data("/home/ada/photos"), name_of_data("features:/tmp/a.npz"), name_of_data("emoji:vendor=google")
    ('photos', 'features:a.npz', 'emoji:vendor=google')
    """
    kind, colon, path = data.rpartition(":")
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    # A drive is no kind of data.
    kind, colon = ("", "") if len(kind) == 1 else (kind, colon)
    return shorten(label(f"{kind}{colon}{last}" if last else data), 60, keep="end")


def shorten(text: str, most: int, *, keep: str = "start") -> str:
    """Cuts a text to so many characters; an ellipsis stands for the others.

    Args:
        text: what to shorten.
        most: characters of the result, at least 2.
        keep: "start" or "end", whichever says more: the end of a path, the start of a name.

    >>> shorten("golden retriever", 8), shorten("photos/cat/17.jpg", 8, keep="end")
    ('golden …', '…/17.jpg')
    """
    if len(text) <= most:
        return text
    return text[: most - 1] + "…" if keep == "start" else "…" + text[1 - most :]
