"""Networks of thinner matrices: by singular values at once, or by training that orders the columns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from repertoire.compress._changed import answers_changed, some_images
from repertoire.compress._distil import answers_alike, distil
from repertoire.compress._factored import (
    FactoredLayer,
    can_be_factored,
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
from repertoire.weights import Progress, Stored, form, input_moments, refresh_in_parts

__all__ = ["lowrank", "lowrank_form"]


@register("compressors", "lowrank", paper="maestro")
@checked
def lowrank(
    model: nn.Module,
    batches: Callable[[], Iterable[Batch]] | None = None,
    *,
    share: Annotated[float, Between(0, 1, "(]")] | None = None,
    error: Annotated[float, Between(0, 1, "()")] = 0.02,
    method: Literal["auto", "maestro", "svd"] = "auto",
    epochs: Annotated[int, AtLeast(0)] = 5,
    rate: Annotated[float, Positive] = 1e-3,
    lasso: Annotated[float, AtLeast(0)] = 1e-4,
    ends: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Stored:
    r"""Low rank: each weight as a product of two thin matrices, as thin as costs little, or of a share that is given.

    By default nothing is learned, and what decides is how much the answers change. With the second moments G of what
    enters a layer, the nearest product to its outputs is that of the singular value decomposition

    .. math::
        W G^{1/2} = U S V^T, \qquad W \approx U_r U_r^T W,

    cut where the squares of what is left are a share e of all squares. e is the largest, among `error` and seven that
    are a fourth of the one before, for which the logits of the network change by no more than `error` (squares, as a
    share of how much they differ from image to image). A layer whose two matrices would be larger than
    its weight stays as it is. Networks that are thin already, such as those of separable convolutions, have little to
    give. Of few images the moments are uncertain, and count as much as there are images for each input.

    With a `share`, Horvath et al., *Maestro: Uncovering Low-Rank Structures via Trainable Decomposition* (2023). Every
    layer becomes U V^T of full rank. At each step one layer is restricted to its first b columns, drawn evenly, and
    what is minimised is

    .. math::
        \ell(f(x)) + \mathrm{KL}\big(f(x) \,\|\, f_b(x)\big)
        + \lambda \sum_{\text{layers}} \sum_b \big( \| U_{:, b:} \|_F + \| V_{:, b:} \|_F \big),

    so that early columns learn most and late ones shrink. Then the columns that matter least are cut off until `share`
    of the weights is left: by the product of the two norms from a column on, squared, as a share of that of the whole
    layer, and for each weight that the column costs. The network learns without sampling for as many epochs again. The
    authors train from labels and cut at a fixed tolerance of that product, epoch by epoch; here the first term is the
    divergence from the answers of the network as it was, which needs no labels. With "svd" the columns are those of the
    singular value decomposition, which is cut alike before anything is learned. What is cut off that way is learned
    again from hundreds of batches, and not from one.

    Args:
        model: the network; it stays as it is.
        batches: called without arguments, gives samples to learn from; no labels are needed. None learns nothing.
        share: of the weights of factored layers that are kept, in (0, 1]; None (default) for as few as `error` permits.
            A layer whose two matrices would be larger than its weight stays a single one.
        error: without a share, how much the logits may change. Without batches nobody knows, and an eighth of it is
            what each weight may lose of its squares.
        method: with a share, "maestro", "svd", or "auto" (default): the first where there are batches.
        epochs: with a share, passes over the batches before the cut, with "maestro", and after it with both.
        rate: learning rate of Adam, which falls to zero over the epochs.
        lasso: the weight λ of the penalty.
        ends: whether the first and the last layer are factored, too.
        seed: of the drawn columns.
        progress: where moments, factors and what is learned are kept; by default nowhere.

    Returns:
        The stored network, of form "lowrank". With a share and batches, statistics of batch normalisation are measured
        anew behind the cut.

    Raises:
        ConfigError: there is no layer to factor, no batch, or "maestro" has no share, or no batches to learn from.

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
    if method == "maestro" and share is None:
        raise ConfigError("method 'maestro' learns for a share of the weights; say which, such as share=0.25")
    learns = batches is not None and epochs > 0
    names = [name.removesuffix("weight").removesuffix(".") for name in prunable_weights(model)]
    chosen = names if ends else names[1:-1]
    if not chosen:
        raise ConfigError("there is no layer between the first and the last to factor; factor these with ends=true")
    progress = progress or Progress()
    if share is None:
        return _stored(_as_thin_as_costs_little(model, chosen, batches, error, progress))

    def cut() -> nn.Module:
        skip = [name for name in names if name not in chosen]
        network = _kept(progress, "factors", model, lambda: low_rank(model, skip=skip))
        if learns and method != "svd" and batches is not None:
            _ordered(network, model, batches, epochs=epochs, rate=rate, lasso=lasso, seed=seed, progress=progress)
        scores = {}
        for name, layer in factored_layers(network).items():
            # What is left of a layer without the columns before, as a share, for each weight that a column costs.
            tails = layer.importance().double().square()
            scores[name] = tails / tails[0].clamp_min(1e-300) / sum(_sides(layer))
        return _cut(network, model, scores, share)

    with torch.random.fork_rng(devices=[]):  # layers may draw; the order of batches does not
        network = _kept(progress, "cut", model, cut)
        if batches is not None:
            # Before the network learns, which it does with the statistics that it has.
            refresh_in_parts(network, batches(), progress, "statistics")
            if learns:
                distil(network, model, batches, epochs=epochs, rate=rate, progress=progress, name="answers")
    return _stored(network)


def _kept(progress: Progress, name: str, model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A network with factored layers that was kept, or the one that is made now, and kept."""
    if (kept := progress.load(name)) is not None:
        device = next(model.parameters()).device
        tensors = {own: value.to(device) for own, value in kept.tensors.items()}
        return Stored("lowrank", tensors, {"layers": kept.told["layers"]}).build(copy.deepcopy(model))
    network = make()
    if progress.folder is not None:
        stored = _stored(network)
        progress.save(name, stored.tensors, stored.settings)
    return network


def _stored(network: nn.Module) -> Stored:
    left = list(factored_layers(network))
    return Stored("lowrank", {name: value.clone() for name, value in network.state_dict().items()}, {"layers": left})


@torch.no_grad()
def _as_thin_as_costs_little(
    model: nn.Module,
    chosen: Sequence[str],
    batches: Callable[[], Iterable[Batch]] | None,
    error: float,
    progress: Progress,
) -> nn.Module:
    """Layers cut where the energy of their outputs says so, at the largest share for which the answers stay."""
    images = None if batches is None else some_images(batches, next(model.parameters()).device)
    moments = {} if images is None else input_moments(model, images.split(64), chosen, progress=progress)
    layers: dict[str, tuple[nn.Linear | nn.Conv2d, Tensor, Tensor]] = {}
    for number, name in enumerate(chosen):
        layer = model.get_submodule(name)
        if not can_be_factored(layer):
            continue
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        weight = layer.weight.flatten(1).double()

        def directions(name: str = name, weight: Tensor = weight) -> dict[str, Tensor]:
            outputs = weight @ weight.T
            if images is not None and name in moments:
                seen = moments[name].to(outputs)
                # Of fewer images than inputs, what was seen says little of other images: all inputs count alike then.
                known = len(images) / (len(images) + len(seen))
                outputs = known * (weight @ seen @ weight.T) + (1 - known) * seen.diagonal().mean() * outputs
            return dict(zip(("values", "vectors"), torch.linalg.eigh(outputs), strict=True))

        found = progress.part(f"layer-{number}", directions)
        values, vectors = (found[part].to(weight) for part in ("values", "vectors"))
        # eigh sorts upwards. What is left without the first r columns, as a share, for r of 0 and more.
        energy = values.clamp_min(0)
        tails = energy.cumsum(0).flip(0) / energy.sum().clamp_min(1e-300)
        layers[name] = layer, vectors.flip(1), tails
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no linear layer and no convolution of one group to factor")
    if images is None:
        return _thin(model, layers, error / 8)
    for fourths in range(8):
        network = _thin(model, layers, error / 4**fourths)
        if progress.value(f"changed-{fourths}", partial(answers_changed, network, model, images)) <= error:
            return network
    return copy.deepcopy(model)


def _thin(
    model: nn.Module, layers: Mapping[str, tuple[nn.Linear | nn.Conv2d, Tensor, Tensor]], least: float
) -> nn.Module:
    """A copy whose layers are products as thin as leaves no more than a share of the energy, where that is smaller."""
    network = copy.deepcopy(model)
    for name, (layer, vectors, tails) in layers.items():
        weight = layer.weight.flatten(1)
        rank = max(1, int((tails > least).sum()))
        if rank * sum(weight.shape) >= weight.numel():
            continue
        left = vectors[:, :rank]
        right = left.T @ weight.double()
        network = put(network, name, product(layer, left.to(weight).contiguous(), right.to(weight).contiguous()))
    return network


def _ordered(
    network: nn.Module,
    teacher: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    *,
    epochs: int,
    rate: float,
    lasso: float,
    seed: int,
    progress: Progress,
) -> None:
    """Trains so that the first columns matter most."""
    generator = torch.Generator().manual_seed(seed)

    def loss(images: Tensor, wanted: Tensor) -> Tensor:
        whole = network(images)
        with sampled_rank(network, generator):
            part = network(images)
        return answers_alike(whole, wanted) + answers_alike(part, whole) + lasso * group_lasso(network)

    kept: dict[str, Any] = {"generators": [generator], "progress": progress, "name": "columns"}
    distil(network, teacher, batches, epochs=epochs, rate=rate, loss=loss, **kept)


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
        if not isinstance(layer, nn.Linear | nn.Conv2d) or not can_be_factored(layer):
            raise CheckpointError(f"the tensors do not fit the network, where {name!r} is no layer to factor")
        sides = layer.weight.shape[0], layer.weight[0].numel()
        if (left.shape[0], right.shape[1]) != sides or left.shape[1] != right.shape[0]:
            raise CheckpointError(
                f"{name} has factors of {list(left.shape)} and {list(right.shape)}; the layer is {list(sides)}"
            )
        model = put(model, name, product(layer, torch.zeros_like(left), torch.zeros_like(right)))
    return Stored("dense", tensors).build(model)
