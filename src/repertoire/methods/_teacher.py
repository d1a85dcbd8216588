"""A network that follows another one as a moving average of its weights."""

from __future__ import annotations

import copy
import math
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.ranges import AtLeast, Share, checked

__all__ = ["Teacher"]


class Teacher(nn.Module):
    r"""A copy of a network whose weights follow those of the original as an exponential moving average.

    .. math:: \xi \leftarrow m\,\xi + (1 - m)\,\theta, \qquad m = 1 - (1 - m_0)\,\frac{\cos(\pi t / T) + 1}{2}

    with t the updates so far. The schedule is that of Grill et al., *Bootstrap Your Own Latent* (2020), at whose end
    the teacher stands still; without T the momentum stays at m_0. Parameters take no gradient. Buffers, such as the
    statistics of batch normalisation, are the teacher's own: it passes through the batches too.

    All state is in parameters and buffers.

    Args:
        network: what is copied; it is not kept.
        momentum: m_0 in [0, 1].
        steps: T, the updates after which the momentum is one; None for a constant momentum.

    Raises:
        ConfigError: a momentum out of range, or steps that are not positive.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.methods import Teacher
        >>> student = nn.Linear(1, 1, bias=False)
        >>> teacher = Teacher(nn.utils.skip_init(nn.Linear, 1, 1, bias=False), momentum=0.75)
        >>> _ = nn.init.ones_(student.weight), nn.init.zeros_(teacher.network.weight)
        >>> teacher.follow(student)
        >>> teacher(torch.ones(1, 1))
        tensor([[0.2500]])
    """

    updates: Tensor

    @checked
    def __init__(
        self, network: nn.Module, momentum: Annotated[float, Share], steps: Annotated[int, AtLeast(1)] | None = None
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.momentum = momentum
        self.steps = steps
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Runs the copy on images, without a gradient."""
        return self.network(images)

    @torch.no_grad()
    def follow(self, network: nn.Module, turn: Tensor | None = None) -> None:
        """Moves towards the original by one update; by none where `turn`, an int64 `[]`, is 0 and not 1."""
        # Computed where the count is, so that nothing waits for the device.
        weight = torch.full((), 1 - self.momentum, device=self.updates.device)
        if self.steps is not None:
            share = (self.updates / self.steps).clamp(max=1)
            weight = weight * ((share * math.pi).cos() + 1) / 2
        if turn is not None:
            weight = weight * turn
        own: tuple[Tensor, ...] = tuple(self.network.parameters())
        theirs: tuple[Tensor, ...] = tuple(network.parameters())
        torch._foreach_mul_(own, 1 - weight)
        torch._foreach_add_(own, torch._foreach_mul(theirs, weight))
        self.updates += 1 if turn is None else turn

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}, steps={self.steps}"
