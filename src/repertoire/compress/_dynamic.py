"""Dynamic pruning: filters that matter little for an image are not computed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.compress._changed import answers_changed, some_images
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
from repertoire.weights import Kept, Progress, Stored, form

__all__ = ["dynamic", "dynamic_form"]


@register("compressors", "dynamic", paper="fire-together-wire-together")
@checked
def dynamic(
    model: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    *,
    mass: Annotated[float, Between(0, 1, "(]")] | None = None,
    error: Annotated[float, Between(0, 1, "()")] = 0.02,
    rounds: Annotated[int, AtLeast(1)] = 2,
    epochs: Annotated[int, AtLeast(0)] = 2,
    rate: Annotated[float, Positive] = 1e-3,
    first: bool = False,
    progress: Progress | None = None,
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

    By default the mass is found, and the network's own weights stay as they are. Only convolutions that a ReLU follows
    become dynamic, if there are any: of others, such as those whose outputs are added to a shortcut, no filter is
    silent. Predictors are fitted on three quarters of the images. On the last quarter, a layer whose predictor drops
    more than `error` of the squares of its activation is left as it is, and the logits may change by no more than
    `error` (squares, as a share of how much they differ from image to image). The least mass for which they do not
    stays, and predictors are then fitted on all images. A predictor has as many weights as inputs: a few dozen images
    seldom teach it. The paper trains for 0.6 of the mass or less, with the labels of a large set.

    Args:
        model: a network with convolutions of one group; it stays as it is.
        batches: called without arguments, gives samples to learn from; no labels are needed.
        mass: r, the share of the activation that is kept, in (0, 1]; None (default) for the least of 0.6, 0.8, 0.9,
            0.95, 0.98 and 0.995 that `error` permits.
        error: without a mass, how much the logits may change.
        rounds: with a mass, how often predictors are fitted and the network learns, 2 by default.
        epochs: with a mass, passes over the batches in which the network learns, in each round; 0 leaves its weights
            as they are.
        rate: learning rate of Adam, which falls to zero over the epochs of a round.
        first: whether the first convolution is dynamic, too, whose predictor sees nothing but the mean colours.
        progress: where predictors, what the network learns and what was counted are kept; by default nowhere.

    Returns:
        The stored network, of form "dynamic". Its settings have the `share` of multiplications that is left on the
        batches, and the `forecast` of it before anything has learned: that of predictors without mistakes.

    Raises:
        ConfigError: the network has no convolution to prune, there is no batch, no mass permits so small an error, or
            options out of range.

    Example:
        >>> import torch
        >>> from repertoire.compress import dynamic
        >>> from repertoire.data import Batch
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(2, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3)).eval()
        >>> batch = Batch((torch.rand(16, 2, 6, 6),), torch.zeros(16), torch.arange(16))
        >>> stored = dynamic(torch.nn.Sequential(model, torch.nn.Flatten()), lambda: [batch], mass=0.6, first=True)
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
    progress = progress or Progress()
    if mass is None:
        return _at_little_cost(model, layers, batches, error, progress)
    network = folded(model, layers, mass)
    forecast = progress.value("forecast", partial(_forecast, network, batches))
    for number in range(rounds):
        _fit(network, batches, "all" if number == 0 else "predicted", progress, f"fit-{number}")
        if epochs:
            distil(network, model, batches, epochs=epochs, rate=rate, progress=progress, name=f"learned-{number}")
    return _stored(network, layers, batches, mass, forecast, progress)


# Random networks on random images have no mass that keeps their answers.
dynamic.example_options = lambda: {"mass": 0.6}  # type: ignore[attr-defined]


def _forecast(network: nn.Module, batches: Callable[[], Iterable[Batch]]) -> float:
    """The share of multiplications that predictors without mistakes would leave."""
    return filter_cost(network, batches(), mode="oracle").share


def _stored(
    network: nn.Module,
    layers: Mapping[str, tuple[str | None, bool]],
    batches: Callable[[], Iterable[Batch]],
    mass: float,
    forecast: float,
    progress: Progress,
) -> Stored:
    share = progress.value("share", lambda: filter_cost(network, batches()).share)
    settings = {
        "layers": {name: norm for name, (norm, _) in layers.items()},
        "mass": mass,
        "rectified": [name for name, (_, rectified) in layers.items() if rectified],
        "share": share,
        "forecast": forecast,
    }
    return Stored("dynamic", {name: value.clone() for name, value in network.state_dict().items()}, settings)


MASSES = (0.6, 0.8, 0.9, 0.95, 0.98, 0.995)
"""Of which the least is taken that changes the answers little enough."""


def _at_little_cost(
    model: nn.Module,
    layers: Mapping[str, tuple[str | None, bool]],
    batches: Callable[[], Iterable[Batch]],
    error: float,
    progress: Progress,
) -> Stored:
    """At the least mass for which the answers stay as they are, on images that predictors have not seen."""
    images = some_images(batches, next(model.parameters()).device)
    held = images[3::4]
    if not len(held):
        raise ConfigError(
            f"four images or more say which mass changes the answers little, found {len(images)}; name it"
        )
    others = images[torch.arange(len(images), device=images.device) % 4 != 3]
    begun = {name: found for name, found in layers.items() if found[1]} or dict(layers)
    found = "no predictor foresees what its layer does"

    def tried(number: int, mass: float) -> tuple[list[str], float]:
        """The layers that are foreseen well enough at a mass, and how much the answers change by them."""
        network = folded(model, begun, mass)
        _fit(network, lambda: others.split(64), "all", progress, f"mass-{number}-fit")
        foreseen = [name for name, lost in _lost(network, held).items() if lost <= error]
        for name, layer in dynamic_layers(network).items():
            layer.mode = "predicted" if name in foreseen else "all"
        return foreseen, answers_changed(network, model, held) if foreseen else 0.0

    for number, mass in enumerate(MASSES):
        foreseen, changed = progress.value(f"mass-{number}", partial(tried, number, mass))
        progress.forget(f"mass-{number}-fit")
        if not foreseen:
            continue
        found = f"at {mass:g} it is {changed:.3g}"
        if changed <= error:
            kept = {name: begun[name] for name in foreseen}
            network = folded(model, kept, mass)
            forecast = progress.value("forecast", partial(_forecast, network, batches))
            _fit(network, batches, "all", progress, "fit")
            return _stored(network, kept, batches, mass, forecast, progress)
    raise ConfigError(
        f"no mass changes the answers on images that were held out by {error:g} or less ({found}); give more images "
        "to learn from, permit more with error=..., or name a mass"
    )


@torch.no_grad()
def _lost(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Of each layer, what its predictor drops of the squares of its activation, with all filters on before it."""
    layers = dynamic_layers(network)
    dropped = dict.fromkeys(layers, 0.0)
    whole = dict.fromkeys(layers, 0.0)

    def watching(name: str) -> Callable[[DynamicConv2d, tuple[Tensor, ...], Tensor], None]:
        def watch(layer: DynamicConv2d, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            squares = (y.relu() if layer.rectified else y).square().sum((2, 3))
            whole[name] += float(squares.sum())
            dropped[name] += float((squares * ~layer.kept(inputs[0])).sum())

        return watch

    handles = [layer.register_forward_hook(watching(name)) for name, layer in layers.items()]
    try:
        for layer in layers.values():
            layer.mode = "all"
        with evaluating(network):
            for part in images.split(64):
                network(part)
    finally:
        for handle in handles:
            handle.remove()
    return {name: dropped[name] / max(whole[name], 1e-300) for name in layers}


@torch.no_grad()
def _fit(
    network: nn.Module, batches: Callable[[], Iterable[Batch | Tensor]], mode: str, progress: Progress, name: str
) -> None:
    """Fits all predictors to what their layers do on the batches, in the network as it is."""
    layers = dynamic_layers(network)
    parts = [f"{name}-{number}" for number in range(len(layers))]

    def fitted() -> dict[str, Tensor]:
        means, wanted = _looked_at(network, batches, mode, progress, f"{name}-seen")
        found: dict[str, Tensor] = {}
        for part, layer in zip(parts, layers, strict=True):
            one = progress.part(part, partial(_predictor, torch.cat(means[layer]), torch.cat(wanted[layer])))
            found |= {f"{layer}.{own}": value for own, value in one.items()}
        return found

    predictors = progress.part(name, fitted)
    progress.forget(f"{name}-seen", *parts)
    for of, layer in layers.items():
        layer.mode = "predicted"
        layer.predictor.weight.copy_(predictors[f"{of}.weight"])
        layer.predictor.bias.copy_(predictors[f"{of}.bias"])


def _looked_at(
    network: nn.Module, batches: Callable[[], Iterable[Batch | Tensor]], mode: str, progress: Progress, name: str
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """What each predictor is given on the batches, and which filters are most active for it."""
    layers = dynamic_layers(network)
    means: dict[str, list[Tensor]] = {name: [] for name in layers}
    wanted: dict[str, list[Tensor]] = {name: [] for name in layers}

    def watching(name: str) -> Callable[[DynamicConv2d, tuple[Tensor, ...]], None]:
        def watch(layer: DynamicConv2d, inputs: tuple[Tensor, ...]) -> None:
            means[name].append(inputs[0].mean((2, 3)))
            y = layer.convolved(inputs[0], layer.weight, layer.bias)
            wanted[name].append(most_active(layer.heat(y), layer.mass))

        return watch

    def state() -> tuple[dict[str, Tensor], dict[str, Any]]:
        found = {f"means.{of}": torch.cat(values) for of, values in means.items()}
        return found | {f"wanted.{of}": torch.cat(values) for of, values in wanted.items()}, {}

    def put_back(kept: Kept) -> None:
        for of in layers:
            means[of], wanted[of] = ([kept.tensors[f"{what}.{of}"].to(device)] for what in ("means", "wanted"))

    device = next(network.parameters()).device
    handles = [layer.register_forward_pre_hook(watching(of)) for of, layer in layers.items()]
    try:
        for layer in layers.values():
            layer.mode = mode  # type: ignore[assignment]
        with evaluating(network):
            for batch in progress.through(name, batches(), state, put_back):
                network((batch.images if isinstance(batch, Batch) else batch).to(device))
    finally:
        for handle in handles:
            handle.remove()
    return means, wanted


def _predictor(means: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    return dict(zip(("weight", "bias"), _logistic(means, wanted), strict=True))


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
