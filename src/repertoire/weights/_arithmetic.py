"""Arithmetic with weights: weighted means, arcs between two states, and sums of task vectors that interfere less."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.errors import ConfigError
from repertoire.ranges import Between, Finite, Share, checked
from repertoire.registry import register
from repertoire.weights._state import State, check_alike
from repertoire.weights._trim import kept_from
from repertoire.weights._wide import as_weights, check_base, combined, pieces, tensor_by_tensor

__all__ = ["dare", "linear", "slerp", "task_arithmetic", "ties"]

PARALLEL = 0.9995
"""Cosine from which on two tensors count as parallel; the arc between them is then as good as straight."""


@register("weight-operators", "linear")
@torch.no_grad()
def linear(states: Sequence[State], *, weights: tuple[float, ...] | None = None) -> dict[str, Tensor]:
    r"""The weighted mean of the weights of several models.

    .. math::
        \theta = \frac{\sum_i w_i \theta_i}{\sum_i w_i}

    As mergekit's `linear` with normalised weights; with equal ones, the uniform soup. Beside the result, one tensor of
    each state is read at a time. Networks with batch normalisation want
    :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: name to tensor, of one architecture; `state_dict()` of models, or `LazyState` of files. Integers and
            booleans, such as counters of batches, are taken from the first.
        weights: of the states, of any sum but 0; all alike by default.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states, more or fewer weights than states, or weights that sum to 0.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import linear
        >>> linear([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}], weights=(3, 1))
        {'w': tensor([1.5000, 3.0000])}
    """
    check_alike(states)
    factors = as_weights(weights, states)
    total = math.fsum(factors)
    if total == 0:
        raise ConfigError("weights must not sum to 0: the mean is over their sum")
    return tensor_by_tensor(states, None, lambda _, tensors, __: combined(tensors, factors, divisor=total))


@register("weight-operators", "slerp")
@checked
@torch.no_grad()
def slerp(states: Sequence[State], *, t: Annotated[float, Share] = 0.5) -> dict[str, Tensor]:
    r"""Spherical interpolation: along the arc from one state to another, tensor by tensor.

    Shoemake, *Animating Rotation with Quaternion Curves* (1985), applied to each tensor as one long vector, as mergekit
    does:

    .. math::
        \theta = \frac{\sin((1-t)\,\Omega)}{\sin\Omega}\, \theta_1 + \frac{\sin(t\,\Omega)}{\sin\Omega}\, \theta_2,
        \qquad \Omega = \arccos \frac{\langle \theta_1, \theta_2 \rangle}{\lVert\theta_1\rVert \lVert\theta_2\rVert}

    Unlike a mean, it does not shrink what points in different directions. Where two tensors are nearly parallel (an
    absolute cosine above 0.9995), the interpolation is linear. Networks with batch normalisation want
    :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: two, of one architecture; `state_dict()` of models, or `LazyState` of files. Integers and booleans are
            taken from the first. One state alone is given back.
        t: where on the arc, from 0 (the first state) to 1 (the second).

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states or more than two, or `t` lies outside its range.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import slerp
        >>> slerp([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}])
        {'w': tensor([0.7071, 0.7071])}
    """
    check_alike(states)
    if len(states) > 2:
        raise ConfigError(f"slerp takes two states, {len(states)} given; merge them two at a time, or take linear")
    if len(states) == 1:
        states = [states[0], states[0]]
    return tensor_by_tensor(states, None, lambda _, tensors, __: combined(tensors, _arc(tensors[0], tensors[1], t)))


slerp.at_most = 2  # type: ignore[attr-defined]


slerp.at_most = 2  # type: ignore[attr-defined]


def _arc(first: Tensor, second: Tensor, t: float) -> tuple[float, float]:
    """The coefficients of two tensors at the place t of the arc between them."""
    inner = squares = others = 0.0
    for _, (a, b) in pieces([first, second]):
        inner += float((a * b).sum())
        squares += float(a.square().sum())
        others += float(b.square().sum())
    # A norm that is as good as none does not divide: the tensor stays what it is, and the cosine small.
    cosine = inner / math.prod(norm if norm > 1e-8 else 1.0 for norm in (math.sqrt(squares), math.sqrt(others)))
    if abs(cosine) > PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


@register("weight-operators", "task-arithmetic")
@checked
@torch.no_grad()
def task_arithmetic(
    states: Sequence[State],
    base: State,
    *,
    scale: Annotated[float, Finite] = 0.4,
    weights: tuple[float, ...] | None = None,
) -> dict[str, Tensor]:
    r"""Task arithmetic: the start, and what fine-tuning has added to it in each of several models.

    Ilharco et al., *Editing Models with Task Arithmetic* (2023):

    .. math::
        \theta = \theta_0 + \lambda \sum_i w_i (\theta_i - \theta_0)

    The scale is meant to be chosen on validation data; 0.4 is what the authors recommend where there is none. With a
    negative weight, the network forgets a task. Beside the result, one tensor of each state is read at a time. Networks
    with batch normalisation want :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: fine-tuned from the base, of one architecture; `state_dict()` of models, or `LazyState` of files.
            Integers and booleans are taken from the first.
        base: the weights that all of them started from.
        scale: factor of the sum.
        weights: of the states; 1 for each by default. They are not divided by their sum.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states, or more or fewer weights than states.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import task_arithmetic
        >>> states = [{"w": torch.tensor([2.0, 1.0])}, {"w": torch.tensor([1.0, 5.0])}]
        >>> task_arithmetic(states, {"w": torch.ones(2)}, scale=0.5)
        {'w': tensor([1.5000, 3.0000])}
    """
    check_alike(states)
    check_base(states[0], base)
    factors = [scale * weight for weight in as_weights(weights, states)]
    coefficients = [*factors, 1 - math.fsum(factors)]

    def merge(_: str, tensors: list[Tensor], start: Tensor) -> Tensor:
        return combined([*tensors, start], coefficients)

    return tensor_by_tensor(states, base, merge)


@register("weight-operators", "ties")
@checked
@torch.no_grad()
def ties(
    states: Sequence[State],
    base: State,
    *,
    density: Annotated[float, Between(0, 1, "(]")] = 0.2,
    trim: Literal["network", "tensor"] = "network",
    scale: Annotated[float, Finite] = 1.0,
    weights: tuple[float, ...] | None = None,
) -> dict[str, Tensor]:
    r"""TIES: small changes are dropped, the states vote on a sign for each weight, and those that agree are averaged.

    Yadav et al., *TIES-Merging: Resolving Interference When Merging Models* (2023). Of each task vector only the
    largest entries are kept, of all tensors together. With what is left, :math:`\hat\tau_i`,

    .. math::
        \gamma = \operatorname{sgn}\Big(\sum_i w_i \hat\tau_i\Big), \qquad \theta = \theta_0 + \lambda\,
        \frac{\sum_{i \in A} w_i \hat\tau_i}{\sum_{i \in A} w_i}, \qquad
        A = \{i : \operatorname{sgn}(w_i \hat\tau_i) = \gamma\}

    for each weight by itself; a sum of 0 counts as positive, where the authors take the sign that most weights have.
    With `trim="tensor"` this is mergekit's `ties`, which trims each tensor by itself; the paper, and the authors' code,
    trim a network as one vector. Entries as large as the smallest that is kept are kept, too. Networks with batch
    normalisation want :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: fine-tuned from the base, of one architecture; `state_dict()` of models, or `LazyState` of files.
            Integers and booleans are taken from the first.
        base: the weights that all of them started from.
        density: share of the entries that is kept, rounded down, and one at least.
        trim: whether that is a share of the entries of a whole network ("network", as in the paper), to which layers
            that changed more contribute more, or of each tensor ("tensor").
        scale: factor of the merged vector.
        weights: of the states; 1 for each by default.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states, more or fewer weights than states, or an option outside its range.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import ties
        >>> states = [{"w": torch.tensor([4.0, 0.1])}, {"w": torch.tensor([-1.0, 2.0])}]
        >>> ties(states, {"w": torch.zeros(2)}, density=1.0)  # -1 is outvoted by 4
        {'w': tensor([4.0000, 1.0500])}
    """
    check_alike(states)
    check_base(states[0], base)
    factors = as_weights(weights, states)
    bounds = [kept_from(state, base, density) for state in states] if trim == "network" else None

    def merge(_: str, tensors: list[Tensor], start: Tensor) -> Tensor:
        smallest = bounds or [kept_from({"": tensor}, {"": start}, density) for tensor in tensors]
        result = torch.empty_like(tensors[0], memory_format=torch.contiguous_format)
        flat = result.view(-1)
        for part, (origin, *fine) in pieces([start, *tensors]):
            changes = [tensor.sub_(origin) for tensor in fine]
            for change, bound in zip(changes, smallest, strict=True):
                change.mul_(change.abs() >= bound)
            flat[part] = _elected(changes, factors).mul_(scale).add_(origin)
        return result

    return tensor_by_tensor(states, base, merge)


@register("weight-operators", "dare")
@checked
@torch.no_grad()
def dare(
    states: Sequence[State],
    base: State,
    *,
    density: Annotated[float, Between(0, 1, "(]")] = 0.5,
    by: Literal["linear", "ties"] = "linear",
    scale: Annotated[float, Finite] = 1.0,
    weights: tuple[float, ...] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""DARE: random changes are dropped and the others enlarged, before they are added or elected.

    Yu et al., *Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch* (2024). Of
    each task vector, every entry is kept with the probability p and divided by it, so that its mean is what it was:

    .. math::
        \hat\tau_i = \frac{m_i \odot (\theta_i - \theta_0)}{p}, \qquad m_i \sim \mathrm{Bernoulli}(p)

    Then `by` "linear" gives :math:`\theta_0 + \lambda \sum_i w_i \hat\tau_i`, and "ties" elects signs and averages what
    agrees, as :func:`ties` does, without trimming. mergekit's `dare` instead brings each tensor back to its sum of
    absolute values, and does not divide by the sum of weights. Networks with batch normalisation want
    :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: fine-tuned from the base, of one architecture; `state_dict()` of models, or `LazyState` of files.
            Integers and booleans are taken from the first.
        base: the weights that all of them started from.
        density: probability that an entry is kept.
        by: "linear" (default) or "ties".
        scale: factor of the merged vector.
        weights: of the states; 1 for each by default.
        seed: of what is dropped; what is drawn for a tensor depends on it, on the tensor's name and on the state's
            number, and on nothing else.

    Returns:
        New tensors in the first state's order, dtypes and devices.

    Raises:
        ConfigError: there are no states, more or fewer weights than states, or an option outside its range.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import dare
        >>> merged = dare([{"w": torch.ones(10_000)}], {"w": torch.zeros(10_000)}, density=0.25)["w"]
        >>> merged.unique(), bool((merged.mean() - 1).abs() < 0.05)
        (tensor([0., 4.]), True)
    """
    check_alike(states)
    check_base(states[0], base)
    factors = as_weights(weights, states)

    def merge(name: str, tensors: list[Tensor], start: Tensor) -> Tensor:
        draws = [_generator(seed, number, name) for number in range(len(tensors))]
        result = torch.empty_like(tensors[0], memory_format=torch.contiguous_format)
        flat = result.view(-1)
        for part, (origin, *fine) in pieces([start, *tensors]):
            changes = [tensor.sub_(origin) for tensor in fine]
            for change, generator in zip(changes, draws, strict=True):
                kept = torch.rand(len(change), generator=generator) < density
                change.mul_(kept.to(change)).div_(density)
            if by == "ties":
                total = _elected(changes, factors)
            else:
                total = torch.zeros_like(origin)
                for factor, change in zip(factors, changes, strict=True):
                    total.add_(change, alpha=factor)
            flat[part] = total.mul_(scale).add_(origin)
        return result

    return tensor_by_tensor(states, base, merge)


def _generator(seed: int, number: int, name: str) -> torch.Generator:
    """A stream of its own for each tensor of each state, whatever the order in which they come."""
    digest = hashlib.sha256(f"{seed} {number} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _elected(changes: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """The weighted mean, for each entry, of those changes that have the sign of the weighted sum."""
    weighted = [factor * change for factor, change in zip(factors, changes, strict=True)]
    sign = torch.where(sum(weighted[1:], weighted[0]) >= 0, 1.0, -1.0).to(weighted[0])
    total, divisor = torch.zeros_like(weighted[0]), torch.zeros_like(weighted[0])
    for factor, change in zip(factors, weighted, strict=True):
        agrees = change.sign() == sign
        total += change * agrees
        divisor.add_(agrees, alpha=factor)
    return total / divisor.masked_fill_(divisor == 0, 1.0)
