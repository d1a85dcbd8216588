"""What the user points at: files, directories, lists of files on standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from repertoire.errors import DataError

__all__ = ["image_paths"]


def image_paths(arguments: Sequence[str], *, null: bool = False) -> list[Path]:
    """The image files that the arguments name.

    Args:
        arguments: files and directories; a directory stands for the images anywhere below it. None at all, or "-",
            stands for a list of files on standard input, one a line.
        null: the list is separated by NUL bytes, as `find -print0` writes it, for names with newlines.

    A path that does not exist is kept, and reported with the files that cannot be read.

    Raises:
        DataError: there is no image at all.
    """
    from repertoire.data import find_images

    named: Iterable[str] = arguments
    if not arguments or list(arguments) == ["-"]:
        if sys.stdin.isatty():
            raise DataError("no images given: name files or directories, or pipe a list of files in")
        named = [os.fsdecode(name) for name in sys.stdin.buffer.read().split(b"\0" if null else b"\n") if name.strip()]
    paths: list[Path] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            paths.extend(find_images(path))
        else:
            paths.append(path)
    if not paths:
        raise DataError("found no images there")
    return paths
