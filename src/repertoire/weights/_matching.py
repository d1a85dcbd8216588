"""Which unit of one network is which of another, and what lies between two networks whose units were matched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating
from repertoire.ranges import checked
from repertoire.registry import register
from repertoire.weights._batchnorm import images_of, refresh_batchnorm
from repertoire.weights._state import State, accumulator, check_alike, is_averaged
from repertoire.weights._units import UnitGroup, permute_units, units
from repertoire.weights._wide import combined, tensor_by_tensor

__all__ = [
    "Barrier",
    "Matching",
    "Rebased",
    "by_activations",
    "by_weights",
    "git_rebasin",
    "loss_barrier",
    "match",
    "own_features",
    "shared_groups",
    "spread",
]

By = Literal["weights", "activations"]

SAMPLES = 1024
"""Samples that activations are compared on."""
ROUNDS = 100
"""Most rounds over the groups; a few are the rule."""


@dataclass(frozen=True, eq=False)
class Matching:
    """The units of one network beside those of another.

    Attributes:
        groups: of both.
        permutations: for each group int64 `[units]`: unit i of the first is unit `permutation[i]` of the second.
        similarities: for each group float64 `[units]`, how alike the two units of each pair are: their inner product
            over all weights, or the mean correlation of their outputs.
    """

    groups: Sequence[UnitGroup]
    permutations: Sequence[Tensor]
    similarities: Sequence[Tensor]

    def moved(self, state: State) -> dict[str, Tensor]:
        """The second network's state with its units where those of the first are; it computes the same."""
        return permute_units(state, self.groups, self.permutations)


@torch.no_grad()
def match(
    first: nn.Module,
    second: nn.Module,
    groups: Sequence[UnitGroup],
    batches: Iterable[Tensor | Batch | tuple[Tensor, ...]] | None = None,
) -> Matching:
    r"""The units of two networks of one architecture in pairs, by their weights or by what they answer.

    By weights, as in Ainsworth, Hayase and Srinivasa, *Git Re-Basin: Merging Models modulo Permutation Symmetries*
    (2022): group by group the assignment that solves

    .. math:: \max_P \sum_{t} \langle W^{(1)}_t, P\,W^{(2)}_t \rangle

    over all tensors t of the group while the other groups stay, round after round until nothing changes. Where that
    ends depends on where it begins, so that it begins twice: from the order in which the units are, which is right for
    networks that have one start, and from units whose sorted weights are alike, which finds any permutation of a copy.
    The end with the larger sum is kept.

    By activations (Li et al., *Convergent Learning: Do different neural networks learn the same representations?*,
    2015): the assignment with the largest sum of correlations, over samples and places, between what two units answer;
    the mean over the layers of a residual stream. What a unit answers is taken after the normalisation of its layer,
    where there is one. This is exact, and needs no rounds.

    Args:
        first, second: networks of one architecture; left as they were.
        groups: of units that may be permuted, as :func:`repertoire.weights.units` gives them.
        batches: inputs to compare activations on; tensors, `Batch`, or tuples whose first element is the inputs. If
            None (default), weights are compared.

    Returns:
        The pairs: one permutation a group.

    Raises:
        ConfigError: there are no batches.
        CheckpointError: the networks differ in names or shapes.

    Example:
        >>> import torch
        >>> from repertoire.backbones import MLP
        >>> from repertoire.weights import match, permute_units, units
        >>> net, other = MLP(1, 8, hidden=5), MLP(1, 8, hidden=5)
        >>> groups = units(net, torch.zeros(2, 1, 8, 8))
        >>> other.load_state_dict(permute_units(net.state_dict(), groups, [torch.tensor([3, 0, 4, 1, 2])]))
        <All keys matched successfully>
        >>> match(net, other, groups).permutations
        [tensor([1, 3, 4, 0, 2])]
    """
    states = [{name: value.detach() for name, value in model.state_dict().items()} for model in (first, second)]
    check_alike(states)
    if batches is None:
        return by_weights(states[0], states[1], groups)
    return by_activations(first, second, groups, batches)


def by_activations(
    first: nn.Module,
    second: nn.Module,
    groups: Sequence[UnitGroup],
    batches: Iterable[Tensor | Batch | tuple[Tensor, ...]],
) -> Matching:
    """The pairs with the largest sum of correlations. The networks may have other heads."""
    tables = _correlations(first, second, groups, batches)
    permutations = [_assigned(table) for table in tables]
    return Matching(groups, permutations, [_paired(t, p) for t, p in zip(tables, permutations, strict=True)])


def by_weights(first: State, second: State, groups: Sequence[UnitGroup]) -> Matching:
    best: tuple[float, Matching] | None = None
    for start in ([torch.arange(group.size) for group in groups], _sorted_alike(first, second, groups)):
        permutations = list(start)
        moved = permute_units(second, groups, permutations)
        tables: list[Tensor] = [torch.empty(0)] * len(groups)
        for _ in range(ROUNDS):
            progress = False
            for number, group in enumerate(groups):
                table = tables[number] = _products(first, moved, group)
                change = _assigned(table)
                gain = float(_paired(table, change).sum() - table.diagonal().sum())
                if gain > 1e-12 * float(table.abs().sum()):
                    progress = True
                    permutations[number] = permutations[number][change]
                    own = {place.tensor: moved[place.tensor] for place in group.axes if place.tensor in moved}
                    moved |= permute_units(own, [group], [change])
            if not progress:
                break
        similarities = [_products(first, moved, group).diagonal().clone() for group in groups]
        total = float(sum(float(values.sum()) for values in similarities))
        if best is None or total > best[0]:
            best = total, Matching(groups, permutations, similarities)
    assert best is not None
    return best[1]


def _sorted_alike(first: State, second: State, groups: Sequence[UnitGroup]) -> list[Tensor]:
    """Units whose weights are alike when they are sorted, which no permutation of other units changes."""
    found = []
    for group in groups:
        table = torch.zeros(group.size, group.size, dtype=torch.float64)
        for mine, theirs in _slices(first, second, group):
            table -= torch.cdist(mine.flatten(1).sort(1).values, theirs.flatten(1).sort(1).values).square()
        found.append(_assigned(table))
    return found


def _products(first: State, second: State, group: UnitGroup) -> Tensor:
    table = torch.zeros(group.size, group.size, dtype=torch.float64)
    for mine, theirs in _slices(first, second, group):
        table += mine.flatten(1) @ theirs.flatten(1).T
    return table


def _slices(first: State, second: State, group: UnitGroup) -> Iterator[tuple[Tensor, Tensor]]:
    """What each unit has in each tensor of weights, `[units, k, ...]` in wide precision."""
    for place in group.axes:
        if place.tensor not in first or not is_averaged(first[place.tensor]):
            continue
        if place.tensor.endswith(("running_mean", "running_var")):
            continue  # what was measured, and not learned
        pair = [state[place.tensor].movedim(place.axis, 0).cpu() for state in (first, second)]
        yield tuple(value.to(accumulator(value))[place.index] for value in pair)  # type: ignore[misc]


def _assigned(table: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return torch.from_numpy(columns).long()


def _paired(table: Tensor, permutation: Tensor) -> Tensor:
    return table[torch.arange(len(table)), permutation]


_CHANNELS = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
_LAST = (nn.Linear, nn.LayerNorm)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def _correlations(
    first: nn.Module,
    second: nn.Module,
    groups: Sequence[UnitGroup],
    batches: Iterable[Tensor | Batch | tuple[Tensor, ...]],
) -> list[Tensor]:
    """For each group the correlations `[units, units]` of what the units of two networks answer."""
    watched = _watched(first, groups)
    modules = [dict(model.named_modules()) for model in (first, second)]
    seen: list[dict[str, Tensor]] = [{}, {}]
    handles = []
    for side in (0, 1):
        for name in watched:

            def watch(_: nn.Module, __: object, output: Tensor, name: str = name, side: int = side) -> None:
                seen[side][name] = output

            handles.append(modules[side][name].register_forward_hook(watch))
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}
    try:
        with evaluating(first, second):
            for batch in batches:
                inputs = images_of(batch)
                for model in (first, second):
                    model(inputs)
                for name in watched:
                    last = isinstance(modules[0][name], _LAST)
                    x, y = (s[name].movedim(-1 if last else 1, 0).flatten(1).cpu() for s in seen)
                    x, y = (value.to(accumulator(value)) for value in (x, y))
                    found = [x @ y.T, x.sum(1), y.sum(1), x.square().sum(1), y.square().sum(1)]
                    sums[name] = [a + b for a, b in zip(sums[name], found, strict=True)] if name in sums else found
                    counts[name] = counts.get(name, 0) + x.shape[1]
    finally:
        for handle in handles:
            handle.remove()
    if not sums and watched:
        raise ConfigError("batches is empty; give some samples to compare activations on")
    tables = [torch.zeros(group.size, group.size, dtype=torch.float64) for group in groups]
    for name, entries in watched.items():
        (product, *means_and_squares), count = sums[name], counts[name]
        a, b, aa, bb = (value / count for value in means_and_squares)
        scale = ((aa - a**2).clamp_min(0)[:, None] * (bb - b**2).clamp_min(0)).sqrt()
        # A unit that never changes is like no other.
        table = torch.where(scale > 1e-12, (product / count - a[:, None] * b) / scale.clamp_min(1e-12), 0.0)
        for number, index in entries:
            tables[number] += table[index][:, index]
    shares = [sum(number == owner for e in watched.values() for owner, _ in e) for number in range(len(groups))]
    return [table / max(share, 1) for table, share in zip(tables, shares, strict=True)]


def _watched(model: nn.Module, groups: Sequence[UnitGroup]) -> dict[str, list[tuple[int, Tensor]]]:
    """Modules whose outputs are units, each with the groups that they are of and the units' places among them."""
    modules = dict(model.named_modules())
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for number, group in enumerate(groups):
        makers = [
            (name, place.index[:, 0])
            for place in group.axes
            if place.axis == 0 and place.tensor.endswith("weight") and place.index.shape[1] == 1
            if isinstance(modules.get(name := place.tensor.rpartition(".")[0]), (*_CHANNELS, *_LAST))
        ]
        norms = [maker for maker in makers if isinstance(modules[maker[0]], _NORMS)]
        for name, index in norms or makers:
            found.setdefault(name, []).append((number, index))
    return found


class Rebased(dict[str, Tensor]):
    """A state, and where its features came from.

    Attributes:
        features: where heads are not part of the states, the number of each state's feature that stands at each place;
            None elsewhere.
    """

    def __init__(self, state: State, features: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(state)
        self.features = features


@register("weight-operators", "git-rebasin")
@checked
@torch.no_grad()
def git_rebasin(
    states: Sequence[State],
    network: Callable[[State, int], nn.Module],
    batches: Callable[[int | None], Iterator[Batch]],
    *,
    by: By = "weights",
) -> Rebased:
    """Git Re-Basin: the mean of networks from different starts, after their units were put in the order of the first's.

    Ainsworth, Hayase and Srinivasa, *Git Re-Basin: Merging Models modulo Permutation Symmetries* (2022). Each state is
    matched with the first by :func:`repertoire.weights.match`, which changes nothing of what it computes, and all are
    averaged in float64. It works the better the wider the networks are; for narrow ones least squares go further
    (`permute-least-squares`).

    Networks with batch normalisation want :func:`repertoire.weights.refresh_batchnorm` afterwards; without it, the mean
    of two networks answers next to nothing, as its activations hardly vary.

    Args:
        states: of one architecture, from any starts. Integers and booleans are taken from the first.
        network: `network(state, of)`, a new network with these weights, and the head of that run where heads are not
            part of the states.
        batches: `batches(None)`, samples of all runs.
        by: "weights" (default) or "activations", on up to 1,024 samples from all over the batches.

    Returns:
        New tensors in the first state's order, dtypes and devices. Its `features` say what heads that are not part of
        the states have to follow.

    Raises:
        ConfigError: there are no states or no batches, or the units of the network cannot be found.
        CheckpointError: names or shapes differ; all that do are named.
    """
    check_alike(states)
    first = network(states[0], 0)
    images = spread(batches, SAMPLES if by == "activations" else 2)
    groups = shared_groups(units(first, images[:2]), states[0])
    moved: list[State] = [states[0]]
    orders = [own_features(first, states[0], groups, [None] * len(groups))]
    for number, state in enumerate(states[1:], start=1):
        if by == "activations":
            matching = by_activations(first, network(state, number), groups, images.split(128))
        else:
            matching = by_weights(states[0], state, groups)
        moved.append(matching.moved(state))
        orders.append(own_features(first, states[0], groups, matching.permutations))
    merged = tensor_by_tensor(
        moved, None, lambda _, tensors, __: combined(tensors, [1.0] * len(moved), divisor=len(moved))
    )
    return Rebased(merged, None if orders[0] is None else [order.tolist() for order in orders if order is not None])


def spread(batches: Callable[[int | None], Iterator[Batch]], most: int) -> Tensor:
    """At most so many inputs, evenly from all over the samples of all runs, which may be sorted by class.

    Raises:
        ConfigError: there are no samples.
    """
    total = sum(len(batch.images) for batch in batches(None))
    if total == 0:
        raise ConfigError("batches is empty; give some training samples")
    wanted = torch.arange(min(most, total)) * total // min(most, total)
    parts, start = [], 0
    for batch in batches(None):
        inside = wanted[(wanted >= start) & (wanted < start + len(batch.images))] - start
        parts.append(batch.images[inside.to(batch.images.device)])
        start += len(batch.images)
    return torch.cat(parts)


def shared_groups(groups: Sequence[UnitGroup], state: State) -> list[UnitGroup]:
    """Without the groups that lie in heads which are no part of the states."""
    return [group for group in groups if any(place.tensor in state for place in group.axes)]


def own_features(
    model: nn.Module, state: State, groups: Sequence[UnitGroup], permutations: Sequence[Tensor | None]
) -> Tensor | None:
    """Which features of a network stand at each place once its units are permuted; None where the head is in the state.

    The features are what a tensor reads that the state does not have.
    """
    whole = model.state_dict()
    order: Tensor | None = None
    for group, permutation in zip(groups, permutations, strict=True):
        for place in group.axes:
            if place.tensor not in state:
                if order is None:
                    order = torch.arange(whole[place.tensor].shape[place.axis])
                if permutation is not None:
                    order[place.index.flatten()] = place.index[permutation].flatten()
    return order


@dataclass(frozen=True)
class Barrier:
    """The loss along the line between two networks.

    Attributes:
        losses: at evenly spaced points, the first and the last being the networks themselves.
        height: by how much the loss rises above the line between its two ends, at most; 0 where it does not.
    """

    losses: tuple[float, ...]
    height: float


@torch.no_grad()
def loss_barrier(
    network: Callable[[State, int], nn.Module],
    states: Sequence[State],
    batches: Callable[[int | None], Iterator[Batch]],
    points: int = 5,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Barrier:
    r"""The loss along the straight line between the weights of two networks, and how high it rises.

    Frankle et al., *Linear Mode Connectivity and the Lottery Ticket Hypothesis* (2020):

    .. math:: \max_\alpha \; L\big((1 - \alpha)\,\theta_1 + \alpha\,\theta_2\big) - (1 - \alpha)\,L(\theta_1) -
        \alpha\,L(\theta_2)

    Networks without a barrier lie in one valley, and averages of them are worth trying. Between the ends, batch
    normalisation is measured anew at every point, without which there would be a barrier nearly always.

    Args:
        network: `network(state, of)`, a new network with these weights.
        states: two, of one architecture.
        batches: `batches(None)`, samples to measure statistics and the loss on.
        points: how many, 3 or more, both ends included; 5 by default.
        loss: of logits and targets, a mean over the samples; cross-entropy by default.

    Raises:
        ConfigError: there are not two states, fewer than three points, or no batches.
        CheckpointError: the states differ in names or shapes.

    Example:
        >>> import torch
        >>> from repertoire.data import Batch
        >>> from repertoire.weights import loss_barrier
        >>> def network(state, of=0):
        ...     net = torch.nn.Linear(1, 2, bias=False)
        ...     net.load_state_dict(state)
        ...     return net
        >>> states = [{"weight": torch.tensor([[0.0], [w]])} for w in (-2.0, 2.0)]
        >>> batch = Batch((torch.tensor([[1.0], [-1.0]]),), torch.tensor([0, 1]), torch.arange(2))
        >>> found = loss_barrier(network, states, lambda of: iter([batch]), points=3)
        >>> [round(value, 3) for value in found.losses], found.height
        ([0.127, 0.693, 2.127], 0.0)
    """
    if len(states) != 2:
        raise ConfigError(f"a barrier lies between two states, {len(states)} given")
    if points < 3:
        raise ConfigError(f"points must be 3 or more, found {points}")
    check_alike(states)
    losses = []
    for number in range(points):
        share = number / (points - 1)
        if number in (0, points - 1):
            state: State = states[number // (points - 1)]
        else:
            between = (1 - share, share)
            state = tensor_by_tensor(states, None, lambda _, tensors, __, w=between: combined(tensors, w))  # type: ignore[misc]
        net = network(state, 0).eval()
        if number not in (0, points - 1):
            refresh_batchnorm(net, batches(None))
        total, count = 0.0, 0
        for batch in batches(None):
            total += float(loss(net(batch.images), batch.targets)) * len(batch)
            count += len(batch)
        if count == 0:
            raise ConfigError("batches is empty; give some samples to measure the loss on")
        losses.append(total / count)
    line = [losses[0] + (losses[-1] - losses[0]) * number / (points - 1) for number in range(points)]
    return Barrier(tuple(losses), max(0.0, *(a - b for a, b in zip(losses, line, strict=True))))
