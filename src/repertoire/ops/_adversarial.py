"""Small changes of inputs that change what a network says the most: one power step, or a projected gradient method."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, Positive, Share, checked

__all__ = ["adversarial_direction", "largest_entries", "projected_gradient", "unit_changes"]


def unit_changes(changes: Tensor) -> Tensor:
    """Changes of length one, each sample by itself; a change of zero stays zero.

    Args:
        changes: float `[N, ...]`.

    Returns:
        The same shape, with a Euclidean norm of 1 over all dimensions but the first.

    Example:
        >>> import torch
        >>> from repertoire.ops import unit_changes
        >>> unit_changes(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000],
                [1.0000, 0.0000]])
    """
    flat = changes.flatten(1)
    # Divided by the largest entry first: squares of small gradients would underflow.
    largest = flat.abs().amax(1, keepdim=True) if flat.shape[1] else flat.new_ones(len(flat), 1)
    flat = flat / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return (flat / torch.where(norm > 0, norm, 1)).view_as(changes)


@checked
def adversarial_direction(
    network: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    logits: Tensor | None = None,
    start: Tensor | None = None,
    xi: Annotated[float, Positive] | None = None,
    steps: Annotated[int, AtLeast(0)] = 1,
) -> Tensor:
    r"""The direction in which a network changes its answer fastest, for each sample, without a label.

    Miyato, Maeda, Koyama and Ishii, *Virtual Adversarial Training* (2017). Near an input the divergence
    :math:`D(r) = \mathrm{KL}(p(x) \,\|\, p(x + r))` is :math:`\tfrac12 r^\top H r`, since it is 0 at r = 0 and nowhere
    less. The direction sought is the first eigenvector of H, found by power iteration with a finite difference in the
    place of the product with H:

    .. math:: d \leftarrow \overline{\nabla_r D(r) \big|_{r = \xi d}}

    where the bar stands for length one. Without a step, the direction is the random one that it began with.

    Args:
        network: called with inputs, gives logits `[N, C]`. Each call should draw the same random numbers and leave no
            trace (:func:`repertoire.ops.rewinding`, :func:`repertoire.ops.not_counting`).
        inputs: float `[N, ...]`.
        logits: what the network says of the inputs, `[N, C]`, computed as `network` would: rounding that differs by as
            much as xi changes the answer is all that would be found. Computed if None.
        start: where the iteration begins, of the inputs' shape; standard normal numbers from torch's random state if
            None.
        xi: length of the step of the finite difference. If None, the length of the sample times the square root of its
            precision, which balances the error of the difference with that of rounding: about 1e-6 for a small image in
            float64, the paper's value, and about 1e-2 in float32, where the paper's 1e-6 moves no pixel by more than
            its last bit.
        steps: power iterations, 0 or more.

    Returns:
        Directions of length one, without a gradient; zero where the network's answer does not change at all.

    Raises:
        ConfigError: an option out of range. ShapeError: inputs that are not floating point.

    Example:
        >>> import torch
        >>> from repertoire.ops import adversarial_direction
        >>> weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # only the first feature matters
        >>> found = adversarial_direction(lambda x: x @ weight.T, torch.tensor([[0.2, 5.0]]))
        >>> found.abs()
        tensor([[1., 0.]])
    """
    if not inputs.is_floating_point():
        raise ShapeError(f"inputs must be floating point, found {inputs.dtype} {list(inputs.shape)}")
    x = inputs.detach()
    # In float32 on the processor whatever the precision is, so that all precisions begin alike.
    direction = unit_changes(_normal(x) if start is None else start.detach().to(x))
    if steps == 0 or not len(x):
        return direction
    with torch.autocast(x.device.type, enabled=False):
        if logits is None:
            with torch.no_grad():
                logits = network(x)
        log_p = _log_softmax(logits.detach())
        p = log_p.exp()
        for _ in range(steps):
            step = _length(x) if xi is None else xi
            with torch.enable_grad():
                change = (direction * step).requires_grad_()
                log_q = _log_softmax(network(x + change))
                # Of the divergence only this part depends on the change.
                (gradient,) = torch.autograd.grad(-(p * log_q).sum(), change)
            direction = unit_changes(gradient.detach())
    return direction


def _normal(like: Tensor) -> Tensor:
    return torch.randn(like.shape, device=like.device).to(like)


def _length(x: Tensor) -> Tensor:
    """The length of a step that is as large as rounding asks for, `[N, 1, ...]`."""
    norm = torch.linalg.vector_norm(x.flatten(1).to(torch.promote_types(x.dtype, torch.float32)), dim=1)
    step: Tensor = torch.finfo(x.dtype).eps ** 0.5 * norm.clamp_min(1)
    return step.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)


def largest_entries(values: Tensor, share: float) -> Tensor:
    """Mask of the largest entries of each sample, bool of the values' shape: so many that they are `share` of all,
    rounded up, and of equal ones those that come first.

    Args:
        values: float `[N, ...]`.
        share: in [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.ops import largest_entries
        >>> largest_entries(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), 0.5)
        tensor([[False,  True,  True, False]])
    """
    flat = values.flatten(1)
    # Rounding in the product must not add an entry.
    count = min(flat.shape[1], max(0, math.ceil(share * flat.shape[1] - 1e-6)))
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).view_as(values)


@checked
def projected_gradient(
    objective: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    epsilon: Annotated[float, AtLeast(0)],
    step_size: Annotated[float, Positive],
    steps: Annotated[int, AtLeast(0)] = 10,
    start: Tensor | None = None,
    descend: bool = False,
    share: Annotated[float, Share] = 1.0,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    r"""Inputs within a small cube around the given ones that make a function as large as sign steps can: PGD.

    Madry, Makelov, Schmidt, Tsipras and Vladu, *Towards Deep Learning Models Resistant to Adversarial Attacks* (2018):

    .. math:: x' \leftarrow \Pi\bigl(x' + \alpha\,\mathrm{sign}\,\nabla_{x'} L(x')\bigr)

    where :math:`\Pi` brings every entry back to at most :math:`\epsilon` from that of x, and into [low, high]. With
    `share` below 1 only the entries of each sample whose gradient is largest move in a step, and the rest goes back to
    where it was.

    Args:
        objective: called with inputs, gives the sum over the samples of what is to grow: gradients are per sample.
        inputs: float `[N, ...]`.
        epsilon: largest change of an entry, 0 or more.
        step_size: alpha, positive.
        steps: 0 or more.
        start: where to begin, of the inputs' shape; it is brought into the cube. The inputs themselves if None.
        descend: go down instead of up.
        share: of the entries of each sample, those that may differ from the inputs.
        low, high: what entries lie between.

    Returns:
        Changed inputs, without a gradient.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.ops import projected_gradient
        >>> x = torch.tensor([[0.5, 0.9]])
        >>> projected_gradient(lambda z: z.sum(), x, epsilon=0.2, step_size=0.15, steps=2)
        tensor([[0.7000, 1.0000]])
    """
    x = inputs.detach()
    floor, ceiling = (x - epsilon).clamp(min=low), (x + epsilon).clamp(max=high)
    # What lies outside of [low, high] itself stays.
    floor, ceiling = torch.minimum(floor, x), torch.maximum(ceiling, x)
    moved = x.clone() if start is None else start.detach().to(x).clamp(floor, ceiling)
    with torch.autocast(x.device.type, enabled=False):
        for _ in range(steps if len(x) else 0):
            with torch.enable_grad():
                variable = moved.requires_grad_()
                (gradient,) = torch.autograd.grad(objective(variable), variable)
            change = gradient.sign() * (-step_size if descend else step_size)
            moved = (variable.detach() + change).clamp(floor, ceiling)
            if share < 1:
                moved = torch.where(largest_entries(gradient.abs(), share), moved, x)
    return moved.detach()
