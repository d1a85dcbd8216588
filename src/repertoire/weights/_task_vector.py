"""Task vectors: what fine-tuning added to the weights, as something to add, subtract and scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repertoire.errors import CheckpointError
from repertoire.weights._state import State, is_averaged
from repertoire.weights._wide import check_base, combined

if TYPE_CHECKING:
    from repertoire.weights._ternary import TernaryVector

__all__ = ["TaskVector"]


class TaskVector(Mapping[str, Tensor]):
    r"""What fine-tuning has added to the weights of a network, tensor by tensor.

    Ilharco et al., *Editing Models with Task Arithmetic* (2023): :math:`\tau = \theta_\text{fine} - \theta_0`. Those
    of networks that started from the same weights can be added, subtracted and scaled, and added to those weights.

    Nothing is computed before it is asked for, and nothing is kept: a vector of lazy states, and a sum of such vectors,
    read one tensor of each state at a time. Sums are in float64, of the states themselves, so that the vector of a
    state added to its base is that state, bit for bit.

    Args:
        fine: the weights after fine-tuning; `state_dict()` of a model, or a `LazyState`. Without a base, the difference
            itself.
        base: the weights before. It may have more tensors, such as another head.

    Raises:
        CheckpointError: the base lacks tensors, or has other shapes.

    Example:
        >>> import torch
        >>> from repertoire.weights import TaskVector
        >>> base = {"w": torch.tensor([1.0, 1.0])}
        >>> first, second = (TaskVector({"w": torch.tensor(w)}, base) for w in ([2.0, 1.0], [1.0, 5.0]))
        >>> (0.5 * (first + second))["w"]
        tensor([0.5000, 2.0000])
        >>> (first - second).add_to(base, scale=0.5)
        {'w': tensor([ 1.5000, -1.0000])}
    """

    def __init__(self, fine: State, base: State | None = None) -> None:
        if base is not None:
            check_base(fine, base)
        self._terms: list[tuple[float, State]] = [(1.0, fine)]
        if base is not None:
            self._terms.append((-1.0, base))
        self._names = dict.fromkeys(name for name in fine if is_averaged(fine[name]))

    def __getitem__(self, name: str) -> Tensor:
        """The difference, in the dtype of the state, but no narrower than float32."""
        if name not in self._names:
            raise KeyError(name)
        tensors = [state[name] for _, state in self._terms]
        dtype = torch.promote_types(tensors[0].dtype, torch.float32)
        return combined(tensors, [coefficient for coefficient, _ in self._terms], dtype=dtype)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"TaskVector({len(self)} tensors)"

    def _made(self, terms: list[tuple[float, State]]) -> TaskVector:
        """Of the same tensors, with these terms; those of one state are one term."""
        made = TaskVector.__new__(TaskVector)
        made._names = self._names
        made._terms = []
        for coefficient, state in terms:
            for number, (other, same) in enumerate(made._terms):
                if same is state:
                    made._terms[number] = coefficient + other, state
                    break
            else:
                made._terms.append((coefficient, state))
        return made

    def __add__(self, other: TaskVector) -> TaskVector:
        if not isinstance(other, TaskVector):
            return NotImplemented
        if self._names.keys() != other._names.keys():
            differing = sorted(self._names.keys() ^ other._names.keys())
            raise CheckpointError(f"the task vectors are not of the same tensors; only one has {', '.join(differing)}")
        return self._made([*self._terms, *other._terms])

    def __radd__(self, other: object) -> TaskVector:
        return self if other == 0 else NotImplemented  # what `sum` starts from

    def __mul__(self, scale: float) -> TaskVector:
        return self._made([(scale * coefficient, state) for coefficient, state in self._terms])

    __rmul__ = __mul__

    def __truediv__(self, scale: float) -> TaskVector:
        return self * (1 / scale)

    def __neg__(self) -> TaskVector:
        return self * -1.0

    def __sub__(self, other: TaskVector) -> TaskVector:
        return self + -other

    @torch.no_grad()
    def add_to(self, base: State, scale: float = 1.0) -> dict[str, Tensor]:
        """The weights with the vector added to them, so many times.

        Networks with batch normalisation want :func:`repertoire.weights.refresh_batchnorm` afterwards.

        Args:
            base: the weights to add to; what the vector lacks is taken from them.
            scale: factor of the vector.

        Returns:
            New tensors in the base's order, dtypes and devices.

        Raises:
            CheckpointError: the base lacks tensors of the vector, or has other shapes.
        """
        check_base({name: self._terms[0][1][name] for name in self._names}, base)
        terms = self._made([(1.0, base), *((scale * coefficient, state) for coefficient, state in self._terms)])._terms
        result = {}
        for name in base:
            if name in self._names:
                result[name] = combined([state[name] for _, state in terms], [factor for factor, _ in terms])
            else:
                result[name] = base[name].clone()
        return result

    def compress(
        self, density: float = 0.05, alpha: float = 1.0, *, by_tensor: bool = False, base: State | None = None
    ) -> TernaryVector:
        """The vector in a fraction of a bit for each weight: see :func:`repertoire.weights.ternary`.

        Args:
            density: share of the entries that is kept.
            alpha: their size, in standard deviations of the vector.
            by_tensor: whether each tensor has a density and a standard deviation of its own.
            base: the weights to which the vector will be added, where it is stored for a network.

        Raises:
            ConfigError: an option lies outside its range.
        """
        from repertoire.weights._ternary import ternary

        return ternary(self, density=density, alpha=alpha, by_tensor=by_tensor, base=base)
