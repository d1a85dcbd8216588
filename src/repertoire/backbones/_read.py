"""Reading files of weights that somebody else wrote: tensors by name, and never any code."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError, ascii_path

__all__ = ["WEIGHT_FILES", "find_file", "read_tensors", "sha256_of"]

#: Names of files of weights as programs leave them in a directory, the best first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

#: Bytes of the longest header that the safetensors format allows.
_LONGEST_HEADER = 100_000_000

_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")


def find_file(path: Path) -> Path:
    """The path itself, if there is such a file.

    Raises:
        ConfigError: there is none; names the nearest files beside it.
    """
    if path.is_file():
        return path
    shown = ascii_path(str(path))
    try:
        beside = sorted(os.listdir(path.parent))
    except OSError:
        raise ConfigError(
            f"weights: there is no file {shown}, and no directory {ascii_path(str(path.parent))}"
        ) from None
    near = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.5)
    if not near:
        near = [name for name in beside if name.endswith((".safetensors", ".pth", ".pt"))][:3]
    hint = f"; there are {', '.join(map(ascii_path, near))}" if near else ""
    raise ConfigError(f"weights: there is no file {shown}{hint}")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .pth, .pt or .bin file, nested ones under dotted names.

    What the file is follows from its first bytes, not from its name.

    Raises:
        CheckpointError: it is damaged, or no such file, or cannot be read without running code from it.
    """
    shown = ascii_path(str(path))
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CheckpointError(f"{shown} cannot be read: {error.strerror or error}") from error
    pickled = start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"
    if pickled and path.suffix != ".safetensors":
        tensors = _read_pickle(path, shown, zipped=start[:2] == b"PK")
    else:
        tensors = _read_safetensors(path, shown, start, size)
    if not tensors:
        raise CheckpointError(f"{shown} holds no tensors")
    return tensors


def _read_safetensors(path: Path, shown: str, start: bytes, size: int) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    # Before anything believes the header: its length is a number that the file states about itself.
    header = int.from_bytes(start, "little")
    if len(start) < 8 or header > min(size - 8, _LONGEST_HEADER):
        raise CheckpointError(
            f"{shown} cannot be read as safetensors: it is {size} bytes long and states a header of {header} bytes; it "
            "is cut short, or another kind of file (PyTorch's own end in .pth or .pt)"
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{shown} cannot be read as safetensors: {error}") from error


def _read_pickle(path: Path, shown: str, *, zipped: bool) -> dict[str, Tensor]:
    try:
        # Only tensors and plain containers are made; whatever else the file asks for is an error before it exists.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles; what matters of it becomes an error
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True if zipped else None)
    except Exception as error:  # of whatever kind the bytes of a stranger provoke
        text = str(error)
        if "TorchScript" in text:
            raise CheckpointError(
                f"{shown} is a TorchScript program and not weights; save its state_dict() instead"
            ) from None
        unsafe = _FORBIDDEN.search(text)
        if unsafe or "weights_only" in text:
            wanted = f"{unsafe[1]}, which is code" if unsafe else "more than tensors"
            raise CheckpointError(
                f"{shown} is refused: reading it takes {wanted}, and a pickle may run whatever it likes. Where the "
                "file is trusted, load it there and save its state_dict() with safetensors.torch.save_file"
            ) from None
        first = text.strip().split("\n", 1)[0]
        raise CheckpointError(
            f"{shown} cannot be read as weights of PyTorch: {first or type(error).__name__}"
        ) from error
    tensors: dict[str, Tensor] = {}
    _flatten(content, "", tensors)
    return tensors


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        tensors[name or "tensor"] = value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(item, f"{name}.{key}" if name else str(key), tensors)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _flatten(item, f"{name}.{index}" if name else str(index), tensors)
