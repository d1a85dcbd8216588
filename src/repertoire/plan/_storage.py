"""What the decoded images of a data set need on the disk and in memory, with each way to keep them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repertoire.data import ImageSet, Splits, cache_bytes, cache_directory, source_of
from repertoire.errors import option
from repertoire.recipe import TrainConfig, format_bytes, parse_bytes

__all__ = ["Storage", "StorageRow", "storage"]

_FILES = ("folder", "table", "wds")
"""Sources whose images are decoded files."""

OBJECTS = 200
"""Bytes an image that a run holds beside pixels: its name, label, content key and places."""


@dataclass(frozen=True)
class StorageRow:
    """One way to keep the decoded images of a data set.

    Attributes:
        cache: value of the option.
        disk: bytes in the cache.
        memory: bytes that are held, and those of the cache that are read in every epoch: what of these does not fit
            comes from the disk each time.
        decoded: images that are decoded in every epoch.
    """

    cache: str
    disk: int
    memory: int
    decoded: int

    @property
    def setting(self) -> str:
        """The option that chooses it."""
        return option("cache", self.cache)


@dataclass(frozen=True)
class Storage:
    """Room that the decoded images of a data set need, and that there is.

    Attributes:
        images, size: their number, and their side in pixels.
        folder: where they are kept.
        free: bytes that are free there.
        available: bytes of memory that are available.
        rows: everything first, and nothing last.
    """

    images: int
    size: int
    folder: Path
    free: int
    available: int
    rows: tuple[StorageRow, ...]

    def fits_disk(self, row: StorageRow) -> bool:
        """True if there is room for it on the disk."""
        return row.disk <= self.free

    def fits_memory(self, row: StorageRow) -> bool:
        """True if a second epoch need not read the disk."""
        return row.memory <= self.available

    @property
    def sentence(self) -> str:
        """Sentence that says what to take."""
        whole = self.rows[0]
        need = f"all decoded images take {format_bytes(whole.disk)}, and {format_bytes(self.free)} are free"
        if self.fits_disk(whole):
            slow = "" if self.fits_memory(whole) else "; they do not fit into memory, so every epoch reads the disk"
            return f"{need}: {whole.setting} fits{slow}"
        nothing = self.rows[-1].setting
        return (
            f"{need}: take {option('cache', _rounded(self.free))} to keep as many as half of that holds, or {nothing}, "
            "and the others are decoded in every epoch"
        )


def storage(config: TrainConfig, splits: Splits) -> Storage | None:
    """Room that the images of a configuration need; None where they are not decoded from files.

    Args:
        config: resolved or not; the size that its `cache` names is a row.
        splits: of `load_splits(config, shapes=True)`.
    """
    if not isinstance(splits.train, ImageSet) or source_of(config.data) not in _FILES:
        return None
    folder = cache_directory() / "decoded"
    count, size = len(splits.train.images), max(splits.train.size)
    times = 1 if splits.train.masks is None else 2
    rows = tuple(_rows(config, count, size, times))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return Storage(count, size, folder, shutil.disk_usage(there).free, _available(), rows)


def _rows(config: TrainConfig, count: int, size: int, times: int) -> Iterator[StorageRow]:
    own = [] if config.cache in ("all", "none") else [config.cache]
    for cache in ("all", *own, "none"):
        room = count if cache == "all" else 0 if cache == "none" else parse_bytes(cache) // (size * size * 3)
        room = min(room, count)
        yield StorageRow(
            cache,
            times * cache_bytes(count, size, room),
            OBJECTS * count + times * room * size * size * 3,
            count - room,
        )


def _rounded(free: int) -> str:
    """Half of what is free, as an option takes it."""
    return f"{max(1, free // 2 // 10**9)}GB" if free >= 2 * 10**9 else f"{max(1, free // 2 // 10**6)}MB"


def _available() -> int:
    """Bytes of memory that are available, cached files counted in."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
