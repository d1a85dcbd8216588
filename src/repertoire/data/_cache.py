"""Decoding every image once: a memory map of pixels beside an index, keyed by what the files hold.

Where the cache lies, each being safe to delete at any time:

    CACHE/decoded/
        <entry>/images.npy      uint8 [N, S, S, 3]
        <entry>/index.json      the key of each row, and why some could not be decoded
        <folder>.npz            what the files of a folder looked like when they were read: length, time, inode, key
        <folder>.lock           held while that folder is decoded
        building-<folder>/      an entry in the making

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
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.data._decode import open_file, plain_reason
from repertoire.data._pool import decode_into
from repertoire.data._source import Fit
from repertoire.errors import DataError

__all__ = ["Decoded", "cache_directory", "decode_once"]

_FORMAT = 1
"""Part of every name; a new number for a change in how images are decoded, or in the files of the cache."""

_COPY_BYTES = 1 << 24

Signature = tuple[int, int, int]
_Known = tuple[Signature, int | None]
"""What a file looked like, and its key if it could be read."""


@dataclass(frozen=True)
class Decoded:
    """The images of a list of files.

    Attributes:
        images: uint8 `[M, S, S, 3]`, a memory map.
        rows: int64 `[N]`, the row of `images` for each file; -1 where it cannot be used.
        keys: uint64 `[N]`, a hash of each file's bytes; 0 where it could not be read.
        failures: what is wrong, by the number of the file.
    """

    images: np.ndarray
    rows: np.ndarray
    keys: np.ndarray
    failures: dict[int, str]


def cache_directory(chosen: str | os.PathLike[str] | None = None) -> Path:
    """Where decoded images are kept: as chosen, or $REPERTOIRE_CACHE, or ~/.cache/repertoire."""
    return Path(chosen or os.environ.get("REPERTOIRE_CACHE") or Path.home() / ".cache" / "repertoire")


def decode_once(
    root: str | os.PathLike[str],
    names: Sequence[str],
    signatures: dict[str, Signature],
    *,
    size: int,
    fit: Fit = "crop",
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
) -> Decoded:
    """The images of a folder's files, decoded now or, if nothing has changed, some time before.

    Args:
        root: the folder.
        names: of the files in it.
        signatures: length, time and inode of each file that could be asked; see `_decode.read_file`.
        size, fit: see `_decode.decode`.
        cache_dir: see `cache_directory`.
        workers: processes that decode; one for each core if None.

    Raises:
        DataError: the cache cannot be written, for want of space or otherwise. Nothing half-made is left.
    """
    base = cache_directory(cache_dir) / "decoded"
    folder = _hash(os.fsencode(os.path.realpath(root)), f"{size} {fit} {_FORMAT}".encode())
    cache = _Cache(base, folder, os.fspath(root), list(names), signatures, size, fit)
    try:
        found = cache.look_up()
        if found is None:
            base.mkdir(parents=True, exist_ok=True)
            with _locked(base / f"{folder}.lock"):
                # Another process may have done it while this one waited.
                found = cache.look_up() or cache.build(workers)
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
    keys: list[int]
    failures: dict[int, str]
    """By key."""

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key; every key must be there."""
        have = np.array(self.keys, dtype=np.uint64)
        order = np.argsort(have, kind="stable")
        return order[np.searchsorted(have, keys, sorter=order)]


@dataclass(frozen=True)
class _Cache:
    base: Path
    folder: str
    root: str
    names: list[str]
    signatures: dict[str, Signature]
    size: int
    fit: Fit

    @property
    def bytes(self) -> int:
        """What an entry for all files takes on disk, nearly."""
        return len(self.names) * (self.size * self.size * 3 + 32) + 4096

    def look_up(self) -> Decoded | None:
        """The images, if the files are as they were and all of them are in the cache."""
        memory = self._recall()
        if list(memory) != self.names or not all(self._is_same(name, *known) for name, known in memory.items()):
            return None
        entry = self._open(self._name([key for _, key in memory.values()]))
        return None if entry is None else self._decoded(entry, [key for _, key in memory.values()])

    def build(self, workers: int | None) -> Decoded:
        """Reads and decodes the files that are new or changed, in a directory that becomes an entry when complete."""
        self._sweep()
        if shutil.disk_usage(self.base).free < self.bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        memory = self._recall()
        former = self._name([key for _, key in memory.values()])
        building = self.base / f"building-{self.folder}"
        building.mkdir()
        try:
            outcomes = self._fill(building, memory, self._open(former), workers)
            keys = [outcome.get("key") for outcome in outcomes]
            name = self._name(keys)
            entry = self._publish(building, name)
            self._remember(outcomes)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        if former != name:  # who has it mapped keeps it; a copy of the folder as it was would decode it again
            shutil.rmtree(self.base / former, ignore_errors=True)
        return self._decoded(entry, keys, {n: o["reason"] for n, o in enumerate(outcomes) if "reason" in o})

    def _fill(
        self, building: Path, memory: dict[str, _Known], former: _Entry | None, workers: int | None
    ) -> list[dict[str, Any]]:
        """Writes the pixels and the index, and says what became of each file; see `_decode.decode_rows`."""
        file = building / "images.npy"
        shape = (len(self.names), self.size, self.size, 3)
        with open(file, "wb") as handle:
            np.lib.format.write_array_header_1_0(
                handle, {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
            )
            offset = handle.tell()
            # Rows of files that fail are never written, and the file must be whole all the same.
            handle.truncate(offset + int(np.prod(shape)))
        outcomes: list[dict[str, Any]] = [{} for _ in self.names]
        known = self._reusable(memory, former)
        pending = [number for number, name in enumerate(self.names) if name not in known]
        total = sum(self.signatures.get(self.names[number], (0,))[0] for number in pending)
        for position, outcome in decode_into(
            file,
            offset,
            self.root,
            [self.names[number] for number in pending],
            self.size,
            self.fit,
            workers=workers,
            total_bytes=total,
        ):
            outcomes[pending[position]] = outcome
        kept = [number for number, name in enumerate(self.names) if name in known]
        for number in kept:
            outcomes[number] = known[self.names[number]]
        if former is not None and kept:
            keys = np.array([outcomes[number]["key"] for number in kept], dtype=np.uint64)
            _copy_rows(former.images, former.rows(keys), file, offset + len(pending) * int(np.prod(shape[1:])))
        _sync(file)
        self._write_index(building, [outcomes[number] for number in pending + kept])
        return outcomes

    def _reusable(self, memory: dict[str, _Known], former: _Entry | None) -> dict[str, dict[str, Any]]:
        """Outcomes of the files that are as they were and whose pixels are in the former entry, by name."""
        if former is None:
            return {}
        known = {}
        for name in self.names:
            signature, key = memory.get(name, (None, None))
            if key is not None and self.signatures.get(name) == signature:
                known[name] = {"signature": signature, "key": key}
                if key in former.failures:
                    known[name]["reason"] = former.failures[key]
        return known

    def _write_index(self, building: Path, outcomes: list[dict[str, Any]]) -> None:
        """The index of outcomes in the order of the rows."""
        index = {
            "format": _FORMAT,
            "bytes": (building / "images.npy").stat().st_size,
            "keys": [outcome.get("key", 0) for outcome in outcomes],
            "failures": {str(o["key"]): o["reason"] for o in outcomes if "key" in o and "reason" in o},
        }
        (building / "index.json").write_text(json.dumps(index), encoding="ascii")
        _sync(building / "index.json")
        _sync(building)

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
            images = np.load(file, mmap_mode="r", allow_pickle=False)
            if images.dtype != np.uint8 or images.shape != (len(index["keys"]), self.size, self.size, 3):
                return None
            return _Entry(images, index["keys"], {int(key): reason for key, reason in index["failures"].items()})
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _decoded(self, entry: _Entry, keys: Sequence[int | None], reasons: dict[int, str] | None = None) -> Decoded:
        found = np.array([key or 0 for key in keys], dtype=np.uint64)
        read = np.array([key is not None for key in keys], dtype=bool)
        rows = np.full(len(keys), -1, dtype=np.int64)
        rows[read] = entry.rows(found[read])
        if reasons is None:
            reasons = {
                n: entry.failures[key] for n, key in enumerate(keys) if key is not None and key in entry.failures
            }
            for number in np.flatnonzero(~read).tolist():
                reasons[number] = _obstacle(os.path.join(self.root, self.names[number])) or "cannot be read"
        rows[list(reasons)] = -1
        return Decoded(entry.images, rows, found, dict(sorted(reasons.items())))

    def _name(self, keys: Sequence[int | None]) -> str:
        """Of the entry for files with these keys, None standing for one that cannot be read."""
        read = np.array([key for key in keys if key is not None], dtype="<u8")
        return _hash(np.sort(read).tobytes(), f"{self.size} {self.fit} {_FORMAT}".encode())

    @property
    def _memory(self) -> Path:
        return self.base / f"{self.folder}.npz"

    def _recall(self) -> dict[str, _Known]:
        """What each file looked like when the folder was last decoded, and its key."""
        try:
            with np.load(self._memory, allow_pickle=False) as memory:
                names = os.fsdecode(memory["names"].tobytes()).split("\0")
                looks, keys, read = memory["signatures"].tolist(), memory["keys"].tolist(), memory["read"].tolist()
            return {
                name: (tuple(look), key if was_read else None)
                for name, look, key, was_read in zip(names, looks, keys, read, strict=True)
            }
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return {}

    def _is_same(self, name: str, signature: Signature, key: int | None) -> bool:
        if key is None:  # permissions change without the file changing, so what could not be read is tried again
            return _obstacle(os.path.join(self.root, name)) is not None
        return self.signatures.get(name) == signature

    def _remember(self, outcomes: list[dict[str, Any]]) -> None:
        temporary = self.base / f"building-{self.folder}" / "memory.npz"
        temporary.parent.mkdir(exist_ok=True)
        np.savez(
            temporary,
            names=np.frombuffer(os.fsencode("\0".join(self.names)), dtype=np.uint8),
            signatures=np.array([o.get("signature", (0, 0, 0)) for o in outcomes], dtype=np.int64),
            keys=np.array([o.get("key", 0) for o in outcomes], dtype=np.uint64),
            read=np.array(["key" in outcome for outcome in outcomes], dtype=bool),
        )
        _sync(temporary)
        _rename(temporary, self._memory)

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
        open_file(path)[0].close()
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
            os.pwrite(descriptor, source[rows[start : start + step]].data, offset + start * row_bytes)
    finally:
        os.close(descriptor)


def _no_space(base: Path, needed: int) -> str:
    free = shutil.disk_usage(base).free
    return (
        f"decoded images need {needed:,} bytes in {base}, where {free:,} are free. Free some, use a smaller size, or "
        "choose another directory with cache_dir or the environment variable REPERTOIRE_CACHE"
    )


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)
    _sync(target.parent)


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
