"""What `repertoire explain` writes, image by image, so that memory does not grow with their number."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from repertoire.cli._options import safe_cell
from repertoire.files import atomic_path, naming

__all__ = ["Index", "MapArchive", "file_stem", "printable"]


def printable(name: object) -> str:
    """A file name as text; bytes that are no UTF-8 are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode()


STEM_BYTES = 70
"""Of a part of a file's name. Three of them, a number and what marks a temporary file stay below the 255 of a disk."""


def file_stem(text: str) -> str:
    """Stem for the name of a file: letters, digits and a few signs; what is too long is cut, and told apart."""
    safe = "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in text)
    encoded = safe.encode("utf-8", "replace")
    if len(encoded) > STEM_BYTES:
        mark = hashlib.blake2b(encoded, digest_size=3).hexdigest()
        safe = f"{encoded[: STEM_BYTES - 7].decode('utf-8', 'ignore')}-{mark}"
    return safe.strip(". ") or "image"


class Index:
    """A CSV file that says which picture came from which image; it appears when it is complete.

    An index that is there already keeps its rows for the pictures that are still there and were not made anew, and all
    of them where no picture was made.
    """

    COLUMNS = ("picture", "image", "explainer", "class", "probability")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._made: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def add(self, picture: str, image: str, explainer: str, name: str, probability: float) -> None:
        if not self._made:
            temporary = self._stack.enter_context(atomic_path(self.path))
            file = open(temporary, "w", encoding="utf-8", newline="")  # noqa: SIM115 - closed by the stack
            self._writer = csv.writer(self._stack.enter_context(file))
            self._writer.writerow(self.COLUMNS)
        self._made.add(picture)
        self._writer.writerow([picture, safe_cell(image), explainer, safe_cell(name), f"{probability:.6f}"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                raise error
            if self._made and self.path.is_file():
                self._keep()

    def _keep(self) -> None:
        """Copies the rows of the index before for the pictures that it alone knows."""
        with open(self.path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != self.COLUMNS:
                return
            for row in rows:
                if row and row[0] not in self._made and (self.path.parent / row[0]).is_file():
                    self._writer.writerow(row)


class MapArchive:
    """An .npz file of maps, which are kept on the disk until their number is known.

    It holds `maps` float32 `[N, E, K, H, W]` of N images, E explainers and K classes, as the explainers gave them: in
    [0, 1], unless they were asked not to normalise. Further `names` `[N]`, `targets` int64 `[N, K]`, `explainers`
    `[E]`, and `classes`, the names of all classes.
    """

    def __init__(self, path: Path, explainers: Sequence[str], classes: Sequence[str]) -> None:
        self.path, self.explainers, self.classes = path, explainers, classes
        self._names: list[str] = []
        self._targets: list[np.ndarray] = []
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the archive, where there must be room for it anyway; /tmp may be memory.
            self._raw: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)
        return self

    def add(self, maps: np.ndarray, names: Sequence[str], targets: np.ndarray) -> None:
        """Maps `[n, E, K, H, W]` of n images."""
        with naming(self.path):
            self._raw.write(np.ascontiguousarray(maps, dtype=np.float32).data)
        self._shape = maps.shape[1:]
        self._names.extend(names)
        self._targets.append(targets)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._names:
                self._write()
        finally:
            self._raw.close()

    def _write(self) -> None:
        arrays = {
            "names": np.array(self._names),
            "targets": np.concatenate(self._targets),
            "explainers": np.array(list(self.explainers)),
            "classes": np.array(list(self.classes)),
        }
        header: dict[str, Any] = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
            "fortran_order": False,
            "shape": (len(self._names), *self._shape),
        }
        with atomic_path(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("maps.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(member, header)
                self._raw.seek(0)
                while block := self._raw.read(2**20):
                    member.write(block)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
