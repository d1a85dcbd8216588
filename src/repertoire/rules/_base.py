"""The contract of learning rules, and what all of them need: optimiser, precision, clipping, ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Method

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["MakeOptimizer", "Rule"]

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
"""Builds the optimiser of a module; a rule may call it once, or once for each part of the network."""


class Rule:
    """`rule.step(method, batch) -> logs`: turns a batch into changed weights.

    `setup` is called once, before the first step. Between two steps a rule holds nothing but its optimisers: a batch is
    split into `accumulate` pieces inside a step, so that a checkpoint is complete after any of them.

    Example, in a loop of one's own:
        >>> from repertoire.rules import Backprop
        >>> rule = Backprop()
        >>> rule.setup(method, lambda module: torch.optim.SGD(module.parameters(), lr=0.1))  # doctest: +SKIP
        >>> logs = rule.step(method, batch)  # doctest: +SKIP
    """

    def setup(
        self,
        method: Method,
        make_optimizer: MakeOptimizer,
        *,
        fabric: Fabric | None = None,
        clip: float | None = None,
        accumulate: int = 1,
        example: Tensor | None = None,
    ) -> None:
        """Binds the rule to a method.

        Args:
            method: what to train, on its device.
            make_optimizer: builds the optimiser of a module.
            fabric: devices, precision and ranks; one process in float32 if None.
            clip: largest norm of the gradient; no clipping if None.
            accumulate: pieces that a batch is processed in, for batches too large for the memory. Batch
                normalisation sees one piece at a time.
            example: images of the shape that training will see, on the method's device, for rules that must know it.

        Raises:
            ConfigError: the batch cannot be processed in pieces, because the loss compares its samples.
        """
        self._check_separable(method, accumulate)
        if fabric is None:
            from lightning_fabric import Fabric

            device = next(method.parameters()).device
            fabric = Fabric(accelerator=device.type, devices=1 if device.index is None else [device.index])
        self.fabric = fabric
        self.clip = clip
        self.accumulate = accumulate
        self.module, self.optimizer = fabric.setup(method, make_optimizer(method))

    def _check_separable(self, method: Method, accumulate: int) -> None:
        if accumulate > 1 and not method.needs.per_sample:
            raise ConfigError(
                "accumulate splits a batch into pieces, and this loss compares the samples of a batch with each other: "
                "each piece would be contrasted only with itself. Use --rule gradcache, or a smaller batch_size"
            )

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimisers, in a fixed order; the loop sets their learning rates and stores their state."""
        return [self.optimizer]

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        """Changes the weights once; gives the method's logs."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """State of the optimisers, and of the loss scaler where float16 has one."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for parameter, held in optimizer.state.items():
                for name, value in held.items():
                    # In the memory layout of its parameter (channels last), as it was before it was stored: mixed
                    # layouts are slow on a GPU.
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def _gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Forward and backward over the pieces of a batch: leaves the mean gradient in the parameters."""
        logs: dict[str, Tensor] = {}
        for piece, share, last in self._pieces(batch):
            with self.fabric.no_backward_sync(self.module, enabled=not last):
                step = self.module(piece)
                self.fabric.backward(step.loss * share if share != 1 else step.loss)
            for name, value in {"loss": step.loss.detach(), **step.logs}.items():
                logs[name] = logs.get(name, 0) + value * share
        return logs

    def _pieces(self, batch: Batch) -> Iterator[tuple[Batch, float, bool]]:
        """Each piece, its share of the batch, and whether it is the last."""
        if self.accumulate == 1:
            yield batch, 1.0, True
            return
        done = 0
        for piece in batch.split(self.accumulate):
            done += len(piece)
            yield piece, len(piece) / len(batch), done == len(batch)

    def _update(self, method: Method) -> None:
        """Clips, steps, clears the gradients, and lets the method follow."""
        if self.clip is not None:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        method.after_update()
