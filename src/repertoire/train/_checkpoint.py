"""Checkpoints: everything a run needs to go on, in one safetensors file that cannot be half-written unnoticed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from repertoire.errors import CheckpointError, ascii_path
from repertoire.files import write_bytes

__all__ = ["Checkpoint", "checkpoints", "flatten", "latest", "load", "prune", "save", "step_path", "sweep", "unflatten"]

FORMAT = 1
_STEP = re.compile(r"step-(\d{9})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and a JSON-able remainder."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix` and a dot, without it."""
        return {name[len(prefix) + 1 :]: value for name, value in self.tensors.items() if name.startswith(prefix + ".")}


def flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Moves the tensors of a nested structure into `tensors` and gives the rest, with their names in their places.

    >>> import torch
    >>> tensors = {}
    >>> flatten({"state": {0: {"momentum": torch.ones(2)}}, "lr": 0.1}, "sgd", tensors)
    {'dict': [['state', {'dict': [[0, {'dict': [['momentum', {'tensor': 'sgd.state.0.momentum'}]]}]]}], ['lr', 0.1]]}
    >>> list(tensors)
    ['sgd.state.0.momentum']
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, flatten(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [flatten(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def unflatten(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undoes `flatten`; tuples come back as lists."""
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unflatten(item, tensors) for key, item in content}
    return [unflatten(item, tensors) for item in content]


def save(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Writes a checkpoint atomically.

    Raises:
        RunError: the disk is full; what was there before still is.
    """
    # Copies, because safetensors refuses tensors that share memory, and tied weights do.
    stored = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(values)
    metadata = {"format": str(FORMAT), "values": text, "digest": _digest(stored, text)}
    # Written by us and not by safetensors, which reports a full disk as an error of its own.
    write_bytes(path, serialise(stored, metadata))


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU.

    Raises:
        CheckpointError: it is missing, cut short, altered, or written by a newer version.
    """
    shown = ascii_path(str(path))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {shown}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {shown} is damaged ({error})") from None
    if not {"format", "values", "digest"} <= metadata.keys():
        raise CheckpointError(f"{shown} is not a checkpoint of Repertoire")
    if not metadata["format"].isdecimal():
        raise CheckpointError(f"the checkpoint {shown} is damaged (its format is {metadata['format'][:20]!r})")
    if int(metadata["format"]) > FORMAT:
        raise CheckpointError(
            f"the checkpoint {shown} was written by a newer version of Repertoire; upgrade to read it"
        )
    if metadata["digest"] != _digest(tensors, metadata["values"]):
        raise CheckpointError(f"the checkpoint {shown} is damaged (its contents do not match their digest)")
    try:
        values = json.loads(metadata["values"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint {shown} is damaged ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"the checkpoint {shown} is damaged (its values have no names)")
    return Checkpoint(tensors, values)


def step_path(directory: Path, step: int) -> Path:
    """Path of the checkpoint after `step` steps."""
    return directory / f"step-{step:09d}.safetensors"


def checkpoints(directory: Path) -> list[Path]:
    """The step checkpoints of a directory, newest first."""
    found = [path for path in directory.glob("step-*.safetensors") if _STEP.fullmatch(path.name)]
    return sorted(found, reverse=True)


def step_of(path: Path) -> int:
    """The number of steps after which a step checkpoint was written."""
    return int(path.name.removeprefix("step-").removesuffix(".safetensors"))


def latest(directory: Path) -> tuple[Path, Checkpoint, list[str]]:
    """The newest checkpoint that is whole, and a complaint for each newer one that is not.

    Raises:
        CheckpointError: there is none.
    """
    complaints: list[str] = []
    for path in checkpoints(directory):
        try:
            return path, load(path), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    raise CheckpointError("; ".join([f"{ascii_path(str(directory))} has no checkpoint to go on from", *complaints]))


def prune(directory: Path, keep: int) -> None:
    """Deletes all step checkpoints but the newest `keep`."""
    for path in checkpoints(directory)[keep:]:
        path.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Deletes what a process that was killed while writing left half-written."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}:{value.dtype}:{list(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
