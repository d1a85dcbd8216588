"""What the files of a folder looked like when they were last read, as the index of git keeps it.

A folder that has not changed need not be read to know what is in it.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Seen", "Signature", "looks"]

Signature = tuple[int, int, int, int]
"""See `_decode.signature`."""

_UNKNOWN: Signature = (-1, -1, -1, -1)


def looks(names: Sequence[str], signatures: Mapping[str, Signature]) -> np.ndarray:
    """The signatures of files as int64 `[N, 4]`, -1 where there is none."""
    return np.array([signatures.get(name, _UNKNOWN) for name in names], dtype=np.int64).reshape(-1, 4)


@dataclass(frozen=True)
class Seen:
    """The files of a folder as they were.

    Attributes:
        names: relative to the folder.
        looks: signature of each, int64 `[N, 4]`.
        keys: hash of the bytes of each, uint64 `[N]`; 0 where it could not be read.
        read: whether it could be read, bool `[N]`.
    """

    names: list[str]
    looks: np.ndarray
    keys: np.ndarray
    read: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], outcomes: Sequence[Mapping[str, Any]]) -> Seen:
        """Record of what decoding has found out; see `_decode.decode_rows`."""
        return cls(
            list(names),
            np.array([outcome.get("signature", _UNKNOWN) for outcome in outcomes], dtype=np.int64).reshape(-1, 4),
            np.array([outcome.get("key", 0) for outcome in outcomes], dtype=np.uint64),
            np.array(["key" in outcome for outcome in outcomes], dtype=bool),
        )

    @classmethod
    def load(cls, file: Path) -> Seen:
        """Reads what was saved; nothing, where there is no such file or it is damaged."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                names = os.fsdecode(arrays["names"].tobytes()).split("\0")
                seen = cls(names, arrays["looks"], arrays["keys"], arrays["read"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return cls.of([], [])
        whole = seen.looks.shape == (len(names), 4) and len(names) == len(seen.keys) == len(seen.read)
        return seen if whole else cls.of([], [])

    def save(self, file: Path) -> None:
        """Writes it as `.npz`."""
        names = np.frombuffer(os.fsencode("\0".join(self.names)), dtype=np.uint8)
        np.savez(file, names=names, looks=self.looks, keys=self.keys, read=self.read)

    def unchanged(self, names: Sequence[str], now: np.ndarray) -> dict[int, int]:
        """Keys of the files that look now as they did, by their number in `names`.

        Args:
            names: of the files there are now.
            now: their signatures; see `looks`.
        """
        place = {name: number for number, name in enumerate(self.names)}
        then = np.array([place.get(name, -1) for name in names], dtype=np.int64)
        common = np.flatnonzero(then >= 0)
        same = common[self.read[then[common]] & (self.looks[then[common]] == now[common]).all(axis=1)]
        return dict(zip(same.tolist(), self.keys[then[same]].tolist(), strict=True))
