"""Decoding every image once: a memory map of pixels beside an index, keyed by what the files hold.

Where the cache lies, each being safe to delete at any time:

    CACHE/decoded/
        <entry>/images.npy      uint8 [N, S, S, 3]
        <entry>/index.json      the key of each row, why some could not be decoded, and the range of those of more than
                                8 bits
        <folder>.npz            what the files of a folder looked like when they were read: length, times, inode, key
        <folder>.lock           held while that folder is decoded
        building-<folder>/      an entry in the making

Images of more than 8 bits have one black and one white, that of all of them together (`_levels`). They are looked at
once, and decoded once it is known; the other images are decoded at once.

Where only so many bytes are allowed, an entry holds the rows of some images, evenly spaced among the files, and the
index of all: every file has then been decoded once all the same, so that what cannot be used is known beforehand. The
other images are decoded when they are asked for (`_undecoded`).

An entry is named by a hash of the keys of its images (hashes of the files' bytes), the size, and how images are made
square; so two folders with the same images share one, whatever the files are called. A folder whose files look as
before is not read at all. An entry appears by renaming a directory that is complete and on disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.data._decode import Fit, Levels, What, file_of, open_file, plain_reason, write_all
from repertoire.data._levels import settle
from repertoire.data._pool import decode_into
from repertoire.data._seen import Seen, Signature, looks
from repertoire.data._undecoded import Undecoded
from repertoire.errors import DataError, option
from repertoire.files import sync

__all__ = ["Decoded", "cache_bytes", "cache_directory", "decode_once"]

_FORMAT = 2
"""Part of every name; a new number for a change in how images are decoded, or in the files of the cache."""

_COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class Decoded:
    """The images of a list of files.

    Attributes:
        images: uint8 `[M, S, S, 3]`, a memory map, or what decodes them when they are asked for.
        rows: int64 `[N]`, the row of `images` for each file; -1 where it cannot be used.
        keys: uint64 `[N]`, a hash of each file's bytes; 0 where it could not be read.
        failures: what is wrong, by the number of the file.
        levels: black and white of the images of more than 8 bits, by kind.
    """

    images: np.ndarray | Undecoded
    rows: np.ndarray
    keys: np.ndarray
    failures: dict[int, str]
    levels: Levels


def cache_directory(chosen: str | os.PathLike[str] | None = None) -> Path:
    """Directory of decoded images: as chosen, or $REPERTOIRE_CACHE, or ~/.cache/repertoire."""
    return Path(chosen or os.environ.get("REPERTOIRE_CACHE") or Path.home() / ".cache" / "repertoire")


def cache_bytes(count: int, size: int, room: int | None = None) -> int:
    """Approximate size on disk of so many decoded images.

    Args:
        count: of the files.
        size: side of the images in pixels.
        room: images whose pixels are kept; all if None.

    Example:
        >>> cache_bytes(1_200_000, 224) // 2**30
        168
    """
    return (count if room is None else room) * size * size * 3 + 32 * count + 4096


def decode_once(
    root: str | os.PathLike[str],
    names: Sequence[str],
    signatures: Mapping[str, Signature],
    *,
    size: int,
    fit: Fit = "crop",
    what: What = "image",
    levels: Levels | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    most: int | None = None,
    shards: np.ndarray | None = None,
) -> Decoded:
    """The images of a folder's files, decoded now or, if nothing has changed, some time before.

    Args:
        root: the folder.
        names: of the files in it.
        signatures: of each file that could be asked; see `_decode.signature`.
        size, fit: see `_decode.decode`.
        what: see `_decode.decode_rows`.
        levels: black and white of images of more than 8 bits, where they are not those of these images; by kind.
        cache_dir: see `cache_directory`.
        workers: processes that decode; one for each core if None.
        most: bytes of pixels that may be written; all that there are if None.
        shards: int32 `[N]`, the archive that each file is a part of, where they are.

    Raises:
        DataError: the cache cannot be written, for want of space or otherwise. Nothing half-made is left.
    """
    room = None if most is None or most >= len(names) * size * size * 3 else most // (size * size * 3)
    base = cache_directory(cache_dir) / "decoded"
    more = f" {what}" if what != "image" else ""
    more += f" {sorted((name, *ends) for name, ends in levels.items())}" if levels else ""

    def make(room: int | None) -> _Cache:
        # What is only looked at is so at any size.
        kind = f"{size} {fit} {_FORMAT}" if room != 0 else f"{fit} {_FORMAT}"
        kind += more if room is None else f"{more} {room} kept"
        folder = _hash(os.fsencode(os.path.realpath(root)), kind.encode())
        signed = looks(names, signatures)
        place = os.fspath(root)
        options = (size, fit, what, dict(levels or {}), kind, room, shards, workers)
        return _Cache(base, folder, place, list(names), signed, *options)

    cache = make(room)
    try:
        # What was kept of all of them serves whoever wants less.
        found = (make(None).look_up() if room is not None else None) or cache.look_up()
        if found is None:
            base.mkdir(parents=True, exist_ok=True)
            with _locked(base / f"{cache.folder}.lock"):
                # Another process may have done it while this one waited.
                found = cache.look_up() or cache.build()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(_no_space(base, cache.bytes)) from error
        raise DataError(
            f"the cache of decoded images in {base} cannot be written ({error.strerror or error}); choose another "
            "directory with cache_dir, or with the environment variable REPERTOIRE_CACHE"
        ) from error
    return found


@dataclass(frozen=True)
class _Entry:
    """Decoded images on disk."""

    images: np.ndarray
    keys: np.ndarray
    place: np.ndarray | None
    """Row of the images for each key, or -1; None where each has the row of its own number."""
    failures: dict[int, str]
    """By key."""
    ranges: dict[int, tuple[str, float, float]]
    """By key."""
    levels: dict[str, tuple[float, float]]

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """The number of each key; every key must be there."""
        order = np.argsort(self.keys, kind="stable")
        return order[np.searchsorted(self.keys, keys, sorter=order)]


@dataclass(frozen=True)
class _Cache:
    base: Path
    folder: str
    root: str
    names: list[str]
    looks: np.ndarray
    size: int
    fit: Fit
    what: What
    levels: Levels
    kind: str
    """How the images are made, as part of names."""
    room: int | None
    """Rows that are kept; None for all."""
    shards: np.ndarray | None
    workers: int | None

    @property
    def bytes(self) -> int:
        """Approximate size on disk of an entry for all files."""
        return cache_bytes(len(self.names), self.size, self.room)

    @property
    def _place(self) -> np.ndarray:
        """The row of each file of an entry, int32 `[N]`; -1 where its pixels are not kept."""
        count = len(self.names)
        if self.room is None:
            return np.arange(count, dtype=np.int32)
        place = np.full(count, -1, dtype=np.int32)
        place[np.arange(self.room) * count // max(1, self.room)] = np.arange(self.room)
        return place

    @property
    def _row_bytes(self) -> int:
        return self.size * self.size * 3

    @property
    def _memory(self) -> Path:
        return self.base / f"{self.folder}.npz"

    def look_up(self) -> Decoded | None:
        """The images, if the files are as they were and all of them are in the cache."""
        seen = Seen.load(self._memory)
        if seen.names != self.names or not ((seen.looks == self.looks).all(axis=1) | ~seen.read).all():
            return None
        reasons = {}
        for number in np.flatnonzero(~seen.read).tolist():
            # Permissions change without the file changing, so what could not be read is tried again.
            reason = _obstacle(os.path.join(self.root, self.names[number]))
            if reason is None:
                return None
            reasons[number] = reason
        entry = self._open(self._name(seen))
        if entry is None:
            return None
        if entry.failures:
            bad = np.isin(seen.keys, np.array(list(entry.failures), dtype=np.uint64)) & seen.read
            reasons |= {int(number): entry.failures[int(seen.keys[number])] for number in np.flatnonzero(bad)}
        return self._decoded(entry, seen, reasons)

    def build(self) -> Decoded:
        """Reads and decodes the files that are new or changed, in a directory that becomes an entry when complete."""
        self._sweep()
        if shutil.disk_usage(self.base).free < self.bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        before = Seen.load(self._memory)
        building = self.base / f"building-{self.folder}"
        building.mkdir()
        try:
            outcomes = self._fill(building, before)
            seen = Seen.of(self.names, outcomes)
            entry = self._publish(building, self._name(seen))
            building.mkdir(exist_ok=True)
            seen.save(building / "seen.npz")
            sync(building / "seen.npz")
            _rename(building / "seen.npz", self._memory)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        if before.names and self._name(before) != self._name(seen):
            # Who has it mapped keeps it; and a copy of the folder as it was would be decoded again.
            shutil.rmtree(self.base / self._name(before), ignore_errors=True)
        reasons = {number: outcome["reason"] for number, outcome in enumerate(outcomes) if "reason" in outcome}
        return self._decoded(entry, seen, reasons)

    def _fill(self, building: Path, before: Seen) -> list[dict[str, Any]]:
        """Writes the pixels and the index, and says what became of each file; see `_decode.decode_rows`."""
        file = building / "images.npy"
        kept = len(self.names) if self.room is None else self.room
        shape = (kept, self.size, self.size, 3)
        with open(file, "wb") as handle:
            np.lib.format.write_array_header_1_0(
                handle, {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
            )
            offset = handle.tell()
            # Rows of files that fail are never written, and the file must be whole all the same.
            handle.truncate(offset + kept * self._row_bytes)
        former = self._open(self._name(before))
        known = {} if former is None else before.unchanged(self.names, self.looks)
        outcomes: list[dict[str, Any]] = [{} for _ in self.names]

        def decode(numbers: list[int], rows: list[int], levels: Levels) -> None:
            files = [self.names[number] for number in numbers]
            length = int(self.looks[numbers, 0].clip(0).sum())
            options: dict[str, Any] = {"what": self.what, "levels": levels, "total_bytes": length}
            options["workers"] = self.workers
            made = decode_into(file, offset, self.root, files, self.size, self.fit, rows=rows, **options)
            for position, outcome in made:
                outcomes[numbers[position]] = outcome

        if self.room is None:
            pending = [number for number in range(len(self.names)) if number not in known]
            order = [*pending, *known]
            row = dict(zip(order, range(len(order)), strict=True))
        else:
            order = list(range(len(self.names)))
            row = dict(zip(order, self._place.tolist(), strict=True))
            pending = [number for number in order if number not in known or row[number] >= 0]
        decode(pending, [row[number] for number in pending], self.levels)
        if former is not None:
            if self.room is None:
                rows = former.rows(np.array(list(known.values()), dtype=np.uint64))
                _copy_rows(former.images, rows, file, offset + len(pending) * self._row_bytes)
            for number, key in known.items():
                outcomes[number] = {"signature": self.looks[number].tolist(), "key": key}
                if key in former.failures:
                    outcomes[number]["reason"] = former.failures[key]
                if key in former.ranges:
                    outcomes[number]["range"] = former.ranges[key]
        found = settle(outcome["range"] for outcome in outcomes if "range" in outcome)
        levels = {kind: self.levels.get(kind, ends) for kind, ends in found.items()}
        # Those that were only looked at; and those decoded before, when their folder had another white.
        again = [
            number
            for number in order
            if (kind := outcomes[number].get("range", (None,))[0]) is not None
            and (kind not in self.levels if number not in known else former.levels.get(kind) != tuple(levels[kind]))  # type: ignore[union-attr]
        ]
        if again:
            decode(again, [row[number] for number in again], levels)
        sync(file)
        self._write_index(building, [outcomes[number] for number in order], levels)
        return outcomes

    def _write_index(self, building: Path, outcomes: list[dict[str, Any]], levels: Levels) -> None:
        """The index of outcomes in the order of the rows."""
        index = {
            "format": _FORMAT,
            "bytes": (building / "images.npy").stat().st_size,
            "keys": [outcome.get("key", 0) for outcome in outcomes],
            "failures": {str(o["key"]): o["reason"] for o in outcomes if "key" in o and "reason" in o},
            "ranges": {str(o["key"]): list(o["range"]) for o in outcomes if "key" in o and "range" in o},
            "levels": {kind: list(ends) for kind, ends in levels.items()},
        }
        (building / "index.json").write_text(json.dumps(index), encoding="ascii")
        sync(building / "index.json")
        sync(building)

    def _publish(self, building: Path, name: str) -> _Entry:
        """The entry, from now on for everybody to see."""
        # Held for a moment only: two folders with equal images may be ready at the same time.
        with _locked(self.base / "publish.lock"):
            entry = self._open(name)
            if entry is None:
                shutil.rmtree(self.base / name, ignore_errors=True)
                _rename(building, self.base / name)
                entry = self._open(name)
        if entry is None:
            raise OSError(errno.EIO, "it cannot be read back")
        return entry

    def _open(self, name: str) -> _Entry | None:
        """An entry, or None if there is none or it is damaged."""
        try:
            index = json.loads((self.base / name / "index.json").read_text(encoding="ascii"))
            file = self.base / name / "images.npy"
            if index["format"] != _FORMAT or file.stat().st_size != index["bytes"]:
                return None
            keys = np.array(index["keys"], dtype=np.uint64)
            kept = len(keys) if self.room is None else self.room
            if kept:
                images = np.load(file, mmap_mode="r", allow_pickle=False)
            else:  # nothing to map
                images = np.empty((0, self.size, self.size, 3), dtype=np.uint8)
            if images.dtype != np.uint8 or images.shape != (kept, self.size, self.size, 3):
                return None
            return _Entry(
                images,
                keys,
                None if self.room is None else self._place,
                {int(key): reason for key, reason in index["failures"].items()},
                {int(key): tuple(found) for key, found in index["ranges"].items()},
                {kind: tuple(ends) for kind, ends in index["levels"].items()},
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _decoded(self, entry: _Entry, seen: Seen, reasons: dict[int, str]) -> Decoded:
        rows = np.full(len(seen.keys), -1, dtype=np.int64)
        rows[seen.read] = entry.rows(seen.keys[seen.read])
        images: np.ndarray | Undecoded = entry.images
        if self.room is not None or self.shards is not None:
            place = np.full(len(rows), -1, dtype=np.int32)
            place[seen.read] = rows[seen.read] if entry.place is None else entry.place[rows[seen.read]]
            options: dict[str, Any] = {"size": self.size, "fit": self.fit, "what": self.what, "levels": entry.levels}
            options |= {"kept": entry.images, "place": place, "shards": self.shards, "workers": self.workers}
            images = Undecoded(self.root, self.names, seen.keys, **options)
            rows = np.where(seen.read, np.arange(len(rows)), -1)
        rows[list(reasons)] = -1
        return Decoded(images, rows, seen.keys, dict(sorted(reasons.items())), entry.levels)

    def _name(self, seen: Seen) -> str:
        """Cache key of these files."""
        keys = np.sort(seen.keys[seen.read]).astype("<u8")
        return _hash(keys.tobytes(), self.kind.encode())

    def _sweep(self) -> None:
        """Removes what killed processes left, of this folder and of others that nobody is decoding."""
        shutil.rmtree(self.base / f"building-{self.folder}", ignore_errors=True)
        for left in self.base.glob("building-*"):
            with (
                contextlib.suppress(OSError),
                _locked(self.base / f"{left.name.removeprefix('building-')}.lock", wait=False),
            ):
                shutil.rmtree(left, ignore_errors=True)


def _obstacle(path: str) -> str | None:
    """Why a file cannot be read, or None if it can be."""
    try:
        open_file(file_of(path))[0].close()
    except OSError as error:
        return plain_reason(error)
    return None


def _copy_rows(source: np.ndarray, rows: np.ndarray, file: Path, offset: int) -> None:
    """Writes rows of an array one after the other into a file."""
    row_bytes = int(np.prod(source.shape[1:]))
    step = max(1, _COPY_BYTES // row_bytes)
    descriptor = os.open(file, os.O_WRONLY)
    try:
        for start in range(0, len(rows), step):
            # Not through a memory map: on a full disk that ends in a signal instead of an error.
            write_all(descriptor, source[rows[start : start + step]].data, offset + start * row_bytes)
    finally:
        os.close(descriptor)


def _no_space(base: Path, needed: int) -> str:
    free = shutil.disk_usage(base).free
    return (
        f"decoded images need {needed:,} bytes in {base}, where {free:,} are free. Free some, use a smaller size, "
        f"choose another directory with cache_dir or the environment variable REPERTOIRE_CACHE, or keep fewer of them: "
        f"{option('cache', 'none')}, or a size"
    )


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)
    sync(target.parent)


@contextlib.contextmanager
def _locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a file for this process; the operating system lets go of it however the process ends.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    import fcntl

    with open(file, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
