"""Where small real data sets are found: a folder of files, an installed package; and what to install where not."""

from __future__ import annotations

import gzip
import importlib.util
import os
import zipfile
from pathlib import Path
from typing import NoReturn

import numpy as np

from repertoire.data._types import Samples
from repertoire.errors import ConfigError, DataError

__all__ = ["arrays", "data_file", "drawn", "idx", "missing", "package_folder", "read_text"]

LEAST = 3
"""Samples of each class that are drawn before others: one for each part."""


def data_file(name: str) -> Path | None:
    """The file of that name in one of the folders that $REPERTOIRE_DATA lists; None where there is none."""
    for folder in os.environ.get("REPERTOIRE_DATA", "").split(os.pathsep):
        path = Path(folder).expanduser() / name if folder else None
        if path is not None and path.exists():
            return path
    return None


def missing(bed: str, files: str, instead: str) -> NoReturn:
    """Says in one line what to install.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"data source {bed!r} is not here: {instead}; or put {files} into a folder that REPERTOIRE_DATA names"
    )


def arrays(bed: str, name: str, instead: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, each read once.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    path = data_file(name)
    if path is None:
        missing(bed, name, instead)
    try:
        with np.load(path, allow_pickle=False) as held:
            return {key: held[key] for key in held.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{name} cannot be read ({error}); get it again") from error


def read_text(bed: str, name: str, instead: str) -> str:
    """The text of a gzipped file.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    path = data_file(name)
    if path is None:
        missing(bed, name, instead)
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{name} cannot be read ({error}); get it again") from error


def idx(path: Path) -> np.ndarray:
    """The bytes of an IDX file, gzipped or not: uint8 of the shape that its head says.

    Raises:
        DataError: it is no such file.
    """
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    if data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path.name} is not an IDX file of bytes")
    shape = np.frombuffer(data, ">u4", data[3], 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if len(values) != np.prod(shape):
        raise DataError(f"{path.name} holds {len(values)} values, and its head says {'x'.join(map(str, shape))}")
    return values.reshape(shape)


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def drawn(samples: Samples, count: int | None, seed: int, option: str = "count") -> Samples:
    """So many of the samples, drawn by the seed, with three of every class that has as many; all without a number.

    Raises:
        ConfigError: there are not as many.
    """
    if count is None:
        return samples
    if not 0 < count <= len(samples):
        raise ConfigError(f"{option} must be from 1 to {len(samples)}, found {count}")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(samples))
    if samples.kind == "classes":
        # The rank of each sample among those of its class, in the order drawn.
        labels = samples.labels[order]
        by_class = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[by_class], labels[by_class])
        rank = np.empty(len(order), np.int64)
        rank[by_class] = np.arange(len(order)) - starts
        order = np.concatenate([order[rank < LEAST], order[rank >= LEAST]])
    return samples.subset(np.sort(order[:count]))
