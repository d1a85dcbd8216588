"""Finding the images in a folder: by what they are not called, since what a file holds decides only when it is read."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from repertoire.data._decode import plain_reason, signature
from repertoire.errors import DataError, Unreadable, ascii_path

__all__ = ["Tree", "find_images", "passed_over", "walk"]

_NO_IMAGE = """
.7z .aac .arrow .avi .bat .bz2 .c .cfg .ckpt .cpp .css .csv .db .dll .doc .docx .exe .feather .flac .gz .h .h5 .hdf5
.htm .html .ini .ipynb .js .json .jsonl .lock .log .mat .md .mkv .mov .mp3 .mp4 .ndjson .npy .npz .odt .ogg .onnx
.parquet .pdf .pickle .pkl .ppt .pptx .pt .pth .py .rar .rst .safetensors .sh .so .sqlite .tar .tgz .toml .tsv .txt
.wav .webm .xls .xlsx .xml .xz .yaml .yml .zip
"""
"""Extensions of files that nobody takes for an image; all others are opened, whatever they are called."""

_IGNORED = frozenset(_NO_IMAGE.split())
_LEFT_BY_SYSTEMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "__macosx", "icon\r", "lost+found"}
    | {"$recycle.bin", "recycler", "recycled", "system volume information", "found.000"}
    | {"network trash folder", "temporary items", "thevolumesettingsfolder"}
    | {"@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "@sharebin"}
)
"""Thumbnails, waste and notes of operating systems and of network storage, in lower case."""


@dataclass
class Tree:
    """Files below a folder.

    Attributes:
        files: paths relative to the folder, with "/" between the parts, sorted by code point.
        bytes: length of all of them together.
        ignored: how many files were passed over, by extension.
        empty: the folders without anything in them.
        failures: directories and links that cannot be followed.
    """

    files: list[str] = field(default_factory=list)
    bytes: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    failures: list[Unreadable] = field(default_factory=list)
    signatures: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Of each file whose state could be asked; see `_decode.signature`."""

    def note(self) -> str | None:
        """Note on what was passed over, or None."""
        sentences = []
        if self.empty:
            sentences.append(f"Empty folders: {', '.join(ascii_path(name) for name in sorted(self.empty))}.")
        if self.ignored:
            sentences.append(self._ignored_note())
        return " ".join(sentences) or None

    def _ignored_note(self) -> str:
        kinds = ", ".join(f"{count} {ascii_path(kind)}" for kind, count in sorted(self.ignored.items()))
        total = self.ignored.total()
        return f"{total} {'file' if total == 1 else 'files'} not taken for images: {kinds}."


def walk(root: str | os.PathLike[str]) -> Tree:
    """All files below a folder that may be images. Links are followed, those that lead round in a circle once.

    Raises:
        DataError: the folder does not exist or cannot be listed.
    """
    tree = Tree()
    root = os.fspath(root)
    try:
        status = os.stat(root)
        if not stat.S_ISDIR(status.st_mode):
            raise DataError(f"{ascii_path(root)} is not a folder")
        os.listdir(root)
    except OSError as error:
        raise DataError(f"the folder {ascii_path(root)} {plain_reason(error)}") from None
    _visit(tree, root, "", _identities(root))
    tree.files.sort()
    return tree


def _identities(root: str) -> frozenset[tuple[int, int]]:
    """A folder and all that it lies in: a link to one of them leads round in a circle."""
    found = set()
    path = os.path.realpath(root)
    while True:
        with suppress(OSError):
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
        if (parent := os.path.dirname(path)) == path:
            return frozenset(found)
        path = parent


def _visit(tree: Tree, directory: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
    try:
        with os.scandir(directory) as scan:
            entries = list(scan)
    except OSError as error:
        tree.failures.append(Unreadable(directory, plain_reason(error)))
        return
    if not entries and prefix:
        tree.empty.append(prefix.rstrip("/"))
    for entry in entries:
        if passed_over(entry.name):
            tree.ignored["hidden or left by a system"] += 1
            continue
        name = prefix + entry.name
        try:
            status = entry.stat()
        except OSError:
            # A link to nothing or to itself: found out, and reported with its reason, when it is read.
            if not _is_ignored(tree, entry.name):
                tree.files.append(name)
            continue
        if stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                tree.ignored["links that lead round in a circle"] += 1
            else:
                _visit(tree, entry.path, name + "/", above | {identity})
        elif not _is_ignored(tree, entry.name):
            tree.files.append(name)
            tree.bytes += status.st_size
            tree.signatures[name] = signature(status)


def passed_over(name: str) -> bool:
    """Tells the name of a hidden file or folder, or of one that operating systems and network storage leave behind.

    >>> passed_over("@eaDir"), passed_over(".cache"), passed_over("cat")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def _is_ignored(tree: Tree, name: str) -> bool:
    extension = name[name.rfind(".") :].lower()
    if extension not in _IGNORED:
        return False
    tree.ignored[extension] += 1
    return True


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """The files anywhere below a folder that may be images, sorted. Hidden files and those that clearly are something
    else (.txt, .csv, ...) are left out.

    Raises:
        DataError: the folder, or one below it, cannot be listed.

    Example:
        >>> find_images("photos/")  # doctest: +SKIP
        [PosixPath('photos/cat/1.jpg'), ...]
    """
    tree = walk(folder)
    if tree.failures:
        raise DataError(_unlisted(tree.failures))
    return [Path(folder, name) for name in tree.files]


def _unlisted(failures: Iterable[Unreadable]) -> str:
    return "folders that cannot be listed: " + "; ".join(f"{ascii_path(f.path)} {f.reason}" for f in failures)
