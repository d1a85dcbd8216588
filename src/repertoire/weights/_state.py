"""States: mappings of name to tensor, in memory or read from a file tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError, ascii_path
from repertoire.files import atomic_path

__all__ = ["LazyState", "State", "accumulator", "check_alike", "is_averaged", "save_state"]

State = Mapping[str, Tensor]
"""What `model.state_dict()` gives, or a `LazyState`."""


class LazyState(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for and not kept.

    Args:
        path: a .safetensors file.

    Raises:
        ConfigError: there is no such file.
        CheckpointError: it is no safetensors file, or was cut short.

    Example:
        >>> import os, tempfile
        >>> import torch
        >>> from repertoire.weights import LazyState, save_state
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "weights.safetensors")
        ...     save_state({"weight": torch.eye(2)}, path)
        ...     state = LazyState(path)
        ...     list(state), state["weight"].shape
        (['weight'], torch.Size([2, 2]))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        shown = ascii_path(str(path))
        if not self.path.is_file():
            raise ConfigError(f"there is no file {shown}")
        try:
            self._file = safe_open(str(path), framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{shown} cannot be read as safetensors: {error}") from error
        self._names = dict.fromkeys(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._file.get_slice(name).get_shape())

    def __repr__(self) -> str:
        return f"LazyState({str(self.path)!r})"


def save_state(state: State, path: str | os.PathLike[str]) -> None:
    """Writes a state as a safetensors file, atomically; missing directories are made.

    Tensors that share memory, as tied weights do, are each written in full.

    Args:
        state: name to tensor, on any device.
        path: the file.

    Raises:
        RunError: the disk is full; whatever stood at `path` still does.
    """
    from safetensors.torch import save_file

    stored: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() != tensor.nbytes:  # safetensors refuses both
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        stored[name] = tensor
    with atomic_path(path) as temporary:
        save_file(stored, temporary, metadata={"format": "pt"})


def is_averaged(tensor: Tensor) -> bool:
    """True if a mean of such tensors makes sense: not of counters, masks and indices."""
    return tensor.is_floating_point() or tensor.is_complex()


def check_alike(states: Sequence[State]) -> None:
    """Raises unless the states have the same names and shapes; all that differ are named.

    Raises:
        ConfigError: there are no states.
        CheckpointError: they are of different models.
    """
    if not states:
        raise ConfigError("states is empty; there is nothing to merge")
    first = {name: _shape(states[0], name) for name in states[0]}
    problems = []
    for number, state in enumerate(states[1:], start=1):
        shapes = {name: _shape(state, name) for name in state}
        missing, extra = first.keys() - shapes.keys(), shapes.keys() - first.keys()
        other = [
            f"{name} {list(shapes[name])}, expected {list(shape)}"
            for name, shape in first.items()
            if name in shapes and shapes[name] != shape
        ]
        for what, names in (("lacks", sorted(missing)), ("also has", sorted(extra)), ("has other shapes:", other)):
            if names:
                problems.append(f"state {number} {what} {_few(names)}")
    if problems:
        raise CheckpointError(f"the states are not of one architecture, compared with state 0: {'; '.join(problems)}")


def _shape(state: State, name: str) -> tuple[int, ...]:
    return state.shape(name) if isinstance(state, LazyState) else tuple(state[name].shape)


def _few(items: Iterable[str]) -> str:
    listed = list(items)
    return ", ".join(listed[:8]) + (f", and {len(listed) - 8} more" if len(listed) > 8 else "")


def accumulator(tensor: Tensor) -> torch.dtype:
    """The dtype to add such tensors in: wide enough that a mean is rounded once, where the device has it."""
    if tensor.is_complex():
        return torch.complex128
    return torch.float32 if tensor.device.type == "mps" else torch.float64
