"""Files of arrays, `.npz` and `.safetensors`: read without unpickling, checked before memory is taken, and mapped
instead of read where they are large and not compressed."""

from __future__ import annotations

import json
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from repertoire.errors import DataError, ascii_path

__all__ = ["Archive", "open_archive"]

_MAP_BYTES = 1 << 24
"""Arrays that are larger are mapped, where they can be."""

_DAMAGE = (
    *(OSError, EOFError, ValueError, OverflowError, KeyError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""What reading a damaged archive may raise: `zipfile` takes the numbers in it for what they say."""

_MAX_HEADER = 100_000_000
_TENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
_TENSORS |= {"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


class Archive:
    """Arrays by name, read when they are asked for.

    Attributes:
        path: the file.
        texts: what a `.safetensors` file says in words: lists of text by name.
    """

    def __init__(
        self, path: Path, readers: dict[str, Callable[[], np.ndarray]], texts: dict[str, list[str]] | None = None
    ) -> None:
        self.path = path
        self.texts = texts or {}
        self._readers = readers

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    @property
    def names(self) -> list[str]:
        """Names of the arrays, sorted."""
        return sorted(self._readers)

    def read(self, name: str) -> np.ndarray:
        """An array, or a read-only memory map of it.

        Raises:
            DataError: it is damaged, does not fit into memory, or would have to be unpickled.
        """
        where = ascii_path(str(self.path))
        try:
            return self._readers[name]()
        except MemoryError:
            raise DataError(f"{where}: {name} does not fit into memory") from None
        except _DAMAGE as error:
            raise DataError(f"{where} is not a readable {self.path.suffix} file: {name}: {error}") from None


def open_archive(path: Path) -> Archive:
    """The arrays of a file.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise DataError(f"there is no file {ascii_path(str(path))}")
    return _open_safetensors(path) if path.suffix.lower() == ".safetensors" else _open_npz(path)


def _open_npz(path: Path) -> Archive:
    where = ascii_path(str(path))
    try:
        with open(path, "rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise DataError(f"{where} is a single array; save images and labels together with np.savez")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except _DAMAGE as error:
        raise DataError(f"{where} is not a readable .npz file: {error}") from None

    def reader(name: str, info: zipfile.ZipInfo) -> Callable[[], np.ndarray]:
        return lambda: _read_npy(path, name, info)

    return Archive(path, {name: reader(name, info) for name, info in members.items()})


def _read_npy(path: Path, name: str, info: zipfile.ZipInfo) -> np.ndarray:
    with zipfile.ZipFile(path) as archive, archive.open(info) as member:
        shape, fortran, dtype = _header(member, name, path)
        start, needed = member.tell(), math.prod(shape) * dtype.itemsize
        if needed != info.file_size - start:
            # Told by the file's own length, so that a header alone cannot ask for memory.
            raise ValueError(
                f"its header says {list(shape)} of {dtype}, {needed:,} bytes, and {info.file_size - start:,} follow"
            )
        if needed >= _MAP_BYTES and info.compress_type == zipfile.ZIP_STORED:
            return _mapped(path, _data_start(path, info) + start, shape, dtype, "F" if fortran else "C")
        values = np.frombuffer(member.read(needed), dtype=dtype)
        if member.read(1) or values.size != math.prod(shape):  # reading to the end checks the checksum
            raise ValueError("it is cut short")
    return values.reshape(shape, order="F" if fortran else "C").copy()


def _header(member: IO[bytes], name: str, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise DataError(
            f"{ascii_path(str(path))}: {name} is an array of Python objects, which reading would have to unpickle; "
            "save it as numbers, or as text with dtype str"
        )
    return shape, fortran, dtype


def _data_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where in the file the bytes of a member begin."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)
        if local[:4] != b"PK\x03\x04":
            raise ValueError("its place in the file is wrong")
        name, further = struct.unpack("<2H", local[26:30])
    return info.header_offset + 30 + name + further


def _mapped(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, order: str = "C") -> np.ndarray:
    if offset + math.prod(shape) * dtype.itemsize > os.path.getsize(path):
        raise ValueError("it is cut short")
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]


def _open_safetensors(path: Path) -> Archive:
    where = ascii_path(str(path))
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(_MAX_HEADER, os.path.getsize(path) - 8):
                raise ValueError(f"its header says that it has {length:,} bytes")
            header = json.loads(file.read(length))
        said = header.pop("__metadata__", {})
        readers = {name: _tensor(path, 8 + length, entry) for name, entry in header.items()}
        texts = {name: found for name, text in said.items() if (found := _texts(text)) is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise DataError(f"{where} is not a readable .safetensors file: {error}") from None
    return Archive(path, readers, texts)


def _tensor(path: Path, start: int, entry: dict) -> Callable[[], np.ndarray]:
    kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(value) is int and value >= 0 for value in (*shape, begin, end)):
        raise ValueError("a shape or place is no whole number")

    def read() -> np.ndarray:
        if kind not in _TENSORS:
            raise ValueError(f"it is {kind}, which cannot be used; save it as F16 or F32")
        dtype = np.dtype(_TENSORS[kind])
        if math.prod(shape) * dtype.itemsize != end - begin:
            raise ValueError(f"its shape is {list(shape)}, and it has {end - begin:,} bytes")
        if end - begin >= _MAP_BYTES:
            return _mapped(path, start + begin, shape, dtype)
        with open(path, "rb") as file:
            file.seek(start + begin)
            data = file.read(end - begin)
        if len(data) != end - begin:
            raise ValueError("it is cut short")
        return np.frombuffer(data, dtype=dtype).reshape(shape).copy()

    return read


def _texts(text: str) -> list[str] | None:
    """A list of text that metadata holds as JSON."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(value, str) for value in found) else None
