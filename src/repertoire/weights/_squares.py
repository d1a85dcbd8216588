"""Sums over samples of the squared gradient of each, without the gradients where a product of matrices will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

__all__ = ["Squares"]


class Squares:
    r"""Adds up squared gradients of the log-probability of a label, sample by sample.

    A linear layer that runs once, on one vector of each sample, has the gradient :math:`\delta a^\top` for its weight,
    and :math:`\delta` for its bias: of such layers only inputs a and :math:`\delta` are kept. What else reads such a
    weight would add to its gradient, so it must be the only one in the graph of a pass.

    Args:
        model: inputs to logits, in evaluation mode.
        parameters, buffers: of the model, by name.
        one: input of one sample, `[1, ...]`.

    Attributes:
        numbers: how many a sample's gradients hold.
    """

    def __init__(
        self, model: nn.Module, parameters: Mapping[str, Tensor], buffers: dict[str, Tensor], one: Tensor
    ) -> None:
        self.model, self.parameters, self.buffers = model, parameters, buffers
        self.layers = self._found(one)
        by_product = {name for layer in self.layers.values() for name in layer.names}
        self.rest = {name: value for name, value in parameters.items() if name not in by_product}
        self.fixed = {name: value for name, value in parameters.items() if name in by_product}
        self.taps = {key: layer.tap for key, layer in self.layers.items()}
        self.numbers = sum(value.numel() for value in self.rest.values()) + sum(
            layer.module.in_features + layer.module.out_features for layer in self.layers.values()
        )
        self._gradients: Callable[..., Any] = vmap(
            grad(self._log_p, argnums=(0, 1), has_aux=True), in_dims=(None, None, 0, 0)
        )

    def add(self, sums: dict[str, Tensor], x: Tensor, y: Tensor, share: Tensor) -> None:
        """Adds the squares of samples `[N, ...]` with labels `[N]`, each times its share `[N]`."""
        (gradients, deltas), inputs = self._gradients(self.rest, self.taps, x, y)
        for name, gradient in gradients.items():
            own = sums[name]
            own += (gradient.to(own).square().flatten(1).T @ share.to(own)).view_as(own)
        for key, layer in self.layers.items():
            for name in layer.names:
                own = sums[name]
                delta = deltas[key][:, 0].to(own).square() * share.to(own)[:, None]
                own += delta.sum(0) if own.ndim == 1 else delta.T @ inputs[key][:, 0].to(own).square()

    def _log_p(
        self, rest: dict[str, Tensor], taps: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Log-probability of a label, and the inputs of the layers whose output has a tap added."""
        inputs: dict[str, Tensor] = {}

        def tapped(key: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
            def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
                inputs[key] = given[0]
                return output + taps[key]

            return hook

        with hooked({key: (layer.module, tapped(key)) for key, layer in self.layers.items()}):
            logits = functional_call(self.model, ({**rest, **self.fixed}, self.buffers), (x[None],))
        return logits.log_softmax(1)[0].gather(0, y[None])[0], inputs

    def _found(self, one: Tensor) -> dict[str, _Layer]:
        """The layers of which a product of matrices is enough."""
        names: dict[int, list[str]] = {}
        for name, value in self.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(value), []).append(name)
        layers: dict[str, _Layer] = {}
        for key, module in self.model.named_modules():
            # A subclass, such as that of a layer whose weight is computed, may do something else.
            if type(module) is not nn.Linear:
                continue
            own = [names.get(id(value), []) for value in module.parameters()]
            if all(len(each) == 1 and each[0] in self.parameters for each in own):
                layers[key] = _Layer(module, tuple(each[0] for each in own))
        calls: Counter[str] = Counter()

        def seen(key: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
                calls[key] += 1
                layers[key].tap = torch.zeros_like(output)
                layers[key].alone = given[0].ndim == 2 and len(given[0]) == 1

            return hook

        leaves = {
            name: self.parameters[name].detach().clone().requires_grad_()
            for layer in layers.values()
            for name in layer.names
        }
        with torch.enable_grad(), hooked({key: (layer.module, seen(key)) for key, layer in layers.items()}):
            logits = functional_call(self.model, ({**self.parameters, **leaves}, self.buffers), (one,))
        uses = _uses(logits)
        return {
            key: layer
            for key, layer in layers.items()
            if calls[key] == 1 and layer.alone and all(uses[id(leaves[name])] == 1 for name in layer.names)
        }


class _Layer:
    """A linear layer, the names of its weights, and what a pass over one sample said of it."""

    def __init__(self, module: nn.Linear, names: tuple[str, ...]) -> None:
        self.module, self.names = module, names
        self.tap = torch.empty(0)
        self.alone = False


@contextmanager
def hooked(hooks: Mapping[str, tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Modules with a hook on what they return, for a while."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _uses(output: Tensor) -> Counter[int]:
    """How many operations of a graph read each leaf, by the leaf's identity."""
    found: Counter[int] = Counter()
    waiting, known = [output.grad_fn], {output.grad_fn}
    while waiting:
        node = waiting.pop()
        for following, _ in () if node is None else node.next_functions:
            leaf = getattr(following, "variable", None)
            if leaf is not None:
                found[id(leaf)] += 1
            elif following is not None and following not in known:
                known.add(following)
                waiting.append(following)
    return found
