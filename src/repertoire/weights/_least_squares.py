"""PLeaS: two networks from different starts in one, of the width that one likes, fitted layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating
from repertoire.ranges import AtLeast, Between, checked
from repertoire.registry import register
from repertoire.weights._matching import By, Matching, Rebased, by_activations, by_weights, shared_groups, spread
from repertoire.weights._moments import layer_rows, watched
from repertoire.weights._progress import Kept, Progress
from repertoire.weights._state import State, check_alike, is_averaged
from repertoire.weights._stored import Stored
from repertoire.weights._units import UnitAxis, UnitGroup, units

__all__ = ["permute_least_squares"]

BATCH = 64

_SUMS = "sums"
"""Under which name the sums of all layers are kept."""


@register("weight-operators", "permute-least-squares", paper="pleas")
@checked
@torch.no_grad()
def permute_least_squares(
    states: Sequence[State],
    network: Callable[[State, int], nn.Module],
    batches: Callable[[int | None], Iterator[Batch]],
    *,
    width: Annotated[float, Between(1, 2)] = 1.0,
    by: By = "activations",
    samples: Annotated[int, AtLeast(1)] = 512,
    ridge: Annotated[float, AtLeast(0)] = 1e-4,
    progress: Progress | None = None,
) -> Rebased | Stored:
    r"""Permutation and least squares: two networks from different starts, matched by unit and fitted layer by layer.

    Nasery, Hayase, Koh and Oh, *PLeaS -- Merging Models with Permutations and Least Squares* (2024). The units of both
    are matched (:func:`repertoire.weights.match`). In each group the pairs that are most alike become one unit; of the
    others both units stay, side by side, so that a group of n has `width` n. With the inputs z of a layer, where a
    merged unit is the mean of its pair, and the answers y of both layers, put together in the same way, the layer's
    weights are

    .. math::
        W = \arg\min_W \sum_i \lVert W z_i - y_i \rVert^2 + \lambda \lVert W - W_0 \rVert^2

    where :math:`W_0` are the weights put together: the mean for merged units, each network's own for its own. From
    units of one network's own, nothing goes to those of the other's. At a width of 2, both networks run side by side,
    and the result is the mean of their logits; a width of 1 gives a network of the architecture that they have.

    The paper gives every layer a width of its own, by a quadratic programme over their costs; here all groups have the
    same. Groups that cannot be widened keep their size: those of layers other than linear ones, convolutions and batch
    normalisation, and those that padded shortcuts carry. The authors fit by gradient descent, from :math:`W_0` with
    400 steps of Adam; here the minimum is computed, and the ridge is what keeps it near the beginning.

    Networks with batch normalisation want :func:`repertoire.weights.refresh_batchnorm` afterwards.

    Args:
        states: two, of one architecture. Integers and booleans are taken from the first.
        network: `network(state, of)`, a new network with these weights, and the head of that run where heads are not
            part of the states.
        batches: `batches(None)`, samples of both runs.
        width: from 1 (default) to 2, the units of a group in multiples of what they are.
        by: how units are matched, by "activations" (default) or "weights".
        samples: how many to fit on, from all over the batches; 512 by default.
        ridge: the penalty's weight, in units of the mean square of an input; 1e-4 by default. 0 is plain least squares.
        progress: where the sums that layers are fitted by are kept while they are taken; by default nowhere.

    Returns:
        At a width of 1, new tensors in the first state's order, dtypes and devices. Above, a network in the form
        "shaped". The `features` of either say what heads that are not part of the states have to follow.

    Raises:
        ConfigError: there are not two states; there are no batches; the units of the network cannot be found, or none
            of them can stand side by side.
        CheckpointError: names or shapes differ; all that do are named.
    """
    check_alike(states)
    if len(states) != 2:
        raise ConfigError(f"two networks are matched and fitted, {len(states)} given")
    pair = [network(state, number) for number, state in enumerate(states)]
    images = spread(batches, max(2, samples))
    groups = shared_groups(units(pair[0], images[:2]), states[0])
    if by == "weights":
        matching = by_weights(states[0], states[1], groups)
    else:
        matching = by_activations(pair[0], pair[1], groups, images.split(BATCH))
    plans = _plans(pair[0], matching, width)
    merged = {name: _together(pair[0], name, states[0][name], states[1][name], plans) for name in states[0]}
    for name, layer in _fitted(pair, images, states[0], plans, ridge, progress or Progress()).items():
        for own, value in layer.items():
            merged[f"{name}.{own}"] = value.to(merged[f"{name}.{own}"])
    heads = [plan for (name, _), plan in plans.items() if name not in states[0]]
    features = [order.tolist() for order in (heads[0].first, heads[0].second)] if heads else None
    if all(merged[name].shape == states[0][name].shape for name in merged):
        return Rebased(merged, features)
    reads = [plan for (name, axis), plan in plans.items() if name.startswith("head.") and axis == 1]
    wide = bool(reads) and hasattr(pair[0], "backbone")
    return Stored("shaped", merged, {"out_features": len(reads[0].first)} if wide else {}, features)


permute_least_squares.at_most = 2  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class _Plan:
    """For each place along an axis of the result, the place in the first network and in the second, or -1."""

    first: Tensor
    second: Tensor

    @classmethod
    def same(cls, size: int) -> _Plan:
        return cls(torch.arange(size), torch.arange(size))

    @property
    def count(self) -> Tensor:
        """In how many of the networks each is."""
        return (self.first >= 0).long() + (self.second >= 0).long()

    def blocks(self, size: int) -> _Plan:
        """The plan of an axis that was flattened together with one of that size after it."""
        return _Plan(*(_blocks(order, torch.arange(size), size) for order in (self.first, self.second)))

    def gathered(self, pair: Sequence[Tensor], axis: int) -> tuple[Tensor, Tensor]:
        """Both tensors along an axis in the new order, with zeros for what one of them does not have."""
        first, second = pair
        return _gathered(first, self.first, axis), _gathered(second, self.second, axis)

    def joined(self, pair: Sequence[Tensor], axis: int) -> Tensor:
        """The mean where both have something, else what the one has."""
        a, b = self.gathered(pair, axis)
        return (a + b) / _along(self.count, a.dim(), axis)


def _blocks(order: Tensor, inner: Tensor, size: int) -> Tensor:
    return torch.where(order[:, None] >= 0, order[:, None] * size + inner, -1).flatten()


def _gathered(tensor: Tensor, order: Tensor, axis: int) -> Tensor:
    order = order.to(tensor.device)
    found = tensor.index_select(axis, order.clamp_min(0))
    return found * _along(order >= 0, tensor.dim(), axis).to(found.dtype)


def _along(values: Tensor, dims: int, axis: int) -> Tensor:
    return values.view([-1 if dim == axis % dims else 1 for dim in range(dims)])


def _plans(model: nn.Module, matching: Matching, width: float) -> dict[tuple[str, int], _Plan]:
    """For every axis along which units stand, what comes where."""
    state, modules = model.state_dict(), dict(model.named_modules())
    plans: dict[tuple[str, int], _Plan] = {}
    widened = 0
    for group, permutation, likeness in zip(matching.groups, matching.permutations, matching.similarities, strict=True):
        apart = round((width - 1) * group.size) if _widens(group, state, modules) else 0
        widened += apart
        order = likeness.argsort(stable=True)
        own, merged = order[:apart].sort().values, order[apart:].sort().values
        nothing = torch.full_like(own, -1)
        chosen = _Plan(torch.cat([merged, own, nothing]), torch.cat([permutation[merged], nothing, permutation[own]]))
        for place in group.axes:
            key = place.tensor, place.axis
            if apart:
                plans[key] = _Plan(*(_placed(place, units) for units in (chosen.first, chosen.second)))
            else:
                plan = plans.setdefault(key, _Plan.same(state[place.tensor].shape[place.axis]))
                plan.second[place.index.flatten()] = place.index[permutation].flatten()
    if width > 1 and not widened:
        raise ConfigError(f"no units of {type(model).__name__} can stand side by side at a width of {width:g}; use 1")
    return plans


def _widens(group: UnitGroup, state: State, modules: dict[str, nn.Module]) -> bool:
    """Whether all that a group's units stand in can take more of them."""
    for place in group.axes:
        module = modules.get(place.tensor.rpartition(".")[0])
        plain = isinstance(module, nn.Linear | nn.modules.batchnorm._BatchNorm)
        if isinstance(module, nn.modules.conv._ConvNd) and not module.transposed:
            plain = module.groups == 1 or module.groups == module.in_channels == module.out_channels
        alone = place.index.numel() == state[place.tensor].shape[place.axis]
        if not plain or not alone or _outer(place) is None:
            return False
    return True


def _outer(place: UnitAxis) -> bool | None:
    """Whether the places of a unit follow each other (True) or lie apart, one in each run of all units (False)."""
    count, inner = place.index.shape
    everything = torch.arange(count * inner)
    if torch.equal(place.index.flatten(), everything):
        return True
    return False if torch.equal(place.index.T.flatten(), everything) else None


def _placed(place: UnitAxis, chosen: Tensor) -> Tensor:
    """Positions along an axis of the units that were chosen, -1 for none."""
    index = torch.where(chosen[:, None] >= 0, place.index[chosen.clamp_min(0)], -1)
    return (index if _outer(place) else index.T).flatten()


def _together(
    model: nn.Module, name: str, first: Tensor, second: Tensor, plans: dict[tuple[str, int], _Plan]
) -> Tensor:
    """A tensor of the result: the mean where both networks have a row, each one's own where only one has."""
    if not is_averaged(first):
        return first.clone()
    path, _, own = name.rpartition(".")
    reads = (
        own == "weight" and first.dim() > 1 and isinstance(_module(model, path), nn.Linear | nn.modules.conv._ConvNd)
    )
    a, b = first.double().cpu(), second.double().cpu()
    have = [torch.ones((), dtype=torch.long)] * 2
    for axis in range(first.dim()):
        plan = plans.get((name, axis), _Plan.same(first.shape[axis]))
        a, b = plan.gathered((a, b), axis)
        orders = plan.first, plan.second
        if axis == 0 or not reads:  # a row adds up what it reads from both
            have = [h * _along((o >= 0).long(), first.dim(), axis) for h, o in zip(have, orders, strict=True)]
    return ((a + b) / (have[0] + have[1]).clamp_min(1)).to(first)


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _fitted(
    pair: Sequence[nn.Module],
    images: Tensor,
    state: State,
    plans: dict[tuple[str, int], _Plan],
    ridge: float,
    progress: Progress,
) -> dict[str, dict[str, Tensor]]:
    """The weights, and biases where there are any, of every layer that is part of the states."""
    layers = {
        name: _Layer(name, module, pair[1].get_submodule(name), plans)  # type: ignore[arg-type]
        for name, module in pair[0].named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and f"{name}.weight" in state
    }
    seen: list[dict[str, list[Tensor]]] = [{}, {}]

    def sums() -> tuple[dict[str, Tensor], dict[str, Any]]:
        found = {f"{name}:moments": layer.moments for name, layer in layers.items()}
        found |= {f"{name}:answers": layer.answers for name, layer in layers.items()}
        return found, {"rows": {name: layer.rows for name, layer in layers.items()}}

    def put_back(kept: Kept) -> None:
        for name, layer in layers.items():
            layer.rows = kept.told["rows"][name]
            layer.moments, layer.answers = (kept.tensors[f"{name}:{what}"] for what in ("moments", "answers"))

    with ExitStack() as stack:
        stack.enter_context(evaluating(*pair))
        for model, inputs in zip(pair, seen, strict=True):
            for name in layers:
                stack.enter_context(watched(model.get_submodule(name), inputs, name))
        for part in progress.through(_SUMS, images.split(BATCH), sums, put_back):
            for model in pair:
                model(part)
            for name in seen[0]:
                for first, second in zip(seen[0][name], seen[1][name], strict=True):
                    layers[name].add(first, second)
            for inputs in seen:
                inputs.clear()
    return {name: layer.solved(ridge) for name, layer in layers.items() if layer.rows}


class _Layer:
    """The least squares of one layer: moments of its inputs among themselves, and with what it is to answer.

    Weights are `[groups, outputs, inputs]`, with a column for the bias at the end where there is one. Convolutions of
    as many groups as channels are permuted by group.
    """

    def __init__(self, name: str, first: _Weighted, second: _Weighted, plans: dict[tuple[str, int], _Plan]) -> None:
        self.modules = first, second
        weight = first.weight
        groups = first.groups if isinstance(first, nn.Conv1d | nn.Conv2d) else 1
        outputs = plans.get((f"{name}.weight", 0), _Plan.same(weight.shape[0]))
        inputs = plans.get((f"{name}.weight", 1), _Plan.same(weight.shape[1]))
        inputs = inputs.blocks(weight[0, 0].numel())
        self.biased = first.bias is not None
        if self.biased:
            end = torch.tensor([weight[0].numel()])
            inputs = _Plan(torch.cat([inputs.first, end]), torch.cat([inputs.second, end]))
        self.grouped = groups > 1
        self.groups = outputs if self.grouped and groups == weight.shape[0] else _Plan.same(groups)
        self.outputs = outputs if groups == 1 else _Plan.same(weight.shape[0] // groups)
        self.inputs = inputs
        self.weights = [self._wide(module, groups) for module in (first, second)]
        self.rows = 0
        self.moments = self.answers = torch.zeros(())

    def _wide(self, module: _Weighted, groups: int) -> Tensor:
        weight = module.weight.detach().double().cpu().flatten(1)
        if module.bias is not None:
            weight = torch.cat([weight, module.bias.detach().double().cpu()[:, None]], 1)
        return weight.view(groups, -1, weight.shape[1])

    def add(self, first: Tensor, second: Tensor) -> None:
        for pair in zip(*(layer_rows(m, x) for m, x in zip(self.modules, (first, second), strict=True)), strict=True):
            rows = [value.double().cpu() for value in pair]
            if self.biased:
                rows = [torch.cat([value, value.new_ones(*value.shape[:2], 1)], 2) for value in rows]
            answers = [x @ weight.mT for x, weight in zip(rows, self.weights, strict=True)]
            if self.grouped:
                z, y = self.groups.joined(rows, 0), self.groups.joined(answers, 0)
            else:
                z, y = self.inputs.joined(rows, 2), self.outputs.joined(answers, 2)
            self.moments = self.moments + z.mT @ z
            self.answers = self.answers + y.mT @ z
            self.rows += z.shape[1]

    def start(self) -> Tensor:
        """The weights put together."""
        pair = self.groups.gathered(self.weights, 0)
        a, b = self.outputs.gathered(self.inputs.gathered(pair, 2), 1)
        count = self.groups.count[:, None, None] if self.grouped else self.outputs.count[None, :, None]
        return (a + b) / count

    def solved(self, ridge: float) -> dict[str, Tensor]:
        weights = self.start()
        wrong = self.answers - weights @ self.moments
        for rows, columns in self._parts():
            if len(rows) and len(columns):
                moments = self.moments[:, columns][:, :, columns]
                weights[:, rows[:, None], columns] += _solve(moments, wrong[:, rows[:, None], columns], ridge)
        flat = weights.flatten(0, 1)
        shape = self.modules[0].weight.shape
        found = {"weight": (flat[:, :-1] if self.biased else flat).reshape(len(flat), -1, *shape[2:])}
        if self.biased:
            found["bias"] = flat[:, -1]
        return found

    def _parts(self) -> list[tuple[Tensor, Tensor]]:
        """Rows of which networks, and the columns that they may read."""
        ins, outs = self.inputs, self.outputs
        kinds = (
            (outs.count == 2, ins.count > 0),
            ((outs.count == 1) & (outs.first >= 0), ins.first >= 0),
            ((outs.count == 1) & (outs.second >= 0), ins.second >= 0),
        )
        return [(rows.nonzero()[:, 0], columns.nonzero()[:, 0]) for rows, columns in kinds]


_Weighted = nn.Linear | nn.Conv1d | nn.Conv2d


def _solve(moments: Tensor, wrong: Tensor, ridge: float) -> Tensor:
    """The change X of weights with X M = `wrong`, where M are the moments with a ridge; the smallest of many."""
    scale = moments.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    ridged = moments + ridge * scale * torch.eye(moments.shape[-1], dtype=moments.dtype)
    factor, failed = torch.linalg.cholesky_ex(ridged)
    if ridge > 0 and not failed.any():
        return torch.cholesky_solve(wrong.mT, factor).mT
    return torch.linalg.lstsq(ridged, wrong.mT, driver="gelsd").solution.mT
