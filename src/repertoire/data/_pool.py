"""Decoding many files into one array file, in as many processes as there are cores.

The processes are plain child processes that run `_decode.py`, not those of `multiprocessing`: forking a program that
has used torch's threads can deadlock, and starting afresh would import the user's main script once more, which fails
where it is not guarded, and torch, which takes seconds. They end by themselves when their standard input does, so also
when this process is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from repertoire.data import _decode
from repertoire.data._decode import Fit, Levels, What

__all__ = ["Children", "cores", "decode_into"]

_PROGRAM = _decode.__file__
_CHUNK_BYTES = 1 << 20
_CHUNK_FILES = 128
_FEW_FILES, _FEW_BYTES = 400, 1 << 22
"""Less than both is done before a process has started."""


def decode_into(
    file: Path,
    offset: int,
    root: str,
    names: Sequence[str],
    size: int,
    fit: Fit,
    *,
    rows: Sequence[int] | None = None,
    what: What = "image",
    levels: Levels | None = None,
    workers: int | None = None,
    total_bytes: int | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Decodes files to rows of a file, and says of each, in no particular order, what became of it.

    Args:
        file: exists, and has room for all rows.
        offset: where in it the first row begins, in bytes. A row is uint8 `[size, size, 3]`.
        root, names: the files.
        size, fit: see `_decode.decode`.
        rows: for each file the number of its row, or -1 for one that is only to be looked at; one after another if
            None.
        what, levels: see `_decode.decode_rows`.
        workers: number of processes; one for each core if None. With 1, or little to do, it is done in this one.
        total_bytes: of all files, where it is known.

    Yields:
        The number of the file, and its outcome; see `_decode.decode_rows`.

    Raises:
        OSError: the rows cannot be written.
    """
    step = max(1, min(_CHUNK_FILES, _CHUNK_BYTES // (size * size * 3)))
    places = list(range(len(names)) if rows is None else rows)
    chunks = [
        (start, places[start : start + step], names[start : start + step]) for start in range(0, len(names), step)
    ]
    if workers is None:
        few = len(names) <= _FEW_FILES and (total_bytes or 0) <= _FEW_BYTES
        workers = 1 if few else cores()
    workers = min(workers, len(chunks))
    setting = {"file": os.fspath(file), "offset": offset, "size": size, "fit": fit, "what": what}
    setting["levels"] = {kind: list(ends) for kind, ends in (levels or {}).items()}
    if workers <= 1:
        for chunk in chunks:
            yield from _here(setting, root, *chunk)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="repertoire-decode") as pool:
        children = Children(setting, root)
        with children:
            for outcomes in pool.map(children.decode, *zip(*chunks, strict=True)):
                yield from outcomes


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(
    setting: dict[str, Any], root: str, start: int, rows: Sequence[int], names: Sequence[str]
) -> list[tuple[int, dict[str, Any]]]:
    """Decodes in this process."""
    descriptor = os.open(setting["file"], os.O_WRONLY)
    try:
        outcomes = _decode.decode_to(descriptor, setting, rows, [os.path.join(root, name) for name in names])
    finally:
        os.close(descriptor)
    return list(enumerate(outcomes, start))


class Children:
    """A decoding process for each thread that asks.

    Args:
        setting: the first line that each is told; see `_decode`.
        root: what the names of files are relative to.
        inherited: numbers of open files that the processes are to have, too.
    """

    def __init__(self, setting: dict[str, Any], root: str, inherited: Sequence[int] = ()) -> None:
        self._setting = setting
        self._root = root
        self._inherited = inherited
        self._local = threading.local()
        self._running: list[subprocess.Popen[str]] = []
        self._closed = False

    def __enter__(self) -> Children:
        return self

    def close(self) -> None:
        """Ends all processes, when they have done what they were asked."""
        self.__exit__(None, None, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for process in self._running:
            if error is not None:
                process.kill()
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
        for process in self._running:
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]

    def decode(self, start: int, rows: Sequence[int], names: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
        """What became of these files, which are numbered from `start`."""
        if self._closed:
            return []
        process = self._mine()
        if process is None:
            return _here(self._setting, self._root, start, rows, names)
        answer = self._ask(process, {"rows": rows, "paths": [os.path.join(self._root, name) for name in names]})
        if answer is None and not self._closed:
            # A decoder that crashes takes its process along; find the file, so that it is the only one that is lost.
            self._local.process = None
            if len(names) == 1:
                return [(start, {"reason": "made the decoder crash"})]
            return [
                pair
                for number, (row, name) in enumerate(zip(rows, names, strict=True), start)
                for pair in self.decode(number, [row], [name])
            ]
        if answer is None:
            return []
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]), self._setting["file"])
        return list(enumerate(answer["outcomes"], start))

    def _mine(self) -> subprocess.Popen[str] | None:
        """This thread's process, started if need be; None where processes cannot be started."""
        process: subprocess.Popen[str] | None = getattr(self._local, "process", None)
        if process is None and not getattr(self._local, "impossible", False):
            process = self._start()
            self._local.process, self._local.impossible = process, process is None
        return process

    def _start(self) -> subprocess.Popen[str] | None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        try:
            # Modules are found where this process finds them (-S), and not beside the program (-P). Not of our process
            # group: Ctrl-C is for this process, which then closes the pipe.
            process = subprocess.Popen(
                [sys.executable, "-S", "-P", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                env=environment,
                process_group=0,
                pass_fds=self._inherited,
            )
        except OSError:
            return None
        self._running.append(process)
        if self._closed:  # `__exit__` may have gone through the list already
            process.kill()
        ready = process.stdout.readline() == "ready\n"  # type: ignore[union-attr]
        return process if ready and self._send(process, self._setting) else None

    def _ask(self, process: subprocess.Popen[str], job: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a job, or None if the process has ended."""
        if not self._send(process, job):
            return None
        line = process.stdout.readline()  # type: ignore[union-attr]
        return json.loads(line) if line.endswith("\n") else None

    def _send(self, process: subprocess.Popen[str], message: dict[str, Any]) -> bool:
        try:
            print(json.dumps(message), file=process.stdin, flush=True)
        except OSError:
            return False
        return True
