"""Dynamic pruning: filters that matter little for an image are not computed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.compress._distil import distil
from repertoire.compress._filters import (
    DynamicConv2d,
    dynamic_layers,
    filter_cost,
    folded,
    followers,
    most_active,
)
from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.ops import evaluating
from repertoire.ranges import AtLeast, Between, Positive, checked
from repertoire.registry import register
from repertoire.weights import Stored, form

__all__ = ["dynamic", "dynamic_form"]


@register("compressors", "dynamic", paper="fire-together-wire-together")
@checked
def dynamic(
    model: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    *,
    mass: Annotated[float, Between(0, 1, "(]")] = 0.6,
    rounds: Annotated[int, AtLeast(1)] = 2,
    epochs: Annotated[int, AtLeast(0)] = 2,
    rate: Annotated[float, Positive] = 1e-3,
    first: bool = False,
) -> Stored:
    r"""Filters that fire together for an image are foreseen by a small predictor, and only these are computed.

    Elkerdawy et al., *Fire Together Wire Together: A Dynamic Pruning Approach with Self-Supervised Mask Prediction*
    (2022). The target of a layer's predictor is what the layer itself does: with the largest activation of each filter
    sorted, a_(1) >= a_(2) >= ..., the first k are on, where

    .. math:: k = \min \Big\{ k : \sum_{i \le k} a_{(i)} \ge r \sum_i a_{(i)} \Big\}.

    The predictor, a linear layer on the means of the layer's input channels, learns that by binary cross-entropy; its
    gradient goes nowhere else. The network learns meanwhile to answer as it did. Networks become faster, not smaller:
    the file also holds the predictors, and batch normalisation is folded into the convolutions. The released code
    leaves out the filter with which the mass is reached, and trains everything at once and from labels; here predictors
    are fitted, then the network learns with their masks, `rounds` times.

    The network that is built computes all filters and sets those to zero that are off. For single images set
    `mode="skip"` on its layers (:class:`repertoire.compress.DynamicConv2d`), which leaves out the computation itself.

    Args:
        model: a network with convolutions of one group; it stays as it is.
        batches: called without arguments, gives samples to learn from; no labels are needed.
        mass: r, the share of the activation that is kept, in (0, 1], 0.6 by default.
        rounds: how often predictors are fitted and the network learns, 2 by default.
        epochs: passes over the batches in which the network learns, in each round; 0 leaves its weights as they are.
        rate: learning rate of Adam, which falls to zero over the epochs of a round.
        first: whether the first convolution is dynamic, too, whose predictor sees nothing but the mean colours.

    Returns:
        The stored network, of form "dynamic". Its settings have the `share` of multiplications that is left on the
        batches, and the `forecast` of it before anything has learned: that of predictors without mistakes.

    Raises:
        ConfigError: the network has no convolution to prune, there is no batch, or options out of range.

    Example:
        >>> import torch
        >>> from repertoire.compress import dynamic
        >>> from repertoire.data import Batch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(2, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3)).eval()
        >>> batch = Batch((torch.rand(16, 2, 6, 6),), torch.zeros(16), torch.arange(16))
        >>> stored = dynamic(torch.nn.Sequential(model, torch.nn.Flatten()), lambda: [batch], first=True)
        >>> 0 < stored.settings["share"] < 1
        True
    """
    images = next((batch.images for batch in batches()), None)
    if images is None:
        raise ConfigError("batches is empty; give some training samples to learn from")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found = followers(model, images[:2].to(device))
    layers = dict(list(found.items())[0 if first else 1 :])
    if not layers:
        hint = "" if first or not found else " behind the first; make that one dynamic with first=true"
        raise ConfigError(f"{type(model).__name__} has no convolution of one group{hint}")
    network = folded(model, layers, mass)
    forecast = filter_cost(network, batches(), mode="oracle").share
    for number in range(rounds):
        _fit(network, batches, "all" if number == 0 else "predicted")
        if epochs:
            distil(network, model, batches, epochs=epochs, rate=rate)
    share = filter_cost(network, batches()).share
    settings = {
        "layers": {name: norm for name, (norm, _) in layers.items()},
        "mass": mass,
        "rectified": [name for name, (_, rectified) in layers.items() if rectified],
        "share": share,
        "forecast": forecast,
    }
    return Stored("dynamic", {name: value.clone() for name, value in network.state_dict().items()}, settings)


@torch.no_grad()
def _fit(network: nn.Module, batches: Callable[[], Iterable[Batch]], mode: str) -> None:
    """Fits all predictors to what their layers do on the batches, in the network as it is."""
    layers = dynamic_layers(network)
    means: dict[str, list[Tensor]] = {name: [] for name in layers}
    wanted: dict[str, list[Tensor]] = {name: [] for name in layers}

    def watching(name: str) -> Callable[[DynamicConv2d, tuple[Tensor, ...]], None]:
        def watch(layer: DynamicConv2d, inputs: tuple[Tensor, ...]) -> None:
            means[name].append(inputs[0].mean((2, 3)))
            y = layer.convolved(inputs[0], layer.weight, layer.bias)
            wanted[name].append(most_active(layer.heat(y), layer.mass))

        return watch

    handles = [layer.register_forward_pre_hook(watching(name)) for name, layer in layers.items()]
    try:
        for layer in layers.values():
            layer.mode = mode  # type: ignore[assignment]
        device = next(network.parameters()).device
        with evaluating(network):
            for batch in batches():
                network(batch.images.to(device))
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            layer.mode = "predicted"
    for name, layer in layers.items():
        weight, bias = _logistic(torch.cat(means[name]), torch.cat(wanted[name]))
        layer.predictor.weight.copy_(weight)
        layer.predictor.bias.copy_(bias)


def _logistic(x: Tensor, y: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weights and biases of a logistic regression for each column of y."""
    mean, scale = x.double().mean(0), x.double().std(0, unbiased=False).clamp_min(1e-6)
    rows, target = (x.double() - mean) / scale, y.double()
    weight = torch.zeros(y.shape[1], x.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    # Begins at the logarithm of the odds, which is the answer for inputs that say nothing.
    odds = ((target.sum(0) + 0.5) / ((1 - target).sum(0) + 0.5)).log()
    bias = odds.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        errors = F.binary_cross_entropy_with_logits(F.linear(rows, weight, bias), target, reduction="none")
        loss = errors.mean(0).sum() + ridge * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    found = weight.detach() / scale
    return found.to(x.dtype), (bias.detach() - found @ mean).to(x.dtype)


@form("dynamic")
def dynamic_form(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    layers: Mapping[str, str | None],
    mass: float = 0.6,
    rectified: Sequence[str] = (),
    share: float = 1.0,
    forecast: float = 1.0,
) -> nn.Module:
    """Convolutions with predictors of their filters, which hold the batch normalisation that followed them."""
    try:
        network = folded(model, {name: (norm, name in rectified) for name, norm in layers.items()}, mass)
    except ConfigError as error:
        raise CheckpointError(f"the tensors do not fit the network: {error}") from None
    return Stored("dense", tensors).build(network)
