"""Parts of a method that learn in turns, each from a loss of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.methods import Method
from repertoire.registry import register
from repertoire.rules._base import MakeOptimizer, Rule, add_logs
from repertoire.rules._statistics import not_counting

__all__ = ["Alternating"]


@register("rules", "alternating")
class Alternating(Rule):
    r"""Trains the parts of a method in turns, each on its own loss with its own optimiser.

    For methods whose parts want different things, as a generator and its critic do. With the parts
    :math:`\theta_1, \dots, \theta_P` in the order of `Method.parts`, one step is

    .. math:: \theta_p \leftarrow \theta_p - \eta\,\nabla_{\theta_p} L_p(\theta), \qquad p = 1, \dots, P

    where :math:`L_p` is `Step.losses[p]` of a pass with the weights that the parts before it have just taken. No part
    ever gets a gradient of another part's loss. All passes of a step draw the same random numbers; running statistics
    and what a method remembers follow the first pass only. A method of one part is trained as by `backprop`.

    Under several ranks the gradients of a part are averaged once.

    Raises:
        ConfigError: at setup, where a parameter belongs to two parts or to none, or training is in float16, whose loss
            scale the parts would share; at a step, where the method gives no loss for a part.

    Example:
        >>> from repertoire.rules import Alternating
        >>> Alternating.parts
        True
    """

    parts = True
    pieces_alike = True

    def _build(self, method: Method, make_optimizer: MakeOptimizer) -> None:
        if self.fabric.strategy.precision.precision == "16-mixed":
            raise ConfigError(f"rule 'alternating' does not work in float16: use {option('precision', 'bf16')}")
        parts = dict(method.parts())
        _check_parts(method, parts)
        self.trained = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
        self._optimizers: list[torch.optim.Optimizer] = []
        self._modules: list[nn.Module] = []
        for part in parts.values():
            module, optimizer = self.fabric.setup(part, make_optimizer(part), move_to_device=False)
            self._modules.append(module)
            self._optimizers.append(optimizer)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return self._optimizers

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        logs: dict[str, Tensor] = {}
        device = batch.targets.device
        devices = [device] if device.type != "cpu" else []
        with self._followed(method):
            for number, name in enumerate(self.trained):
                first, last = number == 0, number == len(self.trained) - 1
                # The passes before the last leave the random state as it was, so that all of them draw alike.
                again = nullcontext() if last else torch.random.fork_rng(devices, device_type=device.type)
                with again, nullcontext() if first else not_counting(method), self._only(name):
                    found = self._pass(method, batch, name)
                if first:
                    logs = found
                self._take(number, name)
        return logs

    @contextmanager
    def _only(self, name: str) -> Iterator[None]:
        """Lets a part alone take gradients."""
        others = [p for other, parameters in self.trained.items() if other != name for p in parameters]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def _pass(self, method: Method, batch: Batch, name: str) -> dict[str, Tensor]:
        """Forward and backward of one part over the pieces of a batch."""
        logs: dict[str, Tensor] = {}
        with self._pieces(method, batch) as pieces:
            for piece, share, _ in pieces:
                with self.fabric.autocast():
                    step = method.step(piece)
                losses = step.losses or {name: step.loss}
                if name not in losses:
                    raise ConfigError(
                        f"method {type(method).__name__} gives no loss for its part {name!r}: Step.losses has "
                        f"{', '.join(losses)}"
                    )
                self.fabric.backward(self._scaled(losses[name], share, batch))
                add_logs(logs, {"loss": step.loss.detach(), **step.logs}, share)
        return logs

    def _take(self, number: int, name: str) -> None:
        """The step of one part's optimiser."""
        self._average(self.trained[name])
        optimizer = self._optimizers[number]
        if self.clip is not None:
            module = self._modules[number]
            self.fabric.clip_gradients(module, optimizer, max_norm=self.clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _check_parts(method: Method, parts: dict[str, nn.Module]) -> None:
    owner: dict[int, str] = {}
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            other = owner.setdefault(id(parameter), part)
            if other != part:
                raise ConfigError(
                    f"the parts {other!r} and {part!r} of method {type(method).__name__} share {name}: a parameter is "
                    "trained by one part only"
                )
    left = [name for name, p in method.named_parameters() if p.requires_grad and id(p) not in owner]
    if left:
        raise ConfigError(
            f"no part of method {type(method).__name__} trains {', '.join(left[:5])}"
            f"{', ...' if len(left) > 5 else ''}: name them in parts(), or freeze them"
        )
