"""Networks of thinner matrices: by singular values at once, or by training that orders the columns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from repertoire.compress._distil import answers_alike, distil
from repertoire.compress._factored import (
    FactoredLayer,
    factored,
    factored_layers,
    group_lasso,
    low_rank,
    product,
    put,
    sampled_rank,
)
from repertoire.compress._layers import part_of
from repertoire.data import Batch
from repertoire.diagnostics import prunable_weights
from repertoire.errors import CheckpointError, ConfigError
from repertoire.ranges import AtLeast, Between, Positive, checked
from repertoire.registry import register
from repertoire.weights import Stored, form, refresh_batchnorm

__all__ = ["lowrank", "lowrank_form"]


@register("compressors", "lowrank", paper="maestro")
@checked
def lowrank(
    model: nn.Module,
    batches: Callable[[], Iterable[Batch]] | None = None,
    *,
    share: Annotated[float, Between(0, 1, "(]")] = 0.25,
    method: Literal["auto", "maestro", "svd"] = "auto",
    epochs: Annotated[int, AtLeast(0)] = 5,
    rate: Annotated[float, Positive] = 1e-3,
    lasso: Annotated[float, AtLeast(0)] = 1e-4,
    ends: bool = False,
    seed: int = 0,
) -> Stored:
    r"""Low rank: each weight as a product of two thin matrices, whose ranks are learned or taken from singular values.

    Horvath et al., *Maestro: Uncovering Low-Rank Structures via Trainable Decomposition* (2023). Every layer becomes
    U V^T of full rank. At each step one layer is restricted to its first b columns, drawn evenly, and what is minimised
    is

    .. math::
        \ell(f(x)) + \mathrm{KL}\big(f(x) \,\|\, f_b(x)\big)
        + \lambda \sum_{\text{layers}} \sum_b \big( \| U_{:, b:} \|_F + \| V_{:, b:} \|_F \big),

    so that early columns learn most and late ones shrink. Then the columns that matter least are cut off until `share`
    of the weights is left: by the product of the two norms from a column on, squared, as a share of that of the whole
    layer, and for each weight that the column costs. The network learns without sampling for as many epochs again. The
    authors train from labels and cut at a fixed tolerance of that product, epoch by epoch; here the first term is the
    divergence from the answers of the network as it was, which needs no labels. With "svd" the columns are those of the
    singular value decomposition, which is cut alike before anything is learned.

    Args:
        model: the network; it stays as it is.
        batches: called without arguments, gives samples to learn from; no labels are needed. None learns nothing.
        share: of the weights of factored layers that are kept, in (0, 1]. A layer whose two matrices would be larger
            than its weight stays a single one.
        method: "maestro", "svd", or "auto" (default): the first where there are batches.
        epochs: passes over the batches before the cut, with "maestro", and after it with both.
        rate: learning rate of Adam, which falls to zero over the epochs.
        lasso: the weight λ of the penalty.
        ends: whether the first and the last layer are factored, too.
        seed: of the drawn columns.

    Returns:
        The stored network, of form "lowrank". Statistics of batch normalisation are measured anew behind
        the cut.

    Raises:
        ConfigError: there is no layer to factor, no batch, or "maestro" has no batches to learn from.

    Example:
        >>> import torch
        >>> from repertoire.compress import lowrank
        >>> model = torch.nn.Linear(64, 64)
        >>> stored = lowrank(model, method="svd", share=0.25, ends=True)
        >>> stored.tensors["left"].shape, stored.bytes < 0.3 * 4 * 64 * 64
        (torch.Size([64, 8]), True)
    """
    if method == "maestro" and batches is None:
        raise ConfigError("method 'maestro' learns, and needs batches; give some, or method='svd'")
    learns = batches is not None and epochs > 0
    names = [name.removesuffix("weight").removesuffix(".") for name in prunable_weights(model)]
    chosen = names if ends else names[1:-1]
    if not chosen:
        raise ConfigError("there is no layer between the first and the last to factor; factor these with ends=true")
    network = low_rank(model, skip=[name for name in names if name not in chosen])
    with torch.random.fork_rng(devices=[]):  # layers may draw; the order of batches does not
        if learns and method != "svd" and batches is not None:
            _ordered(network, model, batches, epochs=epochs, rate=rate, lasso=lasso, seed=seed)
        scores = {}
        for name, layer in factored_layers(network).items():
            # What is left of a layer without the columns before, as a share, for each weight that a column costs.
            tails = layer.importance().double().square()
            scores[name] = tails / tails[0].clamp_min(1e-300) / sum(_sides(layer))
        network = _cut(network, model, scores, share)
        if batches is not None:
            # Before the network learns, which it does with the statistics that it has.
            refresh_batchnorm(network, batches())
            if learns:
                distil(network, model, batches, epochs=epochs, rate=rate)
    left = list(factored_layers(network))
    return Stored("lowrank", {name: value.clone() for name, value in network.state_dict().items()}, {"layers": left})


def _ordered(
    network: nn.Module,
    teacher: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    *,
    epochs: int,
    rate: float,
    lasso: float,
    seed: int,
) -> None:
    """Trains so that the first columns matter most."""
    generator = torch.Generator().manual_seed(seed)

    def loss(images: Tensor, wanted: Tensor) -> Tensor:
        whole = network(images)
        with sampled_rank(network, generator):
            part = network(images)
        return answers_alike(whole, wanted) + answers_alike(part, whole) + lasso * group_lasso(network)

    distil(network, teacher, batches, epochs=epochs, rate=rate, loss=loss)


def _sides(layer: FactoredLayer) -> tuple[int, int]:
    return layer.left.shape[0], layer.right.shape[1]


@torch.no_grad()
def _cut(network: nn.Module, model: nn.Module, scores: Mapping[str, Tensor], share: float) -> nn.Module:
    """Keeps the columns with the highest scores, until their weights are a share of those of the whole layers. What is
    no smaller as two matrices becomes one."""
    layers = factored_layers(network)
    costs = {name: sum(_sides(layer)) for name, layer in layers.items()}
    whole = {name: _sides(layer)[0] * _sides(layer)[1] for name, layer in layers.items()}
    ranks = dict.fromkeys(layers, 1)

    def size(ranks: Mapping[str, int]) -> int:
        return sum(min(whole[name], rank * costs[name]) for name, rank in ranks.items())

    # Scores fall within a layer, so that going through all of them takes the columns of each in their order.
    order = sorted(
        ((-float(score), name) for name, layer in scores.items() for score in layer[1:].tolist()),
        key=lambda pair: pair[0],
    )
    budget = share * sum(whole.values())
    for _, name in order:
        if size({**ranks, name: ranks[name] + 1}) > budget:
            continue
        ranks[name] += 1
    for name, layer in layers.items():
        original = model.get_submodule(name)
        assert isinstance(original, nn.Linear | nn.Conv2d)
        rank = ranks[name]
        if rank * costs[name] >= whole[name]:
            merged = copy.deepcopy(original)
            merged.weight.copy_(layer.weight().view_as(merged.weight))
            if layer.bias is not None and merged.bias is not None:
                merged.bias.copy_(layer.bias)
            network = put(network, name, merged)
            continue
        cut = product(original, layer.left[:, :rank].clone(), layer.right[:rank].clone())
        if layer.bias is not None and cut.bias is not None:
            cut.bias.copy_(layer.bias)
        network = put(network, name, cut)
    return network


@form("lowrank")
def lowrank_form(model: nn.Module, tensors: Mapping[str, Tensor], layers: Sequence[str] = ()) -> nn.Module:
    """Layers as products of two matrices, whose rank is that of the tensors."""
    modules = dict(model.named_modules())
    for name in layers:
        layer, start = modules.get(name), f"{name}." if name else ""
        left, right = part_of(tensors, f"{start}left"), part_of(tensors, f"{start}right")
        if not isinstance(layer, nn.Linear | nn.Conv2d) or factored(layer, 1) is None:
            raise CheckpointError(f"the tensors do not fit the network, where {name!r} is no layer to factor")
        sides = layer.weight.shape[0], layer.weight[0].numel()
        if (left.shape[0], right.shape[1]) != sides or left.shape[1] != right.shape[0]:
            raise CheckpointError(
                f"{name} has factors of {list(left.shape)} and {list(right.shape)}; the layer is {list(sides)}"
            )
        model = put(model, name, product(layer, torch.zeros_like(left), torch.zeros_like(right)))
    return Stored("dense", tensors).build(model)
