"""Convolutions that compute, for each input, only the filters that a small predictor expects to matter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from repertoire.compress._layers import plain
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating

__all__ = ["DynamicConv2d", "FilterCost", "dynamic_layers", "filter_cost", "folded", "followers", "most_active"]

Mode = Literal["predicted", "skip", "all", "oracle"]


class DynamicConv2d(nn.Module):
    """A convolution whose filters are switched off one by one, for each input anew.

    The mean of each input channel goes through a linear layer, and a filter is on where that is positive.

    Attributes:
        predictor: input channels to filters.
        mode: "predicted" (default) computes all filters and sets those to zero that are off, which training and
            exporting need; "skip" computes for each input those that are on, from the input channels that are not zero;
            "all" has all of them on; "oracle" looks at all outputs and keeps the most active, with `mass`.
        mass: share of the activation that these have together.
        rectified: whether a ReLU follows: only what is positive is activation then, else any magnitude.
        tally: None, or a list to which each pass adds the multiplications of its inputs, used and of all filters.
    """

    def __init__(self, conv: nn.Conv2d, mass: float = 0.6, rectified: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().clone())
        bias = torch.zeros(len(conv.weight)).to(conv.weight) if conv.bias is None else conv.bias.detach().clone()
        self.bias = nn.Parameter(bias)
        self.predictor = nn.Linear(self.weight.shape[1], len(self.weight)).to(conv.weight)
        self.stride, self.dilation = conv.stride, conv.dilation
        self.padding = list(conv._reversed_padding_repeated_twice)
        self.padding_mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        self.mode: Mode = "predicted"
        self.mass, self.rectified = mass, rectified
        self.tally: list[tuple[Tensor, float]] | None = None

    def kept(self, x: Tensor) -> Tensor:
        """Which filters the predictor switches on, bool `[N, filters]`."""
        return self.predictor(x.mean((2, 3))) > 0

    def heat(self, y: Tensor) -> Tensor:
        """How active each filter is: its largest activation, `[N, filters]`."""
        return (y.relu() if self.rectified else y.abs()).amax((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "skip":
            return self._skipped(x)
        y = self.convolved(x, self.weight, self.bias)
        if self.mode == "all":
            return y
        kept = most_active(self.heat(y.detach()), self.mass) if self.mode == "oracle" else self.kept(x)
        if self.tally is not None:
            self.tally.append((self._cost(x, y, kept), float(y[0, 0].numel() * self.weight.numel())))
        return y * kept[:, :, None, None]

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The convolution itself, with all of its filters or some."""
        return F.conv2d(F.pad(x, self.padding, mode=self.padding_mode), weight, bias, self.stride, 0, self.dilation)

    def _skipped(self, x: Tensor) -> Tensor:
        kept, given = self.kept(x), _present(x)
        shape = self.convolved(x[:, :1], self.weight[:1, :1], self.bias[:1]).shape
        y = x.new_zeros(len(x), len(self.weight), *shape[2:])
        for n, (filters, channels) in enumerate(zip(kept, given, strict=True)):
            rows, columns = filters.nonzero().flatten(), channels.nonzero().flatten()
            if len(rows) and len(columns):
                weight = self.weight[rows][:, columns]
                y[n, rows] = self.convolved(x[n : n + 1, columns], weight, self.bias[rows])[0]
            elif len(rows):
                y[n, rows] = self.bias[rows, None, None]
        return y

    def _cost(self, x: Tensor, y: Tensor, kept: Tensor) -> Tensor:
        """Multiplications of each input where what is off is skipped, those of the predictor included."""
        places, area = y[0, 0].numel(), self.weight[0, 0].numel()
        return kept.sum(1) * _present(x).sum(1) * places * area + self.predictor.weight.numel()


def _present(x: Tensor) -> Tensor:
    return (x != 0).flatten(2).any(2)


def most_active(heat: Tensor, mass: float) -> Tensor:
    """The fewest filters that together have a share of the activation of all, for each input.

    Args:
        heat: `[N, filters]`, not negative.
        mass: the share, in (0, 1].

    Returns:
        bool `[N, filters]`; what is not active at all is never on.

    Example:
        >>> most_active(torch.tensor([[5.0, 0.0, 3.0, 2.0]]), 0.6)
        tensor([[ True, False,  True, False]])
    """
    ordered, places = heat.double().sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(1) - ordered
    wanted = (before < mass * ordered.sum(1, keepdim=True) * (1 - 1e-12)) & (ordered > 0)
    return torch.zeros_like(wanted).scatter_(1, places, wanted)


def dynamic_layers(model: nn.Module) -> dict[str, DynamicConv2d]:
    """The dynamic convolutions of a network by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}


@dataclass(frozen=True)
class FilterCost:
    """Multiplications of the dynamic layers for an image, in the mean.

    Attributes:
        used: of the filters that are on, and of their predictors.
        whole: of all filters.
    """

    used: float
    whole: float

    @property
    def share(self) -> float:
        """Used over whole."""
        return self.used / self.whole


@torch.no_grad()
def filter_cost(model: nn.Module, batches: Iterable[Batch | Tensor], *, mode: Mode = "predicted") -> FilterCost:
    """Counts what a network with dynamic filters multiplies, on some images.

    Args:
        model: made by :func:`repertoire.compress.dynamic`; it stays as it is.
        batches: images, or batches of them.
        mode: "predicted" (default), or "oracle": what it would be if the predictors made no mistake, which is a
            forecast that needs none of them.

    Raises:
        ConfigError: there is no dynamic layer, or no batch.
    """
    layers = dynamic_layers(model)
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no dynamic layer; make some with compress.dynamic")
    before = {name: layer.mode for name, layer in layers.items()}
    tally: list[tuple[Tensor, float]] = []
    count = 0
    try:
        for layer in layers.values():
            layer.mode, layer.tally = mode, tally
        with evaluating(model):
            for batch in batches:
                images = batch.images if isinstance(batch, Batch) else batch
                model(images.to(next(iter(layers.values())).weight.device))
                count += len(images)
    finally:
        for name, layer in layers.items():
            layer.mode, layer.tally = before[name], None
    if not count:
        raise ConfigError("batches is empty; give some images to count on")
    used = sum(float(cost.double().sum()) for cost, _ in tally)
    return FilterCost(used / count, sum(len(cost) * whole for cost, whole in tally) / count)


@torch.no_grad()
def followers(model: nn.Module, images: Tensor) -> dict[str, tuple[str | None, bool]]:
    """For each convolution of one group the batch normalisation that takes its output, and whether a ReLU follows.

    Left out is what does more than a convolution, such as to pad its inputs in a way of its own.
    """
    takers: dict[int, list[str]] = {}
    outputs: dict[str, Tensor] = {}
    held: list[Tensor] = []  # so that no other tensor has the number of one that is gone
    leaves = {name: module for name, module in model.named_modules() if not list(module.children())}

    def taking(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def take(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                takers.setdefault(id(inputs[0]), []).append(name)
                held.append(inputs[0])
            if isinstance(output, Tensor):
                outputs[name] = output

        return take

    inplace = [module for module in leaves.values() if getattr(module, "inplace", False)]
    handles = [module.register_forward_hook(taking(name)) for name, module in leaves.items()]
    try:
        for module in inplace:
            module.inplace = False
        with evaluating(model):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
        for module in inplace:
            module.inplace = True
    found: dict[str, tuple[str | None, bool]] = {}
    for name, module in leaves.items():
        if not isinstance(module, nn.Conv2d) or module.groups != 1 or name not in outputs or not plain(module):
            continue
        last, norm = name, None
        after = takers.get(id(outputs[name]), [])
        if len(after) == 1 and isinstance(leaves[after[0]], nn.BatchNorm2d):
            last = norm = after[0]
        after = takers.get(id(outputs[last]), [])
        found[name] = norm, len(after) == 1 and isinstance(leaves[after[0]], nn.ReLU | nn.ReLU6)
    return found


def folded(model: nn.Module, layers: Mapping[str, tuple[str | None, bool]], mass: float) -> nn.Module:
    """A copy in which these convolutions are dynamic, with all filters on, and hold their batch normalisation.

    Raises:
        ConfigError: a name is no convolution of one group, or no batch normalisation.
    """
    made = copy.deepcopy(model)
    modules = dict(made.named_modules())
    for name, (norm, rectified) in layers.items():
        conv, after = modules.get(name), modules.get(norm) if norm is not None else None
        if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
            raise ConfigError(f"{name!r} is no convolution of one group")
        if norm is not None:
            if not isinstance(after, nn.BatchNorm2d) or after.running_mean is None or after.running_var is None:
                raise ConfigError(f"{norm!r} is no batch normalisation with statistics")
            with torch.no_grad():
                weight, bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, after.running_mean, after.running_var, after.eps, after.weight, after.bias
                )
            conv.weight, conv.bias = weight, bias
            made.set_submodule(norm, nn.Identity())
        layer = DynamicConv2d(conv, mass, rectified)
        if name:
            made.set_submodule(name, layer.train(conv.training))
        else:
            made = layer.train(conv.training)
    return made
