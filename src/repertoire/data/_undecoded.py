"""Images that are decoded when they are asked for: what there is no room to keep decoded."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from repertoire.data._decode import Fit, Levels, What, decode_rows
from repertoire.data._pool import Children, cores
from repertoire.errors import DataError, ascii_path

__all__ = ["Undecoded"]

_FEW = 8
"""Images that are decoded here, without asking the processes."""

_PIECES = 4
"""Pieces a batch is cut into for each process, so that all end at about the same time."""


class Undecoded:
    """Images uint8 `[N, S, S, 3]`, an array to look at: what is indexed is decoded, by processes that stay.

    The images are those that the cache would hold, byte for byte: the same code decodes them, and a file whose content
    is no longer what was found in it is refused.

    Args:
        root, names: the files, or members of archives; see `_decode.read_file`.
        keys: uint64 `[N]`, the hash of each file's bytes.
        size, fit, what, levels: see `_decode.decode`.
        kept: uint8 `[K, S, S, 3]`, those that are in the cache.
        place: int32 `[N]`, the row of each image in `kept`, or -1.
        shards: int32 `[N]`, the archive that each lies in, where they lie in archives.
        workers: processes that decode; one for each core, of those that this process has, if None.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        root: str,
        names: Sequence[str],
        keys: np.ndarray,
        *,
        size: int,
        fit: Fit,
        what: What,
        levels: Levels,
        kept: np.ndarray,
        place: np.ndarray,
        shards: np.ndarray | None = None,
        workers: int | None = None,
    ) -> None:
        self.shape = (len(names), size, size, 3)
        self.shards = shards
        self._root, self._names, self._keys = root, names, keys
        self._fit, self._what = fit, what
        self._levels = {kind: list(ends) for kind, ends in levels.items()}
        self._kept, self._place = kept, place
        self._workers = workers
        self._pool: _Pool | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def whole(self) -> bool:
        """True if nothing is left to decode."""
        return bool((self._place >= 0).all())

    def __getitem__(self, index: Any) -> np.ndarray:
        """The images at a position, a slice or positions.

        Raises:
            DataError: a file has changed, or cannot be read any more.
        """
        if isinstance(index, int | np.integer):
            return self[np.array([index])][0]
        rows = np.arange(len(self))[index]
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        place = self._place[rows]
        held = place >= 0
        if held.any():
            out[held] = self._kept[place[held]]
        if not held.all():
            missing = np.flatnonzero(~held)
            out[missing] = self._decoded(rows[missing])
        return out

    def _decoded(self, rows: np.ndarray) -> np.ndarray:
        names = [self._names[row] for row in rows.tolist()]
        if len(rows) <= _FEW:
            paths = [os.path.join(self._root, name) for name in names]
            found, outcomes = decode_rows(paths, self.shape[1], self._fit, self._what, self._levels)
            images = np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(rows), *self.shape[1:])
        else:
            if self._pool is None or self._pool.process != os.getpid():  # after a fork the pipes are those of another
                setting = {"size": self.shape[1], "fit": self._fit, "what": self._what, "levels": self._levels}
                self._pool = _Pool(setting, self._root, self._workers or max(1, cores() // _neighbours()))
            images, outcomes = self._pool.decode(names)
        for row, outcome in zip(rows.tolist(), outcomes, strict=True):
            if "reason" in outcome:
                raise DataError(f"{self._path(row)} {outcome['reason']}; it could be decoded when the run began")
            if outcome["key"] != int(self._keys[row]):
                raise DataError(f"{self._path(row)} has changed since it was first looked at; start a new run")
        return images

    def _path(self, row: int) -> str:
        return ascii_path(os.path.join(self._root, self._names[row]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}


def _neighbours() -> int:
    """Ranks on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


class _Pool:
    """Processes that decode one batch at a time, into a file without a name."""

    def __init__(self, setting: dict[str, Any], root: str, workers: int) -> None:
        self.process = os.getpid()
        self._row = int(setting["size"]) ** 2 * 3
        self._size = int(setting["size"])
        self._workers = workers
        self._lock = threading.Lock()
        memory = "/dev/shm"
        # In memory where there is such a place: the pixels are read back at once.
        self._file = tempfile.TemporaryFile(dir=memory if os.access(memory, os.W_OK) else None)  # noqa: SIM115
        number = self._file.fileno()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="repertoire-decode")
        setting = {**setting, "file": f"/dev/fd/{number}", "offset": 0}
        self._children = Children(setting, root, inherited=(number,))
        self._end = weakref.finalize(self, _close, self._threads, self._children, self._file, os.getpid())

    def decode(self, names: list[str]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The images of these files, and what became of each."""
        count = len(names)
        step = max(1, -(-count // (self._workers * _PIECES)))
        starts = range(0, count, step)
        outcomes: list[dict[str, Any]] = [{}] * count
        out = np.empty((count, self._size, self._size, 3), dtype=np.uint8)
        with self._lock:
            self._file.truncate(count * self._row)
            pieces = [list(range(start, min(start + step, count))) for start in starts]
            for found in self._threads.map(
                self._children.decode, starts, pieces, [names[start : start + step] for start in starts]
            ):
                for position, outcome in found:
                    outcomes[position] = outcome
            done = 0
            while done < out.nbytes:
                read = os.preadv(self._file.fileno(), [out.reshape(-1)[done:].data], done)
                if read == 0:
                    raise OSError("decoded images cannot be read back")
                done += read
        return out, outcomes


def _close(threads: ThreadPoolExecutor, children: Children, file: Any, process: int) -> None:
    if process == os.getpid():
        children.close()
        threads.shutdown(wait=True)
        file.close()
