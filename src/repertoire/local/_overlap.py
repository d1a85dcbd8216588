"""Blocks that overlap: the gradient of a block's loss crosses one border."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.local._block import LocalBlock
from repertoire.local.pipeline._channel import dense

__all__ = ["OverlapBlock", "overlaps", "reached"]


def overlaps(ends: Sequence[int], overlap: int) -> list[int]:
    """How many units of the next block each block looks through; no more than that block has.

    >>> overlaps([2, 5, 6, 9], 2)
    [2, 1, 2, 0]
    """
    return [*(min(overlap, after - end) for end, after in itertools.pairwise(ends)), 0]


def reached(ends: Sequence[int], overlap: int) -> list[int]:
    """The last unit before the auxiliary network of each block: where its exit is.

    >>> reached([2, 5, 6, 9], 2)
    [4, 6, 8, 9]
    """
    return [end + more for end, more in zip(ends, overlaps(ends, overlap), strict=True)]


class OverlapBlock(LocalBlock):
    """A block whose loss is taken behind the first units of the next one.

    Its own units f, the first units g of the next block and the auxiliary network a make the loss of a(g(f(x))). The
    forward pass of g is run once and kept for the next block, which goes on from its output. Its backward pass runs in
    two halves: first the chain of gradients of its maps alone, which goes on into f; then, in the step of the next
    block, that of its maps and weights, for the sum of what both blocks ask of its output. A backward pass is linear in
    what it starts from, so the weights of g get the gradient of both losses at the price of one.

    Args:
        units, names, objective: as of any block.
        entered: how many of its own units the block before has run already.
        ahead: the first units of the next block, which owns and trains them.

    Attributes:
        border: whether the next block is another process's. That one then goes on from the output of f: it runs g once
            more, with the random numbers that were drawn here (`drawn`), because the weights of g get their gradient
            there. What it does is the same, and so is what comes of it.
        drawn: the state of the random numbers before g was run, where there is a border.
    """

    border = False
    drawn: Tensor | None = None

    def __init__(
        self,
        units: list[nn.Module],
        names: list[str],
        objective: nn.Module,
        entered: int = 0,
        ahead: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__(units, names, objective)
        self.entered = entered
        self.ahead = tuple(ahead)  # in a tuple, and so not registered: they are units of the next block
        self._parts: tuple[Callable[..., Any], Callable[..., Any]] = (self._own, self._judged)
        self._crossing: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def _own(self, x: Tensor) -> Tensor:
        for unit in self.units[self.entered :]:
            x = unit(x)
        return x

    def _judged(self, x: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        step = self.objective(x, batch)
        return step.loss, step.logs

    def forward(self, x: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        own, judged = self._parts
        y = own(x)
        # Without gaps, as what is sent to another process.
        start = dense(y.detach()).requires_grad_(y.requires_grad)
        if self.border:
            self.drawn = torch.get_rng_state() if start.device.type == "cpu" else torch.cuda.get_rng_state(start.device)
        z = self.look(start)
        seen = z.detach().requires_grad_()
        self._crossing = (y, start, z, seen)
        self.output = start.detach() if self.border else z if self.ahead else z.detach()
        return judged(seen, batch)

    def enter(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Runs the units that the block before has run already, in another process.

        Args:
            x: the output of that block.
            drawn: its random numbers.
        """
        if x.device.type == "cpu":
            # A copy: PyTorch does not take a state that lies in the middle of a message, and does not say so.
            torch.set_rng_state(drawn.clone())
        else:
            torch.cuda.set_rng_state(drawn.cpu().clone(), x.device)
        for unit in self.units[: self.entered]:
            x = unit(x)
        return x

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles what the block does alone. What it does in units of the next one stays as it is: its backward pass
        runs in two halves, and a compiled one runs as a whole, once."""
        own, judged = self._parts
        self._parts = torch.compile(own, *args, **kwargs), torch.compile(judged, *args, **kwargs)

    def forget(self) -> None:
        super().forget()
        self._crossing = self.drawn = None

    def cross(self) -> Tensor | None:
        crossing, self._crossing = self._crossing, None
        assert crossing is not None, "the block was not called"
        y, start, z, seen = crossing
        gradient = seen.grad
        if self.ahead and start.requires_grad:
            torch.autograd.backward(z, gradient, retain_graph=True, inputs=start)
            y_gradient, start.grad = start.grad, None  # or it would live as long as the graph of z
        else:
            y_gradient = gradient
        # Not further: what came from the block before is one of its own, and has had its gradient.
        learning = [p for p in self.units.parameters() if p.requires_grad]
        if learning and y.requires_grad:
            torch.autograd.backward(y, y_gradient, inputs=learning)
        return gradient if self.ahead and z.requires_grad else None
