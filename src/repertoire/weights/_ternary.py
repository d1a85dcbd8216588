"""ComPEFT: task vectors of which only signs are kept, in a fraction of a bit for each weight."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from repertoire.errors import CheckpointError
from repertoire.ranges import Between, Positive, checked
from repertoire.weights._rice import decode, encode, rice_bits
from repertoire.weights._state import State
from repertoire.weights._stored import Stored, form
from repertoire.weights._task_vector import TaskVector

__all__ = ["TernaryVector", "ternary", "ternary_form"]


class TernaryVector(TaskVector):
    """A task vector of which each entry is 0 or, by tensor or for all of them, one size with a sign.

    Made by :func:`ternary` or :meth:`TaskVector.compress`, and read from a file. It is a task vector like any other: it
    can be added to a base, and to other vectors.

    Args:
        stored: what :func:`ternary` has made, of form "ternary".

    Attributes:
        stored: what is written.

    Raises:
        CheckpointError: `stored` is of another form, or its codes are damaged.

    Example:
        >>> import torch
        >>> from repertoire.weights import TaskVector
        >>> small = TaskVector({"w": torch.tensor([4.0, 0.1, -3.0, 0.2])}).compress(density=0.5, alpha=2.0)
        >>> small["w"]
        tensor([ 4.9626,  0.0000, -4.9626,  0.0000])
    """

    def __init__(self, stored: Stored) -> None:
        if stored.form != "ternary":
            raise CheckpointError(f"a ternary vector is stored in the form 'ternary', found {stored.form!r}")
        decoded = _Decoded(stored.tensors, **stored.settings)
        self.stored = stored
        self._terms = [(1.0, decoded)]
        self._names = dict.fromkeys(decoded)

    @property
    def bytes(self) -> int:
        """Size of the file that `save` writes: positions, signs, sizes, names and shapes."""
        return self.stored.bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file, atomically.

        Raises:
            RunError: the disk is full; whatever stood at `path` still does.
        """
        self.stored.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TernaryVector:
        """Reads what `save` wrote.

        Raises:
            ConfigError: there is no such file.
            CheckpointError: it holds something else, or was cut short.
        """
        return cls(Stored.load(path))

    def __repr__(self) -> str:
        return f"TernaryVector({len(self)} tensors, {self.bytes} bytes)"


class _Decoded(Mapping[str, Tensor]):
    """The tensors of a ternary vector, each made when it is asked for."""

    def __init__(
        self, tensors: Mapping[str, Tensor], shapes: Mapping[str, Any], count: int, bits: int, base: str | None = None
    ) -> None:
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        ends = np.cumsum([0, *(int(np.prod(shape, dtype=np.int64)) for shape in self._shapes.values())])
        try:
            gaps = decode(tensors["high"].numpy(), tensors["low"].numpy(), count, bits)
            signs = np.unpackbits(tensors["signs"].numpy())[:count]
            sizes = tensors["sizes"]
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"the codes of the ternary vector are damaged: {error}") from None
        positions = np.cumsum(gaps + 1) - 1
        if len(signs) < count or len(sizes) not in (1, len(self._shapes)) or (count and positions[-1] >= ends[-1]):
            raise CheckpointError("the codes of the ternary vector are damaged: they do not fit the shapes")
        self._positions, self._signs, self._sizes = positions, signs, sizes
        self._places = {name: (number, *ends[number : number + 2]) for number, name in enumerate(self._shapes)}

    def __getitem__(self, name: str) -> Tensor:
        number, start, end = self._places[name]
        first, last = np.searchsorted(self._positions, (start, end))
        flat = torch.zeros(int(end - start))
        size = float(self._sizes[number if len(self._sizes) > 1 else 0])
        signs = torch.from_numpy(1.0 - 2.0 * self._signs[first:last]).float()
        flat[torch.from_numpy(self._positions[first:last] - start)] = size * signs
        return flat.view(self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@checked
@torch.no_grad()
def ternary(
    vector: Mapping[str, Tensor],
    *,
    density: Annotated[float, Between(0, 1, "(]")] = 0.05,
    alpha: Annotated[float, Positive] = 1.0,
    by_tensor: bool = False,
    base: State | None = None,
) -> TernaryVector:
    r"""ComPEFT: the largest changes of fine-tuning, of which only the signs are kept and one size for all.

    Yadav et al., *ComPEFT: Compression for Communicating Parameter Efficient Updates via Sparsification and
    Quantization* (2023):

    .. math::
        \tilde\tau = \alpha\, \sigma(\tau)\, \operatorname{sgn}(\tau) \odot [\,|\tau| \geq s\,]

    where s is the magnitude of the last entry that is kept, and :math:`\sigma` the standard deviation of all entries.
    Nothing is trained. The positions are stored as Golomb-Rice codes of the gaps between them, and the signs in a bit
    each: about 0.34 bits for each weight at a density of 0.05, where 32 were before.

    The size is meant to be chosen on validation data: the authors try alpha in 0.5, 1, 2, 3, 4, 5, 6, 8 and 10 and a
    density of 0.05, 0.1, 0.2, 0.3 and 0.5.

    Args:
        vector: what was added to the weights, a `TaskVector` or another mapping of name to tensor. One tensor is read
            at a time; the magnitudes of all are held in float32.
        density: share of the entries that is kept, rounded down, and one at least. Entries as large as the last one
            are kept, too, and zeros never.
        alpha: size of the entries that are kept, in standard deviations.
        by_tensor: whether each tensor has a density and a standard deviation of its own; the authors take all tensors
            together (default).
        base: the weights to which the vector will be added, where it is stored for a network: which weights these
            are is then checked when the network is opened.

    Returns:
        The vector, which can be saved, read and added to the base.

    Raises:
        ConfigError: an option lies outside its range.

    Example:
        >>> import torch
        >>> from repertoire.weights import ternary
        >>> small = ternary({"w": torch.randn(10**6, generator=torch.Generator().manual_seed(0))}, density=0.05)
        >>> small.bytes * 8 / 10**6 < 0.35
        True
    """
    names = list(vector)
    flat = [vector[name].detach().reshape(-1).cpu() for name in names]
    sizes = [_moments([part]) for part in flat] if by_tensor else [_moments(flat)]
    bounds = [_bound([part], density) for part in flat] if by_tensor else [_bound(flat, density)] * len(flat)
    positions, signs, start = [], [], 0
    for part, bound in zip(flat, bounds, strict=True):
        kept = ((part.abs() >= bound) & (part != 0)).nonzero().flatten()
        positions.append(kept.numpy() + start)
        signs.append((part[kept] < 0).numpy())
        start += len(part)
    where = np.concatenate(positions) if positions else np.zeros(0, np.int64)
    gaps = np.diff(where, prepend=-1) - 1
    bits = rice_bits(gaps)
    high, low = encode(gaps, bits)
    tensors = {
        "high": torch.from_numpy(high),
        "low": torch.from_numpy(low),
        "signs": torch.from_numpy(np.packbits(np.concatenate(signs) if signs else np.zeros(0, bool))),
        "sizes": torch.tensor([alpha * size for size in sizes], dtype=torch.float32),
    }
    settings: dict[str, Any] = {
        "shapes": {name: list(vector[name].shape) for name in names},
        "count": len(where),
        "bits": bits,
    }
    if base is not None:
        settings["base"] = digest({name: base[name] for name in names})
    return TernaryVector(Stored("ternary", tensors, settings))


def _bound(parts: list[Tensor], density: float) -> float:
    """The smallest magnitude that is kept."""
    magnitudes = torch.cat([part.abs().float() for part in parts]) if parts else torch.zeros(0)
    if len(magnitudes) == 0 or density == 1:
        return 0.0
    kept = max(1, int(density * len(magnitudes)))
    return float(magnitudes.kthvalue(len(magnitudes) - kept + 1).values)


def _moments(parts: list[Tensor]) -> float:
    """The standard deviation of all entries."""
    count = max(1, sum(len(part) for part in parts))
    mean = sum(float(part.double().sum()) for part in parts) / count
    return float((sum(float((part.double() - mean).square().sum()) for part in parts) / count) ** 0.5)


def digest(state: Mapping[str, Tensor]) -> str:
    """Which weights they are."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(f"{name} {tuple(state[name].shape)}".encode())
        found.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


@form("ternary")
def ternary_form(model: nn.Module, tensors: Mapping[str, Tensor], **settings: Any) -> nn.Module:
    """A ternary vector, added to the weights that the network has, which must be those that were fine-tuned."""
    vector = TernaryVector(Stored("ternary", tensors, settings))
    state = model.state_dict()
    expected = settings.get("base")
    present = {name: state[name] for name in vector if name in state}
    if expected is not None and digest(present) != expected:
        raise CheckpointError("the network must hold the weights that were fine-tuned, and it holds others")
    model.load_state_dict(vector.add_to(state))
    return model
