"""What the user points at: files, directories, patterns, lists of files or an image on standard input."""

from __future__ import annotations

import atexit
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repertoire.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from repertoire.train import Run

__all__ = ["Given", "given_inputs", "image_paths", "shown"]

_IMAGES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"8BPS", b"qoif", b"DDS ",
    b"P2\n", b"P3\n", b"P5\n", b"P6\n", b"P5 ", b"P6 ",
)  # fmt: skip
"""How files of images begin."""

_BOM = b"\xef\xbb\xbf"
_piped: set[Path] = set()


def image_paths(arguments: Sequence[str], *, null: bool = False) -> list[Path]:
    """The image files that the arguments name.

    Args:
        arguments: files, directories and patterns; a directory stands for the images anywhere below it. None at all, or
            "-", stands for standard input: a list of files, one a line, or the image itself.
        null: the list is separated by NUL bytes, as `find -print0` writes it, for names with newlines.

    A path that does not exist is kept, and reported with the files that cannot be read.

    Raises:
        DataError: there is no image at all.
    """
    from repertoire.data import find_images

    named: list[str | Path] = []
    for argument in arguments or ("-",):
        named.extend(_standard_input(null) if argument == "-" else [argument])
    paths: list[Path] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            paths.extend(find_images(path))
        elif isinstance(name, str) and glob.has_magic(name) and not path.exists():
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            paths.extend(match for match in matches if match.is_file())
        else:
            paths.append(path)
    if not paths:
        raise DataError("found no images there")
    return paths


def shown(path: Path) -> str:
    """Name of an image in the results."""
    return "-" if path in _piped else str(path)


@dataclass(frozen=True)
class Given:
    """Images that are to be looked at.

    Attributes:
        source: as `Run.stream` takes it.
        names: of each, a path or a name.
        labels: what is true of each, where that is known.
    """

    source: Any
    names: Sequence[Any]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def some(self, index: Sequence[int] | np.ndarray) -> Any:
        """Those at these positions, as `Run.stream` takes them."""
        return self.source.subset(index) if hasattr(self.source, "subset") else [self.source[i] for i in index]

    def name(self, index: int) -> str:
        """Name of one of them in the results."""
        name = self.names[index]
        return shown(name) if isinstance(name, Path) else str(name)


def given_inputs(run: Run, arguments: Sequence[str], *, null: bool) -> Given:
    """Images, a list of labelled ones, or of a run on features a file of these."""
    from repertoire.data import load_feature_set
    from repertoire.train import Labelled

    if run.facts.modality == "features":
        if len(arguments) != 1:
            raise DataError(
                f"{run.directory} was trained on features; name one file of them, .npz or .safetensors, found "
                f"{len(arguments)}"
            )
        vectors = load_feature_set(arguments[0], classes=run.classes)
        known = vectors.kind == run.task.kind and bool(vectors.known.any())
        return Given(vectors, vectors.names, vectors.labels if known else None)
    lists = [name for name in arguments if Path(name).suffix.lower() in (".csv", ".tsv")]
    if not lists:
        paths = image_paths(arguments, null=null)
        return Given(paths, paths)
    if len(arguments) > 1:
        raise DataError(f"{lists[0]} is a list of images; give it alone")
    found = run.samples(lists[0])
    assert isinstance(found, Labelled)
    return Given(found.paths, found.paths, found.labels)


def _standard_input(null: bool) -> Iterable[str | Path]:
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("no images given: name files or directories, or pipe an image or a list of files in")
    data = sys.stdin.buffer.read()
    if _is_image(data):
        folder = Path(tempfile.mkdtemp(prefix="repertoire-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder / "standard-input"
        path.write_bytes(data)
        _piped.add(path)
        return [path]
    if null:
        return [os.fsdecode(name) for name in data.split(b"\0") if name]
    # Lists that were written on Windows begin with a mark and end their lines in two characters.
    lines = data.removeprefix(_BOM).split(b"\n")
    return [os.fsdecode(name) for line in lines if (name := line.removesuffix(b"\r")).strip()]


def _is_image(data: bytes) -> bool:
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    boxed = data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"heic", b"mif1")
    return webp or boxed or data.startswith(_IMAGES)
