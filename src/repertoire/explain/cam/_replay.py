"""The part of a network that follows a layer, run again and again on other outputs of that layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.explain._explainer import every_row

__all__ = ["Replay"]


@dataclass
class _Given:
    """Output of a module in a pass: all of it, or its shape where nothing that follows uses it."""

    module: nn.Module
    shape: torch.Size
    dtype: torch.dtype
    tensor: Tensor | None


class Replay:
    """Runs what follows a layer without what precedes it, in any network.

    The network is run as it is, but modules that ended before the layer do not compute. They give what they gave to the
    same image before, where what follows has a use for it (a connection past the layer), and else anything of that
    shape. Whether it has a use is asked of the gradient of one image. If the scores are then not those of the network,
    because it hides a use from the gradient, every pass is made through the whole network instead.

    To be used under `undisturbed`, with a layer that runs once in a pass and gives a tensor.

    Args:
        model: the network.
        layer: one of its modules.
        inputs: `[N, C, H, W]`.
        scores: finds the scores `[n, C]` in what the model returns, given the positions of the images, int64 `[n]`.

    Attributes:
        output: what the layer gives, `[N, ...]`.
    """

    def __init__(
        self, model: nn.Module, layer: nn.Module, inputs: Tensor, scores: Callable[[Any, Tensor], Tensor]
    ) -> None:
        self._model, self._layer, self._inputs, self._scores = model, layer, inputs, scores
        names = [name for name, module in model.named_modules(remove_duplicate=False) if module is layer]
        around = {".".join(name.split(".")[:i]) for name in names for i in range(name.count(".") + 1)} | {""}
        self._enclosing = {model.get_submodule(name) for name in around} - {layer}
        used = self._used()
        self._given: list[_Given] = []
        kept: list[Tensor] = []

        def keep(module: nn.Module, output: Tensor) -> None:
            if module is layer:
                kept.append(output)
            tensor = output if used[1 + len(self._given)] else None
            self._given.append(_Given(module, output.shape, output.dtype, tensor))

        expected = self._watched(inputs, keep)
        self.output = kept[0]
        self._past_all = used[0]
        # Row by row is how outputs are given again.
        self._whole = any(given.tensor is not None and len(given.tensor) != len(inputs) for given in self._given)
        if not self._whole:
            rows = torch.arange(len(inputs) + 1, device=inputs.device) % len(inputs)
            self._whole = not self._agrees(rows, expected[rows])

    def __call__(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """The scores `[rows, C]` of some of the images, with other outputs of the layer.

        Args:
            rows: indices of the images, int64 `[rows]`.
            outputs: what the layer is to give, `[rows, ...]`.
        """
        given: dict[nn.Module, list[_Given]] = {self._layer: []}
        for one in [] if self._whole else self._given:
            given.setdefault(one.module, []).append(one)
        runs: Counter[nn.Module] = Counter()
        ended = False

        def stand_in(module: nn.Module) -> Callable[..., Any]:
            own = module.forward

            def forward(*args: Any, **kwargs: Any) -> Any:
                if ended:  # a module that runs before the layer may run again after it
                    return own(*args, **kwargs)
                one = given[module][runs[module]]
                return torch.empty((len(rows), *one.shape[1:]), dtype=one.dtype, device=rows.device)

            return forward

        def replace(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            nonlocal ended
            if ended:
                return None
            if module is self._layer:
                ended = True
                return outputs
            runs[module] += 1
            one = given[module][runs[module] - 1]
            return output if one.tensor is None else one.tensor[rows]

        modules = list(given)
        skipped = [] if self._whole else modules
        handles = [module.register_forward_hook(replace) for module in modules]
        try:
            with _forwards({module: stand_in(module) for module in skipped}):
                used = self._whole or self._past_all
                inputs = self._inputs[rows] if used else self._inputs.new_empty(len(rows), *self._inputs.shape[1:])
                return self._scores(self._model(inputs), rows)
        finally:
            for handle in handles:
                handle.remove()

    def _agrees(self, rows: Tensor, expected: Tensor) -> bool:
        try:
            found = self(rows, self.output[rows])
        except RuntimeError:  # shapes that do not fit, since a module's output is not one row for each image
            return False
        return bool(torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().amax())))

    def _used(self) -> list[bool]:
        """Finds whether what follows the layer uses the image, and the output of each module before, in order."""
        leaves = [self._inputs[:1].detach().requires_grad_()]

        def keep(module: nn.Module, output: Tensor) -> None:
            leaves.append(output)

        with torch.enable_grad():
            scores = self._watched(leaves[0], keep)
            found = torch.autograd.grad(scores.sum(), leaves, allow_unused=True) if scores.requires_grad else [None]
        return [gradient is not None for gradient in found] + [False] * (len(leaves) - len(found))

    def _watched(self, inputs: Tensor, keep: Callable[[nn.Module, Tensor], None]) -> Tensor:
        """The scores of a pass; `keep` is told what the outermost modules give that end before the layer, and it."""
        stack: list[nn.Module] = []
        ended = False

        def before(module: nn.Module, args: Any) -> None:
            stack.append(module)

        def after(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            nonlocal ended
            stack.pop()
            inside = module is not self._layer and (module in self._enclosing or stack[-1] not in self._enclosing)
            if ended or inside or not isinstance(output, Tensor) or not output.is_floating_point():
                return None
            ended = module is self._layer
            output = output.detach().requires_grad_(torch.is_grad_enabled())
            keep(module, output)
            # What follows gets a copy, which it may overwrite.
            return output.clone()

        handles = [module.register_forward_pre_hook(before) for module in self._model.modules()]
        handles += [module.register_forward_hook(after) for module in self._model.modules()]
        try:
            return self._scores(self._model(inputs), every_row(inputs))
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _forwards(other: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Some modules with another forward function for the while."""
    own = {module: vars(module).get("forward") for module in other}
    try:
        for module, forward in other.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, before in own.items():
            if before is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = before
