"""Back-propagation that computes activations twice instead of keeping them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Method
from repertoire.registry import register
from repertoire.rules._backprop import Direct
from repertoire.rules._statistics import not_counting

__all__ = ["Checkpoint"]


@register("rules", "checkpoint")
class Checkpoint(Direct):
    """Back-propagation with activation checkpointing: less memory, about a third more time, the very same weights.

    Chen, Xu, Zhang and Guestrin, *Training Deep Nets with Sublinear Memory Cost* (2016). Of every block of the backbone
    only the input is kept; the block is computed a second time when its gradient is due. The second pass draws the
    random numbers of the first, and leaves the running statistics of batch normalisation alone, so that weights and
    buffers are those of `backprop`.

    Raises:
        ConfigError: at the first step, before any weight changes, if a layer other than batch normalisation changes its
            buffers in the forward pass, which would then happen twice.

    Example:
        >>> from repertoire import registry
        >>> registry.build("rules", "checkpoint")
        <repertoire.rules._checkpoint.Checkpoint object at ...>
    """

    def __init__(self) -> None:
        self._looked = False

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        with self._recomputing(method):
            return super().step(method, batch)

    @contextlib.contextmanager
    def _recomputing(self, method: Method) -> Iterator[None]:
        """Has the blocks computed twice for the time of a step; afterwards nothing is left of it."""
        blocks = list(method.model.backbone.blocks)
        for number, block in enumerate(blocks):
            # The forward function and not the block: hooks of others see one pass.
            block.forward = partial(self._forward, f"blocks.{number}", block, block.forward)
        try:
            yield
        finally:
            for block in blocks:
                del block.forward
        self._looked = True

    def _forward(self, name: str, block: nn.Module, forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
        before = None if self._looked else _versions(block)
        found: Tensor = checkpoint(
            forward,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), not_counting(block)),
        )
        if before is not None:
            changed = [key for key, version in _versions(block).items() if before.get(key) != version]
            if changed:
                raise ConfigError(
                    f"rule 'checkpoint' computes blocks twice, and {name}.{changed[0]} changes in every forward pass: "
                    "use backprop, or local learning"
                )
        return found


def _versions(block: nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and version of every buffer, those of batch normalisation aside."""
    return {
        f"{prefix}.{name}" if prefix else name: (id(buffer), buffer._version)
        for prefix, module in block.named_modules()
        if not isinstance(module, _BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
    }
