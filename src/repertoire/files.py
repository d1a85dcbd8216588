"""Writing files so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repertoire.errors import RunError, option

__all__ = ["atomic_path", "lock_directory", "sync", "write_bytes", "write_json", "write_text"]

_NUMBERS = re.compile(r"\[\n([-+.,\deE\s]+)\n\s*\]")
"""A list of numbers that the indented form of JSON writes a line each."""


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `target` that becomes `target` when the block ends well, and vanishes when it does not.

    The data is on disk before the name changes (fsync, then rename, then fsync of the directory), so after a power cut
    the file is either the old one or the new one.

    Raises:
        RunError: the disk is full; whatever stood at `target` still does.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(
                f"no space left on the disk to write {target}; free some and resume: nothing is lost"
            ) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_bytes(target: str | os.PathLike[str], data: bytes) -> None:
    """Writes a whole file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Writes a whole UTF-8 file atomically; a file name with undecodable bytes in the text is escaped, not an error."""
    write_bytes(target, text.encode("utf-8", "backslashreplace"))


def write_json(target: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON atomically: indented, keys in order, a list of numbers on one line, non-finite numbers refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # No string holds a line break as it is, so what matches is a list.
    write_text(target, _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Holds a directory for this process; the operating system lets go of it however the process ends.

    Raises:
        RunError: another process holds it.
    """
    import fcntl

    directory.mkdir(parents=True, exist_ok=True)
    try:
        # Through no link, and without emptying what is there: the directory may be one that others write to.
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise RunError(f"{directory}/.lock is a symbolic link, which nothing of ours makes; remove it") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise RunError(
                f"another process is writing to {directory}; wait for it, or choose another {option('out')}"
            ) from error
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
