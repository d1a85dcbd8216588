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

from repertoire.errors import RunError, ascii_path, option

__all__ = [
    "atomic_path",
    "check_place",
    "lock_directory",
    "naming",
    "sync",
    "write_bytes",
    "write_json",
    "write_text",
]

_NUMBERS = re.compile(r"\[\n([-+.,\deE\s]+)\n\s*\]")
"""A list of numbers that the indented form of JSON writes a line each."""


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `target` that becomes `target` when the block ends well, and vanishes when it does not.

    The data is on disk before the name changes (fsync, then rename, then fsync of the directory), so after a power cut
    the file is either the old one or the new one.

    Raises:
        RunError: the disk is full; whatever stood at `target` still does.
        OSError: it cannot be written there. It names `target`, and not the temporary file.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        with naming(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
            os.close(handle)
            temporary = Path(name)
            yield temporary
            sync(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
            sync(target.parent)
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


@contextlib.contextmanager
def naming(target: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file that a block writes in the errors of the system, which knows a temporary name, or none at all.

    Raises:
        RunError: the disk is full.
        OSError: the system's error, about `target`.
    """
    target = Path(target)
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(
                f"no space left on the disk to write {target}; free some and resume: nothing is lost"
            ) from error
        if error.errno is None or isinstance(error, ConnectionError) or not _unnamed(error, target):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _unnamed(error: OSError, target: Path) -> bool:
    """Whether an error of the system names no file, or one that stands for `target` while it is written."""
    if not isinstance(error.filename, str | bytes):
        return error.filename is None
    named = Path(os.fsdecode(error.filename))
    return named.parent == target.parent and named.name.startswith(f".{target.name}.")


def check_place(target: str | os.PathLike[str], what: str, *, folder: bool = False) -> Path:
    """Refuses a place to which nothing can be written, before the work is done whose result goes there.

    Nothing is made, and nothing that is there is touched.

    Args:
        target: a file, or a folder, that is there or not.
        what: which option or argument names it, for the message.
        folder: whether it is to be a folder.

    Returns:
        The place.

    Raises:
        RunError: says what stands in the way.

    Example:
        >>> check_place("report.html", "out")
        PosixPath('report.html')
    """
    text = os.fspath(target)
    if not text.strip():
        raise RunError(f"{what} is empty: name a {'folder' if folder else 'file'}, or leave it out")
    path, shown = Path(text), ascii_path(text)
    if not folder and path.is_dir():
        raise RunError(f"{what} is {shown}, which is a directory: name a file in it")
    if folder and path.exists() and not path.is_dir():
        raise RunError(f"{what} is {shown}, which is a file: name a folder")
    place = path if folder else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise RunError(f"{what} is {shown}, and {ascii_path(str(place))} is no folder: name another place")
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise RunError(
            f"{what} is {shown}, and nothing can be written to {ascii_path(str(place))} ({error.strerror or error}): "
            "name another place"
        ) from None
    return path


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
